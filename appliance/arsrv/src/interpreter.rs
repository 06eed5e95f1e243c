//! Which Python runs the workers, as whom, and from which folder: found out at the start by trying it.
//!
//! The SDK travels inside of our executable and is unpacked here.  Where the core is root, workers are to have a
//! user of their own; whether that user can reach the interpreter and the files is asked of the kernel, by running
//! a probe as that user, and not concluded from modes.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::config::Config;
use crate::sandbox::{self, Limits, Spec};
use crate::worker::process::Spawner;

static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/sdk/src");

/// The oldest Python that will do.
const OLDEST: (u32, u32) = (3, 11);
/// What the SDK needs beside Python, as it is imported and as its packages are called.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("requests", "requests", "python3-requests"),
    ("redis", "redis", "python3-redis"),
    ("sqlalchemy", "SQLAlchemy", "python3-sqlalchemy"),
];
/// Longest time for the probe and for compiling the SDK.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks the interpreter who it is and what it can reach.
const PROBE: &str = r#"
import importlib.util, json, os, sys
paths = sys.argv[1:]
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "prefixes": sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}),
    "path": [p for p in sys.path if p and os.path.exists(p)],
    "missing": [n for n in ("requests", "redis", "sqlalchemy") if importlib.util.find_spec(n) is None],
    "unreachable": [p for p in paths if not os.access(p, os.R_OK | os.X_OK)],
}))
"#;

/// What the workers are started with.
#[derive(Debug, Clone)]
pub(crate) struct Interpreter {
    /// The interpreter.
    pub(crate) python: PathBuf,
    /// The workers' own user, if they have one.
    pub(crate) uid: Option<u32>,
    /// The folder of everything that workers read and write.
    pub(crate) home: PathBuf,
    /// The SDK in it.
    pub(crate) sdk: PathBuf,
    /// The folder of the slots files.
    pub(crate) slots: PathBuf,
    /// Folders of the interpreter and its packages.
    pub(crate) folders: Vec<PathBuf>,
    /// Why the workers have no user of their own though the core is root.
    pub(crate) warning: Option<String>,
}

/// Why no worker can be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterpreterError {
    /// The SDK cannot be unpacked.
    #[error("cannot unpack the SDK to `{path}`")]
    Unpack {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The interpreter does not start.
    #[error("cannot run Python `{python}`; set `python` in arsrv.toml")]
    Run {
        /// Which.
        python: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not answer the probe.
    #[error("Python `{python}` does not answer as Python does: {said}")]
    Probe {
        /// Which.
        python: PathBuf,
        /// The end of what it said.
        said: String,
    },
    /// Too old.
    #[error(
        "Python `{python}` is {found}, at least 3.11 is needed; set `python` in arsrv.toml",
        found = found.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
    )]
    TooOld {
        /// Which.
        python: PathBuf,
        /// What it is.
        found: Vec<u32>,
    },
    /// Packages are missing.
    #[error(
        "Python `{python}` lacks {lacks}; `{python} -m pip install {pip}` or the Debian packages `{debian}` bring it",
        lacks = packages(missing, 0), pip = packages(missing, 1), debian = packages(missing, 2)
    )]
    Packages {
        /// Which.
        python: PathBuf,
        /// Their names.
        missing: Vec<String>,
    },
    /// The folder of the workers cannot be made.
    #[error("cannot make the workers' folder `{path}`")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn packages(missing: &[String], column: usize) -> String {
    let names: Vec<&str> = PACKAGES
        .iter()
        .filter(|(module, _, _)| missing.iter().any(|name| name == module))
        .map(|(module, pip, debian)| match column {
            0 => *module,
            1 => *pip,
            _ => *debian,
        })
        .collect();
    names.join(" ")
}

#[derive(Debug, Deserialize)]
struct Answer {
    version: Vec<u32>,
    prefixes: Vec<PathBuf>,
    path: Vec<PathBuf>,
    missing: Vec<String>,
    unreachable: Vec<PathBuf>,
}

/// Finds out how workers are started.
pub(crate) async fn prepare(
    config: &Config,
    spawner: &Spawner,
) -> Result<Interpreter, InterpreterError> {
    let own_user = nix::unistd::Uid::effective().is_root().then_some(config.worker_uid);
    let slots = config.runtime_dir.join("arsrv-slots");
    let open = || {
        std::fs::create_dir_all(&slots)?;
        std::fs::set_permissions(&slots, std::fs::Permissions::from_mode(0o755))
    };
    open().map_err(|source| InterpreterError::Folder { path: slots.clone(), source })?;
    let beside_sockets = config.runtime_dir.join("arsrv-workers");
    let mut obstacle = None;
    if let Some(uid) = own_user {
        for home in [&config.state_dir, &beside_sockets] {
            let sdk = unpack(home, own_user).await?;
            match probe(config, spawner, own_user, &[&sdk, &sdk.join("arint"), &slots]).await {
                Ok(answer) if answer.unreachable.is_empty() => {
                    return finish(config, home, sdk, own_user, answer, None).await;
                }
                Ok(answer) => {
                    let path = answer.unreachable.into_iter().next().unwrap_or_default();
                    obstacle = Some(format!("user {uid} cannot reach `{}`", path.display()));
                }
                Err(err) => {
                    obstacle = Some(format!("user {uid}: {}", arbase::Chain(&err)));
                    // No other folder makes the interpreter reachable.
                    break;
                }
            }
        }
    }
    let home = &config.state_dir;
    let sdk = unpack(home, None).await?;
    let answer = probe(config, spawner, None, &[]).await?;
    finish(config, home, sdk, None, answer, obstacle).await
}

async fn finish(
    config: &Config,
    home: &Path,
    sdk: PathBuf,
    uid: Option<u32>,
    answer: Answer,
    warning: Option<String>,
) -> Result<Interpreter, InterpreterError> {
    let python = config.python.clone();
    if answer.version.as_slice() < [OLDEST.0, OLDEST.1].as_slice() {
        return Err(InterpreterError::TooOld { python, found: answer.version });
    }
    if !answer.missing.is_empty() {
        return Err(InterpreterError::Packages { python, missing: answer.missing });
    }
    for name in ["modules", "scratch"] {
        let path = home.join(name);
        make_folder(&path, uid).map_err(|source| InterpreterError::Folder { path, source })?;
    }
    if !sdk.join("arint/__pycache__").try_exists().unwrap_or(false) {
        compile(&python, &sdk).await;
    }
    let mut folders = answer.prefixes;
    folders.extend(answer.path);
    // A virtual environment's interpreter is a link to one that lies elsewhere.
    folders.extend(
        std::fs::canonicalize(&python).ok().and_then(|path| path.parent().map(Path::to_owned)),
    );
    folders.sort();
    folders.dedup();
    let slots = config.runtime_dir.join("arsrv-slots");
    Ok(Interpreter { python, uid, home: home.to_owned(), sdk, slots, folders, warning })
}

/// A folder that workers can look into and nobody else.
fn make_folder(path: &Path, uid: Option<u32>) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    let mode = if uid.is_some() { 0o750 } else { 0o700 };
    if uid.is_some() {
        chown(path, None, uid)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Writes the SDK to `<home>/sdk-<hash>`, if it is not there; older ones are removed.
async fn unpack(home: &Path, uid: Option<u32>) -> Result<PathBuf, InterpreterError> {
    let home = home.to_owned();
    let path = home.join(format!("sdk-{}", sdk_hash()));
    let target = path.clone();
    let unpacking = tokio::task::spawn_blocking(move || unpack_now(&home, &target, uid));
    let unpacked = unpacking.await.unwrap_or_else(|err| Err(std::io::Error::other(err)));
    unpacked.map(|()| path.clone()).map_err(|source| InterpreterError::Unpack { path, source })
}

fn unpack_now(home: &Path, target: &Path, uid: Option<u32>) -> std::io::Result<()> {
    std::fs::create_dir_all(home)?;
    if !target.try_exists()? {
        // Only a whole SDK ever has the name.
        let new = home.join(format!("sdk-new-{}", std::process::id()));
        std::fs::create_dir_all(&new)?;
        write_dir(&SDK, &new)?;
        // After a power cut as well.
        crate::modules::durable(&new)?;
        if let Err(err) = std::fs::rename(&new, target) {
            std::fs::remove_dir_all(&new)?;
            // Another process on the same folder may have been faster.
            if !target.try_exists()? {
                return Err(err);
            }
        }
    }
    make_folder(target, uid)?;
    for entry in std::fs::read_dir(home)? {
        let path = entry?.path();
        let is_sdk =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sdk-"));
        if is_sdk && path != target {
            // Workers of a core that still stops may use it; they have loaded what they need.
            std::fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Writes the SDK into a folder, for tests and editors outside of a node.  Files that are there are replaced.
pub fn write_sdk(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    write_dir(&SDK, folder)
}

fn write_dir(dir: &Dir<'_>, target: &Path) -> std::io::Result<()> {
    for file in dir.files().filter(|file| is_source(file.path())) {
        let path = target.join(file.path());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, file.contents())?;
    }
    for dir in dir.dirs().filter(|dir| is_source(dir.path())) {
        write_dir(dir, target)?;
    }
    Ok(())
}

/// What a developer's Python left in the source folder is not part of the SDK.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.')
        && name != "__pycache__"
        && !name.ends_with(".pyc")
        && !name.ends_with(".egg-info")
}

fn sdk_hash() -> String {
    fn add(dir: &Dir<'_>, hash: &mut Sha256) {
        for file in dir.files().filter(|file| is_source(file.path())) {
            hash.update(file.path().as_os_str().as_encoded_bytes());
            hash.update([0]);
            hash.update(u64::try_from(file.contents().len()).unwrap_or(0).to_le_bytes());
            hash.update(file.contents());
        }
        for dir in dir.dirs().filter(|dir| is_source(dir.path())) {
            add(dir, hash);
        }
    }
    let mut hash = Sha256::new();
    add(&SDK, &mut hash);
    hex::encode(hash.finalize()).chars().take(16).collect()
}

/// What every process of Python gets as its environment.
pub(crate) fn environment(scratch: &Path, sdk: Option<&Path>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let scratch = scratch.display().to_string();
    for (name, value) in [
        ("LANG", "C.UTF-8"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "random"),
        ("PYTHONUNBUFFERED", "1"),
        // Memory of each further arena is kept for ever; two are enough behind one interpreter lock.
        ("MALLOC_ARENA_MAX", "2"),
        ("HOME", &scratch),
        ("TMPDIR", &scratch),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    if let Some(sdk) = sdk {
        env.insert("PYTHONPATH".to_owned(), sdk.display().to_string());
    }
    env
}

async fn probe(
    config: &Config,
    spawner: &Spawner,
    uid: Option<u32>,
    paths: &[&Path],
) -> Result<Answer, InterpreterError> {
    let python = &config.python;
    let run = |source| InterpreterError::Run { python: python.clone(), source };
    let mut args = vec!["-P".to_owned(), "-s".to_owned(), "-c".to_owned(), PROBE.to_owned()];
    args.extend(paths.iter().map(|path| path.display().to_string()));
    let spec = Spec {
        program: python.clone(),
        args,
        env: environment(Path::new("/"), None),
        dir: "/".into(),
        parent: std::process::id().cast_signed(),
        uid,
        limits: Limits { files: 256, data_bytes: 1 << 30, processes: None },
        files: None,
        network: true,
    };
    let mut command = exec(config, &spec).map_err(run)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawner.spawn(command).await.map_err(run)?;
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .map_err(|_| run(late()))?
        .map_err(run)?;
    let found = serde_json::from_slice(&output.stdout);
    found.map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        InterpreterError::Probe { python: python.clone(), said: last.to_owned() }
    })
}

/// The command that confines itself and becomes what the [`Spec`] says.
pub(crate) fn exec(config: &Config, spec: &Spec) -> std::io::Result<Command> {
    // Whoever the link is read by: the new process reads it before it becomes another one.  So it is this very
    // executable, also when an update has put another one in its place.
    let this = Path::new("/proc/self/exe");
    let mut command = Command::new(config.worker_exec.as_deref().unwrap_or(this));
    command.arg0("arint");
    // A Spec is texts and numbers: this cannot fail but for paths that are not UTF-8.
    let spec = serde_json::to_string(spec).map_err(std::io::Error::other)?;
    command.arg(sandbox::SUBCOMMAND).arg(spec).env_clear();
    Ok(command)
}

/// Compiles a folder of sources, so that workers start faster.  Runs none of them.  What fails is left to the workers,
/// which then compile for themselves.
///
/// The compiled files are taken without a look at the source: a folder's content never changes under its name.
pub(crate) async fn compile(python: &Path, folder: &Path) {
    let mut command = Command::new(python);
    command.args(["-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]);
    command.arg(folder).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match tokio::time::timeout(LIMIT, command.status()).await {
        Ok(Ok(status)) if status.success() => {}
        _ => {
            log::warn!(path:% = folder.display(); "sources cannot be compiled; workers start more slowly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_inside_has_the_worker_and_no_leftovers() {
        assert!(SDK.get_file("arint/worker.py").is_some());
        assert!(is_source(Path::new("arint/py.typed")));
        for leftover in ["arint/__pycache__", "arint/__pycache__/x.pyc", "x.egg-info", ".cache"] {
            assert!(!is_source(Path::new(leftover)), "{leftover}");
        }
        assert_eq!(sdk_hash().len(), 16);
    }

    #[test]
    fn what_keeps_workers_from_starting_is_told_in_one_sentence() {
        let python = PathBuf::from("/usr/bin/python3");
        let missing = vec!["redis".to_owned(), "sqlalchemy".to_owned()];
        assert_eq!(
            InterpreterError::Packages { python: python.clone(), missing }.to_string(),
            "Python `/usr/bin/python3` lacks redis sqlalchemy; `/usr/bin/python3 -m pip install redis SQLAlchemy` or \
             the Debian packages `python3-redis python3-sqlalchemy` bring it"
        );
        assert_eq!(
            InterpreterError::TooOld { python, found: vec![3, 9, 2] }.to_string(),
            "Python `/usr/bin/python3` is 3.9.2, at least 3.11 is needed; set `python` in arsrv.toml"
        );
    }
}
