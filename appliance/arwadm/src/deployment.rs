//! What a deployment changes in the object store, without any I/O.
//!
//! A deployment is a set of files that were found to load together.  Each changed file is a new version of its
//! Module object; the Service objects follow from what was found in the modules, and keep what an admin
//! has set on them.
//!
//! **Invariant:** every change names the revision it was planned on, so two deployments at one moment cannot mix.

use std::collections::{BTreeMap, BTreeSet};

use arapi::arclst::{Change, Expect};
use arapi::arsrv::{FoundService, LoadFault, ModuleSource, Packages};
use arapi::arwadm::DeployedModule;
use arapi::names::{NameError, is_reserved};
use arapi::objects::{ModuleSpec, Requirements, ServiceSpec};
use arapi::{Kind, Object, ObjectName, Spec};

use crate::tokens::sha256_hex;

/// Most files in one deployment.
const MOST_FILES: usize = 500;

/// Modules and services as they are.
#[derive(Debug, Default)]
pub(crate) struct Deployed {
    /// The modules, with their revisions.
    pub(crate) modules: BTreeMap<String, (u64, ModuleSpec)>,
    /// The services, with their revisions.
    pub(crate) services: BTreeMap<String, (u64, ServiceSpec)>,
    /// The last version of modules that were removed and come again.
    pub(crate) last_versions: BTreeMap<String, u64>,
}

impl Deployed {
    /// Takes objects of the store; those of other kinds are passed over.
    pub(crate) fn of(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut deployed = Self::default();
        for Object { name, spec, revision, .. } in objects {
            match spec {
                Spec::Module(spec) => {
                    deployed.modules.insert(name.to_string(), (revision, spec));
                }
                Spec::Service(spec) => {
                    deployed.services.insert(name.to_string(), (revision, spec));
                }
                _ => {}
            }
        }
        deployed
    }
}

/// What is to be committed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct DeployPlan {
    /// The changes; none if nothing differs.
    pub(crate) changes: Vec<Change>,
    /// The modules of the request.
    pub(crate) modules: Vec<DeployedModule>,
    /// Services that go.
    pub(crate) removed: Vec<String>,
}

/// The module of a file, or why it cannot be one.
pub(crate) fn module_of(file: &ModuleSource) -> Result<String, LoadFault> {
    let refuse = |reason: String| LoadFault {
        reason,
        file: file.file_name.clone(),
        line: 0,
        traceback: String::new(),
        exit_code: None,
    };
    let stem = file.file_name.strip_suffix(".py").unwrap_or(&file.file_name);
    if is_reserved(stem) {
        return Err(refuse(NameError::Reserved(stem.to_owned()).to_string()));
    }
    if stem == "zato" {
        return Err(refuse(
            "a module cannot be called `zato`: that is the package services import from; choose another"
                .to_owned(),
        ));
    }
    // The form of the name and the size are rules of the object.
    let spec = serde_json::json!({
        "file_name": file.file_name, "source": file.source, "sha256": "", "version": 1, "origin": "",
    });
    match Spec::parse(Kind::Module, stem, spec) {
        Ok(_) => Ok(stem.to_owned()),
        Err(arapi::objects::SpecError::Rule { rule, .. }) => Err(refuse(rule)),
        Err(other) => Err(refuse(other.to_string())),
    }
}

/// Checks the files of a request before anything is tried; returns their modules.
pub(crate) fn check_files(files: &[ModuleSource]) -> Result<Vec<String>, LoadFault> {
    let general = |reason: String| LoadFault {
        reason,
        file: String::new(),
        line: 0,
        traceback: String::new(),
        exit_code: None,
    };
    if files.is_empty() {
        return Err(general("there is no file in the deployment".to_owned()));
    }
    if files.len() > MOST_FILES {
        return Err(general(format!(
            "{} files are above the {MOST_FILES} of one deployment",
            files.len()
        )));
    }
    let mut modules = Vec::new();
    for file in files {
        let module = module_of(file)?;
        if modules.contains(&module) {
            return Err(general(format!("`{}` is in the deployment twice", file.file_name)));
        }
        modules.push(module);
    }
    Ok(modules)
}

/// The files whose source or packages differ from what is deployed.
pub(crate) fn changed<'a>(
    files: &'a [ModuleSource],
    packages: &Packages,
    present: &Deployed,
) -> Vec<&'a ModuleSource> {
    let differs = |file: &&ModuleSource| {
        let stem = file.file_name.strip_suffix(".py").unwrap_or(&file.file_name);
        present.modules.get(stem).is_none_or(|(_, module)| {
            module.source != file.source
                || requirements(packages, Some(module)) != module.requirements
        })
    };
    files.iter().filter(differs).collect()
}

/// What a module is to have.
fn requirements(packages: &Packages, before: Option<&ModuleSpec>) -> Option<Requirements> {
    match packages {
        Packages::Keep => before.and_then(|before| before.requirements.clone()),
        Packages::Without => None,
        Packages::These(these) => Some(these.clone()),
    }
}

/// What all of these files were resolved to already, if it was this very text.
pub(crate) fn same_requirements<'a>(
    files: &[ModuleSource],
    text: &str,
    present: &'a Deployed,
) -> Option<&'a Requirements> {
    let mut known = files.iter().map(|file| {
        let stem = file.file_name.strip_suffix(".py").unwrap_or(&file.file_name);
        present.modules.get(stem).and_then(|(_, module)| module.requirements.as_ref())
    });
    let first = known.next()?.filter(|known| known.text == text)?;
    known.all(|other| other == Some(first)).then_some(first)
}

/// What is new.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New<'a> {
    /// Files to be deployed.
    pub(crate) files: &'a [ModuleSource],
    /// Modules to be removed.
    pub(crate) gone: &'a [String],
    /// The packages of the files.
    pub(crate) packages: &'a Packages,
    /// The group that their services are to run in.
    pub(crate) group: Option<&'a str>,
    /// How it came.
    pub(crate) origin: &'a str,
}

/// Plans the deployment of files, the removal of modules, and the services `found` in all modules that
/// are there afterwards.
pub(crate) fn plan(
    present: &Deployed,
    new: &New<'_>,
    found: &[FoundService],
) -> Result<DeployPlan, LoadFault> {
    let New { files, gone, packages, group, origin } = *new;
    let mut plan = DeployPlan::default();
    let mut touched: BTreeSet<&str> = gone.iter().map(String::as_str).collect();
    for file in files {
        let module = module_of(file)?;
        let before = present.modules.get(&module);
        let sha256 = sha256_hex(file.source.as_bytes());
        let requirements = requirements(packages, before.map(|(_, before)| before));
        let is_changed = before.is_none_or(|(_, before)| {
            before.sha256 != sha256 || before.requirements != requirements
        });
        let last = before.map_or_else(
            || present.last_versions.get(&module).copied().unwrap_or(0),
            |(_, before)| before.version,
        );
        let version = if is_changed { last + 1 } else { last };
        if is_changed {
            let spec = ModuleSpec {
                file_name: file.file_name.clone(),
                source: file.source.clone(),
                sha256,
                version,
                origin: origin.to_owned(),
                requirements,
            };
            plan.changes.push(Change::Put {
                kind: Kind::Module,
                name: object_name(&module, &file.file_name)?,
                spec: Spec::Module(spec).to_json(),
                expect: before.map_or(Expect::Absent, |(revision, _)| Expect::Revision(*revision)),
            });
        }
        plan.modules.push(DeployedModule { name: module, version, changed: is_changed });
    }
    touched.extend(plan.modules.iter().map(|module| module.name.as_str()));
    let removed = put_services(present, &touched, group, found, &mut plan.changes)?;
    for module in gone {
        if let Some((revision, spec)) = present.modules.get(module) {
            plan.changes.push(Change::Delete {
                kind: Kind::Module,
                name: object_name(module, &spec.file_name)?,
                expect: Expect::Revision(*revision),
            });
        }
    }
    plan.removed = removed;
    Ok(plan)
}

/// Plans the services; returns those that go.
fn put_services(
    present: &Deployed,
    touched: &BTreeSet<&str>,
    group: Option<&str>,
    found: &[FoundService],
    changes: &mut Vec<Change>,
) -> Result<Vec<String>, LoadFault> {
    let mut of_module: BTreeMap<&str, &FoundService> = BTreeMap::new();
    for service in found {
        check_service(service, of_module.get(service.name.as_str()).copied(), touched)?;
        of_module.insert(&service.name, service);
        let before = present.services.get(&service.name);
        let mut spec = match before {
            Some((_, spec)) => spec.clone(),
            None => ServiceSpec {
                module: String::new(),
                class: String::new(),
                summary: String::new(),
                is_active: true,
                timeout_ms: None,
                max_concurrency: None,
                rate_limit: None,
                group: group_of_module(present, &service.module),
            },
        };
        if let Some(group) = group.filter(|_| touched.contains(service.module.as_str())) {
            group.clone_into(&mut spec.group);
        }
        spec.module.clone_from(&service.module);
        spec.class.clone_from(&service.class);
        spec.summary.clone_from(&service.summary);
        if before.is_none_or(|(_, before)| *before != spec) {
            changes.push(Change::Put {
                kind: Kind::Service,
                name: object_name(&service.name, &service.module)?,
                spec: Spec::Service(spec).to_json(),
                expect: before.map_or(Expect::Absent, |(revision, _)| Expect::Revision(*revision)),
            });
        }
    }
    let mut removed = Vec::new();
    for (name, (revision, spec)) in &present.services {
        if touched.contains(spec.module.as_str()) && !of_module.contains_key(name.as_str()) {
            changes.push(Change::Delete {
                kind: Kind::Service,
                name: object_name(name, &spec.module)?,
                expect: Expect::Revision(*revision),
            });
            removed.push(name.clone());
        }
    }
    Ok(removed)
}

/// Where a new service of a module runs: with the others of that module, if they are together.
fn group_of_module(present: &Deployed, module: &str) -> String {
    let services = present.services.values().map(|(_, spec)| spec);
    let groups: BTreeSet<&str> =
        services.filter(|spec| spec.module == module).map(|spec| spec.group.as_str()).collect();
    match (groups.first(), groups.len()) {
        (Some(only), 1) => (*only).to_owned(),
        _ => "default".to_owned(),
    }
}

fn check_service(
    service: &FoundService,
    same: Option<&FoundService>,
    touched: &BTreeSet<&str>,
) -> Result<(), LoadFault> {
    let refuse = |of: &FoundService, reason: String| LoadFault {
        reason,
        file: format!("{}.py", of.module),
        line: of.line,
        traceback: String::new(),
        exit_code: None,
    };
    if is_reserved(&service.name) {
        return Err(refuse(service, NameError::Reserved(service.name.clone()).to_string()));
    }
    let Some(same) = same else { return Ok(()) };
    // The one that is being deployed is the one at fault.
    let (at_fault, other) =
        if touched.contains(service.module.as_str()) { (service, same) } else { (same, service) };
    Err(refuse(
        at_fault,
        format!(
            "service `{}` is already provided by module `{}`; give one of them another name",
            service.name, other.module
        ),
    ))
}

fn object_name(text: &str, file: &str) -> Result<ObjectName, LoadFault> {
    ObjectName::parse(text).map_err(|err| LoadFault {
        reason: err.to_string(),
        file: if file.ends_with(".py") { file.to_owned() } else { format!("{file}.py") },
        line: 0,
        traceback: String::new(),
        exit_code: None,
    })
}

/// A fault as one sentence: `photos.py line 12: no module named x`.
pub(crate) fn sentence(fault: &LoadFault) -> String {
    match (fault.file.as_str(), fault.line) {
        ("", _) => fault.reason.clone(),
        (file, 0) => format!("{file}: {}", fault.reason),
        (file, line) => format!("{file} line {line}: {}", fault.reason),
    }
}

#[cfg(test)]
mod tests;
