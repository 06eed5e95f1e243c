//! The streams of one HTTP/2 connection, and the socket of one that began as HTTP/1.1.
//!
//! Each stream has a [`Watch`] of its own; the task of the connection looks at all of them now and then.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::Limits;
use crate::watch::{Overdue, Watch};

/// The streams that are open.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Vec<Weak<Watch>>>);

impl Streams {
    /// One more.
    pub(crate) fn begin(&self, now: Instant) -> Arc<Watch> {
        let watch = Arc::new(Watch::of_stream(now));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&watch));
        watch
    }

    /// How many there are, and what is overdue about answers that have begun.
    pub(crate) fn look(&self, limits: &Limits, now: Instant) -> (usize, Option<Overdue>) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut overdue = None;
        streams.retain(|stream| {
            let Some(watch) = stream.upgrade() else { return false };
            if watch.has_answered() {
                overdue = overdue.or(watch.overdue(limits, now));
            }
            true
        });
        (streams.len(), overdue)
    }
}

/// A socket of which something was read already.
pub(crate) struct Rewound<T> {
    first: Bytes,
    io: T,
}

impl<T> Rewound<T> {
    pub(crate) fn new(first: Bytes, io: T) -> Self {
        Self { first, io }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buf.remaining());
            let part = self.first.split_to(length);
            buf.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
