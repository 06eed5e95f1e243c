//! Connections out: REST calls on behalf of services, folders of files ([`files`]), and where databases are.
//!
//! A service says which connection, method, path parameters and body; everything else is owned here: the
//! pool, time limits, retries ([`attempt`]), the circuit breaker ([`breaker`]), health checks ([`health`]), TLS ([`tls`]) and
//! credentials, of which tokens are made in [`oauth`] and NTLM is spoken by [`ntlm`] over [`lane`]s.  Requests of channels go
//! through as they are ([`passing`]).  Addresses are built in [`address`].
//!
//! There is no limit on how many calls are under way on a connection: services limit themselves.  No
//! proxy is taken from the environment.
//!
//! **Invariant:** a connection is rebuilt only when its object, its security or their secrets changed, and
//! calls under way end on the one they began with.

pub mod address;
pub mod attempt;
pub mod breaker;
pub mod connection;
pub mod download;
pub mod files;
pub mod health;
pub mod index;
pub mod lane;
pub mod ntlm;
pub mod oauth;
pub mod passing;
pub mod reconcile;
pub mod soap;
pub mod sql;
pub mod tls;
pub mod upload;
pub mod way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arapi::arsrv::{OutgoingStatus, PingResult};
use arapi::names::ObjectName;
use arapi::objects::SecretText;
use bytes::Bytes;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::call::{Answering, Outside, WorkerReply, WorkerRequest};
use connection::{CallError, Rest, RestCall};

/// All connections out, at one revision.  Replaced whole.
#[derive(Debug, Default)]
pub struct Connections {
    /// The connections, by name.
    pub by_name: BTreeMap<ObjectName, Connection>,
    /// Where tokens come from, by security.
    pub tokens: BTreeMap<ObjectName, Tokens>,
}

/// Where the tokens of a security come from.
#[derive(Debug, Clone)]
pub enum Tokens {
    /// They are made.
    Made(Arc<oauth::TokenSource>),
    /// There is one; None: it is not known now, or switched off.
    Fixed(Option<SecretText>),
}

/// A connection out.
#[derive(Debug, Clone)]
pub enum Connection {
    /// HTTP.
    Rest(Arc<Rest>),
    /// SOAP over HTTP.
    Soap(Arc<soap::Soap>),
    /// A database.
    Sql(Arc<sql::Sql>),
    /// A folder.
    Files(Arc<files::Files>),
    /// An index of Python packages.
    Index(Arc<index::Index>),
}

impl Connection {
    /// What it is, in words.
    fn is(&self) -> &'static str {
        match self {
            Self::Rest(_) => "a REST connection",
            Self::Soap(_) => "a SOAP connection",
            Self::Sql(_) => "a database",
            Self::Files(_) => "a folder of files",
            Self::Index(_) => "an index of packages",
        }
    }
}

/// Answers what services want of the outside.  Clones are the same.
#[derive(Debug, Clone)]
pub struct Outgoing(watch::Receiver<Arc<Connections>>);

impl Outgoing {
    /// On top of what a reconciler publishes.
    pub fn of(connections: watch::Receiver<Arc<Connections>>) -> Self {
        Self(connections)
    }

    fn connection(&self, name: &str) -> Option<Connection> {
        self.0.borrow().by_name.get(name).cloned()
    }

    /// A REST connection.
    pub fn rest(&self, name: &str) -> Result<Arc<Rest>, CallError> {
        match self.connection(name) {
            Some(Connection::Rest(rest)) => Ok(rest),
            Some(other) => Err(CallError::WrongType {
                name: name.to_owned(),
                is: other.is(),
                wanted: "a REST connection",
            }),
            None => Err(CallError::NotFound { name: name.to_owned() }),
        }
    }

    fn soap(&self, name: &str) -> Result<Arc<soap::Soap>, CallError> {
        match self.connection(name) {
            Some(Connection::Soap(soap)) => Ok(soap),
            Some(other) => Err(CallError::WrongType {
                name: name.to_owned(),
                is: other.is(),
                wanted: "a SOAP connection",
            }),
            None => Err(CallError::NotFound { name: name.to_owned() }),
        }
    }

    fn sql(&self, name: &str) -> Result<Value, CallError> {
        match self.connection(name) {
            Some(Connection::Sql(sql)) => sql.document(),
            Some(other) => Err(CallError::WrongType {
                name: name.to_owned(),
                is: other.is(),
                wanted: "a database",
            }),
            None => Err(CallError::NotFound { name: name.to_owned() }),
        }
    }

    fn files(&self, name: &str) -> Result<Arc<files::Files>, CallError> {
        match self.connection(name) {
            Some(Connection::Files(files)) => Ok(files),
            Some(other) => Err(CallError::WrongType {
                name: name.to_owned(),
                is: other.is(),
                wanted: "a folder of files",
            }),
            None => Err(CallError::NotFound { name: name.to_owned() }),
        }
    }

    /// Takes what a worker says of its pools of databases; answers which of them it is to check, and which are no
    /// connections any more.
    fn reported(&self, meta: &Value) -> Value {
        let worker = meta.get("worker").and_then(Value::as_str).unwrap_or_default();
        let (mut check, mut gone) = (Vec::new(), Vec::new());
        for (name, report) in meta.get("pools").and_then(Value::as_object).into_iter().flatten() {
            match (self.connection(name), sql::Report::deserialize(report)) {
                (Some(Connection::Sql(sql)), Ok(report)) if sql.spec.is_active => {
                    if sql.take(worker, report) {
                        check.push(name);
                    }
                }
                (Some(Connection::Sql(sql)), Err(err)) if sql.spec.is_active => {
                    log::debug!(worker, connection = name.as_str(), error:% = err; "a worker's report cannot be read");
                }
                _ => gone.push(name),
            }
        }
        json!({"check": check, "gone": gone})
    }

    /// A bearer token for calls that services make themselves.
    async fn bearer_token(
        &self,
        name: &str,
        scopes: Option<&[String]>,
    ) -> Result<Value, CallError> {
        let found = self.0.borrow().tokens.get(name).cloned();
        let name = || name.to_owned();
        match found {
            Some(Tokens::Made(source)) => {
                let made = source.token(scopes).await?;
                let left = made.left().map(|left| left.as_secs());
                Ok(json!({"token": made.token, "token_type": "Bearer", "expires_in": left}))
            }
            Some(Tokens::Fixed(Some(token))) => {
                Ok(json!({"token": token, "token_type": "Bearer", "expires_in": null}))
            }
            Some(Tokens::Fixed(None)) => Err(CallError::SecretUnknown { name: name() }),
            None => Err(CallError::NoSecurity { name: name() }),
        }
    }

    /// How the connections are, by name.
    pub fn status(&self) -> Vec<OutgoingStatus> {
        let connections = Arc::clone(&self.0.borrow());
        connections
            .by_name
            .values()
            .map(|connection| match connection {
                Connection::Rest(rest) => rest.status(),
                Connection::Soap(soap) => soap.rest.status(),
                Connection::Sql(sql) => sql.status(),
                Connection::Files(files) => files.status(),
                Connection::Index(index) => index.status(),
            })
            .collect()
    }

    /// Sends something of the core's own over a REST connection: `path` is behind the connection's.
    pub async fn post(
        &self,
        name: &str,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        limit: Duration,
    ) -> Result<WorkerReply, CallError> {
        let rest = self.rest(name)?;
        let call = RestCall::own(&rest, path, content_type, body, limit)?;
        rest.call(call).await
    }

    /// Checks one connection now.  None: there is no such connection.
    pub async fn ping(&self, name: &str) -> Option<PingResult> {
        match self.connection(name)? {
            Connection::Rest(rest) => Some(rest.check_health().await),
            Connection::Soap(soap) => Some(soap.rest.check_health().await),
            Connection::Sql(sql) => Some(sql.ping().await),
            Connection::Files(files) => Some(files.ping().await),
            Connection::Index(index) => Some(index.ping()),
        }
    }

    async fn answer(&self, request: WorkerRequest) -> Result<WorkerReply, CallError> {
        let text = |key: &str| request.meta.get(key).and_then(Value::as_str).unwrap_or_default();
        let no_body = |meta| WorkerReply { meta, body: Bytes::new() };
        match text("op") {
            "rest" => {
                let rest = self.rest(text("conn"))?;
                let call = RestCall::parse(&rest, &request)?;
                rest.call(call).await
            }
            "rest_ping" => {
                self.rest(text("conn"))?.ping(request.deadline, Some(&request.cid)).await
            }
            "soap" => Ok(no_body(self.soap(text("name"))?.document()?)),
            "soap_ping" => {
                let soap = self.soap(text("conn"))?;
                soap.rest.ping(request.deadline, Some(&request.cid)).await
            }
            "soap_load" => self.soap(text("conn"))?.load(&request).await,
            "soap_post" => {
                let soap = self.soap(text("conn"))?;
                soap.post(request).await
            }
            "rest_info" => Ok(no_body(self.rest(text("conn"))?.info())),
            "files" => self.files(text("conn"))?.answer(request).await,
            "sql" => Ok(no_body(self.sql(text("name"))?)),
            "sql_report" => Ok(no_body(self.reported(&request.meta))),
            "bearer_token" => {
                let scopes = connection::scopes(&request.meta);
                let making = self.bearer_token(text("name"), scopes.as_deref());
                let left = request.deadline.saturating_duration_since(std::time::Instant::now());
                match tokio::time::timeout(left, making).await {
                    Ok(made) => Ok(no_body(made?)),
                    Err(_) => Err(CallError::Timeout {
                        name: text("name").to_owned(),
                        address: "its endpoint".to_owned(),
                        limit: left,
                        attempts: 1,
                    }),
                }
            }
            op => Err(CallError::UnknownOp { op: op.to_owned() }),
        }
    }
}

impl Outside for Outgoing {
    fn indexes(&self) -> Vec<Arc<index::Index>> {
        let connections = Arc::clone(&self.0.borrow());
        let indexes = connections.by_name.values().filter_map(|connection| match connection {
            Connection::Index(index) if index.spec.is_active => Some(Arc::clone(index)),
            _ => None,
        });
        indexes.collect()
    }

    fn answer(&self, request: WorkerRequest) -> Answering<'_> {
        Box::pin(async move {
            match Self::answer(self, request).await {
                Ok(reply) => reply,
                Err(err) => WorkerReply {
                    meta: json!({"error": {
                        "type": err.type_name(),
                        "message": arbase::Chain(&err).to_string(),
                    }}),
                    body: Bytes::new(),
                },
            }
        })
    }
}
