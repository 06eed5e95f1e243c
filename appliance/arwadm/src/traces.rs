//! Requests step by step, put together of what balancer and core remember.

use arapi::error::ErrorCode;
use arapi::trace::{TraceQuery, TraceSummary, TraceView};
use arbase::http::{Answer, ApiError};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};

use crate::api::parse_query;
use crate::remote::passed_on;
use crate::server::App;

/// `GET /v1/traces`.
pub(crate) async fn list(
    State(app): State<App>,
    query: Result<Query<TraceQuery>, QueryRejection>,
) -> Answer<Vec<TraceSummary>> {
    let listed = app.arsrv().traces(&parse_query(query)?).await;
    listed.map(Json).map_err(|err| passed_on("list requests", &err))
}

/// `GET /v1/traces/{cid}`.
pub(crate) async fn show(State(app): State<App>, Path(cid): Path<String>) -> Answer<TraceView> {
    let (core, balancer) = (app.arsrv(), app.arldb());
    let (of_core, of_balancer) = tokio::join!(core.trace(&cid), balancer.trace(&cid));
    // A balancer that is away has nothing to say; the core's steps are worth showing without.
    let of_balancer = of_balancer.unwrap_or_default();
    let mut view = match of_core {
        Ok(view) => view,
        Err(err) if err.code() == Some(ErrorCode::NotFound) && !of_balancer.is_empty() => {
            TraceView { cid, trace: String::new(), steps: Vec::new(), left_out: 0 }
        }
        Err(err) if err.code() == Some(ErrorCode::NotFound) => {
            return Err(ApiError::not_found(format!(
                "nothing is known of a request `{}`: only the last ones are kept, and those that failed or were slow a little longer; `arctl logs --cid` may know more",
                cid.escape_debug()
            )));
        }
        Err(err) => return Err(passed_on("look at a request", &err)),
    };
    view.steps.extend(of_balancer);
    view.steps.sort_by_key(|step| step.at_us);
    Ok(Json(view))
}
