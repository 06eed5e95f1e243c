//! What a channel keeps of requests and answers (its `audit`), as it is handed around.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::ObjectName;

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A request.
    Received,
    /// An answer.
    Sent,
}

/// One request or answer as it was kept: cut to the channel's limit, and with `***` for what is masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Counts the messages of a box from 1.
    pub seq: u64,
    /// When the request came in, or the answer was ready, Unix milliseconds.
    pub time_ms: u64,
    /// The channel.
    pub channel: ObjectName,
    /// Which way it went.
    pub direction: Direction,
    /// The request's correlation id: its answer has the same.
    pub cid: String,
    /// The method of the request.
    pub method: String,
    /// Its path, with the query.
    pub path: String,
    /// Where it came from.
    pub remote: String,
    /// The security that let it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long the answer took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<f64>,
    /// Names and values of the headers.
    pub headers: Vec<(String, String)>,
    /// How long the body was.
    pub bytes: u64,
    /// The body, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Whether that is not all of it.
    #[serde(default)]
    pub is_truncated: bool,
    /// Why there is no body, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What messages are wanted; the query of `GET /v1/channels/{name}/messages`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageQuery {
    /// Only those that went this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Only those of this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Only messages before this number: the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most this many, 1 to 200; default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
}

/// A page of messages, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessagePage {
    /// The messages.
    pub messages: Vec<Message>,
    /// What `before` of the next page is; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
