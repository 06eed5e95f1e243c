//! SOAP connections: an HTTP connection with a WSDL, and with a UsernameToken where its security is one.
//!
//! Envelopes are made and read in the worker, by zeep; here they are bytes that are posted to the connection's own
//! address, with its credentials, retries and circuit breaker.  What is loaded for a WSDL comes from the connection's
//! host and from nowhere else.

use std::sync::Arc;
use std::time::Duration;

use arapi::objects::SecretText;
use bytes::Bytes;
use http::{HeaderMap, Method};
use reqwest::Url;
use serde_json::{Value, json};

use super::connection::{CallError, Rest, RestCall};
use crate::call::{WorkerReply, WorkerRequest};

/// A SOAP connection.
#[derive(Debug)]
pub struct Soap {
    /// What it is sent by.
    pub rest: Arc<Rest>,
    /// The rest of what it was made from.
    pub about: About,
}

/// What a SOAP connection has beside HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The WSDL, where it was given as text.
    pub wsdl: Option<String>,
    /// Where it is otherwise, below the host.
    pub wsdl_path: String,
    /// What is put into each envelope.
    pub token: Option<UsernameToken>,
}

/// A UsernameToken of WS-Security.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsernameToken {
    /// The user.
    pub username: String,
    /// The password; None: it is not known now.
    pub password: Option<SecretText>,
    /// Whether its digest is sent.
    pub use_digest: bool,
}

impl Soap {
    /// What a worker makes its client from.
    pub fn document(&self) -> Result<Value, CallError> {
        let name = || self.rest.name.clone();
        let spec = &self.rest.basis.spec;
        if !spec.is_active {
            return Err(CallError::Inactive { name: name() });
        }
        let mut document = json!({
            "wsdl": self.about.wsdl,
            "wsdl_address": format!("{}{}", spec.host.trim_end_matches('/'), self.about.wsdl_path),
        });
        if let (Some(token), Some(document)) = (&self.about.token, document.as_object_mut()) {
            let Some(password) = &token.password else {
                return Err(CallError::SecretUnknown { name: name() });
            };
            document.insert("username".to_owned(), json!(token.username));
            document.insert("password".to_owned(), json!(password));
            document.insert("use_digest".to_owned(), json!(token.use_digest));
        }
        Ok(document)
    }

    /// Posts an envelope.
    pub async fn post(&self, mut request: WorkerRequest) -> Result<WorkerReply, CallError> {
        if let Some(meta) = request.meta.as_object_mut() {
            meta.insert("method".to_owned(), json!("POST"));
        }
        let call = RestCall::parse(&self.rest, &request)?;
        self.rest.call(call).await
    }

    /// Loads a WSDL, or what one imports.
    pub async fn load(&self, request: &WorkerRequest) -> Result<WorkerReply, CallError> {
        let path = request.meta.get("path").and_then(Value::as_str).unwrap_or_default();
        let spec = &self.rest.basis.spec;
        let url = below(&spec.host, path)
            .map_err(|fault| CallError::BadRequest { name: self.rest.name.clone(), fault })?;
        let call = RestCall {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            attempt: Duration::from_millis(spec.timeout_ms),
            deadline: request.deadline,
            cid: request.cid.clone(),
            scopes: None,
        };
        self.rest.call(call).await
    }
}

/// An address below a host; never one of another.
fn below(host: &str, path: &str) -> Result<Url, String> {
    let bad = || format!("`{}` is not a path on its host", path.escape_debug());
    let base: Url = host.parse().map_err(|_| bad())?;
    let url: Url = format!("{}{path}", host.trim_end_matches('/')).parse().map_err(|_| bad())?;
    let is_below = path.starts_with('/')
        && (url.host_str(), url.port_or_known_default(), url.scheme())
            == (base.host_str(), base.port_or_known_default(), base.scheme());
    if is_below { Ok(url) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wsdl_imports_comes_from_the_connections_host() {
        let check = |path: &str| below("https://a.example:8443/", path).map(|url| url.to_string());
        assert_eq!(check("/x?xsd=1").unwrap(), "https://a.example:8443/x?xsd=1");
        assert_eq!(check("//b.example/x").unwrap(), "https://a.example:8443//b.example/x");
        for path in ["", "x", ".evil.example/x", "@evil.example/x", "0/x"] {
            assert!(check(path).is_err(), "{path}");
        }
        assert_eq!(check("@evil/x").unwrap_err(), "`@evil/x` is not a path on its host");
    }
}
