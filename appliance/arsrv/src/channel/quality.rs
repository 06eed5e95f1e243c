//! What a channel does with requests and answers beside invoking its service, ready for use.
//!
//! A channel that does nothing of it has none, which is one comparison for each of its requests.

use arapi::objects::{ChannelSpec, ContentEncoding};

/// The qualities of one channel.
#[derive(Debug, Default)]
pub struct Quality {
    /// Whether answers are packed with gzip.
    pub packs: bool,
}

impl Quality {
    /// The qualities of a channel; None where it has none.
    pub(super) fn of(spec: &ChannelSpec) -> Option<Box<Self>> {
        let quality = Self { packs: spec.content_encoding == Some(ContentEncoding::Gzip) };
        quality.packs.then(|| Box::new(quality))
    }
}
