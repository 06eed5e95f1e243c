//! What every call passes: who is it, may he, is the body small and quick enough; and what is written down
//! where the answer is no.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use arapi::ObjectName;
use arapi::client::SERVICE_HEADER;
use arapi::error::{ErrorBody, ErrorCode};
use arapi::objects::Permission;
use arbase::http::{ApiError, current_cid};
use arbase::time::now_ms;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::guard::word;
use crate::people::People;
use crate::recovery::{self, Recovery};
use crate::remote::Peer;
use crate::routes::{Access, Route};
use crate::server::App;
use crate::session;

/// Longest time for a request's body to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How the kernel shows a user whom this unit's sandbox does not know (`PrivateUsers=`): on an image every service has
/// a user of its own.  That it is a service of this box shows the peer token, which only they can read.
const NOBODY: u32 = 65_534;
/// Error answers are small; a larger one is not read for the audit log.
const LARGEST_ERROR: usize = 1024 * 1024;

/// The services of the same box that may call on the socket, and what they may do.
const SERVICES: &[(&str, &[Permission])] = &[
    ("arsrv", &[Permission::Read]),
    ("arldb", &[Permission::Read]),
    ("arclst", &[Permission::Read]),
];

/// Who makes a call.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// As it is written down: `user:anna`, `service:arsrv`, `anonymous`.
    pub(crate) who: String,
    /// The user, if it is one.
    pub(crate) user: Option<ObjectName>,
    /// The token it came with.
    pub(crate) token: Option<ObjectName>,
    /// What he may do.
    pub(crate) permissions: BTreeSet<Permission>,
    /// From where.
    pub(crate) remote: String,
    /// The name of the call.
    pub(crate) action: &'static str,
    /// When the call came.
    pub(crate) arrived: Instant,
    /// Whether it is a browser with a cookie.
    pub(crate) is_browser: bool,
    is_service: bool,
}

impl Caller {
    /// The same call, made as a user who has just been recognized.
    pub(crate) fn recognized(&self, user: &ObjectName) -> Self {
        Self { who: format!("user:{user}"), user: Some(user.clone()), ..self.clone() }
    }

    /// One of the box's own parts, which may do everything.
    pub(crate) fn own(who: &str, action: &'static str) -> Self {
        Self {
            who: who.to_owned(),
            user: None,
            token: None,
            permissions: crate::people::EVERYTHING.into(),
            remote: "local".to_owned(),
            action,
            arrived: Instant::now(),
            is_browser: false,
            is_service: true,
        }
    }

    /// Whether it is nobody known.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.user.is_none() && !self.is_service
    }

    /// The user, or the refusal of a call that is only for people.
    pub(crate) fn person(&self) -> Result<&ObjectName, ApiError> {
        self.user.as_ref().ok_or_else(|| {
            ApiError::new(
                ErrorCode::Forbidden,
                "this call is for users; a service has no password or tokens",
            )
        })
    }
}

/// Passes a call on to its handler, or refuses it.
pub(crate) async fn gate(
    State((app, route)): State<(App, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::Local { uid: u32::MAX });
    let mut caller = Caller {
        who: "anonymous".to_owned(),
        user: None,
        token: None,
        permissions: BTreeSet::new(),
        remote: peer.shown(),
        action: route.name,
        arrived: Instant::now(),
        is_browser: false,
        is_service: false,
    };
    let path = request.uri().path().to_owned();
    let mut body = Bytes::new();
    let answered = match admit(&app, route, peer, request.headers(), &mut caller) {
        Err(refused) => refused.into_response(),
        Ok(()) => {
            let (mut parts, stream) = request.into_parts();
            parts.extensions.insert(caller.clone());
            parts.extensions.insert(route);
            let announced = within(&parts.headers, route.limit);
            match announced {
                Err(refused) => refused.into_response(),
                // Never in memory as a whole; its handler holds it to its limit.
                Ok(()) if route.is_streamed() => next.run(Request::from_parts(parts, stream)).await,
                Ok(()) => match whole_body(stream, route.limit).await {
                    Err(refused) => refused.into_response(),
                    Ok(whole) => {
                        body = whole;
                        next.run(Request::from_parts(parts, Body::from(body.clone()))).await
                    }
                },
            }
        }
    };
    let status = answered.status().as_u16();
    app.answers.count(status);
    let is_refusal = matches!(status, 401 | 403) || (route.is_change() && status >= 400);
    if is_refusal {
        let target = target_of(route.name, &path, &body);
        write_down(&app, &caller, target, answered).await
    } else {
        answered
    }
}

/// Finds out who calls, and whether he may.
fn admit(
    app: &App,
    route: &Route,
    peer: Peer,
    headers: &HeaderMap,
    caller: &mut Caller,
) -> Result<(), ApiError> {
    if let Some(recovery) = app.recovery() {
        return admit_in_recovery(app, recovery, route, headers, caller);
    }
    let Some(people) = app.mirror.now() else {
        return Err(ApiError::unavailable(
            "the object store has not answered yet, so nobody can be recognized; is `arclst` running?",
        ));
    };
    if !people.is_claimed() && !route.before_claim() {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            "this box is not claimed yet; claim it with `arctl claim` and the code that the box shows",
        ));
    }
    identify(app, &people, peer, headers, caller)?;
    check_browser(app, route, headers, caller)?;
    may(route, caller)
}

/// In recovery nobody is known but who typed the code.
fn admit_in_recovery(
    app: &App,
    recovery: &Recovery,
    route: &Route,
    headers: &HeaderMap,
    caller: &mut Caller,
) -> Result<(), ApiError> {
    if !recovery::answers(route) {
        return Err(ApiError::unavailable(
            "this is the recovery system: it installs a bundle, resets the box and shows why it runs, and nothing else",
        ));
    }
    let cookie = session::token_of(headers, app.is_tls());
    caller.is_browser = !headers.contains_key(header::AUTHORIZATION) && cookie.is_some();
    let token = match bearer_of(headers)? {
        Some(token) => Some(token.to_owned()),
        None => cookie,
    };
    if let Some(name) = token.and_then(|token| recovery.log_in_of(&token)) {
        caller.who = format!("user:{}", recovery::USER);
        caller.user = ObjectName::parse(recovery::USER).ok();
        caller.token = Some(name);
        caller.permissions = recovery::PERMISSIONS.into();
    } else {
        caller.is_browser = false;
    }
    check_browser(app, route, headers, caller)?;
    may(route, caller)
}

/// Refuses what a browser was made to send by another site.
fn check_browser(
    app: &App,
    route: &Route,
    headers: &HeaderMap,
    caller: &Caller,
) -> Result<(), ApiError> {
    if !route.is_change() {
        return Ok(());
    }
    let token = session::token_of(headers, app.is_tls()).filter(|_| caller.is_browser);
    // Logging in replaces whatever log-in there was, and needs none of its secrets.
    let token = token.filter(|_| route.access != Access::Public);
    session::check_origin(headers, token.as_deref())
}

/// Whether the caller has what the call needs.
fn may(route: &Route, caller: &Caller) -> Result<(), ApiError> {
    let allowed = |permission: &Permission| caller.permissions.contains(permission);
    let needed = match route.access {
        Access::Public => return Ok(()),
        _ if caller.is_anonymous() => {
            return Err(ApiError::new(
                ErrorCode::Unauthorized,
                "nobody is logged in here; send `Authorization: Bearer <token>` (`arctl login` gets one)",
            ));
        }
        Access::LoggedIn => return Ok(()),
        Access::Service if caller.is_service => return Ok(()),
        Access::Service => {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "this call is only for services of the same box, on its socket",
            ));
        }
        Access::Needs(permission) if allowed(&permission) => return Ok(()),
        Access::ByKind
            if [Permission::Develop, Permission::Configure, Permission::Access]
                .iter()
                .any(allowed) =>
        {
            return Ok(());
        }
        Access::Needs(permission) => format!("permission `{}` is", word(permission)),
        Access::ByKind => "permission `develop`, `configure` or `access` is".to_owned(),
    };
    Err(ApiError::new(
        ErrorCode::Forbidden,
        format!(
            "`{}` may not do this: {needed} needed; ask an admin for a role that has it",
            caller.who
        ),
    ))
}

fn identify(
    app: &App,
    people: &People,
    peer: Peer,
    headers: &HeaderMap,
    caller: &mut Caller,
) -> Result<(), ApiError> {
    let unauthorized = |message: &str| ApiError::new(ErrorCode::Unauthorized, message);
    if let (Peer::Local { uid }, Some(service)) = (peer, headers.get(SERVICE_HEADER)) {
        let name = service.to_str().unwrap_or_default();
        let known = SERVICES.iter().find(|(known, _)| *known == name);
        let Some((name, permissions)) = known else {
            return Err(unauthorized("`X-ARINT-Service` names no service of this box"));
        };
        if uid != 0 && uid != app.own_uid && uid != NOBODY {
            return Err(unauthorized(
                "`X-ARINT-Service` is only for processes of root and of the user that the admin API runs as",
            ));
        }
        caller.who = format!("service:{name}");
        caller.permissions = permissions.iter().copied().collect();
        caller.is_service = true;
        return Ok(());
    }
    let bearer = match bearer_of(headers)? {
        Some(token) => people.bearer(token, now_ms()).ok_or_else(|| {
            unauthorized("the token is unknown or has ended; log in again (`arctl login`)")
        })?,
        None => {
            // A cookie whose log-in has ended is nobody's: the page has to be able to log in again.
            let token = session::token_of(headers, app.is_tls());
            let Some(bearer) = token.and_then(|token| people.bearer(&token, now_ms())) else {
                return Ok(());
            };
            caller.is_browser = true;
            bearer
        }
    };
    caller.who = format!("user:{}", bearer.user);
    caller.permissions = people.permissions(bearer.user.as_str());
    caller.user = Some(bearer.user);
    caller.token = Some(bearer.token);
    Ok(())
}

/// The token of `Authorization`, if there is one.
fn bearer_of(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(given) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = given
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    token.map(Some).ok_or_else(|| {
        ApiError::new(
            ErrorCode::Unauthorized,
            "`Authorization` has another form than `Bearer <token>`",
        )
    })
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        ErrorCode::TooLarge,
        format!("the request body is larger than the {limit} bytes allowed here"),
    )
}

/// Refuses a body that is announced as larger than `limit`.
fn within(headers: &HeaderMap, limit: usize) -> Result<(), ApiError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    Ok(())
}

async fn whole_body(stream: Body, limit: usize) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIME, to_bytes(stream, limit)).await {
        Err(_) => Err(ApiError::new(
            ErrorCode::Timeout,
            format!("the request body did not arrive within {BODY_TIME:?}"),
        )),
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(err)) => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&err);
            while let Some(error) = cause {
                if error.is::<http_body_util::LengthLimitError>() {
                    return Err(too_large(limit));
                }
                cause = error.source();
            }
            Err(ApiError::invalid("the request body broke off"))
        }
    }
}

/// Writes down a refused or failed attempt, and reads from the answer why.
async fn write_down(app: &App, caller: &Caller, target: String, answered: Response) -> Response {
    let (mut parts, body) = answered.into_parts();
    let Ok(text) = to_bytes(body, LARGEST_ERROR).await else {
        return ApiError::unavailable("the answer is too large").into_response();
    };
    let error = serde_json::from_slice::<ErrorBody>(&text).ok();
    let wait = error
        .as_ref()
        .and_then(|error| error.details.as_ref()?.get("retry_after_s")?.as_u64())
        .and_then(|seconds| HeaderValue::from_str(&seconds.to_string()).ok());
    if let Some(wait) = wait {
        parts.headers.insert(header::RETRY_AFTER, wait);
    }
    let outcome = if parts.status.is_server_error() { "failed" } else { "refused" };
    let reason = error.map(|error| error.message);
    log::info!(cid:% = current_cid(), who = caller.who, action = caller.action, target,
        status = parts.status.as_u16(), reason = reason.as_deref().unwrap_or_default(); "refused");
    app.note_refusal(caller, target, outcome, reason).await;
    Response::from_parts(parts, Body::from(text))
}

/// What an attempt was about, as far as the request tells.
fn target_of(action: &str, path: &str, body: &[u8]) -> String {
    let plain = percent_decoded(path);
    let json: serde_json::Value = match action {
        "transaction" | "login" | "session_open" | "claim" | "deploy" => {
            serde_json::from_slice(body).unwrap_or_default()
        }
        _ => serde_json::Value::Null,
    };
    let text = |value: &serde_json::Value, key: &str| {
        value.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let list = |key: &str, each: &dyn Fn(&serde_json::Value) -> String| {
        let items = json.get(key).and_then(|items| items.as_array());
        let shown: Vec<String> = items.into_iter().flatten().take(20).map(each).collect();
        shown.join(", ")
    };
    let target = match action {
        "transaction" => {
            list("changes", &|change| format!("{}/{}", text(change, "kind"), text(change, "name")))
        }
        "deploy" => list("files", &|file| {
            format!("Module/{}", text(file, "file_name").trim_end_matches(".py"))
        }),
        "login" | "session_open" | "claim" => format!("User/{}", text(&json, "user")),
        _ => String::new(),
    };
    let target = if target.is_empty() {
        let short = plain.strip_prefix("/v1/").unwrap_or(&plain);
        short.strip_prefix("objects/").unwrap_or(short).to_owned()
    } else {
        target
    };
    target.chars().take(500).collect()
}

fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What every answer carries, those to unknown paths included.
pub(crate) async fn with_security_headers(mut answered: Response) -> Response {
    let security: [(HeaderName, &'static str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    // No Strict-Transport-Security: with a certificate of the box's own it would lock people out of
    // everything else on the same name.
    for (name, value) in security {
        // A page says itself what it may load.
        answered.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    if answered.status() == http::StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        answered.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_written_down_with_what_it_was_about() {
        let check = |action: &str, path: &str, body: &str, expected: &str| {
            assert_eq!(target_of(action, path, body.as_bytes()), expected);
        };
        check("object_put", "/v1/objects/Channel/a%2Fb", "", "Channel/a/b");
        check("rollback", "/v1/deployments/photos/rollback", "", "deployments/photos/rollback");
        check("login", "/v1/login", r#"{"user": "anna", "password": "secret"}"#, "User/anna");
        let changes =
            r#"{"changes": [{"kind": "User", "name": "a"}, {"kind": "Role", "name": "b"}]}"#;
        check("transaction", "/v1/transactions", changes, "User/a, Role/b");
        check("transaction", "/v1/transactions", "no json", "transactions");
        check("deploy", "/v1/deployments", r#"{"files": [{"file_name": "x.py"}]}"#, "Module/x");
        assert_eq!(percent_decoded("/%zz%4"), "/%zz%4");
    }
}
