//! Answers of services as JSON values, for protocols that carry them inside a document of their own.

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};

use crate::call::Reply;

/// What a service answered, as a JSON value: a document as it is, anything else as a text.
///
/// Fails with a sentence where it is neither.
pub fn of_reply(reply: Reply) -> Result<Box<RawValue>, String> {
    let Ok(text) = String::from_utf8(Vec::from(reply.body)) else {
        return Err("the service answered with bytes that are no text".to_owned());
    };
    let is_json = reply.content_type.as_deref().is_some_and(is_json);
    if is_json {
        return RawValue::from_string(text).map_err(|err| {
            format!("the service's answer says that it is JSON, and is not: {err}")
        });
    }
    to_raw_value(&text)
        .map_err(|err| format!("the service's answer cannot be written as JSON: {err}"))
}

/// Whether a content type is that of JSON.
fn is_json(content_type: &str) -> bool {
    let bare = content_type.split(';').next().unwrap_or_default().trim();
    bare.eq_ignore_ascii_case("application/json")
        || bare
            .get(bare.len().saturating_sub(5)..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

/// A value as the body of a call.
pub fn body_of(value: Option<&RawValue>) -> Bytes {
    value.map(|value| Bytes::copy_from_slice(value.get().as_bytes())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: Option<&str>, body: &'static [u8], expected: Result<&str, &str>) {
        let reply = Reply {
            status: 200,
            content_type: content_type.map(ToOwned::to_owned),
            headers: Vec::new(),
            body: Bytes::from_static(body),
        };
        let found = of_reply(reply);
        assert_eq!(found.as_deref().map(RawValue::get).map_err(String::as_str), expected);
    }

    #[test]
    fn documents_stay_as_they_are_and_texts_are_quoted() {
        check(Some("application/json"), b"{\"a\": 1}", Ok("{\"a\": 1}"));
        check(Some("application/problem+json; charset=utf-8"), b"[1]", Ok("[1]"));
        check(Some("text/plain"), b"say \"hi\"", Ok("\"say \\\"hi\\\"\""));
        check(None, b"", Ok("\"\""));
        check(Some("text/plain"), b"\xff", Err("the service answered with bytes that are no text"));
        check(
            Some("application/json"),
            b"{",
            Err(
                "the service's answer says that it is JSON, and is not: EOF while parsing an object at line 1 column 1",
            ),
        );
    }
}
