//! The object store of ARCLST, as the other services see it.
//!
//! A change is a [`Transaction`]: accepted whole or not at all.  Every service watches the kinds it
//! needs ([`Client::watch`]) and reconciles.

use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{ClientError, Lines, UnixClient, path_part};
use crate::names::{Kind, ObjectName};
use crate::objects::{Object, SecretText};

/// What a change is based on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Whatever is there.
    #[default]
    Any,
    /// Nothing is there.
    Absent,
    /// The object is at this revision.
    Revision(u64),
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Makes or replaces an object.  Its spec holds no secret values, only names of secrets.
    Put {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// The spec as written; checked by the store.
        spec: serde_json::Value,
        /// What it is based on.
        #[serde(default)]
        expect: Expect,
    },
    /// Removes an object; its secrets (`<Kind>/<name>/…`) go with it.
    Delete {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// What it is based on; `Absent` makes no sense and is refused.
        #[serde(default)]
        expect: Expect,
    },
    /// Keeps a secret under a name, encrypted.
    PutSecret {
        /// `<Kind>/<object>/<field>` for an object's own, any other text for a shared one.
        name: String,
        /// The value.
        value: SecretText,
    },
    /// Removes a secret.
    DeleteSecret {
        /// Its name.
        name: String,
    },
}

/// Changes that are accepted only whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// The changes, applied in order.
    pub changes: Vec<Change>,
    /// Who, for the objects and the history: `user:anna`, `pickup`, `first-run`.
    pub who: String,
    /// The request it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Check everything, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// The store's revision after it; the same as before where nothing changed.
    pub revision: u64,
    /// What changed, in the order of the transaction; a put that changes nothing is left out.
    pub changes: Vec<ObjectChange>,
}

/// An object before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectChange {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: ObjectName,
    /// Before; absent if it was made.
    pub before: Option<Object>,
    /// After; absent if it was removed.
    pub after: Option<Object>,
}

/// Objects at one revision of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The store's revision.
    pub revision: u64,
    /// The objects, by kind and name.
    pub objects: Vec<Object>,
}

/// What a watch brings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchEvent {
    /// Everything there is of the watched kinds.  The first event, and again when changes may have
    /// been missed: what is not in it does not exist.  Secrets may have changed unseen as well: their
    /// readers read them again.
    Snapshot(Listing),
    /// One committed transaction.  Also sent, empty, for revisions that changed no watched kind, so
    /// that a watcher knows how far it has seen.
    Commit {
        /// The store's revision.
        revision: u64,
        /// Kind, name and the object as it is now (absent: removed).
        changes: Vec<WatchChange>,
        /// Names of secrets that changed; their readers read them again.
        #[serde(default)]
        secrets: Vec<String>,
    },
}

/// One object in a [`WatchEvent::Commit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchChange {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: ObjectName,
    /// As it is now; absent: removed.
    pub object: Option<Object>,
}

/// One entry of an object's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The store's revision.
    pub revision: u64,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// Who.
    pub who: String,
    /// The request it came with.
    pub cid: Option<String>,
    /// The object after it; absent: removed.
    pub object: Option<Object>,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The cluster's id.
    pub cluster: String,
    /// This box's name.
    pub node: String,
    /// The store's revision.
    pub revision: u64,
    /// How many objects there are.
    pub objects: u64,
    /// Whether changes can be accepted now.
    pub writable: bool,
    /// Why not, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A secret with its value; only between services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: SecretText,
}

/// Calls `arclst` over its socket.
#[derive(Debug, Clone)]
pub struct Client(pub UnixClient);

impl Client {
    /// A client at the socket `arclst.sock` of the runtime folder.
    pub fn in_runtime_dir(dir: &std::path::Path) -> Self {
        Self(UnixClient::new("arclst", dir.join("arclst.sock")))
    }

    /// `GET /v1/objects[?kind=K]`: the objects of one kind, or all.
    pub async fn list(&self, kind: Option<Kind>) -> Result<Listing, ClientError> {
        match kind {
            Some(kind) => self.0.get(&format!("/v1/objects?kind={kind}")).await,
            None => self.0.get("/v1/objects").await,
        }
    }

    /// `GET /v1/objects/{kind}/{name}`: one object; fails with code `not_found`.
    pub async fn object(&self, kind: Kind, name: &str) -> Result<Object, ClientError> {
        self.0.get(&format!("/v1/objects/{kind}/{}", path_part(name))).await
    }

    /// `POST /v1/transactions`: commits, after it is on disk.
    pub async fn commit(&self, transaction: &Transaction) -> Result<Committed, ClientError> {
        self.0.post("/v1/transactions", transaction).await
    }

    /// `GET /v1/history/{kind}/{name}`: newest first, at most `most` entries.
    pub async fn history(
        &self,
        kind: Kind,
        name: &str,
        most: u32,
    ) -> Result<Vec<HistoryEntry>, ClientError> {
        self.0.get(&format!("/v1/history/{kind}/{}?most={most}", path_part(name))).await
    }

    /// `GET /v1/secrets`: the names of the secrets.
    pub async fn secret_names(&self) -> Result<Vec<String>, ClientError> {
        self.0.get("/v1/secrets").await
    }

    /// `GET /v1/secrets/{name}`: a secret's value; fails with code `not_found`.
    pub async fn secret(&self, name: &str) -> Result<SecretText, ClientError> {
        let found: SecretValue = self.0.get(&format!("/v1/secrets/{}", path_part(name))).await?;
        Ok(found.value)
    }

    /// `GET /v1/watch?kinds=A,B`: a snapshot, then every commit.  The stream ends when the store
    /// stops; open it again then.
    pub async fn watch(&self, kinds: &[Kind]) -> Result<Lines<WatchEvent>, ClientError> {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        self.0.stream(&format!("/v1/watch?kinds={}", kinds.join(","))).await
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.0.get("/v1/status").await
    }

    /// Calls any path, for example `/v1/logs`.
    pub async fn raw(&self, method: Method, path: &str) -> Result<serde_json::Value, ClientError> {
        self.0.call::<(), _>(method, path, None).await
    }
}
