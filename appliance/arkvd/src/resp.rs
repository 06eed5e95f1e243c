//! The Redis protocol (RESP2 and RESP3) as pure functions over bytes: requests in, replies out.
//!
//! A request is an array of bulk strings, or a line typed by hand.  What a client sends is limited
//! before memory is set aside for it.  This module knows no command.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::number::{format_float, parse_int};

/// Longest line typed by hand, and longest header of a frame.
const MAX_LINE: usize = 64 * 1024;
/// What a client may send before it has proved who it is.
const STRANGER_ARGS: i64 = 10;
const STRANGER_BULK: i64 = 16_384;
/// Room that is made for arguments on a client's word alone.
const TRUSTED_ARGS: usize = 1024;

/// How much one request may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Arguments, the command's name included.
    pub args: usize,
    /// Bytes of one argument.
    pub bulk: usize,
    /// Bytes of the whole request.
    pub total: usize,
    /// Whether the client has proved who it is; strangers get far less.
    pub trusted: bool,
}

/// A fault after which the connection cannot go on.  The texts are those of Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line has no end.
    #[error("Protocol error: too big inline request")]
    Line,
    /// The count of arguments has no end.
    #[error("Protocol error: too big mbulk count string")]
    CountLine,
    /// The count of arguments is no number or too large.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// More arguments than a stranger may send.
    #[error("Protocol error: unauthenticated multibulk length")]
    StrangerCount,
    /// An argument's length has no end.
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    /// An argument does not begin as one.
    #[error("Protocol error: expected '$', got '{0}'")]
    NoBulk(char),
    /// An argument's length is no number or too large.
    #[error("Protocol error: invalid bulk length")]
    Bulk,
    /// A longer argument than a stranger may send.
    #[error("Protocol error: unauthenticated bulk length")]
    StrangerBulk,
    /// A quote is never closed.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// The whole request is too large.
    #[error("Protocol error: too big request")]
    Total,
}

/// One whole request in a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Where its arguments lie, and how many bytes the request takes.
    Frame { args: Vec<Range<usize>>, used: usize },
    /// A line typed by hand, its arguments already unquoted.
    Inline { args: Vec<Bytes>, used: usize },
}

/// Reads requests from a buffer that grows.  It remembers how far it has come, so that a request
/// that arrives byte by byte is not read from its start each time.
#[derive(Debug, Default)]
pub struct RequestParser {
    args: Vec<Range<usize>>,
    missing: usize,
    bulk: Option<usize>,
    at: usize,
}

impl RequestParser {
    /// The request at the start of `buf`; `None` if its end has not arrived.  The caller removes
    /// `used` bytes afterwards, and nothing before.
    pub fn next(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<Request>, ProtocolError> {
        if self.at == 0 {
            match buf.first() {
                None => return Ok(None),
                Some(b'*') => {
                    if !self.start_frame(buf, limits)? {
                        return Ok(None);
                    }
                }
                Some(_) => return inline(buf),
            }
        }
        while self.missing > 0 {
            let Some(len) = self.bulk_length(buf, limits)? else { return Ok(None) };
            let end = self.at + len;
            if buf.len() < end + 2 {
                return Ok(None);
            }
            self.args.push(self.at..end);
            self.at = end + 2;
            self.bulk = None;
            self.missing -= 1;
        }
        let used = std::mem::take(&mut self.at);
        Ok(Some(Request::Frame { args: std::mem::take(&mut self.args), used }))
    }

    /// How many bytes of the buffer the request needs at least, if that is known.
    pub fn wanted(&self) -> usize {
        self.bulk.map_or(0, |len| self.at + len + 2)
    }

    fn start_frame(&mut self, buf: &[u8], limits: &Limits) -> Result<bool, ProtocolError> {
        let Some(end) = line_end(buf, 1, ProtocolError::CountLine)? else { return Ok(false) };
        let count = parse_int(buf.get(1..end).unwrap_or_default()).ok_or(ProtocolError::Count)?;
        if count > 0 && !limits.trusted && count > STRANGER_ARGS {
            return Err(ProtocolError::StrangerCount);
        }
        // An empty or negative array is a request without a command, and is passed over.
        let count = usize::try_from(count.max(0)).map_err(|_| ProtocolError::Count)?;
        if count > limits.args {
            return Err(ProtocolError::Count);
        }
        self.at = end + 2;
        self.missing = count;
        self.args = Vec::with_capacity(count.min(TRUSTED_ARGS));
        Ok(true)
    }

    fn bulk_length(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        if let Some(len) = self.bulk {
            return Ok(Some(len));
        }
        let Some(first) = buf.get(self.at) else { return Ok(None) };
        let Some(end) = line_end(buf, self.at, ProtocolError::BulkLine)? else { return Ok(None) };
        if *first != b'$' {
            return Err(ProtocolError::NoBulk(char::from(*first)));
        }
        let text = buf.get(self.at + 1..end).unwrap_or_default();
        let len = parse_int(text).ok_or(ProtocolError::Bulk)?;
        if !limits.trusted && len > STRANGER_BULK {
            return Err(ProtocolError::StrangerBulk);
        }
        let len = usize::try_from(len).map_err(|_| ProtocolError::Bulk)?;
        if len > limits.bulk {
            return Err(ProtocolError::Bulk);
        }
        if end + 2 + len > limits.total {
            return Err(ProtocolError::Total);
        }
        self.at = end + 2;
        self.bulk = Some(len);
        Ok(Some(len))
    }
}

/// Reads one request from the start of `bytes`; the entry for fuzzing.
pub fn parse_request(bytes: &[u8], limits: &Limits) -> Result<Option<Request>, ProtocolError> {
    RequestParser::default().next(bytes, limits)
}

/// Where the line that goes on at `from` ends (its carriage return), if that has arrived.
fn line_end(
    buf: &[u8],
    from: usize,
    too_long: ProtocolError,
) -> Result<Option<usize>, ProtocolError> {
    let line = buf.get(from..).unwrap_or_default();
    let window = line.get(..MAX_LINE.min(line.len())).unwrap_or_default();
    match window.iter().position(|byte| *byte == b'\r') {
        // The byte after it is taken for the line feed without a look, as Redis does.
        Some(at) if line.len() > at + 1 => Ok(Some(from + at)),
        Some(_) => Ok(None),
        None if line.len() >= MAX_LINE => Err(too_long),
        None => Ok(None),
    }
}

fn inline(buf: &[u8]) -> Result<Option<Request>, ProtocolError> {
    let window = buf.get(..MAX_LINE.min(buf.len())).unwrap_or_default();
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if buf.len() >= MAX_LINE { Err(ProtocolError::Line) } else { Ok(None) };
    };
    let line = window.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let args = split_line(line).ok_or(ProtocolError::Quotes)?;
    Ok(Some(Request::Inline { args, used: end + 1 }))
}

/// Splits a line typed by hand into arguments; `None` if a quote is never closed.
fn split_line(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // A zero byte ends the line, as in Redis.
        if matches!(rest, [] | [0, ..]) {
            return Some(args);
        }
        let mut arg = BytesMut::new();
        loop {
            match rest {
                [] => break,
                [space, ..] if space.is_ascii_whitespace() || *space == 0 => break,
                [b'"', after @ ..] => {
                    rest = double_quoted(after, &mut arg)?;
                    break;
                }
                [b'\'', after @ ..] => {
                    rest = single_quoted(after, &mut arg)?;
                    break;
                }
                [byte, after @ ..] => {
                    arg.put_u8(*byte);
                    rest = after;
                }
            }
        }
        args.push(arg.freeze());
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arg: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
                let byte = digit(*high) * 16 + digit(*low);
                arg.put_u8(u8::try_from(byte).unwrap_or(0));
                after
            }
            [b'\\', escaped, after @ ..] => {
                arg.put_u8(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [b'"', after @ ..] => return ends_argument(after),
            [byte, after @ ..] => {
                arg.put_u8(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], arg: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                arg.put_u8(b'\'');
                after
            }
            [b'\'', after @ ..] => return ends_argument(after),
            [byte, after @ ..] => {
                arg.put_u8(*byte);
                after
            }
            [] => return None,
        };
    }
}

/// A closing quote must be followed by a space or the end.
fn ends_argument(rest: &[u8]) -> Option<&[u8]> {
    match rest.first() {
        Some(byte) if !byte.is_ascii_whitespace() => None,
        _ => Some(rest),
    }
}

/// Writes a request as clients do.
pub fn encode_request<A: AsRef<[u8]>>(args: &[A], out: &mut BytesMut) {
    header(out, b'*', args.len());
    for arg in args {
        bulk(out, arg.as_ref());
    }
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A status: `OK`.
    Status(Cow<'static, str>),
    /// An error: its code, a space, a sentence.
    Error(Cow<'static, str>),
    /// A number.
    Int(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Nothing.
    Null,
    /// Nothing where an array could have been.
    NullArray,
    /// A float; in RESP2 its text.
    Double(f64),
    /// Texts of the server for people; in RESP2 bytes.
    Verbatim(String),
    /// Replies in order.
    Array(Vec<Self>),
    /// Names and values; in RESP2 one after the other.
    Map(Vec<(Self, Self)>),
    /// Pairs; in RESP2 one after the other.
    Pairs(Vec<(Self, Self)>),
    /// Replies without order; in RESP2 an array.
    Set(Vec<Self>),
    /// What was not asked for: messages of channels.  In RESP2 an array.
    Push(Vec<Self>),
    /// True or false; in RESP2 1 or 0.
    Bool(bool),
    /// Several replies to one request, as `SUBSCRIBE` gives them.
    Several(Vec<Self>),
}

/// The protocol's version, chosen by a client with `HELLO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// The form every client starts with.
    #[default]
    Resp2,
    /// With types for maps, sets, floats, and pushed messages.
    Resp3,
}

impl Reply {
    /// `OK`.
    pub const OK: Self = Self::Status(Cow::Borrowed("OK"));

    /// An error with a fixed text.
    pub const fn error(text: &'static str) -> Self {
        Self::Error(Cow::Borrowed(text))
    }

    /// Bytes of a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(Bytes::from(text.into()))
    }

    /// Bytes of a fixed text.
    pub const fn fixed(text: &'static str) -> Self {
        Self::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// A count.
    pub fn count(count: usize) -> Self {
        Self::Int(crate::number::int(count))
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Writes the reply.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let three = version == Version::Resp3;
        match self {
            Self::Status(text) => line(out, b'+', text),
            Self::Error(text) => line(out, b'-', text),
            Self::Int(number) => integer(out, b':', *number),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Null if three => out.extend_from_slice(b"_\r\n"),
            Self::NullArray if three => out.extend_from_slice(b"_\r\n"),
            Self::Null => out.extend_from_slice(b"$-1\r\n"),
            Self::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Self::Double(value) if three => line(out, b',', &format_float(*value)),
            Self::Double(value) => bulk(out, format_float(*value).as_bytes()),
            Self::Verbatim(text) if three => {
                header(out, b'=', text.len() + 4);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Self::Verbatim(text) => bulk(out, text.as_bytes()),
            Self::Bool(value) if three => {
                out.extend_from_slice(if *value { b"#t\r\n" } else { b"#f\r\n" });
            }
            Self::Bool(value) => integer(out, b':', i64::from(*value)),
            Self::Array(items) => list(out, b'*', items, version),
            Self::Set(items) => list(out, if three { b'~' } else { b'*' }, items, version),
            Self::Push(items) => list(out, if three { b'>' } else { b'*' }, items, version),
            Self::Map(pairs) if three => {
                header(out, b'%', pairs.len());
                for (name, value) in pairs {
                    name.encode(version, out);
                    value.encode(version, out);
                }
            }
            Self::Pairs(pairs) if three => {
                header(out, b'*', pairs.len());
                for (name, value) in pairs {
                    header(out, b'*', 2);
                    name.encode(version, out);
                    value.encode(version, out);
                }
            }
            Self::Map(pairs) | Self::Pairs(pairs) => {
                header(out, b'*', pairs.len() * 2);
                for (name, value) in pairs {
                    name.encode(version, out);
                    value.encode(version, out);
                }
            }
            Self::Several(replies) => {
                for reply in replies {
                    reply.encode(version, out);
                }
            }
        }
    }
}

fn line(out: &mut BytesMut, kind: u8, text: &str) {
    out.put_u8(kind);
    // A line break inside would end the reply early.
    if text.contains(['\r', '\n']) {
        out.extend_from_slice(text.replace(['\r', '\n'], " ").as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn integer(out: &mut BytesMut, kind: u8, number: i64) {
    out.put_u8(kind);
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut left = number.unsigned_abs();
    loop {
        at -= 1;
        if let Some(place) = digits.get_mut(at) {
            *place = b'0' + u8::try_from(left % 10).unwrap_or(0);
        }
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        out.put_u8(b'-');
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

fn header(out: &mut BytesMut, kind: u8, len: usize) {
    integer(out, kind, crate::number::int(len));
}

fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    out.reserve(bytes.len() + 16);
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn list(out: &mut BytesMut, kind: u8, items: &[Reply], version: Version) {
    header(out, kind, items.len());
    for item in items {
        item.encode(version, out);
    }
}

/// Deepest nesting of a reply that is followed.
const MAX_DEPTH: usize = 64;

/// Reads one reply from the start of `bytes` and how many bytes it takes; `Ok(None)` if its end has
/// not arrived.  For tests and tools; `Pairs` come back as arrays.
pub fn decode_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
    decode(bytes, 0, MAX_DEPTH)
}

fn decode(bytes: &[u8], at: usize, depth: usize) -> Result<Option<(Reply, usize)>, ProtocolError> {
    if depth == 0 {
        return Err(ProtocolError::Total);
    }
    let Some(kind) = bytes.get(at) else { return Ok(None) };
    let Some(end) = line_end(bytes, at, ProtocolError::Line)? else { return Ok(None) };
    let text = bytes.get(at + 1..end).unwrap_or_default();
    let words = || String::from_utf8_lossy(text).into_owned();
    let number = || parse_int(text).ok_or(ProtocolError::Bulk);
    let next = end + 2;
    let done = |reply| Ok(Some((reply, next)));
    match kind {
        b'+' => done(Reply::Status(words().into())),
        b'-' => done(Reply::Error(words().into())),
        b':' => done(Reply::Int(number()?)),
        b'_' => done(Reply::Null),
        b'#' => done(Reply::Bool(text == b"t")),
        b',' => done(Reply::Double(crate::number::parse_float(text).ok_or(ProtocolError::Bulk)?)),
        b'$' | b'=' => {
            let Ok(len) = usize::try_from(number()?) else { return done(Reply::Null) };
            let stop = next.checked_add(len).ok_or(ProtocolError::Bulk)?;
            if bytes.len() < stop.saturating_add(2) {
                return Ok(None);
            }
            let content = bytes.get(next..stop).unwrap_or_default();
            let reply = if *kind == b'=' {
                let content = content.get(4..).unwrap_or_default();
                Reply::Verbatim(String::from_utf8_lossy(content).into_owned())
            } else {
                Reply::Bulk(Bytes::copy_from_slice(content))
            };
            Ok(Some((reply, stop + 2)))
        }
        b'*' | b'~' | b'>' | b'%' => {
            let Ok(count) = usize::try_from(number()?) else { return done(Reply::NullArray) };
            let wanted = if *kind == b'%' { count.saturating_mul(2) } else { count };
            let mut items = Vec::with_capacity(wanted.min(TRUSTED_ARGS));
            let mut at = next;
            for _ in 0..wanted {
                let Some((item, after)) = decode(bytes, at, depth - 1)? else { return Ok(None) };
                items.push(item);
                at = after;
            }
            let reply = match kind {
                b'~' => Reply::Set(items),
                b'>' => Reply::Push(items),
                b'%' => {
                    let mut pairs = Vec::with_capacity(count.min(TRUSTED_ARGS));
                    let mut items = items.into_iter();
                    while let (Some(name), Some(value)) = (items.next(), items.next()) {
                        pairs.push((name, value));
                    }
                    Reply::Map(pairs)
                }
                _ => Reply::Array(items),
            };
            Ok(Some((reply, at)))
        }
        other => Err(ProtocolError::NoBulk(char::from(*other))),
    }
}

#[cfg(test)]
mod tests;
