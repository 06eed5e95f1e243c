//! The ids a request carries: the correlation id (`X-Zato-CID`, 96 random bits) and W3C trace context.
//!
//! A trace id made here begins with the correlation id, so that one is found by the other.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// The correlation id's header.
pub const CID_HEADER: HeaderName = HeaderName::from_static("x-zato-cid");
/// The id a client sent itself, as far as it has the form of one.
pub const CLIENT_CID_HEADER: HeaderName = HeaderName::from_static("x-client-cid");
/// W3C trace context.
pub const TRACEPARENT_HEADER: HeaderName = HeaderName::from_static("traceparent");

/// Length of a correlation id in hexadecimal.
const CID_LEN: usize = 24;

/// The ids of one request, made at once.
#[derive(Debug, Clone)]
pub struct Ids {
    /// For `X-Zato-CID`.
    pub cid: HeaderValue,
    /// For `traceparent`, where the request has none.
    pub traceparent: HeaderValue,
}

impl Ids {
    /// Makes new ones.
    pub fn random() -> Self {
        Self::from_random(rand::random())
    }

    fn from_random(random: [u8; 24]) -> Self {
        // One text holds both: `00-<cid and 4 bytes>-<8 bytes>-00`.
        let mut text = Vec::with_capacity(55);
        text.extend_from_slice(b"00-");
        for (at, byte) in random.iter().enumerate() {
            if at == 16 {
                text.push(b'-');
            }
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 15));
        }
        text.extend_from_slice(b"-00");
        let text = Bytes::from(text);
        let value = |bytes| {
            HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static("none"))
        };
        Self { cid: value(text.slice(3..3 + CID_LEN)), traceparent: value(text) }
    }
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) }
}

/// Whether the text is a `traceparent` one may pass on (W3C Trace Context, 3.2).
pub fn is_traceparent(text: &[u8]) -> bool {
    let hex = |bytes: &[u8]| bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |bytes: &[u8]| bytes.iter().all(|b| *b == b'0');
    let mut parts = text.splitn(5, |b| *b == b'-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let rest = parts.next();
    version.len() == 2
        && hex(version)
        && version != b"ff"
        && trace.len() == 32
        && hex(trace)
        && !zero(trace)
        && parent.len() == 16
        && hex(parent)
        && !zero(parent)
        && flags.len() == 2
        && hex(flags)
        // Only later versions may have more fields.
        && (rest.is_none() || version != b"00")
}

/// Whether a client's correlation id has the form of one: 8 to 64 letters, digits, `-` or `_`.
pub fn is_cid(text: &[u8]) -> bool {
    (8..=64).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_request_are_well_formed_and_belong_together() {
        let ids = Ids::random();
        assert!(is_cid(ids.cid.as_bytes()) && ids.cid.len() == CID_LEN);
        assert!(is_traceparent(ids.traceparent.as_bytes()), "{:?}", ids.traceparent);
        assert!(ids.traceparent.to_str().unwrap().contains(ids.cid.to_str().unwrap()));
        assert_ne!(ids.cid, Ids::random().cid);
    }

    #[test]
    fn a_traceparent_is_taken_only_if_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good.as_bytes()));
        assert!(is_traceparent((good.replacen("00-", "cc-", 1) + "-what-comes").as_bytes()));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }
}
