//! A store, a redis-server to compare with, and a client that keeps the bytes of each reply.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arbase::{Stop, Stopper};
use arkvd::{Config, Reply, Server, decode_reply};
use bytes::BytesMut;
use tempfile::TempDir;

/// Waits for a state; says what was waited for if it does not come.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A store in this process.
pub(crate) struct Store {
    pub(crate) dir: TempDir,
    pub(crate) password: String,
    pub(crate) socket: PathBuf,
    pub(crate) tcp: Option<std::net::SocketAddr>,
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<(Stopper, tokio::task::JoinHandle<()>)>,
}

pub(crate) fn config_in(dir: &Path) -> Config {
    Config {
        runtime_dir: dir.to_owned(),
        state_dir: dir.join("state"),
        listen: String::new(),
        ..Config::default()
    }
}

impl Store {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change)
    }

    pub(crate) fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config_in(dir.path());
        change(&mut config);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let server = runtime.block_on(Server::start(config)).unwrap();
        let password = std::fs::read_to_string(server.password_file()).unwrap().trim().to_owned();
        let (socket, tcp) = (server.socket().to_owned(), server.tcp_addr());
        let (stopper, stop) = Stop::new();
        let running = runtime.spawn(server.run_until(stop));
        Self {
            dir,
            password,
            socket,
            tcp,
            runtime: Some(runtime),
            running: Some((stopper, running)),
        }
    }

    /// A store in a folder that stays.
    pub(crate) fn start_for_good(dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |config| {
            config.runtime_dir = dir.to_owned();
            config.state_dir = dir.join("state");
            change(config);
        })
    }

    /// Why a store does not start.
    pub(crate) fn refusal(config: &Config) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let err = runtime.block_on(Server::start(config.clone())).unwrap_err();
        arbase::Chain(&err).to_string()
    }

    pub(crate) fn stop(&mut self) {
        if let (Some(runtime), Some((stopper, running))) =
            (self.runtime.take(), self.running.take())
        {
            stopper.stop();
            runtime.block_on(running).unwrap();
        }
    }

    /// Stops it in order and starts it again with the same data.
    pub(crate) fn restart_with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.stop();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::start_in(dir, change)
    }

    pub(crate) fn client(&self) -> Client {
        let mut client = Client::connect(&self.socket);
        assert_eq!(client.call(&["AUTH", &self.password]), Reply::OK);
        client
    }

    pub(crate) fn stranger(&self) -> Client {
        Client::connect(&self.socket)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A real redis-server on a socket in a folder of its own.
pub(crate) struct Redis {
    child: Child,
    socket: PathBuf,
    _dir: TempDir,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|err| {
            panic!("cannot run redis-server ({err}); install the Debian package redis-server")
        });
        wait_for("redis-server", || UnixStream::connect(&socket).ok());
        Self { child, socket, _dir: dir }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A client that reads reply by reply.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    input: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, input: Vec::new() }
    }

    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let mut request = BytesMut::new();
        arkvd::encode_request(args, &mut request);
        self.stream.write_all(&request).unwrap();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply and its bytes.
    pub(crate) fn receive(&mut self) -> (Reply, Vec<u8>) {
        self.try_receive().unwrap_or_else(|| panic!("the connection was closed"))
    }

    /// The next reply, or nothing if the other side has closed.
    pub(crate) fn try_receive(&mut self) -> Option<(Reply, Vec<u8>)> {
        loop {
            if let Some((reply, used)) = decode_reply(&self.input).unwrap() {
                let rest = self.input.split_off(used);
                let bytes = std::mem::replace(&mut self.input, rest);
                return Some((reply, bytes));
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(err) => panic!("no reply: {err}"),
            }
        }
    }

    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.send(args);
        self.receive().0
    }

    /// A command written as words.
    pub(crate) fn words(&mut self, line: &str) -> Reply {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }
}

pub(crate) fn bulk(text: &str) -> Reply {
    Reply::Bulk(bytes::Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned().into())
}
