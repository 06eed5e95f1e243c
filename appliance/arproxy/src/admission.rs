//! How many requests may be on their way to backends, and how many may wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The door: so many inside, so many in the queue, the rest is sent away.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    patience: Duration,
}

/// A place inside; dropping it gives it to the next.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The queue is full too.
    #[error("as many requests as are allowed are in progress and waiting")]
    Queue,
    /// The turn did not come in time.
    #[error("no turn came in time")]
    Waited,
}

impl Admission {
    /// `places` inside, `max_waiting` in the queue, each for at most `patience`.
    pub fn new(places: usize, max_waiting: usize, patience: Duration) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, waiting: AtomicUsize::new(0), max_waiting, patience }
    }

    /// Takes a place, waiting in the queue if need be; first come, first served.
    pub async fn enter(&self) -> Result<Place, Full> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let turn = Turn::take(&self.waiting, self.max_waiting).ok_or(Full::Queue)?;
        let permit =
            tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await;
        drop(turn);
        match permit {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Full::Waited),
        }
    }
}

/// A place in the queue, given back also if the client goes away.
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn take(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let turn = Self(waiting);
        // Dropping the turn takes the one back that was added.
        (waiting.fetch_add(1, Relaxed) < max).then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_more_than_the_queue_holds_is_sent_away_at_once() {
        let door = Arc::new(Admission::new(1, 1, Duration::from_secs(60)));
        let inside = door.enter().await.unwrap();
        let second = tokio::spawn({
            let door = Arc::clone(&door);
            async move { door.enter().await.map(drop) }
        });
        while door.waiting.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(door.enter().await.err(), Some(Full::Queue));
        assert_eq!(door.waiting.load(Relaxed), 1);
        drop(inside);
        second.await.unwrap().unwrap();
        assert_eq!(door.waiting.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn who_waited_long_enough_is_sent_away() {
        let door = Admission::new(1, 1, Duration::from_millis(10));
        let _inside = door.enter().await.unwrap();
        assert_eq!(door.enter().await.err(), Some(Full::Waited));
        assert_eq!(door.waiting.load(Relaxed), 0);
    }
}
