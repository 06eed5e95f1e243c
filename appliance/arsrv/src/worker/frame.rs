//! The frames between the core and a worker, as bytes (docs/worker-protocol.md).
//!
//! Takes bytes apart and puts them together; no socket, no task, no knowledge of services.  CALL and
//! RESULT are the hot path: their metadata is written and read without building documents in between.
//!
//! **Invariant:** nothing behind the bytes given is looked at, no length is believed before it is checked,
//! and a frame that is too long costs no memory: it is announced and its bytes are thrown away.

use std::borrow::Cow;
use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};

/// The most a frame's `length` may say.
pub const MAX_LENGTH: usize = 256 * 1024 * 1024;

/// Bytes of a streamed answer that a worker may send before the client has taken any: docs/worker-protocol.md.
pub const STREAM_WINDOW: usize = 256 * 1024;

/// Bytes in front of a payload: length, kind, id.
pub const HEAD: usize = 4 + BEHIND_LENGTH;
/// What `length` counts beside the payload: kind and id.
const BEHIND_LENGTH: usize = 1 + 8;

/// How much room is made before each read.
const READ_ROOM: usize = 64 * 1024;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal),+ $(,)?) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name,)+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its number on the wire.
            pub fn number(self) -> u8 {
                match self { $(Self::$name => $number,)+ }
            }

            /// The kind with this number.
            pub fn of(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

kinds! {
    /// First of all: what to load.
    Hello = 1,
    /// Run a service.
    Call = 2,
    /// The answer to a REQUEST.
    Reply = 3,
    /// A call's caller has gone.
    Cancel = 4,
    /// Finish what is in flight, then exit.
    Drain = 5,
    /// Are you alive?
    Ping = 6,
    /// New ini files and key-value store.
    Config = 7,
    /// So many bytes more of a streamed answer may be sent.
    Credit = 8,
    /// How the process has confined itself, before it became Python.
    Confined = 16,
    /// Everything is loaded.
    Ready = 17,
    /// Something does not load.
    Failed = 18,
    /// A service's answer.
    Result = 19,
    /// A service wants something of the outside.
    Request = 20,
    /// A log line.
    Log = 21,
    /// I am alive.
    Pong = 22,
    /// A piece of a streamed answer.
    Chunk = 23,
    /// A streamed answer is complete, or broke off.
    End = 24,
    /// A service was run without the core: how long it took.
    Step = 25,
}

/// Bytes that are no frame, or cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a head.
    #[error("frame length {0} is below the {BEHIND_LENGTH} of a frame without payload")]
    TooShort(usize),
    /// Unknown.
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    /// The lengths inside do not fit.
    #[error("a {0:?} frame is shorter than its lengths say")]
    Truncated(Kind),
    /// The metadata cannot be read.
    #[error("the metadata of a {kind:?} frame cannot be read: {fault}")]
    Meta {
        /// Which.
        kind: Kind,
        /// What is wrong.
        fault: String,
    },
    /// To be sent, but longer than [`MAX_LENGTH`].
    #[error("frame length {0} is above the {MAX_LENGTH} allowed")]
    TooLong(usize),
}

/// One frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The id in its head.
    pub id: u64,
    /// What is behind the head, or how long that would have been if it is too long.
    pub payload: Payload,
}

/// A frame's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Here it is.
    Whole(Bytes),
    /// Above [`MAX_LENGTH`]: left out.
    TooLong(usize),
}

/// Takes frames out of a stream.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of a frame that is too long, still to be thrown away.
    skip: usize,
}

impl Decoder {
    /// Where to read into, with room for the rest of the frame that has begun.
    pub fn room(&mut self) -> &mut BytesMut {
        let have = self.buffer.len();
        let missing = match length_of(&self.buffer) {
            Some(length) if length <= MAX_LENGTH => (length + 4).saturating_sub(have),
            Some(_) | None => 0,
        };
        if self.buffer.capacity() - have < READ_ROOM / 4 || missing > READ_ROOM {
            self.buffer.reserve(missing.max(READ_ROOM));
        }
        &mut self.buffer
    }

    /// The next frame, or nothing if it has not arrived whole.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.skip > 0 {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
        }
        let Some((head, _)) = self.buffer.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, number, id @ ..] = *head;
        let id = u64::from_le_bytes(id);
        let length = to_usize(u32::from_le_bytes([l0, l1, l2, l3]));
        if length < BEHIND_LENGTH {
            return Err(FrameError::TooShort(length));
        }
        let Some(kind) = Kind::of(number) else {
            return Err(FrameError::UnknownKind(number));
        };
        let payload = length - BEHIND_LENGTH;
        if length > MAX_LENGTH {
            self.buffer.advance(HEAD);
            self.skip = payload;
            return Ok(Some(Frame { kind, id, payload: Payload::TooLong(payload) }));
        }
        if self.buffer.len() < HEAD + payload {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let payload = Payload::Whole(self.buffer.split_to(payload).freeze());
        Ok(Some(Frame { kind, id, payload }))
    }
}

fn length_of(buffer: &[u8]) -> Option<usize> {
    buffer.first_chunk::<4>().map(|length| to_usize(u32::from_le_bytes(*length)))
}

/// Never loses anything: the appliance has no 16 bit targets.
fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A payload of the form meta+body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaBody {
    /// A JSON document.
    pub meta: Bytes,
    /// The rest.
    pub body: Bytes,
}

impl MetaBody {
    /// Takes a payload apart.
    pub fn split(kind: Kind, mut payload: Bytes) -> Result<Self, FrameError> {
        let meta = take_length(kind, &mut payload)?;
        let meta = take(kind, &mut payload, meta)?;
        Ok(Self { meta, body: payload })
    }
}

/// A CALL's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallParts {
    /// A JSON document.
    pub meta: Bytes,
    /// A JSON document or nothing.
    pub http: Bytes,
    /// The rest.
    pub body: Bytes,
}

impl CallParts {
    /// Takes a payload apart.  The core only makes these; workers and tests read them.
    pub fn split(mut payload: Bytes) -> Result<Self, FrameError> {
        let meta = take_length(Kind::Call, &mut payload)?;
        let http = take_length(Kind::Call, &mut payload)?;
        let meta = take(Kind::Call, &mut payload, meta)?;
        let http = take(Kind::Call, &mut payload, http)?;
        Ok(Self { meta, http, body: payload })
    }
}

fn take_length(kind: Kind, payload: &mut Bytes) -> Result<usize, FrameError> {
    let length = payload.try_get_u32_le().map_err(|_| FrameError::Truncated(kind))?;
    Ok(to_usize(length))
}

fn take(kind: Kind, payload: &mut Bytes, length: usize) -> Result<Bytes, FrameError> {
    if length > payload.len() {
        return Err(FrameError::Truncated(kind));
    }
    Ok(payload.split_to(length))
}

/// What a CALL's metadata is made of.
#[derive(Debug, Clone, Copy)]
pub struct CallMeta<'a> {
    /// The service's name, already as a JSON string with its quotes.
    pub service_json: &'a str,
    /// The correlation id.
    pub cid: &'a str,
    /// `http-soap`, `invoke`, …
    pub channel: &'a str,
    /// `json`, `form`, `dict` or nothing.
    pub data_format: &'a str,
    /// The HTTP method.
    pub method: Option<&'a str>,
    /// How long the caller still waits.
    pub timeout_ms: u64,
    /// A JSON object; empty: nothing.
    pub environ: &'a [u8],
}

/// Writes a CALL up to its body, whose `body` bytes have to follow.  Writes nothing if it is too long.
pub fn put_call(
    out: &mut Vec<u8>,
    id: u64,
    meta: CallMeta<'_>,
    http: &[u8],
    body: usize,
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD + 8]);
    let meta_at = out.len();
    out.extend_from_slice(b"{\"service\":");
    out.extend_from_slice(meta.service_json.as_bytes());
    out.extend_from_slice(b",\"cid\":");
    put_json_string(out, meta.cid);
    out.extend_from_slice(b",\"channel\":");
    put_json_string(out, meta.channel);
    out.extend_from_slice(b",\"data_format\":");
    put_json_string(out, meta.data_format);
    out.extend_from_slice(b",\"method\":");
    match meta.method {
        Some(method) => put_json_string(out, method),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"timeout_ms\":");
    put_number(out, meta.timeout_ms);
    out.extend_from_slice(b",\"environ\":");
    out.extend_from_slice(if meta.environ.is_empty() { b"null" } else { meta.environ });
    out.push(b'}');
    let meta_length = out.len() - meta_at;
    out.extend_from_slice(http);
    let length = out.len() - start - 4 + body;
    let (Some(whole), Ok(meta_length), Ok(http_length)) =
        (checked(length), u32::try_from(meta_length), u32::try_from(http.len()))
    else {
        out.truncate(start);
        return Err(FrameError::TooLong(length));
    };
    let mut head = [0; HEAD + 8];
    {
        let (frame_head, lengths) = head.split_at_mut(HEAD);
        frame_head.copy_from_slice(&head_of(whole, Kind::Call, id));
        let (first, second) = lengths.split_at_mut(4);
        first.copy_from_slice(&meta_length.to_le_bytes());
        second.copy_from_slice(&http_length.to_le_bytes());
    }
    if let Some(place) = out.get_mut(start..meta_at) {
        place.copy_from_slice(&head);
    }
    Ok(())
}

/// Writes a frame of the form meta+body up to its body, whose `body` bytes have to follow.
pub fn put_meta_body(
    out: &mut Vec<u8>,
    kind: Kind,
    id: u64,
    meta: &[u8],
    body: usize,
) -> Result<(), FrameError> {
    let length = BEHIND_LENGTH + 4 + meta.len() + body;
    let (Some(whole), Ok(meta_length)) = (checked(length), u32::try_from(meta.len())) else {
        return Err(FrameError::TooLong(length));
    };
    out.extend_from_slice(&head_of(whole, kind, id));
    out.extend_from_slice(&meta_length.to_le_bytes());
    out.extend_from_slice(meta);
    Ok(())
}

/// Writes a frame with a payload, or none.
pub fn put_plain(out: &mut Vec<u8>, kind: Kind, id: u64, payload: &[u8]) -> Result<(), FrameError> {
    let length = BEHIND_LENGTH + payload.len();
    let whole = checked(length).ok_or(FrameError::TooLong(length))?;
    out.extend_from_slice(&head_of(whole, kind, id));
    out.extend_from_slice(payload);
    Ok(())
}

fn checked(length: usize) -> Option<u32> {
    if length > MAX_LENGTH { None } else { u32::try_from(length).ok() }
}

fn head_of(length: u32, kind: Kind, id: u64) -> [u8; HEAD] {
    let [l0, l1, l2, l3] = length.to_le_bytes();
    let [i0, i1, i2, i3, i4, i5, i6, i7] = id.to_le_bytes();
    [l0, l1, l2, l3, kind.number(), i0, i1, i2, i3, i4, i5, i6, i7]
}

/// Writes a text as a JSON string.
pub fn put_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(text.as_bytes().get(plain_from..at).unwrap_or_default());
        plain_from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            control => {
                let digit =
                    |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
                out.extend_from_slice(b"\\u00");
                out.push(digit(control >> 4));
                out.push(digit(control & 15));
            }
        }
    }
    out.extend_from_slice(text.as_bytes().get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        // The remainder of a division by ten is below ten.
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// A RESULT's metadata.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ResultMeta<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The content type the service set.
    #[serde(borrow, default)]
    pub content_type: Option<Cow<'a, str>>,
    /// Further headers; a list of values is several pairs.
    #[serde(default)]
    pub headers: Headers,
    /// Set if the service failed.
    #[serde(default)]
    pub error: Option<ResultError>,
    /// Whether the body is only the first piece, with CHUNK frames to follow.
    #[serde(default)]
    pub stream: bool,
}

/// An END's payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StreamEnd {
    /// Why the answer is not complete, if it is not.
    #[serde(default)]
    pub error: Option<String>,
}

/// What a service raised.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ResultError {
    /// What the caller may see.
    #[serde(default)]
    pub details: serde_json::Value,
    /// The exception's class.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence.
    #[serde(default)]
    pub message: String,
}

impl<'a> ResultMeta<'a> {
    /// Reads it.
    pub fn parse(meta: &'a [u8]) -> Result<Self, FrameError> {
        serde_json::from_slice(meta)
            .map_err(|err| FrameError::Meta { kind: Kind::Result, fault: err.to_string() })
    }
}

/// Header names and values in the order in which they were set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Headers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("header names with a value or a list of values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, values)) = map.next_entry::<String, Values>()? {
                    for value in values.0 {
                        pairs.push((name.clone(), value));
                    }
                }
                Ok(Headers(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a header's value or a list of values")
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Values, E> {
                Ok(Values(vec![value.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// Takes any bytes as a worker's stream and reads all that can be read of it; for fuzzing.
pub fn fuzz(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    // Pieces, so that frames are met in every state of being incomplete.
    for piece in bytes.chunks(7) {
        decoder.room().extend_from_slice(piece);
        loop {
            let payload = match decoder.take() {
                Ok(Some(Frame { kind, payload: Payload::Whole(payload), .. })) => (kind, payload),
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(_) => return,
            };
            let (kind, payload) = payload;
            if let Ok(parts) = MetaBody::split(kind, payload.clone()) {
                ResultMeta::parse(&parts.meta).ok();
            }
            CallParts::split(payload).ok();
        }
    }
}

#[cfg(test)]
mod tests;
