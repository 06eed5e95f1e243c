//! Where a pass-through channel leads, ready for use: the connection, and which headers go along.

use std::collections::HashSet;
use std::sync::Arc;

use arapi::names::{Kind, ObjectName};
use arapi::objects::access::fits_pattern;
use arapi::objects::{ChannelSpec, ForwardedHeaders, OutgoingSpec, PassThrough, Spec};
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, LOCATION, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, HeaderName};

use super::table::Target;
use crate::security::Gate;
use crate::security::certificate::HEADER as CLIENT_CERTIFICATE;
use crate::world::World;

/// What no choice leaves out, because the message cannot be read without it.
const ALWAYS: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_RANGE, LOCATION];

/// Where a pass-through channel leads.
#[derive(Debug)]
pub struct Onward {
    /// What the steps ask of a service: grants, limits, time.
    pub target: Target,
    /// The connection.
    pub outgoing: Arc<str>,
    /// The headers of requests that go along.
    pub request: Choice,
    /// The headers of answers that come back.
    pub response: Choice,
    /// How the other side learns who the client is.
    pub forwarded: ForwardedHeaders,
    /// Whether it sees the host that the client asked for.
    pub preserve_host: bool,
}

/// Which headers go along.
#[derive(Debug)]
pub struct Choice {
    takes_all: bool,
    named: HashSet<HeaderName>,
    patterns: Vec<String>,
    /// Those that only go along where they are named in full.
    held_back: Vec<HeaderName>,
}

impl Choice {
    /// Made from what was written; `held_back` are secrets between the client and the channel.
    fn of(written: &[String], held_back: Vec<HeaderName>) -> Self {
        let lower = || written.iter().map(|name| name.to_ascii_lowercase());
        let named: HashSet<HeaderName> = lower()
            .filter(|name| !name.contains('*'))
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            .chain(ALWAYS)
            .collect();
        let held_back = held_back.into_iter().filter(|name| !named.contains(name)).collect();
        Self {
            takes_all: written.iter().any(|name| name == "*"),
            patterns: lower().filter(|name| name.contains('*') && name != "*").collect(),
            named,
            held_back,
        }
    }

    /// Whether a header goes along.
    pub fn takes(&self, name: &HeaderName) -> bool {
        let fits = self.takes_all
            || self.named.contains(name)
            || self.patterns.iter().any(|pattern| fits_pattern(pattern, name.as_str()));
        fits && !self.held_back.contains(name)
    }
}

impl Onward {
    /// Where a channel leads.
    pub(super) fn of(pass: &PassThrough, gate: &Gate, target: Target) -> Self {
        let mut held_back: Vec<HeaderName> = vec![PROXY_AUTHORIZATION, CLIENT_CERTIFICATE];
        if !gate.is_open() {
            held_back.push(AUTHORIZATION);
            held_back.extend(gate.secret_headers().cloned());
        }
        Self {
            target,
            outgoing: pass.outgoing.as_str().into(),
            request: Choice::of(&pass.request_headers, held_back),
            response: Choice::of(&pass.response_headers, Vec::new()),
            forwarded: pass.forwarded,
            preserve_host: pass.preserve_host,
        }
    }

    /// Why a channel cannot lead there, if it cannot.
    pub(super) fn fault(spec: &ChannelSpec, pass: &PassThrough, world: &World) -> Option<String> {
        let name: &ObjectName = &pass.outgoing;
        let rest = match world.object(Kind::Outgoing, name).map(|object| &object.spec) {
            Some(Spec::Outgoing(OutgoingSpec::Rest(rest))) => rest,
            Some(_) => {
                return Some(format!("outgoing connection `{name}` is not a REST connection"));
            }
            None => return Some(format!("there is no outgoing connection `{name}`")),
        };
        if !rest.is_active {
            return Some(format!("outgoing connection `{name}` is inactive"));
        }
        let path = rest.url_path.split('?').next().unwrap_or_default();
        let has = |part: &str| spec.url_path.contains(&format!("{{{part}}}"));
        let mut parts = path.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0));
        let missing = parts.find(|part| !has(part))?;
        Some(format!(
            "the path of outgoing connection `{name}` needs `{{{missing}}}`, which the channel's path does not have"
        ))
    }
}

/// The headers that are about one connection only (RFC 9110, section 7.6.1), and those that `Connection` names.
pub fn is_hop_by_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || headers.get_all(http::header::CONNECTION).iter().any(|value| {
        let names = value.as_bytes().split(|byte| *byte == b',');
        names.map(<[u8]>::trim_ascii).any(|one| one.eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_choice_is_made_of_names_and_patterns_and_holds_secrets_back() {
        let choice = |written: &[&str]| {
            let written: Vec<String> = written.iter().map(|name| (*name).to_owned()).collect();
            Choice::of(&written, vec![AUTHORIZATION])
        };
        let takes =
            |choice: &Choice, name: &'static str| choice.takes(&HeaderName::from_static(name));
        let all = choice(&["*"]);
        assert!(takes(&all, "x-any") && !takes(&all, "authorization"));
        let some = choice(&["X-Acme-*", "Accept", "Authorization"]);
        assert!(takes(&some, "x-acme-id") && takes(&some, "accept"));
        assert!(takes(&some, "authorization") && takes(&some, "content-type"));
        assert!(!takes(&some, "x-other") && !takes(&some, "cookie"));
        assert!(!takes(&choice(&["Auth*"]), "authorization"));
        assert!(!takes(&choice(&[]), "accept"));
    }

    #[test]
    fn what_connection_names_is_about_the_connection() {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close, X-Mine"));
        let is = |name: &'static str| is_hop_by_hop(&HeaderName::from_static(name), &headers);
        assert!(is("connection") && is("te") && is("x-mine") && is("transfer-encoding"));
        assert!(!is("x-mine-too") && !is("date"));
    }
}
