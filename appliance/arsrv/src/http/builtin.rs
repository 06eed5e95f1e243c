//! The paths of our own on the data path: health, ping, and deployments from editors.
//!
//! They come before channels, so no channel can take them over.

use std::time::Instant;

use arapi::arwadm::{Client, DeployAnswer, IdeDeployRequest};
use arapi::client::ClientError;
use arapi::names::Cid;
use arapi::objects::{DataFormat, HttpMethod};
use arbase::Chain;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::answer::{self, Answer};
use super::door::{BUILTIN_BODY_LIMIT, Door, of_refusal};
use super::listen::Peer;
use super::{body, document};

/// A path of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// `/arint/health`: whether requests would be served, for the balancer.
    Health,
    /// `/zato/ping`: as in 3.2.
    Ping,
    /// `/ide-deploy`: deployments from the editor plug-ins of 3.2.
    IdeDeploy,
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
            "/arint/health" => Some(Self::Health),
            "/zato/ping" => Some(Self::Ping),
            "/ide-deploy" => Some(Self::IdeDeploy),
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
    };
    match builtin {
        _ if !fits => answer::not_found(cid),
        Builtin::Health => health(door),
        Builtin::Ping => ping(cid),
        Builtin::IdeDeploy => ide_deploy(door, parts, body, cid, peer).await,
    }
}

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
    let user = match table.ide.check(&parts.headers) {
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
            return of_refusal(&table.ide, DataFormat::Json, cid, &refusal);
        }
    };
    let limit = usize::try_from(door.max_body_bytes).unwrap_or(usize::MAX);
    let body = match body::read(body, limit, BUILTIN_BODY_LIMIT, &door.budget).await {
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
