//! Stored documents that know their previous version.
//!
//! A document is kept as JSON in an envelope with the version of its type: `{"v":2,"d":…}`.
//! Reading walks back through [`Migrate::Previous`] to the version it was written with and
//! converts forward from there.  A field that is only added needs no new version, just a
//! `#[serde(default)]`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A stored type that can be made from its previous version.
///
/// ```
/// use arstore::{Migrate, Oldest, decode, encode};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct PumpV1 { rate: u32 }
/// impl Migrate for PumpV1 {
///     type Previous = Oldest;
///     const VERSION: u32 = 1;
///     fn migrate(previous: Oldest) -> Self { match previous {} }
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Pump { litres_per_hour: u32 }
/// impl Migrate for Pump {
///     type Previous = PumpV1;
///     const VERSION: u32 = 2;
///     fn migrate(previous: PumpV1) -> Self { Self { litres_per_hour: previous.rate } }
/// }
///
/// let old = encode(&PumpV1 { rate: 3 })?;
/// assert_eq!(decode::<Pump>(old.as_bytes())?.litres_per_hour, 3);
/// # Ok::<(), arstore::DocumentError>(())
/// ```
pub trait Migrate: Serialize + DeserializeOwned {
    /// The version before this one; [`Oldest`] for the first.
    type Previous: Migrate;

    /// Counts from 1 without a gap.
    const VERSION: u32;

    /// Makes it from the version before.
    fn migrate(previous: Self::Previous) -> Self;
}

/// There is no version before the first.  It has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oldest {}

impl Serialize for Oldest {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match *self {}
    }
}

impl<'de> Deserialize<'de> for Oldest {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("no version before the first"))
    }
}

impl Migrate for Oldest {
    type Previous = Self;
    const VERSION: u32 = 0;
    fn migrate(previous: Self) -> Self {
        previous
    }
}

/// Why a stored document cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not in an envelope.
    #[error("what is stored is no versioned document")]
    Envelope {
        /// Why.
        source: serde_json::Error,
    },
    /// A newer release has written it.
    #[error(
        "the document has version {found} and this release knows up to {known}: a newer release has written it"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// Its version was never used.
    #[error("the document has version {found}, which never existed")]
    NoSuchVersion {
        /// Its version.
        found: u32,
    },
    /// It is not what its version says.
    #[error("the document is not of version {version}")]
    Form {
        /// The version.
        version: u32,
        /// Why.
        source: serde_json::Error,
    },
    /// It cannot be written as JSON.
    #[error("the document cannot be written as JSON")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
}

#[derive(Serialize)]
struct Written<'a, T> {
    v: u32,
    d: &'a T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Found<'a> {
    v: u32,
    #[serde(borrow)]
    d: &'a RawValue,
}

/// A document in its envelope.  The same value gives the same bytes.
pub fn encode<T: Migrate>(document: &T) -> Result<String, DocumentError> {
    serde_json::to_string(&Written { v: T::VERSION, d: document })
        .map_err(|source| DocumentError::Encode { source })
}

/// The document in an envelope of this or any earlier version.  Takes any bytes.
pub fn decode<T: Migrate>(bytes: &[u8]) -> Result<T, DocumentError> {
    let Found { v, d } =
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Envelope { source })?;
    if v > T::VERSION {
        return Err(DocumentError::Newer { found: v, known: T::VERSION });
    }
    if v == 0 {
        return Err(DocumentError::NoSuchVersion { found: v });
    }
    at_version(v, d)
}

fn at_version<T: Migrate>(version: u32, document: &RawValue) -> Result<T, DocumentError> {
    if version == T::VERSION {
        return serde_json::from_str(document.get())
            .map_err(|source| DocumentError::Form { version, source });
    }
    if T::VERSION == 0 || version > T::VERSION {
        return Err(DocumentError::NoSuchVersion { found: version });
    }
    at_version::<T::Previous>(version, document).map(T::migrate)
}
