//! Takes out of a message what is not to be kept, and cuts it.
//!
//! Fields are found by name, without regard to case, wherever they stand: in JSON, in forms, in XML (elements and
//! attributes), in the query.  What is none of these has no fields that could be told apart.

use std::borrow::Cow;
use std::collections::HashSet;

use arapi::messages::Message;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Entry;
use super::keep::Ready;

/// What stands in the place of a value.
pub const MASK: &str = "***";
/// Headers whose values are never kept.
pub const CREDENTIALS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "www-authenticate",
];

/// A message as it goes to disk.
pub(super) fn ready(entry: &Entry) -> Ready {
    let rules = &entry.rules;
    let headers = entry.headers.iter().map(|(name, value)| {
        let value = if rules.headers.contains(name) {
            MASK.to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        (name.to_string(), value)
    });
    let is_searched = entry.bytes == entry.body.len();
    let masked = if entry.is_streamed {
        Err("it is streamed")
    } else if rules.bytes == 0 {
        Err("bodies are not kept")
    } else {
        body(&entry.headers, &entry.body, &rules.fields, is_searched)
    };
    let (body, note) = match masked {
        Ok(_) if entry.bytes == 0 => (None, None),
        Ok(body) => {
            let kept = cut(&body, rules.bytes);
            (Some((kept.to_vec(), kept.len() < body.len() || !is_searched)), None)
        }
        Err(note) => (None, Some(note.to_owned()).filter(|_| entry.bytes > 0 || entry.is_streamed)),
    };
    let (body, is_truncated) = body.map_or((None, false), |(body, is_cut)| (Some(body), is_cut));
    let head = Message {
        seq: 0,
        time_ms: entry.time_ms,
        channel: entry.channel.clone(),
        direction: entry.direction,
        cid: entry.cid.to_string(),
        method: entry.method.clone(),
        path: path(&entry.path, &rules.fields).into_owned(),
        remote: entry.remote.clone(),
        caller: entry.caller.as_ref().map(ToString::to_string),
        status: entry.status,
        elapsed_ms: entry.elapsed_ms,
        headers: headers.collect(),
        bytes: u64::try_from(entry.bytes).unwrap_or(u64::MAX),
        body: None,
        body_base64: None,
        is_truncated,
        note,
    };
    Ready { head, body, most: rules.most }
}

/// The first bytes of a body; of text, whole characters.
fn cut(body: &[u8], most: usize) -> &[u8] {
    let Some(first) = body.get(..most) else { return body };
    match std::str::from_utf8(first) {
        // A character that the cut went through.
        Err(err) if err.error_len().is_none() => first.get(..err.valid_up_to()).unwrap_or(first),
        _ => first,
    }
}

fn is_named(name: &str, fields: &HashSet<String>) -> bool {
    fields.contains(&name.to_ascii_lowercase())
}

/// A path, with the values of such parameters of its query masked.
fn path<'p>(path: &'p str, fields: &HashSet<String>) -> Cow<'p, str> {
    match path.split_once('?') {
        Some((before, query)) if !fields.is_empty() => {
            format!("{before}?{}", form(query, fields)).into()
        }
        _ => path.into(),
    }
}

fn form(text: &str, fields: &HashSet<String>) -> String {
    let pairs: Vec<Cow<'_, str>> = text
        .split('&')
        .map(|pair| {
            let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = name.replace('+', " ");
            if is_named(&percent_decode_str(&plain).decode_utf8_lossy(), fields) {
                format!("{name}={MASK}").into()
            } else {
                pair.into()
            }
        })
        .collect();
    pairs.join("&")
}

/// A body with the values of the fields masked; fails with why none of it may be kept.
pub fn body<'b>(
    headers: &HeaderMap,
    body: &'b [u8],
    fields: &HashSet<String>,
    is_whole: bool,
) -> Result<Cow<'b, [u8]>, &'static str> {
    let start = body.trim_ascii_start();
    let looks_like_xml = start.starts_with(b"<") || start.starts_with(b"\xef\xbb\xbf<");
    let has_credentials = looks_like_xml && memchr::memmem::find(body, b"UsernameToken").is_some();
    if (fields.is_empty() && !has_credentials) || body.is_empty() {
        return Ok(body.into());
    }
    if !is_whole {
        return Err("it is too large to be searched for fields that are masked");
    }
    if let Ok(mut document) = serde_json::from_slice::<Value>(body) {
        let is_changed = json(&mut document, fields);
        return Ok(if is_changed { document.to_string().into_bytes().into() } else { body.into() });
    }
    let unknown = "fields that are masked cannot be told apart in it";
    let text = std::str::from_utf8(body).map_err(|_| unknown)?;
    if looks_like_xml {
        let mut fields = fields.clone();
        if has_credentials {
            fields.extend(["password".to_owned(), "nonce".to_owned()]);
        }
        return xml(text, &fields).map(|text| text.into_bytes().into()).ok_or(unknown);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = content_type.unwrap_or_default().starts_with("application/x-www-form-urlencoded");
    if is_form { Ok(form(text, fields).into_bytes().into()) } else { Err(unknown) }
}

/// Masks fields of a document, and of documents in it; says whether there were any.
fn json(document: &mut Value, fields: &HashSet<String>) -> bool {
    let mut is_changed = false;
    match document {
        Value::Object(members) => {
            for (name, value) in members {
                if is_named(name, fields) {
                    *value = Value::from(MASK);
                    is_changed = true;
                } else {
                    is_changed |= json(value, fields);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                is_changed |= json(item, fields);
            }
        }
        _ => {}
    }
    is_changed
}

/// Masks elements and attributes; None if the document is not well-formed enough to be sure of them.
fn xml(text: &str, fields: &HashSet<String>) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at_checked(at)?;
        out.push_str(before);
        let plain_end = if tag.starts_with("<!--") {
            Some("-->")
        } else if tag.starts_with("<![CDATA[") {
            Some("]]>")
        } else if tag.starts_with("<?") {
            Some("?>")
        } else if tag.starts_with("</") {
            Some(">")
        } else if tag.starts_with("<!") {
            // A DOCTYPE can rename everything.
            return None;
        } else {
            None
        };
        if let Some(end) = plain_end {
            let length = tag.find(end)? + end.len();
            let (whole, after) = tag.split_at_checked(length)?;
            out.push_str(whole);
            rest = after;
            continue;
        }
        let (whole, after) = tag.split_at_checked(tag_length(tag)?)?;
        let name =
            whole.get(1..)?.split(|c: char| c.is_whitespace() || c == '/' || c == '>').next()?;
        attributes(whole, name, fields, &mut out)?;
        rest = after;
        if is_named(local(name), fields) && !whole.ends_with("/>") {
            let content = content_length(after, name)?;
            out.push_str(MASK);
            rest = after.get(content..)?;
        }
    }
    out.push_str(rest);
    Some(out)
}

/// The name without its prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// How long a start tag is; a `>` in a value does not end it.
fn tag_length(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in tag.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (None, '>') => return Some(at + 1),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

/// Writes a start tag with the values of such attributes masked.
fn attributes(tag: &str, name: &str, fields: &HashSet<String>, out: &mut String) -> Option<()> {
    let (head, mut rest) = tag.split_at_checked(1 + name.len())?;
    out.push_str(head);
    while let Some(at) = rest.find(['"', '\'']) {
        let (before, value) = rest.split_at_checked(at)?;
        let quote = value.chars().next()?;
        let inner = value.get(1..)?;
        let end = inner.find(quote)?;
        let attribute = before.trim().trim_end_matches('=').trim();
        out.push_str(before);
        out.push(quote);
        let value = inner.get(..end)?;
        out.push_str(if is_named(local(attribute), fields) { MASK } else { value });
        out.push(quote);
        rest = inner.get(end + 1..)?;
    }
    out.push_str(rest);
    Some(())
}

/// How far it is to the end tag of an element, past elements of the same name in it.
fn content_length(text: &str, name: &str) -> Option<usize> {
    let mut depth = 1;
    let mut at = 0;
    loop {
        at += text.get(at..)?.find('<')?;
        let tag = text.get(at..)?;
        let ends =
            |rest: &str| rest.starts_with(|c: char| c.is_whitespace() || c == '>' || c == '/');
        if let Some(after) = tag.strip_prefix("</").and_then(|tag| tag.strip_prefix(name))
            && ends(after)
        {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        } else if let Some(after) = tag.strip_prefix('<').and_then(|tag| tag.strip_prefix(name))
            && ends(after)
            && !tag.get(..tag_length(tag)?)?.ends_with("/>")
        {
            depth += 1;
        }
        let skip = if tag.starts_with("<!--") {
            tag.find("-->")?
        } else if tag.starts_with("<![CDATA[") {
            tag.find("]]>")?
        } else {
            1
        };
        at += skip.max(1);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields() -> HashSet<String> {
        ["pin", "iban"].map(ToOwned::to_owned).into()
    }

    #[track_caller]
    fn check(content_type: &'static str, text: &str, expected: Result<&str, &str>) {
        let headers =
            [(CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect();
        let masked = body(&headers, text.as_bytes(), &fields(), true);
        let masked = masked.map(|masked| String::from_utf8(masked.into_owned()).unwrap());
        assert_eq!(masked.as_deref(), expected.as_ref().copied(), "{text}");
    }

    const UNKNOWN: Result<&str, &str> = Err("fields that are masked cannot be told apart in it");

    #[test]
    fn fields_of_json_are_masked_wherever_they_stand() {
        check("application/json", r#"{ "a": 1 }"#, Ok(r#"{ "a": 1 }"#));
        check(
            "",
            r#"{"PIN": 1234, "a": [{"iban": {"x": 1}}, "pin"]}"#,
            Ok(r#"{"PIN":"***","a":[{"iban":"***"},"pin"]}"#),
        );
        check("application/json", r#"{"pin": 1234"#, UNKNOWN);
    }

    #[test]
    fn fields_of_forms_and_queries_are_masked() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        check(form, "a=1&p%69n=12&iban=&b", Ok("a=1&p%69n=***&iban=***&b"));
        check("text/csv", "pin,a\n1,2\n", UNKNOWN);
        assert_eq!(path("/x?pin=1&a=2", &fields()), "/x?pin=***&a=2");
        assert_eq!(path("/pin", &fields()), "/pin");
    }

    #[test]
    fn elements_and_attributes_of_xml_are_masked() {
        let xml = "text/xml";
        check(xml, "<a><b:Pin>1</b:Pin><c>pin</c></a>", Ok("<a><b:Pin>***</b:Pin><c>pin</c></a>"));
        check(xml, "<a pin='1' x=\"2>\"/>", Ok("<a pin='***' x=\"2>\"/>"));
        check(xml, "<pin><pin>1</pin><pinx/>2</pin>3", Ok("<pin>***</pin>3"));
        check(xml, "<pin a='>'><![CDATA[</pin>]]></pin>.", Ok("<pin a='>'>***</pin>."));
        check(xml, "<!-- <pin> --><pin/><a>1</a>", Ok("<!-- <pin> --><pin/><a>1</a>"));
        check(xml, "<a><pin>1</a>", UNKNOWN);
        check(xml, "<!DOCTYPE a [<!ENTITY x '<pin>1</pin>'>]><a>&x;</a>", UNKNOWN);
    }

    #[test]
    fn passwords_of_ws_security_are_masked_without_being_named() {
        let envelope = b"<e><w:UsernameToken><w:Username>u</w:Username><w:Password Type=\"x\">s3cret</w:Password></w:UsernameToken></e>";
        let masked = body(&HeaderMap::new(), envelope, &HashSet::new(), true).unwrap();
        let masked = String::from_utf8(masked.into_owned()).unwrap();
        assert!(
            masked.contains("<w:Username>u</w:Username><w:Password Type=\"x\">***</w:Password>"),
            "{masked}"
        );
    }

    #[test]
    fn what_is_too_large_to_be_searched_is_not_kept() {
        let found = body(&HeaderMap::new(), b"{", &fields(), false);
        assert_eq!(found, Err("it is too large to be searched for fields that are masked"));
        assert!(body(&HeaderMap::new(), b"{", &HashSet::new(), false).is_ok());
    }

    #[test]
    fn a_cut_goes_through_no_character() {
        assert_eq!(cut("aöb".as_bytes(), 2), b"a");
        assert_eq!(cut("aöb".as_bytes(), 3), "aö".as_bytes());
        assert_eq!(cut(b"\xff\xff\xff", 2), b"\xff\xff");
        assert_eq!(cut(b"ab", 5), b"ab");
    }
}
