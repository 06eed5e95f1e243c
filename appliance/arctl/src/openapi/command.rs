//! `arctl import-openapi`: reads the document, asks what the box has, writes the module, applies the objects, and tells.

use std::path::{Path, PathBuf};

use arapi::arclst::Expect;
use arapi::arwadm::{
    ChangeRequest, GeneratedSecret, ObjectList, TransactionAnswer, TransactionRequest,
};
use arapi::names::Kind;
use serde::Serialize;

use super::channels::{Channels, channels};
use super::document::Document;
use super::module::{Written, look, write};
use super::outgoing::{Outgoing, outgoing};
use super::plan::{Plan, Told, name_of};
use super::{module_name, names};
use crate::cli::{ImportAs, ImportOnly, ImportOpenapi};
use crate::client::Api;
use crate::enmasse::{Missing, Outcome, Present};
use crate::failure::Failure;
use crate::{out, prompt};

/// What an import can make.
const KINDS: &[Kind] = &[Kind::Security, Kind::Channel, Kind::Outgoing];

/// What an import did, or would do.
#[derive(Debug, Serialize)]
struct Report<'a> {
    dry_run: bool,
    items: &'a [Told],
    objects: Vec<Became>,
    module: Option<ModuleFile>,
    missing_secrets: &'a [Missing],
    generated_secrets: &'a [GeneratedSecret],
    warnings: Vec<String>,
    revision: Option<u64>,
}

/// What became of an object.
#[derive(Debug, Serialize)]
struct Became {
    object: String,
    what: String,
}

/// What became of the module's file.
#[derive(Debug, Serialize)]
struct ModuleFile {
    file: String,
    what: Written,
}

/// Imports.
pub(crate) async fn import(api: &Api, args: &ImportOpenapi, json: bool) -> Result<(), Failure> {
    let (file, text) = read(&args.file)?;
    let doc = Document::read(&file, &text)?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&doc));
    let with_objects = args.only != Some(ImportOnly::Module);
    let with_module = args.only != Some(ImportOnly::Objects);
    let mut present = Present::new();
    if with_objects {
        for kind in KINDS {
            let list: ObjectList = api.get(&format!("/v1/objects/{kind}")).await?;
            let specs =
                list.objects.into_iter().map(|view| ((*kind, view.name.to_string()), view.spec));
            present.extend(specs);
        }
    }
    let (plan, default_file) = planned(&doc, args, &name, &present)?;
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(default_file));
    let module = match with_module {
        true => Some(look(&path, &plan.module, args.force)?),
        false => None,
    };
    let mut answer = None;
    if with_objects && !plan.objects.is_empty() {
        // First what the box says: what it refuses is to leave no file behind.
        answer = Some(commit(api, &plan, true).await?);
    }
    if !args.dry_run {
        if module.is_some_and(|what| what != Written::Unchanged) {
            write(&path, &plan.module)?;
        }
        if answer.is_some() {
            answer = Some(commit(api, &plan, false).await?);
        }
    }
    let mut warnings = plan.warnings.clone();
    let of_box = answer.iter().flat_map(|answer| answer.warnings.clone());
    // One for each channel would hide the others: what is not deployed yet is in the module.
    let (open, others): (Vec<_>, Vec<_>) =
        of_box.partition(|told| told.contains("is not deployed"));
    warnings.extend(others);
    if !open.is_empty() {
        let (count, file) = (open.len(), path.display());
        warnings.push(format!(
            "{count} of the channels answer 404 until their services are deployed (`arctl deploy {file}`)"
        ));
    }
    let report = Report {
        dry_run: args.dry_run,
        items: &plan.told,
        objects: if with_objects { became(&plan, answer.as_ref()) } else { Vec::new() },
        module: module.map(|what| ModuleFile { file: path.display().to_string(), what }),
        missing_secrets: if with_objects { &plan.missing } else { &[] },
        generated_secrets: answer.as_ref().map_or(&[], |answer| &answer.generated),
        warnings,
        revision: answer.as_ref().filter(|_| !args.dry_run).map(|answer| answer.revision),
    };
    if json {
        out::json(&report)?;
    } else {
        out::bytes(text_of(&report).as_bytes())?;
        for warning in &report.warnings {
            eprintln!("warning: {warning}");
        }
    }
    let is_all = plan.told.iter().all(|told| told.outcome != Outcome::NotTaken);
    if is_all { Ok(()) } else { Err(Failure::No) }
}

fn read(path: &Path) -> Result<(String, String), Failure> {
    if path.as_os_str() == "-" {
        return Ok(("stdin".to_owned(), prompt::all_of_stdin()?));
    }
    let name = path.display().to_string();
    let bytes =
        std::fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    let text =
        String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{name} is not UTF-8")))?;
    Ok((name, text))
}

/// The plan, and what the module's file is called unless somebody says otherwise.
fn planned(
    doc: &Document,
    args: &ImportOpenapi,
    name: &str,
    present: &Present,
) -> Result<(Plan, String), Failure> {
    match args.import_as {
        ImportAs::Outgoing => {
            let secret = match (args.secret_stdin, args.ask_secret) {
                (true, _) => Some(prompt::secret("secret", prompt::From::Stdin)?),
                (false, true) => {
                    Some(prompt::secret("secret that the other side gave", prompt::From::Terminal)?)
                }
                (false, false) => None,
            };
            let read = |path: &PathBuf| {
                std::fs::read_to_string(path)
                    .map_err(|source| Failure::Read { path: path.clone(), source })
            };
            let said = Outgoing {
                name: name.to_owned(),
                host: args.host.clone(),
                scheme: args.scheme.clone(),
                security: args.security.clone(),
                username: args.username.clone(),
                secret,
                tls_ca_pem: args.tls_ca.as_ref().map(read).transpose()?,
            };
            let plan = outgoing(doc, &said, present).map_err(Failure::Usage)?;
            let file = format!("{}_client.py", names::snake(name));
            module_name(args.output.as_deref().unwrap_or_else(|| Path::new(&file)))?;
            Ok((plan, file))
        }
        ImportAs::Channels => {
            let said = Channels {
                module: name.to_owned(),
                base_path: args.base_path.clone(),
                security: args.security.clone(),
                username: args.username.clone(),
            };
            if let Some(base) = &args.base_path
                && !base.starts_with('/')
            {
                let base = base.escape_debug();
                return Err(Failure::Usage(format!(
                    "`{base}` is no path: something like `/api/v1` was expected"
                )));
            }
            let file = format!("{}.py", names::snake(name));
            module_name(args.output.as_deref().unwrap_or_else(|| Path::new(&file)))?;
            Ok((channels(doc, &said, present), file))
        }
    }
}

async fn commit(api: &Api, plan: &Plan, dry_run: bool) -> Result<TransactionAnswer, Failure> {
    let changes = plan.objects.iter().map(|planned| ChangeRequest::Put {
        kind: planned.kind,
        name: planned.name.clone(),
        spec: planned.spec.clone(),
        expect: Expect::Any,
    });
    let request = TransactionRequest { changes: changes.collect(), dry_run };
    api.post("/v1/transactions", &request).await
}

fn became(plan: &Plan, answer: Option<&TransactionAnswer>) -> Vec<Became> {
    let changed = answer.map_or(&[][..], |answer| &answer.changed);
    let each = plan.objects.iter().map(|planned| {
        let one = changed
            .iter()
            .find(|object| object.kind == planned.kind && object.name == planned.name);
        Became {
            object: format!("{}/{}", planned.kind, planned.name),
            what: one.map_or("unchanged", |object| object.what.as_str()).to_owned(),
        }
    });
    each.collect()
}

/// What is told to a person.
fn text_of(report: &Report<'_>) -> String {
    let mut lines = Vec::new();
    for told in report.items {
        let word = match told.outcome {
            Outcome::Taken => "taken",
            Outcome::Changed => "changed",
            Outcome::NotTaken => "not taken",
            Outcome::NotNeeded => "not needed",
        };
        let became = |name: &String| {
            let found = report.objects.iter().find(|one| one.object == *name);
            found.map_or_else(|| name.clone(), |one| format!("{name} {}", one.what))
        };
        let into: Vec<String> = told.into.iter().map(became).collect();
        let to = if into.is_empty() { String::new() } else { format!(": {}", into.join(", ")) };
        let is_plain = told.outcome == Outcome::Taken;
        let place =
            if is_plain { String::new() } else { format!(" (line {}, {})", told.line, told.place) };
        lines.push(format!("{word:<11}{}{place}{to}", told.what));
        lines.extend(told.notes.iter().map(|note| format!("{:11}- {note}", "")));
        lines.extend(told.why.iter().map(|why| format!("{:11}why: {why}", "")));
        lines.extend(told.instead.iter().map(|instead| format!("{:11}instead: {instead}", "")));
    }
    let count = |outcome| report.items.iter().filter(|told| told.outcome == outcome).count();
    lines.push(String::new());
    lines.push(format!(
        "{} taken, {} changed, {} not taken{}",
        count(Outcome::Taken),
        count(Outcome::Changed),
        count(Outcome::NotTaken),
        if report.dry_run { " (not carried out)" } else { "" }
    ));
    if let Some(module) = &report.module {
        let what = match module.what {
            Written::Created => "created",
            Written::Updated => "updated",
            Written::Unchanged => "unchanged",
        };
        lines.push(format!("module `{}` {what}", module.file));
    }
    for missing in report.missing_secrets {
        lines.push(format!("to be set: {} {}: {}", missing.object, missing.field, missing.why));
    }
    for made in report.generated_secrets {
        let (object, field) = (&made.object, &made.field);
        // What only stands in for a secret of somebody else is of no use to anybody.
        if !report.missing_secrets.iter().any(|missing| missing.object == *object) {
            lines.push(format!("{object} {field}: {} (shown only this time)", made.value));
        }
    }
    format!("{}\n", lines.join("\n"))
}
