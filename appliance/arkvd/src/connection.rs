//! One connection: bytes in, replies out.
//!
//! Requests are done in order, as many at once as have arrived; their replies are sent together,
//! after the changes they tell of are safe.  A client that does not read its replies is read from no
//! further, and cut off after a while.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{oneshot, watch};

use crate::config::{Config, Durability};
use crate::engine::Engine;
use crate::journal::{Progress, Seq};
use crate::resp::{Limits, ProtocolError, Reply, Request, RequestParser};
use crate::session::{Answer, Session};

/// What is read at one time.
const READ: usize = 16 * 1024;
/// Replies are sent when this much has come together.
const FLUSH: usize = 256 * 1024;
/// Commands done before others get their turn.
const TURN: usize = 256;
/// A client that takes nothing for this long is cut off.
const STALLED: Duration = Duration::from_secs(60);
/// A client has to say who it is within this time.
const STRANGER: Duration = Duration::from_secs(30);
/// Most arguments of one request.
const ARGS: usize = 1024 * 1024;

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The client went, or is cut off.
    Gone,
    /// The disk does not take what was promised to be there.
    Unsafe(String),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

struct Connection<S> {
    stream: S,
    engine: Rc<RefCell<Engine>>,
    session: Session,
    progress: watch::Receiver<Progress>,
    input: BytesMut,
    output: BytesMut,
    parser: RequestParser,
    config: Rc<Config>,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    addr: String,
    engine: Rc<RefCell<Engine>>,
) {
    let (session, progress, config) = {
        let mut engine = engine.borrow_mut();
        let session = Session::open(&mut engine, addr);
        (session, engine.log.progress(), Rc::clone(&engine.config))
    };
    let mut connection = Connection {
        stream,
        engine,
        session,
        progress,
        input: BytesMut::new(),
        output: BytesMut::new(),
        parser: RequestParser::default(),
        config,
    };
    let ended = connection.run().await;
    if let Err(End::Unsafe(fault)) = ended {
        // Nobody knows whether the last writes will be there; so none of their replies is sent.
        connection.output.clear();
        let text = format!("MISCONF Errors writing to the log on disk: {fault}");
        Reply::Error(text.into()).encode(connection.session.version, &mut connection.output);
        connection.send().await.ok();
    }
    let mut engine = connection.engine.borrow_mut();
    connection.session.close(&mut engine);
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self) -> Result<(), End> {
        let opened = tokio::time::Instant::now();
        loop {
            let goes_on = self.do_requests().await?;
            self.flush().await?;
            if !goes_on {
                self.stream.shutdown().await.ok();
                return Ok(());
            }
            let missing = self.parser.wanted().saturating_sub(self.input.len());
            // Room is made for what arrives, not for what was announced.
            self.input.reserve(missing.clamp(READ, 1024 * 1024));
            let outbox = Rc::clone(&self.session.outbox);
            tokio::select! {
                biased;
                () = outbox.changed() => {
                    if outbox.is_closed() {
                        return Err(End::Gone);
                    }
                    self.take_messages();
                    self.flush().await?;
                }
                read = self.stream.read_buf(&mut self.input) => {
                    if read? == 0 {
                        return Err(End::Gone);
                    }
                }
                () = tokio::time::sleep_until(opened + STRANGER), if !self.session.trusted => {
                    return Err(End::Gone);
                }
            }
        }
    }

    fn take_messages(&mut self) {
        for (message, after) in self.session.outbox.take() {
            self.session.after = self.session.after.max(after);
            message.encode(self.session.version, &mut self.output);
        }
    }

    /// Does the requests that have arrived; false if the connection is to end.
    async fn do_requests(&mut self) -> Result<bool, End> {
        let mut turn = 0;
        while !self.input.is_empty() {
            let limits = Limits {
                args: ARGS,
                bulk: self.config.max_value_bytes,
                total: self.config.max_value_bytes.saturating_mul(2),
                trusted: self.session.trusted,
            };
            let argv = match self.parser.next(&self.input, &limits) {
                Ok(None) => return Ok(true),
                Ok(Some(request)) => take_arguments(&mut self.input, request),
                Err(err) => {
                    self.refuse(&err);
                    return Ok(false);
                }
            };
            if argv.is_empty() {
                continue;
            }
            let answer = self.session.handle(&mut self.engine.borrow_mut(), argv);
            match answer {
                Answer::Now(reply) => reply.encode(self.session.version, &mut self.output),
                Answer::Last(reply) => {
                    reply.encode(self.session.version, &mut self.output);
                    return Ok(false);
                }
                Answer::Later { answered, limit_ms } => {
                    self.flush().await?;
                    let reply = self.wait(answered, limit_ms).await?;
                    reply.encode(self.session.version, &mut self.output);
                }
            }
            turn += 1;
            if self.output.len() >= FLUSH {
                self.flush().await?;
            }
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(true)
    }

    fn refuse(&mut self, err: &ProtocolError) {
        let reply = Reply::Error(format!("ERR {err}").into());
        reply.encode(self.session.version, &mut self.output);
    }

    /// Waits for an element, or until the client goes or its time is over.
    async fn wait(
        &mut self,
        mut answered: oneshot::Receiver<(Reply, Seq)>,
        limit_ms: u64,
    ) -> Result<Reply, End> {
        let limit = Duration::from_millis(limit_ms);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let outbox = Rc::clone(&self.session.outbox);
        loop {
            // A client may send ahead while it waits, but not without end.
            let may_read = self.input.len() < FLUSH;
            self.input.reserve(READ);
            tokio::select! {
                biased;
                answer = &mut answered => {
                    let Ok((reply, seq)) = answer else { return Ok(Reply::NullArray) };
                    self.session.after = self.session.after.max(seq);
                    return Ok(reply);
                }
                () = &mut deadline, if limit_ms > 0 => {
                    self.engine.borrow_mut().waiting.remove(self.session.id);
                    return Ok(Reply::NullArray);
                }
                () = outbox.changed() => {
                    if outbox.is_closed() {
                        return Err(End::Gone);
                    }
                    self.take_messages();
                    self.flush().await?;
                }
                read = self.stream.read_buf(&mut self.input), if may_read => {
                    if read? == 0 {
                        return Err(End::Gone);
                    }
                }
            }
        }
    }

    /// Sends the replies, after what they tell of is safe.
    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        if self.config.durability == Durability::Sync {
            let after = self.session.after;
            let reached = |progress: &Progress| progress.safe >= after || progress.given_up;
            let progress = self.progress.wait_for(reached).await.map_err(|_| End::Gone)?;
            if progress.safe < after {
                return Err(End::Unsafe(progress.fault.clone().unwrap_or_default()));
            }
        }
        self.send().await
    }

    async fn send(&mut self) -> Result<(), End> {
        let outbox = Rc::clone(&self.session.outbox);
        while !self.output.is_empty() {
            let sent = tokio::select! {
                biased;
                sent = self.stream.write_buf(&mut self.output) => sent?,
                // Its messages have piled up: it will not be heard of again.
                () = outbox.is_cut() => return Err(End::Gone),
                () = tokio::time::sleep(STALLED) => return Err(End::Gone),
            };
            if sent == 0 {
                return Err(End::Gone);
            }
        }
        if self.output.capacity() > FLUSH * 2 {
            self.output = BytesMut::new();
        }
        Ok(())
    }
}

/// Takes a whole request out of the buffer.
fn take_arguments(input: &mut BytesMut, request: Request) -> Vec<Bytes> {
    match request {
        Request::Frame { args, used } => {
            let frame = input.split_to(used).freeze();
            args.into_iter().map(|range| frame.slice(range)).collect()
        }
        Request::Inline { args, used } => {
            drop(input.split_to(used));
            args
        }
    }
}
