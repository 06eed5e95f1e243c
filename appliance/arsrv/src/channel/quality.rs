//! What a channel does with requests and answers beside invoking its service, ready for use.
//!
//! A channel that does nothing of it has none, which is one comparison for each of its requests.

use std::sync::Arc;

use arapi::objects::{ChannelSpec, ContentEncoding, Object};

use super::schema::Schema;
use super::table::Channel;
use crate::audit;
use crate::http::cache::Keeping;
use crate::http::cors;
use crate::security::Gate;
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
    /// What is kept of requests and answers.
    pub audit: Option<Arc<audit::Rules>>,
    /// What requests and answers have to satisfy.
    pub schemas: Schemas,
}

/// The schemas of a channel; kept from table to table, because compiling one takes a while.
#[derive(Debug, Clone, Default)]
pub struct Schemas {
    /// That of requests.
    pub request: Option<Arc<Schema>>,
    /// That of answers.
    pub response: Option<Arc<Schema>>,
}

impl Schemas {
    /// Those of a channel; fails with the one that is none.
    fn of(spec: &ChannelSpec, before: Option<&Channel>) -> Result<Self, String> {
        let (request, response) = (&spec.request_schema, &spec.response_schema);
        if request.is_none() && response.is_none() {
            return Ok(Self::default());
        }
        if let Some(before) = before
            && before.spec.request_schema == *request
            && before.spec.response_schema == *response
            && let Some(quality) = &before.quality
        {
            return Ok(quality.schemas.clone());
        }
        let compiled = |field: &str, written: &Option<serde_json::Value>| match written {
            None => Ok(None),
            Some(written) => Schema::of(written)
                .map(|schema| Some(Arc::new(schema)))
                .map_err(|fault| format!("`{field}` is no JSON Schema: {fault}")),
        };
        Ok(Self {
            request: compiled("request_schema", request)?,
            response: compiled("response_schema", response)?,
        })
    }
}

impl Quality {
    /// The qualities of a channel; None where it has none.  Fails with why the channel cannot serve.
    pub(super) fn of(
        object: &Object,
        spec: &ChannelSpec,
        world: &World,
        gate: &Gate,
        before: Option<&Channel>,
    ) -> Result<Option<Box<Self>>, String> {
        let quality = Self {
            packs: spec.content_encoding == Some(ContentEncoding::Gzip),
            keeps: Keeping::of(&object.name, object.revision, spec, world),
            cors: cors::Rules::of(spec),
            audit: audit::Rules::of(spec, gate),
            schemas: Schemas::of(spec, before)?,
        };
        let has_any = quality.packs
            || quality.keeps.is_some()
            || quality.cors.is_some()
            || quality.audit.is_some()
            || quality.schemas.request.is_some()
            || quality.schemas.response.is_some();
        Ok(has_any.then(|| Box::new(quality)))
    }
}
