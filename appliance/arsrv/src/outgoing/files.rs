//! Folders on the box's data partition, which services read and write through the core.
//!
//! Services themselves may not open files of the box; here a connection is one folder, and nothing outside of it can be
//! named, not even by a symbolic link.  What is written appears whole under its name or not at all: it is written to a
//! file in [`PARTS`] and renamed.
//!
//! **Invariant:** a change that was answered is on disk.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arapi::arsrv::{OutgoingStatus, PingResult};
use arapi::objects::OutgoingFiles;
use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::connection::CallError;
use crate::call::{WorkerReply, WorkerRequest};

/// Most bytes of one `read`; a service that wants more asks again.
const CHUNK: u64 = 8 * 1024 * 1024;
/// Most entries of one folder that are listed.
const MOST_ENTRIES: usize = 100_000;
/// In the folder of a connection: what is being written.
const PARTS: &str = ".arint-parts";
/// This much of the file system stays free, so that the box itself can go on.
const RESERVE: u64 = 256 * 1024 * 1024;
/// … or, where the file system is small, this part of it.
const RESERVE_PART: u64 = 20;

/// A folder that services use.
#[derive(Debug)]
pub struct Files {
    /// Its name.
    pub name: String,
    /// What was configured.
    pub spec: OutgoingFiles,
    /// The folder.
    pub root: PathBuf,
    /// What was done with it; kept when the rest changes.
    pub counts: Arc<Counts>,
}

/// What was done with a folder.
#[derive(Debug, Default)]
pub struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    parts: AtomicU64,
    /// Whether what an earlier run of the core left half written is gone.
    is_clean: Mutex<bool>,
    last: Mutex<Option<Last>>,
}

#[derive(Debug, Clone)]
struct Last {
    at_ms: u64,
    took_ms: f64,
    error: Option<String>,
}

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.spec, &self.root) == (&other.name, &other.spec, &other.root)
    }
}

/// Why something cannot be done in a folder.  The paths in it are those of the service.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// Not a path in the folder.
    #[error("`{path}` is no path in the folder: names joined by `/`, without `..`, were expected")]
    Path {
        /// As it was asked for.
        path: String,
    },
    /// Not something that can be done.
    #[error("{fault}")]
    Request {
        /// What is wrong.
        fault: String,
    },
    /// It may only be read.
    #[error("it is set to `read_only`")]
    ReadOnly,
    /// There is something of this name.
    #[error("`{path}` is there already")]
    Exists {
        /// The path.
        path: String,
    },
    /// There is no room.
    #[error(
        "there is no room on the disk: {left} MiB are left, and {reserve} MiB are the box's own"
    )]
    NoRoom {
        /// MiB.
        left: u64,
        /// MiB.
        reserve: u64,
    },
    /// Too large.
    #[error("`{path}` would be larger than the {limit} bytes of `max_file_bytes`")]
    TooLarge {
        /// The path.
        path: String,
        /// `max_file_bytes`.
        limit: u64,
    },
    /// The file system says no.
    #[error("cannot {doing} `{path}`")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl FileFault {
    /// The word for workers (docs/worker-protocol.md).
    pub fn type_name(&self) -> &'static str {
        use std::io::ErrorKind;
        match self {
            Self::Path { .. } | Self::Request { .. } => "bad-request",
            Self::ReadOnly => "refused",
            Self::Exists { .. } => "file-exists",
            Self::NoRoom { .. } => "no-room",
            Self::TooLarge { .. } => "too-large",
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::NotFound => "file-not-found",
                ErrorKind::AlreadyExists => "file-exists",
                ErrorKind::NotADirectory => "not-a-directory",
                ErrorKind::IsADirectory => "is-a-directory",
                ErrorKind::DirectoryNotEmpty => "not-empty",
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "no-room",
                ErrorKind::PermissionDenied => "refused",
                _ => "internal",
            },
        }
    }
}

/// What a worker wants done.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
enum Action {
    /// The entries of a folder.
    List { path: String },
    /// What is known of a file or folder.
    Info { path: String },
    /// A part of a file.
    Read { path: String, offset: u64, length: u64 },
    /// The body as a file.
    Write { path: String, mode: Mode },
    /// The body as the next piece of a file that is not there yet.
    Part { part: Option<u64> },
    /// Such a file becomes one with a name.
    Commit { part: u64, path: String, mode: Mode },
    /// Such a file is not wanted any more.
    Drop { part: u64 },
    /// The body at the end of a file.
    Append { path: String },
    /// Away with a file.
    Delete { path: String },
    /// Another name.
    Move { path: String, to: String, mode: Mode },
    /// A folder, with those above it.
    CreateDirectory { path: String },
    /// Away with a folder.
    DeleteDirectory { path: String, recursive: bool },
}

/// What happens to a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// It stays, and the call fails.
    Create,
    /// It is replaced.
    Replace,
}

impl Files {
    /// Does what a worker wants.
    pub async fn answer(self: Arc<Self>, request: WorkerRequest) -> Result<WorkerReply, CallError> {
        if !self.spec.is_active {
            return Err(CallError::Inactive { name: self.name.clone() });
        }
        let name = self.name.clone();
        let action = Action::deserialize(&request.meta).map_err(|err| CallError::BadRequest {
            name: name.clone(),
            fault: format!("this cannot be done with files: {err}"),
        })?;
        // Whatever was begun is carried out: a call whose time is up leaves no file half done.
        let done = tokio::task::spawn_blocking(move || self.counted(action, &request.body)).await;
        match done {
            Ok(done) => done.map_err(|source| CallError::File { name, source }),
            Err(err) => Err(CallError::BadRequest { name, fault: err.to_string() }),
        }
    }

    fn counted(&self, action: Action, body: &[u8]) -> Result<WorkerReply, FileFault> {
        let since = Instant::now();
        let done = self.carry_out(action, body);
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        // What services look for and do not find is nothing wrong with the folder.
        let is_fault = done.as_ref().is_err_and(|err| {
            matches!(err.type_name(), "internal" | "no-room")
                || matches!(err, FileFault::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
        });
        if is_fault {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        if is_fault || done.is_ok() {
            self.note(since, done.as_ref().err().map(|err| arbase::Chain(err).to_string()));
        }
        done
    }

    fn note(&self, since: Instant, error: Option<String>) {
        let took_ms = since.elapsed().as_secs_f64() * 1000.0;
        let last = Last { at_ms: arbase::time::now_ms(), took_ms, error };
        *self.counts.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    fn carry_out(&self, action: Action, body: &[u8]) -> Result<WorkerReply, FileFault> {
        let root = self.open()?;
        let is_change =
            !matches!(action, Action::List { .. } | Action::Info { .. } | Action::Read { .. });
        if is_change && self.spec.read_only {
            return Err(FileFault::ReadOnly);
        }
        let done = |meta: Value| Ok(WorkerReply { meta, body: Bytes::new() });
        match action {
            Action::List { path } => {
                let entries = list(&root, &inside(&path)?, &path)?;
                let text = serde_json::to_vec(&entries).map_err(|err| FileFault::Request {
                    fault: format!("cannot write the list: {err}"),
                })?;
                Ok(WorkerReply { meta: json!({}), body: text.into() })
            }
            Action::Info { path } => {
                let metadata = root.metadata(inside(&path)?).map_err(io("look at", &path))?;
                done(described(&metadata))
            }
            Action::Read { path, offset, length } => read(&root, &path, offset, length),
            Action::Write { path, mode } => {
                let to = own(&path)?;
                self.fits(&path, body.len())?;
                self.has_room(&root, body.len())?;
                let part = self.counts.parts.fetch_add(1, Ordering::Relaxed);
                let from = self.part_path(part);
                write_part(&root, &from, body, true)
                    .and_then(|()| settle(&root, &from, &to, mode))
                    .inspect_err(|_| drop(root.remove_file(&from)))
                    .map_err(known(&path, "write"))?;
                done(json!({}))
            }
            Action::Part { part } => {
                self.has_room(&root, body.len())?;
                let is_new = part.is_none();
                let part =
                    part.unwrap_or_else(|| self.counts.parts.fetch_add(1, Ordering::Relaxed));
                let from = self.part_path(part);
                if !is_new {
                    let before = root.metadata(&from).map_err(|_| no_part())?.len();
                    let length = usize::try_from(before).unwrap_or(usize::MAX);
                    let fits = self.fits("the file", length.saturating_add(body.len()));
                    fits.inspect_err(|_| drop(root.remove_file(&from)))?;
                }
                write_part(&root, &from, body, is_new)
                    .inspect_err(|_| drop(root.remove_file(&from)))
                    .map_err(io("write", "the file"))?;
                done(json!({"part": part}))
            }
            Action::Commit { part, path, mode } => {
                let (from, to) = (self.part_path(part), own(&path)?);
                root.metadata(&from).map_err(|_| no_part())?;
                settle(&root, &from, &to, mode)
                    .inspect_err(|_| drop(root.remove_file(&from)))
                    .map_err(known(&path, "write"))?;
                done(json!({}))
            }
            Action::Drop { part } => {
                // It may be gone already.
                root.remove_file(self.part_path(part)).ok();
                done(json!({}))
            }
            Action::Append { path } => {
                let to = own(&path)?;
                let before = root.metadata(&to).map_or(0, |metadata| metadata.len());
                let length = usize::try_from(before).unwrap_or(usize::MAX);
                self.fits(&path, length.saturating_add(body.len()))?;
                self.has_room(&root, body.len())?;
                append(&root, &to, body).map_err(io("append to", &path))?;
                done(json!({}))
            }
            Action::Delete { path } => {
                let at = own(&path)?;
                root.remove_file(&at)
                    .and_then(|()| sync_parent(&root, &at))
                    .map_err(io("delete", &path))?;
                done(json!({}))
            }
            Action::Move { path, to, mode } => {
                let (from, at) = (own(&path)?, own(&to)?);
                root.metadata(&from).map_err(io("move", &path))?;
                settle(&root, &from, &at, mode)
                    .and_then(|()| sync_parent(&root, &from))
                    .map_err(known(&to, "move to"))?;
                done(json!({}))
            }
            Action::CreateDirectory { path } => {
                let at = own(&path)?;
                make_folder(&root, &at).map_err(io("make", &path))?;
                done(json!({}))
            }
            Action::DeleteDirectory { path, recursive } => {
                let at = own(&path)?;
                let removed =
                    if recursive { root.remove_dir_all(&at) } else { root.remove_dir(&at) };
                removed.and_then(|()| sync_parent(&root, &at)).map_err(io("delete", &path))?;
                done(json!({}))
            }
        }
    }

    /// The folder, made where it is not there; what a run before left half written is removed once.
    fn open(&self) -> Result<Dir, FileFault> {
        let failed = |source| FileFault::Io {
            doing: "open the folder",
            path: self.spec.folder(&self.name).to_owned(),
            source,
        };
        std::fs::create_dir_all(&self.root).map_err(failed)?;
        let root = Dir::open_ambient_dir(&self.root, ambient_authority()).map_err(failed)?;
        let mut is_clean = self.counts.is_clean.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_clean && !self.spec.read_only {
            match root.remove_dir_all(self.parts()) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(failed(err)),
                _ => {}
            }
            root.create_dir_all(self.parts()).map_err(failed)?;
            *is_clean = true;
        }
        Ok(root)
    }

    /// Where this connection's parts are: others that share the folder have theirs elsewhere.
    fn parts(&self) -> PathBuf {
        let digest = Sha256::digest(self.name.as_bytes());
        Path::new(PARTS).join(hex::encode(digest.get(..8).unwrap_or_default()))
    }

    fn part_path(&self, part: u64) -> PathBuf {
        self.parts().join(part.to_string())
    }

    fn fits(&self, path: &str, length: usize) -> Result<(), FileFault> {
        let limit = self.spec.max_file_bytes;
        if u64::try_from(length).unwrap_or(u64::MAX) > limit {
            return Err(FileFault::TooLarge { path: path.to_owned(), limit });
        }
        Ok(())
    }

    fn has_room(&self, root: &Dir, length: usize) -> Result<(), FileFault> {
        let Ok((left, total)) = room(root) else { return Ok(()) };
        let reserve = RESERVE.min(total / RESERVE_PART);
        if left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX)) < reserve {
            return Err(FileFault::NoRoom { left: left >> 20, reserve: reserve >> 20 });
        }
        Ok(())
    }

    /// How it is.
    pub fn status(&self) -> OutgoingStatus {
        let last = self.counts.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let error = last.as_ref().and_then(|last| last.error.clone());
        let health = match (self.spec.is_active, &last, &error) {
            (false, _, _) => "inactive",
            (true, None, _) => "unknown",
            (true, Some(_), None) => "up",
            (true, Some(_), Some(_)) => "down",
        };
        OutgoingStatus {
            name: self.name.clone(),
            address: self.spec.folder(&self.name).to_owned(),
            health: health.to_owned(),
            last_error: error,
            checked_ms: last.as_ref().map(|last| last.at_ms),
            ping_ms: last.map(|last| last.took_ms),
            circuit: "closed".to_owned(),
            calls: self.counts.calls.load(Ordering::Relaxed),
            retries: 0,
            failures: self.counts.failures.load(Ordering::Relaxed),
            pool: None,
        }
    }

    /// Opens the folder and tells how much room there is.
    pub async fn ping(self: Arc<Self>) -> PingResult {
        let since = Instant::now();
        let name = self.name.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let found =
                self.open().and_then(|root| room(&root).map_err(io("look at", "the folder")));
            let error = found.as_ref().err().map(|err| arbase::Chain(err).to_string());
            self.note(since, error.clone());
            found.map_err(|_| error.unwrap_or_default())
        });
        let (ok, message) = match looked.await {
            Ok(Ok((left, total))) => {
                (true, format!("folder of `{name}`: {} of {} MiB free", left >> 20, total >> 20))
            }
            Ok(Err(error)) => (false, format!("outgoing connection `{name}`: {error}")),
            Err(err) => (false, err.to_string()),
        };
        let elapsed_ms = since.elapsed().as_secs_f64() * 1000.0;
        PingResult { ok, status: None, message, elapsed_ms }
    }
}

/// A path of a service as one below the folder; an empty one is the folder itself.
fn inside(path: &str) -> Result<PathBuf, FileFault> {
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let is_inside = !path.contains('\0') && Path::new(path).components().all(is_name);
    let mut parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
    let is_own = parts.clone().next().is_some_and(|part| part.as_os_str() == PARTS);
    if !is_inside || is_own {
        return Err(FileFault::Path { path: path.escape_debug().to_string() });
    }
    let below: PathBuf = parts.by_ref().collect();
    Ok(if below.as_os_str().is_empty() { PathBuf::from(".") } else { below })
}

/// The same for what is changed: not the folder itself.
fn own(path: &str) -> Result<PathBuf, FileFault> {
    let below = inside(path)?;
    if below == Path::new(".") {
        return Err(FileFault::Path { path: path.escape_debug().to_string() });
    }
    Ok(below)
}

fn no_part() -> FileFault {
    FileFault::Request {
        fault: "what was being written is gone, because the core was started anew; write it again"
            .to_owned(),
    }
}

fn io(doing: &'static str, path: &str) -> impl FnOnce(std::io::Error) -> FileFault {
    let path = path.escape_debug().to_string();
    move |source| FileFault::Io { doing, path, source }
}

/// The same where a file that is there is a reason of its own.
fn known(path: &str, doing: &'static str) -> impl FnOnce(std::io::Error) -> FileFault {
    let path = path.escape_debug().to_string();
    move |source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => FileFault::Exists { path },
        _ => FileFault::Io { doing, path, source },
    }
}

fn described(metadata: &Metadata) -> Value {
    let kind = if metadata.is_dir() { "directory" } else { "file" };
    let since = metadata
        .modified()
        .ok()
        .and_then(|at| at.into_std().duration_since(std::time::UNIX_EPOCH).ok());
    let modified_ms = since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    json!({"type": kind, "size": metadata.len(), "modified_ms": modified_ms})
}

fn list(root: &Dir, at: &Path, path: &str) -> Result<Vec<Value>, FileFault> {
    let mut entries = Vec::new();
    for entry in root.read_dir(at).map_err(io("list", path))? {
        let entry = entry.map_err(io("list", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == PARTS && at == Path::new(".") {
            continue;
        }
        // What goes away meanwhile is not there.
        let Ok(metadata) = entry.metadata() else { continue };
        let mut about = described(&metadata);
        if let Some(about) = about.as_object_mut() {
            about.insert("name".to_owned(), name.into());
        }
        entries.push(about);
        if entries.len() > MOST_ENTRIES {
            return Err(FileFault::Request {
                fault: format!(
                    "`{}` has more than {MOST_ENTRIES} entries; spread them over folders",
                    path.escape_debug()
                ),
            });
        }
    }
    let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
    entries.sort_by_cached_key(name);
    Ok(entries)
}

fn read(root: &Dir, path: &str, offset: u64, length: u64) -> Result<WorkerReply, FileFault> {
    let opened = root.open(inside(path)?);
    let mut file = opened.map_err(io("read", path))?;
    let metadata = file.metadata().map_err(io("read", path))?;
    if metadata.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(io("read", path)(source));
    }
    file.seek(SeekFrom::Start(offset)).map_err(io("read", path))?;
    let length = length.min(CHUNK);
    let left = metadata.len().saturating_sub(offset).min(length);
    let mut body = Vec::with_capacity(usize::try_from(left).unwrap_or(0));
    file.take(length).read_to_end(&mut body).map_err(io("read", path))?;
    Ok(WorkerReply { meta: json!({"size": metadata.len()}), body: body.into() })
}

fn write_part(root: &Dir, at: &Path, body: &[u8], is_new: bool) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(is_new);
    let mut file = root.open_with(at, &options)?;
    file.write_all(body)
}

/// Gives what is at `from` the name `to`, on disk.
fn settle(root: &Dir, from: &Path, to: &Path, mode: Mode) -> std::io::Result<()> {
    let is_file = root.metadata(from)?.is_file();
    if is_file {
        root.open(from)?.sync_all()?;
    }
    match mode {
        Mode::Replace => root.rename(from, root, to)?,
        // A link fails where there is something, at one stroke.
        Mode::Create if is_file => {
            root.hard_link(from, root, to)?;
            root.remove_file(from)?;
        }
        Mode::Create => {
            if root.symlink_metadata(to).is_ok() {
                return Err(std::io::ErrorKind::AlreadyExists.into());
            }
            root.rename(from, root, to)?;
        }
    }
    sync_parent(root, to)
}

fn append(root: &Dir, at: &Path, body: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let mut file = root.open_with(at, &options)?;
    file.write_all(body)?;
    file.sync_all()?;
    sync_parent(root, at)
}

fn make_folder(root: &Dir, at: &Path) -> std::io::Result<()> {
    root.create_dir_all(at)?;
    let mut folder = Some(at);
    while let Some(made) = folder.filter(|path| !path.as_os_str().is_empty()) {
        sync_parent(root, made)?;
        folder = made.parent();
    }
    Ok(())
}

/// Makes the entry of `at` durable.
fn sync_parent(root: &Dir, at: &Path) -> std::io::Result<()> {
    let parent = at.parent().filter(|path| !path.as_os_str().is_empty());
    // As a file: what `Dir` holds is a path only, which cannot be synced.
    root.open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Bytes of the file system: free for us, and in all.
fn room(root: &Dir) -> std::io::Result<(u64, u64)> {
    let stat = nix::sys::statvfs::fstatvfs(root)?;
    Ok((
        stat.blocks_available().saturating_mul(stat.fragment_size()),
        stat.blocks().saturating_mul(stat.fragment_size()),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arapi::Cid;

    use super::*;

    fn files(root: &Path, more: Value) -> Arc<Files> {
        let spec = serde_json::from_value(more).unwrap();
        let (name, root) = ("x".to_owned(), root.to_owned());
        Arc::new(Files { name, spec, root, counts: Arc::default() })
    }

    async fn call(files: &Arc<Files>, meta: Value, body: &str) -> Result<(Value, Bytes), String> {
        let request = WorkerRequest {
            meta,
            body: Bytes::copy_from_slice(body.as_bytes()),
            cid: Cid::random(),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        match Arc::clone(files).answer(request).await {
            Ok(reply) => Ok((reply.meta, reply.body)),
            Err(err) => Err(format!("{}: {}", err.type_name(), arbase::Chain(&err))),
        }
    }

    fn files_parts(root: &Path) -> PathBuf {
        root.join(files(root, json!({})).parts())
    }

    fn write(path: &str, mode: &str) -> Value {
        json!({"action": "write", "path": path, "mode": mode})
    }

    fn read(path: &str) -> Value {
        json!({"action": "read", "path": path, "offset": 0, "length": 100})
    }

    #[tokio::test]
    async fn files_are_written_whole_read_listed_moved_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir.path().join("in"), json!({}));
        let folder = json!({"action": "create_directory", "path": "a/b"});
        call(&files, folder, "").await.unwrap();
        call(&files, write("a/b/one.txt", "create"), "first").await.unwrap();
        assert_eq!(
            call(&files, write("a/b/one.txt", "create"), "x").await.unwrap_err(),
            "file-exists: outgoing connection `x`: `a/b/one.txt` is there already"
        );
        call(&files, write("a/b/one.txt", "replace"), "second").await.unwrap();
        let append = json!({"action": "append", "path": "a/b/one.txt"});
        call(&files, append, " and more").await.unwrap();
        let (meta, body) = call(&files, read("a/b/one.txt"), "").await.unwrap();
        assert_eq!((meta["size"].as_u64(), &body[..]), (Some(15), &b"second and more"[..]));
        let part = json!({"action": "read", "path": "a/b/one.txt", "offset": 7, "length": 3});
        assert_eq!(&call(&files, part, "").await.unwrap().1[..], b"and");
        let to =
            json!({"action": "move", "path": "a/b/one.txt", "to": "two.txt", "mode": "create"});
        call(&files, to, "").await.unwrap();
        let list = json!({"action": "list", "path": ""});
        let (_, body) = call(&files, list, "").await.unwrap();
        let entries: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let names: Vec<(&str, &str)> = entries
            .iter()
            .map(|entry| (entry["name"].as_str().unwrap(), entry["type"].as_str().unwrap()))
            .collect();
        assert_eq!(names, [("a", "directory"), ("two.txt", "file")]);
        let gone = json!({"action": "delete_directory", "path": "a", "recursive": false});
        assert!(call(&files, gone, "").await.unwrap_err().starts_with("not-empty: "));
        let gone = json!({"action": "delete_directory", "path": "a", "recursive": true});
        call(&files, gone, "").await.unwrap();
        call(&files, json!({"action": "delete", "path": "two.txt"}), "").await.unwrap();
        let refused = call(&files, read("two.txt"), "").await.unwrap_err();
        assert_eq!(
            refused,
            "file-not-found: outgoing connection `x`: cannot read `two.txt`: No such file or directory (os error 2)"
        );
        let status = files.status();
        assert_eq!((status.health.as_str(), status.failures), ("up", 0));
    }

    #[tokio::test]
    async fn nothing_outside_of_the_folder_can_be_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let root = dir.path().join("in");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        let files = files(&root, json!({}));
        for path in [
            "../secret",
            "/etc/passwd",
            "a/../../secret",
            "link",
            "up/secret",
            "a\0b",
            ".arint-parts/0",
        ] {
            let refused = call(&files, read(path), "").await.unwrap_err();
            assert!(
                refused.starts_with("bad-request: ") || refused.starts_with("refused: "),
                "{path}: {refused}"
            );
            let refused = call(&files, write(path, "create"), "x").await;
            assert!(refused.is_err(), "{path}");
        }
        call(&files, write("link", "replace"), "mine").await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("secret")).unwrap(), "s");
        for path in ["", ".", "./"] {
            let gone = json!({"action": "delete_directory", "path": path, "recursive": true});
            assert!(call(&files, gone, "").await.is_err(), "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_large_file_comes_in_parts_and_appears_at_one_stroke() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), json!({"max_file_bytes": 10}));
        let (meta, _) =
            call(&files, json!({"action": "part", "part": null}), "12345").await.unwrap();
        let part = &meta["part"];
        call(&files, json!({"action": "part", "part": part}), "67").await.unwrap();
        assert!(call(&files, read("big"), "").await.is_err(), "not there yet");
        let commit = json!({"action": "commit", "part": part, "path": "big", "mode": "create"});
        call(&files, commit.clone(), "").await.unwrap();
        assert_eq!(&call(&files, read("big"), "").await.unwrap().1[..], b"1234567");
        assert!(call(&files, commit, "").await.unwrap_err().contains("write it again"));
        // Nothing is left of one that grows too large.
        let (meta, _) =
            call(&files, json!({"action": "part", "part": null}), "12345").await.unwrap();
        let refused = call(&files, json!({"action": "part", "part": meta["part"]}), "678901").await;
        assert_eq!(
            refused.unwrap_err(),
            "too-large: outgoing connection `x`: `the file` would be larger than the 10 bytes of `max_file_bytes`"
        );
        assert_eq!(std::fs::read_dir(files_parts(dir.path())).unwrap().count(), 0);
        assert!(
            call(&files, write("y", "create"), "12345678901")
                .await
                .unwrap_err()
                .starts_with("too-large")
        );
    }

    #[tokio::test]
    async fn what_a_core_that_died_was_writing_is_gone_and_what_it_answered_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let first = files(dir.path(), json!({}));
        call(&first, write("kept", "create"), "k").await.unwrap();
        call(&first, json!({"action": "part", "part": null}), "half").await.unwrap();
        // A neighbour's are left alone.
        let spec = serde_json::from_value(json!({})).unwrap();
        let (root, name) = (dir.path().to_owned(), "y".to_owned());
        let neighbour = Arc::new(Files { name, spec, root, counts: Arc::default() });
        call(&neighbour, read("kept"), "").await.unwrap();
        assert_eq!(std::fs::read_dir(files_parts(dir.path())).unwrap().count(), 1);
        let again = files(dir.path(), json!({}));
        assert_eq!(&call(&again, read("kept"), "").await.unwrap().1[..], b"k");
        assert_eq!(std::fs::read_dir(files_parts(dir.path())).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_folder_that_may_only_be_read_and_one_that_is_switched_off() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        let shown = files(dir.path(), json!({"read_only": true}));
        assert_eq!(&call(&shown, read("a"), "").await.unwrap().1[..], b"1");
        assert_eq!(
            call(&shown, write("b", "create"), "").await.unwrap_err(),
            "refused: outgoing connection `x`: it is set to `read_only`"
        );
        let off = files(dir.path(), json!({"is_active": false}));
        assert!(call(&off, read("a"), "").await.unwrap_err().starts_with("inactive"));
        let ping = shown.ping().await;
        assert!(ping.ok && ping.message.contains("MiB free"), "{ping:?}");
    }
}
