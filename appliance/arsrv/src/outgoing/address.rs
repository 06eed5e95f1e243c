//! The address of a call: host, path with its parameters filled in, query.
//!
//! A parameter's value keeps its slashes, as in 3.2 (services pass whole paths in one); everything else that
//! has a meaning in addresses is percent-encoded, so a value cannot reach a query or another host.  A value
//! cannot climb either: `.` and `..` as parts of the path are refused.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde_json::Value;

/// Everything but the unreserved characters of RFC 3986 and the slash.
pub(super) const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A parameter of the path has no value.
    #[error("path `{path}` needs a value for `{name}`")]
    Missing {
        /// The path.
        path: String,
        /// The parameter.
        name: String,
    },
    /// A value is neither text nor number nor boolean.
    #[error("the value of path parameter `{name}` is {found}, not a text, a number or a boolean")]
    NotText {
        /// The parameter.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// A value would leave the path.
    #[error("the value of path parameter `{name}` makes `.` or `..` a part of the path")]
    Climbs {
        /// The parameter.
        name: String,
    },
    /// The whole is no address.
    #[error("`{text}` is not an address: {fault}")]
    NotAnAddress {
        /// What it was.
        text: String,
        /// What is wrong with it.
        fault: String,
    },
}

/// Builds an address.
///
/// `url_path` may have a query of its own, which comes first.  `params` are values for the path's parameters;
/// those it does not name are passed over.
pub fn build(
    host: &str,
    url_path: &str,
    params: &serde_json::Map<String, Value>,
    query: &[(String, String)],
) -> Result<Url, AddressError> {
    let (pattern, own_query) = url_path.split_once('?').unwrap_or((url_path, ""));
    let mut path = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut last = "";
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, tail)) = after.split_once('}') else { break };
        let value = match params.get(name) {
            None | Some(Value::Null) => {
                return Err(AddressError::Missing {
                    path: pattern.to_owned(),
                    name: name.to_owned(),
                });
            }
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            // As Python writes them.
            Some(Value::Bool(true)) => "True".to_owned(),
            Some(Value::Bool(false)) => "False".to_owned(),
            Some(Value::Array(_)) => {
                return Err(AddressError::NotText { name: name.to_owned(), found: "a list" });
            }
            Some(Value::Object(_)) => {
                return Err(AddressError::NotText { name: name.to_owned(), found: "an object" });
            }
        };
        path.push_str(before);
        path.extend(utf8_percent_encode(&value, IN_PATH));
        rest = tail;
        last = name;
    }
    path.push_str(rest);
    if !last.is_empty() && path.split('/').any(|part| part == "." || part == "..") {
        return Err(AddressError::Climbs { name: last.to_owned() });
    }
    let text = format!("{}{path}", host.trim_end_matches('/'));
    let mut url = Url::parse(&text)
        .map_err(|err| AddressError::NotAnAddress { text, fault: err.to_string() })?;
    if !own_query.is_empty() {
        url.set_query(Some(own_query));
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

/// An address as it may be shown: the query may hold keys.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for addresses that have no host, and then there is nothing to remove.
    url.set_username("").ok();
    url.set_password(None).ok();
    url.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(path: &str, params: Value, query: &[(&str, &str)], expected: &str) {
        let query: Vec<(String, String)> =
            query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let url = build("http://h:81", path, params.as_object().unwrap(), &query).unwrap();
        assert_eq!(url.as_str(), format!("http://h:81{expected}"));
    }

    #[test]
    fn parameters_are_filled_in_and_encoded() {
        check("/a/{b}/c", json!({"b": "x y"}), &[], "/a/x%20y/c");
        check("/a/{b}", json!({"b": 7}), &[], "/a/7");
        check("/a/{b}", json!({"b": true}), &[], "/a/True");
        check("/a/{b}", json!({"b": "żółw?q=1#f"}), &[], "/a/%C5%BC%C3%B3%C5%82w%3Fq%3D1%23f");
        check("/a/{b}", json!({"b": "100%41"}), &[], "/a/100%2541");
        check("/files/{path}", json!({"path": "x/y.txt"}), &[], "/files/x/y.txt");
        check("/{a}-{b}", json!({"a": "1", "b": "2", "c": "3"}), &[], "/1-2");
        check("/a/{b}", json!({"b": "\\..\\x"}), &[], "/a/%5C..%5Cx");
        check("/a/{b}", json!({"b": ""}), &[], "/a/");
    }

    #[test]
    fn the_query_is_encoded_and_follows_the_paths_own() {
        check("/a", json!({}), &[("q", "a b&c"), ("q", "ż")], "/a?q=a+b%26c&q=%C5%BC");
        check("/a?v=2", json!({}), &[], "/a?v=2");
        check("/a?v=2", json!({}), &[("q", "1")], "/a?v=2&q=1");
    }

    #[track_caller]
    fn refused(path: &str, params: Value, expected: &str) {
        let err = build("http://h", path, params.as_object().unwrap(), &[]).unwrap_err();
        assert_eq!(err.to_string(), expected);
    }

    #[test]
    fn what_makes_no_address_is_refused() {
        refused("/a/{b}", json!({}), "path `/a/{b}` needs a value for `b`");
        refused("/a/{b}", json!({"b": null}), "path `/a/{b}` needs a value for `b`");
        refused(
            "/a/{b}",
            json!({"b": [1]}),
            "the value of path parameter `b` is a list, not a text, a number or a boolean",
        );
        for climbing in ["..", "x/../../etc", "."] {
            refused(
                "/a/{b}/c",
                json!({"b": climbing}),
                "the value of path parameter `b` makes `.` or `..` a part of the path",
            );
        }
    }

    #[test]
    fn what_is_shown_has_no_query() {
        let url = build("https://h", "/a?key=secret", &serde_json::Map::new(), &[]).unwrap();
        assert_eq!(shown(&url), "https://h/a");
    }
}
