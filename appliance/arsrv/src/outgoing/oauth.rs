//! Tokens for calls out: OAuth 2.0 client credentials (RFC 6749, section 4.4).
//!
//! A token is asked for when it is first needed and kept for all workers and connections that use the security; it is
//! asked for anew a while before it ends, and when somebody was refused with it.  However many want one at a
//! time, one request is made.
//!
//! **Invariant:** neither the client's secret nor a token is in a log line, an error or a `Debug`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arapi::objects::{OauthFormat, OauthSpec, SecretText};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::tls::{self, Trust};

/// Largest answer.
const LARGEST: usize = 256 * 1024;
/// How long before its end a token is renewed, at most.
const EARLY: Duration = Duration::from_secs(60);
/// How long a token is kept whose answer does not say how long it holds.
const UNSAID: Duration = Duration::from_secs(300);
/// After a refusal the endpoint is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);
/// Most sets of scopes of one security.
const SCOPES: usize = 100;

/// Where the tokens of one security come from.
#[derive(Debug)]
pub struct TokenSource {
    name: String,
    spec: OauthSpec,
    secret: Option<SecretText>,
    client: Result<reqwest::Client, String>,
    by_scopes: Mutex<BTreeMap<String, Arc<Place>>>,
}

impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.spec, &self.secret) == (&other.name, &other.spec, &other.secret)
    }
}

#[derive(Debug, Default)]
struct Place {
    made: Mutex<Option<Arc<Made>>>,
    /// Held while one is asked for; holds when and why that failed last.
    asking: tokio::sync::Mutex<Option<(Instant, String)>>,
}

/// A token.
pub struct Made {
    /// The token.
    pub token: String,
    since: Instant,
    lifetime: Option<Duration>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Made {
    /// How long it still holds, if that is known.
    pub fn left(&self) -> Option<Duration> {
        Some(self.lifetime?.saturating_sub(self.since.elapsed()))
    }

    fn age_at_renewal(&self) -> Duration {
        match self.lifetime {
            Some(lifetime) => lifetime.saturating_sub((lifetime / 5).min(EARLY)),
            None => UNSAID,
        }
    }

    fn is_fresh(&self) -> bool {
        self.since.elapsed() < self.age_at_renewal()
    }

    fn holds(&self) -> bool {
        self.lifetime.is_none_or(|lifetime| self.since.elapsed() < lifetime)
    }
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
#[error("security `{name}`: {reason}")]
pub struct NoToken {
    name: String,
    reason: String,
}

impl TokenSource {
    /// A source; asks for nothing yet.
    pub fn new(name: &str, spec: &OauthSpec, secret: Option<SecretText>) -> Self {
        Self {
            name: name.to_owned(),
            spec: spec.clone(),
            secret,
            client: client(spec),
            by_scopes: Mutex::default(),
        }
    }

    /// Whether it was made from these.
    pub fn is_made_from(&self, spec: &OauthSpec, secret: Option<&SecretText>) -> bool {
        self.spec == *spec && self.secret.as_ref() == secret
    }

    fn no_token(&self, reason: impl Into<String>) -> NoToken {
        NoToken { name: self.name.clone(), reason: reason.into() }
    }

    /// A token that holds, for these scopes or those that are configured.
    pub async fn token(&self, scopes: Option<&[String]>) -> Result<Arc<Made>, NoToken> {
        if !self.spec.is_active {
            return Err(self.no_token("it is inactive"));
        }
        let scopes = scopes.unwrap_or(&self.spec.scopes).join(" ");
        let place = self.place(&scopes)?;
        if let Some(made) = place.made().filter(|made| made.is_fresh()) {
            return Ok(made);
        }
        let came = Instant::now();
        let mut asking = place.asking.lock().await;
        // Somebody else may have asked meanwhile, with or without success.
        if let Some(made) = place.made().filter(|made| made.is_fresh()) {
            return Ok(made);
        }
        let recent = asking.as_ref().filter(|(at, _)| *at >= came || at.elapsed() < PAUSE);
        let failed = match recent {
            Some((_, reason)) => reason.clone(),
            None => {
                let limit = Duration::from_millis(self.spec.timeout_ms);
                let asked = tokio::time::timeout(limit, self.ask(&scopes)).await;
                match asked.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))) {
                    Ok(made) => {
                        *asking = None;
                        let made = Arc::new(made);
                        place.keep(Some(Arc::clone(&made)));
                        log::debug!(name = self.name; "token made");
                        return Ok(made);
                    }
                    Err(reason) => {
                        log::warn!(
                            name = self.name, remote = self.spec.auth_endpoint, reason;
                            "no token for calls out"
                        );
                        *asking = Some((Instant::now(), reason.clone()));
                        reason
                    }
                }
            }
        };
        match place.made().filter(|made| made.holds()) {
            // It was to be renewed early; it is still good.
            Some(made) if made.lifetime.is_some() => Ok(made),
            Some(_) | None => Err(self.no_token(failed)),
        }
    }

    /// Somebody was refused with this token: it is not used again.
    pub fn spoil(&self, made: &Arc<Made>) {
        let places = self.by_scopes.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places.values() {
            let mut kept = place.made.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, made)) {
                *kept = None;
            }
        }
    }

    fn place(&self, scopes: &str) -> Result<Arc<Place>, NoToken> {
        let mut places = self.by_scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.contains_key(scopes) && places.len() >= SCOPES {
            return Err(self.no_token(format!("there are {SCOPES} sets of scopes already")));
        }
        Ok(Arc::clone(places.entry(scopes.to_owned()).or_default()))
    }

    async fn ask(&self, scopes: &str) -> Result<Made, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let secret = self.secret.as_ref().ok_or("its secret is not known now; try again")?;
        let spec = &self.spec;
        let mut fields = vec![("grant_type", spec.grant_type.as_str())];
        let mut request = client.post(&spec.auth_endpoint).header(ACCEPT, "application/json");
        if spec.use_basic_auth {
            // RFC 6749, section 2.3.1: both are form-encoded first.
            let pair = format!("{}:{}", form(&[("", &spec.client_id)]), form(&[("", &secret.0)]));
            let pair = BASE64_STANDARD.encode(pair.replace('=', ""));
            request = request.header(AUTHORIZATION, format!("Basic {pair}"));
        } else {
            fields.push((&spec.client_id_field, &spec.client_id));
            fields.push((&spec.client_secret_field, &secret.0));
        }
        if !scopes.is_empty() {
            fields.push(("scope", scopes));
        }
        fields.extend(spec.extra_fields.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let request = match spec.data_format {
            OauthFormat::Form => request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(&fields)),
            OauthFormat::Json => {
                let document: Map<String, Value> =
                    fields.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
                request
                    .header(CONTENT_TYPE, "application/json")
                    .body(Value::from(document).to_string())
            }
        };
        let since = Instant::now();
        let chain = |err: reqwest::Error| arbase::Chain(&err.without_url()).to_string();
        let mut answer = request.send().await.map_err(chain)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(chain)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(format!("the answer is larger than {LARGEST} bytes"));
            }
        }
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            // RFC 6749, section 5.2; nothing else of the answer is shown.
            let said = document.get("error").and_then(Value::as_str).unwrap_or_default();
            let said: String = said.chars().filter(|c| !c.is_control()).take(80).collect();
            let colon = if said.is_empty() { "" } else { ": " };
            return Err(format!("the endpoint answered {status}{colon}{said}"));
        }
        let token = document.get("access_token").and_then(Value::as_str).unwrap_or_default();
        if token.is_empty() || http::HeaderValue::from_str(token).is_err() {
            return Err("the endpoint's answer has no `access_token` that can be sent".to_owned());
        }
        let lifetime = match document.get("expires_in") {
            Some(Value::Number(seconds)) => seconds.as_u64(),
            Some(Value::String(seconds)) => seconds.parse().ok(),
            _ => None,
        };
        let lifetime = lifetime.map(|seconds| Duration::from_secs(seconds.min(31_536_000)));
        Ok(Made { token: token.to_owned(), since, lifetime })
    }
}

impl Place {
    fn made(&self) -> Option<Arc<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, made: Option<Arc<Made>>) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = made;
    }
}

/// Fields as `application/x-www-form-urlencoded`.
fn form(fields: &[(&str, &str)]) -> String {
    // The address is only there because it can write its query.
    let Ok(mut url) = Url::parse("http://form/") else { return String::new() };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

fn client(spec: &OauthSpec) -> Result<reqwest::Client, String> {
    let is_tls = spec.auth_endpoint.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:"));
    let trust = if is_tls && spec.validate_tls {
        Trust::Authorities(spec.tls_ca_pem.as_deref())
    } else {
        Trust::Anyone
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls::config(trust).map_err(|err| err.to_string())?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("ARINT/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(lifetime: Option<u64>) -> Made {
        let lifetime = lifetime.map(Duration::from_secs);
        Made { token: "geheim".to_owned(), since: Instant::now(), lifetime }
    }

    #[test]
    fn a_token_is_renewed_a_while_before_it_ends() {
        assert_eq!(made(Some(3600)).age_at_renewal(), Duration::from_secs(3540));
        assert_eq!(made(Some(10)).age_at_renewal(), Duration::from_secs(8));
        assert_eq!(made(None).age_at_renewal(), UNSAID);
        assert!(!made(Some(0)).is_fresh() && !made(Some(0)).holds());
    }

    #[test]
    fn fields_are_encoded_as_forms_are_and_nothing_secret_is_printed() {
        assert_eq!(form(&[("a b", "c&d=é+")]), "a+b=c%26d%3D%C3%A9%2B");
        assert!(!format!("{:?}", made(None)).contains("geheim"));
    }
}
