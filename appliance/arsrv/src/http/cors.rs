//! Which pages of other origins may call a channel from a browser: the CORS protocol of the Fetch standard.
//!
//! A browser asks first (a preflight) whether it may send what is more than a form could send; that is answered here,
//! without the service and without credentials, because browsers send none with it.  Every answer of the channel then
//! says whether the page may read it, those to refused requests too: else a page could not tell 401 from a
//! broken network.
//!
//! This protects nobody who calls without a browser: it is the channel's security that keeps others out.

use std::collections::HashSet;

use arapi::names::Cid;
use arapi::objects::{ChannelSpec, Cors, DataFormat, HttpMethod};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::answer::{self, Answer, Payload};

/// What a preflight's answer depends on.
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);
/// Headers that every request may have, and a browser may ask for all the same.
const ALWAYS: &[&str] = &["accept", "accept-language", "content-language", "range"];

/// A channel's rules, ready for use.
#[derive(Debug)]
pub struct Rules {
    is_for_all: bool,
    origins: HashSet<String>,
    /// Scheme, and what the host has to end with.
    below: Vec<(String, String)>,
    methods: Vec<HttpMethod>,
    any_header: bool,
    headers: HashSet<String>,
    credentials: bool,
    allow_methods: HeaderValue,
    allow_headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl Rules {
    /// The rules of a channel, if it has any.
    pub fn of(spec: &ChannelSpec) -> Option<Self> {
        let cors: &Cors = spec.cors.as_ref()?;
        let methods = match (cors.methods.as_slice(), spec.method) {
            ([], None) => HttpMethod::ALL.to_vec(),
            ([], Some(only)) => vec![only],
            (named, _) => named.to_vec(),
        };
        let joined = |texts: &[String]| {
            (!texts.is_empty()).then(|| HeaderValue::from_str(&texts.join(", ")).ok()).flatten()
        };
        let words: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
        let below = cors.origins.iter().filter_map(|origin| {
            let (scheme, host) = origin.split_once("://*")?;
            Some((format!("{scheme}://"), host.to_owned()))
        });
        Some(Self {
            is_for_all: cors.origins.iter().any(|origin| origin == "*"),
            below: below.collect(),
            origins: cors.origins.iter().cloned().collect(),
            allow_methods: HeaderValue::from_str(&words.join(", ")).ok()?,
            methods,
            any_header: cors.headers.iter().any(|name| name == "*"),
            headers: cors.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            allow_headers: joined(&cors.headers),
            credentials: cors.allow_credentials,
            expose: joined(&cors.expose_headers),
            max_age: HeaderValue::from(cors.max_age),
        })
    }

    fn takes_origin(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        self.is_for_all
            || self.origins.contains(origin)
            || self.below.iter().any(|(scheme, end)| {
                let host = origin.strip_prefix(scheme.as_str());
                host.and_then(|host| host.strip_suffix(end.as_str()))
                    .is_some_and(|name| !name.is_empty() && !name.contains(['/', ':', '@']))
            })
    }

    /// What says to a page of this origin that it may.
    fn allow(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let named = if self.is_for_all { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, named);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }

    /// Tells the browser whether the page may read this answer.  What the service says about it does not count.
    pub fn put(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        if !self.is_for_all {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = asked.get(ORIGIN).filter(|origin| self.takes_origin(origin)) else {
            return;
        };
        self.allow(origin, headers);
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// Answers a preflight for the channel.
    pub fn preflight(&self, parts: &Parts, asked: HttpMethod, cid: &Cid) -> Answer {
        let headers = &parts.headers;
        let refused = |sentence: String| {
            log::debug!(cid:% = cid, reason = sentence.as_str(); "preflight refused");
            let mut answer =
                answer::error(DataFormat::None, StatusCode::FORBIDDEN, cid, &Value::from(sentence));
            answer.headers_mut().insert(VARY, PREFLIGHT_VARY);
            answer
        };
        let Some(origin) = headers.get(ORIGIN).filter(|origin| self.takes_origin(origin)) else {
            return refused("pages of this origin may not call this channel".to_owned());
        };
        if !self.methods.contains(&asked) {
            return refused(format!("pages may not use {} here", asked.as_str()));
        }
        let wanted = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
        let wanted = wanted.filter_map(|value| value.to_str().ok());
        let mut names = wanted.flat_map(|value| value.split(',')).map(str::trim);
        let foreign = names.find(|name| {
            let name = name.to_ascii_lowercase();
            !name.is_empty()
                && !self.any_header
                && !self.headers.contains(&name)
                && !ALWAYS.contains(&name.as_str())
        });
        if let Some(name) = foreign {
            return refused(format!("pages may not send `{}` here", name.escape_debug()));
        }
        let mut answer = Answer::new(Payload::from(Bytes::new()));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let out = answer.headers_mut();
        self.allow(origin, out);
        out.insert(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone());
        // Named one by one: `*` is taken literally where there are credentials, and never covers `Authorization`.
        let told = match headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            Some(wanted) if self.any_header => Some(wanted.clone()),
            _ => self.allow_headers.clone().filter(|_| !self.any_header),
        };
        if let Some(told) = told {
            out.insert(ACCESS_CONTROL_ALLOW_HEADERS, told);
        }
        out.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        out.insert(VARY, PREFLIGHT_VARY);
        answer
    }
}

/// The method that a preflight asks about; None if the request is none.
pub fn asked_method(parts: &Parts) -> Option<HttpMethod> {
    let asked = parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    parts.headers.get(ORIGIN)?;
    HttpMethod::ALL.iter().copied().find(|method| asked == method.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn origins_are_compared_whole_and_names_below_one_by_their_end() {
        let spec: ChannelSpec = serde_json::from_value(json!({
            "url_path": "/", "service": "s",
            "cors": {"origins": ["https://a.example", "https://*.b.example"]},
        }))
        .unwrap();
        let rules = Rules::of(&spec).unwrap();
        for (origin, expected) in [
            ("https://a.example", true),
            ("http://a.example", false),
            ("https://a.example:8443", false),
            ("https://a.example.evil.example", false),
            ("https://x.b.example", true),
            ("https://y.x.b.example", true),
            ("https://b.example", false),
            ("https://.b.example", false),
            ("https://evilb.example", false),
            ("https://evil.example/.b.example", false),
            ("null", false),
        ] {
            let value = HeaderValue::from_static(origin);
            assert_eq!(rules.takes_origin(&value), expected, "{origin}");
        }
    }
}
