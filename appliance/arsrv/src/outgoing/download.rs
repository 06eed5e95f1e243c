//! The body of an answer on its way through.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arapi::names::Cid;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::connection::Rest;
use crate::call::BrokenOff;

/// An answer as it comes.  It breaks off where the other side does, is silent for too long, or sends more than the
/// connection allows: the client sees that it is not complete.
pub struct Download {
    body: Incoming,
    rest: Arc<Rest>,
    cid: Cid,
    taken: u64,
    limit: u64,
    patience: Duration,
    /// Runs while the other side is waited for.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Download {
    pub(super) fn of(body: Incoming, rest: Arc<Rest>, cid: Cid) -> Self {
        let spec = &rest.basis.spec;
        let (limit, patience) = (spec.max_response_bytes, Duration::from_millis(spec.timeout_ms));
        Self { body, rest, cid, taken: 0, limit, patience, silence: None }
    }

    fn broken(&self, why: String) -> BrokenOff {
        self.rest.broke_off(&self.cid, &why);
        BrokenOff(why)
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Download")
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.silence = None;
                let length = frame.data_ref().map_or(0, Bytes::len);
                this.taken = this.taken.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                if this.taken > this.limit {
                    let why = format!("it is larger than the {} bytes allowed", this.limit);
                    return Poll::Ready(Some(Err(this.broken(why))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(err))) => {
                let why = arbase::Chain(&err).to_string();
                Poll::Ready(Some(Err(this.broken(why))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let patience = this.patience;
                let silence = this.silence.get_or_insert_with(|| {
                    Box::pin(tokio::time::sleep_until(Instant::now() + patience))
                });
                match silence.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        let why = format!("nothing more came within {patience:?}");
                        Poll::Ready(Some(Err(this.broken(why))))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
