//! One HTTP/1.1 connection to a backend.
//!
//! It has no task of its own: whoever uses it drives it, from the same task that serves the client.
//! That saves two changes of task per request, and on several threads the change of thread.
//!
//! **Invariant:** an idle link is never read from.  That its other end has closed it shows when it is
//! next used, before anything of the request is taken.

use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

use crate::backend::Address;
use crate::body::Outgoing;

/// The socket below a link.
///
/// A backend may answer and close before it has read all of a request; its answer then lies in our socket
/// while our next write fails.  So a failed write is not reported: the reading side tells what the
/// backend said, or that it said nothing.
pub(crate) struct Wire {
    stream: Stream,
    /// A write failed because the other end is closed.
    is_cut: bool,
    /// Something was read since the request began; see [`Link::exchange`].
    is_answered: Arc<AtomicBool>,
    /// The other end sends nothing more; whether it has closed is to be seen at this moment.
    closing: Option<(Pin<Box<Sleep>>, u32)>,
}

/// How often, and how long apart, a half-closed Unix socket is looked at.
const CLOSING_LOOKS: u32 = 50;
const CLOSING_PAUSE: Duration = Duration::from_millis(1);

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// One connection.
pub(crate) struct Link {
    sender: http1::SendRequest<Outgoing>,
    /// None once it has ended.
    connection: Option<http1::Connection<TokioIo<Wire>, Outgoing>>,
    is_unix: bool,
    is_answered: Arc<AtomicBool>,
    pub(crate) idle_since: Instant,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) struct SendFault {
    /// The request, if nothing of it was taken.
    pub(crate) unsent: Option<Request<Outgoing>>,
    /// The backend cannot have read all of the request.
    pub(crate) untouched: bool,
    /// Why.
    pub(crate) source: hyper::Error,
}

impl Link {
    pub(crate) async fn open(address: &Address) -> io::Result<Box<Self>> {
        let (stream, is_unix) = match address {
            Address::Unix(path) => (Stream::Unix(UnixStream::connect(path).await?), true),
            Address::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                (Stream::Tcp(stream), false)
            }
        };
        let is_answered = Arc::new(AtomicBool::new(false));
        let wire =
            Wire { stream, is_cut: false, is_answered: Arc::clone(&is_answered), closing: None };
        let (sender, connection) =
            http1::handshake(TokioIo::new(wire)).await.map_err(io::Error::other)?;
        let connection = Some(connection);
        Ok(Box::new(Self { sender, connection, is_unix, is_answered, idle_since: Instant::now() }))
    }

    /// Whether another request may be sent on it.
    pub(crate) fn is_ready(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            // What it ended with reaches the request or the body it was about.
            self.connection = None;
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, SendFault> {
        self.is_answered.store(false, Relaxed);
        // The answer appears while the connection is driven, in this task: it needs no wake-up, and no
        // share of the task's budget, whose end would need one.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        let connection = &mut self.connection;
        let answer = std::future::poll_fn(|cx| {
            if let Some(driven) = connection
                && Pin::new(driven).poll(cx).is_ready()
            {
                *connection = None;
            }
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        let is_unix = self.is_unix;
        answer.await.map_err(|mut fault| {
            let unsent = fault.take_message();
            let source = fault.into_error();
            SendFault { unsent, untouched: is_unix && is_reset(&source), source }
        })
    }

    /// Gives the next piece of an answer's body; `None` at its end.
    pub(crate) fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        let mut driven = false;
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped.
                    let Ok(data) = frame.into_data() else { continue };
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(Some(Err(err))) => return Poll::Ready(Some(Err(err))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {
                    self.drive(cx);
                    driven = true;
                }
            }
        }
    }

    /// Lets the connection notice that an answer has ended.
    pub(crate) fn settle(&mut self, cx: &mut Context<'_>) {
        if !self.is_ready() {
            self.drive(cx);
        }
    }
}

/// Whether a Unix socket was closed at its other end with something of ours unread in it, or before
/// we wrote: the kernel says so with these two errors and with end-of-file otherwise (`unix_release_sock`
/// in its `net/unix/af_unix.c`).  A backend that has not read all of a request cannot have carried it out.
fn is_reset(err: &hyper::Error) -> bool {
    let mut cause = err.source();
    while let Some(err) = cause {
        if let Some(err) = err.downcast_ref::<io::Error>() {
            return is_closed(err.kind());
        }
        cause = err.source();
    }
    false
}

fn is_closed(kind: io::ErrorKind) -> bool {
    kind == io::ErrorKind::ConnectionReset || kind == io::ErrorKind::BrokenPipe
}

impl Wire {
    fn after_write(
        &mut self,
        written: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(err)) if is_closed(err.kind()) => {
                self.is_cut = true;
                Poll::Ready(Ok(length))
            }
            written => written,
        }
    }
}

impl Wire {
    /// The other end of a Unix socket sends nothing more and has answered nothing.  A server
    /// shuts its writing side first and closes then, and only the closing tells whether it had read all.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stream::Unix(stream) = &self.stream else { return Poll::Ready(Ok(())) };
        loop {
            // Writing nothing fails once the other end is closed, and does nothing before.
            let is_closed = stream.try_write(&[]).is_err_and(|err| is_closed(err.kind()));
            if let Some(err) = stream.take_error()? {
                return Poll::Ready(Err(err));
            }
            let (pause, looks) = self
                .closing
                .get_or_insert_with(|| (Box::pin(tokio::time::sleep(CLOSING_PAUSE)), 0));
            if is_closed || *looks == CLOSING_LOOKS {
                // What was not written was not read either.
                let cut = self.is_cut.then(|| io::ErrorKind::BrokenPipe.into());
                return Poll::Ready(cut.map_or(Ok(()), Err));
            }
            ready!(pause.as_mut().poll(cx));
            *looks += 1;
            pause.set(tokio::time::sleep(CLOSING_PAUSE));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closing.is_some() {
            return self.poll_closed(cx);
        }
        let before = buf.filled().len();
        let read = ready!(match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        });
        Poll::Ready(match read {
            Ok(()) if buf.filled().len() > before => {
                self.is_answered.store(true, Relaxed);
                Ok(())
            }
            Ok(()) if self.is_cut && !self.is_answered.load(Relaxed) => {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Ok(()) if !self.is_answered.load(Relaxed) => return self.poll_closed(cx),
            // It read enough to begin an answer; this is no word on what it did not read.
            Err(err) if is_closed(err.kind()) && self.is_answered.load(Relaxed) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, err))
            }
            read => read,
        })
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.after_write(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.after_write(written, bufs.iter().map(|buf| buf.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
