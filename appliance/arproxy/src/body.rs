//! Bodies on their way: the client's under its limits, the answer's reporting how far it is.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::limits::Limits;
pub use crate::watch::BodyFault;
use crate::watch::{Phase, Watch};

/// The body of a client's request.  Trailers are dropped.
#[derive(Debug)]
pub struct ClientBody {
    inner: Incoming,
    left: u64,
    /// Bytes a second that it has to come with once `patience` is over; 0: any.
    min_rate: u64,
    patience: Duration,
    waiting_since: Option<Instant>,
    /// How long the client has been waited for, and how much has come.
    waited: Duration,
    received: u64,
    watch: Arc<Watch>,
}

impl ClientBody {
    pub(crate) fn new(inner: Incoming, limits: &Limits, watch: Arc<Watch>) -> Self {
        Self {
            inner,
            left: limits.max_body_bytes,
            min_rate: limits.min_body_rate,
            patience: limits.body_timeout,
            waiting_since: None,
            waited: Duration::ZERO,
            received: 0,
            watch,
        }
    }

    /// Counts what came; true if it comes too slowly.  That a backend is slow to take it does not count.
    fn is_too_slow(&mut self, length: u64) -> bool {
        self.received = self.received.saturating_add(length);
        let Some(since) = self.waiting_since.take() else { return false };
        self.waited += since.elapsed();
        self.waited > self.patience && self.received / self.waited.as_secs().max(1) < self.min_rate
    }

    fn fail(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.watch.set_body_fault(fault);
        Poll::Ready(Some(Err(fault)))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    if self.watch.phase() != Phase::Receiving {
                        let now = Instant::now();
                        self.waiting_since.get_or_insert(now);
                        self.watch.enter(Phase::Receiving, now);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    self.watch.enter(Phase::Working, Instant::now());
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => return self.fail(BodyFault::Broken),
                Poll::Ready(Some(Ok(frame))) => {
                    if self.watch.phase() != Phase::Working {
                        self.watch.enter(Phase::Working, Instant::now());
                    }
                    let Ok(data) = frame.into_data() else { continue };
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    let Some(left) = self.left.checked_sub(length) else {
                        return self.fail(BodyFault::TooLarge);
                    };
                    self.left = left;
                    if self.is_too_slow(length) {
                        return self.fail(BodyFault::TooSlow);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if !self.inner.is_end_stream() {
            // The client is still sending what nobody reads: it has to get its answer all the same.
            self.watch.set_linger();
        }
    }
}

/// The body of a request for a backend.
#[derive(Debug)]
pub enum Outgoing {
    /// All of it is here, and can be sent again.
    Whole(Bytes),
    /// It comes in parts, once.
    Stream {
        /// What has been read of it.
        first: VecDeque<Bytes>,
        /// The rest.
        rest: ClientBody,
    },
}

impl Outgoing {
    /// Reads a body of at most `limit` bytes to its end; a larger one is left to be streamed.
    pub async fn gather(mut body: ClientBody, limit: usize) -> Result<Self, BodyFault> {
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        let fits = |length: u64| usize::try_from(length).is_ok_and(|length| length <= limit);
        if !fits(body.size_hint().lower()) {
            return Ok(Self::Stream { first: VecDeque::new(), rest: body });
        }
        let mut parts = VecDeque::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            parts.push_back(data);
            if body.is_end_stream() {
                break;
            }
            if length > limit {
                return Ok(Self::Stream { first: parts, rest: body });
            }
        }
        Ok(Self::Whole(join(parts, length)))
    }

    /// The same body again, if all of it is here.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Stream { .. } => None,
        }
    }
}

/// One piece from several; one piece stays as it is.
pub(crate) fn join(mut parts: VecDeque<Bytes>, length: usize) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop_front().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(length);
    for part in parts {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream { first, rest } => match first.pop_front() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                None => Pin::new(rest).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream { first, rest } => first.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = |bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(length(bytes)),
            Self::Stream { first, rest } => {
                let here: u64 = first.iter().map(length).sum();
                match rest.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(here + rest),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

/// The body of an answer to a client: a service's own type, or one piece of the front's.
#[derive(Debug)]
pub(crate) struct FrontBody<B> {
    kind: Kind<B>,
    watch: Arc<Watch>,
}

#[derive(Debug)]
enum Kind<B> {
    Own(Bytes),
    Theirs(B),
}

impl<B: Body<Data = Bytes> + Unpin> FrontBody<B> {
    pub(crate) fn own(bytes: Bytes, watch: Arc<Watch>) -> Self {
        Self::begin(Kind::Own(bytes), watch)
    }

    pub(crate) fn theirs(body: B, watch: Arc<Watch>) -> Self {
        Self::begin(Kind::Theirs(body), watch)
    }

    fn begin(kind: Kind<B>, watch: Arc<Watch>) -> Self {
        let body = Self { kind, watch };
        body.mark();
        body
    }

    /// Says whether more has to come.
    fn mark(&self) {
        let phase = if self.is_end_stream() { Phase::Flushing } else { Phase::Sending };
        self.watch.enter_untimed(phase);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for FrontBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = match &mut self.kind {
            Kind::Own(bytes) if bytes.is_empty() => None,
            Kind::Own(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Kind::Theirs(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                if polled.is_pending() && self.watch.phase() != Phase::Answering {
                    self.watch.enter(Phase::Answering, Instant::now());
                }
                ready!(polled)
            }
        };
        if frame.is_none() {
            self.watch.enter_untimed(Phase::Flushing);
        } else {
            self.mark();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_empty(),
            Kind::Theirs(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Kind::Theirs(body) => body.size_hint(),
        }
    }
}
