//! What is being developed: the files, which of them changed, and being told when they do.
//!
//! **Invariant:** a file counts as changed when its bytes did; editors that write twice, or that write another file and
//! rename it, cause one deployment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::services::{is_of_tests, is_source};

/// After a change further ones are waited for this long: "save all" is one deployment.
const SETTLE: Duration = Duration::from_millis(120);

/// What a file is to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Python source.
    Source,
    /// Objects in YAML.
    Objects,
    /// `requirements.txt`.
    Requirements,
    /// What the test call sends.
    Data,
}

/// The files at one time, with their hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<PathBuf, (Role, [u8; 32])>);

/// What became of the files between two looks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// New or changed sources.
    pub(super) sources: Vec<PathBuf>,
    /// Sources that are gone.
    pub(super) gone: Vec<PathBuf>,
    /// Whether objects changed.
    pub(super) objects: bool,
    /// Whether a `requirements.txt` changed.
    pub(super) requirements: bool,
    /// Whether the data of the test call changed.
    pub(super) data: bool,
}

impl Changes {
    /// Whether nothing changed.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which files there are to look at.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Files of Python source, and folders with them.
    pub(super) sources: Vec<PathBuf>,
    /// Files and folders of objects.
    pub(super) objects: Vec<PathBuf>,
    /// The file that the test call sends.
    pub(super) data: Option<PathBuf>,
}

impl Places {
    /// Reads the files as they are now.  A file that is being replaced, and so is not there for a moment, is simply
    /// absent; the next look finds it.
    pub(super) fn look(&self) -> Files {
        let mut files = BTreeMap::new();
        let mut add = |path: PathBuf, role| {
            if let Ok(bytes) = std::fs::read(&path) {
                files.insert(path, (role, Sha256::digest(&bytes).into()));
            }
        };
        for place in &self.sources {
            for path in inside(place) {
                let given = path == *place;
                if is_source(&path) && (given || !is_of_tests(&path)) {
                    add(path, Role::Source);
                } else if path.file_name().is_some_and(|name| name == "requirements.txt") {
                    add(path, Role::Requirements);
                }
            }
        }
        for place in &self.objects {
            for path in inside(place) {
                if path == *place || is_yaml(&path) {
                    add(path, Role::Objects);
                }
            }
        }
        if let Some(path) = &self.data {
            add(path.clone(), Role::Data);
        }
        Files(files)
    }

    /// Tells of anything that happens in the folders.
    pub(super) fn watch(&self) -> Result<Watch, Failure> {
        let (tx, told) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and looking reads them all.
            if event.is_ok_and(|event| !event.kind.is_access() || is_written(&event)) {
                // One that waits already says the same.
                tx.try_send(()).ok();
            }
        });
        let failed = |path: &Path, err: notify::Error| {
            Failure::Failed(format!("cannot watch `{}`: {err}", path.display()))
        };
        let mut watcher = watcher.map_err(|err| failed(Path::new("."), err))?;
        let places = self.sources.iter().chain(&self.objects).chain(&self.data);
        let folders: std::collections::BTreeSet<PathBuf> =
            places.map(|place| folder_of(place)).collect();
        for folder in folders {
            // Editors replace files: the folder is watched, not the file.
            watcher
                .watch(&folder, RecursiveMode::NonRecursive)
                .map_err(|err| failed(&folder, err))?;
        }
        Ok(Watch { told, is_due: false, _watcher: watcher })
    }
}

/// Tells of changes as long as it is held.
#[derive(Debug)]
pub(super) struct Watch {
    told: mpsc::Receiver<()>,
    /// Something happened that nobody has heard of yet.
    is_due: bool,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Waits until something happened and then nothing more for a moment.  Whoever stops waiting misses nothing.
    pub(super) async fn changed(&mut self) {
        if !self.is_due {
            if self.told.recv().await.is_none() {
                // The watcher is gone only with this.
                std::future::pending::<()>().await;
            }
            self.is_due = true;
        }
        while tokio::time::timeout(SETTLE, self.told.recv()).await.is_ok_and(|told| told.is_some())
        {
        }
        self.is_due = false;
    }
}

impl Files {
    /// The sources.
    pub(super) fn sources(&self) -> Vec<PathBuf> {
        self.0
            .iter()
            .filter(|(_, (role, _))| *role == Role::Source)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// The file of requirements, if there is one.
    pub(super) fn requirements(&self) -> Option<&Path> {
        let mut found = self.0.iter().filter(|(_, (role, _))| *role == Role::Requirements);
        found.next().map(|(path, _)| path.as_path())
    }

    /// Whether there are objects.
    pub(super) fn has_objects(&self) -> bool {
        self.0.values().any(|(role, _)| *role == Role::Objects)
    }

    /// What changed since `before`.
    pub(super) fn since(&self, before: &Self) -> Changes {
        let mut changes = Changes::default();
        for (path, now) in &self.0 {
            if before.0.get(path) != Some(now) {
                match now.0 {
                    Role::Source => changes.sources.push(path.clone()),
                    Role::Objects => changes.objects = true,
                    Role::Requirements => changes.requirements = true,
                    Role::Data => changes.data = true,
                }
            }
        }
        let is_gone = |(path, (role, _)): (&PathBuf, &(Role, [u8; 32]))| {
            (*role == Role::Source && !self.0.contains_key(path)).then(|| path.clone())
        };
        changes.gone = before.0.iter().filter_map(is_gone).collect();
        changes
    }
}

/// A file itself, or the files of a folder.
fn inside(place: &Path) -> Vec<PathBuf> {
    if !place.is_dir() {
        return vec![place.to_owned()];
    }
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

fn folder_of(place: &Path) -> PathBuf {
    if place.is_dir() {
        return place.to_owned();
    }
    match place.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}

fn is_written(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode};
    matches!(event.kind, notify::EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places { sources: vec![folder.to_owned()], objects: vec![folder.to_owned()], data: None }
    }

    #[test]
    fn what_changed_is_told_by_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        for name in ["a.py", "test_a.py", "a_test.py", "conftest.py", "notes.txt", "objects.yaml"] {
            write(name, "1");
        }
        let places = places(dir.path());
        let first = places.look();
        assert_eq!(first.sources(), [dir.path().join("a.py")]);
        assert!(first.has_objects() && first.requirements().is_none());
        write("a.py", "1");
        write("notes.txt", "2");
        assert!(places.look().since(&first).is_empty());
        write("b.py", "2");
        write("requirements.txt", "tomli");
        std::fs::remove_file(dir.path().join("a.py")).unwrap();
        let second = places.look();
        let changes = second.since(&first);
        assert_eq!(changes.sources, [dir.path().join("b.py")]);
        assert_eq!(changes.gone, [dir.path().join("a.py")]);
        assert!(changes.requirements && !changes.objects);
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_told_of_and_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.py"), "1").unwrap();
        let places = places(dir.path());
        let first = places.look();
        let mut watch = places.watch().unwrap();
        places.look();
        std::fs::write(dir.path().join(".a.py.swp"), "2").unwrap();
        std::fs::rename(dir.path().join(".a.py.swp"), dir.path().join("a.py")).unwrap();
        tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.unwrap();
        assert_eq!(places.look().since(&first).sources, [dir.path().join("a.py")]);
        assert!(watch.told.try_recv().is_err(), "looking is no change");
        // Whoever stops waiting while it settles is told the next time.
        std::fs::write(dir.path().join("a.py"), "3").unwrap();
        while !watch.is_due {
            if tokio::time::timeout(SETTLE / 4, watch.changed()).await.is_ok() {
                // This machine was too busy to stop in time.
                return;
            }
        }
        tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.unwrap();
    }
}
