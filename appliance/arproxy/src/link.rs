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
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::unconstrained;

use crate::backend::Address;
use crate::body::Outgoing;

/// The socket below a link.
pub(crate) enum Wire {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// One connection.
pub(crate) struct Link {
    sender: http1::SendRequest<Outgoing>,
    /// None once it has ended.
    connection: Option<http1::Connection<TokioIo<Wire>, Outgoing>>,
    is_unix: bool,
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
        let (wire, is_unix) = match address {
            Address::Unix(path) => (Wire::Unix(UnixStream::connect(path).await?), true),
            Address::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                (Wire::Tcp(stream), false)
            }
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(wire)).await.map_err(io::Error::other)?;
        let connection = Some(connection);
        Ok(Box::new(Self { sender, connection, is_unix, idle_since: Instant::now() }))
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
/// we wrote: the kernel says so with these two errors and with end-of-file otherwise (unix(7);
/// `unix_release_sock`).  A backend that has not read all of a request cannot have carried it out.
fn is_reset(err: &hyper::Error) -> bool {
    let mut cause = err.source();
    while let Some(err) = cause {
        if let Some(err) = err.downcast_ref::<io::Error>() {
            let kind = err.kind();
            return kind == io::ErrorKind::ConnectionReset || kind == io::ErrorKind::BrokenPipe;
        }
        cause = err.source();
    }
    false
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
