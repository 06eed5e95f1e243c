//! `arint os migrate`: brings the stores to this version's schema before anything opens them, on a copy.
//!
//! Beside a store `<dir>` may lie `<dir>.before-<schema>` (as it was before the migration, until the new slot is
//! confirmed), `<dir>.set-aside-<schema>` (what a version that was left wrote) and, after a power cut, `<dir>.new` or
//! `<dir>.part`, which are removed.  A store whose schema fits is not copied: both versions share it.
//!
//! **Invariant:** `<dir>` is at every moment a complete store of one schema, and is never opened for migration itself.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use arstore::{Check, Database, OpenError, Options, Schema, schema_at};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// A unit's store.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its folder; all of it goes with the database.
    pub dir: PathBuf,
    /// The database in it.
    pub file: &'static str,
    /// The schema this version has.
    pub schema: &'static Schema,
}

/// What was done with a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// Its schema fits, or there is none yet.
    Shared,
    /// It was brought forward; the old one is kept.
    Migrated {
        /// From this schema.
        from: u32,
    },
    /// A newer version's store was set aside, and the one from before is back.
    Restored {
        /// The schema that was set aside.
        aside: u32,
    },
}

/// Why a store cannot be brought to this version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    /// The files.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database, or a migration of it.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A newer version wrote it, and nothing from before is kept.
    #[error(
        "the store `{}` has schema {found}, this version knows up to {known}, and no copy from before is kept: install the newer version again",
        dir.display()
    )]
    Newer {
        /// Its folder.
        dir: PathBuf,
        /// Its schema.
        found: u32,
        /// What this version knows.
        known: u32,
    },
}

impl Store {
    /// Brings it to this version; `step` is told each step before it is taken, and tests stop there.
    pub(crate) fn bring(&self, step: &mut dyn FnMut(&str)) -> Result<Done, MigrateError> {
        self.tidy(step)?;
        let Some(found) = schema_at(&self.dir.join(self.file))? else { return Ok(Done::Shared) };
        let known = self.schema.version();
        match found.cmp(&known) {
            std::cmp::Ordering::Equal => Ok(Done::Shared),
            std::cmp::Ordering::Less => self.forward(found, step),
            std::cmp::Ordering::Greater => self.back(found, known, step),
        }
    }

    fn forward(&self, found: u32, step: &mut dyn FnMut(&str)) -> Result<Done, MigrateError> {
        let (part, new) = (self.beside(".part"), self.beside(".new"));
        let kept = self.beside(&format!(".before-{found}"));
        // One from an earlier attempt may be older than what is there now.
        step("drop the old copy");
        if kept.is_dir() {
            rename(&kept, &part)?;
            remove(&part)?;
        }
        step("copy to keep");
        copy(&self.dir, &part)?;
        step("keep");
        rename(&part, &kept)?;
        step("copy to migrate");
        copy(&self.dir, &new)?;
        step("migrate");
        let options = Options { check: Check::Full, ..Options::default() };
        Database::open_with(&new.join(self.file), self.schema, &options)?.close();
        own_alike(&self.dir, &new)?;
        sync(&new)?;
        step("exchange");
        exchange(&self.dir, &new)?;
        step("remove the migrated original");
        remove(&new)?;
        Ok(Done::Migrated { from: found })
    }

    fn back(
        &self,
        found: u32,
        known: u32,
        step: &mut dyn FnMut(&str),
    ) -> Result<Done, MigrateError> {
        let newest = self.kept("before")?.into_iter().filter(|(schema, _)| *schema <= known).max();
        let Some((_, kept)) = newest else {
            return Err(MigrateError::Newer { dir: self.dir.clone(), found, known });
        };
        step("exchange");
        exchange(&self.dir, &kept)?;
        step("set aside");
        let aside = self.beside(&format!(".set-aside-{found}"));
        remove(&aside)?;
        rename(&kept, &aside)?;
        // Still older ones are brought forward like any other.
        if let Done::Migrated { .. } = self.bring(step)? {
            log::info!(path:% = self.dir.display(); "the store from before was brought forward");
        }
        Ok(Done::Restored { aside: found })
    }

    /// Ends what a power cut left half done.
    fn tidy(&self, step: &mut dyn FnMut(&str)) -> Result<(), MigrateError> {
        for suffix in [".part", ".new"] {
            remove(&self.beside(suffix))?;
        }
        // After an exchange that was not followed by its renaming, a kept copy holds what was to be set aside.
        for (schema, path) in self.kept("before")? {
            let found = schema_at(&path.join(self.file))?;
            if let Some(found) = found.filter(|found| *found != schema) {
                step("set aside later");
                let aside = self.beside(&format!(".set-aside-{found}"));
                remove(&aside)?;
                rename(&path, &aside)?;
            }
        }
        Ok(())
    }

    /// The folders `<dir>.<what>-<schema>`.
    fn kept(&self, what: &str) -> Result<Vec<(u32, PathBuf)>, MigrateError> {
        let parent = parent(&self.dir);
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = format!("{name}.{what}-");
        let entries = match std::fs::read_dir(parent) {
            Ok(entries) => entries,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io("list the folder", parent, source)),
        };
        Ok(entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let schema = name.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
                Some((schema, entry.path()))
            })
            .collect())
    }

    /// Removes what was kept for falling back, and what was set aside.
    pub(crate) fn forget(&self) -> Result<(), MigrateError> {
        for what in ["before", "set-aside"] {
            for (_, path) in self.kept(what)? {
                // Under another name first: a copy that is half removed must not be taken for one.
                let part = self.beside(".part");
                remove(&part)?;
                rename(&path, &part)?;
                remove(&part)?;
            }
        }
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.dir.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }
}

/// Copies a folder with its owners and modes; on XFS the bytes are shared until one side changes them.
fn copy(from: &Path, to: &Path) -> Result<(), MigrateError> {
    std::fs::create_dir(to).map_err(|err| io("make the folder", to, err))?;
    let entries = std::fs::read_dir(from).map_err(|err| io("list the folder", from, err))?;
    for entry in entries {
        let entry = entry.map_err(|err| io("list the folder", from, err))?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(|err| io("look at", &old, err))?;
        if kind.is_dir() {
            copy(&old, &new)?;
        } else if kind.is_file() {
            std::fs::copy(&old, &new).map_err(|err| io("copy", &old, err))?;
            own_alike(&old, &new)?;
            sync(&new)?;
        }
        // Sockets and links belong to no store.
    }
    own_alike(from, to)?;
    sync(to)
}

fn own_alike(like: &Path, path: &Path) -> Result<(), MigrateError> {
    let seen = std::fs::metadata(like).map_err(|err| io("look at", like, err))?;
    std::os::unix::fs::chown(path, Some(seen.uid()), Some(seen.gid()))
        .map_err(|err| io("give an owner to", path, err))?;
    std::fs::set_permissions(path, seen.permissions())
        .map_err(|err| io("give a mode to", path, err))?;
    // SQLite makes its side files anew; those in the folder belong to whom the folder belongs to.
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|err| io("list the folder", path, err))?;
        for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
            std::os::unix::fs::chown(entry.path(), Some(seen.uid()), Some(seen.gid()))
                .map_err(|err| io("give an owner to", &entry.path(), err))?;
        }
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), MigrateError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|err| io("make durable", path, err))
}

fn rename(from: &Path, to: &Path) -> Result<(), MigrateError> {
    std::fs::rename(from, to).map_err(|err| io("rename", from, err))?;
    sync(parent(from))
}

fn exchange(one: &Path, other: &Path) -> Result<(), MigrateError> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
        .map_err(|err| io("exchange", one, err.into()))?;
    sync(parent(one))
}

fn remove(path: &Path) -> Result<(), MigrateError> {
    match std::fs::remove_dir_all(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(io("remove", path, err)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> MigrateError {
    MigrateError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
