//! Small files, such as keys, that are there whole or not at all, whatever dies when.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Why a small file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be written; what was there is still there.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes or replaces a file that only its owner may read (mode 0600).  When it returns, the new
/// content is on disk; if anything dies before, the old content is.
///
/// Two that write the same file at one time end with one of the two contents, whole.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let dir = folder_of(path);
        std::fs::create_dir_all(dir)?;
        let temp = temp_beside(path);
        let written = write_temp(&temp, bytes).and_then(|()| std::fs::rename(&temp, path));
        if written.is_err() {
            // The first error is the one to tell; a left-over temporary file harms nobody.
            std::fs::remove_file(&temp).ok();
        }
        written?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Reads a small file; `None` if it is not there.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }),
    }
}

fn write_temp(temp: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temp)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// A name no other write uses: this process, and a count within it.
fn temp_beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{started:x}-{count}.tmp", std::process::id()));
    path.with_file_name(name)
}
