//! The pickup folders: a file that appears or changes there is carried out as if it had been deployed.
//!
//! The kernel tells of finished files; a scan at the start and every 30 seconds finds what it did not tell.
//! What was carried out is remembered by its hash, so a restart deploys nothing anew, and a file that
//! was deployed differently since is not put back.  Files that change together are deployed together.  A file
//! that is taken away removes nothing.
//!
//! `NAME.requirements.txt` beside `NAME.py` names the packages that it needs, `requirements.txt` those of every file
//! that has none of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arapi::arsrv::ModuleSource;
use arapi::arwadm::ChangeRequest;
use arapi::{Cid, Kind, ObjectName};
use arbase::http::with_cid;
use arbase::{Chain, Stop};
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::deploy::{self, DeployError, Wanted, WantedPackages};
use crate::deployment::sentence;
use crate::gate::Caller;
use crate::objects;
use crate::server::App;
use crate::tokens::sha256_hex;

/// After a finished file further ones are waited for this long.
const SETTLE: Duration = Duration::from_millis(20);
/// At most this long in all.
const SETTLE_MOST: Duration = Duration::from_millis(100);
/// Between two scans.
const SCAN: Duration = Duration::from_secs(30);
/// A file a scan finds must have been left alone this long; it may be half written.
const LEFT_ALONE: Duration = Duration::from_secs(2);
/// What files of requirements are called, before `.txt`.
const REQUIREMENTS: &str = "requirements";
/// Beside a refused file lies one with this ending that says why.
const REFUSED: &str = ".refused.txt";

/// Watches the folders until told to stop.
pub(crate) async fn run(app: App, stop: Stop) {
    let dirs = [app.config.pickup_dir.clone(), app.config.pickup_user_conf_dir.clone()];
    for dir in &dirs {
        if let Err(err) = std::fs::create_dir_all(dir) {
            log::warn!(path:% = dir.display(), error:% = Chain(&err); "cannot make a pickup folder");
        }
    }
    let (tx, mut finished) = mpsc::unbounded_channel();
    let mut watcher = watch(&dirs, tx.clone());
    let mut pickup = Pickup::load(app).await;
    let mut due = Instant::now();
    loop {
        let mut batch = BTreeSet::new();
        tokio::select! {
            path = finished.recv() => batch.extend(path),
            () = tokio::time::sleep_until(due) => {
                due = Instant::now() + SCAN;
                if watcher.is_none() {
                    watcher = watch(&dirs, tx.clone());
                }
                batch = scan(&dirs);
                pickup.forget_vanished(&dirs).await;
            }
            () = stop.wait() => return,
        }
        let most = Instant::now() + SETTLE_MOST;
        loop {
            let until = (Instant::now() + SETTLE).min(most);
            match tokio::time::timeout_at(until, finished.recv()).await {
                Ok(Some(path)) => drop(batch.insert(path)),
                Ok(None) | Err(_) => break,
            }
        }
        if !batch.is_empty() {
            tokio::select! {
                () = with_cid(Cid::random(), pickup.carry_out(batch)) => {}
                () = stop.wait() => return,
            }
        }
    }
}

/// Asks the kernel to tell of finished files.
fn watch(dirs: &[PathBuf], tx: mpsc::UnboundedSender<PathBuf>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let is_finished = matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
        );
        if is_finished {
            for path in event.paths {
                // Fails only when the service stops.
                tx.send(path).ok();
            }
        }
    };
    let watched = notify::recommended_watcher(told).and_then(|mut watcher| {
        for dir in dirs {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    watched
        .inspect_err(|err| {
            log::warn!(error:% = Chain(err); "the pickup folders are not watched; files are found by the scan only");
        })
        .ok()
}

/// Files that are there and have been left alone for a while.
fn scan(dirs: &[PathBuf]) -> BTreeSet<PathBuf> {
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let is_old = |entry: &std::fs::DirEntry| {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        // A time in the future is a clock that was set, not a file being written.
        changed.is_ok_and(|changed| {
            SystemTime::now().duration_since(changed).map_or(true, |age| age >= LEFT_ALONE)
        })
    };
    entries.filter(is_old).map(|entry| entry.path()).collect()
}

/// Files that have a note of a refusal and are not there any more.
fn refused_and_gone(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let noted = |entry: std::fs::DirEntry| {
        let path = entry.path();
        Some(PathBuf::from(path.to_str()?.strip_suffix(REFUSED)?))
    };
    entries.filter_map(noted).filter(|path| !path.is_file()).collect()
}

/// What a file in a pickup folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Service,
    Requirements,
    UserConfig,
    Other,
}

/// Tells files apart by their names.  Hidden files and editors' temporary files are none of ours.
fn kind_of(name: &str, is_user_conf: bool) -> Found {
    let hidden = name.starts_with(['.', '#', '~']) || name.ends_with('~');
    if hidden {
        return Found::Other;
    }
    match name.rsplit_once('.') {
        Some((stem, "py")) if !is_user_conf && !stem.is_empty() => Found::Service,
        Some((stem, "txt")) if !is_user_conf && is_requirements(stem) => Found::Requirements,
        Some((stem, "ini" | "conf")) if is_user_conf && !stem.is_empty() => Found::UserConfig,
        _ => Found::Other,
    }
}

fn is_requirements(stem: &str) -> bool {
    stem == REQUIREMENTS || stem.strip_suffix(REQUIREMENTS).is_some_and(|own| own.ends_with('.'))
}

/// The files of source whose packages a file of requirements names.
fn named_by(requirements: &Path) -> Vec<PathBuf> {
    let name = requirements.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(own) = name.strip_suffix(".requirements.txt") {
        return vec![requirements.with_file_name(format!("{own}.py"))];
    }
    let entries = requirements.parent().and_then(|dir| std::fs::read_dir(dir).ok());
    let inside = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let is_service = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        kind_of(name, false) == Found::Service
    };
    inside.filter(is_service).collect()
}

/// What a file of source needs: its own file of requirements, or that of the folder.
fn requirements_of(source: &Path) -> std::io::Result<Option<String>> {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    for name in [format!("{stem}.requirements.txt"), "requirements.txt".to_owned()] {
        match std::fs::read(source.with_file_name(name)) {
            Ok(bytes) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    Ok(None)
}

/// A file that is to be deployed.
#[derive(Debug, Clone)]
struct Ready {
    file: ModuleSource,
    /// What it needs; None: what it has.
    requirements: Option<String>,
    /// Of both.
    sha256: String,
}

impl Ready {
    fn new(file: ModuleSource, requirements: Option<String>) -> Self {
        let sha256 = match &requirements {
            None => sha256_hex(file.source.as_bytes()),
            Some(text) => sha256_hex(format!("{}\0{text}", file.source).as_bytes()),
        };
        Self { file, requirements, sha256 }
    }
}

struct Pickup {
    app: App,
    /// SHA-256 of what was carried out, or refused, by path.
    seen: BTreeMap<String, String>,
    /// Files that were refused; tried again when others were deployed.
    refused: BTreeMap<PathBuf, Ready>,
}

impl Pickup {
    async fn load(app: App) -> Self {
        let seen = match app.audit.picked_up().await {
            Ok(seen) => seen.into_iter().collect(),
            Err(err) => {
                log::error!(error:% = Chain(&err); "cannot read what was picked up before");
                BTreeMap::new()
            }
        };
        Self { app, seen, refused: BTreeMap::new() }
    }

    async fn carry_out(&mut self, batch: BTreeSet<PathBuf>) {
        let mut services = BTreeMap::new();
        let named: Vec<PathBuf> = batch
            .iter()
            .flat_map(|path| match path.file_name() {
                Some(name) if kind_of(&name.to_string_lossy(), false) == Found::Requirements => {
                    named_by(path)
                }
                _ => Vec::new(),
            })
            .collect();
        for path in batch.into_iter().chain(named).collect::<BTreeSet<PathBuf>>() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_user_conf = path.parent() == Some(&self.app.config.pickup_user_conf_dir);
            let kind = kind_of(name, is_user_conf);
            if matches!(kind, Found::Other | Found::Requirements) {
                continue;
            }
            let bytes = match tokio::fs::read(&path).await {
                Ok(bytes) => bytes,
                // Gone again, or a folder.
                Err(err) => {
                    log::debug!(path:% = path.display(), error:% = Chain(&err); "cannot read a file of the pickup folder");
                    continue;
                }
            };
            let requirements = match requirements_of(&path) {
                Ok(requirements) => requirements.filter(|_| kind == Found::Service),
                Err(err) => {
                    log::warn!(path:% = path.display(), error:% = Chain(&err); "the requirements of a file cannot be read");
                    continue;
                }
            };
            let ready = String::from_utf8(bytes.clone()).map(|source| {
                Ready::new(ModuleSource { file_name: name.to_owned(), source }, requirements)
            });
            let sha256 =
                ready.as_ref().map_or_else(|_| sha256_hex(&bytes), |ready| ready.sha256.clone());
            if self.seen.get(&key(&path)) == Some(&sha256) {
                continue;
            }
            let name = name.to_owned();
            // What it says is about an older content.
            remove_note(&path).await;
            match kind {
                Found::UserConfig => self.user_config(&path, &name, &bytes, sha256).await,
                _ => match ready {
                    Ok(ready) => drop(services.insert(path, ready)),
                    Err(_) => {
                        self.refuse(&path, &sha256, &format!("{name}: the text is not UTF-8"))
                            .await;
                    }
                },
            }
        }
        if !services.is_empty() {
            self.deploy_all(services).await;
        }
    }

    /// Deploys files together, those that need the same packages at one time.
    async fn deploy_all(&mut self, files: BTreeMap<PathBuf, Ready>) {
        let mut some_live = false;
        for files in by_requirements(files) {
            some_live |= self.deploy_same(files).await;
        }
        if some_live && !self.refused.is_empty() {
            self.try_refused_again().await;
        }
    }

    /// Deploys files together; one that is at fault is refused and the others go on without it.  Says whether any is
    /// live.
    async fn deploy_same(&mut self, mut files: BTreeMap<PathBuf, Ready>) -> bool {
        let mut some_live = false;
        while !files.is_empty() {
            match self.deploy(&files).await {
                Ok(()) => {
                    some_live = true;
                    for (path, ready) in std::mem::take(&mut files) {
                        self.accept(&path, ready.sha256).await;
                    }
                }
                Err(DeployError::Api(err)) => {
                    // Not the files' fault: the scan tries again.
                    log::error!(reason = err.message(); "the pickup folder cannot be deployed now");
                    return some_live;
                }
                Err(DeployError::Fault(fault)) => {
                    let mut text = sentence(&fault);
                    if !fault.traceback.is_empty() {
                        text = format!("{text}\n\n{}", fault.traceback.trim_end());
                    }
                    let at_fault: Vec<PathBuf> = files
                        .iter()
                        .filter(|(_, ready)| ready.file.file_name == fault.file)
                        .map(|(path, _)| path.clone())
                        .collect();
                    // Where nobody in particular is at fault, all are.
                    let at_fault = if at_fault.is_empty() {
                        files.keys().cloned().collect()
                    } else {
                        at_fault
                    };
                    for path in at_fault {
                        if let Some(ready) = files.remove(&path) {
                            self.refuse(&path, &ready.sha256, &text).await;
                            self.refused.insert(path, ready);
                        }
                    }
                }
            }
        }
        some_live
    }

    /// What was refused may only have waited for what has come now.
    async fn try_refused_again(&mut self) {
        for again in by_requirements(self.refused.clone()) {
            let result = self.deploy(&again).await;
            if result.is_ok() {
                for (path, ready) in again {
                    self.accept(&path, ready.sha256).await;
                }
            }
        }
    }

    /// Deploys files that need the same.
    async fn deploy(&self, files: &BTreeMap<PathBuf, Ready>) -> Result<(), DeployError> {
        let caller = Caller::own("pickup", "deploy");
        let packages = match files.values().next().and_then(|ready| ready.requirements.clone()) {
            Some(text) => WantedPackages::Text { text, upgrade: false },
            None => WantedPackages::Keep,
        };
        let wanted = Wanted {
            files: files.values().map(|ready| ready.file.clone()).collect(),
            origin: "pickup".to_owned(),
            packages,
            ..Wanted::default()
        };
        deploy::deploy(&self.app, &caller, wanted).await.map(drop)
    }

    async fn user_config(&mut self, path: &Path, name: &str, bytes: &[u8], sha256: String) {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let sections = arapi::ini::parse(bytes).map_err(|err| format!("{name} {err}"));
        let named = ObjectName::parse(stem).map_err(|err| format!("{name}: {err}"));
        let (sections, stem) = match (sections, named) {
            (Ok(sections), Ok(stem)) => (sections, stem),
            (Err(reason), _) | (_, Err(reason)) => {
                return self.refuse(path, &sha256, &reason).await;
            }
        };
        let put = ChangeRequest::Put {
            kind: Kind::UserConfig,
            name: stem,
            spec: serde_json::json!({ "sections": sections }),
            expect: arapi::arclst::Expect::Any,
        };
        let caller = Caller::own("pickup", "object_put");
        match objects::transact(&self.app, &caller, &[put], false).await {
            Ok(_) => self.accept(path, sha256).await,
            Err(err) if err.code().status() < 500 => {
                self.refuse(path, &sha256, err.message()).await;
            }
            Err(err) => {
                log::error!(path:% = path.display(), reason = err.message(); "a user's config cannot be taken over now");
            }
        }
    }

    /// A refused file that was taken away takes its note along.
    async fn forget_vanished(&mut self, dirs: &[PathBuf]) {
        self.refused.retain(|path, _| path.is_file());
        for path in refused_and_gone(dirs) {
            self.seen.remove(&key(&path));
            remove_note(&path).await;
        }
    }

    async fn accept(&mut self, path: &Path, sha256: String) {
        self.refused.remove(path);
        remove_note(path).await;
        self.seen.insert(key(path), sha256.clone());
        if let Err(err) = self.app.audit.remember(vec![(key(path), sha256)]).await {
            log::error!(path:% = path.display(), error:% = Chain(&err); "cannot remember what was picked up");
        }
        log::info!(path:% = path.display(); "picked up");
    }

    async fn refuse(&mut self, path: &Path, sha256: &str, reason: &str) {
        let first = reason.lines().next().unwrap_or_default();
        log::error!(path:% = path.display(), reason = first; "a file of the pickup folder is refused");
        self.seen.insert(key(path), sha256.to_owned());
        let note = refused_note(path);
        if let Err(err) = tokio::fs::write(&note, format!("{reason}\n")).await {
            log::warn!(path:% = note.display(), error:% = Chain(&err); "cannot write the note of a refusal");
        }
        let caller = Caller::own("pickup", "deploy");
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let target = format!("pickup/{}", name.unwrap_or_default());
        self.app.note_refusal(&caller, target, "refused", Some(first.to_owned())).await;
    }
}

/// Files apart by what they need.
fn by_requirements(files: BTreeMap<PathBuf, Ready>) -> Vec<BTreeMap<PathBuf, Ready>> {
    let mut apart: BTreeMap<Option<String>, BTreeMap<PathBuf, Ready>> = BTreeMap::new();
    for (path, ready) in files {
        apart.entry(ready.requirements.clone()).or_default().insert(path, ready);
    }
    apart.into_values().collect()
}

fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

async fn remove_note(of: &Path) {
    let note = refused_note(of);
    match tokio::fs::remove_file(&note).await {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            log::warn!(path:% = note.display(), error:% = Chain(&err); "cannot remove the note of a refusal");
        }
        Ok(()) | Err(_) => {}
    }
}

fn refused_note(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(REFUSED);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_and_editors_leftovers_are_passed_over() {
        for name in ["photos.py", "a.b.py", "_x.py"] {
            assert_eq!(kind_of(name, false), Found::Service, "{name}");
        }
        for name in [
            ".photos.py.swp",
            ".#photos.py",
            "#photos.py#",
            "photos.py~",
            "~photos.py",
            ".py",
            "photos.pyc",
            "photos.py.refused.txt",
            "photos.ini",
            "photos",
            "4913",
        ] {
            assert_eq!(kind_of(name, false), Found::Other, "{name}");
        }
        assert_eq!(kind_of("app.ini", true), Found::UserConfig);
        assert_eq!(kind_of("app.conf", true), Found::UserConfig);
        assert_eq!(kind_of("app.py", true), Found::Other);
        for name in ["requirements.txt", "photos.requirements.txt"] {
            assert_eq!(kind_of(name, false), Found::Requirements, "{name}");
        }
        assert_eq!(kind_of("myrequirements.txt", false), Found::Other);
    }

    #[test]
    fn a_file_needs_what_its_own_requirements_say_or_those_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(dir.path().join(name), name).unwrap();
        let of = |name: &str| requirements_of(&dir.path().join(name)).unwrap();
        put("a.py");
        put("b.py");
        assert_eq!(of("a.py"), None);
        put("requirements.txt");
        put("b.requirements.txt");
        assert_eq!(of("a.py").as_deref(), Some("requirements.txt"));
        assert_eq!(of("b.py").as_deref(), Some("b.requirements.txt"));
        let mut named = named_by(&dir.path().join("requirements.txt"));
        named.sort();
        assert_eq!(named, [dir.path().join("a.py"), dir.path().join("b.py")]);
        assert_eq!(named_by(&dir.path().join("b.requirements.txt")), [dir.path().join("b.py")]);
    }

    #[test]
    fn the_note_of_a_refusal_lies_beside_its_file() {
        assert_eq!(refused_note(Path::new("/p/photos.py")), Path::new("/p/photos.py.refused.txt"));
    }

    #[test]
    fn a_note_whose_file_is_gone_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.py", "a.py.refused.txt", "b.py.refused.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let dirs = [dir.path().to_owned()];
        assert_eq!(refused_and_gone(&dirs), [dir.path().join("b.py")]);
    }

    #[test]
    fn a_scan_passes_over_files_that_may_be_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("photos.py");
        std::fs::write(&path, "x").unwrap();
        let dirs = [dir.path().to_owned()];
        assert!(scan(&dirs).is_empty());
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - LEFT_ALONE).unwrap();
        assert_eq!(scan(&dirs), [path].into());
    }
}
