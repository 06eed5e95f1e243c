//! A balancer in a folder of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use arapi::arldb::Status;
use arbase::{Stop, Stopper};
use arldb::{Config, Server};

use crate::backend::Backend;
use crate::client::Client;

/// Longest wait for a state.
const LIMIT: Duration = Duration::from_secs(20);

pub struct Fixture {
    pub addr: SocketAddr,
    pub dir: tempfile::TempDir,
    pub stopper: Stopper,
    pub running: tokio::task::JoinHandle<()>,
}

impl Fixture {
    /// A balancer with no core behind it.
    pub fn alone(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            runtime_dir: dir.path().to_owned(),
            ..Config::default()
        };
        change(&mut config);
        config.check().unwrap();
        let server = Server::start(config).unwrap();
        let addr = server.local_addr();
        let (stopper, stop) = Stop::new();
        let running = tokio::spawn(server.run_until(stop));
        Self { addr, dir, stopper, running }
    }

    /// A balancer and a core that it knows to be up.
    pub async fn with_core(change: impl FnOnce(&mut Config)) -> (Self, Backend) {
        let fixture = Self::alone(change);
        let backend = Backend::start(&fixture.socket());
        fixture.wait_until(|status| status.backends[0].healthy).await;
        (fixture, backend)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("arsrv-http.sock")
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.addr).await
    }

    pub async fn status(&self) -> Status {
        arapi::arldb::Client::in_runtime_dir(self.dir.path()).status().await.unwrap()
    }

    /// Waits for a state of the balancer.
    pub async fn wait_until(&self, state: impl Fn(&Status) -> bool) -> Status {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.status().await;
            if state(&status) {
                return status;
            }
            assert!(Instant::now() < end, "the state did not come: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits for anything else.
pub async fn wait_for(what: &str, state: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !state() {
        assert!(Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
