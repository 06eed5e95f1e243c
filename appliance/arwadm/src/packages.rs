//! Python packages: wheels uploaded for boxes that reach no index, and what is built of them.
//!
//! The core keeps and builds them; here is the door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arapi::ClientError;
use arapi::arsrv::{PackagesView, WheelInfo};
use arapi::client::path_part;
use arapi::error::ErrorCode;
use arbase::http::{Answer, ApiError};
use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::{Extension, Json};

use crate::gate::Caller;
use crate::remote::passed_on;
use crate::routes::Route;
use crate::server::App;
use crate::system::{checked, limited, too_large};

pub(crate) async fn list(State(app): State<App>) -> Answer<PackagesView> {
    let listed = app.arsrv().packages().await;
    listed.map(Json).map_err(|err| passed_on("list packages", &err))
}

/// Streams a wheel to the core; it is verified there before it has its name.
pub(crate) async fn upload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(route): Extension<&'static Route>,
    Path(file): Path<String>,
    request: Request,
) -> Answer<WheelInfo> {
    let overrun = Arc::new(AtomicBool::new(false));
    let body = limited(request.into_body(), route.limit, Arc::clone(&overrun));
    let path = format!("/v1/packages/wheels/{}", path_part(&file));
    let doing = "upload a wheel";
    let onward = http::Request::put(path).body(body);
    let onward = onward.map_err(|err| ApiError::internal(doing, &err))?;
    let client = app.arsrv().0;
    let failed = |err: ClientError| match err {
        ClientError::Broken { .. } if overrun.load(Ordering::Relaxed) => too_large(route.limit),
        err => passed_on(doing, &err),
    };
    let answer = client.exchange(onward).await.map_err(failed)?;
    let answer = checked(&client, answer).await.map_err(|err| {
        // The core only sees that the body broke off.
        if overrun.load(Ordering::Relaxed) {
            too_large(route.limit)
        } else {
            passed_on(doing, &err)
        }
    })?;
    let text = to_bytes(axum::body::Body::new(answer.into_body()), 64 * 1024).await;
    let text = text.map_err(|err| ApiError::internal(doing, &err))?;
    let info: WheelInfo =
        serde_json::from_slice(&text).map_err(|err| ApiError::internal(doing, &err))?;
    let mut entry = app.entry(&caller, format!("packages/{file}"));
    entry.after = Some(serde_json::json!({"sha256": info.sha256, "bytes": info.bytes}));
    app.note(vec![entry]).await?;
    Ok(Json(info))
}

pub(crate) async fn remove(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(file): Path<String>,
) -> Answer<()> {
    match app.arsrv().remove_wheel(&file).await {
        Ok(()) => {}
        Err(err) if err.code() == Some(ErrorCode::NotFound) => {
            return Err(ApiError::not_found(format!("there is no uploaded wheel `{file}`")));
        }
        Err(err) => return Err(passed_on("remove a wheel", &err)),
    }
    app.note(vec![app.entry(&caller, format!("packages/{file}"))]).await?;
    Ok(Json(()))
}
