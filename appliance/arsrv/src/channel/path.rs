//! Paths as they are matched: percent-decoded once, except that an encoded slash stays within its part.
//!
//! `/a%2Fb` is one part and `/a/b` are two, so decoding cannot simply be done before matching.  A decoded
//! path is bytes in which [`ENCODED_SLASH`] stands for `%2F`; no UTF-8 text holds that byte.

use std::borrow::Cow;

/// Stands for `%2F` in a decoded path.
pub(crate) const ENCODED_SLASH: u8 = 0xff;

/// The path is not UTF-8 once it is percent-decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8;

/// Decodes a path for matching.  What follows a `%` and is not two hexadecimal digits stays as it is.
pub fn decode(raw: &str) -> Result<Cow<'_, [u8]>, NotUtf8> {
    let bytes = raw.as_bytes();
    if !bytes.contains(&b'%') {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            out.push(first);
            continue;
        }
        let pair = match tail {
            [high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match pair {
            None => out.push(b'%'),
            Some((high, low)) => {
                match high << 4 | low {
                    ENCODED_SLASH => return Err(NotUtf8),
                    b'/' => out.push(ENCODED_SLASH),
                    byte => out.push(byte),
                }
                rest = tail.get(2..).unwrap_or_default();
            }
        }
    }
    if out.split(|byte| *byte == ENCODED_SLASH).all(|part| std::str::from_utf8(part).is_ok()) {
        Ok(Cow::Owned(out))
    } else {
        Err(NotUtf8)
    }
}

/// A decoded path, or a part of one, as text: encoded slashes become slashes.
pub fn to_text(decoded: &[u8]) -> String {
    if decoded.contains(&ENCODED_SLASH) {
        let with_slashes: Vec<u8> =
            decoded.iter().map(|byte| if *byte == ENCODED_SLASH { b'/' } else { *byte }).collect();
        String::from_utf8_lossy(&with_slashes).into_owned()
    } else {
        String::from_utf8_lossy(decoded).into_owned()
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, text: &str) {
        assert_eq!(to_text(&decode(raw).unwrap()), text, "{raw}");
    }

    #[test]
    fn a_path_is_decoded_once() {
        check("/a/b", "/a/b");
        check("/a%20b", "/a b");
        check("/%C5%BC%c3%b3%C5%82w", "/żółw");
        check("/a%2520b", "/a%20b");
        check("/a+b", "/a+b");
        check("/a%2Fb", "/a/b");
        check("/a%252Fb", "/a%2Fb");
    }

    #[test]
    fn a_percent_sign_that_encodes_nothing_stays() {
        check("/100%", "/100%");
        check("/%zz%4", "/%zz%4");
        check("/%%41", "/%A");
    }

    #[test]
    fn what_is_not_utf_8_is_refused() {
        for raw in ["/%ff", "/%C3", "/%C3%2F%A9", "/%80"] {
            assert_eq!(decode(raw), Err(NotUtf8), "{raw}");
        }
    }

    #[test]
    fn an_encoded_slash_is_told_from_a_slash() {
        assert_ne!(decode("/a%2Fb").unwrap(), decode("/a/b").unwrap());
        assert_eq!(decode("/a%2fb").unwrap(), decode("/a%2Fb").unwrap());
    }
}
