//! `arctl import-enmasse`: reads the files, asks what the box has, applies the plan in one transaction, and tells.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use arapi::arclst::Expect;
use arapi::arwadm::{
    ChangeRequest, GeneratedSecret, ObjectList, TransactionAnswer, TransactionRequest,
};
use arapi::names::Kind;
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::{self, Entry, ExportError};
use super::fields::Env;
use super::plan::{self, Missing, Outcome, Plan, Present, Told};
use super::user_config;
use crate::cli::ImportEnmasse;
use crate::client::Api;
use crate::failure::Failure;
use crate::{out, prompt};

/// What an import can make.
const KINDS: &[Kind] = &[
    Kind::QuotaTier,
    Kind::Security,
    Kind::SecurityGroup,
    Kind::Grant,
    Kind::Channel,
    Kind::Outgoing,
    Kind::UserConfig,
];
/// How a file of what was not taken begins; only such a file is written over.
const HEADER: &str = "# What `arctl import-enmasse` did not take";

/// What an import did, or would do.
#[derive(Debug, Serialize)]
struct Report<'a> {
    dry_run: bool,
    items: &'a [Told],
    objects: Vec<Became>,
    missing_secrets: &'a [Missing],
    generated_secrets: &'a [GeneratedSecret],
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    not_taken_file: Option<String>,
    revision: Option<u64>,
}

/// What became of an object.
#[derive(Debug, Serialize)]
struct Became {
    object: String,
    what: String,
}

/// Imports.
pub(crate) async fn import(api: &Api, args: &ImportEnmasse, json: bool) -> Result<(), Failure> {
    let entries = read(&args.files)?;
    let env = environment(args.env_file.as_deref())?;
    let mut present = Present::new();
    for kind in KINDS {
        let list: ObjectList = api.get(&format!("/v1/objects/{kind}")).await?;
        let specs =
            list.objects.into_iter().map(|view| ((*kind, view.name.to_string()), view.spec));
        present.extend(specs);
    }
    let plan = plan::plan(&entries, &env, &present);
    let left: Vec<&Entry> = entries
        .iter()
        .zip(&plan.told)
        .filter(|(_, told)| told.outcome == Outcome::NotTaken)
        .map(|(entry, _)| entry)
        .collect();
    let mut not_taken_file = None;
    if !left.is_empty() && !args.dry_run {
        let path = args.not_taken.clone().unwrap_or_else(|| beside(&args.files));
        // Before anything changes: what cannot be kept would be lost.
        keep(&path, &left)?;
        not_taken_file = Some(path.display().to_string());
    }
    let answer = commit(api, &plan, args.dry_run).await?;
    let report = Report {
        dry_run: args.dry_run,
        items: &plan.told,
        objects: became(&plan, answer.as_ref()),
        missing_secrets: &plan.missing,
        generated_secrets: answer.as_ref().map_or(&[], |answer| &answer.generated),
        warnings: answer.as_ref().map_or(&[], |answer| &answer.warnings),
        not_taken_file,
        revision: answer.as_ref().map(|answer| answer.revision),
    };
    if json {
        out::json(&report)?
    } else {
        tell(&report)?
    }
    if left.is_empty() { Ok(()) } else { Err(Failure::No) }
}

/// Reads exports and ini files.
fn read(files: &[PathBuf]) -> Result<Vec<Entry>, Failure> {
    let mut entries: Vec<Entry> = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let fault = |source| Failure::Read { path: path.clone(), source };
        if path.as_os_str() == "-" {
            entries.extend(export("stdin", &prompt::all_of_stdin()?)?);
            continue;
        }
        let bytes = std::fs::read(path).map_err(fault)?;
        let is_ini = path.extension().is_some_and(|end| end == "ini" || end == "conf");
        if is_ini {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let entry = user_config::entry(&name, &stem, &bytes);
            entries.push(entry.map_err(|err| Failure::Usage(format!("{name} {err}")))?);
        } else {
            let text = String::from_utf8(bytes)
                .map_err(|_| Failure::Usage(format!("{name} is not UTF-8")))?;
            entries.extend(export(&name, &text)?);
        }
    }
    if entries.is_empty() {
        let files: Vec<String> = files.iter().map(|path| format!("`{}`", path.display())).collect();
        return Err(ExportError::Empty { files: files.join(", ") }.into());
    }
    Ok(entries)
}

fn export(name: &str, text: &str) -> Result<Vec<Entry>, ExportError> {
    document::read(name, text, &mut |path| {
        std::fs::read_to_string(path).map_err(|err| err.to_string())
    })
}

/// The environment, with the variables of the file before those of the process.
fn environment(file: Option<&Path>) -> Result<Env, Failure> {
    let of_process = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut env: Env = of_process.collect();
    let Some(path) = file else { return Ok(env) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with(['#', ';', '[']) {
            continue;
        }
        let pair = line.strip_prefix("export ").unwrap_or(line).split_once('=');
        let (name, value) = pair.ok_or_else(|| {
            let path = path.display();
            Failure::Usage(format!("{path} line {}: `NAME=value` was expected", index + 1))
        })?;
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|quote| {
            value.strip_prefix(*quote).and_then(|value| value.strip_suffix(*quote))
        });
        env.insert(name.trim().to_owned(), quoted.unwrap_or(value).to_owned());
    }
    Ok(env)
}

/// Where what is not taken is kept if nothing says otherwise: in the current folder, named after the export.
fn beside(files: &[PathBuf]) -> PathBuf {
    let first = files.iter().find_map(|path| path.file_stem()).filter(|stem| *stem != "-");
    let stem = first.map_or_else(|| "export".into(), |stem| stem.to_string_lossy());
    PathBuf::from(format!("{stem}.not-taken.yaml"))
}

/// Keeps entries as an export that can be imported again; only for the eyes of who imports, because there may be secrets.
fn keep(path: &Path, entries: &[&Entry]) -> Result<(), Failure> {
    if let Ok(text) = std::fs::read_to_string(path)
        && !text.starts_with(HEADER)
    {
        return Err(Failure::Usage(format!(
            "`{}` is there already, and no file of what was not taken; name another with `--not-taken`",
            path.display()
        )));
    }
    let mut sections: BTreeMap<&str, Vec<&Map<String, Value>>> = BTreeMap::new();
    for entry in entries {
        sections.entry(&entry.section).or_default().push(&entry.fields);
    }
    // What was read as YAML can be written as YAML: this cannot fail.
    let text = serde_saphyr::to_string(&sections).unwrap_or_default();
    let text = format!("{HEADER}; a later release may.\n{}\n", text.trim_end());
    let fault = |source| Failure::Write { path: path.to_owned(), source };
    let draft = path.with_extension("yaml.new");
    std::fs::remove_file(&draft).ok();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(fault)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault)?;
    std::fs::rename(&draft, path).map_err(fault)
}

async fn commit(
    api: &Api,
    plan: &Plan,
    dry_run: bool,
) -> Result<Option<TransactionAnswer>, Failure> {
    if plan.objects.is_empty() {
        return Ok(None);
    }
    let put = |planned: &plan::Planned| ChangeRequest::Put {
        kind: planned.kind,
        name: planned.name.clone(),
        spec: planned.spec.clone(),
        expect: Expect::Any,
    };
    let request = TransactionRequest { changes: plan.objects.iter().map(put).collect(), dry_run };
    let answer = api.post("/v1/transactions", &request).await;
    answer.map(Some).map_err(|failure| with_place(failure, plan))
}

/// Puts file and line before what the box says about an object.
fn with_place(failure: Failure, plan: &Plan) -> Failure {
    let Failure::Refused { status, mut body } = failure else { return failure };
    let about = plan
        .objects
        .iter()
        .find(|planned| body.message.starts_with(&format!("{} `{}`", planned.kind, planned.name)));
    let about = about.map(|planned| format!("{}/{}", planned.kind, planned.name));
    let told =
        about.and_then(|object| plan.told.iter().find(|told| told.objects.contains(&object)));
    if let Some(told) = told {
        body.message = format!("{} line {}: {}", told.file, told.line, body.message);
    }
    Failure::Refused { status, body }
}

fn became(plan: &Plan, answer: Option<&TransactionAnswer>) -> Vec<Became> {
    let changed = answer.map_or(&[][..], |answer| &answer.changed);
    plan.objects
        .iter()
        .map(|planned| {
            let one = changed
                .iter()
                .find(|object| object.kind == planned.kind && object.name == planned.name);
            Became {
                object: format!("{}/{}", planned.kind, planned.name),
                what: one.map_or("unchanged", |object| object.what.as_str()).to_owned(),
            }
        })
        .collect()
}

/// Tells a person.
fn tell(report: &Report<'_>) -> Result<(), Failure> {
    out::bytes(text(report).as_bytes())?;
    for warning in report.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

fn text(report: &Report<'_>) -> String {
    let what: BTreeMap<&str, &str> =
        report.objects.iter().map(|one| (one.object.as_str(), one.what.as_str())).collect();
    let mut lines = Vec::new();
    for told in report.items {
        let word = match told.outcome {
            Outcome::Taken => "taken",
            Outcome::Changed => "changed",
            Outcome::NotTaken => "not taken",
            Outcome::NotNeeded => "not needed",
        };
        let objects: Vec<String> = told
            .objects
            .iter()
            .map(|object| match what.get(object.as_str()) {
                Some(what) => format!("{object} {what}"),
                None => object.clone(),
            })
            .collect();
        let to =
            if objects.is_empty() { String::new() } else { format!(": {}", objects.join(", ")) };
        let place = if told.outcome == Outcome::NotTaken {
            format!(" ({} line {})", told.file, told.line)
        } else {
            String::new()
        };
        lines.push(format!("{word:<11}{} {}{place}{to}", told.section, told.name));
        lines.extend(told.notes.iter().map(|note| format!("{:11}- {note}", "")));
        lines.extend(told.why.iter().map(|why| format!("{:11}why: {why}", "")));
        lines.extend(told.instead.iter().map(|instead| format!("{:11}instead: {instead}", "")));
    }
    let count = |outcome| report.items.iter().filter(|told| told.outcome == outcome).count();
    lines.push(String::new());
    lines.push(format!(
        "{} taken, {} changed, {} not taken, {} not needed{}",
        count(Outcome::Taken),
        count(Outcome::Changed),
        count(Outcome::NotTaken),
        count(Outcome::NotNeeded),
        if report.dry_run { " (not carried out)" } else { "" }
    ));
    if let Some(file) = &report.not_taken_file {
        lines.push(format!("what was not taken is kept in `{file}`"));
    }
    for missing in report.missing_secrets {
        lines
            .push(format!("secret missing: {} {}: {}", missing.object, missing.field, missing.why));
    }
    for made in report.generated_secrets {
        let (object, field) = (&made.object, &made.field);
        // What only stands in for a secret of somebody else is of no use to anybody.
        let stands_in = report
            .missing_secrets
            .iter()
            .any(|missing| missing.object == *object && missing.why.contains("switched off"));
        if !stands_in {
            lines.push(format!("{object} {field}: {} (shown only this time)", made.value));
        }
    }
    format!("{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_variables_may_have_sections_quotes_and_comments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env.ini");
        std::fs::write(&path, "[env]\n# one\nA=1\nexport B = \"x y\"\nPATH=own\n").unwrap();
        let env = environment(Some(&path)).unwrap();
        assert_eq!((&*env["A"], &*env["B"], &*env["PATH"]), ("1", "x y", "own"));
        std::fs::write(&path, "A\n").unwrap();
        let told = environment(Some(&path)).unwrap_err().to_string();
        assert_eq!(told, format!("{} line 1: `NAME=value` was expected", path.display()));
    }

    #[test]
    fn what_is_not_taken_is_kept_for_one_pair_of_eyes_and_can_be_read_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.not-taken.yaml");
        let text = "scheduler:\n- name: nightly\n  extra: \"a: 1\\nb\"\n  password: x\n";
        let entries = export("e.yaml", text).unwrap();
        keep(&path, &entries.iter().collect::<Vec<_>>()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = export("x", &std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(again[0].fields, entries[0].fields);
        keep(&path, &[]).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(
            keep(&path, &[]).unwrap_err().to_string(),
            format!(
                "`{}` is there already, and no file of what was not taken; name another with `--not-taken`",
                path.display()
            )
        );
    }
}
