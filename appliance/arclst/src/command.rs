//! Commands: what a replicated log holds, and what applying one comes to.
//!
//! **Invariant:** a command carries all that is not in the state already: time, author,
//! ciphertexts, the new cluster's id.  Applying it reads no clock, no random numbers, no config.

use arapi::arclst::{Expect, ObjectChange};
use arapi::{ErrorCode, Kind, ObjectName};
use serde::{Deserialize, Serialize};

/// One entry of the log: changes that are applied whole or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// When it was made, Unix milliseconds.
    pub time_ms: u64,
    /// Who.
    pub who: String,
    /// The request it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// The id of the cluster it founds; without effect where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founds: Option<String>,
    /// How many of the newest commits stay in the history.
    pub history_keep: u64,
    /// The changes, in order.
    pub edits: Vec<Edit>,
}

/// One change of a [`Command`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Edit {
    /// Makes or replaces an object.
    Put {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// The whole spec, defaults filled in.
        spec: serde_json::Value,
        /// What it is based on.
        expect: Expect,
    },
    /// Removes an object and its own secrets.
    Delete {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// What it is based on.
        expect: Expect,
    },
    /// Keeps a secret.
    PutSecret {
        /// Its name.
        name: String,
        /// Its value, encrypted for that name.
        sealed: Sealed,
    },
    /// Removes a secret.
    DeleteSecret {
        /// Its name.
        name: String,
    },
}

/// An encrypted value: nonce, ciphertext, tag.  In JSON it is hexadecimal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sealed(pub Vec<u8>);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed")
    }
}

impl TryFrom<String> for Sealed {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        hex::decode(text).map(Self)
    }
}

impl From<Sealed> for String {
    fn from(sealed: Sealed) -> Self {
        hex::encode(sealed.0)
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The store's revision after it.
    pub revision: u64,
    /// The objects that are not as they were, in the order in which the command first named them.
    pub changes: Vec<ObjectChange>,
    /// The names of the secrets that are not as they were.
    pub secrets: Vec<String>,
}

impl Applied {
    /// Whether the store is not as it was.
    pub fn is_change(&self) -> bool {
        !self.changes.is_empty() || !self.secrets.is_empty()
    }
}

/// Why a command was refused.  It had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The spec is not one of its kind; the text names kind, name, field and fault.
    #[error("{0}")]
    Spec(String),
    /// The spec holds a value where only the name of a secret may be.
    #[error(
        "{kind} `{name}`: field `{field}`: the store takes only the name of a secret, as `{{\"secret\": name}}`; put the value with `put_secret`"
    )]
    SecretInSpec {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// The field.
        field: String,
    },
    /// The name is the producer's.
    #[error(
        "{kind} `{name}`: names that start with `AR` or with the name of an ARINT component are the producer's; choose another"
    )]
    Reserved {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
    },
    /// Somebody else changed it in between.
    #[error(
        "{kind} `{name}` is at revision {found}, changed by `{by}`, and not at {expected} any more; read it again and repeat the change"
    )]
    Changed {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// Its revision.
        found: u64,
        /// Who changed it last.
        by: String,
        /// The revision that was expected.
        expected: u64,
    },
    /// It is there and was expected not to be.
    #[error("{kind} `{name}` exists already, at revision {found}")]
    Exists {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// Its revision.
        found: u64,
    },
    /// It is not there and was expected to be.
    #[error("{kind} `{name}` is not there any more; it was expected at revision {expected}")]
    Gone {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// The revision that was expected.
        expected: u64,
    },
    /// What is to be removed is not there.
    #[error("{kind} `{name}` does not exist")]
    NoObject {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
    },
    /// Removing what is expected not to be there.
    #[error("{kind} `{name}`: a removal cannot expect that it is absent")]
    RemoveAbsent {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
    },
    /// It refers to something that is not there.
    #[error(
        "{kind} `{name}` refers to {to_kind} `{to_name}`, which does not exist; make that first or in the same transaction"
    )]
    NoTarget {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// The kind it refers to.
        to_kind: Kind,
        /// The name it refers to.
        to_name: ObjectName,
    },
    /// Others refer to what is to be removed.
    #[error("{kind} `{name}` cannot be removed: {} to it; change that first", referrers(by, *more))]
    InUse {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// The first who refer to it.
        by: Vec<(Kind, ObjectName)>,
        /// How many more do.
        more: usize,
    },
    /// What is to be removed is not there.
    #[error("secret `{name}` does not exist")]
    NoSecret {
        /// Its name.
        name: String,
    },
    /// Not the name of a secret.
    #[error(
        "a secret's name has 1 to {max} bytes and no control characters, unlike `{found}`",
        max = Rejection::SECRET_NAME_MAX
    )]
    SecretName {
        /// What was given.
        found: String,
    },
    /// A transaction says who it is from.
    #[error("`who` has 1 to 300 bytes and no control characters, unlike `{found}`")]
    Who {
        /// What was given.
        found: String,
    },
}

fn referrers(by: &[(Kind, ObjectName)], more: usize) -> String {
    let mut text =
        by.iter().map(|(kind, name)| format!("{kind} `{name}`")).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text.push_str(if by.len() + more == 1 { " refers" } else { " refer" });
    text
}

impl Rejection {
    /// Longest name of a secret, bytes: a kind, an object's name and a field fit.
    pub const SECRET_NAME_MAX: usize = 300;

    /// The code of the error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Spec(_)
            | Self::SecretInSpec { .. }
            | Self::Reserved { .. }
            | Self::RemoveAbsent { .. }
            | Self::NoTarget { .. }
            | Self::SecretName { .. }
            | Self::Who { .. } => ErrorCode::Invalid,
            Self::Changed { .. } | Self::Exists { .. } | Self::Gone { .. } | Self::InUse { .. } => {
                ErrorCode::Conflict
            }
            Self::NoObject { .. } | Self::NoSecret { .. } => ErrorCode::NotFound,
        }
    }
}
