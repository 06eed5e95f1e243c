//! Channels: which one a request is for.
//!
//! A [`Table`] is built from a world ([`Table::plan`], no I/O) and never changed; the reconciler publishes it
//! whole, and requests under way keep the one they began with.  What a path pattern means is in
//! [`pattern`], how paths are decoded in [`path`], how `Accept` is weighed in [`accept`].
//!
//! The order of preference among channels that fit: an exact path before a pattern, the pattern with
//! the most literal text first; on one path a channel with a method before one without, then one with
//! `http_accept` before one without, then what the client prefers.

pub mod accept;
pub mod onward;
pub mod path;
pub mod pattern;
pub mod quality;
pub mod reconcile;
pub mod schema;
pub mod table;

pub use onward::Onward;
pub use quality::Quality;
pub use table::{Channel, Found, Standing, Table, Target, Targets};

use arapi::names::{Kind, ObjectName};

/// A number for an object, where 3.2 had a row's id: the same on every box and after every change.
pub(crate) fn stable_id(kind: Kind, name: &ObjectName) -> u32 {
    // FNV-1a, folded to 31 bits so that it is positive wherever it is kept.
    let text = kind.as_str().bytes().chain([b'/']).chain(name.as_str().bytes());
    let hash =
        text.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash & 0x7fff_ffff).max(1)
}

/// For fuzzing: any bytes as a pattern, a path and an `Accept`, a line each.  Panics where a match breaks its
/// promise.
#[expect(clippy::panic, reason = "this is how a fuzzer is told")]
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (written, raw, accept) = (line(), line(), line());
    if let Some(range) = accept::MediaRange::parse(written)
        && let Ok(value) = http::HeaderValue::from_str(accept)
    {
        let headers = [(http::header::ACCEPT, value)].into_iter().collect();
        if range.quality(&headers) > 1000 {
            panic!("a quality above 1: {accept:?}");
        }
    }
    let Ok(decoded) = path::decode(raw) else { return };
    for match_slash in [true, false] {
        let Ok(pattern) = pattern::Pattern::parse(written, match_slash) else { continue };
        let Some(values) = pattern.matches(&decoded) else { continue };
        if values.len() != pattern.names().count() || values.iter().any(String::is_empty) {
            panic!("{written:?} matched {raw:?} with {values:?}");
        }
        if pattern.exact().is_some_and(|exact| exact != *decoded) {
            panic!("{written:?} is exact and matched {raw:?}");
        }
    }
}
