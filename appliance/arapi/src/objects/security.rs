//! Credentials: what channels ask for and outgoing connections present.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Broken, Rules, SecretField};
use crate::names::{Kind, ObjectName};

/// Credentials that channels ask for and outgoing connections present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SecuritySpec {
    /// HTTP basic authentication (RFC 7617).
    Basic {
        /// The user's name; no colon.
        username: String,
        /// The realm in `WWW-Authenticate`, which groups securities; default `ARINT`.
        #[serde(default = "realm")]
        realm: String,
        /// The password; default: a new random UUID.
        #[serde(default)]
        password: SecretField,
        /// Whether it opens anything; default true.
        #[serde(default = "super::yes")]
        is_active: bool,
    },
    /// A key in a header.
    ApiKey {
        /// The header; default `X-API-Key`.
        #[serde(default = "api_key_header")]
        header: String,
        /// The key; default: a new random UUID.
        #[serde(default)]
        key: SecretField,
        /// Whether it opens anything; default true.
        #[serde(default = "super::yes")]
        is_active: bool,
    },
    /// A fixed bearer token (RFC 6750), for outgoing connections.
    Bearer {
        /// The token.
        token: SecretField,
        /// Whether it is used; default true.
        #[serde(default = "super::yes")]
        is_active: bool,
    },
}

impl SecuritySpec {
    /// The word for its type in services: `basic_auth`, `apikey` or `bearer`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "basic_auth",
            Self::ApiKey { .. } => "apikey",
            Self::Bearer { .. } => "bearer",
        }
    }

    /// Whether it is in use.
    pub fn is_active(&self) -> bool {
        match self {
            Self::Basic { is_active, .. }
            | Self::ApiKey { is_active, .. }
            | Self::Bearer { is_active, .. } => *is_active,
        }
    }
}

fn realm() -> String {
    "ARINT".to_owned()
}

fn api_key_header() -> String {
    "X-API-Key".to_owned()
}

impl Rules for SecuritySpec {
    fn check(&self) -> Result<(), Broken> {
        match self {
            Self::Basic { username, .. } if username.is_empty() || username.contains(':') => {
                Err(("username", format!("`{username}` is empty or has a colon")))
            }
            Self::Basic { realm, .. }
                if realm.contains('"') || realm.chars().any(char::is_control) =>
            {
                Err((
                    "realm",
                    format!("`{}` has a quote or a control character", realm.escape_debug()),
                ))
            }
            Self::ApiKey { header, .. } if !is_header_name(header) => {
                Err(("header", format!("`{header}` is not the name of an HTTP header")))
            }
            _ => Ok(()),
        }
    }

    fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretField)> {
        match self {
            Self::Basic { password, .. } => vec![("password", password)],
            Self::ApiKey { key, .. } => vec![("key", key)],
            Self::Bearer { token, .. } => vec![("token", token)],
        }
    }
}

/// Whether a text is a header's name (RFC 9110, section 5.6.2: a token).
pub(crate) fn is_header_name(text: &str) -> bool {
    http::HeaderName::from_bytes(text.as_bytes()).is_ok()
}

/// Several securities under one name: who satisfies one of them may pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupSpec {
    /// The securities in it.
    pub members: Vec<ObjectName>,
}

impl Rules for SecurityGroupSpec {
    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        self.members.iter().map(|name| (Kind::Security, name)).collect()
    }
}
