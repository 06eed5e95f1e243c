//! Where Python packages come from: what pip is told about an index.
//!
//! Nothing is fetched here; [`crate::packages`] runs pip.

use std::sync::{Arc, Mutex, PoisonError};

use arapi::arsrv::{OutgoingStatus, PingResult};
use arapi::objects::{PackageIndexSpec, SecretText};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// An index of Python packages.
#[derive(Debug)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// What was configured.
    pub spec: PackageIndexSpec,
    /// The password: None where there is none to send, `Some(None)` where it is not known.
    pub password: Option<Option<SecretText>>,
    /// What the last resolution found.
    last: Mutex<Option<Outcome>>,
}

#[derive(Debug, Clone)]
struct Outcome {
    at_ms: u64,
    error: Option<String>,
}

impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.spec, &self.password) == (&other.name, &other.spec, &other.password)
    }
}

impl Index {
    /// Nothing was fetched from it yet.
    pub fn new(
        name: String,
        spec: PackageIndexSpec,
        password: Option<Option<SecretText>>,
    ) -> Arc<Self> {
        Arc::new(Self { name, spec, password, last: Mutex::default() })
    }

    /// The address with the credentials, as pip has it; None: it cannot be used now.
    pub(crate) fn address(&self) -> Option<String> {
        if !self.spec.is_active {
            return None;
        }
        let (Some(user), Some(password)) = (&self.spec.username, &self.password) else {
            return Some(self.spec.address.clone());
        };
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (scheme, rest) = self.spec.address.split_once("://")?;
        let password = password.as_ref()?;
        Some(format!("{scheme}://{}:{}@{rest}", encoded(user), encoded(&password.0)))
    }

    /// Notes what came of using it.
    pub(crate) fn note(&self, error: Option<String>) {
        let outcome = Outcome { at_ms: arbase::time::now_ms(), error };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// How it is.
    pub fn status(&self) -> OutgoingStatus {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unknown = matches!(self.password, Some(None));
        let error = last.as_ref().and_then(|last| last.error.clone());
        let health = match (self.spec.is_active, &last, &error) {
            (false, _, _) => "inactive",
            (true, None, _) => "unknown",
            (true, Some(_), None) => "up",
            (true, Some(_), Some(_)) => "down",
        };
        OutgoingStatus {
            name: self.name.clone(),
            address: self.spec.address.clone(),
            health: health.to_owned(),
            last_error: error.or_else(|| unknown.then(|| "its password is not known".to_owned())),
            checked_ms: last.map(|last| last.at_ms),
            ping_ms: None,
            circuit: "closed".to_owned(),
            calls: 0,
            retries: 0,
            failures: 0,
            pool: None,
        }
    }

    /// There is no call that every index answers alike.
    pub fn ping(&self) -> PingResult {
        PingResult {
            ok: false,
            status: None,
            message: format!(
                "outgoing connection `{}` is an index of packages, which only deployments use; it cannot be checked from here",
                self.name
            ),
            elapsed_ms: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(password: Option<Option<&str>>) -> Arc<Index> {
        let spec = serde_json::json!({"address": "https://p.example.com/simple", "username": "me@x",
            "password": {"secret": "x"}});
        let known = password.map(|known| known.map(|text| SecretText(text.to_owned())));
        Index::new("main".to_owned(), serde_json::from_value(spec).unwrap(), known)
    }

    #[test]
    fn credentials_go_into_the_address_that_pip_gets_and_nowhere_else() {
        let one = index(Some(Some("p/w")));
        assert_eq!(one.address().unwrap(), "https://me%40x:p%2Fw@p.example.com/simple");
        assert!(!format!("{one:?} {:?}", one.status()).contains("p/w"));
        // Without its password it is not used at all.
        assert_eq!(index(Some(None)).address(), None);
        assert_eq!(index(Some(None)).status().last_error.unwrap(), "its password is not known");
    }
}
