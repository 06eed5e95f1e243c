//! Credentials: what channels ask for and outgoing connections present.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Broken, RateLimit, Rules, SecretField, yes};
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
        #[serde(default = "yes")]
        is_active: bool,
        /// How much callers with it may do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_limit: Option<RateLimit>,
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
        #[serde(default = "yes")]
        is_active: bool,
        /// How much callers with it may do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_limit: Option<RateLimit>,
    },
    /// A fixed bearer token (RFC 6750).
    Bearer {
        /// The token.
        token: SecretField,
        /// Whether it is used; default true.
        #[serde(default = "yes")]
        is_active: bool,
        /// How much callers with it may do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_limit: Option<RateLimit>,
    },
    /// Tokens of our own, for a user's name and password at `/zato/jwt/log-in`.
    Jwt(JwtSpec),
    /// Tokens of somebody else: JSON Web Tokens of an issuer.
    JwtIssuer(JwtIssuerSpec),
    /// WS-Security: a UsernameToken in SOAP messages.
    Wss(WssSpec),
    /// A client's certificate on channels (mutual TLS).
    TlsChannel(TlsChannelSpec),
    /// A certificate with its key that outgoing connections present (mutual TLS).
    TlsKeyCert(TlsKeyCertSpec),
    /// OAuth 2.0 client credentials (RFC 6749, section 4.4), for outgoing connections.
    Oauth(OauthSpec),
    /// NTLM, for outgoing connections.
    Ntlm(NtlmSpec),
}

/// Tokens of our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSpec {
    /// The user's name.
    pub username: String,
    /// The password; default: a new random UUID.
    #[serde(default)]
    pub password: SecretField,
    /// What tokens are signed with; default: a new random UUID.  A new one takes the place of the old, whose tokens
    /// hold until they end.
    #[serde(default)]
    pub signing_key: SecretField,
    /// How long a token holds, seconds, 1 to 86400; default 3600.
    #[serde(default = "ttl_s")]
    pub ttl_s: u32,
    /// Whether using a token renews it, as in 3.2; default true.
    #[serde(default = "yes")]
    pub renew_on_use: bool,
    /// Seconds after the log-in at which a token ends however often it was renewed, 1 to 2592000; default 86400.
    #[serde(default = "max_age_s")]
    pub max_age_s: u32,
    /// Whether it opens anything; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// How much callers with it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

/// Tokens of an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtIssuerSpec {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must have one of; empty: any.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Where the issuer's keys are, a JSON Web Key Set; absent: `keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// A certificate authority in PEM to trust for `jwks_url` beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_pem: Option<String>,
    /// The issuer's public keys as a JSON Web Key Set; absent: `jwks_url` or `secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// A key shared with the issuer, for `HS256`, `HS384` and `HS512`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretField>,
    /// What tokens may be signed with; default `RS256` and `ES256`.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// How much clocks may differ, seconds, 0 to 600; default 60.
    #[serde(default = "leeway_s")]
    pub leeway_s: u32,
    /// The claim that holds the user's name; default `sub`.
    #[serde(default = "sub")]
    pub username_claim: String,
    /// Further claims with the values they must have; where a token has a list, the value must be in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// Whether it opens anything; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// How much callers with it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

/// How a JSON Web Token is signed (RFC 7518, section 3.1, and RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the algorithms of the RFC by their names")]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl JwtAlgorithm {
    /// Whether both sides have the same key.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// WS-Security UsernameToken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WssSpec {
    /// The user's name.
    pub username: String,
    /// The password; default: a new random UUID.
    #[serde(default)]
    pub password: SecretField,
    /// How the password is sent; default `digest`.
    #[serde(default)]
    pub password_type: WssPassword,
    /// Whether a token without `Nonce` and `Created` is refused; default true.
    #[serde(default = "yes")]
    pub reject_empty_nonce_creat: bool,
    /// How old `Created` may be, seconds, 1 to 86400; default 300.
    #[serde(default = "five_minutes")]
    pub max_age_s: u32,
    /// Whether it opens anything; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// How much callers with it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

/// How a UsernameToken has its password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WssPassword {
    /// As it is.
    Text,
    /// As a digest of nonce, time and password.
    #[default]
    Digest,
}

/// A client's certificate.  Whatever of the fields is given must fit; one at least has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsChannelSpec {
    /// The certificate authority in PEM that must have signed it.  Without it, `fingerprint` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// SHA-256 of the certificate in hexadecimal; colons are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Parts of the subject with the values they must have, for example `CN: crm`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subject: BTreeMap<String, String>,
    /// A name that must be among its alternative names: a DNS name, an address, a mail address or a URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub san: Option<String>,
    /// Whether it opens anything; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// How much callers with it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsKeyCertSpec {
    /// The certificate in PEM, with what leads to its authority behind it.
    pub certificate: SecretField,
    /// The key in PEM, without a password.
    pub key: SecretField,
    /// Whether it is used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
}

/// OAuth 2.0 client credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthSpec {
    /// Where tokens are made.
    pub auth_endpoint: String,
    /// The client's name.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: SecretField,
    /// What the client's name is called in the request; default `client_id`.
    #[serde(default = "client_id_field")]
    pub client_id_field: String,
    /// What its secret is called; default `client_secret`.
    #[serde(default = "client_secret_field")]
    pub client_secret_field: String,
    /// Whether name and secret go in `Authorization: Basic` instead of the request's body; default false.
    #[serde(default)]
    pub use_basic_auth: bool,
    /// Default `client_credentials`.
    #[serde(default = "client_credentials")]
    pub grant_type: String,
    /// The form of the request; default `form`.
    #[serde(default)]
    pub data_format: OauthFormat,
    /// What is asked for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Further fields of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_fields: BTreeMap<String, String>,
    /// A certificate authority in PEM to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_pem: Option<String>,
    /// Whether the endpoint's certificate is checked; default true.
    #[serde(default = "yes")]
    pub validate_tls: bool,
    /// Longest time for one token, milliseconds, 1 to 60000; default 10000.
    #[serde(default = "ten_seconds_ms")]
    pub timeout_ms: u64,
    /// Whether it is used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
}

/// The form of a request for a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OauthFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    #[default]
    Form,
    /// JSON.
    Json,
}

/// NTLM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NtlmSpec {
    /// The user's name, with the domain before a backslash if there is one: `CORP\\anna`.
    pub username: String,
    /// The password.
    pub password: SecretField,
    /// Whether it is used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
}

impl SecuritySpec {
    /// The word for its type in services, as in 3.2.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "basic_auth",
            Self::ApiKey { .. } => "apikey",
            Self::Bearer { .. } => "bearer",
            Self::Jwt(_) | Self::JwtIssuer(_) => "jwt",
            Self::Wss(_) => "wss",
            Self::TlsChannel(_) => "tls_channel_sec",
            Self::TlsKeyCert(_) => "tls_key_cert",
            Self::Oauth(_) => "oauth",
            Self::Ntlm(_) => "ntlm",
        }
    }

    /// Whether channels can ask for it.
    pub fn opens_channels(&self) -> bool {
        match self {
            Self::Basic { .. }
            | Self::ApiKey { .. }
            | Self::Bearer { .. }
            | Self::Jwt(_)
            | Self::JwtIssuer(_)
            | Self::Wss(_)
            | Self::TlsChannel(_) => true,
            Self::TlsKeyCert(_) | Self::Oauth(_) | Self::Ntlm(_) => false,
        }
    }

    /// Whether it is in use.
    pub fn is_active(&self) -> bool {
        match self {
            Self::Basic { is_active, .. }
            | Self::ApiKey { is_active, .. }
            | Self::Bearer { is_active, .. } => *is_active,
            Self::Jwt(spec) => spec.is_active,
            Self::JwtIssuer(spec) => spec.is_active,
            Self::Wss(spec) => spec.is_active,
            Self::TlsChannel(spec) => spec.is_active,
            Self::TlsKeyCert(spec) => spec.is_active,
            Self::Oauth(spec) => spec.is_active,
            Self::Ntlm(spec) => spec.is_active,
        }
    }

    /// How much callers with it may do.
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        match self {
            Self::Basic { rate_limit, .. }
            | Self::ApiKey { rate_limit, .. }
            | Self::Bearer { rate_limit, .. } => rate_limit.as_ref(),
            Self::Jwt(spec) => spec.rate_limit.as_ref(),
            Self::JwtIssuer(spec) => spec.rate_limit.as_ref(),
            Self::Wss(spec) => spec.rate_limit.as_ref(),
            Self::TlsChannel(spec) => spec.rate_limit.as_ref(),
            Self::TlsKeyCert(_) | Self::Oauth(_) | Self::Ntlm(_) => None,
        }
    }

    /// The fields that hold secrets.
    pub fn secrets(&self) -> Vec<&SecretField> {
        match self {
            Self::Basic { password, .. } => vec![password],
            Self::ApiKey { key, .. } => vec![key],
            Self::Bearer { token, .. } => vec![token],
            Self::Jwt(spec) => vec![&spec.password, &spec.signing_key],
            Self::JwtIssuer(spec) => spec.secret.iter().collect(),
            Self::Wss(spec) => vec![&spec.password],
            Self::TlsChannel(_) => Vec::new(),
            Self::TlsKeyCert(spec) => vec![&spec.certificate, &spec.key],
            Self::Oauth(spec) => vec![&spec.client_secret],
            Self::Ntlm(spec) => vec![&spec.password],
        }
    }
}

fn ttl_s() -> u32 {
    3600
}
fn max_age_s() -> u32 {
    86_400
}
fn five_minutes() -> u32 {
    300
}
fn leeway_s() -> u32 {
    60
}
fn sub() -> String {
    "sub".to_owned()
}
fn algorithms() -> Vec<JwtAlgorithm> {
    vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256]
}
fn client_id_field() -> String {
    "client_id".to_owned()
}
fn client_secret_field() -> String {
    "client_secret".to_owned()
}
fn client_credentials() -> String {
    "client_credentials".to_owned()
}
fn ten_seconds_ms() -> u64 {
    10_000
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
            Self::Jwt(spec) => spec.check(),
            Self::JwtIssuer(spec) => spec.check(),
            Self::Wss(spec) if spec.username.is_empty() => {
                Err(("username", "it is empty".to_owned()))
            }
            Self::Wss(spec) => within("max_age_s", spec.max_age_s.into(), 1, 86_400),
            Self::TlsChannel(spec) => spec.check(),
            Self::Oauth(spec) => spec.check(),
            Self::Ntlm(spec) if spec.username.trim_end_matches('\\').is_empty() => {
                Err(("username", "it is empty".to_owned()))
            }
            Self::Basic { .. }
            | Self::ApiKey { .. }
            | Self::Bearer { .. }
            | Self::TlsKeyCert(_)
            | Self::Ntlm(_) => Ok(()),
        }?;
        RateLimit::check(self.rate_limit())
    }

    fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretField)> {
        match self {
            Self::Basic { password, .. } => vec![("password", password)],
            Self::ApiKey { key, .. } => vec![("key", key)],
            Self::Bearer { token, .. } => vec![("token", token)],
            Self::Jwt(spec) => {
                vec![("password", &mut spec.password), ("signing_key", &mut spec.signing_key)]
            }
            Self::JwtIssuer(spec) => {
                spec.secret.iter_mut().map(|field| ("secret", field)).collect()
            }
            Self::Wss(spec) => vec![("password", &mut spec.password)],
            Self::TlsChannel(_) => Vec::new(),
            Self::TlsKeyCert(spec) => {
                vec![("certificate", &mut spec.certificate), ("key", &mut spec.key)]
            }
            Self::Oauth(spec) => vec![("client_secret", &mut spec.client_secret)],
            Self::Ntlm(spec) => vec![("password", &mut spec.password)],
        }
    }

    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        RateLimit::references(self.rate_limit()).collect()
    }
}

fn within(field: &'static str, value: u64, low: u64, high: u64) -> Result<(), Broken> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err((field, format!("{value} is not between {low} and {high}")))
    }
}

/// Checks an address of a server that has no credentials in it.
fn is_url(field: &'static str, url: &str) -> Result<(), Broken> {
    let fits = url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if fits {
        return Ok(());
    }
    let url = url.escape_debug();
    Err((field, format!("`{url}` is not an address that begins with `https://` or `http://`")))
}

impl JwtSpec {
    fn check(&self) -> Result<(), Broken> {
        if self.username.is_empty() {
            return Err(("username", "it is empty".to_owned()));
        }
        within("ttl_s", self.ttl_s.into(), 1, 86_400)?;
        within("max_age_s", self.max_age_s.into(), 1, 2_592_000)
    }
}

impl JwtIssuerSpec {
    fn check(&self) -> Result<(), Broken> {
        if self.issuer.is_empty() {
            return Err(("issuer", "it is empty".to_owned()));
        }
        if self.algorithms.is_empty() {
            return Err(("algorithms", "there is none, so no token could be right".to_owned()));
        }
        let symmetric = self.algorithms.iter().filter(|alg| alg.is_symmetric()).count();
        if symmetric != 0 && symmetric != self.algorithms.len() {
            return Err((
                "algorithms",
                "`HS…` and others cannot be mixed: a public key would count as a shared one"
                    .to_owned(),
            ));
        }
        let sources = [self.jwks_url.is_some(), self.keys.is_some(), self.secret.is_some()];
        if sources.iter().filter(|given| **given).count() != 1 {
            return Err((
                "jwks_url",
                "exactly one of `jwks_url`, `keys` and `secret` was expected".to_owned(),
            ));
        }
        if self.secret.is_some() != (symmetric != 0) {
            return Err((
                "algorithms",
                "`secret` goes with `HS256`, `HS384` and `HS512`, public keys with the others"
                    .to_owned(),
            ));
        }
        if let Some(url) = &self.jwks_url {
            is_url("jwks_url", url)?;
        }
        if let Some(keys) = &self.keys {
            let has_keys = serde_json::from_str::<serde_json::Value>(keys)
                .ok()
                .and_then(|set| set.get("keys")?.as_array().map(|keys| !keys.is_empty()));
            if has_keys != Some(true) {
                return Err(("keys", "a JSON Web Key Set with keys in it was expected".to_owned()));
            }
        }
        if self.username_claim.is_empty() {
            return Err(("username_claim", "it is empty".to_owned()));
        }
        within("leeway_s", self.leeway_s.into(), 0, 600)
    }
}

impl TlsChannelSpec {
    fn check(&self) -> Result<(), Broken> {
        if let Some(pem) = &self.ca_pem
            && !pem.contains("-----BEGIN CERTIFICATE-----")
        {
            return Err(("ca_pem", "there is no `BEGIN CERTIFICATE` in it".to_owned()));
        }
        match &self.fingerprint {
            None if self.ca_pem.is_none() => Err((
                "ca_pem",
                "`ca_pem` or `fingerprint` was expected: anybody can make a certificate with these names"
                    .to_owned(),
            )),
            Some(text) if !is_sha256(text) => Err((
                "fingerprint",
                format!("`{}` is not SHA-256 in hexadecimal", text.escape_debug()),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a text is 32 bytes in hexadecimal, colons apart.
fn is_sha256(text: &str) -> bool {
    let digits = text.bytes().filter(|b| *b != b':');
    digits.clone().count() == 64 && digits.into_iter().all(|b| b.is_ascii_hexdigit())
}

impl OauthSpec {
    fn check(&self) -> Result<(), Broken> {
        is_url("auth_endpoint", &self.auth_endpoint)?;
        if self.client_id.is_empty() {
            return Err(("client_id", "it is empty".to_owned()));
        }
        for (field, value) in [
            ("client_id_field", &self.client_id_field),
            ("client_secret_field", &self.client_secret_field),
            ("grant_type", &self.grant_type),
        ] {
            if value.is_empty() {
                return Err((field, "it is empty".to_owned()));
            }
        }
        within("timeout_ms", self.timeout_ms, 1, 60_000)
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
