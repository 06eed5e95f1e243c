//! Start and stop.
//!
//! The store has a thread of its own with its own runtime: a script that takes long holds up the
//! clients of the store, but nothing else in the process.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arbase::http::ListenError;
use arbase::{Chain, Stop, Stopper};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use crate::config::{Config, Durability};
use crate::connection;
use crate::engine::Engine;
use crate::gauges::Gauges;
use crate::journal::{self, LocalLog, LogError, LogTask, Seq};
use crate::keyspace::{Command, Keyspace};
use crate::snapshot::{self, SnapshotError};

/// How often keys whose time has passed are looked for, and whether a snapshot is due.
const TICK: Duration = Duration::from_millis(100);

/// Why the store cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings break a rule.
    #[error("`{field}` in the settings of the key-value store: {rule}")]
    Settings {
        /// The field.
        field: &'static str,
        /// The rule with the value found.
        rule: String,
    },
    /// The folder of the data cannot be made.
    #[error("cannot make the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The password file cannot be read or made.
    #[error("cannot use the password file `{}`", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The password file has no password in it.
    #[error("the password file `{}` is empty; delete it to get a new password", path.display())]
    EmptyPassword {
        /// The file.
        path: PathBuf,
    },
    /// The data cannot be read.
    #[error("cannot load the keys")]
    Snapshot(#[source] SnapshotError),
    /// The log cannot be read.
    #[error("cannot load the changes")]
    Log(#[source] LogError),
    /// The socket cannot be made.
    #[error(transparent)]
    Socket(#[from] ListenError),
    /// The TCP address cannot be used.
    #[error("cannot listen on `{addr}`")]
    Listen {
        /// The address.
        addr: String,
        /// Why.
        source: std::io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread of the key-value store")]
    Thread(#[source] std::io::Error),
    /// The thread ended before it had started.
    #[error("the thread of the key-value store died at the start")]
    Died,
}

/// A running store.
#[derive(Debug)]
pub struct Server {
    tcp: Option<SocketAddr>,
    socket: PathBuf,
    password_file: PathBuf,
    stopper: Stopper,
    ended: oneshot::Receiver<()>,
}

struct Ready {
    tcp: Option<SocketAddr>,
}

impl Server {
    /// Loads the data and opens the sockets.  When it returns, the store answers.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check().map_err(|(field, rule)| StartError::Settings { field, rule })?;
        let (socket, password_file) = (config.socket_path(), config.password_path());
        let (stopper, stop) = Stop::new();
        let (ready, is_ready) = oneshot::channel();
        let (over, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("arkvd".to_owned())
            .spawn(move || {
                run_thread(config, ready, stop);
                // Nobody listens if the server was dropped.
                over.send(()).ok();
            })
            .map_err(StartError::Thread)?;
        let Ready { tcp } = is_ready.await.unwrap_or(Err(StartError::Died))?;
        Ok(Self { tcp, socket, password_file, stopper, ended })
    }

    /// The TCP address it listens on.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// The socket it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The file with the password.
    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// Serves until told to stop; what was accepted is on disk when it returns.
    pub async fn run_until(self, stop: Stop) {
        let Self { stopper, mut ended, .. } = self;
        tokio::select! {
            () = stop.wait() => {}
            _ = &mut ended => return,
        }
        stopper.stop();
        // An error means that the thread is gone, which is what is waited for.
        ended.await.ok();
    }
}

fn run_thread(config: Config, ready: oneshot::Sender<Result<Ready, StartError>>, stop: Stop) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    match runtime {
        Ok(runtime) => {
            let local = LocalSet::new();
            local.block_on(&runtime, serve(config, ready, stop));
        }
        Err(err) => {
            ready.send(Err(StartError::Thread(err))).ok();
        }
    }
}

struct Loaded {
    keyspace: Keyspace,
    log: LocalLog,
    task: LogTask,
    password: String,
}

/// Reads what is on disk.
fn load(config: &Config) -> Result<Loaded, StartError> {
    let password = password(&config.password_path())?;
    std::fs::create_dir_all(&config.state_dir)
        .map_err(|source| StartError::Folder { path: config.state_dir.clone(), source })?;
    // What was accepted once is loaded, whatever the limit is now.
    let mut keyspace = Keyspace::new(usize::MAX);
    let after = snapshot::read(&config.state_dir, &mut keyspace).map_err(StartError::Snapshot)?;
    let db = journal::open(&config.state_dir.join("log.sqlite")).map_err(StartError::Log)?;
    let (last, bytes) = journal::replay(&db, after, |record| {
        let command = Command { db: record.db, seed: record.seed, argv: &record.argv };
        keyspace.apply(record.now_ms, &command);
        keyspace.take_changes();
    })
    .map_err(StartError::Log)?;
    keyspace.set_limit(config.max_memory_bytes);
    let interval = match config.durability {
        Durability::Sync => None,
        Durability::Interval => Some(Duration::from_millis(config.interval_ms)),
    };
    let (log, task) = LocalLog::new(db, last, bytes, interval);
    Ok(Loaded { keyspace, log, task, password })
}

/// Reads the password, or makes one.
fn password(path: &Path) -> Result<String, StartError> {
    let fault = |source| StartError::Password { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let password = text.trim().to_owned();
            if password.is_empty() {
                return Err(StartError::EmptyPassword { path: path.to_owned() });
            }
            return Ok(password);
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
        Err(err) => return Err(fault(err)),
    }
    let password = format!("{:032x}", rand::random::<u128>());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(fault)?;
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        // The core has to read it; the folder's group is that of the units.
        .mode(0o640)
        .open(path)
        .map_err(fault)?;
    file.write_all(format!("{password}\n").as_bytes()).map_err(fault)?;
    Ok(password)
}

async fn listen_tcp(config: &Config) -> Result<Option<TcpListener>, StartError> {
    if config.listen.is_empty() {
        return Ok(None);
    }
    let listener = TcpListener::bind(config.listen.as_str())
        .await
        .map_err(|source| StartError::Listen { addr: config.listen.clone(), source })?;
    Ok(Some(listener))
}

async fn serve(config: Config, ready: oneshot::Sender<Result<Ready, StartError>>, stop: Stop) {
    let config = Rc::new(config);
    let started = async {
        let Loaded { keyspace, log, task, password } = load(&config)?;
        let unix = arbase::http::listen_unix(&config.socket_path(), config.mode())?;
        let tcp = listen_tcp(&config).await?;
        Ok((Engine::new(keyspace, Box::new(log), Rc::clone(&config), password), task, unix, tcp))
    };
    let (engine, task, unix, tcp) = match started.await {
        Ok(started) => started,
        Err(err) => {
            ready.send(Err(err)).ok();
            return;
        }
    };
    let addr = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
    log::info!(path:% = config.socket_path().display(), keys = engine.keyspace.counts(0).0; "key-value store started");
    let gauges = Arc::new(Gauges::default());
    gauges.take(&engine);
    let shown = Arc::clone(&gauges);
    arbase::metrics::add_component("arkvd", move |page| shown.write(page));
    let engine = Rc::new(RefCell::new(engine));
    let (log_done, log_ends) = oneshot::channel::<()>();
    let log_task = tokio::task::spawn_local(task.run(async move {
        log_ends.await.ok();
    }));
    let (snapshots_done, snapshot_end) = oneshot::channel::<()>();
    let ticking = tokio::task::spawn_local(tick(Rc::clone(&engine), gauges, snapshot_end));
    ready.send(Ok(Ready { tcp: addr })).ok();

    accept(&engine, &unix, tcp.as_ref(), &stop).await;

    // Connections have ended; what they changed goes to disk before the end.
    drop(snapshots_done);
    ticking.await.ok();
    drop(log_done);
    log_task.await.ok();
    std::fs::remove_file(config.socket_path()).ok();
    log::info!("key-value store stopped");
}

/// Accepts connections until told to stop, and ends them then.
async fn accept(
    engine: &Rc<RefCell<Engine>>,
    unix: &UnixListener,
    tcp: Option<&TcpListener>,
    stop: &Stop,
) {
    let mut connections = JoinSet::new();
    let accept_tcp = async || match tcp {
        Some(tcp) => tcp.accept().await,
        None => std::future::pending().await,
    };
    loop {
        tokio::select! {
            () = stop.wait() => break,
            accepted = unix.accept() => match accepted {
                Ok((stream, _)) => {
                    let addr = "unix".to_owned();
                    if has_room(engine) {
                        connections.spawn_local(connection::serve(stream, addr, Rc::clone(engine)));
                    } else {
                        turn_away(stream);
                    }
                }
                Err(err) => accept_failed(&err).await,
            },
            accepted = accept_tcp() => match accepted {
                Ok((stream, addr)) => {
                    // Replies are written whole; waiting for more would only delay them.
                    stream.set_nodelay(true).ok();
                    if has_room(engine) {
                        let addr = addr.to_string();
                        connections.spawn_local(connection::serve(stream, addr, Rc::clone(engine)));
                    } else {
                        turn_away(stream);
                    }
                }
                Err(err) => accept_failed(&err).await,
            },
            Some(ended) = connections.join_next() => {
                if let Err(err) = ended {
                    log::error!(error:% = Chain(&err); "a connection broke");
                }
            }
        }
    }
    connections.shutdown().await;
}

fn has_room(engine: &Rc<RefCell<Engine>>) -> bool {
    let mut engine = engine.borrow_mut();
    let has_room = engine.clients.len() < engine.config.max_clients;
    if !has_room {
        engine.figures.refused += 1;
    }
    has_room
}

/// Tells a client that there are too many, without waiting for it.
fn turn_away(stream: impl tokio::io::AsyncWrite + Unpin + 'static) {
    use tokio::io::AsyncWriteExt as _;
    tokio::task::spawn_local(async move {
        let mut stream = stream;
        let told = stream.write_all(b"-ERR max number of clients reached\r\n");
        tokio::time::timeout(Duration::from_secs(1), told).await.ok();
    });
}

/// Mostly too many open files: others have to end before it goes on.
async fn accept_failed(err: &std::io::Error) {
    log::warn!(error:% = err; "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Sweeps keys whose time has passed and makes snapshots.
async fn tick(engine: Rc<RefCell<Engine>>, gauges: Arc<Gauges>, mut end: oneshot::Receiver<()>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => return,
        }
        while engine.borrow_mut().sweep() {
            tokio::task::yield_now().await;
        }
        let due = {
            let engine = engine.borrow();
            gauges.take(&engine);
            engine.log.grown() >= engine.config.snapshot_after_bytes
        };
        if due {
            make_snapshot(&engine).await;
        }
    }
}

async fn make_snapshot(engine: &Rc<RefCell<Engine>>) {
    let (seq, dbs, dir): (Seq, _, _) = {
        let engine = engine.borrow();
        (engine.log.last(), engine.keyspace.snapshot(), engine.config.state_dir.clone())
    };
    let written = tokio::task::spawn_blocking(move || snapshot::write(&dir, seq, &dbs)).await;
    let mut engine = engine.borrow_mut();
    match written {
        Ok(Ok(())) => {
            let now_ms = engine.now();
            engine.log.truncate(seq);
            engine.figures.snapshots += 1;
            engine.figures.last_snapshot_ms = now_ms;
            log::debug!(revision = seq; "snapshot made");
        }
        Ok(Err(err)) => log::error!(error:% = Chain(&err); "no snapshot"),
        Err(err) => log::error!(error:% = Chain(&err); "no snapshot"),
    }
}
