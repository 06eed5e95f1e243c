//! Deployments carried out: checked in a fresh worker, committed in one transaction, and waited for until they
//! are live.
//!
//! **Invariant:** nothing is committed that has not loaded as a whole in a fresh worker.

use std::collections::BTreeMap;
use std::time::Duration;

use arapi::arclst::{HistoryEntry, Transaction};
use arapi::arsrv::{
    CheckRequest, CheckVerdict, FoundService, LoadFault, ModuleSource, Packages, ResolveRequest,
    ResolveVerdict,
};
use arapi::arwadm::{AuditEntry, DeployAnswer, ModuleInfo, ModuleVersion};
use arapi::error::ErrorCode;
use arapi::objects::{ModuleSpec, Requirements};
use arapi::{Kind, Object, Spec};
use arbase::Chain;
use arbase::http::{ApiError, current_cid};

use crate::deployment::{self, DeployPlan, Deployed, sentence};
use crate::gate::Caller;
use crate::objects::is_conflict;
use crate::remote::passed_on;
use crate::server::App;

/// Longest time for getting every wheel.
const RESOLVE_LIMIT: Duration = Duration::from_secs(150);
/// Longest time for a check, which may build an environment.
const CHECK_LIMIT: Duration = Duration::from_secs(180);
/// How often a deployment is planned again because something changed in between.
const ATTEMPTS: u32 = 3;
/// Entries of a module's history that are looked at.
const HISTORY: u32 = 1000;

/// Why a deployment did not happen.
#[derive(Debug)]
pub(crate) enum DeployError {
    /// The sources are at fault.
    Fault(LoadFault),
    /// Something else.
    Api(ApiError),
}

impl From<LoadFault> for DeployError {
    fn from(fault: LoadFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ApiError> for DeployError {
    fn from(err: ApiError) -> Self {
        Self::Api(err)
    }
}

impl From<DeployError> for ApiError {
    fn from(err: DeployError) -> Self {
        match err {
            DeployError::Api(err) => err,
            DeployError::Fault(fault) => {
                let refused = Self::new(ErrorCode::Refused, sentence(&fault));
                // A fault is texts and numbers: this cannot fail.
                refused.with_details(serde_json::to_value(fault).unwrap_or_default())
            }
        }
    }
}

/// What is to be deployed.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Files, deployed together.
    pub(crate) files: Vec<ModuleSource>,
    /// Modules to be removed.
    pub(crate) gone: Vec<String>,
    /// How it came: `api`, `pickup`, `ide`, `rollback to N`.
    pub(crate) origin: String,
    /// Only check.
    pub(crate) dry_run: bool,
    /// The packages of the files.
    pub(crate) packages: WantedPackages,
    /// The group of workers that their services are to run in.
    pub(crate) group: Option<String>,
}

/// Which packages files are deployed with.
#[derive(Debug, Default)]
pub(crate) enum WantedPackages {
    /// Each file those that it has.
    #[default]
    Keep,
    /// What a `requirements.txt` says.
    Text {
        /// The file; empty: none.
        text: String,
        /// Whether it is resolved again where it has not changed.
        upgrade: bool,
    },
    /// Those of an earlier version.
    Recorded(Option<Requirements>),
}

/// Deploys; returns once it is live.
pub(crate) async fn deploy(
    app: &App,
    caller: &Caller,
    wanted: Wanted,
) -> Result<DeployAnswer, DeployError> {
    let names = if wanted.gone.is_empty() {
        deployment::check_files(&wanted.files)?
    } else {
        wanted.gone.clone()
    };
    // One at a time: each is checked against what the one before has left.
    let _one = app.deploying.lock().await;
    let mut present = load(app, &wanted).await?;
    if let Some(missing) = wanted.gone.iter().find(|module| !present.modules.contains_key(*module))
    {
        return Err(ApiError::not_found(format!("there is no module `{missing}`")).into());
    }
    if let Some(group) = &wanted.group {
        check_group(group)?;
    }
    let packages = packages(app, &wanted, &present).await?;
    let mut changed: Vec<ModuleSource> =
        deployment::changed(&wanted.files, &packages, &present).into_iter().cloned().collect();
    if wanted.group.is_some() {
        changed.clone_from(&wanted.files);
    }
    let found = if changed.is_empty() && wanted.gone.is_empty() {
        known(&present)
    } else {
        let request = CheckRequest {
            modules: changed,
            removed: wanted.gone.clone(),
            packages: packages.clone(),
            group: wanted.group.clone(),
        };
        let client = app.arsrv().0.with_limit(CHECK_LIMIT);
        match arapi::arsrv::Client(client).check(&request).await {
            Ok(CheckVerdict::Loads { services }) => services,
            Ok(CheckVerdict::Refused(fault)) => return Err(fault.into()),
            Err(err) => return Err(passed_on("check a deployment", &err).into()),
        }
    };
    let mut attempt = 1;
    let (plan, revision) = loop {
        let found = of_users(&found, &present, &wanted);
        let new = deployment::New {
            files: &wanted.files,
            gone: &wanted.gone,
            packages: &packages,
            group: wanted.group.as_deref(),
            origin: &wanted.origin,
        };
        let plan = deployment::plan(&present, &new, &found)?;
        let transaction = Transaction {
            changes: plan.changes.clone(),
            who: caller.who.clone(),
            cid: Some(current_cid().to_string()),
            dry_run: wanted.dry_run,
        };
        if transaction.changes.is_empty() {
            let revision = app.arclst().status().await.map(|status| status.revision);
            break (plan, revision.map_err(|err| passed_on("read the store's revision", &err))?);
        }
        match app.arclst().commit(&transaction).await {
            Ok(committed) => break (plan, committed.revision),
            Err(err) if is_conflict(&err) && attempt < ATTEMPTS => {
                attempt += 1;
                present = load(app, &wanted).await?;
            }
            Err(err) => return Err(passed_on("commit a deployment", &err).into()),
        }
    };
    if !wanted.dry_run {
        note(app, caller, &plan, &present, &wanted).await?;
        app.arsrv().wait_for(revision).await.map_err(|err| not_live(revision, &err))?;
    }
    let services: Vec<FoundService> =
        found.into_iter().filter(|service| names.contains(&service.module)).collect();
    let DeployPlan { modules, removed, .. } = plan;
    let elapsed_ms = caller.arrived.elapsed().as_secs_f64() * 1000.0;
    for module in &modules {
        log::info!(cid:% = current_cid(), who = caller.who, module = module.name, version = module.version,
            changed = module.changed, origin = wanted.origin, dry_run = wanted.dry_run, revision,
            elapsed_ms; "deployed");
    }
    Ok(DeployAnswer { revision, modules, services, removed, elapsed_ms })
}

/// The rules of a group's name are those of the object.
fn check_group(group: &str) -> Result<(), ApiError> {
    let spec = serde_json::json!({"module": "m", "class": "C", "group": group});
    match Spec::parse(Kind::Service, "s", spec) {
        Ok(_) => Ok(()),
        Err(arapi::objects::SpecError::Rule { field, rule, .. }) => {
            Err(ApiError::invalid(format!("field `{field}`: {rule}")))
        }
        Err(other) => Err(ApiError::invalid(other.to_string())),
    }
}

/// What the files are to have, every wheel of it there.
async fn packages(app: &App, wanted: &Wanted, present: &Deployed) -> Result<Packages, DeployError> {
    let (text, upgrade) = match &wanted.packages {
        WantedPackages::Keep => return Ok(Packages::Keep),
        WantedPackages::Recorded(None) => return Ok(Packages::Without),
        WantedPackages::Recorded(Some(these)) => return Ok(Packages::These(these.clone())),
        WantedPackages::Text { text, .. } if text.trim().is_empty() => {
            return Ok(Packages::Without);
        }
        WantedPackages::Text { text, upgrade } => (text, *upgrade),
    };
    // What was resolved once stays as it is until somebody asks for something else.
    if !upgrade && let Some(same) = deployment::same_requirements(&wanted.files, text, present) {
        return Ok(Packages::These(same.clone()));
    }
    let stem = |file: &ModuleSource| file.file_name.trim_end_matches(".py").to_owned();
    let request = ResolveRequest {
        requirements: text.clone(),
        modules: wanted.files.iter().map(stem).collect(),
        group: wanted.group.clone(),
    };
    let client = app.arsrv().0.with_limit(RESOLVE_LIMIT);
    match arapi::arsrv::Client(client).resolve(&request).await {
        Ok(ResolveVerdict::Resolved(these)) => Ok(Packages::These(these)),
        Ok(ResolveVerdict::Refused(fault)) => Err(fault.into()),
        Err(err) => Err(passed_on("resolve requirements", &err).into()),
    }
}

/// The deployment is kept and comes into effect as soon as the core is there; the caller has to know
/// that it has not yet.
fn not_live(revision: u64, err: &arapi::ClientError) -> ApiError {
    log::error!(cid:% = current_cid(), revision, error:% = Chain(err); "a deployment is not live");
    ApiError::unavailable(format!(
        "the deployment is kept (revision {revision}) but not live yet: {}",
        Chain(err)
    ))
}

async fn load(app: &App, wanted: &Wanted) -> Result<Deployed, ApiError> {
    let client = app.arclst();
    let (modules, services) =
        tokio::join!(client.list(Some(Kind::Module)), client.list(Some(Kind::Service)));
    let modules = modules.map_err(|err| passed_on("list modules", &err))?;
    let services = services.map_err(|err| passed_on("list services", &err))?;
    let mut present = Deployed::of(modules.objects.into_iter().chain(services.objects));
    for file in &wanted.files {
        let module = file.file_name.trim_end_matches(".py");
        if present.modules.contains_key(module) {
            continue;
        }
        let history = match client.history(Kind::Module, module, 2).await {
            Ok(history) => history,
            Err(err) if err.code() == Some(ErrorCode::NotFound) => Vec::new(),
            Err(err) => return Err(passed_on("read a module's history", &err)),
        };
        let last = history.iter().find_map(|entry| module_in(entry)).map(|spec| spec.version);
        if let Some(last) = last {
            present.last_versions.insert(module.to_owned(), last);
        }
    }
    Ok(present)
}

fn module_in(entry: &HistoryEntry) -> Option<&ModuleSpec> {
    match entry.object.as_ref().map(|object| &object.spec) {
        Some(Spec::Module(spec)) => Some(spec),
        _ => None,
    }
}

/// The services as they were found when they were deployed.
fn known(present: &Deployed) -> Vec<FoundService> {
    let found = |(name, (_, spec)): (&String, &(u64, arapi::objects::ServiceSpec))| FoundService {
        name: name.clone(),
        module: spec.module.clone(),
        class: spec.class.clone(),
        line: 0,
        summary: spec.summary.clone(),
        doc: String::new(),
        is_async: false,
        warms_up: false,
        verbs: Vec::new(),
        input: None,
        output: None,
    };
    present.services.iter().map(found).collect()
}

/// Only what is in users' modules: the core's own services are no objects.
fn of_users(found: &[FoundService], present: &Deployed, wanted: &Wanted) -> Vec<FoundService> {
    let is_users = |module: &str| {
        present.modules.contains_key(module)
            || wanted.files.iter().any(|file| file.file_name.strip_suffix(".py") == Some(module))
    };
    found.iter().filter(|service| is_users(&service.module)).cloned().collect()
}

async fn note(
    app: &App,
    caller: &Caller,
    plan: &DeployPlan,
    present: &Deployed,
    wanted: &Wanted,
) -> Result<(), ApiError> {
    let short = |version: u64, sha256: &str, origin: &str| serde_json::json!({"version": version, "sha256": sha256, "origin": origin});
    let before = |module: &str| {
        present.modules.get(module).map(|(_, spec)| short(spec.version, &spec.sha256, &spec.origin))
    };
    let mut entries = Vec::new();
    for module in plan.modules.iter().filter(|module| module.changed) {
        let file = wanted
            .files
            .iter()
            .find(|file| file.file_name.strip_suffix(".py") == Some(module.name.as_str()));
        let sha256 = file.map(|file| crate::tokens::sha256_hex(file.source.as_bytes()));
        entries.push(AuditEntry {
            before: before(&module.name),
            after: Some(short(module.version, &sha256.unwrap_or_default(), &wanted.origin)),
            ..app.entry(caller, format!("Module/{}", module.name))
        });
    }
    for module in &wanted.gone {
        entries.push(AuditEntry {
            before: before(module),
            ..app.entry(caller, format!("Module/{module}"))
        });
    }
    app.note(entries).await
}

/// The deployed modules.
pub(crate) async fn list(app: &App) -> Result<Vec<ModuleInfo>, ApiError> {
    let client = app.arclst();
    let (modules, services) =
        tokio::join!(client.list(Some(Kind::Module)), client.list(Some(Kind::Service)));
    let modules = modules.map_err(|err| passed_on("list modules", &err))?;
    let services = services.map_err(|err| passed_on("list services", &err))?;
    let mut of_module: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Object { name, spec, .. } in services.objects {
        if let Spec::Service(spec) = spec {
            of_module.entry(spec.module).or_default().push(name.to_string());
        }
    }
    let info = |object: Object| match object.spec {
        Spec::Module(spec) => Some(ModuleInfo {
            services: of_module.remove(object.name.as_str()).unwrap_or_default(),
            name: object.name.to_string(),
            file_name: spec.file_name,
            version: spec.version,
            sha256: spec.sha256,
            time_ms: object.changed_ms,
            who: object.changed_by,
            origin: spec.origin,
            packages: spec.requirements.map(|it| it.lock).unwrap_or_default(),
        }),
        _ => None,
    };
    Ok(modules.objects.into_iter().filter_map(info).collect())
}

/// The versions of a module, newest first.
pub(crate) async fn versions(app: &App, module: &str) -> Result<Vec<ModuleVersion>, ApiError> {
    let history = history(app, module).await?;
    let is_there = history.first().is_some_and(|entry| entry.object.is_some());
    let mut versions: Vec<ModuleVersion> = Vec::new();
    for entry in &history {
        let Some(spec) = module_in(entry) else { continue };
        if versions.iter().any(|version| version.version == spec.version) {
            continue;
        }
        versions.push(ModuleVersion {
            version: spec.version,
            current: is_there && versions.is_empty(),
            sha256: spec.sha256.clone(),
            time_ms: entry.time_ms,
            who: entry.who.clone(),
            origin: spec.origin.clone(),
            packages: spec.requirements.as_ref().map(|it| it.lock.clone()).unwrap_or_default(),
        });
    }
    Ok(versions)
}

/// What a rollback deploys: file and packages of version `to`, or of the newest version with others than the
/// one that serves.
pub(crate) async fn rollback_source(
    app: &App,
    module: &str,
    to: Option<u64>,
) -> Result<(ModuleSource, Option<Requirements>, u64), ApiError> {
    let history = history(app, module).await?;
    let specs: Vec<&ModuleSpec> = history.iter().filter_map(module_in).collect();
    let current =
        specs.first().filter(|_| history.first().is_some_and(|entry| entry.object.is_some()));
    let found = match to {
        Some(to) => specs.iter().find(|spec| spec.version == to),
        None => specs.iter().find(|spec| {
            current.is_none_or(|now| {
                let differs = spec.sha256 != now.sha256 || spec.requirements != now.requirements;
                spec.version < now.version && differs
            })
        }),
    };
    match (found, to) {
        (Some(spec), _) => {
            let (file_name, source) = (spec.file_name.clone(), spec.source.clone());
            Ok((ModuleSource { file_name, source }, spec.requirements.clone(), spec.version))
        }
        (None, Some(to)) => {
            let known: Vec<String> = specs.iter().map(|spec| spec.version.to_string()).collect();
            Err(ApiError::not_found(format!(
                "module `{module}` has no version {to}; there are {}",
                known.join(", ")
            )))
        }
        (None, None) => Err(ApiError::new(
            ErrorCode::Conflict,
            format!("module `{module}` has no version before the one that serves"),
        )),
    }
}

async fn history(app: &App, module: &str) -> Result<Vec<HistoryEntry>, ApiError> {
    let history = app.arclst().history(Kind::Module, module, HISTORY).await;
    match history {
        Ok(history) if !history.is_empty() => Ok(history),
        Ok(_) => Err(ApiError::not_found(format!("there is no module `{module}`"))),
        Err(err) if err.code() == Some(ErrorCode::NotFound) => {
            Err(ApiError::not_found(format!("there is no module `{module}`")))
        }
        Err(err) => Err(passed_on("read a module's history", &err)),
    }
}
