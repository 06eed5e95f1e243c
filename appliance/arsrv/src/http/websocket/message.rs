//! What is said over a WebSocket: the messages of 3.2.
//!
//! A client's message has `meta` (what it is: action, id, token, …) and `data` (the service's business).  So has every
//! message to a client; `meta.msg_type` says what that is, `meta.in_reply_to` is the id of what it answers.

use arapi::names::Cid;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::worker::frame::put_json_string;

/// A message of a client.
#[derive(Debug)]
pub struct ClientMessage {
    /// What it wants.
    pub action: Action,
    /// Its id, as it is written; None: it has none.
    pub id: Option<Box<RawValue>>,
    /// Its session.
    pub token: Option<String>,
    /// What it is about; None: nothing.
    pub data: Option<Box<RawValue>>,
}

/// What a message wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// A session.
    CreateSession(Credentials),
    /// An answer of the service.
    Invoke,
    /// It answers a request of ours.
    Respond(String),
}

/// Who a client says it is.
#[derive(Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: Option<String>,
    /// The password, or a token.
    pub secret: Option<String>,
    /// The client's own id.
    pub client_id: Option<String>,
    /// What it is called.
    pub client_name: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Written<'m> {
    #[serde(borrow, default)]
    meta: Option<Meta<'m>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'m RawValue>,
}

#[derive(Deserialize, Default)]
struct Meta<'m> {
    #[serde(default)]
    action: Option<String>,
    #[serde(borrow, default)]
    id: Option<&'m RawValue>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    client_id: Option<Value>,
    #[serde(default)]
    client_name: Option<Value>,
    #[serde(default)]
    in_reply_to: Option<String>,
}

/// A member that is there, also where it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a message; fails with a sentence.
pub fn parse(text: &str) -> Result<ClientMessage, String> {
    let Written { meta, data } = serde_json::from_str(text)
        .map_err(|err| format!("the message is not JSON with `meta` and `data`: {err}"))?;
    let meta = meta.unwrap_or_default();
    if let Some(id) = meta.id
        && (!id.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            || id.get().len() > 256)
    {
        return Err("`meta.id` is neither a short text nor a number".to_owned());
    }
    let action = match meta.action.as_deref() {
        Some("create-session") => Action::CreateSession(Credentials {
            username: meta.username,
            secret: meta.secret,
            client_id: meta.client_id.and_then(name_of),
            client_name: meta.client_name.and_then(name_of),
        }),
        Some("client-response") => match meta.in_reply_to {
            Some(answered) => Action::Respond(answered),
            None => return Err("a response has no `meta.in_reply_to`".to_owned()),
        },
        // 3.2 takes a message without an action for an answer if it can be one.
        None if meta.in_reply_to.is_some() => Action::Respond(meta.in_reply_to.unwrap_or_default()),
        _ => Action::Invoke,
    };
    Ok(ClientMessage {
        action,
        id: meta.id.map(ToOwned::to_owned),
        token: meta.token,
        data: data.map(ToOwned::to_owned),
    })
}

/// A client's name for itself: a text, or as 3.2 has it an object, whose parts are joined.
fn name_of(value: Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text,
        Value::Object(parts) => {
            let part = |(name, value): (String, Value)| match value {
                Value::String(text) => format!("{name}: {text}"),
                other => format!("{name}: {other}"),
            };
            parts.into_iter().map(part).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    };
    Some(text.chars().filter(|c| !c.is_control()).take(256).collect())
}

/// The service that a message to a gateway names, and what it is to get.
pub fn named(data: Option<&RawValue>) -> Option<(String, Option<Box<RawValue>>)> {
    #[derive(Deserialize)]
    struct Named<'m> {
        service: String,
        #[serde(borrow, default)]
        request: Option<&'m RawValue>,
    }
    let Named { service, request } = serde_json::from_str(data?.get()).ok()?;
    Some((service, request.map(ToOwned::to_owned)))
}

/// What `meta` of a message to a client has.
struct Head<'h> {
    id: &'h Cid,
    msg_type: &'static str,
    now_ms: u64,
    status: Option<u16>,
    in_reply_to: Option<&'h RawValue>,
    error: Option<&'h str>,
}

fn written(head: &Head<'_>, data: Option<&[u8]>) -> String {
    let mut out = Vec::with_capacity(192 + data.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"meta\":{\"id\":");
    put_json_string(&mut out, head.id.as_str());
    out.extend_from_slice(b",\"timestamp\":");
    // As 3.2 has it: UTC, and no word of it.
    put_json_string(&mut out, arbase::time::rfc3339(head.now_ms).trim_end_matches('Z'));
    out.extend_from_slice(b",\"msg_type\":");
    put_json_string(&mut out, head.msg_type);
    if let Some(status) = head.status {
        out.extend_from_slice(format!(",\"status\":{status}").as_bytes());
    }
    if let Some(id) = head.in_reply_to {
        out.extend_from_slice(b",\"in_reply_to\":");
        out.extend_from_slice(id.get().as_bytes());
    }
    if let Some(error) = head.error {
        out.extend_from_slice(b",\"error_message\":");
        put_json_string(&mut out, error);
    }
    out.push(b'}');
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
    }
    out.push(b'}');
    // Everything that was put in is UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

/// A session was created.
pub fn session(cid: &Cid, id: Option<&RawValue>, token: &str, now_ms: u64) -> String {
    let head = Head {
        id: cid,
        msg_type: "zwsx.rspa",
        now_ms,
        status: Some(200),
        in_reply_to: id,
        error: None,
    };
    written(&head, Some(format!("{{\"token\":\"{token}\"}}").as_bytes()))
}

/// What the service answered.  As in 3.2 there is no `data` where there is nothing in it.
pub fn response(cid: &Cid, id: Option<&RawValue>, data: &RawValue, now_ms: u64) -> String {
    let head = Head {
        id: cid,
        msg_type: "zwsx.rspok",
        now_ms,
        status: Some(200),
        in_reply_to: id,
        error: None,
    };
    let is_nothing = matches!(data.get(), "\"\"" | "{}" | "[]" | "null" | "0" | "false");
    written(&head, (!is_nothing).then(|| data.get().as_bytes()))
}

/// What went wrong with a message.
pub fn error(cid: &Cid, id: Option<&RawValue>, status: u16, sentence: &str, now_ms: u64) -> String {
    let head = Head {
        id: cid,
        msg_type: "zwsx.rsperr",
        now_ms,
        status: Some(status),
        in_reply_to: id,
        error: Some(sentence),
    };
    written(&head, Some(format!("{{\"cid\":\"{cid}\"}}").as_bytes()))
}

/// The client may not go on; its connection is closed.
pub fn forbidden(cid: &Cid, now_ms: u64) -> String {
    let head = Head {
        id: cid,
        msg_type: "zwsx.merr",
        now_ms,
        status: Some(403),
        in_reply_to: None,
        error: None,
    };
    written(&head, Some(b"\"You are not authorized to access this resource\""))
}

/// Something for a client that it has not asked for.
pub fn request(cid: &Cid, data: &[u8], now_ms: u64) -> String {
    let head = Head {
        id: cid,
        msg_type: "zwsx.rqc",
        now_ms,
        status: None,
        in_reply_to: None,
        error: None,
    };
    written(&head, Some(data))
}

/// For fuzzing: any text as a message; an answer to it has to be JSON.
#[expect(clippy::panic, reason = "this is how a fuzzer is told")]
pub fn fuzz(text: &str) {
    let cid = Cid::random();
    let answer = match parse(text) {
        Ok(message) => {
            named(message.data.as_deref());
            let data = message.data.unwrap_or_else(|| RawValue::NULL.to_owned());
            response(&cid, message.id.as_deref(), &data, 0)
        }
        Err(sentence) => error(&cid, None, 400, &sentence, 0),
    };
    if let Err(err) = serde_json::from_str::<serde::de::IgnoredAny>(&answer) {
        panic!("an answer that is no JSON: {answer}: {err}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_read_as_clients_of_3_2_send_them() {
        let message = json!({
            "meta": {"action": "create-session", "id": "a1", "timestamp": "2026-01-01T00:00:00", "username": "u",
                     "secret": "p", "client_id": "c7", "client_name": {"app": "x", "n": 1}},
            "data": {},
        });
        let ClientMessage { action, id, .. } = parse(&message.to_string()).unwrap();
        let Action::CreateSession(credentials) = action else { panic!() };
        assert_eq!(credentials.client_name.as_deref(), Some("app: x; n: 1"));
        assert_eq!(credentials.secret.as_deref(), Some("p"));
        assert!(!format!("{credentials:?}").contains("\"p\""));
        assert_eq!(id.unwrap().get(), "\"a1\"");
        let message =
            json!({"meta": {"action": "invoke-service", "id": 7, "token": "t"}, "data": [1]});
        let ClientMessage { action, id, token, data } = parse(&message.to_string()).unwrap();
        assert_eq!((action, id.unwrap().get()), (Action::Invoke, "7"));
        assert_eq!((token.as_deref(), data.unwrap().get()), (Some("t"), "[1]"));
        let message = json!({"meta": {"id": "b", "in_reply_to": "x"}, "data": "pong"});
        assert_eq!(parse(&message.to_string()).unwrap().action, Action::Respond("x".to_owned()));
        assert_eq!(parse("{}").unwrap().action, Action::Invoke);
    }

    #[test]
    fn what_is_no_message_is_told_so() {
        for (text, sentence) in [
            ("[", "the message is not JSON with `meta` and `data`: "),
            ("{\"meta\": 1}", "the message is not JSON with `meta` and `data`: "),
            ("{\"meta\": {\"id\": {}}}", "`meta.id` is neither a short text nor a number"),
            (
                "{\"meta\": {\"action\": \"client-response\"}}",
                "a response has no `meta.in_reply_to`",
            ),
        ] {
            assert!(parse(text).unwrap_err().starts_with(sentence), "{text}");
        }
    }

    #[test]
    fn answers_have_the_form_of_3_2() {
        let cid = Cid::parse("0123456789abcdef01234567").unwrap();
        let id: Box<RawValue> = serde_json::from_str("\"a1\"").unwrap();
        let data: Box<RawValue> = serde_json::from_str("{\"x\": 1}").unwrap();
        let value = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(
            value(response(&cid, Some(&id), &data, 0)),
            json!({"meta": {"id": "0123456789abcdef01234567", "timestamp": "1970-01-01T00:00:00.000",
                            "msg_type": "zwsx.rspok", "status": 200, "in_reply_to": "a1"}, "data": {"x": 1}})
        );
        let nothing: Box<RawValue> = serde_json::from_str("\"\"").unwrap();
        assert!(value(response(&cid, Some(&id), &nothing, 0)).get("data").is_none());
        assert_eq!(
            value(error(&cid, Some(&id), 404, "not here", 0))["meta"]["error_message"],
            "not here"
        );
        assert_eq!(value(forbidden(&cid, 0))["meta"]["msg_type"], "zwsx.merr");
    }
}
