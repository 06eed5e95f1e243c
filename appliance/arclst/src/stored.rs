//! Objects as they lie on disk.
//!
//! The version is that of all kinds together.  A field that a release adds to a spec has a default
//! and needs no new version; a field that is renamed or changes its meaning does: the present form
//! becomes the `Previous` of a new one.

use arapi::objects::{Object, Spec};
use arapi::{Kind, ObjectName};
use arstore::{Migrate, Oldest};
use serde::{Deserialize, Serialize};

use crate::state::StateError;

/// An object as it lies on disk; its revision is a column beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredObject {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// The spec.
    pub spec: serde_json::Value,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it was last changed, Unix milliseconds.
    pub changed_ms: u64,
    /// Who changed it last.
    pub changed_by: String,
}

impl Migrate for StoredObject {
    type Previous = Oldest;
    const VERSION: u32 = 1;
    fn migrate(previous: Oldest) -> Self {
        match previous {}
    }
}

/// The document of an object.
pub(crate) fn encode(object: &Object) -> Result<String, StateError> {
    let Object { kind, name, spec, created_ms, changed_ms, changed_by, .. } = object;
    let stored = StoredObject {
        kind: *kind,
        name: name.clone(),
        spec: spec.to_json(),
        created_ms: *created_ms,
        changed_ms: *changed_ms,
        changed_by: changed_by.clone(),
    };
    arstore::encode(&stored).map_err(|source| StateError::Document {
        kind: kind.to_string(),
        name: name.to_string(),
        source,
    })
}

/// The object of a document; `kind` and `name` are for the message.
pub(crate) fn decode(
    kind: &str,
    name: &str,
    revision: u64,
    document: &[u8],
) -> Result<Object, StateError> {
    let stored: StoredObject = arstore::decode(document).map_err(|source| {
        StateError::Document { kind: kind.to_owned(), name: name.to_owned(), source }
    })?;
    let StoredObject { kind, name, spec, created_ms, changed_ms, changed_by } = stored;
    let spec =
        Spec::parse(kind, name.as_str(), spec).map_err(|source| StateError::Spec { source })?;
    Ok(Object { kind, name, spec, revision, created_ms, changed_ms, changed_by })
}

#[cfg(test)]
mod tests;
