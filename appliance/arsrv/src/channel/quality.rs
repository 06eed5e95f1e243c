//! What a channel does with requests and answers beside invoking its service, ready for use.
//!
//! A channel that does nothing of it has none, which is one comparison for each of its requests.

use arapi::objects::{ChannelSpec, ContentEncoding, Object};

use crate::http::cache::Keeping;
use crate::http::cors;
use crate::world::World;

/// The qualities of one channel.
#[derive(Debug, Default)]
pub struct Quality {
    /// Whether answers are packed with gzip.
    pub packs: bool,
    /// What is kept of its answers.
    pub keeps: Option<Keeping>,
    /// Which pages may call it.
    pub cors: Option<cors::Rules>,
}

impl Quality {
    /// The qualities of a channel; None where it has none.
    pub(super) fn of(object: &Object, spec: &ChannelSpec, world: &World) -> Option<Box<Self>> {
        let quality = Self {
            packs: spec.content_encoding == Some(ContentEncoding::Gzip),
            keeps: Keeping::of(&object.name, object.revision, spec, world),
            cors: cors::Rules::of(spec),
        };
        let has_any = quality.packs || quality.keeps.is_some() || quality.cors.is_some();
        has_any.then(|| Box::new(quality))
    }
}
