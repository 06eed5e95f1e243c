//! Names and identifiers, checked once when they are parsed.

use std::fmt;
use std::str::FromStr;

use rand::RngCore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than [`ObjectName::MAX`] bytes.
    #[error("name is {0} bytes long, at most {max} are allowed", max = ObjectName::MAX)]
    TooLong(usize),
    /// Control characters, or blanks at an end.
    #[error("name `{0}` has a control character or a blank at an end")]
    BadCharacter(String),
    /// A name of the producer's name space, see [`is_reserved`].
    #[error(
        "name `{0}` is reserved: names that start with `AR` or with the name of an ARINT component are the producer's; choose another"
    )]
    Reserved(String),
    /// Not one of the kinds.
    #[error("kind `{found}` is unknown; known kinds are {known}")]
    UnknownKind {
        /// What was written.
        found: String,
        /// The kinds there are, separated by commas.
        known: String,
    },
    /// Not a correlation id.
    #[error("`{0}` is not a correlation id: 8 to 64 letters, digits, `-` or `_` were expected")]
    BadCid(String),
}

/// The name of an object within its kind: 1 to 200 bytes, no control characters, no blank at
/// either end.  Case matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct ObjectName(String);

impl ObjectName {
    /// Longest name, in bytes.
    pub const MAX: usize = 200;

    /// Checks a text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX {
            return Err(NameError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err(NameError::BadCharacter(text.escape_debug().to_string()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ObjectName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The components whose names, in any case, are the producer's.
pub const COMPONENTS: &[&str] = &[
    "arclst", "arldb", "arsrv", "arwadm", "arsched", "arkvd", "arpusub", "arvpn", "ardpx",
    "armail", "aros", "arctl", "arint",
];

/// Whether a name lies in the producer's name space: it starts with `AR` in upper case, or its
/// first component (up to `.`, `-`, `_`, `/` or a blank) is the name of an ARINT component in any
/// case.  `articles.get` is a user's own; see docs/decisions/0003-reserved-names.md.
pub fn is_reserved(name: &str) -> bool {
    if name.starts_with("AR") {
        return true;
    }
    let first = name.split(['.', '-', '_', '/', ' ']).next().unwrap_or_default();
    COMPONENTS.iter().any(|component| component.eq_ignore_ascii_case(first))
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $text:literal;)+) => {
        /// The kinds of objects.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Kind { $($(#[$doc])* $kind,)+ }

        impl Kind {
            /// Every kind, in the order in which dependent objects can be created.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The kind as it is written, for example `SecurityGroup`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $text,)+ }
            }
        }
    };
}

kinds! {
    /// A box of the cluster.
    Node "Node";
    /// What may be done, by name.
    Role "Role";
    /// A person or program that administers.
    User "User";
    /// A user's long-lived key to the admin API.
    Token "Token";
    /// A rate limit under a name, for many.
    QuotaTier "QuotaTier";
    /// Credentials that channels ask for and outgoing connections present.
    Security "Security";
    /// Several securities under one name.
    SecurityGroup "SecurityGroup";
    /// Who may invoke what, on channels that ask for it.
    Grant "Grant";
    /// A file of Python source with services in it.
    Module "Module";
    /// A service found in a module.
    Service "Service";
    /// A door in: what is requested here invokes a service.
    Channel "Channel";
    /// A connection out to another system.
    Outgoing "Outgoing";
    /// An ini file that services read as `self.user_config`.
    UserConfig "UserConfig";
    /// What a box is called and how it keeps time.
    System "System";
    /// The network of a box.
    Network "Network";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = NameError;

    /// Accepts the kind in any case, and its plural (`channels`).
    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = |kind: &&Self| {
            let name = kind.as_str();
            let plural = match name.strip_suffix('y') {
                Some(stem) => format!("{stem}ies"),
                None => format!("{name}s"),
            };
            name.eq_ignore_ascii_case(text) || plural.eq_ignore_ascii_case(text)
        };
        Self::ALL.iter().find(fits).copied().ok_or_else(|| NameError::UnknownKind {
            found: text.to_owned(),
            known: Self::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// A correlation id: 96 random bits in hexadecimal when made here.  It is in every log line, audit
/// entry and error body of a request, and in the header `X-Zato-CID`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Cid(String);

impl Cid {
    /// Makes a new one.
    pub fn random() -> Self {
        use fmt::Write as _;
        let mut bytes = [0u8; 12];
        rand::rng().fill_bytes(&mut bytes);
        let mut text = String::with_capacity(24);
        for byte in bytes {
            // Writing to a String cannot fail.
            write!(text, "{byte:02x}").ok();
        }
        Self(text)
    }

    /// Checks one that came with a request: 8 to 64 letters, digits, `-` or `_`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = (8..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::BadCid(text.escape_debug().to_string()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_producer_are_reserved_and_common_words_are_not() {
        for name in ["ARX", "AR.x", "ARchive", "arsrv", "ArSrv.ping", "ARSRV-x", "arkvd_cache"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["articles.get", "archive", "area-51", "Army", "arsrvx"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn a_kind_is_read_in_any_case_and_in_the_plural() {
        assert_eq!("channels".parse(), Ok(Kind::Channel));
        assert_eq!("securities".parse(), Ok(Kind::Security));
        assert_eq!("SECURITYGROUP".parse(), Ok(Kind::SecurityGroup));
        let refused = "Chanel".parse::<Kind>().unwrap_err().to_string();
        assert_eq!(
            refused,
            "kind `Chanel` is unknown; known kinds are Node, Role, User, Token, QuotaTier, \
             Security, SecurityGroup, Grant, Module, Service, Channel, Outgoing, UserConfig, System, Network"
        );
    }

    #[test]
    fn a_bad_name_is_refused_with_its_fault() {
        assert_eq!(ObjectName::parse(""), Err(NameError::Empty));
        assert_eq!(ObjectName::parse(&"x".repeat(201)), Err(NameError::TooLong(201)));
        assert!(ObjectName::parse("a\nb").is_err());
        assert!(ObjectName::parse(" a").is_err());
        assert!(ObjectName::parse("My Channel/π").is_ok());
    }

    #[test]
    fn a_random_cid_is_96_bits_in_hexadecimal() {
        let cid = Cid::random();
        assert_eq!(cid.as_str().len(), 24);
        assert!(Cid::parse(cid.as_str()).is_ok());
        assert_ne!(cid, Cid::random());
        assert!(Cid::parse("a b").is_err());
    }
}
