//! Start and stop of the operating system unit.

use std::sync::Arc;

use arbase::Stop;
use tokio::net::UnixListener;

use crate::config::Config;
use crate::{system, updates};

/// The mode of the socket: root, and the group of the services.
const SOCKET_MODE: u32 = 0o660;

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control interface.
    #[error(transparent)]
    Control(#[from] arbase::http::ListenError),
    /// The system bus.
    #[error("cannot reach the system bus")]
    Bus(#[source] zbus::Error),
    /// The box's key.
    #[error("cannot make the box's identity")]
    Identity(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What both halves share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) bus: zbus::Connection,
    pub(crate) system: system::State,
    pub(crate) updates: updates::Boot,
}

/// The unit, listening.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    control: UnixListener,
}

impl Server {
    /// Connects to the system bus and binds the control interface.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let bus = zbus::Connection::system().await.map_err(StartError::Bus)?;
        let control =
            arbase::http::listen_unix(&config.runtime_dir.join("aros.sock"), SOCKET_MODE)?;
        let system =
            system::State::open(&config).map_err(|err| StartError::Identity(err.into()))?;
        let updates = updates::Boot::new(&config);
        Ok(Self { app: Arc::new(App { config, bus, system, updates }), control })
    }

    /// Serves until told to stop.
    pub async fn run_until(self, stop: Stop) {
        let metered = Arc::clone(&self.app);
        let metrics = arbase::metrics::router("aros", move || {
            let app = Arc::clone(&metered);
            async move { system::metrics(&app).await }
        });
        let router = system::router()
            .merge(updates::router())
            .with_state(Arc::clone(&self.app))
            .merge(metrics)
            .merge(arbase::logging::router());
        tokio::join!(
            system::run(Arc::clone(&self.app), stop.clone()),
            updates::run(self.app, stop.clone()),
            arbase::http::serve_unix(router, self.control, stop),
        );
    }
}
