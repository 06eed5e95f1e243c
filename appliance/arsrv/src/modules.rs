//! Sets of modules: what a worker loads, as files in a folder named after their content.
//!
//! Python's compiled form of a module is kept by the hash of its source, beside the sets, so that a set in which one
//! module has changed compiles one module.
//!
//! A module that needs packages is loaded only by the workers of those groups in which its services run; the others
//! are loaded by every worker.  What the workers of one group load is a [`View`] of the set.
//!
//! **Invariant:** a folder with a set's name holds the whole set; it is made under another name and renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arapi::arsrv::{CheckRequest, Packages};
use arapi::names::Kind;
use arapi::objects::{LockedPackage, Object, Spec};
use sha2::{Digest as _, Sha256};

use crate::packages::environment::{self, Conflict, Environment};
use crate::world::World;

/// The group of services that name none.
pub(crate) const DEFAULT: &str = "default";

/// The folder of compiled modules, beside the sets.
const COMPILED: &str = "compiled";

/// Tells folders apart in which the same set is made by two tasks at the same time.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The modules that are loaded together, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleSet {
    /// Names the content: two sets with the same hash are the same.
    pub(crate) hash: String,
    modules: BTreeMap<String, Module>,
}

#[derive(Debug, Clone)]
struct Module {
    sha256: String,
    source: Source,
    /// What it needs beside what every worker has.
    needs: Arc<[LockedPackage]>,
    /// Where its services run.
    groups: BTreeSet<String>,
}

impl Module {
    fn is_plain(&self) -> bool {
        self.needs.is_empty()
    }
}

impl PartialEq for Module {
    fn eq(&self, other: &Self) -> bool {
        let same_needs = self.needs == other.needs;
        self.sha256 == other.sha256
            && same_needs
            && (self.is_plain() || self.groups == other.groups)
    }
}
impl Eq for Module {}

/// What the workers of a group load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Names it within its set: two with the same key are the same.
    pub(crate) key: String,
    /// The packages; None: those that every worker has.
    pub(crate) environment: Option<Environment>,
    /// The modules' files, in the order of their names.
    files: Vec<String>,
}

impl View {
    /// The list for HELLO.
    pub(crate) fn list(&self) -> Vec<serde_json::Value> {
        let entry = |file: &String| {
            let name = file.strip_suffix(".py").unwrap_or(file);
            serde_json::json!({"name": name, "file": file, "names": null})
        };
        self.files.iter().map(entry).collect()
    }
}

#[derive(Debug, Clone)]
enum Source {
    /// In the object store's own copy.
    Stored(Arc<Object>),
    Given(Arc<str>),
}

impl Source {
    fn text(&self) -> &str {
        match self {
            Self::Given(text) => text,
            Self::Stored(object) => match &object.spec {
                Spec::Module(module) => &module.source,
                // Not made of any other kind.
                _ => "",
            },
        }
    }
}

impl ModuleSet {
    /// The modules of the store.
    pub(crate) fn of_world(world: &World) -> Self {
        let mut modules = BTreeMap::new();
        let mut groups = groups_of(world);
        for object in world.of_kind(Kind::Module) {
            if let Spec::Module(spec) = &object.spec {
                let sha256 = if spec.sha256.len() == 64 {
                    spec.sha256.to_ascii_lowercase()
                } else {
                    sha256_of(&spec.source)
                };
                let needs = spec.requirements.as_ref().map(|needs| needs.lock.as_slice().into());
                let module = Module {
                    sha256,
                    source: Source::Stored(Arc::clone(object)),
                    needs: needs.unwrap_or_default(),
                    groups: groups.remove(object.name.as_str()).unwrap_or_default(),
                };
                modules.insert(spec.file_name.clone(), module);
            }
        }
        settle_homeless(&mut modules);
        Self::named(modules)
    }

    /// What this set would be after a deployment.
    pub(crate) fn changed_by(&self, request: &CheckRequest) -> Self {
        let mut modules = self.modules.clone();
        for name in &request.removed {
            modules.remove(name);
            modules.remove(&format!("{name}.py"));
        }
        for module in &request.modules {
            let (file, source) =
                (module.file_name.clone(), Source::Given(module.source.as_str().into()));
            let sha256 = sha256_of(&module.source);
            let before = self.modules.get(&module.file_name);
            let needs = match &request.packages {
                Packages::Keep => before.map(|before| Arc::clone(&before.needs)),
                Packages::Without => None,
                Packages::These(these) => Some(these.lock.as_slice().into()),
            };
            let groups = match (&request.group, before) {
                (Some(group), _) => BTreeSet::from([group.clone()]),
                (None, Some(before)) => before.groups.clone(),
                (None, None) => only_default(),
            };
            let module = Module { sha256, source, needs: needs.unwrap_or_default(), groups };
            modules.insert(file, module);
        }
        Self::named(modules)
    }

    fn named(modules: BTreeMap<String, Module>) -> Self {
        let mut hash = Sha256::new();
        for (file, module) in &modules {
            hash.update(file.as_bytes());
            hash.update([0]);
            hash.update(module.sha256.as_bytes());
            for package in module.needs.iter() {
                hash.update(package.sha256.as_bytes());
            }
            // Where a module without needs runs is not the set's matter: every worker has it.
            for group in module.groups.iter().filter(|_| !module.is_plain()) {
                hash.update([1]);
                hash.update(group.as_bytes());
            }
        }
        Self { hash: hex::encode(hash.finalize()).chars().take(24).collect(), modules }
    }

    /// Whether there is nothing to load.
    pub(crate) fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// What the workers of a group load.
    pub(crate) fn view(&self, group: &str) -> Result<View, Box<Conflict>> {
        let inside = |module: &&Module| !module.is_plain() && module.groups.contains(group);
        let needing = self.modules.iter().filter(|(_, module)| inside(module));
        let needs = needing.clone().map(|(file, module)| (stem(file), &*module.needs));
        let environment = environment::plan(group, needs)?;
        let mut key = environment.as_ref().map(|it| it.name.clone()).unwrap_or_default();
        for (file, _) in needing {
            key.push(' ');
            key.push_str(file);
        }
        let files = self.modules.iter().filter(|(_, module)| module.is_plain() || inside(module));
        Ok(View { key, environment, files: files.map(|(file, _)| file.clone()).collect() })
    }

    /// The views that there are, each once, that of the default group first; one that loads nothing is left out.
    pub(crate) fn views(&self) -> Result<Vec<View>, Box<Conflict>> {
        let needing = self.modules.values().filter(|module| !module.is_plain());
        let groups: BTreeSet<&str> =
            needing.flat_map(|module| module.groups.iter().map(String::as_str)).collect();
        let mut views: Vec<View> = Vec::new();
        for group in std::iter::once(DEFAULT).chain(groups) {
            let view = self.view(group)?;
            if !view.files.is_empty() && views.iter().all(|other| other.key != view.key) {
                views.push(view);
            }
        }
        Ok(views)
    }

    /// The group in which a service of a module runs while this set is live: the one that is configured, if the module
    /// is loaded there.
    pub(crate) fn group_of<'a>(&'a self, module: &str, configured: &'a str) -> &'a str {
        match self.modules.get(&format!("{module}.py")) {
            Some(module) if !module.is_plain() && !module.groups.contains(configured) => {
                module.groups.first().map_or(configured, String::as_str)
            }
            _ => configured,
        }
    }

    /// What other modules than these have in a group, with the module that has it.
    pub(crate) fn held(
        &self,
        group: &str,
        but: &[String],
    ) -> BTreeMap<String, (LockedPackage, String)> {
        let mut held = BTreeMap::new();
        for (file, module) in &self.modules {
            if module.groups.contains(group) && !but.iter().any(|other| other == stem(file)) {
                for package in module.needs.iter() {
                    held.insert(package.name.clone(), (package.clone(), stem(file).to_owned()));
                }
            }
        }
        held
    }

    /// The groups of these modules; the default one if they are new.
    pub(crate) fn groups(&self, modules: &[String]) -> BTreeSet<String> {
        let known = modules.iter().filter_map(|name| self.modules.get(&format!("{name}.py")));
        let groups: BTreeSet<String> = known.flat_map(|module| module.groups.clone()).collect();
        if groups.is_empty() { only_default() } else { groups }
    }

    /// Every package that a module needs.
    pub(crate) fn needs(&self) -> Vec<LockedPackage> {
        self.modules.values().flat_map(|module| module.needs.iter().cloned()).collect()
    }

    /// Its folder below the folder of all sets.
    pub(crate) fn folder(&self, sets: &Path) -> PathBuf {
        sets.join(&self.hash)
    }

    /// Writes it below `sets`, readable for a worker of this user, if it is not there.
    pub(crate) fn write(&self, sets: &Path, uid: Option<u32>) -> std::io::Result<()> {
        let folder = self.folder(sets);
        if folder.try_exists()? {
            return Ok(());
        }
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let new = sets.join(format!("new-{}-{made}-{}", std::process::id(), self.hash));
        std::fs::create_dir_all(&new)?;
        for (file, module) in &self.modules {
            std::fs::write(new.join(file), module.source.text())?;
            share(&new.join(file), uid, 0o640)?;
        }
        // Without them Python compiles by itself.
        self.link_compiled(sets, &new, uid).ok();
        share(&new, uid, 0o750)?;
        // After a power cut the name must not be there without what it names.
        durable(&new)?;
        match std::fs::rename(&new, &folder) {
            Ok(()) => Ok(()),
            Err(err) => {
                std::fs::remove_dir_all(&new)?;
                // Another task may have been faster.
                if folder.try_exists()? { Ok(()) } else { Err(err) }
            }
        }
    }
}

/// Writes out what lies in the file system of `folder`: for the many small files of a folder cheaper than file by
/// file.
pub(crate) fn durable(folder: &Path) -> std::io::Result<()> {
    Ok(nix::unistd::syncfs(std::fs::File::open(folder)?)?)
}

impl ModuleSet {
    /// Brings the compiled forms that there are into a set's folder.
    fn link_compiled(&self, sets: &Path, folder: &Path, uid: Option<u32>) -> std::io::Result<()> {
        let cache = folder.join("__pycache__");
        std::fs::create_dir_all(&cache)?;
        share(&cache, uid, 0o750)?;
        for entry in std::fs::read_dir(sets.join(COMPILED))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // <hash of the source>.cpython-311.pyc
            let Some((sha256, rest)) = name.split_once('.') else {
                continue;
            };
            for (file, _) in self.modules.iter().filter(|(_, module)| module.sha256 == sha256) {
                let stem = file.strip_suffix(".py").unwrap_or(file);
                std::fs::hard_link(entry.path(), cache.join(format!("{stem}.{rest}")))?;
            }
        }
        Ok(())
    }

    /// Keeps the compiled forms of a set's folder for the sets to come.
    pub(crate) fn keep_compiled(&self, sets: &Path, uid: Option<u32>) -> std::io::Result<()> {
        let kept = sets.join(COMPILED);
        std::fs::create_dir_all(&kept)?;
        for entry in std::fs::read_dir(self.folder(sets).join("__pycache__"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((stem, rest)) = name.split_once('.') else {
                continue;
            };
            if let Some(module) = self.modules.get(&format!("{stem}.py")) {
                share(&entry.path(), uid, 0o640)?;
                let kept = kept.join(format!("{}.{rest}", module.sha256));
                if !kept.try_exists()? {
                    std::fs::hard_link(entry.path(), kept)?;
                }
            }
        }
        // What this set does not use is not worth its room; a rollback compiles again.
        for entry in std::fs::read_dir(&kept)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let sha256 = name.split('.').next().unwrap_or_default();
            if self.modules.values().all(|module| module.sha256 != sha256) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn share(path: &Path, uid: Option<u32>, mode: u32) -> std::io::Result<()> {
    if uid.is_some() {
        chown(path, None, uid)?;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode)
}

/// Removes every set but those with these hashes, be they whole or just being made.
pub(crate) fn remove_others(sets: &Path, keep: &[String]) -> std::io::Result<()> {
    for entry in std::fs::read_dir(sets)? {
        let entry = entry?;
        // The hash stands at the end of the name under which a set is made.
        let is_kept = |hash: &String| entry.file_name().to_string_lossy().ends_with(hash.as_str());
        if entry.file_name() != COMPILED && !keep.iter().any(is_kept) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".py").unwrap_or(file)
}

fn only_default() -> BTreeSet<String> {
    BTreeSet::from([DEFAULT.to_owned()])
}

/// Modules without services go where those go that have the same packages: they were deployed together.
fn settle_homeless(modules: &mut BTreeMap<String, Module>) {
    let homeless = |module: &Module| module.groups.is_empty();
    let mut homes = Vec::new();
    for (file, module) in modules.iter().filter(|(_, module)| homeless(module)) {
        let like = |other: &&Module| !other.is_plain() && other.needs == module.needs;
        let same = modules.values().filter(like);
        homes.push((file.clone(), same.flat_map(|other| other.groups.clone()).collect()));
    }
    for (file, groups) in homes {
        let groups: BTreeSet<String> = groups;
        if let Some(module) = modules.get_mut(&file) {
            module.groups = if groups.is_empty() { only_default() } else { groups };
        }
    }
}

/// Where the services of each module run.
fn groups_of(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in world.of_kind(Kind::Service) {
        if let Spec::Service(spec) = &object.spec {
            groups.entry(spec.module.clone()).or_default().insert(spec.group.clone());
        }
    }
    groups
}

fn sha256_of(source: &str) -> String {
    hex::encode(Sha256::digest(source.as_bytes()))
}

#[cfg(test)]
mod tests {
    use arapi::arsrv::ModuleSource;

    use super::*;

    fn set(modules: &[(&str, &str)]) -> ModuleSet {
        let given = |(file, source): &(&str, &str)| ModuleSource {
            file_name: (*file).to_owned(),
            source: (*source).to_owned(),
        };
        let request = CheckRequest {
            modules: modules.iter().map(given).collect(),
            ..CheckRequest::default()
        };
        ModuleSet::named(BTreeMap::new()).changed_by(&request)
    }

    #[test]
    fn the_same_modules_are_the_same_set_in_whatever_order_they_came() {
        assert_eq!(set(&[("a.py", "1"), ("b.py", "2")]), set(&[("b.py", "2"), ("a.py", "1")]));
        assert_ne!(set(&[("a.py", "1")]).hash, set(&[("a.py", "2")]).hash);
        assert_ne!(set(&[("a.py", "1")]).hash, set(&[("b.py", "1")]).hash);
        // Names and contents are kept apart.
        assert_ne!(set(&[("a.py", ""), ("b.py", "")]).hash, set(&[("a.py", "")]).hash);
    }

    #[test]
    fn a_deployment_changes_adds_and_removes() {
        let before = set(&[("a.py", "1"), ("b.py", "2")]);
        let given = ModuleSource { file_name: "b.py".to_owned(), source: "3".to_owned() };
        let request = CheckRequest {
            modules: vec![given],
            removed: vec!["a".to_owned()],
            ..CheckRequest::default()
        };
        assert_eq!(before.changed_by(&request), set(&[("b.py", "3")]));
        let back = CheckRequest::default();
        assert_eq!(before.changed_by(&back).hash, before.hash);
    }

    fn needing(before: &ModuleSet, file: &str, version: &str, group: Option<&str>) -> ModuleSet {
        let package = LockedPackage {
            name: "foo".to_owned(),
            version: version.to_owned(),
            file: format!("foo-{version}-py3-none-any.whl"),
            sha256: sha256_of(version),
        };
        let these = arapi::objects::Requirements { text: String::new(), lock: vec![package] };
        before.changed_by(&CheckRequest {
            modules: vec![ModuleSource { file_name: file.to_owned(), source: "x".to_owned() }],
            packages: Packages::These(these),
            group: group.map(ToOwned::to_owned),
            ..CheckRequest::default()
        })
    }

    #[test]
    fn a_module_with_packages_is_loaded_only_where_its_services_run() {
        let plain = set(&[("a.py", "1")]);
        assert_eq!(plain.views().unwrap().len(), 1);
        let one = needing(&plain, "b.py", "1", None);
        assert_ne!(one.hash, plain.hash);
        assert_eq!(one.view("default").unwrap().files, ["a.py", "b.py"]);
        assert_eq!(one.view("other").unwrap().files, ["a.py"]);
        let both = needing(&one, "c.py", "2", Some("other"));
        assert_eq!(both.view("other").unwrap().files, ["a.py", "c.py"]);
        assert_eq!(both.views().unwrap().len(), 2);
        assert_eq!((both.group_of("c", "default"), both.group_of("a", "x")), ("other", "x"));
        assert_eq!(both.held("other", &[]).len(), 1);
        assert!(both.held("other", &["c".to_owned()]).is_empty());
        assert!(needing(&one, "c.py", "2", None).views().is_err());
        // Only the group differs.
        assert_ne!(needing(&plain, "b.py", "1", Some("other")).hash, one.hash);
    }

    #[test]
    fn compiled_forms_are_handed_on_to_sets_with_the_same_source() {
        let sets = std::env::temp_dir().join(format!("arsrv-compiled-{}", std::process::id()));
        let (one, two) =
            (set(&[("a.py", "1"), ("b.py", "2")]), set(&[("c.py", "1"), ("b.py", "3")]));
        one.write(&sets, None).unwrap();
        let compiled = |set: &ModuleSet| set.folder(&sets).join("__pycache__");
        for name in ["a.cpython-311.pyc", "b.cpython-311.pyc"] {
            std::fs::write(compiled(&one).join(name), name).unwrap();
        }
        one.keep_compiled(&sets, None).unwrap();
        two.write(&sets, None).unwrap();
        let names: Vec<_> = std::fs::read_dir(compiled(&two))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["c.cpython-311.pyc"]);
        two.keep_compiled(&sets, None).unwrap();
        remove_others(&sets, &[]).unwrap();
        let kept = std::fs::read_dir(sets.join(COMPILED)).unwrap().count();
        assert_eq!(kept, 1, "the form of a source that no set has any more is gone");
        std::fs::remove_dir_all(&sets).unwrap();
    }

    #[test]
    fn a_set_that_is_just_being_made_is_not_removed_with_the_others() {
        let sets = std::env::temp_dir().join(format!("arsrv-making-{}", std::process::id()));
        let many: Vec<_> = (0..40).map(|i| (format!("m{i}.py"), format!("{i}"))).collect();
        let many: Vec<_> = many.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        let made = set(&many);
        std::fs::create_dir_all(&sets).unwrap();
        for _ in 0..20 {
            std::thread::scope(|scope| {
                // Two tasks make it at the same time while a third one tidies up.
                let writers = [(); 2].map(|()| scope.spawn(|| made.write(&sets, None)));
                while writers.iter().any(|writer| !writer.is_finished()) {
                    // What it lists may be renamed before it comes to it.
                    remove_others(&sets, std::slice::from_ref(&made.hash)).ok();
                }
                for writer in writers {
                    writer.join().unwrap().unwrap();
                }
            });
            remove_others(&sets, &[]).unwrap();
        }
        std::fs::remove_dir_all(&sets).unwrap();
    }

    #[test]
    fn a_set_is_written_whole_and_others_can_be_removed() {
        let sets = std::env::temp_dir().join(format!("arsrv-sets-{}", std::process::id()));
        let (one, two) = (set(&[("a.py", "1")]), set(&[("a.py", "2")]));
        for each in [&one, &two, &one] {
            each.write(&sets, None).unwrap();
        }
        let source = |set: &ModuleSet| std::fs::read_to_string(set.folder(&sets).join("a.py"));
        assert_eq!(source(&one).unwrap(), "1");
        remove_others(&sets, std::slice::from_ref(&two.hash)).unwrap();
        assert!(source(&one).is_err());
        assert_eq!(source(&two).unwrap(), "2");
        std::fs::remove_dir_all(&sets).unwrap();
    }
}
