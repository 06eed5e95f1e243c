//! `GET /v1/status`: the box at a glance.
//!
//! A part that cannot be had is left at its default and named under `problems`: half a status is of use when something
//! is broken, and no status is not.

use std::path::Path;
use std::sync::Arc;

use arapi::aros::{Clock, Disk, Memory, Status};
use arbase::Chain;
use arbase::http::Answer;
use arbase::metrics::{Page, Type};
use axum::Json;
use axum::extract::State;

use super::{bus, disks, units};
use crate::server::App;

/// Fuller than this is a problem, per cent.
const FULL_PERCENT: u64 = 90;

/// `GET /v1/status`.
pub(super) async fn status_show(State(app): State<Arc<App>>) -> Answer<Status> {
    Ok(Json(status(&app).await))
}

/// The box at a glance.
pub(crate) async fn status(app: &App) -> Status {
    let mut problems = Vec::new();
    let failed_units = match units::failed(app).await {
        Ok(failed) => failed,
        Err(err) => {
            log::warn!(error:% = Chain(&err); "units cannot be listed");
            problems.push("the service manager does not say which units failed".to_owned());
            Vec::new()
        }
    };
    problems.extend(failed_units.iter().map(|unit| format!("unit `{unit}` failed")));
    let disks = disks::list().await;
    problems.extend(disks.iter().flat_map(disk_problems));
    problems.extend(app.system.settings.problems());
    problems.extend(app.system.identity_problem.clone());
    problems.extend(crate::updates::seed_refused(&app.config.runtime_dir));
    let clock = clock(app).await;
    let boot = crate::updates::boot_status(app);
    for problem in boot.fell_back.iter().cloned().chain(crate::updates::problems(app)) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems.extend(crate::updates::problems(app));
    Status {
        hostname: arbase::host::name(),
        fingerprint: app.system.identity.fingerprint(),
        board: app.system.board.id.clone(),
        version: version(),
        kernel: first_line("/proc/sys/kernel/osrelease"),
        uptime_s: uptime_s(&first_line("/proc/uptime")),
        boot,
        memory: memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        load: load(&first_line("/proc/loadavg")),
        encrypted: is_encrypted(),
        disks,
        failed_units,
        clock,
        secure_boot: secure_boot(),
        problems,
    }
}

fn disk_problems(disk: &Disk) -> Vec<String> {
    let mut problems = Vec::new();
    let used = disk.total.saturating_sub(disk.free);
    if let Some(percent) = (used * 100).checked_div(disk.total).filter(|used| *used >= FULL_PERCENT)
    {
        problems.push(format!("`{}` is {percent} % full; remove what is not needed", disk.mount));
    }
    match disk.health.as_deref() {
        Some("worn") => {
            problems.push(format!("disk `{}` is worn; plan its replacement", disk.device))
        }
        Some("failing") => problems.push(format!("disk `{}` is failing; replace it", disk.device)),
        _ => {}
    }
    problems
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The image's version.
pub(crate) fn version() -> String {
    os_release("IMAGE_VERSION")
        .or_else(|| os_release("VERSION_ID"))
        .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

/// The box in figures.
pub(crate) async fn metrics(app: &App) -> Page {
    let status = status(app).await;
    let mut page = Page::default();
    let gauges = [
        ("aros_memory_total_bytes", "Memory of the box.", status.memory.total),
        (
            "aros_memory_available_bytes",
            "Memory programs could still get.",
            status.memory.available,
        ),
        ("aros_uptime_seconds", "Since the kernel started.", status.uptime_s),
        ("aros_failed_units", "Units that failed.", count(&status.failed_units)),
        ("aros_problems", "What needs attention.", count(&status.problems)),
        (
            "aros_clock_synchronized",
            "Whether a time source has been heard since start.",
            u64::from(status.clock.synchronized),
        ),
        ("aros_slot_confirmed", "Whether the slot is confirmed.", u64::from(status.boot.confirmed)),
    ];
    for (name, help, value) in gauges {
        page.single(name, Type::Gauge, help, value);
    }
    page.family("aros_load", Type::Gauge, "Load average over so many minutes.");
    for (minutes, load) in ["1", "5", "15"].iter().zip(status.load) {
        page.sample("aros_load", &[("minutes", minutes)], load);
    }
    type Of = fn(&Disk) -> u64;
    let families: [(&str, &str, Of); 2] = [
        ("aros_disk_total_bytes", "Size of the file system.", |disk| disk.total),
        ("aros_disk_free_bytes", "Room in the file system.", |disk| disk.free),
    ];
    for (name, help, value) in families {
        page.family(name, Type::Gauge, help);
        for disk in &status.disks {
            page.sample(name, &[("mount", &disk.mount)], value(disk));
        }
    }
    page
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

/// A value of os-release(5).
pub(crate) fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .ok()?;
    of_os_release(&text, key)
}

fn of_os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    let value = value.trim().trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

/// What `board.toml` says, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Board {
    /// For example `generic/x86_64`.
    pub(crate) id: String,
    leds: Leds,
    console: Console,
}

#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
struct Leds {
    identify: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
struct Console {
    devices: Vec<String>,
}

impl Board {
    /// Reads the file; a box without one is no board that is known.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        toml::from_str(&text).unwrap_or_else(|err| {
            log::error!(path:% = path.display(), error:% = err; "description of the board cannot be read");
            Self::default()
        })
    }

    /// The LED that identifies the box, by its name in `/sys/class/leds`.
    pub(crate) fn led(&self) -> Option<&str> {
        self.leds.identify.as_deref().filter(|led| !led.contains('/'))
    }

    /// The terminals of its screens, by the kernel's names without speeds.
    pub(crate) fn consoles(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for device in &self.console.devices {
            let name = device.split(',').next().unwrap_or_default();
            // `tty0` is whichever screen is in front; the first is where a person looks.
            names.push(if name == "tty0" { "tty1" } else { name });
        }
        if names.is_empty() { vec!["tty1", "ttyS0"] } else { names }
    }
}

fn uptime_s(text: &str) -> u64 {
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or_default()
}

fn load(text: &str) -> [f64; 3] {
    let mut figures = text.split(' ').map(|figure| figure.parse().unwrap_or_default());
    std::array::from_fn(|_| figures.next().unwrap_or_default())
}

fn memory(text: &str) -> Memory {
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    };
    Memory { total: of("MemTotal"), available: of("MemAvailable") }
}

/// Whether the file system of `/var` lies on a LUKS mapping.
fn is_encrypted() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let device = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let device = fields.next()?;
        (fields.next()? == "/var").then_some(device)
    });
    let real = device.and_then(|device| std::fs::canonicalize(device).ok());
    let name = real.as_deref().and_then(Path::file_name).map(Path::new);
    let uuid = name.map(|name| Path::new("/sys/class/block").join(name).join("dm/uuid"));
    uuid.and_then(|path| std::fs::read_to_string(path).ok())
        .is_some_and(|uuid| uuid.starts_with("CRYPT-"))
}

/// Whether the firmware says that Secure Boot is on (the fifth byte follows four of attributes).
fn secure_boot() -> bool {
    let path = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    std::fs::read(path).is_ok_and(|bytes| bytes.get(4) == Some(&1))
}

async fn clock(app: &App) -> Clock {
    let zone = async {
        let service = bus::timedate(&app.bus).await?;
        Ok((service.timezone().await?, service.ntp_synchronized().await?))
    };
    let zone = bus::within("ask for the clock", "org.freedesktop.timedate1", zone).await;
    let source = bus::within("ask for the source of time", "org.freedesktop.timesync1", async {
        let service = bus::timesync(&app.bus).await?;
        Ok((service.server_name().await?, service.server_address().await?))
    });
    let source = source.await.ok().and_then(|(name, address)| time_source(&name, &address));
    let (timezone, synchronized) = zone.unwrap_or_else(|err| {
        log::debug!(error:% = Chain(&err); "clock's service does not answer");
        ("UTC".to_owned(), false)
    });
    Clock { now_ms: arbase::time::now_ms(), synchronized, source, timezone }
}

/// The server's name, or its address (a family and its bytes) where it has none.
fn time_source(name: &str, (_, bytes): &(i32, Vec<u8>)) -> Option<String> {
    if !name.is_empty() {
        return Some(name.to_owned());
    }
    let four = <[u8; 4]>::try_from(bytes.as_slice()).map(std::net::IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes.as_slice()).map(std::net::IpAddr::from);
    four.or_else(|_| sixteen()).ok().map(|addr| addr.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_figures_are_read() {
        assert_eq!(uptime_s("12345.67 54321.00"), 12345);
        assert_eq!(load("0.52 0.58 0.59 1/467 12345"), [0.52, 0.58, 0.59]);
        assert_eq!(
            memory("MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n"),
            Memory { total: 2048 * 1024, available: 1024 * 1024 }
        );
    }

    #[test]
    fn the_image_s_version_is_read_with_and_without_quotes() {
        let text = "ID=arint\nVERSION_ID=\"1.2\"\nIMAGE_VERSION=1.2.3\nX=\n";
        assert_eq!(of_os_release(text, "IMAGE_VERSION").as_deref(), Some("1.2.3"));
        assert_eq!(of_os_release(text, "VERSION_ID").as_deref(), Some("1.2"));
        assert_eq!(of_os_release(text, "VERSION"), None);
        assert_eq!(of_os_release(text, "X"), None);
    }

    #[test]
    fn the_board_names_its_screens_and_its_led() {
        let read = |text: &str| toml::from_str::<Board>(text).unwrap();
        let board = read(
            "id = \"a/b\"\nfirmware = \"u-boot\"\n[console]\ndevices = [\"tty0\", \"ttyAMA0,115200\"]\n[leds]\nidentify = \"ACT\"\nhealth = {good = \"ACT\"}\n",
        );
        assert_eq!((board.id.as_str(), board.led()), ("a/b", Some("ACT")));
        assert_eq!(board.consoles(), ["tty1", "ttyAMA0"]);
        assert_eq!(read("id = \"x\"").consoles(), ["tty1", "ttyS0"]);
        assert_eq!(read("[leds]\nidentify = \"../x\"").led(), None);
        let hardware = artest::repository().join("hw");
        for vendor in std::fs::read_dir(hardware).unwrap().flatten() {
            for board in std::fs::read_dir(vendor.path()).into_iter().flatten().flatten() {
                let path = board.path().join("board.toml");
                if path.is_file() {
                    assert!(!Board::read(&path).id.is_empty(), "{}", path.display());
                }
            }
        }
    }

    #[test]
    fn a_time_server_has_a_name_or_an_address() {
        assert_eq!(time_source("ntp.example", &(0, vec![])).as_deref(), Some("ntp.example"));
        assert_eq!(time_source("", &(2, vec![192, 0, 2, 1])).as_deref(), Some("192.0.2.1"));
        assert_eq!(time_source("", &(0, vec![])), None);
    }

    #[test]
    fn a_disk_that_is_full_or_wears_out_is_a_problem() {
        let disk = |free, health: Option<&str>| Disk {
            mount: "/data".into(),
            device: "/dev/vda".into(),
            total: 100,
            free,
            health: health.map(Into::into),
            ..Disk::default()
        };
        assert_eq!(disk_problems(&disk(11, Some("ok"))), [""; 0]);
        assert_eq!(
            disk_problems(&disk(10, Some("worn"))),
            [
                "`/data` is 90 % full; remove what is not needed",
                "disk `/dev/vda` is worn; plan its replacement"
            ]
        );
        assert_eq!(
            disk_problems(&disk(11, Some("failing"))),
            ["disk `/dev/vda` is failing; replace it"]
        );
    }
}
