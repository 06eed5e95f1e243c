//! Connections out: REST calls on behalf of services, and where databases are.
//!
//! A service says which connection, method, path parameters and body; everything else is owned here: the
//! pool, time limits, retries ([`attempt`]), the circuit breaker ([`breaker`]), health checks ([`health`]), credentials and
//! TLS ([`tls`]).  Addresses are built in [`address`].
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
pub mod health;
pub mod reconcile;
pub mod sql;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use arapi::arsrv::{OutgoingStatus, PingResult};
use arapi::names::ObjectName;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::call::{Answering, Outside, WorkerReply, WorkerRequest};
use connection::{CallError, Rest, RestCall};

/// All connections out, at one revision.  Replaced whole.
#[derive(Debug, Default)]
pub struct Connections {
    /// The connections, by name.
    pub by_name: BTreeMap<ObjectName, Connection>,
}

/// A connection out.
#[derive(Debug, Clone)]
pub enum Connection {
    /// HTTP.
    Rest(Arc<Rest>),
    /// A database.
    Sql(Arc<sql::Sql>),
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

    fn rest(&self, name: &str) -> Result<Arc<Rest>, CallError> {
        match self.connection(name) {
            Some(Connection::Rest(rest)) => Ok(rest),
            Some(Connection::Sql(_)) => Err(CallError::WrongType {
                name: name.to_owned(),
                is: "a database",
                wanted: "a REST connection",
            }),
            None => Err(CallError::NotFound { name: name.to_owned() }),
        }
    }

    fn sql(&self, name: &str) -> Result<Value, CallError> {
        match self.connection(name) {
            Some(Connection::Sql(sql)) => sql.document(),
            Some(Connection::Rest(_)) => Err(CallError::WrongType {
                name: name.to_owned(),
                is: "a REST connection",
                wanted: "a database",
            }),
            None => Err(CallError::NotFound { name: name.to_owned() }),
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
                Connection::Sql(sql) => sql.status(),
            })
            .collect()
    }

    /// Checks one connection now.  None: there is no such connection.
    pub async fn ping(&self, name: &str) -> Option<PingResult> {
        match self.connection(name)? {
            Connection::Rest(rest) => Some(rest.check_health().await),
            Connection::Sql(_) => Some(PingResult {
                ok: false,
                status: None,
                message: format!(
                    "outgoing connection `{name}` is a database, which services open themselves; it cannot be checked from here"
                ),
                elapsed_ms: 0.0,
            }),
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
            "rest_info" => Ok(no_body(self.rest(text("conn"))?.info())),
            "sql" => Ok(no_body(self.sql(text("name"))?)),
            op => Err(CallError::UnknownOp { op: op.to_owned() }),
        }
    }
}

impl Outside for Outgoing {
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
