//! Objects: whatever an admin configures.
//!
//! An object has a kind, a name, a spec, and a revision.  The spec of each kind is a typed struct;
//! [`Spec::parse`] turns what a person wrote into one and says in one sentence what is wrong with
//! it.  The JSON schema of each is in the OpenAPI document of the admin API.
//!
//! **Invariant:** a secret's value is never part of an object.  A spec holds a [`SecretField`],
//! which names a secret; values travel beside objects, one way.

pub mod access;
pub mod channel;
pub mod limit;
pub mod node;
pub mod outgoing;
pub mod pass_through;
pub mod quality;
pub mod security;
pub mod service;
pub mod system;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{GrantSpec, Permission, RoleSpec, TokenSpec, UserSpec};
pub use channel::{
    ChannelSpec, ChannelType, DataFormat, HttpMethod, ParamsPriority, SoapVersion,
    UrlParamsPriority,
};
pub use limit::{QuotaTierSpec, RateLimit};
pub use node::NodeSpec;
pub use outgoing::{
    OutgoingFiles, OutgoingRest, OutgoingSoap, OutgoingSpec, OutgoingSql, PackageIndexSpec,
    RetryPolicy,
};
pub use pass_through::{ForwardedHeaders, PassThrough};
pub use quality::{Audit, ContentEncoding, Cors, Priority, ResponseCache};
pub use security::{
    JwtAlgorithm, JwtIssuerSpec, JwtSpec, NtlmSpec, OauthFormat, OauthSpec, SecurityGroupSpec,
    SecuritySpec, TlsChannelSpec, TlsKeyCertSpec, WssPassword, WssSpec,
};
pub use service::{
    LockedPackage, ModuleSpec, Requirements, ServiceSpec, UserConfigSpec, is_wheel_name,
};
pub use system::{InterfaceKind, InterfaceSpec, NetworkSpec, SystemSpec};

use crate::names::{Kind, ObjectName};

/// An object as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name, unique within the kind.
    pub name: ObjectName,
    /// What was configured.
    pub spec: Spec,
    /// The store's revision of the last change to this object.
    pub revision: u64,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it was last changed, Unix milliseconds.
    pub changed_ms: u64,
    /// Who changed it last.
    pub changed_by: String,
}

/// A field that holds a secret.  Written as one of
/// `{secret: name}` (a secret kept under that name), `{value: text}` (write-only: the value is moved into a
/// secret of the object's own) or `{generate: uuid4}` (a new random value, shown once in the
/// answer).  Read, it is always `{secret: name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretField {
    /// The secret kept under this name.
    Secret(String),
    /// A value to be kept; never stored or shown in this form.
    Value(SecretText),
    /// A value to be made.
    Generate(Generate),
}

impl Default for SecretField {
    fn default() -> Self {
        Self::Generate(Generate::Uuid4)
    }
}

/// How a secret's value is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Generate {
    /// A random UUID (RFC 9562, version 4) with dashes.
    Uuid4,
}

/// A secret's value.  Its `Debug` prints the type's name only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText")
    }
}

/// Why a spec was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The form is wrong: an unknown or missing field, a wrong type.
    #[error("{kind} `{name}`: field `{path}`: {fault}")]
    Form {
        /// The kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where in the spec, for example `retry.attempts`; `.` is the spec itself.
        path: String,
        /// What was expected.
        fault: String,
    },
    /// The form is right and a rule is broken.
    #[error("{kind} `{name}`: field `{field}`: {rule}")]
    Rule {
        /// The kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
        /// Which field.
        field: &'static str,
        /// The rule with the value found.
        rule: String,
    },
    /// The name belongs to the producer or is no name.
    #[error("{kind} `{name}`: {source}")]
    Name {
        /// The kind of the object.
        kind: Kind,
        /// The name.
        name: String,
        /// What is wrong with it.
        source: crate::names::NameError,
    },
}

/// A broken rule of one field: the field's name and the rule with the value found.
pub type Broken = (&'static str, String);

/// What every kind's spec can do.
trait Rules {
    /// The first broken rule that the types cannot express.
    fn check(&self) -> Result<(), Broken> {
        Ok(())
    }

    /// The fields that hold secrets, with their names.
    fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretField)> {
        Vec::new()
    }

    /// The objects that must exist for this one to be whole.
    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        Vec::new()
    }
}

macro_rules! specs {
    ($($kind:ident($spec:ty),)+) => {
        /// The spec of an object of any kind.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        #[expect(clippy::large_enum_variant, reason = "a spec is kept in one place, behind a pointer; channels are the most of them")]
        pub enum Spec { $(#[doc = concat!("Of a ", stringify!($kind), ".")] $kind($spec),)+ }

        impl Spec {
            /// Turns what was written into the checked spec of `kind`.
            ///
            /// Fails with the path of the first field that is unknown, missing, of a wrong type or
            /// breaks a rule.  `name` is only for the message.
            pub fn parse(kind: Kind, name: &str, written: serde_json::Value) -> Result<Self, SpecError> {
                let form = |err: serde_path_to_error::Error<serde_json::Error>| SpecError::Form {
                    kind,
                    name: name.to_owned(),
                    path: err.path().to_string(),
                    fault: err.into_inner().to_string(),
                };
                let spec = match kind {
                    $(Kind::$kind => Self::$kind(serde_path_to_error::deserialize(written).map_err(form)?),)+
                };
                spec.rules().check().map_err(|(field, rule)| {
                    SpecError::Rule { kind, name: name.to_owned(), field, rule }
                })?;
                Ok(spec)
            }

            /// The kind it is a spec of.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)+ }
            }

            fn rules(&self) -> &dyn Rules {
                match self { $(Self::$kind(spec) => spec,)+ }
            }

            fn rules_mut(&mut self) -> &mut dyn Rules {
                match self { $(Self::$kind(spec) => spec,)+ }
            }
        }

        /// The JSON schema of the spec of `kind`.
        pub fn spec_schema(kind: Kind) -> schemars::Schema {
            match kind { $(Kind::$kind => schemars::schema_for!($spec),)+ }
        }
    };
}

specs! {
    Node(NodeSpec),
    Role(RoleSpec),
    User(UserSpec),
    Token(TokenSpec),
    QuotaTier(QuotaTierSpec),
    Security(SecuritySpec),
    SecurityGroup(SecurityGroupSpec),
    Grant(GrantSpec),
    Module(ModuleSpec),
    Service(ServiceSpec),
    Channel(ChannelSpec),
    Outgoing(OutgoingSpec),
    UserConfig(UserConfigSpec),
    System(SystemSpec),
    Network(NetworkSpec),
}

impl Spec {
    /// The fields that hold secrets, with their names.
    pub fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretField)> {
        self.rules_mut().secrets_mut()
    }

    /// The names of the secrets it refers to.
    pub fn secret_names(&self) -> Vec<String> {
        // Looking is rare and specs are small; one mutable accessor per kind is worth the copy.
        self.clone()
            .secrets_mut()
            .into_iter()
            .filter_map(|(_, field)| match field {
                SecretField::Secret(name) => Some(name.clone()),
                SecretField::Value(_) | SecretField::Generate(_) => None,
            })
            .collect()
    }

    /// The objects that must exist for this one to be whole.  A channel's service is not among
    /// them: a channel may be made before its service is deployed, and answers 404 until then.
    pub fn references(&self) -> Vec<(Kind, &ObjectName)> {
        self.rules().references()
    }

    /// The spec as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        // The specs are plain structs with text keys: this cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            kind: Kind,
            name: ObjectName,
            spec: serde_json::Value,
            revision: u64,
            created_ms: u64,
            changed_ms: u64,
            changed_by: String,
        }
        let wire = Wire::deserialize(deserializer)?;
        let spec = Spec::parse(wire.kind, wire.name.as_str(), wire.spec)
            .map_err(serde::de::Error::custom)?;
        let Wire { kind, name, revision, created_ms, changed_ms, changed_by, .. } = wire;
        Ok(Self { kind, name, spec, revision, created_ms, changed_ms, changed_by })
    }
}

pub(crate) fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
