//! `/openapi.json`, the document of the channels, and `/openapi`, a page that shows it.
//!
//! Both come after channels: a channel of one of these paths takes it over.  The page is a file in the program that loads
//! nothing from elsewhere and holds nothing of the box; it asks for the document like everybody else.

use std::sync::Arc;
use std::time::SystemTime;

use arapi::names::Cid;
use arapi::objects::{DataFormat, HttpMethod};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};

use super::answer::{self, Answer, Payload};
use super::document;
use super::door::Door;
use super::listen::Peer;
use super::steps::Denied;
use crate::channel::table::Table;
use crate::openapi::{self, Readers};
use crate::security::Presented;

/// What the page may do: its own script and style, calls to its own box.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, media type, text.
const FILES: &[(&str, &str, &str)] = &[
    ("/openapi", "text/html; charset=utf-8", include_str!("viewer/page.html")),
    ("/openapi/page.css", "text/css; charset=utf-8", include_str!("viewer/page.css")),
    ("/openapi/page.js", "text/javascript; charset=utf-8", include_str!("viewer/page.js")),
];

/// The answer, if the path is one of these.
pub(super) async fn answer(
    door: &Door,
    table: &Arc<Table>,
    method: HttpMethod,
    parts: &Parts,
    cid: &Cid,
    peer: &Peer,
) -> Option<Answer> {
    if door.openapi == Readers::Off || !matches!(method, HttpMethod::Get | HttpMethod::Head) {
        return None;
    }
    let path = parts.uri.path();
    if path == "/openapi.json" {
        return Some(of_document(door, table, parts, cid, peer).await);
    }
    let (_, media, text) = FILES.iter().find(|(file, _, _)| *file == path)?;
    let mut answer = Response::new(Payload::from(Bytes::from_static(text.as_bytes())));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // After an update the old script would not fit the new document.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(answer)
}

async fn of_document(
    door: &Door,
    table: &Arc<Table>,
    parts: &Parts,
    cid: &Cid,
    peer: &Peer,
) -> Answer {
    let caller = if door.openapi == Readers::Public {
        None
    } else {
        let addr = crate::limits::address(document::remote(&parts.headers, peer));
        let presented = Presented::of_headers(&parts.headers, addr, SystemTime::now());
        match table.all_keys.pass(&presented, &door.shared.slowing).await {
            Ok(Some(passed)) => Some(passed.name.clone()),
            // This gate asks for something always.
            Ok(None) => return answer::not_found(cid),
            Err(refusal) => {
                return Denied::of_refusal(&table.all_keys, &refusal).answer(DataFormat::Json, cid);
            }
        }
    };
    let channels = openapi::readable(table, caller.as_ref());
    let services = (door.services)();
    let version = format!("revision {}", table.revision);
    let document = openapi::document(&channels, &services, &version);
    let mut answer = answer::json(StatusCode::OK, document.to_string());
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_its_own_files_alone_and_writes_no_markup() {
        let (_, _, page) = FILES[0];
        for target in page.split(" src=\"").chain(page.split(" href=\"")).skip(1) {
            let target = target.split('"').next().unwrap();
            let is_own =
                target == "/openapi.json" || FILES.iter().any(|(path, _, _)| *path == target);
            assert!(is_own || !target.starts_with('/'), "{target}");
        }
        for (path, _, text) in FILES {
            assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
            for bad in [
                "innerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " onclick=",
                "<style",
            ] {
                assert!(!text.contains(bad), "{path}: {bad}");
            }
        }
    }
}
