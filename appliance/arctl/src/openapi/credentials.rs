//! The security schemes of a document as securities of the box.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::document::{Document, Refused, join};
use super::operation::Operation;

/// A scheme that has a security here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scheme {
    pub(super) name: String,
    pub(super) place: String,
    /// The spec, but for what the document cannot know.
    pub(super) spec: Value,
    /// The field of its secret.
    pub(super) secret: &'static str,
    /// The field of a name that goes with it.
    pub(super) username: Option<&'static str>,
}

/// A scheme, or why there is no security for it.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) scheme: Result<Scheme, Refused>,
}

/// Which way the credentials go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// All schemes in the order in which they are written.
pub(super) fn schemes(doc: &Document, way: Way) -> Vec<Found> {
    let all = "/components/securitySchemes";
    let each = doc.fields(all).into_iter().map(|(name, _)| {
        let written = join(all, name);
        let scheme =
            doc.resolve(&written).and_then(|(place, value)| scheme(name, &place, value, way));
        Found { name: name.clone(), place: written, scheme }
    });
    each.collect()
}

fn scheme(name: &str, place: &str, value: &Value, way: Way) -> Result<Scheme, Refused> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let made = |spec: Value, secret: &'static str, username: Option<&'static str>| {
        Ok(Scheme { name: name.to_owned(), place: place.to_owned(), spec, secret, username })
    };
    let own = |kind: &str| match way {
        Way::Out => {
            format!("make the Security (`{kind}`) by `arctl apply`, and name it with `--security`")
        }
        Way::In => format!(
            "make the Security (`{kind}`) by `arctl apply`, and name it with `--security`: the channels then ask for that"
        ),
    };
    match (text("type"), text("scheme").to_ascii_lowercase().as_str(), way) {
        ("http", "basic", _) => made(json!({"type": "basic"}), "password", Some("username")),
        ("http", "bearer", Way::In) if text("bearerFormat").eq_ignore_ascii_case("jwt") => {
            Err(Refused::new(
                "its tokens are JSON Web Tokens, and the document does not say of which issuer",
                own("type: jwt_issuer"),
            ))
        }
        ("http", "bearer", _) => made(json!({"type": "bearer"}), "token", None),
        ("apiKey", _, _) if text("in") == "header" => {
            made(json!({"type": "api_key", "header": text("name")}), "key", None)
        }
        ("apiKey", _, Way::Out) => Err(Refused::new(
            format!(
                "it is a key in a {}, and connections present keys in headers",
                text("in").escape_debug()
            ),
            "let the service give it as a parameter, or ask the other side for a header",
        )),
        ("apiKey", _, Way::In) => Err(Refused::new(
            match text("in") {
                "query" => {
                    "it is a key in a query, which ends up in logs; channels take keys in headers"
                        .to_owned()
                }
                other => format!(
                    "it is a key in a {}; channels take keys in headers",
                    other.escape_debug()
                ),
            },
            own("type: api_key"),
        )),
        ("oauth2", _, Way::Out) => {
            let flow = value.pointer("/flows/clientCredentials");
            let flow = flow.ok_or_else(|| {
                Refused::new("it asks for a person in a browser", own("type: bearer"))
            })?;
            let endpoint = flow.get("tokenUrl").and_then(Value::as_str).unwrap_or_default();
            let scopes: Vec<&String> = flow
                .get("scopes")
                .and_then(Value::as_object)
                .map(|all| all.keys().collect())
                .unwrap_or_default();
            made(
                json!({"type": "oauth", "auth_endpoint": endpoint, "scopes": scopes}),
                "client_secret",
                Some("client_id"),
            )
        }
        ("oauth2" | "openIdConnect", _, Way::In) => Err(Refused::new(
            "its tokens come from elsewhere, and the document does not say how they are checked",
            own("type: jwt_issuer"),
        )),
        ("mutualTLS", _, Way::Out) => Err(Refused::new(
            "it is a client's certificate, which no document holds",
            "make a Security of type `tls_key_cert`, and set `tls_client` of the connection",
        )),
        ("mutualTLS", _, Way::In) => Err(Refused::new(
            "it is a client's certificate, and the document does not say of which authority",
            own("type: tls_channel"),
        )),
        (kind, scheme, _) => Err(Refused::new(
            format!("`{}` is not known here", format!("{kind} {scheme}").trim().escape_debug()),
            own("any type that fits"),
        )),
    }
}

/// What an operation asks for: several ways, each with all the schemes that belong together.
pub(super) fn asked(doc: &Document, operation: &Operation) -> Vec<BTreeSet<String>> {
    let own = doc.value.pointer(&format!("{}/security", operation.place));
    let list = own.or_else(|| doc.value.get("security")).and_then(Value::as_array);
    let ways = list.into_iter().flatten().filter_map(Value::as_object);
    ways.map(|way| way.keys().cloned().collect()).collect()
}

/// The scheme with which most operations can be called, alone.
pub(super) fn best<'a>(
    doc: &Document,
    operations: &[Operation],
    schemes: &'a [Scheme],
) -> Option<&'a Scheme> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for operation in operations {
        let ways = asked(doc, operation);
        for scheme in schemes {
            if ways.iter().any(|way| way.len() == 1 && way.contains(&scheme.name)) {
                *counts.entry(&scheme.name).or_default() += 1;
            }
        }
    }
    let count = |scheme: &Scheme| counts.get(scheme.name.as_str()).copied().unwrap_or(0);
    // Of those that serve the same number the first: `max_by_key` would give the last.
    schemes.iter().rev().max_by_key(|scheme| count(scheme)).filter(|scheme| count(scheme) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: Value, way: Way, expected: Result<Value, &str>) {
        let text = json!({"openapi": "3.1.0", "components": {"securitySchemes": {"s": written}}});
        let doc = Document::read("d.yaml", &text.to_string()).unwrap();
        let found = schemes(&doc, way).remove(0).scheme;
        let found = found.map(|scheme| scheme.spec).map_err(|refused| refused.why);
        assert_eq!(found, expected.map_err(ToOwned::to_owned));
    }

    #[test]
    fn schemes_become_securities_or_say_why_not() {
        let basic = json!({"type": "http", "scheme": "Basic"});
        check(basic, Way::In, Ok(json!({"type": "basic"})));
        let bearer = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"});
        check(bearer.clone(), Way::Out, Ok(json!({"type": "bearer"})));
        let told = "its tokens are JSON Web Tokens, and the document does not say of which issuer";
        check(bearer, Way::In, Err(told));
        let key = json!({"type": "apiKey", "in": "header", "name": "X-K"});
        check(key, Way::Out, Ok(json!({"type": "api_key", "header": "X-K"})));
        let cookie = json!({"type": "apiKey", "in": "cookie", "name": "k"});
        check(
            cookie.clone(),
            Way::In,
            Err("it is a key in a cookie; channels take keys in headers"),
        );
        check(
            cookie,
            Way::Out,
            Err("it is a key in a cookie, and connections present keys in headers"),
        );
        let flow = json!({"tokenUrl": "https://h/token", "scopes": {"b": "", "a": ""}});
        let oauth = json!({"type": "oauth2", "flows": {"clientCredentials": flow}});
        let spec =
            json!({"type": "oauth", "auth_endpoint": "https://h/token", "scopes": ["a", "b"]});
        check(oauth.clone(), Way::Out, Ok(spec));
        let told =
            "its tokens come from elsewhere, and the document does not say how they are checked";
        check(oauth, Way::In, Err(told));
        let person = json!({"type": "oauth2", "flows": {"implicit": {}}});
        check(person, Way::Out, Err("it asks for a person in a browser"));
        let certificate = json!({"type": "mutualTLS"});
        check(certificate, Way::Out, Err("it is a client's certificate, which no document holds"));
        check(
            json!({"type": "http", "scheme": "hoba"}),
            Way::Out,
            Err("`http hoba` is not known here"),
        );
    }
}
