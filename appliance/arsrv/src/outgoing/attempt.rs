//! One attempt of a call, and whether there is to be another.
//!
//! What matters after a failure is how far the request came.  Where it was certainly not sent, any method
//! may be tried again; where it may have arrived, only an idempotent one (RFC 9110, section 9.2.2).

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use arapi::objects::RetryPolicy;
use bytes::{Bytes, BytesMut};
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Url;

use super::connection::RestCall;

/// Most redirects followed in one attempt.
const REDIRECTS: usize = 10;

/// What came back.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
    /// Where it came from in the end.
    pub url: Url,
}

/// Why nothing came back.
#[derive(Debug)]
pub enum Failed {
    /// No connection, so nothing was sent.
    NotSent {
        /// Why.
        cause: String,
    },
    /// The other side's certificate was refused, so nothing was sent, and it will not be better soon.
    Certificate {
        /// Why.
        cause: String,
    },
    /// Not in time.
    Late {
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke, or what came was no HTTP.
    Broken {
        /// Why.
        cause: String,
    },
    /// More than allowed.
    TooLarge {
        /// How much is.
        limit: u64,
    },
}

/// An attempt that did not go well.
#[derive(Debug)]
pub enum Sent {
    /// There was an answer, with a status that counts as failed.
    Answered(Answered),
    /// There was none.
    Failed(Failed),
}

impl Failed {
    /// Whether the other side is to blame, for the circuit breaker.
    pub fn is_theirs(&self) -> bool {
        match self {
            Self::NotSent { .. }
            | Self::Certificate { .. }
            | Self::Late { .. }
            | Self::Broken { .. } => true,
            Self::TooLarge { .. } => false,
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answered) => write!(f, "status {}", answered.status),
            Self::Failed(
                Failed::NotSent { cause }
                | Failed::Certificate { cause }
                | Failed::Broken { cause },
            ) => f.write_str(cause),
            Self::Failed(Failed::Late { limit }) => write!(f, "no answer within {limit:?}"),
            Self::Failed(Failed::TooLarge { limit }) => {
                write!(f, "answer larger than {limit} bytes")
            }
        }
    }
}

/// Sends a request and reads the answer whole.
///
/// Redirects are followed for `GET`, `HEAD` and `OPTIONS`, within scheme, host and port: credentials go nowhere else,
/// and a body is not sent twice.  Any other redirect is the answer.
pub async fn once(
    client: &reqwest::Client,
    call: &RestCall,
    max_bytes: u64,
) -> Result<Answered, Failed> {
    let mut url = call.url.clone();
    let may_follow = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&call.method);
    for followed in 0.. {
        let mut request =
            client.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        if !call.body.is_empty() || !may_follow {
            request = request.body(call.body.clone());
        }
        let response = request.send().await.map_err(failed)?;
        if may_follow
            && followed < REDIRECTS
            && let Some(next) = redirect(response.status(), response.headers(), &url)
        {
            url = next;
            continue;
        }
        return read(response, url, max_bytes).await;
    }
    // The loop above has no end but its returns; the numbers do.
    Err(Failed::Broken { cause: "too many redirects".to_owned() })
}

async fn read(
    mut response: reqwest::Response,
    url: Url,
    max_bytes: u64,
) -> Result<Answered, Failed> {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let too_large = Failed::TooLarge { limit: max_bytes };
    if response.content_length().is_some_and(|length| length > max_bytes) {
        return Err(too_large);
    }
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if first.is_empty() && more.is_empty() {
            first = chunk;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&chunk);
        }
        if first.len() + more.len() > most {
            return Err(too_large);
        }
    }
    let body = if more.is_empty() { first } else { more.freeze() };
    Ok(Answered { status, headers, body, url })
}

/// Where a redirect leads, if it is one that is followed.
fn redirect(status: StatusCode, headers: &HeaderMap, from: &Url) -> Option<Url> {
    let is_redirect = matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !is_redirect {
        return None;
    }
    let to = from.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (to.origin() == from.origin()).then_some(to)
}

fn failed(err: reqwest::Error) -> Failed {
    failure(&err, err.is_connect())
}

/// What an error of a client means; `is_connect`: there was no connection.
pub(super) fn failure(err: &(dyn Error + 'static), is_connect: bool) -> Failed {
    let cause = innermost(err);
    if is_certificate(err) {
        Failed::Certificate { cause }
    } else if is_connect {
        Failed::NotSent { cause }
    } else {
        Failed::Broken { cause }
    }
}

/// The last error of a chain: the one that knows.
fn innermost(err: &(dyn Error + 'static)) -> String {
    let mut last = err;
    while let Some(cause) = last.source() {
        last = cause;
    }
    let in_time = |kind| kind != std::io::ErrorKind::TimedOut;
    if last.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
        || last.downcast_ref::<std::io::Error>().is_some_and(|err| !in_time(err.kind()))
    {
        return "no connection in time".to_owned();
    }
    last.to_string()
}

fn is_certificate(err: &(dyn Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = err.downcast_ref() {
        return true;
    }
    // An I/O error's source is that of the error in it, which may be an I/O error again.
    let inner = err.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| is_certificate(inner)) || err.source().is_some_and(is_certificate)
}

/// Whether to try again, and how long to wait before.
///
/// `attempts` have been made; `left` is what remains of the call's time; `dice` is random.
pub fn wait_before_next(
    policy: &RetryPolicy,
    attempts: u32,
    method: &Method,
    sent: &Sent,
    left: Duration,
    dice: u64,
) -> Option<Duration> {
    let came = match sent {
        Sent::Answered(answered) => Came::Answered(&answered.headers),
        Sent::Failed(failed) => Came::Failed(failed),
    };
    wait_after(policy, attempts, method, came, left, dice)
}

/// What came of an attempt that did not go well.
#[derive(Debug, Clone, Copy)]
pub enum Came<'a> {
    /// An answer with a status that counts as failed; its headers.
    Answered(&'a HeaderMap),
    /// None.
    Failed(&'a Failed),
}

/// The same for an answer that is not read.
pub fn wait_after(
    policy: &RetryPolicy,
    attempts: u32,
    method: &Method,
    came: Came<'_>,
    left: Duration,
    dice: u64,
) -> Option<Duration> {
    if attempts >= policy.attempts {
        return None;
    }
    let may_repeat = match came {
        Came::Failed(Failed::NotSent { .. }) => true,
        Came::Failed(Failed::Certificate { .. } | Failed::TooLarge { .. }) => false,
        Came::Failed(Failed::Late { .. } | Failed::Broken { .. }) | Came::Answered(_) => {
            is_idempotent(method)
        }
    };
    if !may_repeat {
        return None;
    }
    let asked = match came {
        Came::Answered(headers) => retry_after(headers),
        Came::Failed(_) => None,
    };
    let wait = asked.unwrap_or_else(|| {
        let doubled = policy.backoff_ms.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let most = doubled.min(policy.max_backoff_ms);
        Duration::from_millis(dice.checked_rem(most.saturating_add(1)).unwrap_or(0))
    });
    // An attempt without time to end would only add to the other side's load.
    (wait < left).then_some(wait)
}

fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn policy() -> RetryPolicy {
        RetryPolicy { attempts: 3, backoff_ms: 100, max_backoff_ms: 150, on_status: vec![503] }
    }

    fn not_sent() -> Sent {
        Sent::Failed(Failed::NotSent { cause: "refused".to_owned() })
    }

    fn late() -> Sent {
        Sent::Failed(Failed::Late { limit: LONG })
    }

    fn answered(retry_after: Option<&'static str>) -> Sent {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        }
        let url = Url::parse("http://h/").unwrap();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Sent::Answered(Answered { status, headers, body: Bytes::new(), url })
    }

    fn repeats(method: &Method, sent: &Sent) -> bool {
        wait_before_next(&policy(), 1, method, sent, LONG, 0).is_some()
    }

    #[test]
    fn what_was_not_sent_is_repeated_whatever_the_method() {
        assert!(repeats(&Method::POST, &not_sent()));
        assert!(repeats(&Method::GET, &not_sent()));
    }

    #[test]
    fn what_may_have_arrived_is_repeated_only_if_that_does_no_harm() {
        for sent in [late(), answered(None), Sent::Failed(Failed::Broken { cause: String::new() })]
        {
            for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS]
            {
                assert!(repeats(&method, &sent), "{method} {sent}");
            }
            for method in [Method::POST, Method::PATCH] {
                assert!(!repeats(&method, &sent), "{method} {sent}");
            }
        }
    }

    #[test]
    fn a_bad_certificate_and_a_large_answer_are_not_asked_for_again() {
        let certificate = Sent::Failed(Failed::Certificate { cause: String::new() });
        assert!(!repeats(&Method::GET, &certificate));
        assert!(!repeats(&Method::GET, &Sent::Failed(Failed::TooLarge { limit: 1 })));
    }

    #[test]
    fn waits_double_up_to_their_limit_with_full_jitter() {
        let wait = |attempts, dice| {
            wait_before_next(&policy(), attempts, &Method::GET, &not_sent(), LONG, dice)
        };
        assert_eq!(wait(1, 0), Some(Duration::ZERO));
        assert_eq!(wait(1, 100), Some(Duration::from_millis(100)));
        assert_eq!(wait(1, 101), Some(Duration::ZERO));
        assert_eq!(wait(2, 150), Some(Duration::from_millis(150)));
        assert_eq!(wait(2, 151), Some(Duration::ZERO));
        assert_eq!(wait(3, 0), None);
    }

    #[test]
    fn the_other_sides_wish_is_heard_within_the_calls_time() {
        let wait = |sent: &Sent, left| wait_before_next(&policy(), 1, &Method::GET, sent, left, 0);
        assert_eq!(wait(&answered(Some("2")), LONG), Some(Duration::from_secs(2)));
        assert_eq!(wait(&answered(Some("2")), Duration::from_secs(2)), None);
        let past = answered(Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(wait(&past, LONG), Some(Duration::ZERO));
        assert_eq!(wait(&answered(Some("soon")), LONG), Some(Duration::ZERO));
        assert_eq!(wait(&not_sent(), Duration::ZERO), None);
    }

    #[test]
    fn redirects_stay_within_their_origin() {
        let from = Url::parse("http://h:81/a/b").unwrap();
        let to = |location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(location));
            redirect(StatusCode::FOUND, &headers, &from).map(String::from)
        };
        assert_eq!(to("/c").as_deref(), Some("http://h:81/c"));
        assert_eq!(to("c/").as_deref(), Some("http://h:81/a/c/"));
        assert_eq!(to("http://h:81/x").as_deref(), Some("http://h:81/x"));
        for elsewhere in ["http://h/x", "https://h:81/x", "http://evil:81/x", "//evil/x"] {
            assert_eq!(to(elsewhere), None, "{elsewhere}");
        }
    }
}
