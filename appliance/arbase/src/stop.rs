//! Being told to stop.

use tokio::sync::watch;

/// Tells a part to stop; every part of a process has a clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// The other end of a [`Stop`].  Dropping it also stops.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    /// A new pair.
    pub fn new() -> (Stopper, Self) {
        let (tx, rx) = watch::channel(false);
        (Stopper(tx), Self(rx))
    }

    /// Returns once stopping has been asked for.
    pub async fn wait(&self) {
        let mut rx = self.0.clone();
        // An error means that the other end is gone, which is a stop as well.
        rx.wait_for(|stopped| *stopped).await.ok();
    }

    /// Whether stopping has been asked for.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

impl Stopper {
    /// Asks for the stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
