//! What a service cannot do, tried from inside of a service.

use super::*;

const PRISONER: &str = r#"
import ctypes, errno, json, os, resource, signal, socket, sys
from zato.server.service import Service

libc = ctypes.CDLL(None, use_errno=True)

def outcome(step):
    try:
        return step()
    except OSError as exc:
        return errno.errorcode.get(exc.errno, str(exc.errno))

def raw(number, *args):
    result = libc.syscall(number, *args)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"

def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return "done"

class Try(Service):
    name = "try"
    def handle(self):
        what, _, value = self.request.raw_request.partition(" ")
        steps = {
            "read": lambda: open(value).read()[:20] and "done",
            "list": lambda: os.listdir(value) and "done",
            "write": lambda: write(value),
            "signal": lambda: libc.kill(int(value), 0) and errno.errorcode[ctypes.get_errno()] or "done",
            "ptrace": lambda: raw({"x86_64": 101, "aarch64": 117}[os.uname().machine], 16, os.getppid(), 0, 0),
            "mount": lambda: raw({"x86_64": 165, "aarch64": 40}[os.uname().machine], 0, 0, 0, 0, 0),
            "bpf": lambda: raw({"x86_64": 321, "aarch64": 280}[os.uname().machine], 0, 0, 0),
            "unshare": lambda: raw({"x86_64": 272, "aarch64": 97}[os.uname().machine], 0x10000000),
            "io_uring": lambda: raw(425, 1, 0),
            "socket": lambda: socket.socket(getattr(socket, value)) and "done",
            "connect": lambda: socket.socket(socket.AF_UNIX).connect(value) or "done",
            "uid": lambda: str(os.getuid()),
            "capabilities": lambda: [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0],
            "env": lambda: " ".join(sorted(os.environ)),
            "cwd": lambda: os.getcwd(),
            "core": lambda: str(resource.getrlimit(resource.RLIMIT_CORE)),
            "session": lambda: str(os.getsid(0) == os.getpid()),
            "child": lambda: __import__("subprocess").run(["/bin/echo", "hi"], capture_output=True, text=True).stdout.strip(),
            "temp": lambda: __import__("tempfile").NamedTemporaryFile().name,
            "thread": lambda: (lambda t: (t.start(), t.join(), "done")[2])(__import__("threading").Thread(target=print)),
            "fd0": lambda: os.readlink("/proc/self/fd/0"),
        }
        self.response.payload = outcome(steps[what])
"#;

struct Prison {
    bench: Bench,
    secret: PathBuf,
    allowed: PathBuf,
}

impl Prison {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut paths = None;
        let bench = Bench::start_with(&[("prisoner", PRISONER)], |config| {
            config.workers = 1;
            let folder = config.state_dir.parent().unwrap().to_owned();
            let allowed = folder.join("allowed");
            std::fs::create_dir_all(&allowed).unwrap();
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(&allowed, open).unwrap();
            let secret = folder.join("secret.key");
            std::fs::write(&secret, "a key that everybody may read by its mode").unwrap();
            config.worker_writable = vec![allowed.clone()];
            change(config);
            paths = Some((secret, allowed));
        })
        .await;
        let (secret, allowed) = paths.unwrap();
        Self { bench, secret, allowed }
    }

    async fn tries(&self, what: &str) -> String {
        self.bench.call("try").body(what.to_owned()).text().await
    }

    fn sandbox(&self) -> Vec<String> {
        self.bench.status().workers.into_iter().next().unwrap().sandbox
    }
}

fn has(sandbox: &[String], what: &str) -> bool {
    sandbox.iter().any(|by| by == what)
}

#[tokio::test]
async fn a_service_reads_and_writes_only_what_it_may() {
    let prison = Prison::start(|_| {}).await;
    assert!(
        has(&prison.sandbox(), "landlock"),
        "this test needs a kernel with Landlock: {:?}",
        prison.bench.status()
    );
    let read_secret = format!("read {}", prison.secret.display());
    assert_eq!(prison.tries(&read_secret).await, "EACCES");
    assert_eq!(prison.tries("read /etc/shadow").await, "EACCES");
    assert_eq!(prison.tries("list /root").await, "EACCES");
    assert_eq!(
        prison.tries(&format!("list {}", prison.bench.config.runtime_dir.display())).await,
        "EACCES"
    );
    let beside = prison.secret.with_file_name("beside");
    assert_eq!(prison.tries(&format!("write {}", beside.display())).await, "EACCES");
    assert_eq!(prison.tries("write /tmp/arsrv-outside").await, "EACCES");
    let sdk = prison.bench.config.state_dir.join("modules/x");
    assert_eq!(prison.tries(&format!("write {}", sdk.display())).await, "EACCES");
    assert_eq!(
        prison.tries(&format!("write {}", prison.allowed.join("x").display())).await,
        "done"
    );
    assert_eq!(prison.tries("write own-folder").await, "done");
    assert_eq!(prison.tries("read /etc/hosts").await, "done");
    assert_eq!(prison.tries("read /proc/self/status").await, "done");
    let core = format!("read /proc/{}/environ", std::process::id());
    assert!(["EACCES", "EPERM"].contains(&prison.tries(&core).await.as_str()));
    let cwd = prison.tries("cwd").await;
    assert!(
        prison.tries("temp").await.starts_with(&cwd),
        "its temporary files are in its own folder"
    );
    prison.bench.stop().await;
}

#[tokio::test]
async fn a_service_cannot_reach_into_other_processes_or_the_kernel() {
    let prison = Prison::start(|_| {}).await;
    let sandbox = prison.sandbox();
    assert!(has(&sandbox, "seccomp") && has(&sandbox, "rlimits"), "{sandbox:?}");
    for what in ["ptrace", "mount", "bpf", "unshare", "io_uring"] {
        assert_eq!(prison.tries(what).await, "EPERM", "{what}");
    }
    assert_eq!(prison.tries("socket AF_PACKET").await, "EPERM");
    assert_eq!(prison.tries(&format!("signal {}", std::process::id())).await, "EPERM");
    assert_eq!(prison.tries("capabilities").await, "0000000000000000");
    assert_eq!(prison.tries("core").await, "(0, 0)");
    assert_eq!(prison.tries("session").await, "True");
    assert_eq!(prison.tries("fd0").await, "/dev/null");
    // What services do every day goes on working.
    assert_eq!(prison.tries("child").await, "hi");
    assert_eq!(prison.tries("thread").await, "done");
    assert_eq!(prison.tries("socket AF_INET").await, "done");
    assert_eq!(prison.tries("socket AF_UNIX").await, "done");
    prison.bench.stop().await;
}

#[tokio::test]
async fn a_service_inherits_nothing_of_the_cores_environment() {
    let prison = Prison::start(|_| {}).await;
    assert_eq!(
        prison.tries("env").await,
        "HOME LANG MALLOC_ARENA_MAX PATH PYTHONDONTWRITEBYTECODE PYTHONHASHSEED PYTHONPATH PYTHONUNBUFFERED TMPDIR"
    );
    prison.bench.stop().await;
}

#[tokio::test]
async fn workers_without_network_open_no_internet_sockets() {
    let prison = Prison::start(|config| config.worker_network = false).await;
    assert!(has(&prison.sandbox(), "no-network"));
    assert_eq!(prison.tries("socket AF_INET").await, "EPERM");
    assert_eq!(prison.tries("socket AF_INET6").await, "EPERM");
    assert_eq!(prison.tries("socket AF_UNIX").await, "done");
    prison.bench.stop().await;
}

#[tokio::test]
async fn where_the_core_is_root_workers_have_a_user_of_their_own() {
    let prison = Prison::start(|_| {}).await;
    if nix::unistd::Uid::effective().is_root() {
        assert!(has(&prison.sandbox(), "user"), "{:?}", prison.bench.status());
        assert_eq!(prison.tries("uid").await, "64600");
    } else {
        assert_eq!(prison.tries("uid").await, nix::unistd::Uid::effective().to_string());
    }
    prison.bench.stop().await;
}

#[tokio::test]
async fn where_that_user_cannot_reach_the_state_folder_the_files_lie_beside_the_sockets() {
    let prison = Prison::start(|config| {
        close(&config.state_dir);
    })
    .await;
    if nix::unistd::Uid::effective().is_root() {
        assert_eq!(prison.tries("uid").await, "64600");
        let files = prison.bench.config.runtime_dir.join("arsrv-workers/modules");
        assert!(files.try_exists().unwrap());
    }
    prison.bench.stop().await;
}

#[tokio::test]
async fn where_that_user_can_reach_nothing_workers_stay_root_without_any_of_its_rights() {
    let prison = Prison::start(|config| {
        close(&config.state_dir);
        close(&config.runtime_dir);
    })
    .await;
    if nix::unistd::Uid::effective().is_root() {
        let sandbox = prison.sandbox();
        assert!(has(&sandbox, "capabilities") && !has(&sandbox, "user"), "{sandbox:?}");
        assert_eq!(prison.tries("uid").await, "0");
        assert_eq!(prison.tries("capabilities").await, "0000000000000000");
        assert_eq!(prison.tries("read /etc/shadow").await, "EACCES");
        assert_eq!(prison.tries(&format!("read {}", prison.secret.display())).await, "EACCES");
        assert_eq!(prison.tries("ptrace").await, "EPERM");
    }
    prison.bench.stop().await;
}

fn close(folder: &std::path::Path) {
    std::fs::create_dir_all(folder).unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(folder, closed).unwrap();
}

#[tokio::test]
async fn a_service_reaches_the_key_value_store_by_its_socket() {
    let prison = Prison::start(|_| {}).await;
    let socket = prison.bench.config.runtime_dir.join("arkvd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // As arkvd makes it.
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o660)).unwrap();
    artest::wait_for("the way to the socket", Duration::from_secs(5), || async {
        match prison.tries(&format!("connect {}", socket.display())).await.as_str() {
            "done" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    drop(listener);
    prison.bench.stop().await;
}

#[tokio::test]
async fn a_stopped_pool_leaves_nothing_behind() {
    let prison = Prison::start(|_| {}).await;
    let pid = prison.bench.status().workers[0].pid;
    prison.tries("write own-folder").await;
    let left = |folder: PathBuf| std::fs::read_dir(folder).unwrap().count();
    let (scratch, slots) = (
        prison.bench.config.state_dir.join("scratch"),
        prison.bench.config.runtime_dir.join("arsrv-slots"),
    );
    assert_eq!((left(scratch.clone()), left(slots.clone())), (1, 1));
    let Prison { bench, .. } = prison;
    let folder = bench.stop_and_keep().await;
    assert_eq!((left(scratch), left(slots)), (0, 0));
    assert!(std::fs::metadata(format!("/proc/{pid}")).is_err(), "worker {pid} is still there");
    drop(folder);
}
