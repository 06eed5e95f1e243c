//! A real store on a socket in a temporary folder.

use std::path::{Path, PathBuf};

use arapi::arclst::{Change, Client, Committed, Expect, Transaction};
use arapi::objects::SecretText;
use arapi::{ClientError, Kind, ObjectName};
use arbase::Stop;
use arclst::{Config, Server, StartError};
use serde_json::{Value, json};

/// A running store; stopped and removed at the end.
pub(crate) struct Store {
    pub(crate) client: Client,
    pub(crate) dir: tempfile::TempDir,
    stopper: arbase::Stopper,
    running: tokio::task::JoinHandle<()>,
}

impl Store {
    /// A new, empty store.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A new store with a changed config.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(dir, change).await.expect("the store starts")
    }

    /// A store in a folder that may hold one.
    pub(crate) async fn start_in(
        dir: tempfile::TempDir,
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, StartError> {
        let mut config = config_in(dir.path());
        change(&mut config);
        let server = Server::start(config).await?;
        let (stopper, stop) = Stop::new();
        let client = Client::in_runtime_dir(dir.path());
        let running = tokio::spawn(server.run_until(stop));
        Ok(Self { client, dir, stopper, running })
    }

    /// Stops it and gives its folder.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.stopper.stop();
        self.running.await.expect("the store stops");
        self.dir
    }

    /// Stops and starts it.
    pub(crate) async fn restart(self) -> Self {
        Self::start_in(self.stop().await, |_| {}).await.expect("the store starts again")
    }

    /// The file of the database.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("state/objects.sqlite")
    }

    /// Commits changes of the user `anna`.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<Committed, ClientError> {
        self.client.commit(&transaction("user:anna", changes)).await
    }

    /// Commits, and gives the code and the sentence of the refusal.
    pub(crate) async fn refusal(&self, changes: Vec<Change>) -> (String, String) {
        answer_of(self.commit(changes).await.map(drop))
    }
}

/// The config of a store in `dir`.
pub(crate) fn config_in(dir: &Path) -> Config {
    Config {
        runtime_dir: dir.to_owned(),
        state_dir: dir.join("state"),
        node_name: Some(name("box-1")),
        ..Config::default()
    }
}

/// The code and the sentence of an answer that is an error.
pub(crate) fn answer_of<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (String, String) {
    match answer {
        Err(ClientError::Answer { body, .. }) => {
            let code = serde_json::to_value(body.code).expect("a code is a text");
            (code.as_str().unwrap_or_default().to_owned(), body.message)
        }
        other => panic!("a refusal was expected, and this came: {other:?}"),
    }
}

pub(crate) fn transaction(who: &str, changes: Vec<Change>) -> Transaction {
    Transaction { changes, who: who.to_owned(), cid: None, dry_run: false }
}

pub(crate) fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).expect("a name")
}

pub(crate) fn put(kind: Kind, of: &str, spec: Value) -> Change {
    put_if(kind, of, spec, Expect::Any)
}

pub(crate) fn put_if(kind: Kind, of: &str, spec: Value, expect: Expect) -> Change {
    Change::Put { kind, name: name(of), spec, expect }
}

pub(crate) fn delete(kind: Kind, of: &str) -> Change {
    Change::Delete { kind, name: name(of), expect: Expect::Any }
}

pub(crate) fn put_secret(of: &str, value: &str) -> Change {
    Change::PutSecret { name: of.to_owned(), value: SecretText(value.to_owned()) }
}

/// A security whose password is a secret of its own.
pub(crate) fn security(of: &str) -> Change {
    let secret = format!("Security/{of}/password");
    put(
        Kind::Security,
        of,
        json!({"type": "basic", "username": of, "password": {"secret": secret}}),
    )
}

/// A channel that asks for the given securities.
pub(crate) fn channel(of: &str, securities: &[&str]) -> Change {
    put(
        Kind::Channel,
        of,
        json!({"url_path": format!("/{of}"), "service": "s", "security": securities}),
    )
}

/// A small object of no meaning, with a number in it.
pub(crate) fn counter(of: &str, value: u64) -> Change {
    counter_if(of, value, Expect::Any)
}

pub(crate) fn counter_if(of: &str, value: u64, expect: Expect) -> Change {
    put_if(Kind::UserConfig, of, json!({"sections": {"n": {"n": value.to_string()}}}), expect)
}
