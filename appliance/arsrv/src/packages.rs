//! Python packages of services: uploaded wheels, requirements resolved to exact wheels, environments built of them.
//!
//! Pip does both, in processes of their own that are confined like workers and end before anything is used of
//! what they made.  Only wheels are taken: nothing of a package runs before a worker imports it.
//!
//! Below the workers' home:
//!
//! | folder | what |
//! |---|---|
//! | `packages/wheelhouse` | uploaded wheels, by file name |
//! | `packages/kept/<sha256>` | the wheels of locks, so that a rollback needs no index |
//! | `packages/work` | what is being made; emptied at the start |
//! | `environments/<name>` | built environments, named after their content |
//!
//! **Invariant:** a folder with an environment's name holds the whole environment, and a wheel under its name is
//! whole and verified; both are made under other names and renamed.

pub(crate) mod environment;
mod pip;
mod requirements;
mod wheel;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arapi::arsrv::{LoadFault, WheelInfo};
use arapi::objects::{LockedPackage, Requirements};
use arbase::Chain;
use tokio::sync::Mutex;

use self::environment::Environment;
use crate::config::Config;
use crate::interpreter::{self, Interpreter};
use crate::modules::durable;
use crate::outgoing::index::Index;
use crate::sandbox::{Files, Limits, Spec};
use crate::worker::process::{Spawner, kill_group};

/// The file that faults are about.
const FILE: &str = "requirements.txt";
/// Longest time for resolving requirements, and for building an environment.
const LIMIT: Duration = Duration::from_secs(120);
/// Memory of pip.
const MEMORY: u64 = 1 << 30;
/// Wheels of locks that no module has any more stay this long, for rollbacks; touched whenever they are used.
const KEPT_FOR: Duration = Duration::from_secs(60 * 24 * 3600);

/// The packages of this box.
pub(crate) struct Packages {
    config: Arc<Config>,
    interpreter: Interpreter,
    spawner: Spawner,
    last: AtomicU64,
    /// One at a time: two of them would only take each other's memory.
    busy: Mutex<()>,
    /// Environments that are being built or loaded.
    in_use: std::sync::Mutex<Vec<String>>,
}

/// What packages are resolved with.
pub(crate) struct Asked<'a> {
    /// The `requirements.txt`.
    pub(crate) text: &'a str,
    /// The group of workers.
    pub(crate) group: &'a str,
    /// What other modules of the group have, with the module's name.
    pub(crate) held: BTreeMap<String, (LockedPackage, String)>,
    /// Where packages come from beside the wheelhouse.
    pub(crate) indexes: &'a [Arc<Index>],
}

/// Why there are no packages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackagesError {
    /// What was asked for cannot be had.
    #[error("{}", fault.reason)]
    Fault {
        /// Why.
        fault: LoadFault,
    },
    /// A file or folder.
    #[error("cannot write packages to `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Pip does not run.
    #[error("cannot run pip")]
    Run(#[source] std::io::Error),
    /// It takes too long.
    #[error("pip did not end within {LIMIT:?}")]
    Late,
    /// There is no pip.
    #[error(
        "Python `{python}` has no pip, which installs packages; the Debian package `python3-pip` brings it"
    )]
    NoPip {
        /// The interpreter.
        python: PathBuf,
    },
    /// The name is not that of a wheel.
    #[error(
        "`{file}` is not the name of a wheel; something like `name-1.2-py3-none-any.whl` was expected"
    )]
    NotAWheel {
        /// The name.
        file: String,
    },
    /// The content is not what the name says.
    #[error("`{file}` is not a whole wheel: {why}")]
    Broken {
        /// The name.
        file: String,
        /// Why.
        why: String,
    },
    /// Another wheel has the name.
    #[error(
        "`{file}` is there already with another content (SHA-256 {sha256}); remove that first, or give the package another version"
    )]
    Taken {
        /// The name.
        file: String,
        /// The present one's.
        sha256: String,
    },
    /// No such wheel.
    #[error("there is no uploaded wheel `{file}`")]
    NoWheel {
        /// The name.
        file: String,
    },
}

impl PackagesError {
    pub(crate) fn refused(line: u32, reason: String) -> Self {
        let file = FILE.to_owned();
        let fault = LoadFault { reason, file, line, traceback: String::new(), exit_code: None };
        Self::Fault { fault }
    }

    /// As a fault of what was to be loaded.
    pub(crate) fn into_fault(self) -> LoadFault {
        match self {
            Self::Fault { fault } => fault,
            other => LoadFault {
                reason: Chain(&other).to_string(),
                file: FILE.to_owned(),
                line: 0,
                traceback: String::new(),
                exit_code: None,
            },
        }
    }
}

/// Keeps an environment from being removed.
pub(crate) struct Using<'a>(&'a std::sync::Mutex<Vec<String>>, String);

impl Drop for Using<'_> {
    fn drop(&mut self) {
        let mut in_use = super::pool::locked(self.0);
        if let Some(at) = in_use.iter().position(|name| *name == self.1) {
            in_use.swap_remove(at);
        }
    }
}

/// A folder of its own for one run of pip; removed at the end.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_dir_all(&self.0) {
            log::warn!(path:% = self.0.display(), error:% = err; "a folder of pip cannot be removed");
        }
    }
}

/// What a process said.
struct Said {
    is_success: bool,
    stdout: String,
    stderr: String,
}

impl Packages {
    /// Makes the folders.
    pub(crate) fn open(
        config: Arc<Config>,
        interpreter: Interpreter,
        spawner: Spawner,
    ) -> Result<Self, PackagesError> {
        let packages = Self {
            config,
            interpreter,
            spawner,
            last: AtomicU64::new(0),
            busy: Mutex::default(),
            in_use: std::sync::Mutex::default(),
        };
        let work = packages.folder("work");
        match std::fs::remove_dir_all(&work) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(PackagesError::File { path: work, source: err });
            }
            Ok(()) | Err(_) => {}
        }
        let home = &packages.interpreter.home;
        for path in [
            home.join("packages"),
            packages.folder("wheelhouse"),
            packages.folder("kept"),
            work,
            packages.environments(),
        ] {
            let made = std::fs::create_dir_all(&path).and_then(|()| packages.share(&path, 0o750));
            made.map_err(|source| PackagesError::File { path, source })?;
        }
        // What a core that was killed was building.
        for entry in std::fs::read_dir(packages.environments()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
        Ok(packages)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.interpreter.home.join("packages").join(name)
    }

    fn environments(&self) -> PathBuf {
        self.interpreter.home.join("environments")
    }

    fn kept(&self, package: &LockedPackage) -> PathBuf {
        self.folder("kept").join(&package.sha256).join(&package.file)
    }

    /// Readable for the workers' group, writable for none of them.
    fn share(&self, path: &Path, mode: u32) -> std::io::Result<()> {
        if let Some(gid) = self.interpreter.uid {
            chown(path, Some(0), Some(gid))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }

    fn work(&self) -> Result<Work, PackagesError> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let path = self.folder("work").join(number.to_string());
        let make = || {
            for path in [path.clone(), path.join("tmp"), path.join("out")] {
                std::fs::create_dir_all(&path)?;
                if let Some(uid) = self.interpreter.uid {
                    chown(&path, Some(uid), Some(uid))?;
                }
            }
            Ok(())
        };
        match make() {
            Ok(()) => Ok(Work(path)),
            Err(source) => Err(PackagesError::File { path, source }),
        }
    }

    /// Runs Python in a process that can read wheels and write nothing but `work`.
    async fn run(
        &self,
        work: &Work,
        args: Vec<String>,
        network: bool,
    ) -> Result<Said, PackagesError> {
        let mut read = self.interpreter.folders.clone();
        read.extend([self.folder("wheelhouse"), self.folder("kept")]);
        // Pip tells indexes which system it runs on, and ends where it may not look.
        read.extend(["/etc/debian_version", "/etc/lsb-release"].map(PathBuf::from));
        let mut env = interpreter::environment(&work.0.join("tmp"), None);
        env.insert("PIP_CONFIG_FILE".to_owned(), work.0.join("pip.conf").display().to_string());
        let spec = Spec {
            program: self.interpreter.python.clone(),
            args,
            env,
            dir: work.0.clone(),
            parent: std::process::id().cast_signed(),
            uid: self.interpreter.uid,
            limits: Limits { files: 1024, data_bytes: MEMORY, processes: None },
            files: Some(Files { read, write: vec![work.0.clone()] }),
            network,
        };
        let mut command = interpreter::exec(&self.config, &spec).map_err(PackagesError::Run)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.spawner.spawn(command).await.map_err(PackagesError::Run)?;
        let pid = child.id();
        let Ok(output) = tokio::time::timeout(LIMIT, child.wait_with_output()).await else {
            if let Some(pid) = pid {
                kill_group(pid);
            }
            return Err(PackagesError::Late);
        };
        let output = output.map_err(PackagesError::Run)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said {
            is_success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        if !said.is_success && said.stderr.contains("No module named pip") {
            return Err(PackagesError::NoPip { python: self.interpreter.python.clone() });
        }
        log::debug!(reason = said.stderr.trim(), status = output.status.code(); "pip has ended");
        Ok(said)
    }

    fn pip(command: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec!["-I", "-m", "pip", "--isolated", "--no-input", "--no-color"];
        args.extend(["--disable-pip-version-check", "--no-cache-dir", command]);
        args.extend(["--only-binary", ":all:"]);
        args.extend(more);
        args.into_iter().map(ToOwned::to_owned).collect()
    }

    /// What tells pip where packages come from.  It holds passwords: only pip's own user can read it.
    fn write_conf(
        &self,
        work: &Work,
        indexes: &[Arc<Index>],
    ) -> Result<Vec<String>, PackagesError> {
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        let mut conf = String::from("[global]\nretries = 1\ntimeout = 15\n");
        for index in indexes {
            if let Some(address) = index.address() {
                if let Some(pem) = &index.spec.tls_ca_pem {
                    let path = work.0.join("ca.pem");
                    self.put_private(&path, pem)?;
                    conf.push_str(&format!("cert = {}\n", path.display()));
                }
                names.push(index.name.clone());
                addresses.push(address);
            }
        }
        match addresses.split_first() {
            None => conf.push_str("no-index = true\n"),
            Some((first, more)) => {
                conf.push_str(&format!("index-url = {first}\n"));
                if !more.is_empty() {
                    conf.push_str(&format!("extra-index-url =\n    {}\n", more.join("\n    ")));
                }
            }
        }
        self.put_private(&work.0.join("pip.conf"), &conf)?;
        Ok(names)
    }

    fn put_private(&self, path: &Path, text: &str) -> Result<(), PackagesError> {
        let put = || {
            std::fs::write(path, "")?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            std::fs::write(path, text)?;
            match self.interpreter.uid {
                Some(uid) => chown(path, Some(uid), Some(uid)),
                None => Ok(()),
            }
        };
        put().map_err(|source| PackagesError::File { path: path.to_owned(), source })
    }

    /// Gets every wheel that the requirements need.
    pub(crate) async fn resolve(&self, asked: Asked<'_>) -> Result<Requirements, PackagesError> {
        if asked.text.len() > Requirements::MAX_TEXT {
            let reason = format!(
                "{} bytes are above the {} allowed",
                asked.text.len(),
                Requirements::MAX_TEXT
            );
            return Err(PackagesError::refused(0, reason));
        }
        let wanted = requirements::parse(asked.text)
            .map_err(|bad| PackagesError::refused(bad.line, bad.reason))?;
        let text = asked.text.to_owned();
        if wanted.names.is_empty() {
            return Ok(Requirements { text, lock: Vec::new() });
        }
        let _one = self.busy.lock().await;
        let work = self.work()?;
        let names = self.write_conf(&work, asked.indexes)?;
        let (list, held) = (work.0.join("wanted.txt"), work.0.join("held.txt"));
        self.put_private(&list, &wanted.text)?;
        let mut constraints = String::new();
        // With hashes, what is held would need them too; the group's union is checked afterwards.
        for (package, _) in asked.held.values().filter(|_| !wanted.has_hashes) {
            constraints.push_str(&format!("{}=={}\n", package.name, package.version));
        }
        self.put_private(&held, &constraints)?;
        let (wheelhouse, kept) = (self.folder("wheelhouse"), self.folder("kept"));
        let mut args = vec!["--dest".to_owned(), work.0.join("out").display().to_string()];
        args.extend(["--find-links".to_owned(), wheelhouse.display().to_string()]);
        for (package, _) in asked.held.values() {
            let folder = kept.join(&package.sha256);
            if folder.is_dir() {
                args.extend(["--find-links".to_owned(), folder.display().to_string()]);
            }
        }
        args.extend(["--constraint".to_owned(), held.display().to_string()]);
        args.extend(["--requirement".to_owned(), list.display().to_string()]);
        if wanted.has_hashes {
            args.push("--require-hashes".to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = self.run(&work, Self::pip("download", &args), !names.is_empty()).await?;
        let reached = said.is_success
            || !["Retrying", "401 Error", "403 Error"]
                .iter()
                .any(|word| said.stderr.contains(word));
        if !said.is_success {
            let held = asked.held.iter().map(|(name, (_, module))| (name.clone(), module.clone()));
            let held = held.collect();
            let around = pip::Around { held: &held, group: asked.group, indexes: &names };
            let reason = pip::sentence(&said.stdout, &said.stderr, around);
            for index in asked.indexes {
                index.note((!reached).then(|| reason.clone()));
            }
            let line = line_of(&reason, &wanted);
            return Err(PackagesError::refused(line, reason));
        }
        for index in asked.indexes {
            index.note(None);
        }
        let lock = self.keep_all(&work.0.join("out"))?;
        Ok(Requirements { text, lock })
    }

    /// Moves the wheels of a folder to those that are kept.
    fn keep_all(&self, folder: &Path) -> Result<Vec<LockedPackage>, PackagesError> {
        let fault = |source| PackagesError::File { path: self.folder("kept"), source };
        let lock = wheel::all_in(folder).map_err(fault)?;
        for package in &lock {
            self.keep(&folder.join(&package.file), package).map_err(fault)?;
        }
        Ok(lock)
    }

    fn keep(&self, from: &Path, package: &LockedPackage) -> std::io::Result<()> {
        let path = self.kept(package);
        if path.try_exists()? {
            return Ok(());
        }
        let folder = self.folder("kept").join(&package.sha256);
        let new = self.folder("kept").join(format!("new-{}", package.sha256));
        std::fs::create_dir_all(&new)?;
        std::fs::copy(from, new.join(&package.file))?;
        self.share(&new.join(&package.file), 0o640)?;
        self.share(&new, 0o750)?;
        durable(&new)?;
        match std::fs::rename(&new, &folder) {
            Ok(()) => Ok(()),
            // The same content under another name.
            Err(_) if folder.is_dir() => {
                std::fs::rename(new.join(&package.file), &path)?;
                std::fs::remove_dir_all(&new)
            }
            Err(err) => Err(err),
        }
    }

    /// Marks an environment as needed from now on.
    pub(crate) fn using(&self, environment: &Environment) -> Using<'_> {
        super::pool::locked(&self.in_use).push(environment.name.clone());
        Using(&self.in_use, environment.name.clone())
    }

    /// The folder of an environment; it is built if it is not there.
    pub(crate) async fn ensure(
        &self,
        environment: &Environment,
        indexes: &[Arc<Index>],
    ) -> Result<PathBuf, PackagesError> {
        let folder = self.environments().join(&environment.name);
        let is_there = |path: &Path| {
            path.try_exists()
                .map_err(|source| PackagesError::File { path: path.to_owned(), source })
        };
        if is_there(&folder)? {
            return Ok(folder);
        }
        let _one = self.busy.lock().await;
        if is_there(&folder)? {
            return Ok(folder);
        }
        self.fetch_missing(environment, indexes).await?;
        let work = self.work()?;
        self.write_conf(&work, &[])?;
        let list = work.0.join("lock.txt");
        let mut lines = String::new();
        for package in &environment.packages {
            lines.push_str(&format!(
                "{} @ file://{} --hash=sha256:{}\n",
                package.name,
                self.kept(package).display(),
                package.sha256
            ));
        }
        self.put_private(&list, &lines)?;
        let (target, list) = (work.0.join("out/site"), list.display().to_string());
        let target = target.display().to_string();
        let args = ["--no-deps", "--no-index", "--require-hashes", "--no-compile", "--target"];
        let mut args: Vec<&str> = args.to_vec();
        args.extend([target.as_str(), "--requirement", list.as_str()]);
        let said = self.run(&work, Self::pip("install", &args), false).await?;
        if !said.is_success {
            let held = BTreeMap::new();
            let around = pip::Around { held: &held, group: "", indexes: &[] };
            let reason = pip::sentence(&said.stdout, &said.stderr, around);
            return Err(PackagesError::refused(0, reason));
        }
        let new =
            self.environments().join(format!("new-{}-{}", std::process::id(), environment.name));
        let fault = |source| PackagesError::File { path: folder.clone(), source };
        let settle = || {
            self.take_over(Path::new(&target))?;
            std::fs::write(Path::new(&target).join(".lock.json"), lock_document(environment))?;
            self.share(&Path::new(&target).join(".lock.json"), 0o640)?;
            std::fs::rename(&target, &new)
        };
        settle().map_err(fault)?;
        interpreter::compile(&self.interpreter.python, &new).await;
        let settle = || {
            self.take_over(&new)?;
            // After a power cut the name must not be there without what it names.
            durable(&new)?;
            std::fs::rename(&new, &folder)?;
            durable(&self.environments())
        };
        settle().map_err(fault)?;
        log::info!(name = environment.name.as_str(), packages = environment.packages.len(); "environment built");
        Ok(folder)
    }

    /// Wheels of a lock that are not here: from the wheelhouse, or by name, version and hash from an index.
    async fn fetch_missing(
        &self,
        environment: &Environment,
        indexes: &[Arc<Index>],
    ) -> Result<(), PackagesError> {
        let fault = |source| PackagesError::File { path: self.folder("kept"), source };
        let mut missing = Vec::new();
        for package in &environment.packages {
            let kept = self.kept(package);
            if kept.try_exists().map_err(fault)? {
                continue;
            }
            let uploaded = self.folder("wheelhouse").join(&package.file);
            match wheel::sha256_of(&uploaded) {
                Ok(sha256) if sha256 == package.sha256 => {
                    self.keep(&uploaded, package).map_err(fault)?;
                }
                _ => missing.push(package),
            }
        }
        let Some(first) = missing.first() else { return Ok(()) };
        let work = self.work()?;
        let names = self.write_conf(&work, indexes)?;
        if !names.is_empty() {
            let list = work.0.join("missing.txt");
            let mut lines = String::new();
            for package in &missing {
                lines.push_str(&format!(
                    "{}=={} --hash=sha256:{}\n",
                    package.name, package.version, package.sha256
                ));
            }
            self.put_private(&list, &lines)?;
            let (out, list) = (work.0.join("out"), list.display().to_string());
            let out = out.display().to_string();
            let args = ["--no-deps", "--require-hashes", "--dest", &out, "--requirement", &list];
            let said = self.run(&work, Self::pip("download", &args), true).await?;
            if said.is_success {
                self.keep_all(Path::new(&out))?;
                return Ok(());
            }
        }
        Err(PackagesError::refused(
            0,
            format!(
                "the wheel `{}` (SHA-256 {}) is not on this box any more, neither uploaded nor in an index; upload it with `arctl packages upload`",
                first.file, first.sha256
            ),
        ))
    }

    /// Makes what pip wrote readable for workers and writable for none.  Links are not followed and not kept.
    fn take_over(&self, path: &Path) -> std::io::Result<()> {
        let meta = std::fs::symlink_metadata(path)?;
        if meta.is_symlink() {
            return std::fs::remove_file(path);
        }
        if !meta.is_dir() {
            return self.share(path, 0o640 | (meta.permissions().mode() & 0o110));
        }
        for entry in std::fs::read_dir(path)? {
            self.take_over(&entry?.path())?;
        }
        self.share(path, 0o750)
    }

    /// Removes every environment but these, and wheels that no module has needed for long.
    pub(crate) fn remove_others(
        &self,
        keep: &BTreeSet<String>,
        locked: &[LockedPackage],
    ) -> std::io::Result<()> {
        // Held to the end: who needs one announces it before it looks whether it is there.
        let in_use = super::pool::locked(&self.in_use);
        for entry in std::fs::read_dir(self.environments())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("new-") && !keep.contains(&name) && !in_use.contains(&name) {
                // Not whole from here on: it must not be found under its name.
                let gone = self.folder("work").join(format!("gone-{name}"));
                std::fs::rename(entry.path(), &gone)?;
                std::fs::remove_dir_all(&gone)?;
                log::info!(name = name.as_str(); "environment removed");
            }
        }
        drop(in_use);
        let needed: BTreeSet<&str> = locked.iter().map(|package| package.sha256.as_str()).collect();
        for entry in std::fs::read_dir(self.folder("kept"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if needed.contains(name.as_str()) {
                std::fs::File::open(entry.path())?.set_modified(SystemTime::now())?;
                continue;
            }
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > KEPT_FOR {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Takes an uploaded file, which lies in a file of [`Packages::incoming`].
    pub(crate) async fn take_wheel(
        &self,
        file: &str,
        incoming: Incoming,
    ) -> Result<WheelInfo, PackagesError> {
        let named =
            wheel::named(file).ok_or_else(|| PackagesError::NotAWheel { file: file.to_owned() })?;
        let target = self.folder("wheelhouse").join(file);
        let fault = |source| PackagesError::File { path: target.clone(), source };
        let path = incoming.0.0.join("out/wheel.whl");
        self.share(&path, 0o640).map_err(fault)?;
        let args =
            ["-I", "-c", wheel::LOOK, &path.display().to_string(), &named.name, &named.version];
        let args = args.map(ToOwned::to_owned).to_vec();
        let said = self.run(&incoming.0, args, false).await?;
        let why = match (said.is_success, said.stdout.trim()) {
            (true, "") => None,
            (true, why) => Some(why.to_owned()),
            (false, _) => Some("it cannot be read".to_owned()),
        };
        if let Some(why) = why {
            return Err(PackagesError::Broken { file: file.to_owned(), why });
        }
        let sha256 = wheel::sha256_of(&path).map_err(fault)?;
        let bytes = std::fs::metadata(&path).map_err(fault)?.len();
        let _one = self.busy.lock().await;
        match wheel::sha256_of(&target) {
            Ok(there) if there == sha256 => {}
            Ok(there) => {
                return Err(PackagesError::Taken { file: file.to_owned(), sha256: there });
            }
            Err(_) => {
                durable(&incoming.0.0).map_err(fault)?;
                std::fs::rename(&path, &target).map_err(fault)?;
                durable(&self.folder("wheelhouse")).map_err(fault)?;
            }
        }
        log::info!(file, bytes, sha256 = sha256.as_str(); "wheel uploaded");
        Ok(WheelInfo { file: file.to_owned(), bytes, sha256 })
    }

    /// A place for an upload.
    pub(crate) fn incoming(&self, file: &str) -> Result<Incoming, PackagesError> {
        if wheel::named(file).is_none() {
            return Err(PackagesError::NotAWheel { file: file.to_owned() });
        }
        self.work().map(Incoming)
    }

    /// Removes an uploaded wheel; what was deployed with it goes on.
    pub(crate) async fn remove_wheel(&self, file: &str) -> Result<(), PackagesError> {
        let path = self.folder("wheelhouse").join(file);
        if wheel::named(file).is_none() || !path.is_file() {
            return Err(PackagesError::NoWheel { file: file.to_owned() });
        }
        let _one = self.busy.lock().await;
        std::fs::remove_file(&path).map_err(|source| PackagesError::File { path, source })?;
        log::info!(file; "uploaded wheel removed");
        Ok(())
    }

    /// The uploaded wheels.
    pub(crate) fn wheels(&self) -> std::io::Result<Vec<WheelInfo>> {
        let folder = self.folder("wheelhouse");
        let mut wheels = Vec::new();
        for package in wheel::all_in(&folder)? {
            let bytes = std::fs::metadata(folder.join(&package.file))?.len();
            wheels.push(WheelInfo { file: package.file, bytes, sha256: package.sha256 });
        }
        wheels.sort_by(|one, other| one.file.cmp(&other.file));
        Ok(wheels)
    }

    /// The built environments, with what is in them.
    pub(crate) fn built(&self) -> std::io::Result<Vec<(String, Vec<LockedPackage>)>> {
        let mut built = Vec::new();
        for entry in std::fs::read_dir(self.environments())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("new-") {
                let document = std::fs::read(entry.path().join(".lock.json"))?;
                built.push((name, serde_json::from_slice(&document)?));
            }
        }
        built.sort();
        Ok(built)
    }
}

/// A file that is being uploaded; gone with this.
pub(crate) struct Incoming(Work);

impl Incoming {
    /// Where to write it.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.0.join("out/wheel.whl")
    }
}

fn lock_document(environment: &Environment) -> Vec<u8> {
    // Texts only: this cannot fail.
    serde_json::to_vec(&environment.packages).unwrap_or_default()
}

/// The line of the requirement that a sentence is about.
fn line_of(reason: &str, wanted: &requirements::Wanted) -> u32 {
    let quoted = reason.split('`').skip(1).step_by(2);
    for text in quoted {
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        let name = requirements::normalized(text.get(..end.unwrap_or(text.len())).unwrap_or(text));
        if let Some((_, line)) = wanted.names.iter().find(|(known, _)| *known == name) {
            return *line;
        }
    }
    0
}
