//! What tests need to run the real thing: a node, its Python, waiting for a state, free ports.
//!
//! Development only: no crate of the product depends on it but for its tests.  It panics where a test could
//! not go on, with a sentence that says what is missing.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot be set up has to end, and says why"
)]

pub mod node;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use node::{Node, NodeBuilder};

/// Has rustls use ring; needed before the first HTTP client of a test.
pub fn use_ring() {
    // Another crate of the test may have installed it already.
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// A folder that is removed at the end of the test.
pub fn temp_dir() -> tempfile::TempDir {
    // Short: the paths of Unix sockets inside have a limit.  0711: workers with a user of their own pass.
    let dir = tempfile::Builder::new().prefix("ar").tempdir().expect("cannot make a temp dir");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(dir.path(), mode).expect("cannot open the temp dir to workers");
    dir
}

/// An address on loopback that was free a moment ago.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("no free port on loopback");
    listener.local_addr().expect("a bound listener has an address")
}

/// The repository's root.
pub fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors().nth(2).expect("the crate lies two folders below the root").to_owned()
    })
}

/// A Python interpreter with what workers need: `ARINT_PYTHON`, or the one that
/// `scripts/python-env.sh` makes.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        if let Some(python) = std::env::var_os("ARINT_PYTHON") {
            return python.into();
        }
        let script = repository().join("scripts/python-env.sh");
        let made = Command::new(&script).output().expect("scripts/python-env.sh does not start");
        assert!(
            made.status.success(),
            "scripts/python-env.sh failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        String::from_utf8_lossy(&made.stdout).trim().into()
    })
}

/// The `arint` executable of this build, built if it is not up to date.
pub fn arint() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("the test knows its own path");
        // <target>/<profile>/deps/<test>, or <target>/<profile>/<program>.
        let folder = test.parent().expect("an executable lies in a folder");
        let folder =
            if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "arint"]).current_dir(repository());
        build.env("CARGO_TARGET_DIR", folder.parent().unwrap_or(folder));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let built = build.status().expect("cargo does not start");
        assert!(built.success(), "`cargo build --package arint` failed");
        folder.join("arint")
    })
}

/// The path of a program that a test needs; ends the test with the name of its Debian package if it is not there.
pub fn tool(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin".into(), "/usr/local/sbin".into()];
    for dir in std::env::split_paths(&path).chain(more) {
        let candidate: PathBuf = dir.join(name);
        if candidate.is_file() {
            return candidate;
        }
    }
    panic!(
        "this test needs `{name}`: install the Debian package `{package}` (scripts/setup.sh test does)"
    );
}

/// Waits until `state` says `Ok`; ends the test with the last `Err` after `limit`.
pub async fn wait_for<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    limit: Duration,
    mut state: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        match state().await {
            Ok(reached) => return reached,
            Err(last) if started.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last seen: {last:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Prints a line to the test's output, for figures that are not asserted.
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// Makes a wheel in `folder` and returns its path: package `name`, whose module (the name with `_` for `-`) holds
/// `source`, and which needs `requires`.
pub fn make_wheel(
    folder: &Path,
    name: &str,
    version: &str,
    source: &str,
    requires: &[&str],
) -> PathBuf {
    const MAKE: &str = r#"
import base64, hashlib, sys, zipfile
folder, name, version, source, *requires = sys.argv[1:]
module = name.replace("-", "_")
info = f"{module}-{version}.dist-info"
metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
wheel = "Wheel-Version: 1.0\nGenerator: artest\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
files = {f"{module}/__init__.py": source, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
record = ""
for path, text in files.items():
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    record += f"{path},sha256={digest},{len(text.encode())}\n"
files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
path = f"{folder}/{module}-{version}-py3-none-any.whl"
with zipfile.ZipFile(path, "w") as archive:
    for inside, text in files.items():
        archive.writestr(zipfile.ZipInfo(inside), text)
print(path, end="")
"#;
    let mut command = Command::new(python());
    command.args(["-c", MAKE]).arg(folder).args([name, version, source]).args(requires);
    let made = command.output().expect("Python does not start");
    assert!(made.status.success(), "no wheel: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).into_owned().into()
}
