//! The way through a connection for requests that are passed on: its address, ready to be filled in, and a client that
//! changes nothing of a message.  It has a pool of its own beside that of services' calls, of the same size.

use std::time::Duration;

use arapi::objects::OutgoingRest;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::address::{AddressError, IN_PATH};
use super::tls::TlsError;
use super::upload::Upload;

/// What cannot stand in the path of a request as it is.
const LITERAL: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'\\').add(b'^').add(b'|');

/// The way through a connection.
#[derive(Debug)]
pub struct Way {
    /// Sends requests.
    pub client: Client<HttpsConnector<HttpConnector>, Upload>,
    /// What `Host` is where the client's own is not kept.
    pub host: HeaderValue,
    scheme: Scheme,
    authority: Authority,
    pattern: String,
    /// Text, and the name of the parameter behind it.
    path: Vec<(String, Option<String>)>,
    query: String,
}

impl Way {
    /// Makes one; opens nothing yet.
    pub fn of(spec: &OutgoingRest, mut tls: rustls::ClientConfig) -> Result<Self, TlsError> {
        let broken = |fault: &str| TlsError::Setup(format!("`{}` {fault}", spec.host));
        let base: Uri = spec.host.parse().map_err(|_| broken("is no address"))?;
        let (Some(scheme), Some(authority)) = (base.scheme(), base.authority()) else {
            return Err(broken("has no scheme or no host"));
        };
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| broken("is no host"))?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_millis(spec.connect_timeout_ms)));
        // The builder asks for HTTP/1.1 itself.
        tls.alpn_protocols.clear();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(usize::try_from(spec.pool_size).unwrap_or(usize::MAX))
            .set_host(false)
            .build(connector);
        let (pattern, query) = spec.url_path.split_once('?').unwrap_or((&spec.url_path, ""));
        let literal = |text: &str| utf8_percent_encode(text, LITERAL).to_string();
        let mut path = Vec::new();
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, tail)) = after.split_once('}') else { break };
            path.push((literal(before), Some(name.to_owned())));
            rest = tail;
        }
        path.push((literal(rest), None));
        Ok(Self {
            client,
            host,
            scheme: scheme.clone(),
            authority: authority.clone(),
            pattern: pattern.to_owned(),
            path,
            query: literal(query),
        })
    }

    /// The address of a request: the connection's own query comes first, then the client's, as it was written.
    pub fn uri(&self, params: &[(&str, String)], query: Option<&str>) -> Result<Uri, AddressError> {
        let mut text = String::with_capacity(64);
        let mut last = None;
        for (before, name) in &self.path {
            text.push_str(before);
            let Some(name) = name else { continue };
            let Some((_, value)) = params.iter().find(|(known, _)| known == name) else {
                let (path, name) = (self.pattern.clone(), name.clone());
                return Err(AddressError::Missing { path, name });
            };
            text.extend(utf8_percent_encode(value, IN_PATH));
            last = Some(name);
        }
        if let Some(name) = last
            && text.split('/').any(|part| part == "." || part == "..")
        {
            return Err(AddressError::Climbs { name: name.clone() });
        }
        for (at, query) in [self.query.as_str(), query.unwrap_or_default()]
            .into_iter()
            .filter(|it| !it.is_empty())
            .enumerate()
        {
            text.push(if at == 0 { '?' } else { '&' });
            text.push_str(query);
        }
        let text = Bytes::from(text);
        let not_an_address = |fault: String| AddressError::NotAnAddress {
            text: String::from_utf8_lossy(&text).into_owned(),
            fault,
        };
        let path = PathAndQuery::from_maybe_shared(text.clone())
            .map_err(|err| not_an_address(err.to_string()))?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|err| not_an_address(err.to_string()))
    }

    /// Where a request leads, as it may be shown: queries may hold keys.
    pub fn shown(uri: &Uri) -> String {
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.authority());
        format!("{scheme}://{}{}", host.map_or("", Authority::as_str), uri.path())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outgoing::tls::{self, Trust};

    fn way(url_path: &str) -> Way {
        let spec = json!({"host": "http://h:81/", "url_path": url_path});
        Way::of(&serde_json::from_value(spec).unwrap(), tls::config(Trust::Anyone).unwrap())
            .unwrap()
    }

    #[track_caller]
    fn check(url_path: &str, value: &str, query: Option<&str>, expected: &str) {
        let uri = way(url_path).uri(&[("rest", value.to_owned())], query);
        let uri = uri.map_or_else(|err| err.to_string(), |uri| uri.to_string());
        assert_eq!(uri, expected);
    }

    #[tokio::test]
    async fn paths_are_filled_in_and_queries_joined() {
        check("/api/{rest}", "a/b c?d#é", None, "http://h:81/api/a/b%20c%3Fd%23%C3%A9");
        check("/x/{rest}/y", "1", Some("a=%20b&c"), "http://h:81/x/1/y?a=%20b&c");
        check("/x?key=1", "", Some("a=1"), "http://h:81/x?key=1&a=1");
        check("/x?key=1", "", None, "http://h:81/x?key=1");
        check("/ü", "", Some(""), "http://h:81/%C3%BC");
    }

    #[tokio::test]
    async fn a_value_cannot_climb_and_has_to_be_there() {
        let climbs = "the value of path parameter `rest` makes `.` or `..` a part of the path";
        check("/api/{rest}", "../admin", None, climbs);
        check("/api/{rest}", "a/./b", None, climbs);
        check("/api/{other}", "a", None, "path `/api/{other}` needs a value for `other`");
    }
}
