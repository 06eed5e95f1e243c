//! The test call: what is called after each save, and what came of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use arapi::arsrv::InvokeResponse;
use arapi::arwadm::InvokeBody;
use arapi::client::path_part;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::cli::DevArgs;
use crate::client::Api;
use crate::failure::Failure;
use crate::services::payload;

/// Longest time of a test call.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of an answer that are shown.
const SHOWN: usize = 4096;

/// What is called.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A service by its name.
    Service(String),
    /// A channel: a path of the node, or an address.
    Channel { method: Method, url: String },
}

/// The test call.
#[derive(Debug)]
pub(super) struct Trial {
    target: Target,
    data: Option<String>,
    headers: HeaderMap,
}

/// What came of a test call.
#[derive(Debug, serde::Serialize)]
pub(super) struct Outcome {
    /// The HTTP status.
    pub(super) status: u16,
    /// From the first byte out to the last byte in, milliseconds.
    pub(super) elapsed_ms: u64,
    /// The correlation id; empty where the answer had none.
    pub(super) cid: String,
    /// The body, as text; cut where it is long.
    pub(super) body: String,
    /// Bytes of the body that are not shown.
    pub(super) left_out: usize,
}

impl Trial {
    /// Reads `--call`, `--data` and `--header`; `None` without `--call`.
    pub(super) fn of(args: &DevArgs) -> Result<Option<Self>, Failure> {
        let Some(call) = &args.call else { return Ok(None) };
        let target = target(call, args.data.is_some())?;
        if !args.header.is_empty() && matches!(target, Target::Service(_)) {
            let text = "`--header` goes with a request to a channel, and `--call` names a service";
            return Err(Failure::Usage(text.to_owned()));
        }
        Ok(Some(Self { target, data: args.data.clone(), headers: headers(&args.header)? }))
    }

    /// The file whose content is sent, so that saving it makes the call again.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.data.as_deref()?.strip_prefix('@').map(PathBuf::from)
    }

    /// The call as a person reads it.
    pub(super) fn title(&self) -> String {
        match &self.target {
            Target::Service(service) => service.clone(),
            Target::Channel { method, url } => format!("{method} {url}"),
        }
    }

    /// Makes it.  `channels` is the address of the node's channels, where it is known.
    pub(super) async fn make(&self, api: &Api, channels: Option<&str>) -> Result<Outcome, Failure> {
        let since = Instant::now();
        let elapsed = || u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &self.target {
            Target::Service(service) => {
                let payload = payload(self.data.as_deref())?;
                let path = format!("/v1/services/{}/invoke", path_part(service));
                let body = InvokeBody { payload, timeout_ms: None };
                let answer: InvokeResponse = api.post(&path, &body).await?;
                let text = answer.body.or(answer.body_base64).unwrap_or_default();
                Ok(outcome(answer.status, elapsed(), answer.cid, text.as_bytes()))
            }
            Target::Channel { method, url } => {
                let url = match (url.starts_with('/'), channels) {
                    (false, _) => url.clone(),
                    (true, Some(channels)) => format!("{channels}{url}"),
                    (true, None) => {
                        return Err(Failure::Usage(format!(
                            "where the channels of the box are is not known; give `--call` the whole address, for example `{method} http://BOX:11223{url}`"
                        )));
                    }
                };
                let failed = |err: reqwest::Error| {
                    Failure::Failed(format!("no answer from {url}: {}", causes(&err.without_url())))
                };
                let client = reqwest::Client::builder().timeout(LIMIT).build().map_err(failed)?;
                let mut request = client.request(method.clone(), &url);
                if let Some(body) = self.body()? {
                    let kind = if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() {
                        "application/json"
                    } else {
                        "text/plain; charset=utf-8"
                    };
                    if !self.headers.contains_key(CONTENT_TYPE) {
                        request = request.header(CONTENT_TYPE, kind);
                    }
                    request = request.body(body);
                }
                let answer = request.headers(self.headers.clone()).send().await.map_err(failed)?;
                let status = answer.status().as_u16();
                let cid = answer.headers().get("x-zato-cid").and_then(|cid| cid.to_str().ok());
                let cid = cid.unwrap_or_default().to_owned();
                let body = answer.bytes().await.map_err(failed)?;
                Ok(outcome(status, elapsed(), cid, &body))
            }
        }
    }

    fn body(&self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(data) = &self.data else { return Ok(None) };
        match data.strip_prefix('@') {
            Some(path) => std::fs::read(path)
                .map(Some)
                .map_err(|source| Failure::Read { path: path.into(), source }),
            None => Ok(Some(data.clone().into_bytes())),
        }
    }
}

fn outcome(status: u16, elapsed_ms: u64, cid: String, body: &[u8]) -> Outcome {
    let shown = body.get(..SHOWN).unwrap_or(body);
    let left_out = body.len() - shown.len();
    Outcome { status, elapsed_ms, cid, body: String::from_utf8_lossy(shown).into_owned(), left_out }
}

/// `SERVICE`, `/path`, `METHOD /path` or the same with an address.
fn target(call: &str, has_data: bool) -> Result<Target, Failure> {
    let is_url = |text: &str| {
        text.starts_with('/') || text.starts_with("http://") || text.starts_with("https://")
    };
    let words: Vec<&str> = call.split_whitespace().collect();
    let method = |name: &str| {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphabetic());
        Method::from_bytes(name.to_ascii_uppercase().as_bytes()).ok().filter(|_| is_name)
    };
    match words.as_slice() {
        [url] if is_url(url) => {
            let method = if has_data { Method::POST } else { Method::GET };
            Ok(Target::Channel { method, url: (*url).to_owned() })
        }
        [name] => Ok(Target::Service((*name).to_owned())),
        [name, url] if is_url(url) && method(name).is_some() => {
            let method = method(name).unwrap_or(Method::GET);
            Ok(Target::Channel { method, url: (*url).to_owned() })
        }
        _ => Err(Failure::Usage(format!(
            "`--call {}` is neither a service (`orders.create`) nor a request to a channel (`/orders` or `POST /orders`)",
            call.escape_debug()
        ))),
    }
}

fn headers(given: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for text in given {
        let pair = text.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = pair.ok_or_else(|| {
            // Without its value, which may be a credential.
            let name = text.split(':').next().unwrap_or_default().escape_debug().to_string();
            Failure::Usage(format!("`--header {name}…` is no header; `Name: value` was expected"))
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text.push_str(": ");
        text.push_str(&err.to_string());
        cause = err.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_service_or_a_request_to_a_channel() {
        let channel = |method, url: &str| Target::Channel { method, url: url.to_owned() };
        assert_eq!(target("a.b", false).unwrap(), Target::Service("a.b".to_owned()));
        assert_eq!(target("/a?x=1", false).unwrap(), channel(Method::GET, "/a?x=1"));
        assert_eq!(target("/a", true).unwrap(), channel(Method::POST, "/a"));
        assert_eq!(target("put /a", true).unwrap(), channel(Method::PUT, "/a"));
        assert_eq!(target("http://x/a", false).unwrap(), channel(Method::GET, "http://x/a"));
        for bad in ["", "a b", "G3T /a", "POST /a b"] {
            assert!(target(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_that_is_none_is_refused_without_its_value() {
        assert_eq!(headers(&["X-Key: a: b".to_owned()]).unwrap()["x-key"], "a: b");
        let refused = headers(&["X Key: secret".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("`Name: value` was expected") && !refused.contains("secret"));
    }

    #[test]
    fn a_long_answer_is_cut_and_says_so() {
        let long = outcome(200, 1, String::new(), &vec![b'x'; SHOWN + 7]);
        assert_eq!((long.body.len(), long.left_out), (SHOWN, 7));
    }
}
