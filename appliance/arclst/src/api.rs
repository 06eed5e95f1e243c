//! The routes of `arclst.sock`, exactly those that [`arapi::arclst::Client`] calls.
//!
//! Handlers unpack, call the store and map the answer.  Who may connect is decided by the mode of
//! the socket; who may change what, by `arwadm`.

use std::collections::BTreeSet;
use std::sync::Arc;

use arapi::arclst::{Change, Committed, HistoryEntry, Listing, SecretValue, Status, Transaction};
use arapi::objects::Object;
use arapi::{ErrorCode, Kind, ObjectName};
use arbase::http::{Answer, ApiError, Body, current_cid};
use arbase::metrics::{Page, Type};
use arbase::{Chain, Stop};
use arstore::StoreError;
use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::Deserialize;

use crate::command::{Command, Edit, Rejection};
use crate::engine::{Engine, EngineError, Freshness};
use crate::plan::checked_spec;
use crate::state::StateError;
use crate::vault::Vault;
use crate::watch::Watch;

/// Largest transaction, bytes: a module of the largest size, escaped, and some more.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Entries of history where the query names no number.
const DEFAULT_HISTORY: u32 = 100;

/// One route.
struct Route {
    method: MethodFilter,
    path: &'static str,
    handler: fn(MethodFilter) -> MethodRouter<Api>,
}

/// Every route of this service, but `/v1/logs` and `/v1/metrics`, which every service has.
const ROUTES: &[Route] = &[
    Route {
        method: MethodFilter::GET,
        path: "/v1/objects",
        handler: |method| on(method, object_list),
    },
    Route {
        method: MethodFilter::GET,
        path: "/v1/objects/{kind}/{name}",
        handler: |method| on(method, object_show),
    },
    Route {
        method: MethodFilter::POST,
        path: "/v1/transactions",
        handler: |method| on(method, transaction_commit),
    },
    Route {
        method: MethodFilter::GET,
        path: "/v1/history/{kind}/{name}",
        handler: |method| on(method, history_list),
    },
    Route {
        method: MethodFilter::GET,
        path: "/v1/secrets",
        handler: |method| on(method, secret_list),
    },
    Route {
        method: MethodFilter::GET,
        path: "/v1/secrets/{name}",
        handler: |method| on(method, secret_show),
    },
    Route {
        method: MethodFilter::GET,
        path: "/v1/watch",
        handler: |method| on(method, watch_open),
    },
    Route {
        method: MethodFilter::GET,
        path: "/v1/status",
        handler: |method| on(method, status_show),
    },
];

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) vault: Vault,
    pub(crate) node: ObjectName,
    pub(crate) history_keep: u64,
    pub(crate) stop: Stop,
}

pub(crate) fn router(api: Api) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.handler)(route.method));
    }
    let metered = api.clone();
    let metrics = arbase::metrics::router("arclst", move || {
        let api = metered.clone();
        async move { metrics(&api).await }
    });
    router
        .merge(metrics)
        .merge(arbase::logging::router())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// What the store says in figures; what cannot be read now is left out.
async fn metrics(api: &Api) -> Page {
    let mut page = Page::default();
    if let Ok(state) = api.engine.state(Freshness::Local).await
        && let Ok((revision, objects)) = state.size().await
    {
        page.single("arclst_revision", Type::Gauge, "Revision of the store.", revision);
        page.single("arclst_objects", Type::Gauge, "Objects in the store.", objects);
    }
    let writable = u8::from(api.engine.writable().await.is_ok());
    page.single("arclst_writable", Type::Gauge, "Whether changes can be accepted.", writable);
    page
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    most: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    #[serde(default)]
    kinds: String,
}

type Asked<T> = Result<Query<T>, QueryRejection>;
type Named<T> = Result<Path<T>, PathRejection>;

async fn object_list(State(api): State<Api>, query: Asked<ListQuery>) -> Answer<Listing> {
    let kinds = query.map_err(bad_query)?.0.kind.map(|kind| parse_kind(&kind)).transpose()?;
    Ok(axum::Json(api.state().await?.list(kinds.into_iter().collect()).await.map_err(failed)?))
}

async fn object_show(State(api): State<Api>, key: Named<(String, String)>) -> Answer<Object> {
    let (kind, name) = parse_key(key)?;
    let found = api.state().await?.object(kind, name.clone()).await.map_err(failed)?;
    found.map(axum::Json).ok_or_else(|| refused(&Rejection::NoObject { kind, name }))
}

async fn transaction_commit(
    State(api): State<Api>,
    Body(transaction): Body<Transaction>,
) -> Answer<Committed> {
    let dry_run = transaction.dry_run;
    let command = api.command(transaction)?;
    let (cid, who) = (command.cid.clone(), command.who.clone());
    let applied = if dry_run {
        api.engine.check(command).await.map_err(engine_failed)?
    } else {
        api.engine.commit(command).await.map_err(engine_failed)?
    };
    if !dry_run && applied.is_change() {
        let named =
            |change: &arapi::arclst::ObjectChange| format!("{}/{}", change.kind, change.name);
        let objects = applied.changes.iter().take(10).map(named).collect::<Vec<_>>().join(", ");
        log::info!(
            cid:% = cid.unwrap_or_default(), who, revision = applied.revision,
            changed = applied.changes.len(), objects, secrets = applied.secrets.len();
            "objects changed"
        );
    }
    Ok(axum::Json(Committed { revision: applied.revision, changes: applied.changes }))
}

async fn history_list(
    State(api): State<Api>,
    key: Named<(String, String)>,
    query: Asked<HistoryQuery>,
) -> Answer<Vec<HistoryEntry>> {
    let (kind, name) = parse_key(key)?;
    let most = query.map_err(bad_query)?.0.most.unwrap_or(DEFAULT_HISTORY);
    Ok(axum::Json(api.state().await?.history(kind, name, most).await.map_err(failed)?))
}

async fn secret_list(State(api): State<Api>) -> Answer<Vec<String>> {
    Ok(axum::Json(api.state().await?.secret_names().await.map_err(failed)?))
}

async fn secret_show(State(api): State<Api>, name: Named<String>) -> Answer<SecretValue> {
    let Path(name) = name.map_err(bad_path)?;
    let sealed = api.state().await?.secret(name.clone()).await.map_err(failed)?;
    let sealed = sealed.ok_or_else(|| refused(&Rejection::NoSecret { name: name.clone() }))?;
    let value = api.vault.unseal(&name, &sealed).ok_or_else(|| {
        log::error!(cid:% = current_cid(), secret:% = name; "secret does not open with the key of this store");
        ApiError::new(
            ErrorCode::Internal,
            format!("secret `{name}` does not open with the key of this store; put it anew"),
        )
    })?;
    Ok(axum::Json(SecretValue { name, value }))
}

async fn watch_open(
    State(api): State<Api>,
    query: Asked<WatchQuery>,
) -> Result<Response, ApiError> {
    let kinds = query.map_err(bad_query)?.0.kinds;
    let kinds: BTreeSet<Kind> = kinds
        .split(',')
        .filter(|kind| !kind.is_empty())
        .map(parse_kind)
        .collect::<Result<_, _>>()?;
    let watch = Watch::new(api.engine, kinds, api.stop);
    let lines = futures_util::stream::unfold(watch, |mut watch| async {
        let line = watch.next_line().await?;
        Some((Ok::<_, std::convert::Infallible>(line), watch))
    });
    let kind = [(http::header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, HttpBody::from_stream(lines)).into_response())
}

async fn status_show(State(api): State<Api>) -> Answer<Status> {
    let state = api.state().await?;
    let (revision, objects) = state.size().await.map_err(failed)?;
    let cluster = state.cluster().await.map_err(failed)?.unwrap_or_default();
    let writable = api.engine.writable().await;
    Ok(axum::Json(Status {
        cluster,
        node: api.node.to_string(),
        revision,
        objects,
        writable: writable.is_ok(),
        reason: writable.err(),
    }))
}

impl Api {
    async fn state(&self) -> Result<&crate::state::State, ApiError> {
        self.engine.state(Freshness::Local).await.map_err(engine_failed)
    }

    /// The command of a transaction: specs checked and written in full, secrets sealed, the time.
    fn command(&self, transaction: Transaction) -> Result<Command, ApiError> {
        let Transaction { changes, who, cid, dry_run: _ } = transaction;
        let edits =
            changes.into_iter().map(|change| self.edit(change)).collect::<Result<_, _>>()?;
        Ok(Command {
            time_ms: arbase::time::now_ms(),
            who,
            cid: Some(cid.unwrap_or_else(|| current_cid().to_string())),
            founds: None,
            history_keep: self.history_keep,
            edits,
        })
    }

    fn edit(&self, change: Change) -> Result<Edit, ApiError> {
        Ok(match change {
            Change::Put { kind, name, spec, expect } => {
                let spec = checked_spec(kind, &name, &spec).map_err(|err| refused(&err))?.to_json();
                Edit::Put { kind, name, spec, expect }
            }
            Change::Delete { kind, name, expect } => Edit::Delete { kind, name, expect },
            Change::PutSecret { name, value } => {
                let sealed = self.vault.seal(&name, &value).ok_or_else(|| {
                    ApiError::new(ErrorCode::TooLarge, format!("secret `{name}` is too large"))
                })?;
                Edit::PutSecret { name, sealed }
            }
            Change::DeleteSecret { name } => Edit::DeleteSecret { name },
        })
    }
}

fn parse_kind(text: &str) -> Result<Kind, ApiError> {
    text.parse().map_err(|err: arapi::names::NameError| ApiError::invalid(err.to_string()))
}

fn parse_key(key: Named<(String, String)>) -> Result<(Kind, ObjectName), ApiError> {
    let Path((kind, name)) = key.map_err(bad_path)?;
    let name = ObjectName::parse(&name).map_err(|err| ApiError::invalid(err.to_string()))?;
    Ok((parse_kind(&kind)?, name))
}

fn bad_query(err: QueryRejection) -> ApiError {
    ApiError::invalid(format!("query: {}", source_of(&err)))
}

fn bad_path(err: PathRejection) -> ApiError {
    ApiError::invalid(format!("path: {}", source_of(&err)))
}

/// What is wrong, without the words of the HTTP library around it.
fn source_of(err: &dyn std::error::Error) -> String {
    err.source().map_or_else(|| err.to_string(), |source| source.to_string())
}

fn refused(rejection: &Rejection) -> ApiError {
    ApiError::new(rejection.code(), rejection.to_string())
}

fn engine_failed(err: EngineError) -> ApiError {
    match err {
        EngineError::Rejected(rejection) => refused(&rejection),
        EngineError::State(err) => failed(err),
    }
}

/// Faults of the disk keep their sentence, because somebody has to do something about them.
fn failed(err: StateError) -> ApiError {
    let code = match &err {
        StateError::Store(StoreError::NoRoom { .. }) => ErrorCode::NoRoom,
        StateError::Store(
            StoreError::ReadOnly { .. }
            | StoreError::Disk { .. }
            | StoreError::Damaged { .. }
            | StoreError::Closed,
        ) => ErrorCode::Unavailable,
        _ => return ApiError::internal("use the store", &err),
    };
    log::error!(cid:% = current_cid(), error:% = Chain(&err); "store does not serve");
    ApiError::new(code, err.to_string())
}
