//! Requests and answers held against their channel's schemas.
//!
//! **Invariant:** an answer that breaks its schema is never sent.

use std::fmt::Display;
use std::sync::Arc;

use arapi::names::Cid;
use arapi::objects::HttpMethod;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::answer::{self, Answer};
use crate::call::Reply;
use crate::channel::Channel;
use crate::channel::schema::{Schema, Violation};

/// Documents up to this size are checked at once, larger ones on a thread of their own.
const AT_ONCE: usize = 32 * 1024;

/// Checks a request's body.  Where the method needs none there may be none.
pub(super) async fn request(
    schema: &Arc<Schema>,
    method: HttpMethod,
    body: &Bytes,
) -> Result<(), Violation> {
    let needs_body = matches!(method, HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch);
    if body.is_empty() && !needs_body {
        return Ok(());
    }
    check(schema, body).await
}

/// Checks a service's answer.  One that says it failed is not what the schema is about.
pub(super) async fn reply(schema: &Arc<Schema>, reply: &Reply) -> Result<(), Violation> {
    let has_body = (200..300).contains(&reply.status) && reply.status != 204;
    if has_body { check(schema, &reply.body).await } else { Ok(()) }
}

async fn check(schema: &Arc<Schema>, document: &Bytes) -> Result<(), Violation> {
    if document.len() <= AT_ONCE {
        return schema.check(document);
    }
    let (schema, document) = (Arc::clone(schema), document.clone());
    let checked = tokio::task::spawn_blocking(move || schema.check(&document)).await;
    // Fails only when the runtime is stopping.
    checked.unwrap_or_else(|_| Err(Violation::NotJson("the core is stopping".to_owned())))
}

/// The answer in place of one that breaks its schema.
pub(super) fn not_sent(channel: &Channel, cid: &Cid, reason: &dyn Display) -> Answer {
    log::error!(
        cid:% = cid, channel:% = channel.name, service:% = channel.service, reason:% = reason;
        "answer breaks the channel's schema and was not sent"
    );
    let details =
        Value::from("the service's answer breaks the channel's schema; the log says where");
    answer::error(channel.spec.data_format, StatusCode::INTERNAL_SERVER_ERROR, cid, &details)
}
