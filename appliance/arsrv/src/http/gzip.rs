//! gzip (RFC 1952): request bodies are unpacked within bounds, answers are packed where channel and client say so.
//!
//! A body is unpacked piece by piece as it arrives, so that what it comes to is counted before memory is taken for
//! it.  A body that swells too much is refused even if it would fit: nobody's data is made of one byte.
//!
//! Streamed answers are not packed: what a service sends is to arrive when it sends it.

use std::io::Write as _;

use arapi::names::Cid;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::answer::{Answer, Payload};

/// Bodies that are not larger than this once they are unpacked may swell as much as they like.
const HARMLESS: usize = 1024 * 1024;
/// How many times its packed length a larger one may have.
const MOST_SWELLING: usize = 200;
/// How much packed input is looked at between two counts; it unpacks to at most a thousand times that.
const STEP: usize = 1024;
/// Answers smaller than this stay as they are: the header alone would make up for it.
const WORTH_IT: usize = 256;
/// Answers up to this size are packed at once, larger ones on a thread of their own.
const AT_ONCE: usize = 32 * 1024;

const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// How a request's body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// With gzip.
    Gzip,
}

impl Coding {
    /// What `Content-Encoding` says; fails with what it names if that is nothing we can unpack.
    pub fn of(headers: &HeaderMap) -> Result<Self, &str> {
        let mut coding = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            let text = value.to_str().unwrap_or("?").trim();
            if text.is_empty() || text.eq_ignore_ascii_case("identity") {
                continue;
            }
            // Packed twice is what nobody sends, and the best bombs are made of.
            let is_gzip = text.eq_ignore_ascii_case("gzip") || text.eq_ignore_ascii_case("x-gzip");
            if !is_gzip || coding == Self::Gzip {
                return Err(text);
            }
            coding = Self::Gzip;
        }
        Ok(coding)
    }
}

/// Why a body was not unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is larger than allowed once it is unpacked.
    TooLarge,
    /// It swells more than data does.
    Swells,
    /// It is no gzip.
    Broken,
}

/// Unpacks a body as it arrives.
#[derive(Debug)]
pub struct Unpacker {
    decoder: MultiGzDecoder<Vec<u8>>,
    packed: usize,
    limit: usize,
}

impl Unpacker {
    /// For a body of at most `limit` bytes once it is unpacked.
    pub fn new(limit: usize) -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), packed: 0, limit }
    }

    /// How much there is so far, unpacked.
    pub fn unpacked(&self) -> usize {
        self.decoder.get_ref().len()
    }

    /// Takes the beginning of `piece`; what is left of it is to be given again.
    pub fn take(&mut self, piece: &mut Bytes) -> Result<(), Fault> {
        let step = piece.split_to(piece.len().min(STEP));
        self.packed += step.len();
        self.decoder.write_all(&step).map_err(|_| Fault::Broken)?;
        self.check()
    }

    fn check(&self) -> Result<(), Fault> {
        let length = self.unpacked();
        if length > self.limit {
            return Err(Fault::TooLarge);
        }
        if length > HARMLESS && length / MOST_SWELLING > self.packed {
            return Err(Fault::Swells);
        }
        Ok(())
    }

    /// The body, once all of it has arrived.
    pub fn finish(mut self) -> Result<Bytes, Fault> {
        if self.packed == 0 {
            return Ok(Bytes::new());
        }
        self.decoder.try_finish().map_err(|_| Fault::Broken)?;
        self.check()?;
        self.decoder.finish().map(Bytes::from).map_err(|_| Fault::Broken)
    }
}

/// Whether a client takes gzip: named with a quality above 0, or by `*`.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let mut by_star = false;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let is_refused = parameters.split(';').any(|parameter| {
                parameter.trim().strip_prefix("q=").is_some_and(|quality| {
                    quality
                        .trim()
                        .trim_end_matches('0')
                        .trim_end_matches('.')
                        .trim_end_matches('0')
                        .is_empty()
                })
            });
            let name = name.trim();
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                return !is_refused;
            }
            if name == "*" {
                by_star = !is_refused;
            }
        }
    }
    by_star
}

/// Packs an answer if the client takes that and it gets smaller by it.
pub async fn pack(mut answer: Answer, wanted: bool, cid: &Cid) -> Answer {
    let status = answer.status();
    let is_whole = matches!(answer.body(), Payload::Whole(_));
    let headers = answer.headers();
    let is_fixed = headers.contains_key(CONTENT_ENCODING)
        || says(headers, "no-transform")
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT);
    if !is_whole || is_fixed {
        return answer;
    }
    // Whether it was packed or not: caches are to ask again for a client that takes something else.
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    let Some(body) = answer.body().whole().filter(|body| body.len() >= WORTH_IT) else {
        return answer;
    };
    if !wanted {
        return answer;
    }
    let packed = if body.len() <= AT_ONCE {
        packed(&body)
    } else {
        let body = body.clone();
        // Fails only when the runtime is stopping.
        tokio::task::spawn_blocking(move || packed(&body)).await.unwrap_or_default()
    };
    if packed.is_empty() || packed.len() >= body.len() {
        log::trace!(cid:% = cid, bytes = body.len(); "answer does not get smaller by gzip");
        return answer;
    }
    *answer.body_mut() = Payload::from(packed);
    answer.headers_mut().insert(CONTENT_ENCODING, GZIP);
    weaken(answer.headers_mut());
    answer
}

fn packed(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::new(5));
    // Into memory: this cannot fail.
    encoder.write_all(body).and_then(|()| encoder.finish()).map(Bytes::from).unwrap_or_default()
}

/// A strong ETag is for the bytes as the service gave them (RFC 9110, section 8.8.3).
fn weaken(headers: &mut HeaderMap) {
    let Some(strong) = headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")) else {
        return;
    };
    let weak = [b"W/".as_slice(), strong.as_bytes()].concat();
    if let Ok(weak) = HeaderValue::from_maybe_shared(Bytes::from(weak)) {
        headers.insert(ETAG, weak);
    }
}

fn says(headers: &HeaderMap, directive: &str) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(directive))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, Fault> {
        let mut unpacker = Unpacker::new(limit);
        let mut piece = Bytes::copy_from_slice(packed);
        while !piece.is_empty() {
            unpacker.take(&mut piece)?;
        }
        unpacker.finish()
    }

    #[test]
    fn what_was_packed_is_unpacked_also_in_several_members() {
        let text = b"one two three ".repeat(1000);
        let mut two = packed(&text).to_vec();
        two.extend_from_slice(&packed(b"end"));
        let both = unpack(&two, 100_000).unwrap();
        assert_eq!(both, [text.as_slice(), b"end"].concat());
        assert_eq!(unpack(b"", 10).unwrap(), Bytes::new());
    }

    #[test]
    fn what_is_no_gzip_or_ends_early_is_refused() {
        let whole = packed(&b"abc".repeat(100));
        assert_eq!(unpack(b"plain text", 1000), Err(Fault::Broken));
        assert_eq!(unpack(&whole[..whole.len() - 3], 1000), Err(Fault::Broken));
        let mut tail = whole.to_vec();
        tail.extend_from_slice(b"garbage after the end");
        assert_eq!(unpack(&tail, 1000), Err(Fault::Broken));
        let mut wrong_sum = whole.to_vec();
        let at = wrong_sum.len() - 6;
        wrong_sum[at] ^= 1;
        assert_eq!(unpack(&wrong_sum, 1000), Err(Fault::Broken));
    }

    #[test]
    fn the_limit_counts_what_is_unpacked() {
        let packed = packed(&vec![b'x'; 5000]);
        assert!(packed.len() < 100);
        assert_eq!(unpack(&packed, 4999), Err(Fault::TooLarge));
        assert_eq!(unpack(&packed, 5000).unwrap().len(), 5000);
    }

    #[test]
    fn a_bomb_is_refused_long_before_the_limit() {
        let bomb = packed(&vec![0; 50 * 1024 * 1024]);
        let mut unpacker = Unpacker::new(usize::MAX);
        let mut piece = bomb;
        let fault = loop {
            if let Err(fault) = unpacker.take(&mut piece) {
                break fault;
            }
        };
        assert_eq!(fault, Fault::Swells);
        assert!(unpacker.unpacked() < 4 * 1024 * 1024, "{}", unpacker.unpacked());
    }

    #[test]
    fn codings_are_told_apart() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            Coding::of(&headers).map_err(ToOwned::to_owned)
        };
        assert_eq!(of(&[]), Ok(Coding::Identity));
        assert_eq!(of(&["identity"]), Ok(Coding::Identity));
        assert_eq!(of(&["GZip"]), Ok(Coding::Gzip));
        assert_eq!(of(&["br"]), Err("br".to_owned()));
        assert_eq!(of(&["gzip, gzip"]), Err("gzip, gzip".to_owned()));
        assert_eq!(of(&["gzip", "gzip"]), Err("gzip".to_owned()));
    }

    #[test]
    fn a_client_takes_gzip_if_it_says_so() {
        for (accept, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("*", true),
            ("*;q=0", false),
            ("*;q=0, gzip", true),
            ("gzip;q=0, *", false),
            ("br", false),
            ("", false),
        ] {
            let headers =
                [(ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
