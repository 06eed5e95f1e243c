//! An object store in miniature: keeps objects and secrets in memory and speaks the real protocol.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arapi::arclst::{Listing, SecretValue, WatchChange, WatchEvent};
use arapi::error::{ErrorBody, ErrorCode};
use arapi::names::{Kind, ObjectName};
use arapi::objects::SecretText;
use arapi::{Object, Spec};
use axum::extract::{Path as UrlPath, State};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::broadcast;

/// The store; clones are the same.
#[derive(Clone)]
pub(crate) struct Store(Arc<Mutex<Inner>>);

struct Inner {
    revision: u64,
    objects: BTreeMap<(Kind, ObjectName), Object>,
    secrets: BTreeMap<String, String>,
    are_secrets_away: bool,
    events: broadcast::Sender<WatchEvent>,
}

fn object(kind: Kind, name: &str, spec: Value, revision: u64) -> Object {
    Object {
        kind,
        name: ObjectName::parse(name).unwrap(),
        spec: Spec::parse(kind, name, spec).unwrap(),
        revision,
        created_ms: 1,
        changed_ms: 1,
        changed_by: "test".to_owned(),
    }
}

impl Store {
    pub(crate) fn of(objects: &[(Kind, String, Value)], secrets: &[(String, String)]) -> Self {
        let objects = objects.iter().map(|(kind, name, spec)| {
            let object = object(*kind, name, spec.clone(), 1);
            ((*kind, object.name.clone()), object)
        });
        Self(Arc::new(Mutex::new(Inner {
            revision: 1,
            objects: objects.collect(),
            secrets: secrets.iter().cloned().collect(),
            are_secrets_away: false,
            events: broadcast::channel(1000).0,
        })))
    }

    /// Serves in a folder.
    pub(crate) fn listen(&self, dir: &Path) {
        let listener = arbase::http::listen_unix(&dir.join("arclst.sock"), 0o600).unwrap();
        let router = axum::Router::new()
            .route("/v1/watch", axum::routing::get(watch))
            .route("/v1/secrets/{name}", axum::routing::get(secret))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// Makes or replaces an object; gives the revision.
    pub(crate) fn put(&self, kind: Kind, name: &str, spec: Value) -> u64 {
        let mut inner = self.0.lock().unwrap();
        let object = object(kind, name, spec, inner.revision + 1);
        inner.objects.insert((kind, object.name.clone()), object.clone());
        let change = WatchChange { kind, name: object.name.clone(), object: Some(object) };
        inner.commit(vec![change], Vec::new())
    }

    pub(crate) fn delete(&self, kind: Kind, name: &str) -> u64 {
        let mut inner = self.0.lock().unwrap();
        let name = ObjectName::parse(name).unwrap();
        inner.objects.remove(&(kind, name.clone()));
        inner.commit(vec![WatchChange { kind, name, object: None }], Vec::new())
    }

    pub(crate) fn put_secret(&self, name: &str, value: &str) -> u64 {
        let mut inner = self.0.lock().unwrap();
        inner.secrets.insert(name.to_owned(), value.to_owned());
        inner.commit(Vec::new(), vec![name.to_owned()])
    }

    /// Whether secrets can be read.
    pub(crate) fn set_secrets_away(&self, are_away: bool) {
        self.0.lock().unwrap().are_secrets_away = are_away;
    }
}

impl Inner {
    fn commit(&mut self, changes: Vec<WatchChange>, secrets: Vec<String>) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        self.events.send(WatchEvent::Commit { revision, changes, secrets }).ok();
        revision
    }
}

async fn watch(State(store): State<Store>) -> Response {
    let (first, events) = {
        let inner = store.0.lock().unwrap();
        let objects = inner.objects.values().cloned().collect();
        let listing = Listing { revision: inner.revision, objects };
        (WatchEvent::Snapshot(listing), inner.events.subscribe())
    };
    let stream = futures_util::stream::unfold((Some(first), events), |(first, mut events)| async {
        let event = match first {
            Some(event) => event,
            None => events.recv().await.ok()?,
        };
        let line = format!("{}\n", serde_json::to_string(&event).unwrap());
        Some((Ok::<_, std::io::Error>(line), (None, events)))
    });
    axum::body::Body::from_stream(stream).into_response()
}

async fn secret(State(store): State<Store>, UrlPath(name): UrlPath<String>) -> Response {
    let inner = store.0.lock().unwrap();
    let error = |code: ErrorCode| {
        let body = ErrorBody {
            code,
            message: format!("no secret `{name}`"),
            request_id: String::new(),
            details: None,
        };
        let status = http::StatusCode::from_u16(code.status()).unwrap();
        (status, axum::Json(body)).into_response()
    };
    if inner.are_secrets_away {
        return error(ErrorCode::Unavailable);
    }
    match inner.secrets.get(&name) {
        Some(value) => {
            let value = SecretText(value.clone());
            axum::Json(SecretValue { name, value }).into_response()
        }
        None => error(ErrorCode::NotFound),
    }
}
