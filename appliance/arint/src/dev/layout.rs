//! Where the development node keeps things: the data folder, the ports, the config files.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// What `arint dev` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DevArgs {
    /// The data folder; default: `$XDG_STATE_HOME/arint`, as root `/var/lib/arint-dev`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The address that channels and the admin API listen on.  Beyond loopback the admin API speaks HTTPS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) listen: IpAddr,
    /// Take free ports instead of the standard ones (11223, 8183, 6379), for a second node on the machine.
    #[arg(long)]
    pub(crate) free_ports: bool,
    /// The Python interpreter of the workers, 3.11 or newer.
    #[arg(long, value_name = "FILE", env = "ARINT_PYTHON", default_value = "/usr/bin/python3")]
    pub(crate) python: PathBuf,
    /// Workers; default: the number of processors, at least 2.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// A TOML file whose tables (`[arsrv]`, `[arldb]`, …) are added to the units' config files.
    #[arg(long, value_name = "FILE")]
    pub(crate) extra_config: Option<PathBuf>,
    /// End when the process that started this one ends; `arctl dev` says so.
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
    /// Print one JSON document with the addresses instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// The graver levels down to this one are logged: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: log::LevelFilter,
}

/// Why the data folder is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("no home folder is known; name a data folder with `--data`")]
    NoHome,
    #[error("cannot make folder `{}`", path.display())]
    MakeDir { path: PathBuf, source: io::Error },
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("another node uses the data folder `{}`; stop it, or name another with `--data`", path.display())]
    InUse { path: PathBuf },
    #[error("cannot find a free port on {addr}")]
    NoPort { addr: IpAddr, source: io::Error },
    #[error("cannot read `{}`", path.display())]
    ReadExtra { path: PathBuf, source: io::Error },
    #[error("config `{}`: {fault}", path.display())]
    BadExtra { path: PathBuf, fault: String },
    #[error("cannot find the program itself")]
    OwnPath(#[source] io::Error),
}

/// The prepared data folder.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) data_dir: PathBuf,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) config_dir: PathBuf,
    pub(crate) kvdb_addr: SocketAddr,
    channels_addr: SocketAddr,
    admin_addr: SocketAddr,
    /// Held as long as the node runs.
    _lock: Flock<File>,
}

/// Longest path of the runtime folder: socket names of 25 bytes must fit into the 107 of `sun_path`.
const MAX_RUNTIME_PATH: usize = 80;

impl Layout {
    /// Makes folders, picks ports, writes the config files.
    pub(crate) fn prepare(args: &DevArgs) -> Result<Self, LayoutError> {
        let data_dir = match &args.data {
            Some(dir) => std::path::absolute(dir)
                .map_err(|source| LayoutError::MakeDir { path: dir.clone(), source })?,
            None => default_data_dir()?,
        };
        // 0711: workers with a user of their own have to get through to what they may read.
        make_dir(&data_dir, 0o711)?;
        let lock = lock(&data_dir)?;
        let runtime_dir = runtime_dir(&data_dir);
        make_dir(&runtime_dir, 0o711)?;
        let config_dir = data_dir.join("etc");
        make_dir(&config_dir, 0o700)?;
        make_dir(&data_dir.join("pickup/incoming/services"), 0o700)?;
        make_dir(&data_dir.join("pickup/incoming/user-conf"), 0o700)?;
        // All are held until all are picked: a port that is free again is soon picked once more.
        let (kvdb_addr, _kvdb) = pick_port(IpAddr::from([127, 0, 0, 1]), 6379, args.free_ports)?;
        let (channels_addr, _channels) = pick_port(args.listen, 11223, args.free_ports)?;
        let (admin_addr, _admin) = pick_port(args.listen, 8183, args.free_ports)?;
        let layout = Self {
            data_dir,
            runtime_dir,
            config_dir,
            kvdb_addr,
            channels_addr,
            admin_addr,
            _lock: lock,
        };
        layout.write_configs(args)?;
        layout.link_names()?;
        Ok(layout)
    }

    pub(crate) fn pickup_dir(&self) -> PathBuf {
        self.data_dir.join("pickup/incoming/services")
    }

    pub(crate) fn channels_url(&self) -> String {
        format!("http://{}", reachable(self.channels_addr))
    }

    pub(crate) fn admin_url(&self) -> String {
        let scheme = if self.admin_addr.ip().is_loopback() { "http" } else { "https" };
        format!("{scheme}://{}", reachable(self.admin_addr))
    }

    /// What a person is told once everything answers.
    pub(crate) fn banner(&self, code: Option<&str>) -> String {
        let mut text = String::new();
        let bin = self.data_dir.join("bin");
        // Writing to a String cannot fail.
        writeln!(text, "\nARINT {} runs here; Ctrl-C stops it.\n", env!("CARGO_PKG_VERSION")).ok();
        writeln!(text, "  console and admin API   {}", self.admin_url()).ok();
        writeln!(text, "  channels                {}", self.channels_url()).ok();
        writeln!(text, "  pickup folder           {}", self.pickup_dir().display()).ok();
        writeln!(text, "  arctl                   {}/arctl", bin.display()).ok();
        if let Some(code) = code {
            writeln!(text, "\n  This box is not claimed yet.  First-run code: {code}").ok();
            writeln!(
                text,
                "  In another terminal:\n    export PATH={}:$PATH\n    arctl claim --server {} --code {code} --user admin",
                bin.display(),
                self.admin_url()
            )
            .ok();
        }
        writeln!(text).ok();
        text
    }

    fn write_configs(&self, args: &DevArgs) -> Result<(), LayoutError> {
        let extra = match &args.extra_config {
            None => toml::Table::new(),
            Some(path) => fs::read_to_string(path)
                .map_err(|source| LayoutError::ReadExtra { path: path.clone(), source })?
                .parse::<toml::Table>()
                .map_err(|err| LayoutError::BadExtra {
                    path: path.clone(),
                    fault: err.message().to_owned(),
                })?,
        };
        for (unit, mut table) in self.configs(args) {
            if let Some(toml::Value::Table(more)) = extra.get(unit) {
                table.extend(more.clone());
            }
            let path = self.config_dir.join(format!("{unit}.toml"));
            let text =
                format!("# Written by `arint dev` at each start; see --extra-config.\n{table}");
            fs::write(&path, text).map_err(|source| LayoutError::Write { path, source })?;
        }
        Ok(())
    }

    fn configs(&self, args: &DevArgs) -> Vec<(&'static str, toml::Table)> {
        let common = |unit: &str| {
            let mut table = toml::Table::new();
            set(&mut table, "runtime_dir", self.runtime_dir.display().to_string());
            set(&mut table, "state_dir", self.data_dir.join(unit).display().to_string());
            table
        };
        let arclst = common("arclst");
        let mut arkvd = common("arkvd");
        set(&mut arkvd, "listen", self.kvdb_addr.to_string());
        let mut arsrv = common("arsrv");
        set(&mut arsrv, "python", args.python.display().to_string());
        if let Some(workers) = args.workers {
            set(&mut arsrv, "workers", i64::try_from(workers).unwrap_or(i64::MAX));
        }
        let mut arwadm = common("arwadm");
        set(&mut arwadm, "listen", self.admin_addr.to_string());
        let tls = if self.admin_addr.ip().is_loopback() { "off" } else { "self-signed" };
        set(&mut arwadm, "tls", tls);
        set(&mut arwadm, "pickup_dir", self.pickup_dir().display().to_string());
        let user_conf = self.data_dir.join("pickup/incoming/user-conf");
        set(&mut arwadm, "pickup_user_conf_dir", user_conf.display().to_string());
        let mut arldb = common("arldb");
        set(&mut arldb, "listen", self.channels_addr.to_string());
        vec![
            ("arclst", arclst),
            ("arkvd", arkvd),
            ("arsrv", arsrv),
            ("arwadm", arwadm),
            ("arldb", arldb),
        ]
    }

    /// Puts `arctl` and `arint` where a PATH entry finds them.
    fn link_names(&self) -> Result<(), LayoutError> {
        let bin = self.data_dir.join("bin");
        make_dir(&bin, 0o755)?;
        let program = std::env::current_exe().map_err(LayoutError::OwnPath)?;
        for name in ["arctl", "arint"] {
            let link = bin.join(name);
            let made = match fs::remove_file(&link) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
                Ok(()) | Err(_) => std::os::unix::fs::symlink(&program, &link),
            };
            made.map_err(|source| LayoutError::Write { path: link, source })?;
        }
        Ok(())
    }
}

fn set(table: &mut toml::Table, key: &str, value: impl Into<toml::Value>) {
    table.insert(key.to_owned(), value.into());
}

/// An address one can connect to: loopback for "every address".
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], addr.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], addr.port()))
        }
        _ => addr,
    }
}

fn default_data_dir() -> Result<PathBuf, LayoutError> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/arint-dev".into());
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    state.or_else(home).map(|dir| dir.join("arint")).ok_or(LayoutError::NoHome)
}

fn runtime_dir(data_dir: &Path) -> PathBuf {
    let inside = data_dir.join("run");
    if inside.as_os_str().len() <= MAX_RUNTIME_PATH {
        return inside;
    }
    // The process id keeps nodes apart; the folder is made with our own permissions below.
    std::env::temp_dir().join(format!("arint-dev-{}", std::process::id()))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), LayoutError> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|source| LayoutError::MakeDir { path: path.to_owned(), source })
}

fn lock(data_dir: &Path) -> Result<Flock<File>, LayoutError> {
    let path = data_dir.join("dev.lock");
    let file = File::create(&path).map_err(|source| LayoutError::Write { path, source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| LayoutError::InUse { path: data_dir.to_owned() })
}

fn pick_port(
    ip: IpAddr,
    standard: u16,
    free: bool,
) -> Result<(SocketAddr, TcpListener), LayoutError> {
    let no_port = |source| LayoutError::NoPort { addr: ip, source };
    let listener = match TcpListener::bind((ip, standard)) {
        Ok(listener) if !free => listener,
        _ => TcpListener::bind((ip, 0)).map_err(no_port)?,
    };
    Ok((listener.local_addr().map_err(no_port)?, listener))
}
