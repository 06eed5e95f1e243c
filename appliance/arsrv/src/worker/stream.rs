//! Answers that come piece by piece: from a worker's CHUNK frames to whoever sends them on.
//!
//! A worker may be [`frame::STREAM_WINDOW`] bytes ahead of the client and no further: what the client has taken is
//! told to it by CREDIT frames, so that memory stays flat however large the answer is and however slow the client.
//! An event stream on which nothing happens gets a comment now and then, so that everybody between us and the
//! client sees that it lives.
//!
//! **Invariant:** an answer that did not come to its END never looks complete.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::frame::{self, Kind, STREAM_WINDOW};
use super::{SMALL_BODY, Worker};
use crate::call::{BrokenOff, Pieces};

/// So much is taken before the worker is told.
const TELL_AT: usize = STREAM_WINDOW / 4;
/// How long an event stream is silent before a comment is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A comment, as the format of event streams has it.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// What comes of a stream.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    End,
    BrokenOff(String),
}

/// The worker's end of a streamed answer.
pub(super) struct Streaming {
    pieces: mpsc::UnboundedSender<Piece>,
    /// Sent by the worker and not yet taken.
    unread: usize,
}

impl Streaming {
    /// Takes a piece; whether the worker has sent more than it may.
    pub(super) fn take(&mut self, piece: Bytes) -> bool {
        self.unread = self.unread.saturating_add(piece.len());
        if self.unread > STREAM_WINDOW {
            return true;
        }
        // A small piece would keep the whole buffer that it was read into.
        let piece = if piece.len() <= SMALL_BODY { Bytes::copy_from_slice(&piece) } else { piece };
        self.send(Piece::Data(piece));
        false
    }

    /// Passes something on; whoever took the pieces may have gone.
    pub(super) fn send(&self, piece: Piece) {
        self.pieces.send(piece).ok();
    }
}

/// The other end: what is still to come of an answer.
pub(super) struct Rest {
    worker: Arc<Worker>,
    id: u64,
    pieces: mpsc::UnboundedReceiver<Piece>,
    /// Taken and not yet told.
    taken: usize,
    is_over: bool,
    heartbeat: Option<Pin<Box<Sleep>>>,
    /// Whether a comment may come here: not in the middle of an event.
    is_between: bool,
}

/// Both ends.
pub(super) fn open(worker: &Arc<Worker>, id: u64) -> (Streaming, Rest) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let rest = Rest {
        worker: Arc::clone(worker),
        id,
        pieces,
        taken: 0,
        is_over: false,
        heartbeat: None,
        is_between: true,
    };
    (Streaming { pieces: sender, unread: 0 }, rest)
}

impl Rest {
    /// Nobody wants it, and the worker knows.
    pub(super) fn forget(mut self) {
        self.is_over = true;
    }

    /// As a door takes it.
    pub(super) fn into_pieces(mut self, content_type: Option<&str>) -> Pieces {
        if content_type.is_some_and(|own| own.starts_with("text/event-stream")) {
            self.heartbeat = Some(Box::pin(tokio::time::sleep(HEARTBEAT)));
        }
        Pieces::new(Box::pin(self))
    }

    fn tell_taken(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        {
            let mut link = self.worker.link();
            if let Some(pending) = link.calls.get_mut(&self.id)
                && let Some(stream) = &mut pending.stream
            {
                stream.unread = stream.unread.saturating_sub(taken);
            }
            let bytes = u32::try_from(taken).unwrap_or(u32::MAX).to_le_bytes();
            // Four bytes fit.
            frame::put_plain(link.outbox.tail(), Kind::Credit, self.id, &bytes).ok();
        }
        self.worker.to_write.notify_one();
    }

    fn beat(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let Some(heartbeat) = &mut self.heartbeat else {
            return Poll::Pending;
        };
        if heartbeat.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        heartbeat.as_mut().reset((Instant::now() + HEARTBEAT).into());
        // Registers the new time.
        let is_pending = heartbeat.as_mut().poll(cx).is_pending();
        if self.is_between && is_pending { Poll::Ready(Some(Ok(COMMENT))) } else { Poll::Pending }
    }
}

impl Stream for Rest {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let piece = match self.pieces.poll_recv(cx) {
            Poll::Pending => return self.beat(cx),
            Poll::Ready(piece) => piece,
        };
        match piece {
            Some(Piece::Data(piece)) => {
                self.taken += piece.len();
                if self.taken >= TELL_AT {
                    self.tell_taken();
                }
                self.is_between = piece.ends_with(b"\n\n");
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.as_mut().reset((Instant::now() + HEARTBEAT).into());
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Some(Piece::End) => {
                self.is_over = true;
                Poll::Ready(None)
            }
            Some(Piece::BrokenOff(why)) => {
                self.is_over = true;
                Poll::Ready(Some(Err(BrokenOff(why))))
            }
            None => {
                self.is_over = true;
                Poll::Ready(Some(Err(BrokenOff("its worker is gone".to_owned()))))
            }
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if !self.is_over {
            // A generator notices when it is asked for its next piece: it is given as long as any service has.
            self.worker.give_up(self.id, Instant::now() + self.worker.rules.timeout);
        }
    }
}
