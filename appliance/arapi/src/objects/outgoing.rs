//! Outgoing connections: the doors out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::channel::{DataFormat, HttpMethod, check_path};
use super::{Broken, Rules, SecretField, yes};
use crate::names::{Kind, ObjectName};

/// A connection out to another system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutgoingSpec {
    /// HTTP, `self.out.rest[name]`.
    Rest(OutgoingRest),
    /// SOAP over HTTP, `self.out.soap[name]`.
    Soap(Box<OutgoingSoap>),
    /// A database, `self.out.sql[name]`.
    Sql(OutgoingSql),
    /// A folder on the box, `self.out.files[name]`.
    Files(OutgoingFiles),
    /// An index of Python packages, for deployments with a `requirements.txt`.
    PackageIndex(PackageIndexSpec),
}

/// A folder on the box's data partition that services read and write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutgoingFiles {
    /// The folder, relative to the box's folder of files (`files_dir` of the core); default: the connection's name.
    /// Connections may share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Whether services may only read; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Largest file that services write, bytes, 1 to 1 TiB; default 1 GiB.
    #[serde(default = "max_file_bytes")]
    pub max_file_bytes: u64,
    /// Whether it may be used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
}

fn max_file_bytes() -> u64 {
    1 << 30
}

impl OutgoingFiles {
    /// The folder of the connection `name`.
    pub fn folder<'a>(&'a self, name: &'a str) -> &'a str {
        self.folder.as_deref().unwrap_or(name)
    }

    fn check(&self) -> Result<(), Broken> {
        let is_name =
            |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
        if let Some(folder) = &self.folder
            && (folder.len() > 255 || !folder.split('/').all(is_name))
        {
            return Err((
                "folder",
                format!(
                    "`{}` is no folder within the box's folder of files: names joined by `/` were expected, for example `invoices/in`",
                    folder.escape_debug()
                ),
            ));
        }
        within("max_file_bytes", self.max_file_bytes, 1, 1 << 40)
    }
}

/// An index of Python packages (PEP 503), from which deployments take what was not uploaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageIndexSpec {
    /// The address of the index, for example `https://packages.example.com/simple`.
    pub address: String,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretField>,
    /// A certificate authority in PEM to trust instead of those that come with pip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_pem: Option<String>,
    /// Whether it may be used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
}

impl PackageIndexSpec {
    fn check(&self) -> Result<(), Broken> {
        let uri = self.address.parse::<http::Uri>().ok();
        let fits = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.query().is_none()
        });
        if !fits || self.address.bytes().any(|b| b.is_ascii_whitespace() || b == b'%') {
            return Err((
                "address",
                format!(
                    "`{}` is not the address of an index: something like `https://packages.example.com/simple` was expected (credentials go into `username` and `password`)",
                    self.address.escape_debug()
                ),
            ));
        }
        if self.password.is_some() != self.username.is_some() {
            return Err(("password", "`username` and `password` go together".to_owned()));
        }
        Ok(())
    }
}

/// An outgoing REST connection.  The core owns its pool, time limits, retries, circuit breaker,
/// health and credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutgoingRest {
    /// Scheme, host and port, for example `https://crm.example.com:8443`.
    pub host: String,
    /// The path behind it; `{name}` stands for a part that the service gives as a parameter.  Default `/`.
    #[serde(default = "slash")]
    pub url_path: String,
    /// Whether it may be used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// The form of requests and responses; default `json`.
    #[serde(default = "json")]
    pub data_format: DataFormat,
    /// `Content-Type` of requests; default: that of the data format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The credentials it presents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<ObjectName>,
    /// The certificate it presents beside them: a security of type `tls_key_cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client: Option<ObjectName>,
    /// The method of the health check; default `HEAD`.
    #[serde(default = "head")]
    pub ping_method: HttpMethod,
    /// The path of the health check; default: `url_path` if it has no parameters, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_path: Option<String>,
    /// Seconds between health checks, 0 (none) to 86400; default 60.
    #[serde(default = "ping_interval_s")]
    pub ping_interval_s: u32,
    /// Most connections kept open when idle, 1 to 1000; default 20.
    #[serde(default = "pool_size")]
    pub pool_size: u32,
    /// Longest time for one attempt, milliseconds, 1 to 3600000; default 10000.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Longest time to connect, milliseconds, 1 to 60000; default 5000.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Whether the server's certificate is checked; default true.
    #[serde(default = "yes")]
    pub validate_tls: bool,
    /// A certificate authority in PEM to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_pem: Option<String>,
    /// Largest response body, bytes; default 64 MiB.
    #[serde(default = "max_response_bytes")]
    pub max_response_bytes: u64,
    /// When a failed call is tried again.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// When calls are refused at once because the other side has failed too often.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
}

/// An outgoing SOAP connection.  Envelopes are made in the worker, from the WSDL; the core owns the rest, as for REST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutgoingSoap {
    /// Scheme, host and port, for example `https://crm.example.com:8443`.
    pub host: String,
    /// The path that envelopes are posted to; default `/`.
    #[serde(default = "slash")]
    pub url_path: String,
    /// The WSDL as text, for servers that show none; what it imports is then to be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wsdl: Option<String>,
    /// The path of the WSDL on the same host; default: `url_path` with `?wsdl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wsdl_path: Option<String>,
    /// Whether it may be used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// The credentials it presents: those of HTTP, or a UsernameToken (a security of type `wss`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<ObjectName>,
    /// The certificate it presents beside them: a security of type `tls_key_cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client: Option<ObjectName>,
    /// Seconds between health checks, 0 (none) to 86400; default 60.
    #[serde(default = "ping_interval_s")]
    pub ping_interval_s: u32,
    /// Most connections kept open when idle, 1 to 1000; default 20.
    #[serde(default = "pool_size")]
    pub pool_size: u32,
    /// Longest time for one attempt, milliseconds, 1 to 3600000; default 10000.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Longest time to connect, milliseconds, 1 to 60000; default 5000.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Whether the server's certificate is checked; default true.
    #[serde(default = "yes")]
    pub validate_tls: bool,
    /// A certificate authority in PEM to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_pem: Option<String>,
    /// Largest response body, bytes; default 64 MiB.
    #[serde(default = "max_response_bytes")]
    pub max_response_bytes: u64,
    /// When a failed call is tried again.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// When calls are refused at once because the other side has failed too often.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
}

impl OutgoingSoap {
    /// Longest WSDL, in bytes.
    pub const MAX_WSDL: usize = 4 * 1024 * 1024;

    /// The HTTP connection that it is.
    pub fn as_rest(&self) -> OutgoingRest {
        OutgoingRest {
            host: self.host.clone(),
            url_path: self.url_path.clone(),
            is_active: self.is_active,
            data_format: DataFormat::None,
            content_type: None,
            security: self.security.clone(),
            tls_client: self.tls_client.clone(),
            ping_method: HttpMethod::Head,
            ping_path: None,
            ping_interval_s: self.ping_interval_s,
            pool_size: self.pool_size,
            timeout_ms: self.timeout_ms,
            connect_timeout_ms: self.connect_timeout_ms,
            validate_tls: self.validate_tls,
            tls_ca_pem: self.tls_ca_pem.clone(),
            max_response_bytes: self.max_response_bytes,
            retry: self.retry.clone(),
            circuit_breaker: self.circuit_breaker.clone(),
        }
    }

    /// Where the WSDL is, below the host.
    pub fn wsdl_path(&self) -> String {
        self.wsdl_path.clone().unwrap_or_else(|| format!("{}?wsdl", self.url_path))
    }

    fn check(&self) -> Result<(), Broken> {
        self.as_rest().check()?;
        if self.url_path.contains(['{', '?']) {
            return Err((
                "url_path",
                "a SOAP connection's path has neither parameters nor a query".to_owned(),
            ));
        }
        if !self.wsdl_path().starts_with('/') {
            return Err((
                "wsdl_path",
                "a path on the connection's host was expected, beginning with `/`".to_owned(),
            ));
        }
        if self.wsdl.as_ref().is_some_and(|text| text.len() > Self::MAX_WSDL) {
            return Err((
                "wsdl",
                format!("it is longer than the {} bytes allowed", Self::MAX_WSDL),
            ));
        }
        Ok(())
    }
}

/// When a failed call is tried again.  A request that may have reached the other side is only
/// repeated where its method is idempotent (RFC 9110, section 9.2.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, 1 to 10; default 3.
    pub attempts: u32,
    /// Wait before the second attempt, milliseconds, 0 to 60000; doubled for each further one, with full jitter.  Default 100.
    pub backoff_ms: u64,
    /// Longest such wait, milliseconds; default 5000.
    pub max_backoff_ms: u64,
    /// Response codes that count as failed; default 502, 503, 504.
    pub on_status: Vec<u16>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 3, backoff_ms: 100, max_backoff_ms: 5000, on_status: vec![502, 503, 504] }
    }
}

/// When calls are refused at once because the other side has failed too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Failures in a row that open it, 0 (never) to 10000; default 20.
    pub failures: u32,
    /// How long it stays open before one call is let through to try, milliseconds; default 10000.
    pub open_ms: u64,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failures: 20, open_ms: 10_000 }
    }
}

fn slash() -> String {
    "/".to_owned()
}
fn json() -> DataFormat {
    DataFormat::Json
}
fn head() -> HttpMethod {
    HttpMethod::Head
}
fn ping_interval_s() -> u32 {
    60
}
fn pool_size() -> u32 {
    20
}
fn timeout_ms() -> u64 {
    10_000
}
fn connect_timeout_ms() -> u64 {
    5000
}
fn max_response_bytes() -> u64 {
    64 * 1024 * 1024
}

/// A database connection that services use through SQLAlchemy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutgoingSql {
    /// SQLAlchemy's name of the database, with a driver or without: `postgresql`, `mysql`, `mariadb` and `sqlite` work as
    /// they are, `postgresql+psycopg` needs that package.
    pub engine: String,
    /// The host; absent for SQLite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port; default: the engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The database, or the file for SQLite.
    pub db_name: String,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretField>,
    /// Whether it may be used; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// Most connections per worker, 1 to 100; default 5.
    #[serde(default = "sql_pool_size")]
    pub pool_size: u32,
    /// Longest time for which a service waits for a connection of a full pool, milliseconds, 1 to 600000; default 30000.
    #[serde(default = "sql_pool_timeout_ms")]
    pub pool_timeout_ms: u64,
    /// Seconds between checks by the workers that use it, 0 (none) to 86400; default 60.
    #[serde(default = "ping_interval_s")]
    pub ping_interval_s: u32,
}

fn sql_pool_timeout_ms() -> u64 {
    30_000
}

impl OutgoingSql {
    fn check(&self) -> Result<(), Broken> {
        let is_engine = |c: char| c.is_ascii_alphanumeric() || "_+.".contains(c);
        if self.engine.is_empty() || !self.engine.chars().all(is_engine) {
            return Err((
                "engine",
                format!(
                    "`{}` is not SQLAlchemy's name of a database: something like `postgresql`, `mysql+pymysql` or `sqlite` was expected",
                    self.engine.escape_debug()
                ),
            ));
        }
        within("pool_size", self.pool_size.into(), 1, 100)?;
        within("pool_timeout_ms", self.pool_timeout_ms, 1, 600_000)?;
        within("ping_interval_s", self.ping_interval_s.into(), 0, 86_400)
    }
}

fn sql_pool_size() -> u32 {
    5
}

impl OutgoingSpec {
    /// Whether it may be used.
    pub fn is_active(&self) -> bool {
        match self {
            Self::Rest(rest) => rest.is_active,
            Self::Soap(soap) => soap.is_active,
            Self::Sql(sql) => sql.is_active,
            Self::Files(files) => files.is_active,
            Self::PackageIndex(index) => index.is_active,
        }
    }
}

fn within(field: &'static str, value: u64, low: u64, high: u64) -> Result<(), Broken> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err((field, format!("{value} is not between {low} and {high}")))
    }
}

impl Rules for OutgoingSpec {
    fn check(&self) -> Result<(), Broken> {
        match self {
            Self::Rest(rest) => rest.check(),
            Self::Soap(soap) => soap.check(),
            Self::Sql(sql) => sql.check(),
            Self::Files(files) => files.check(),
            Self::PackageIndex(index) => index.check(),
        }
    }

    fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretField)> {
        match self {
            Self::Rest(_) | Self::Soap(_) | Self::Files(_) => Vec::new(),
            Self::Sql(OutgoingSql { password, .. })
            | Self::PackageIndex(PackageIndexSpec { password, .. }) => {
                password.iter_mut().map(|field| ("password", field)).collect()
            }
        }
    }

    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        match self {
            Self::Rest(rest) => {
                let names = rest.security.iter().chain(&rest.tls_client);
                names.map(|name| (Kind::Security, name)).collect()
            }
            Self::Soap(soap) => {
                let names = soap.security.iter().chain(&soap.tls_client);
                names.map(|name| (Kind::Security, name)).collect()
            }
            Self::Sql(_) | Self::Files(_) | Self::PackageIndex(_) => Vec::new(),
        }
    }
}

impl OutgoingRest {
    fn check(&self) -> Result<(), Broken> {
        let host = self
            .host
            .parse::<http::Uri>()
            .ok()
            .filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")))
            .filter(|uri| uri.host().is_some_and(|host| !host.is_empty()))
            .filter(|uri| matches!(uri.path(), "" | "/") && uri.query().is_none())
            .filter(|uri| {
                uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            });
        if host.is_none() {
            return Err((
                "host",
                format!(
                    "`{}` is not a scheme, host and port: something like `https://crm.example.com:8443` was expected (paths go into `url_path`, credentials into `security`)",
                    self.host.escape_debug()
                ),
            ));
        }
        let path = self.url_path.split('?').next().unwrap_or_default();
        check_path(path).map_err(|rule| ("url_path", rule))?;
        within("pool_size", self.pool_size.into(), 1, 1000)?;
        within("timeout_ms", self.timeout_ms, 1, 3_600_000)?;
        within("connect_timeout_ms", self.connect_timeout_ms, 1, 60_000)?;
        within("ping_interval_s", self.ping_interval_s.into(), 0, 86_400)?;
        within("retry.attempts", self.retry.attempts.into(), 1, 10)?;
        within("retry.backoff_ms", self.retry.backoff_ms, 0, 60_000)?;
        within("circuit_breaker.failures", self.circuit_breaker.failures.into(), 0, 10_000)
    }
}
