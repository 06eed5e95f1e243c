//! Carrying commands out: finding the box, and the commands on objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arapi::arclst::Expect;
use arapi::arwadm::{
    ChangeRequest, DeployAnswer, HistoryView, ObjectList, ObjectView, TransactionAnswer,
    TransactionRequest,
};
use arapi::client::path_part;
use arapi::names::{Kind, ObjectName};
use serde_json::Value;

use crate::cli::{Cli, Command, Common, Files, Form, NewCommand, PackagesAction};
use crate::client::{Api, parse_server};
use crate::config::{self, Config, Profile};
use crate::failure::Failure;
use crate::out::{self, Table, moment};
use crate::pin::{Pinned, Trust, parse_fingerprint};
use crate::states::States;
use crate::yaml::{self, Document};
use crate::{
    dev, enmasse, messages, network, new, openapi, packages, people, profile, prompt, services,
    system, trace, update, watch,
};

/// Where the box is if nothing says otherwise.
const DEFAULT_SERVER: &str = "https://127.0.0.1:8183";
/// What is configured by hand and may travel to another box, in the order in which it can be applied.  `System` and
/// `Network` describe one box and are exported only where they are asked for.
const BY_HAND: &[Kind] = &[
    Kind::Role,
    Kind::User,
    Kind::QuotaTier,
    Kind::Security,
    Kind::SecurityGroup,
    Kind::Grant,
    Kind::Service,
    Kind::Channel,
    Kind::Outgoing,
    Kind::UserConfig,
];

/// What a command runs with.
#[derive(Debug)]
pub(crate) struct Context {
    /// What every command takes.
    pub(crate) common: Common,
    /// The config file's path.
    pub(crate) path: PathBuf,
    /// The config file.
    pub(crate) config: Config,
    /// The address of the box.
    pub(crate) server: String,
}

impl Context {
    fn new(common: Common) -> Result<Self, Failure> {
        let path = config::path()?;
        let config = Config::load(&path)?;
        let profile = config.profiles.get(&common.profile);
        let server = match (&common.server, profile) {
            (Some(server), _) => parse_server(server)?,
            (None, Some(profile)) => profile.server.clone(),
            (None, None) => DEFAULT_SERVER.to_owned(),
        };
        Ok(Self { common, path, config, server })
    }

    /// What is remembered of this box; nothing where the profile is of another one.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.config
            .profiles
            .get(&self.common.profile)
            .filter(|profile| profile.server == self.server)
    }

    /// Remembers a profile.
    pub(crate) fn remember(&mut self, profile: Profile) -> Result<(), Failure> {
        self.config.profiles.insert(self.common.profile.clone(), profile);
        self.config.save(&self.path)
    }

    /// Remembers a profile under a name of its own.
    pub(crate) fn remember_as(&mut self, name: &str, profile: &Profile) -> Result<(), Failure> {
        self.config.profiles.insert(name.to_owned(), profile.clone());
        self.config.save(&self.path)
    }

    /// Forgets a profile, unless it is another one by now.
    pub(crate) fn forget(&mut self, name: &str, profile: &Profile) -> Result<(), Failure> {
        // Other commands may have changed the file meanwhile.
        self.config = Config::load(&self.path)?;
        if self.config.profiles.get(name) != Some(profile) {
            return Ok(());
        }
        self.config.profiles.remove(name);
        self.config.save(&self.path)
    }

    /// The certificate that is expected.
    pub(crate) fn pinned(&self) -> Result<Option<Pinned>, Failure> {
        if let Some(given) = &self.common.fingerprint {
            let fingerprint = parse_fingerprint(given).ok_or_else(|| {
                Failure::Usage(
                    "a fingerprint is a SHA-256: 64 hexadecimal digits were expected".to_owned(),
                )
            })?;
            return Ok(Some(Pinned { fingerprint, key: None }));
        }
        Ok(self.profile().and_then(|profile| {
            let fingerprint = profile.fingerprint.clone()?;
            Some(Pinned { fingerprint, key: profile.key.clone() })
        }))
    }

    /// The box, called with the token at hand.
    pub(crate) fn api(&self) -> Result<Api, Failure> {
        let kept = self.profile().and_then(|profile| profile.token.clone());
        let token = self.common.token.clone().or(kept);
        let trust = self.pinned()?.map_or(Trust::Nothing, Trust::Pinned);
        Api::new(self.server.clone(), token, trust)
    }
}

/// Runs a command.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    let json = common.json;
    if let Command::New(NewCommand::Service { name, folder }) = &command {
        return new::service(name, folder);
    }
    let mut context = Context::new(common)?;
    match command {
        Command::Claim { code, user, password } => {
            people::claim(&mut context, code, user, password).await
        }
        Command::Login { user, password } => people::login(&mut context, user, password).await,
        Command::Logout => people::logout(&mut context).await,
        Command::Dev(args) => dev::dev(&mut context, &args).await,
        command => {
            let api = context.api()?;
            on_box(&api, command, json).await
        }
    }
}

async fn on_box(api: &Api, command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Whoami => people::whoami(api, json).await,
        Command::Get { kind, name, output } => {
            let output = if json { Form::Json } else { output };
            get(api, parse_kind(&kind)?, name.as_deref(), output).await
        }
        Command::Apply { files, dry_run } => apply(api, &files, dry_run, json).await,
        Command::Export { kinds } => export(api, &kinds, json).await,
        Command::Diff { files } => diff(api, &files, json).await,
        Command::Delete { kind, names, file } => {
            delete(api, kind.as_deref(), &names, &file, json).await
        }
        Command::ImportOpenapi(args) => openapi::command::import(api, &args, json).await,
        Command::ImportEnmasse(args) => enmasse::command::import(api, &args, json).await,
        Command::History { kind, name, most } => {
            history(api, parse_kind(&kind)?, &name, most, json).await
        }
        Command::Deploy { files, dry_run, requirements, upgrade, group, verbose } => {
            let with = services::With { dry_run, requirements, upgrade, group };
            services::deploy(api, &files, with, verbose, json).await
        }
        Command::Packages { action: None } => packages::list(api, json).await,
        Command::Packages { action: Some(PackagesAction::Upload { files }) } => {
            packages::upload(api, &files, json).await
        }
        Command::Packages { action: Some(PackagesAction::Remove { wheels }) } => {
            packages::remove(api, &wheels).await
        }
        Command::Rollback { module, to, verbose } => {
            services::rollback(api, &module, to, verbose, json).await
        }
        Command::Versions { module } => services::versions(api, &module, json).await,
        Command::Invoke { service, data, timeout_ms } => {
            services::invoke(api, &service, data.as_deref(), timeout_ms, json).await
        }
        Command::Profile(args) => profile::profile(api, &args, json).await,
        Command::Ping { outgoing } => services::ping(api, &outgoing, json).await,
        Command::Logs { follow, cid, unit, level, tail } => {
            let query = arapi::logs::LogQuery { cid, unit, level, tail: Some(tail), follow };
            watch::logs(api, &query, json).await
        }
        Command::Trace { cid: Some(cid), .. } => trace::show(api, &cid, json).await,
        Command::Trace { cid: None, failed, slow, most } => {
            let query = arapi::trace::TraceQuery { failed, slow_ms: slow, most: Some(most) };
            trace::list(api, &query, json).await
        }
        Command::Status => watch::status(api, json).await,
        Command::Messages { channel, filter } => messages::show(api, &channel, &filter, json).await,
        Command::Audit { filter } => watch::audit(api, &filter, json).await,
        Command::User(command) => people::user(api, command, json).await,
        Command::Token(command) => people::token(api, command, json).await,
        Command::Secret(command) => people::secret(api, command, json).await,
        Command::Security(command) => people::security(api, command, json).await,
        Command::Update(command) => update::update(api, command, json).await,
        Command::System(command) => system::system(api, command, json).await,
        Command::Network(command) => network::network(api, command, json).await,
        Command::Support(command) => system::support(api, command, json).await,
        Command::FactoryReset { hostname } => system::factory_reset(api, hostname, json).await,
        // These need no login and were carried out before.
        Command::Claim { .. }
        | Command::Login { .. }
        | Command::Logout
        | Command::Dev(_)
        | Command::New(_)
        | Command::Completion { .. } => Ok(()),
    }
}

/// Reads a kind as a person writes it.
pub(crate) fn parse_kind(text: &str) -> Result<Kind, Failure> {
    text.parse().map_err(|err: arapi::names::NameError| Failure::Usage(err.to_string()))
}

/// Reads a name.
pub(crate) fn parse_name(text: &str) -> Result<ObjectName, Failure> {
    ObjectName::parse(text).map_err(|err| Failure::Usage(err.to_string()))
}

/// The path of an object.
pub(crate) fn object_path(kind: Kind, name: &str) -> String {
    format!("/v1/objects/{kind}/{}", path_part(name))
}

async fn get(api: &Api, kind: Kind, name: Option<&str>, output: Form) -> Result<(), Failure> {
    let objects = match name {
        Some(name) => vec![api.get::<ObjectView>(&object_path(kind, name)).await?],
        None => api.get::<ObjectList>(&format!("/v1/objects/{kind}")).await?.objects,
    };
    if output == Form::Yaml {
        return out::bytes(as_yaml(&objects).as_bytes());
    }
    let states = States::of(api, kind).await;
    if output == Form::Table {
        return table(kind, &objects, &states).print(&format!("there is no {kind}"));
    }
    let mut documents = objects.iter().map(|object| with_state(object, &states));
    if name.is_some() {
        out::json(&documents.next())
    } else {
        out::json(&documents.collect::<Vec<_>>())
    }
}

/// An object with how it is, as `status`, where that is known.
fn with_state(object: &ObjectView, states: &States) -> Value {
    // What came as JSON can be written as JSON again.
    let mut document = serde_json::to_value(object).unwrap_or_default();
    if let (Some(fields), Some(state)) =
        (document.as_object_mut(), states.whole(object.name.as_str()))
    {
        fields.insert("status".to_owned(), state.clone());
    }
    document
}

fn as_yaml(objects: &[ObjectView]) -> String {
    objects
        .iter()
        .map(|object| {
            yaml::write(object.kind, object.name.as_str(), &applicable(object.kind, &object.spec))
        })
        .collect()
}

/// A spec without what follows from elsewhere and cannot be applied.
fn applicable(kind: Kind, spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        match kind {
            Kind::Service => {
                for derived in ["module", "class", "summary"] {
                    fields.remove(derived);
                }
            }
            Kind::User => drop(fields.remove("password_hash")),
            _ => {}
        }
    }
    spec
}

fn cell(spec: &Value, field: &str) -> String {
    match spec.pointer(&format!("/{}", field.replace('.', "/"))) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| match item {
                Value::String(text) => text.clone(),
                other => match other.get("name").and_then(Value::as_str) {
                    Some(name) => name.to_owned(),
                    None => other.to_string(),
                },
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

fn table(kind: Kind, objects: &[ObjectView], states: &States) -> Table {
    let columns: &[(&str, &str)] = match kind {
        Kind::Channel => &[
            ("METHOD", "method"),
            ("PATH", "url_path"),
            ("SERVICE", "service"),
            ("OUTGOING", "pass_through.outgoing"),
            ("SECURITY", "security"),
            ("ACTIVE", "is_active"),
        ],
        Kind::Outgoing => &[("TYPE", "type"), ("HOST", "host"), ("ACTIVE", "is_active")],
        Kind::Security => {
            &[("TYPE", "type"), ("USER", "username"), ("HEADER", "header"), ("ACTIVE", "is_active")]
        }
        Kind::SecurityGroup => &[("MEMBERS", "members")],
        Kind::QuotaTier => &[("DEFINITION", "definition")],
        Kind::Grant => &[
            ("SECURITIES", "securities"),
            ("GROUPS", "groups"),
            ("SERVICES", "services"),
            ("CHANNELS", "channels"),
            ("ACTIVE", "is_active"),
        ],
        Kind::Service => &[
            ("MODULE", "module"),
            ("CLASS", "class"),
            ("GROUP", "group"),
            ("TIMEOUT", "timeout_ms"),
            ("ACTIVE", "is_active"),
            ("SUMMARY", "summary"),
        ],
        Kind::Module => &[("FILE", "file_name"), ("VERSION", "version"), ("ORIGIN", "origin")],
        Kind::User => &[("ROLES", "roles"), ("ACTIVE", "is_active")],
        Kind::Role => &[("PERMISSIONS", "permissions")],
        Kind::Token => &[("USER", "user"), ("DESCRIPTION", "description")],
        Kind::Node => &[("TITLE", "title")],
        Kind::System => &[("HOSTNAME", "hostname"), ("TIMEZONE", "timezone"), ("NTP", "ntp")],
        Kind::Network => &[("INTERFACES", "interfaces")],
        Kind::UserConfig => &[],
    };
    let mut titles = vec!["NAME"];
    titles.extend(columns.iter().map(|(title, _)| *title));
    titles.extend(["REVISION", "CHANGED", "BY"]);
    // Last, as it may be a sentence.
    titles.extend(States::titles(kind));
    let mut table = Table::new(&titles);
    for object in objects {
        let mut row = vec![object.name.to_string()];
        row.extend(columns.iter().map(|(_, field)| cell(&object.spec, field)));
        row.extend([
            object.revision.to_string(),
            moment(object.changed_ms),
            object.changed_by.clone(),
        ]);
        row.extend(states.cells(kind, object.name.as_str()));
        table.row(row);
    }
    table
}

async fn export(api: &Api, kinds: &[String], json: bool) -> Result<(), Failure> {
    let wanted: Vec<Kind> = kinds.iter().map(|kind| parse_kind(kind)).collect::<Result<_, _>>()?;
    let by_hand = wanted.is_empty();
    let kinds = if by_hand { BY_HAND.to_vec() } else { wanted };
    let mut objects = Vec::new();
    for kind in kinds {
        let list: ObjectList = api.get(&format!("/v1/objects/{kind}")).await?;
        objects.extend(list.objects.into_iter().filter(|object| !by_hand || is_by_hand(object)));
    }
    if json { out::json(&objects) } else { out::bytes(as_yaml(&objects).as_bytes()) }
}

/// A service is only of interest where an admin has set something on it.
fn is_by_hand(object: &ObjectView) -> bool {
    let spec = &object.spec;
    object.kind != Kind::Service
        || spec.get("is_active") == Some(&Value::Bool(false))
        || spec.get("timeout_ms").is_some()
        || spec.get("max_concurrency").is_some()
        || spec.get("group").and_then(Value::as_str) != Some("default")
}

/// Reads all objects of the files.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut all: Vec<Document> = Vec::new();
    for (file, text) in read_texts(paths)? {
        for document in yaml::read(&file, &text)? {
            let first =
                all.iter().find(|one| one.kind == document.kind && one.name == document.name);
            if let Some(first) = first {
                return Err(yaml::twice(first, &document).into());
            }
            all.push(document);
        }
    }
    if all.is_empty() {
        let files: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
        return Err(yaml::YamlError::Empty { files: files.join(", ") }.into());
    }
    Ok(all)
}

fn read_texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::Read { path, source }
    };
    let mut texts = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            texts.push(("stdin".to_owned(), prompt::all_of_stdin()?));
        } else if std::fs::metadata(path).map_err(fault(path))?.is_dir() {
            let entries = std::fs::read_dir(path).map_err(fault(path))?;
            let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            files.retain(|file| {
                file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
            });
            files.sort();
            for file in files {
                let text = std::fs::read_to_string(&file).map_err(fault(&file))?;
                texts.push((file.display().to_string(), text));
            }
        } else {
            let text = std::fs::read_to_string(path).map_err(fault(path))?;
            texts.push((path.display().to_string(), text));
        }
    }
    Ok(texts)
}

pub(crate) fn puts(documents: &[Document]) -> Vec<ChangeRequest> {
    let put = |document: &Document| ChangeRequest::Put {
        kind: document.kind,
        name: document.name.clone(),
        spec: document.spec.clone(),
        expect: Expect::Any,
    };
    documents.iter().map(put).collect()
}

pub(crate) async fn commit(
    api: &Api,
    changes: Vec<ChangeRequest>,
    dry_run: bool,
    documents: &[Document],
) -> Result<TransactionAnswer, Failure> {
    let request = TransactionRequest { changes, dry_run };
    api.post("/v1/transactions", &request).await.map_err(|err| with_place(err, documents))
}

/// Puts file and line before what the box says about an object.
fn with_place(failure: Failure, documents: &[Document]) -> Failure {
    let Failure::Refused { status, mut body } = failure else { return failure };
    let about = documents.iter().find(|document| {
        body.message.starts_with(&format!("{} `{}`", document.kind, document.name))
    });
    if let Some(document) = about {
        body.message = format!("{} line {}: {}", document.file, document.line, body.message);
    }
    Failure::Refused { status, body }
}

async fn apply(api: &Api, files: &Files, dry_run: bool, json: bool) -> Result<(), Failure> {
    let (documents, answer) = put_all(api, files, dry_run).await?;
    if json {
        return out::json(&answer);
    }
    tell_applied(&documents, &answer, dry_run)
}

/// Makes and changes the objects of files, all or none.
pub(crate) async fn put_all(
    api: &Api,
    files: &Files,
    dry_run: bool,
) -> Result<(Vec<Document>, TransactionAnswer), Failure> {
    let documents = read_all(&files.file)?;
    let answer = commit(api, puts(&documents), dry_run, &documents).await?;
    Ok((documents, answer))
}

/// Tells people what became of each object.
pub(crate) fn tell_applied(
    documents: &[Document],
    answer: &TransactionAnswer,
    dry_run: bool,
) -> Result<(), Failure> {
    for document in documents {
        let changed = answer
            .changed
            .iter()
            .find(|object| object.kind == document.kind && object.name == document.name);
        let what = changed.map_or("unchanged", |object| object.what.as_str());
        let would = if dry_run && what != "unchanged" { " (not carried out)" } else { "" };
        out::line(&format!("{} {} {what}{would}", document.kind, document.name))?;
    }
    tell_secrets(answer)
}

/// Shows generated secrets, and warnings on stderr.
pub(crate) fn tell_secrets(answer: &TransactionAnswer) -> Result<(), Failure> {
    for generated in &answer.generated {
        let (object, field) = (&generated.object, &generated.field);
        out::line(&format!("{object} {field}: {} (shown only this time)", generated.value))?;
    }
    for warning in &answer.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

async fn diff(api: &Api, files: &Files, json: bool) -> Result<(), Failure> {
    let documents = read_all(&files.file)?;
    let answer = commit(api, puts(&documents), true, &documents).await?;
    if json {
        out::json(&answer)?;
    } else {
        for object in &answer.changed {
            out::line(&format!("{} {} {}", object.kind, object.name, object.what))?;
            let lines = differences(object.before.as_ref(), object.after.as_ref());
            if lines.is_empty() {
                out::line("  (its secret would be replaced)")?;
            }
            for line in lines {
                out::line(&format!("  {line}"))?;
            }
        }
        tell_secrets(&TransactionAnswer { generated: Vec::new(), ..answer.clone() })?;
    }
    if answer.changed.is_empty() { Ok(()) } else { Err(Failure::No) }
}

/// The fields that differ, with their old and new values.
fn differences(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let flat = |value: Option<&Value>| {
        let mut fields = BTreeMap::new();
        if let Some(value) = value {
            flatten("", value, &mut fields);
        }
        fields
    };
    let (before, after) = (flat(before), flat(after));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let mut lines = Vec::new();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old != new {
            lines.extend(old.map(|old| format!("- {path}: {old}")));
            lines.extend(new.map(|new| format!("+ {path}: {new}")));
        }
    }
    lines
}

fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        other => drop(into.insert(path.to_owned(), other.to_string())),
    }
}

async fn delete(
    api: &Api,
    kind: Option<&str>,
    names: &[String],
    files: &[PathBuf],
    json: bool,
) -> Result<(), Failure> {
    let documents = if files.is_empty() { Vec::new() } else { read_all(files)? };
    let mut wanted: Vec<(Kind, ObjectName)> =
        documents.iter().map(|document| (document.kind, document.name.clone())).collect();
    if let Some(kind) = kind {
        let kind = parse_kind(kind)?;
        for name in names {
            wanted.push((kind, parse_name(name)?));
        }
    }
    // A module goes with its services: the box has a call of its own for that.
    let (modules, others): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(kind, _)| *kind == Kind::Module);
    if !others.is_empty() {
        let delete = |(kind, name)| ChangeRequest::Delete { kind, name, expect: Expect::Any };
        let changes = others.into_iter().map(delete).collect();
        let answer = commit(api, changes, false, &documents).await?;
        if json {
            out::json(&answer)?;
        } else {
            for object in &answer.changed {
                out::line(&format!("{} {} {}", object.kind, object.name, object.what))?;
            }
        }
    }
    for (_, module) in modules {
        let path = format!("/v1/deployments/{}", path_part(module.as_str()));
        let answer: DeployAnswer = api.delete(&path).await?;
        if json {
            out::json(&answer)?;
        } else {
            out::line(&format!("Module {module} deleted"))?;
            for service in &answer.removed {
                out::line(&format!("Service {service} deleted"))?;
            }
        }
    }
    Ok(())
}

async fn history(api: &Api, kind: Kind, name: &str, most: u32, json: bool) -> Result<(), Failure> {
    let path = format!("/v1/history/{kind}/{}?most={most}", path_part(name));
    let entries: Vec<HistoryView> = api.get(&path).await?;
    if json {
        return out::json(&entries);
    }
    for (index, entry) in entries.iter().enumerate() {
        let what = if entry.object.is_some() { "changed" } else { "deleted" };
        let (when, who) = (moment(entry.time_ms), &entry.who);
        out::line(&format!("revision {}  {when}  {what} by {who}", entry.revision))?;
        let before = entries.get(index + 1).and_then(|entry| entry.object.as_ref());
        if index + 1 < entries.len() {
            let spec = |object: Option<&ObjectView>| object.map(|object| object.spec.clone());
            let (before, after) = (spec(before), spec(entry.object.as_ref()));
            for line in differences(before.as_ref(), after.as_ref()) {
                out::line(&format!("  {line}"))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arapi::error::{ErrorBody, ErrorCode};
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_name_the_fields_with_old_and_new_value() {
        let before = json!({"a": 1, "retry": {"attempts": 3}, "gone": true, "list": ["x"]});
        let after = json!({"a": 1, "retry": {"attempts": 4}, "list": ["x", "y"]});
        assert_eq!(
            differences(Some(&before), Some(&after)),
            [
                "- gone: true",
                "- list: [\"x\"]",
                "+ list: [\"x\",\"y\"]",
                "- retry.attempts: 3",
                "+ retry.attempts: 4"
            ]
        );
        assert_eq!(differences(None, Some(&json!({"a": "b"}))), ["+ a: \"b\""]);
        assert_eq!(differences(Some(&before), Some(&before)), Vec::<String>::new());
    }

    #[test]
    fn what_the_box_says_of_an_object_gets_its_place() {
        let documents =
            yaml::read("x.yaml", "kind: Node\nname: a\n---\nkind: Node\nname: b\n").unwrap();
        let body = ErrorBody {
            code: ErrorCode::Invalid,
            message: "Node `b`: no".to_owned(),
            request_id: String::new(),
            details: None,
        };
        let failure = Failure::Refused { status: 400, body: Box::new(body) };
        assert_eq!(with_place(failure, &documents).to_string(), "x.yaml line 4: Node `b`: no");
    }

    #[test]
    fn an_export_can_be_applied() {
        let service = json!({"module": "photos", "class": "Get", "summary": "", "is_active": false,
            "group": "default"});
        assert_eq!(
            applicable(Kind::Service, &service),
            json!({"is_active": false, "group": "default"})
        );
        let view = |spec: Value| ObjectView {
            kind: Kind::Service,
            name: ObjectName::parse("x").unwrap(),
            spec,
            revision: 1,
            created_ms: 0,
            changed_ms: 0,
            changed_by: String::new(),
        };
        assert!(is_by_hand(&view(service)));
        let plain = json!({"module": "m", "class": "C", "summary": "", "is_active": true, "group": "default"});
        assert!(!is_by_hand(&view(plain)));
        let text = as_yaml(&[view(json!({"module": "m", "class": "C", "timeout_ms": 5}))]);
        assert_eq!(yaml::read("x", &text).unwrap()[0].spec, json!({"timeout_ms": 5}));
    }

    #[test]
    fn cells_are_written_for_people() {
        let spec = json!({
            "a": true, "b": ["x", "y"], "c": null, "d": 5, "i": [{"name": "end0"}], "p": {"q": "r"},
        });
        let cells: Vec<String> =
            ["a", "b", "c", "d", "e", "i", "p.q"].map(|field| cell(&spec, field)).into();
        assert_eq!(cells, ["yes", "x, y", "", "5", "", "end0", "r"]);
    }
}
