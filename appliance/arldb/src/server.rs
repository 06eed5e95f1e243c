//! Start and stop of the balancer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arbase::Stop;
use arproxy::backend::{BackendSet, BackendSettings};
use arproxy::health::Thresholds;
use arproxy::{Address, Forward, ForwardSettings, Front, ListenError, Listening, Tls};
use http::uri::PathAndQuery;
use tokio::net::UnixListener;

use crate::api;
use crate::config::{Config, HEALTH_PATH};
use crate::tls::{Material, TlsError};
use crate::trace::{Traced, Traces};

/// How long an idle connection to the core is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The name of this box's own core among the backends.
const LOCAL: &str = "local";

/// Why the balancer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port of the channels.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificate and key.
    #[error("cannot speak TLS")]
    Tls(#[from] TlsError),
    /// The control interface.
    #[error(transparent)]
    Control(#[from] arbase::http::ListenError),
}

/// Sees to it that the limits of the config are the ones that count.
fn make_room(config: &Config) {
    // Besides clients: a connection to the core per request in flight, idle ones, and a few of our own.
    let most = config.max_connections + config.max_in_flight + config.max_idle_backend + 64;
    let wanted = u64::try_from(most).unwrap_or(u64::MAX);
    match arbase::raise_open_files(wanted) {
        Ok(allowed) if allowed < wanted => {
            log::warn!(wanted, allowed; "fewer open files are allowed than all connections need");
        }
        Ok(_) => {}
        Err(err) => log::warn!(error:% = err; "cannot raise the limit of open files"),
    }
}

/// The balancer, listening.
#[derive(Debug)]
pub struct Server {
    listening: Listening,
    tls: Option<(Material, Arc<Tls>)>,
    control: UnixListener,
    front: Front,
    forward: Forward,
    backends: Arc<BackendSet>,
}

impl Server {
    /// Binds the port and the control interface, within a tokio runtime.  Connections wait in the
    /// socket's queue until [`Server::run_until`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        let tls = Material::load(&config)?;
        let mut listening = Listening::on(config.listen)?;
        if let Some((_, tls)) = &tls {
            listening = listening.with_tls(Arc::clone(tls));
        }
        make_room(&config);
        let control = arbase::http::listen_unix(&config.runtime_dir.join("arldb.sock"), 0o660)?;
        let backends = BackendSet::new(BackendSettings {
            health_path: PathAndQuery::from_static(HEALTH_PATH),
            health_interval: Duration::from_millis(config.health_interval_ms),
            health_timeout: Duration::from_millis(config.health_timeout_ms),
            thresholds: Thresholds { rise: config.health_rise, fall: config.health_fall },
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            max_idle: config.max_idle_backend,
            idle_timeout: IDLE_TIMEOUT,
            patience: Duration::from_millis(config.connect_patience_ms),
        });
        // The peers of a cluster will come and go here as their Node objects do.
        backends.add(LOCAL, Address::Unix(config.core_socket()), true);
        let forward = Forward::new(
            Arc::clone(&backends),
            &ForwardSettings {
                max_in_flight: config.max_in_flight,
                max_queue: config.max_queue,
                queue_timeout: Duration::from_millis(config.queue_timeout_ms),
            },
        );
        let front = Front::new(config.limits(), config.trusted_proxies);
        Ok(Self { listening, tls, control, front, forward, backends })
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.listening.local_addr()
    }

    /// The backends, for whoever learns of new ones.
    pub fn backends(&self) -> Arc<BackendSet> {
        Arc::clone(&self.backends)
    }

    /// Serves until `stop`, then finishes what is in flight.
    pub async fn run_until(self, stop: Stop) {
        let listen = self.listening.local_addr().to_string();
        log::info!(addr:% = listen; "balancer listens");
        let traces = Traces::default();
        let view = api::View {
            listen,
            front: self.front.clone(),
            forward: self.forward.clone(),
            backends: self.backends,
            traces: traces.clone(),
        };
        // The control interface answers until the last request is done.
        let (ended, control_stop) = Stop::new();
        let control = arbase::http::serve_unix(api::router(view), self.control, control_stop);
        let traced = Traced { inner: self.forward, traces };
        let channels = async {
            self.front.serve(self.listening, traced, async { stop.wait().await }).await;
            ended.stop();
        };
        if let Some((material, tls)) = self.tls {
            // It ends with the runtime at the latest.
            tokio::spawn(material.follow(tls, stop.clone()));
        }
        tokio::join!(channels, control);
    }
}
