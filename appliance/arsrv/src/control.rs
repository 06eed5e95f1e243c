//! The control interface, `arsrv.sock`: checks of deployments, invocations by hand, status.
//!
//! For the services of the same box; requests of users come another way.  [`ROUTES`] is the list.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arapi::arsrv::{
    AccessAnswer, AccessQuestion, CheckRequest, CheckVerdict, InvokeRequest, InvokeResponse,
    PackagesView, PingResult, Profile, ProfileRequest, ResolveRequest, ResolveVerdict, Status,
    WheelInfo,
};
use arapi::error::ErrorCode;
use arapi::messages::{MessagePage, MessageQuery};
use arapi::names::{Kind, ObjectName};
use arapi::objects::{Priority, Spec};
use arapi::trace::{TraceQuery, TraceSummary, TraceView};
use arbase::Chain;
use arbase::http::{Answer, ApiError, Body, current_cid};
use arbase::metrics::{Page, Type};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::routing::{delete, get, post, put};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use crate::audit::Recorder;
use crate::call::{Call, Outcome};
use crate::channel::Table;
use crate::limits::Ticket;
use crate::outgoing::Outgoing;
use crate::pool::Pool;
use crate::security::explain;
use crate::server::Workers;
use crate::telemetry::outside::OutsideFigures;
use crate::telemetry::trace::{self, Trace, What};
use crate::telemetry::{figures, otlp};
use crate::world::{Progress, World};

/// Longest wait for a revision: a little less than callers wait for the answer.
const WAIT_LIMIT: Duration = Duration::from_secs(80);

/// One route of the control interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, as axum has it.
    pub path: &'static str,
    /// The handler's name.
    pub name: &'static str,
}

/// Every route.
pub const ROUTES: &[Route] = &[
    Route { method: Method::POST, path: "/v1/check", name: "sources_check" },
    Route { method: Method::POST, path: "/v1/wait/{revision}", name: "revision_wait" },
    Route { method: Method::POST, path: "/v1/invoke", name: "service_invoke" },
    Route { method: Method::POST, path: "/v1/profile", name: "profile_take" },
    Route { method: Method::POST, path: "/v1/access", name: "access_check" },
    Route { method: Method::POST, path: "/v1/channels/{name}/messages", name: "channel_messages" },
    Route { method: Method::POST, path: "/v1/outgoing/{name}/ping", name: "outgoing_ping" },
    Route { method: Method::GET, path: "/v1/packages", name: "package_list" },
    Route { method: Method::POST, path: "/v1/packages/resolve", name: "package_resolve" },
    Route { method: Method::PUT, path: "/v1/packages/wheels/{file}", name: "wheel_upload" },
    Route { method: Method::DELETE, path: "/v1/packages/wheels/{file}", name: "wheel_remove" },
    Route { method: Method::GET, path: "/v1/status", name: "status" },
    Route { method: Method::GET, path: "/v1/traces", name: "trace_list" },
    Route { method: Method::GET, path: "/v1/traces/{cid}", name: "trace_show" },
    Route { method: Method::GET, path: "/v1/metrics", name: "metrics" },
    Route { method: Method::GET, path: "/v1/logs", name: "log_list" },
];

/// What the handlers work with.
#[derive(Clone)]
pub struct Control {
    /// The workers.
    pub workers: Arc<dyn Workers>,
    /// The connections out.
    pub outgoing: Outgoing,
    /// What calls on them came to.
    pub figures: OutsideFigures,
    /// What became of what was to be sent to a collector.
    pub otlp: Arc<otlp::Figures>,
    /// The channels.
    pub tables: watch::Receiver<Arc<Table>>,
    /// What is configured.
    pub worlds: watch::Receiver<Arc<World>>,
    /// What channels have kept.
    pub recorder: Arc<Recorder>,
    /// How far the reconcilers are.
    pub progress: Progress,
    /// Longest time for a call where the service does not say otherwise.
    pub timeout: Duration,
}

/// The router of the control interface.
pub fn router(control: Control) -> axum::Router {
    let mut router = axum::Router::new();
    for route in ROUTES {
        let handler = match route.name {
            "sources_check" => post(sources_check),
            "revision_wait" => post(revision_wait),
            "service_invoke" => post(service_invoke),
            "profile_take" => post(profile_take),
            "access_check" => post(access_check),
            "channel_messages" => post(channel_messages),
            "outgoing_ping" => post(outgoing_ping),
            "package_list" => get(package_list),
            "package_resolve" => post(package_resolve),
            "wheel_upload" => put(wheel_upload),
            "wheel_remove" => delete(wheel_remove),
            "status" => get(status),
            "trace_list" => get(trace_list),
            "trace_show" => get(trace_show),
            // The log and the figures bring their own.
            _ => continue,
        };
        router = router.route(route.path, handler);
    }
    let metered = control.clone();
    router
        .with_state(control)
        .merge(arbase::metrics::router("arsrv", move || {
            let page = metered.metrics();
            async { page }
        }))
        .merge(arbase::logging::router())
        // Sources of many modules may come at once.
        .layer(axum::extract::DefaultBodyLimit::max(256 * 1024 * 1024))
}

async fn sources_check(
    State(control): State<Control>,
    Body(request): Body<CheckRequest>,
) -> Answer<CheckVerdict> {
    Ok(Json(control.workers.check(request).await))
}

async fn package_list(State(control): State<Control>) -> Answer<PackagesView> {
    control.pool()?.packages().await.map(Json)
}

async fn package_resolve(
    State(control): State<Control>,
    Body(request): Body<ResolveRequest>,
) -> Answer<ResolveVerdict> {
    control.pool()?.resolve(&request).await.map(Json)
}

async fn wheel_upload(
    State(control): State<Control>,
    Path(file): Path<String>,
    request: axum::extract::Request,
) -> Answer<WheelInfo> {
    let body = request.into_body();
    let write = move |path: std::path::PathBuf| {
        Box::pin(write_body(body, path))
            as std::pin::Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>>
    };
    control.pool()?.take_wheel(&file, Box::new(write)).await.map(Json)
}

/// Writes a body to a file as it comes.
async fn write_body(body: axum::body::Body, path: std::path::PathBuf) -> Result<(), ApiError> {
    let failed = |err: std::io::Error| match err.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ApiError::new(
            ErrorCode::NoRoom,
            "there is no room left for the wheel; remove others with `arctl packages remove`",
        ),
        _ => ApiError::internal("write a wheel", &err),
    };
    let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|_| ApiError::invalid("the upload broke off; send the whole file again"))?;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

async fn wheel_remove(State(control): State<Control>, Path(file): Path<String>) -> Answer<()> {
    control.pool()?.remove_wheel(&file).await.map(Json)
}

async fn revision_wait(State(control): State<Control>, Path(revision): Path<u64>) -> Answer<()> {
    match tokio::time::timeout(WAIT_LIMIT, control.progress.wait_for(revision)).await {
        Ok(()) => Ok(Json(())),
        Err(_) => Err(ApiError::new(
            ErrorCode::Timeout,
            format!(
                "requests are served at revision {}, not yet at {revision}, after {WAIT_LIMIT:?}; see `arctl status`",
                control.progress.revision()
            ),
        )),
    }
}

async fn service_invoke(
    State(control): State<Control>,
    Body(request): Body<InvokeRequest>,
) -> Answer<InvokeResponse> {
    let started = Instant::now();
    let cid = current_cid();
    control.limit(&request.service)?;
    let timeout = request.timeout_ms.map(Duration::from_millis);
    let timeout = timeout.or_else(|| control.service_timeout(&request.service));
    let body = match &request.payload {
        serde_json::Value::Null => Bytes::new(),
        payload => payload.to_string().into(),
    };
    let call = Call {
        service: request.service.as_str().into(),
        cid: cid.clone(),
        channel: "invoke",
        data_format: "dict",
        method: None,
        http: Bytes::new(),
        environ: Bytes::new(),
        body,
        deadline: started + timeout.unwrap_or(control.timeout),
        spool: None,
        priority: Priority::Interactive,
        is_idempotent: false,
    };
    let mut step = Trace::begin(&cid, None).open(What::Request, &request.service);
    step.say("channel", "invoke");
    let outcome = trace::scope(Some(step.inside()), control.workers.call(call)).await;
    let status = match &outcome {
        Outcome::Done(reply) | Outcome::Streamed(reply, _) => reply.status,
        Outcome::Failed(failure) => failure.status,
    };
    step.end(status, status >= 500);
    let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    let (status, content_type, body) = match outcome {
        Outcome::Done(reply) => {
            let content_type = reply.content_type;
            (reply.status, content_type.unwrap_or("application/json".to_owned()), reply.body)
        }
        // The SDK streams nothing but answers to channels.
        Outcome::Streamed(..) => {
            return Err(ApiError::new(
                ErrorCode::Internal,
                "the service streams its answer, which only a channel can take",
            ));
        }
        Outcome::Failed(failure) if matches!(failure.kind.as_str(), "not-found" | "inactive") => {
            return Err(ApiError::not_found(failure.message));
        }
        Outcome::Failed(failure) => {
            let details = match failure.details {
                serde_json::Value::Null => serde_json::Value::from(failure.message),
                details => details,
            };
            let body = serde_json::json!({"result": "Error", "cid": cid, "details": details});
            (failure.status, "application/json".to_owned(), body.to_string().into())
        }
    };
    let (body, body_base64) = match String::from_utf8(body.into()) {
        Ok(text) => (Some(text), None),
        Err(err) => (None, Some(BASE64_STANDARD.encode(err.as_bytes()))),
    };
    let cid = cid.to_string();
    Ok(Json(InvokeResponse { cid, status, content_type, body, body_base64, elapsed_ms }))
}

async fn profile_take(
    State(control): State<Control>,
    Body(request): Body<ProfileRequest>,
) -> Answer<Profile> {
    control.pool()?.profile(&request).await.map(Json)
}

async fn access_check(
    State(control): State<Control>,
    Body(question): Body<AccessQuestion>,
) -> Answer<AccessAnswer> {
    let table = Arc::clone(&control.tables.borrow());
    explain::answer(&table, &question).map(Json).map_err(ApiError::not_found)
}

async fn channel_messages(
    State(control): State<Control>,
    Path(name): Path<String>,
    Body(query): Body<MessageQuery>,
) -> Answer<MessagePage> {
    let known = ObjectName::parse(&name).ok();
    let table = Arc::clone(&control.tables.borrow());
    let Some(channel) = known.as_ref().and_then(|name| table.channel(name)) else {
        return Err(ApiError::not_found(format!("there is no channel `{}`", name.escape_debug())));
    };
    if channel.spec.audit.is_none() {
        return Err(ApiError::not_found(format!(
            "channel `{name}` keeps nothing of requests and answers; give it an `audit`"
        )));
    }
    control.recorder.page(&name, query).await.map(Json).map_err(|err| {
        log::error!(error:% = Chain(&err), channel = name.as_str(); "messages cannot be read");
        ApiError::new(ErrorCode::Internal, "what the channel has kept cannot be read")
    })
}

async fn outgoing_ping(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Answer<PingResult> {
    match control.outgoing.ping(&name).await {
        Some(found) => Ok(Json(found)),
        None => Err(ApiError::not_found(format!("there is no outgoing connection `{name}`"))),
    }
}

async fn trace_list(Query(query): Query<TraceQuery>) -> Answer<Vec<TraceSummary>> {
    Ok(Json(trace::list(&query)))
}

async fn trace_show(Path(cid): Path<String>) -> Answer<TraceView> {
    trace::view(&cid).map(Json).ok_or_else(|| {
        ApiError::not_found(format!("nothing is known of a request `{}`", cid.escape_debug()))
    })
}

async fn status(State(control): State<Control>) -> Answer<Status> {
    Ok(Json(control.status()))
}

impl Control {
    fn pool(&self) -> Result<&Pool, ApiError> {
        self.workers.pool().ok_or_else(|| ApiError::unavailable("there are no workers here"))
    }

    /// How the core is.
    pub fn status(&self) -> Status {
        let pool = self.workers.status();
        let channels: Vec<_> = self.tables.borrow().all().map(|channel| channel.status()).collect();
        let outgoing = self.outgoing.status();
        let mut problems = pool.problems;
        if self.worlds.borrow().revision == 0 {
            problems.push(
                "the object store has not been heard yet; nothing is configured; is `arclst` running?"
                    .to_owned(),
            );
        }
        for channel in &channels {
            if !matches!(channel.state.as_str(), "serving" | "inactive") {
                problems.push(format!("channel `{}`: {}", channel.name, channel.state));
            }
        }
        for connection in &outgoing {
            if let Some(error) = &connection.last_error {
                // Errors of calls name the connection themselves.
                let prefix = format!("outgoing connection `{}`", connection.name);
                problems.push(match error.starts_with(&prefix) {
                    true => error.clone(),
                    false => format!("{prefix}: {error}"),
                });
            }
        }
        Status {
            revision: self.progress.revision(),
            workers: pool.workers,
            services: pool.services,
            channels,
            outgoing,
            problems,
        }
    }

    /// The page of figures.
    pub fn metrics(&self) -> Page {
        let mut page = Page::default();
        let table = Arc::clone(&self.tables.borrow());
        figures::channels(&mut page, &table);
        figures::pool(&mut page, self.workers.figures());
        figures::outgoing(&mut page, &self.outgoing, &self.figures);
        self.otlp.write(&mut page);
        let revision = self.progress.revision();
        let help = "Revision of the store that requests are served at.";
        page.single("arsrv_revision", Type::Gauge, help, revision);
        page
    }

    /// Counts an invocation by hand on the service's limit.
    fn limit(&self, service: &str) -> Result<(), ApiError> {
        let Ok(name) = ObjectName::parse(service) else { return Ok(()) };
        let table = Arc::clone(&self.tables.borrow());
        let mut ticket = Ticket::new(None, SystemTime::now());
        ticket.take(table.limits.of(Kind::Service, &name)).map_err(|exceeded| {
            let message = match exceeded.standing {
                Some(standing) => format!(
                    "{} may be invoked {} times in a window, and that is used up; try again in {} s",
                    exceeded.what,
                    standing.limit,
                    standing.seconds()
                ),
                None => format!("{} may not be invoked from inside: no line `*` lets that in", exceeded.what),
            };
            ApiError::new(ErrorCode::TooManyRequests, message)
        })
    }

    fn service_timeout(&self, service: &str) -> Option<Duration> {
        let name = ObjectName::parse(service).ok()?;
        match &self.worlds.borrow().object(Kind::Service, &name)?.spec {
            Spec::Service(spec) => spec.timeout_ms.map(Duration::from_millis),
            _ => None,
        }
    }
}
