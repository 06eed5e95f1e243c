//! The body of a request on its way through: lent to the connection, piece by piece, as the client sends it.
//!
//! Where nothing of it was taken yet it can be lent again, so that a request whose connection could not be opened is
//! sent once more whatever its method.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// The body of a request that is passed on.
#[derive(Debug, Clone)]
pub enum Upload {
    /// All of it.
    Whole(Bytes),
    /// As it comes.
    Streamed(Lender),
}

/// Lends a body to one attempt after the other.  Clones are the same.
#[derive(Debug, Clone)]
pub struct Lender(Arc<Mutex<Lending>>);

#[derive(Debug)]
struct Lending {
    body: Incoming,
    limit: u64,
    taken: u64,
    is_touched: bool,
    /// When it last moved, and whose turn it is since then.
    moved: Instant,
    waits_for: Waits,
    fault: Option<UploadFault>,
}

/// For whom an upload waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// For the client to send more.
    Client,
    /// For the other side to take more.
    OtherSide,
    /// It is over.
    Nobody,
}

/// Why the body of a request could not be passed on.
#[derive(Debug)]
pub enum UploadFault {
    /// Larger than allowed.
    TooLarge,
    /// The client broke off.
    Broken(hyper::Error),
}

/// What the connection is told of it; the request is given up.
#[derive(Debug, thiserror::Error)]
#[error("the request's body ended early")]
pub struct Ended;

impl Lender {
    /// Of a body of at most `limit` bytes.
    pub fn of(body: Incoming, limit: u64) -> Self {
        Self(Arc::new(Mutex::new(Lending {
            body,
            limit,
            taken: 0,
            is_touched: false,
            moved: Instant::now(),
            waits_for: Waits::OtherSide,
            fault: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Lending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any of it was asked for, so that it cannot be lent again.
    pub fn is_touched(&self) -> bool {
        self.lock().is_touched
    }

    /// For whom it waits, and since when.
    pub fn waits(&self) -> (Waits, Instant) {
        let lending = self.lock();
        (lending.waits_for, lending.moved)
    }

    /// Why it could not be passed on, if that is why.
    pub fn fault(&self) -> Option<UploadFault> {
        self.lock().fault.take()
    }
}

impl Lending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        self.is_touched = true;
        self.waits_for = Waits::Client;
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.moved = Instant::now();
        self.waits_for = Waits::OtherSide;
        Poll::Ready(match next {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.taken = self.taken.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                if self.taken > self.limit {
                    self.fault = Some(UploadFault::TooLarge);
                    return Poll::Ready(Some(Err(Ended)));
                }
                if self.body.is_end_stream() {
                    self.waits_for = Waits::Nobody;
                }
                Some(Ok(frame))
            }
            Some(Err(err)) => {
                self.fault = Some(UploadFault::Broken(err));
                Some(Err(Ended))
            }
            None => {
                self.waits_for = Waits::Nobody;
                None
            }
        })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Ended;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        match self.get_mut() {
            Self::Whole(whole) if whole.is_empty() => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(whole))))),
            Self::Streamed(lender) => lender.lock().poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_empty(),
            Self::Streamed(lender) => lender.lock().body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => {
                SizeHint::with_exact(u64::try_from(whole.len()).unwrap_or(u64::MAX))
            }
            Self::Streamed(lender) => lender.lock().body.size_hint(),
        }
    }
}
