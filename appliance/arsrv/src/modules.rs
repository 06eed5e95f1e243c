//! Sets of modules: what a worker loads, as files in a folder named after their content.
//!
//! Python's compiled form of a module is kept by the hash of its source, beside the sets, so that a set in which one
//! module has changed compiles one module.
//!
//! **Invariant:** a folder with a set's name holds the whole set; it is made under another name and renamed.

use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arapi::arsrv::CheckRequest;
use arapi::names::Kind;
use arapi::objects::{Object, Spec};
use sha2::{Digest as _, Sha256};

use crate::world::World;

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
}

impl PartialEq for Module {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}
impl Eq for Module {}

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
        for object in world.of_kind(Kind::Module) {
            if let Spec::Module(spec) = &object.spec {
                let sha256 = if spec.sha256.len() == 64 {
                    spec.sha256.to_ascii_lowercase()
                } else {
                    sha256_of(&spec.source)
                };
                let module = Module { sha256, source: Source::Stored(Arc::clone(object)) };
                modules.insert(spec.file_name.clone(), module);
            }
        }
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
            let source = Source::Given(module.source.as_str().into());
            let sha256 = sha256_of(&module.source);
            modules.insert(module.file_name.clone(), Module { sha256, source });
        }
        Self::named(modules)
    }

    fn named(modules: BTreeMap<String, Module>) -> Self {
        let mut hash = Sha256::new();
        for (file, module) in &modules {
            hash.update(file.as_bytes());
            hash.update([0]);
            hash.update(module.sha256.as_bytes());
        }
        Self { hash: hex::encode(hash.finalize()).chars().take(24).collect(), modules }
    }

    /// Whether there is nothing to load.
    pub(crate) fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The list for HELLO.
    pub(crate) fn list(&self) -> Vec<serde_json::Value> {
        let entry = |file: &String| {
            let name = file.strip_suffix(".py").unwrap_or(file);
            serde_json::json!({"name": name, "file": file, "names": null})
        };
        self.modules.keys().map(entry).collect()
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
        let request =
            CheckRequest { modules: modules.iter().map(given).collect(), removed: Vec::new() };
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
        let request = CheckRequest { modules: vec![given], removed: vec!["a".to_owned()] };
        assert_eq!(before.changed_by(&request), set(&[("b.py", "3")]));
        let back = CheckRequest { modules: Vec::new(), removed: Vec::new() };
        assert_eq!(before.changed_by(&back).hash, before.hash);
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
