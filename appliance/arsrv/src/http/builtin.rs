//! The paths of our own on the data path: health, ping, and deployments from editors.
//!
//! They come before channels, so no channel can take them over.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arapi::arwadm::{Client, DeployAnswer, IdeDeployRequest};
use arapi::client::ClientError;
use arapi::names::Cid;
use arapi::objects::{DataFormat, HttpMethod};
use arbase::Chain;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::answer::{self, Answer};
use super::door::{BUILTIN_BODY_LIMIT, Door};
use super::gzip::Coding;
use super::listen::Peer;
use super::steps::Denied;
use super::{body, document};
use crate::security::credentials::{self, Fingerprint};
use crate::security::tokens::EndError;
use crate::security::{Presented, Refusal};

/// Where the balancer asks whether requests would be served.
pub(super) const HEALTH: &str = "/arint/health";

/// A path of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// `/arint/health`: whether requests would be served, for the balancer.
    Health,
    /// `/zato/ping`: as in 3.2.
    Ping,
    /// `/ide-deploy`: deployments from the editor plug-ins of 3.2.
    IdeDeploy,
    /// `/zato/jwt/log-in`: a token for a name and a password, as in 3.2.
    LogIn,
    /// `/zato/jwt/refresh`: a new token for one that holds.
    Refresh,
    /// `/zato/jwt/log-out`: ends a token, as in 3.2.
    LogOut,
}

/// What a user sends to log in.
#[derive(Deserialize)]
struct LogInSent {
    username: String,
    password: String,
}

/// What an editor sends.
#[derive(Debug, Deserialize)]
struct Sent {
    payload_name: String,
    payload: String,
}

impl Builtin {
    /// The one with this path.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            HEALTH => Some(Self::Health),
            "/zato/ping" => Some(Self::Ping),
            "/ide-deploy" => Some(Self::IdeDeploy),
            "/zato/jwt/log-in" => Some(Self::LogIn),
            "/zato/jwt/refresh" => Some(Self::Refresh),
            "/zato/jwt/log-out" => Some(Self::LogOut),
            _ => None,
        }
    }
}

/// Answers a request for a path of our own.
pub(super) async fn answer(
    door: &Door,
    builtin: Builtin,
    method: HttpMethod,
    parts: &Parts,
    body: Incoming,
    cid: &Cid,
    peer: &Peer,
) -> Answer {
    let fits = match builtin {
        Builtin::Health | Builtin::Ping => matches!(method, HttpMethod::Get | HttpMethod::Head),
        Builtin::IdeDeploy => method == HttpMethod::Post,
        // 3.2 takes any method here.
        Builtin::LogIn | Builtin::Refresh | Builtin::LogOut => true,
    };
    match builtin {
        _ if !fits => answer::not_found(cid),
        Builtin::Health => health(door),
        Builtin::Ping => ping(cid),
        Builtin::IdeDeploy => ide_deploy(door, parts, body, cid, peer).await,
        Builtin::LogIn => log_in(door, parts, body, cid, peer).await,
        Builtin::Refresh => refresh(door, parts, cid),
        Builtin::LogOut => log_out(door, parts, cid).await,
    }
}

fn unauthorized(cid: &Cid) -> Answer {
    let details = json!("Invalid credentials");
    let mut answer = answer::error(DataFormat::Json, StatusCode::UNAUTHORIZED, cid, &details);
    let challenge = HeaderValue::from_static("Bearer realm=\"ARINT\"");
    answer.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
    answer
}

fn seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The token as 3.2 gives it: in the body, and in `Authorization`.
fn token(token: &str) -> Answer {
    let document = json!({"response": {"token": token}});
    let mut answer = answer::json(StatusCode::OK, document.to_string());
    if let Ok(value) = HeaderValue::from_str(token) {
        answer.headers_mut().insert(http::header::AUTHORIZATION, value);
    }
    let no_store = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(http::header::CACHE_CONTROL, no_store);
    answer
}

async fn log_in(door: &Door, parts: &Parts, body: Incoming, cid: &Cid, peer: &Peer) -> Answer {
    let body = match body::read(
        body,
        Coding::Identity,
        LOG_IN_BYTES,
        BUILTIN_BODY_LIMIT,
        &door.budget,
        None,
    )
    .await
    {
        Ok(whole) => whole.bytes,
        Err(_) => return unauthorized(cid),
    };
    let Ok(LogInSent { username, password }) = serde_json::from_slice(&body) else {
        let details = json!("`username` and `password` were expected, in JSON");
        return answer::error(DataFormat::Json, StatusCode::BAD_REQUEST, cid, &details);
    };
    let table = std::sync::Arc::clone(&door.tables.borrow());
    let password = Fingerprint::of(password.as_bytes());
    let remote = document::remote(&parts.headers, peer);
    let slowing = &door.shared.slowing;
    let attempt = match crate::limits::address(remote) {
        Some(addr) => match slowing.admit(addr, ("jwt", &username), password, Instant::now()) {
            Ok(attempt) => Some(attempt),
            Err(wait) => {
                let refusal = Refusal::Slowed(wait);
                return Denied::of_refusal(&table.ide, &refusal).answer(DataFormat::Json, cid);
            }
        },
        None => None,
    };
    let now = seconds(SystemTime::now());
    let mut accounts = table.keys.accounts().filter(|account| account.username == username);
    match accounts.find_map(|account| Some((account, account.log_in(&password, now)?))) {
        Some((account, made)) => {
            if let Some(attempt) = attempt {
                slowing.opened(attempt, Instant::now());
            }
            log::debug!(cid:% = cid, name:% = account.name, remote; "token made");
            token(&made)
        }
        None => {
            if let Some(attempt) = attempt {
                slowing.failed(attempt, Instant::now());
            }
            if let Some(left_out) = door.log_in_attempts.count(Instant::now()) {
                let username: String = username.chars().take(64).collect();
                log::warn!(
                    cid:% = cid, remote, username:% = username.escape_debug(), left_out;
                    "log-in refused"
                );
            }
            unauthorized(cid)
        }
    }
}

fn refresh(door: &Door, parts: &Parts, cid: &Cid) -> Answer {
    let Some(sent) = credentials::bearer(&parts.headers) else { return unauthorized(cid) };
    let table = std::sync::Arc::clone(&door.tables.borrow());
    let now = seconds(SystemTime::now());
    let made = table.keys.accounts().find_map(|account| account.refresh(sent, now).ok());
    made.map_or_else(|| unauthorized(cid), |made| token(&made))
}

async fn log_out(door: &Door, parts: &Parts, cid: &Cid) -> Answer {
    let result = |status, text: &str| answer::json(status, json!({"result": text}).to_string());
    let Some(sent) = credentials::bearer(&parts.headers).map(ToOwned::to_owned) else {
        return result(StatusCode::BAD_REQUEST, "No JWT found");
    };
    let table = std::sync::Arc::clone(&door.tables.borrow());
    let now = seconds(SystemTime::now());
    let ended = tokio::task::spawn_blocking(move || {
        let mut last = None;
        for account in table.keys.accounts() {
            match account.log_out(&sent, now) {
                Ok(()) => return Ok(()),
                Err(EndError::Token(_)) => {}
                Err(err) => last = Some(err),
            }
        }
        Err(last)
    });
    match ended.await {
        Ok(Ok(())) => answer::json(StatusCode::OK, "{}"),
        Ok(Err(None)) => result(StatusCode::BAD_REQUEST, "Token could not be deleted"),
        Ok(Err(Some(err))) => {
            log::error!(cid:% = cid, error:% = Chain(&err); "log-out cannot be kept");
            let details = json!("the log-out cannot be kept now; try again");
            answer::error(DataFormat::Json, StatusCode::SERVICE_UNAVAILABLE, cid, &details)
        }
        Err(err) => {
            log::error!(cid:% = cid, error:% = err; "log-out ended badly");
            let details = json!("the log-out cannot be kept now; try again");
            answer::error(DataFormat::Json, StatusCode::SERVICE_UNAVAILABLE, cid, &details)
        }
    }
}

/// Largest body of a log-in.
const LOG_IN_BYTES: usize = 16 * 1024;

fn health(door: &Door) -> Answer {
    match (door.readiness)() {
        Ok(()) => answer::json(StatusCode::OK, Bytes::from_static(b"{\"ready\":true}")),
        Err(reason) => answer::json(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"ready": false, "reason": reason}).to_string(),
        ),
    }
}

fn ping(cid: &Cid) -> Answer {
    // The id has no character that JSON would escape.
    let document = format!(
        "{{\"pong\":\"zato\",\"zato_env\":{{\"result\":\"ZATO_OK\",\"cid\":\"{cid}\",\"details\":\"\"}}}}"
    );
    answer::json(StatusCode::OK, document)
}

async fn ide_deploy(door: &Door, parts: &Parts, body: Incoming, cid: &Cid, peer: &Peer) -> Answer {
    let table = std::sync::Arc::clone(&door.tables.borrow());
    let addr = crate::limits::address(document::remote(&parts.headers, peer));
    let presented = Presented::of_headers(&parts.headers, addr, SystemTime::now());
    let user = match table.ide.pass(&presented, &door.shared.slowing).await {
        Ok(Some(passed)) => passed.name.to_string(),
        // A gate that asks for nothing is not made for this path.
        Ok(None) => return answer::not_found(cid),
        Err(refusal) => {
            if let Some(left_out) = door.ide_attempts.count(Instant::now()) {
                log::warn!(
                    cid:% = cid, remote = document::remote(&parts.headers, peer),
                    refusal:? = refusal, reason = table.ide.faults().join("; "), left_out;
                    "deployment from an editor may not pass"
                );
            }
            return Denied::of_refusal(&table.ide, &refusal).answer(DataFormat::Json, cid);
        }
    };
    let limit = usize::try_from(door.max_body_bytes).unwrap_or(usize::MAX);
    let body =
        match body::read(body, Coding::Identity, limit, BUILTIN_BODY_LIMIT, &door.budget, None)
            .await
        {
            Ok(whole) => whole.bytes,
            Err(err) => return deployed(false, &format!("the {}", Chain(&err))),
        };
    if body.trim_ascii().is_empty() {
        return deployed(true, "pong: this box takes deployments");
    }
    let sent: Sent = match serde_json::from_slice(&body) {
        Ok(sent) => sent,
        Err(err) => {
            return deployed(
                false,
                &format!("`payload_name` and `payload` (base64) were expected: {err}"),
            );
        }
    };
    let Sent { payload_name, payload } = sent;
    let request = IdeDeployRequest { user, payload_name, payload };
    let admin = Client(door.admin.0.clone().with_cid(cid.as_str()));
    match admin.ide_deploy(&request).await {
        Ok(done) => deployed(true, &success(&request.payload_name, &done)),
        Err(err @ ClientError::Answer { status: 400..=499, .. }) => {
            deployed(false, &Chain(&err).to_string())
        }
        Err(err) => {
            log::error!(cid:% = cid, error:% = Chain(&err); "deployment from an editor failed");
            deployed(
                false,
                &format!("the deployment failed inside; the log has the cause under `{cid}`"),
            )
        }
    }
}

fn success(payload_name: &str, done: &DeployAnswer) -> String {
    let services: Vec<&str> = done.services.iter().map(|service| service.name.as_str()).collect();
    format!(
        "deployed `{payload_name}` in {:.0} ms; services: {}",
        done.elapsed_ms,
        services.join(", ")
    )
}

fn deployed(success: bool, msg: &str) -> Answer {
    let document = json!({"zato_ide_deploy_create_response": {"success": success, "msg": msg}});
    answer::json(StatusCode::OK, document.to_string())
}
