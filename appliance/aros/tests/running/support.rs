//! A box in name spaces of its own: the real bus, networkd, hostnamed, timedated and journald, the real `aros` and
//! `arclst`; systemd's manager and logind are played, because a test must not restart the machine it runs on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arapi::arclst::{Change, Expect, Transaction};
use arapi::client::UnixClient;
use arapi::names::{Kind, ObjectName};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use zbus::OwnedObjectPath;

/// Longest time for what should take a moment; the machine may have other things to do.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The name of the box in the store.
pub(crate) const NODE: &str = "box-1";

/// A box that runs.
pub(crate) struct Running {
    pub(crate) aros: UnixClient,
    pub(crate) store: arapi::arclst::Client,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) played: Played,
    around: Child,
    processes: Vec<(String, Child)>,
    _bus: zbus::Connection,
}

impl Running {
    /// Starts one whose changes of the network are tried for `trial_s` seconds.
    pub(crate) async fn start(trial_s: u64) -> Self {
        for (tool, package) in [
            ("unshare", "util-linux"),
            ("nsenter", "util-linux"),
            ("logger", "bsdutils"),
            ("ip", "iproute2"),
            ("dbus-daemon", "dbus-daemon"),
            ("dbus-send", "dbus-bin"),
            ("networkctl", "systemd"),
        ] {
            artest::tool(tool, package);
        }
        // Built first: hostnamed and timedated end when nobody asks them for a while.
        artest::arint();
        let dir = artest::temp_dir();
        let path = dir.path();
        let bus = path.join("bus");
        std::fs::write(path.join("bus.conf"), bus_conf(&bus)).unwrap();
        std::fs::create_dir(path.join("services")).unwrap();
        std::fs::write(path.join("blackbox"), vec![0; 256 * 1024]).unwrap();
        for (name, program) in [("hostname1", "hostnamed"), ("timedate1", "timedated")] {
            // Without the right to set the clock: the kernel shifts it when a time zone is told it for the first time.
            let text = format!(
                "[D-BUS Service]\nName=org.freedesktop.{name}\nExec=/usr/bin/setpriv --bounding-set=-sys_time --inh-caps=-sys_time /usr/lib/systemd/systemd-{program}\n"
            );
            let file = path.join(format!("services/org.freedesktop.{name}.service"));
            std::fs::write(file, text).unwrap();
        }
        let wired = "buildroot-overlay/usr/lib/systemd/network/60-arint-wired.network";
        let wired = artest::repository().join(wired);
        // The cable here is a pair of virtual interfaces, which the image's file leaves out.
        let text = std::fs::read_to_string(wired).unwrap().replace("Kind=!*", "Name=end0");
        std::fs::write(path.join("60-arint-wired.network"), text).unwrap();
        let conf = path.join("conf");
        std::fs::create_dir(&conf).unwrap();
        let run = path.join("run");
        let consoles = format!("{:?}", path.join("screen"));
        std::fs::write(path.join("screen"), "").unwrap();
        for (unit, more) in [
            (
                "aros",
                format!(
                    "network_trial_s = {trial_s}\nconsoles = [{consoles}]\ndata_dir = {:?}\nblackbox = {:?}\n",
                    path.join("data"),
                    path.join("blackbox")
                ),
            ),
            ("arclst", format!("node_name = {NODE:?}\n")),
            ("arkvd", "listen = \"\"\n".to_owned()),
        ] {
            let text = format!("runtime_dir = {run:?}\nstate_dir = {:?}\n{more}", path.join(unit));
            std::fs::write(conf.join(format!("{unit}.toml")), text).unwrap();
        }
        let around = std::os::unix::process::CommandExt::process_group(
            Command::new("unshare")
                .args(["--mount", "--net", "--uts", "sh"])
                .arg(artest::repository().join("appliance/aros/tests/running/up.sh"))
                .arg(path)
                .arg(std::process::id().to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(path.join("around.log")).unwrap()),
            0,
        )
        .spawn()
        .unwrap();
        artest::wait_for("the services around the box", SOON, async || {
            if path.join("up").is_file() { Ok(()) } else { Err(log_of(path, "around")) }
        })
        .await;
        let played = Played::default();
        let bus = played.serve(&bus).await;
        let mut this = Self {
            aros: UnixClient::new("aros", run.join("aros.sock")),
            store: arapi::arclst::Client::in_runtime_dir(&run),
            dir,
            played,
            around,
            processes: Vec::new(),
            _bus: bus,
        };
        this.run_unit("arclst").await;
        this.run_unit("aros").await;
        this
    }

    /// Starts one of our units and returns once it answers.
    pub(crate) async fn run_unit(&mut self, unit: &str) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{unit}.log")));
        let child = Command::new("nsenter")
            .arg(format!("--target={}", self.around.id()))
            .args(["--mount", "--net", "--uts", "--"])
            .arg(artest::arint())
            .args([unit, "--config-dir"])
            .arg(self.path("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.processes.push((unit.to_owned(), child));
        let client = UnixClient::new("unit", self.path(&format!("run/{unit}.sock")));
        artest::wait_for(unit, SOON, async || {
            client.get::<Value>("/v1/status").await.map_err(|err| (err, self.log(unit)))
        })
        .await;
    }

    /// Ends one of our units, with a chance to clean up or without.
    pub(crate) fn end_unit(&mut self, unit: &str, signal: Signal) {
        let at = self.processes.iter().position(|(name, _)| name == unit).unwrap();
        let (_, mut child) = self.processes.remove(at);
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        child.wait().unwrap();
    }

    /// The programs that one of our units has running.
    pub(crate) fn children(&self, unit: &str) -> Vec<String> {
        let (_, child) = self.processes.iter().find(|(name, _)| name == unit).unwrap();
        let mut names = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().flatten() {
            let pids = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for pid in pids.split_whitespace() {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                names.push(name.trim().to_owned());
            }
        }
        names
    }

    /// A path in the box's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a unit has logged.
    pub(crate) fn log(&self, unit: &str) -> String {
        log_of(self.dir.path(), unit)
    }

    /// What a command answers that is run inside.
    pub(crate) fn inside(&self, command: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--target={}", self.around.id()))
            .args(["--mount", "--net", "--uts", "--"])
            .args(command)
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }

    /// Makes or replaces an object.
    pub(crate) async fn put(&self, kind: Kind, name: &str, spec: Value) -> u64 {
        let name = ObjectName::parse(name).unwrap();
        let put = Change::Put { kind, name, spec, expect: Expect::Any };
        self.commit(vec![put]).await
    }

    /// Commits changes as an admin.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> u64 {
        let transaction =
            Transaction { changes, who: "user:admin".into(), cid: None, dry_run: false };
        self.store.commit(&transaction).await.unwrap().revision
    }
}

fn log_of(dir: &Path, unit: &str) -> String {
    std::fs::read_to_string(dir.join(format!("{unit}.log"))).unwrap_or_default()
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for unit in ["around", "arclst", "aros"] {
                artest::say(&format!("--- log of {unit} ---\n{}", self.log(unit)));
            }
        }
        for (_, child) in &mut self.processes {
            child.kill().ok();
            child.wait().ok();
        }
        killpg(Pid::from_raw(self.around.id().try_into().unwrap()), Signal::SIGKILL).ok();
        self.around.wait().ok();
    }
}

/// A system bus on which everybody may do everything: who may is not what is tested here.
fn bus_conf(outside: &Path) -> String {
    let services = outside.with_file_name("services");
    let services = services.display();
    let outside = outside.display();
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
<busconfig>
  <!-- A bus of type `system` starts services through systemd's manager, which is not here. -->
  <type>session</type>
  <servicedir>{services}</servicedir>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <listen>unix:path={outside}</listen>
  <auth>EXTERNAL</auth>
  <policy context=\"default\">
    <allow user=\"*\"/>
    <allow own=\"*\"/>
    <allow send_type=\"method_call\"/>
    <allow send_type=\"signal\"/>
    <allow send_requested_reply=\"true\" send_type=\"method_return\"/>
    <allow send_requested_reply=\"true\" send_type=\"error\"/>
    <allow receive_type=\"method_call\"/>
    <allow receive_type=\"method_return\"/>
    <allow receive_type=\"error\"/>
    <allow receive_type=\"signal\"/>
  </policy>
</busconfig>
"
    )
}

/// The service manager and logind, played: they write down what they are told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Played(Arc<Mutex<Vec<String>>>);

impl Played {
    async fn serve(&self, bus: &Path) -> zbus::Connection {
        let address = format!("unix:path={}", bus.display());
        zbus::connection::Builder::address(address.as_str())
            .name("org.freedesktop.systemd1")
            .name("org.freedesktop.login1")
            .serve_at("/org/freedesktop/systemd1", Manager(self.clone()))
            .serve_at("/org/freedesktop/systemd1/unit/arsrv", UnitPart)
            .serve_at("/org/freedesktop/systemd1/unit/arsrv", ServicePart)
            .serve_at("/org/freedesktop/login1", Logind(self.clone()))
            .build()
            .await
            .unwrap()
    }

    fn note(&self, told: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    /// What they were told so far.
    pub(crate) fn told(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Manager(Played);

type Listed =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

fn path(text: &str) -> OwnedObjectPath {
    OwnedObjectPath::try_from(text).unwrap()
}

fn listed(name: &str, active: &str, sub: &str) -> Listed {
    let text = ToOwned::to_owned;
    (
        text(name),
        text(name),
        text("loaded"),
        text(active),
        text(sub),
        String::new(),
        path("/org/freedesktop/systemd1/unit/arsrv"),
        0,
        String::new(),
        path("/"),
    )
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn list_units(&self) -> Vec<Listed> {
        vec![
            listed("arsrv.service", "active", "running"),
            listed("dev-vda.device", "active", "plugged"),
            listed("efi.mount", "failed", "failed"),
        ]
    }

    fn start_unit(&self, name: &str, _mode: &str) -> OwnedObjectPath {
        self.0.note(format!("start {name}"));
        path("/job")
    }

    fn stop_unit(&self, name: &str, _mode: &str) -> OwnedObjectPath {
        self.0.note(format!("stop {name}"));
        path("/job")
    }

    fn try_restart_unit(&self, name: &str, _mode: &str) -> OwnedObjectPath {
        self.0.note(format!("try-restart {name}"));
        path("/job")
    }
}

struct UnitPart;

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitPart {
    #[zbus(property)]
    fn active_enter_timestamp_monotonic(&self) -> u64 {
        7_000_000
    }
}

struct ServicePart;

#[zbus::interface(name = "org.freedesktop.systemd1.Service")]
impl ServicePart {
    #[zbus(property)]
    fn memory_current(&self) -> u64 {
        42_000_000
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        2
    }
}

struct Logind(Played);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn reboot(&self, _interactive: bool) {
        self.0.note("reboot".to_owned());
    }

    fn power_off(&self, _interactive: bool) {
        self.0.note("power off".to_owned());
    }

    fn terminate_user(&self, uid: u32) {
        self.0.note(format!("terminate {uid}"));
    }

    fn set_reboot_to_boot_loader_entry(&self, entry: &str) {
        self.0.note(format!("next entry {entry}"));
    }

    #[zbus(property)]
    fn boot_loader_entries(&self) -> Vec<String> {
        vec!["arint-7-a.conf".to_owned(), "arint-1-recovery.conf".to_owned()]
    }
}
