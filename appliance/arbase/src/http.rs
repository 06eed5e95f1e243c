//! HTTP as every service's control interface has it: a Unix socket, a correlation id per request, one
//! form of errors.

use std::error::Error;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use arapi::error::{ErrorBody, ErrorCode};
use arapi::names::Cid;
use axum::extract::{FromRequest, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use crate::chain::Chain;
use crate::stop::Stop;

/// The header of the correlation id.
pub const CID_HEADER: &str = "x-zato-cid";

tokio::task_local! {
    static CID: Cid;
}

/// The correlation id of the request this task works for; a new one outside of a request.
pub fn current_cid() -> Cid {
    CID.try_with(Clone::clone).unwrap_or_else(|_| Cid::random())
}

/// Runs `work` as part of the request `cid`.
pub async fn with_cid<F: Future>(cid: Cid, work: F) -> F::Output {
    CID.scope(cid, work).await
}

/// An error on its way to a caller.
///
/// Up to 499 the message is for the caller.  From 500 on the caller gets a fixed sentence with the
/// id, and the cause goes to the log; only [`ApiError::unavailable`] keeps its message, because it
/// says what to do.
#[derive(Debug)]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    details: Option<serde_json::Value>,
}

impl ApiError {
    /// An error with a message for the caller.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// A malformed request, or one that breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// Not now; the message says why and what to do.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// A failure of our own: the chain goes to the log, not to the caller.
    pub fn internal(doing: &'static str, err: &(dyn Error + 'static)) -> Self {
        let cid = current_cid();
        log::error!(cid:% = cid, doing, error:% = Chain(err); "request failed inside");
        Self::new(
            ErrorCode::Internal,
            format!("the request failed inside; the log has the cause under `{cid}`"),
        )
    }

    /// The same with something for programs.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Its code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Its message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorBody {
            code: self.code,
            message: self.message,
            request_id: current_cid().to_string(),
            details: self.details,
        };
        let mut response = (status, axum::Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What a handler returns.
pub type Answer<T> = Result<axum::Json<T>, ApiError>;

/// A JSON body, refused with the path of the field at fault.
#[derive(Debug, Clone, Copy)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = bytes::Bytes::from_request(request, state).await.map_err(|refused| {
            if refused.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::new(ErrorCode::TooLarge, "the request body is larger than allowed")
            } else {
                ApiError::invalid("the request body broke off")
            }
        })?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|err| {
            let path = err.path().to_string();
            let fault = err.into_inner();
            match path.as_str() {
                // `?`: the text is no JSON at all.
                "." | "?" => ApiError::invalid(format!("request body: {fault}")),
                _ => ApiError::invalid(format!("request body: field `{path}`: {fault}")),
            }
        })?;
        reader.end().map_err(|err| ApiError::invalid(format!("request body: {err}")))?;
        Ok(Self(value))
    }
}

/// Wraps a router: each request gets its correlation id (its own `X-Zato-CID` if it has a fitting one),
/// which the answer carries as well; unknown paths and methods get the common error form.
pub fn with_common_form(router: axum::Router) -> axum::Router {
    router
        .fallback(async || {
            ApiError::not_found("there is no such path; the API is described in `/openapi.json`")
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(ErrorCode::MethodNotAllowed, "this path does not take this method")
        })
        .layer(axum::middleware::from_fn(scope_cid))
}

async fn scope_cid(request: Request, next: Next) -> Response {
    let given = request.headers().get(CID_HEADER).and_then(|value| value.to_str().ok());
    let cid = given.and_then(|text| Cid::parse(text).ok()).unwrap_or_else(Cid::random);
    let mut response = CID.scope(cid.clone(), next.run(request)).await;
    if let Ok(value) = HeaderValue::from_str(cid.as_str()) {
        response.headers_mut().insert(CID_HEADER, value);
    }
    response
}

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has it.
    #[error("another process serves `{}` already; stop it first", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot listen on `{}`", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The peer token cannot be made or read.
    #[error("cannot make the peer token `{}`", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Makes a Unix socket with mode `mode`, and the peer token beside it.  A socket left by a dead process is replaced.
pub fn listen_unix(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    let bind = |source| ListenError::Bind { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse { path: path.to_owned() });
    }
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(bind(err)),
        Ok(()) | Err(_) => {}
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(bind)?;
        // Before the socket: who can call must be able to show it.
        peer_token(dir)?;
    }
    let listener = UnixListener::bind(path).map_err(bind)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(bind)?;
    Ok(listener)
}

/// Makes the file [`PEER_TOKEN`](arapi::client::PEER_TOKEN) of a runtime folder if it is not there (256 random bits,
/// mode 0640), and returns its text.
pub fn peer_token(runtime_dir: &Path) -> Result<String, ListenError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = runtime_dir.join(arapi::client::PEER_TOKEN);
    let failed = |source| ListenError::Token { path: path.clone(), source };
    // Several units start at once: each writes a file of its own, and the first to link it has made the token.
    let own = runtime_dir.join(format!("{}.{}", arapi::client::PEER_TOKEN, Cid::random()));
    let text =
        [Cid::random().to_string(), Cid::random().to_string(), Cid::random().to_string()].concat();
    let mut options = std::fs::OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&own)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    let linked = written.and_then(|()| std::fs::hard_link(&own, &path));
    std::fs::remove_file(&own).ok();
    match linked {
        Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(err)),
        Ok(()) | Err(_) => {}
    }
    std::fs::read_to_string(&path).map_err(failed)
}

/// Lets only callers through that show the peer token: the services of this box, not the code its workers run.
pub fn for_peers(router: axum::Router, token: &str) -> axum::Router {
    let token: std::sync::Arc<str> = token.trim().into();
    router.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let token = std::sync::Arc::clone(&token);
        async move {
            let shown = request.headers().get(arapi::client::PEER_TOKEN_HEADER);
            let fits = shown.is_some_and(|shown| is_same(shown.as_bytes(), token.as_bytes()));
            if fits {
                return next.run(request).await;
            }
            let message = format!(
                "only services of this box may call here: header `{}` with the text of `{}` in the runtime folder was expected",
                arapi::client::PEER_TOKEN_HEADER,
                arapi::client::PEER_TOKEN
            );
            ApiError::new(ErrorCode::Forbidden, message).into_response()
        }
    }))
}

/// Compares without telling by its time where the difference is.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// Serves a control interface on a Unix socket to the services of this box, until told to stop; open streams are
/// cut then.
pub async fn serve_unix(router: axum::Router, listener: UnixListener, stop: Stop) {
    let addr = listener.local_addr().ok();
    let dir = addr.as_ref().and_then(|addr| addr.as_pathname()).and_then(Path::parent);
    let token = match peer_token(dir.unwrap_or(Path::new("."))) {
        Ok(token) => token,
        Err(err) => {
            log::error!(error:% = Chain(&err); "control interface cannot be served");
            return;
        }
    };
    let served =
        axum::serve(listener, with_common_form(for_peers(router, &token)).into_make_service());
    let waiting = stop.clone();
    let graceful = served.with_graceful_shutdown(async move { waiting.wait().await });
    let grace = async {
        stop.wait().await;
        // Calls are short; what is still open after this is a stream that has no end.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    tokio::select! {
        ended = graceful => {
            if let Err(err) = ended {
                log::error!(error:% = Chain(&err); "control interface ended");
            }
        }
        () = grace => {}
    }
}
