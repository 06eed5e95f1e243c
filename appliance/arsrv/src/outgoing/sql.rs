//! Where databases are: services open them themselves, through SQLAlchemy, and ask here for the address.

use arapi::arsrv::OutgoingStatus;
use arapi::objects::OutgoingSql;
use arapi::objects::SecretText;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::connection::CallError;

/// A database connection.
#[derive(Debug, PartialEq)]
pub struct Sql {
    /// Its name.
    pub name: String,
    /// What was configured.
    pub spec: OutgoingSql,
    /// The password: None where there is none to send, `Some(None)` where it is not known.
    pub password: Option<Option<SecretText>>,
}

impl Sql {
    /// What a service gets: SQLAlchemy's address, with the password, and the size of its pool.
    pub fn document(&self) -> Result<Value, CallError> {
        if !self.spec.is_active {
            return Err(CallError::Inactive { name: self.name.clone() });
        }
        let password = match &self.password {
            None => None,
            Some(None) => return Err(CallError::SecretUnknown { name: self.name.clone() }),
            Some(Some(password)) => Some(password.0.as_str()),
        };
        Ok(json!({"url": url(&self.spec, password), "pool_size": self.spec.pool_size}))
    }

    /// How it is.
    pub fn status(&self) -> OutgoingStatus {
        let health = if self.spec.is_active { "unknown" } else { "inactive" };
        let unknown = matches!(self.password, Some(None));
        OutgoingStatus {
            name: self.name.clone(),
            address: url(&OutgoingSql { username: None, ..self.spec.clone() }, None),
            health: health.to_owned(),
            last_error: unknown.then(|| "its password is not known".to_owned()),
            checked_ms: None,
            ping_ms: None,
            circuit: "closed".to_owned(),
            calls: 0,
            retries: 0,
            failures: 0,
        }
    }
}

/// SQLAlchemy's address of a database (RFC 1738 with its additions).
pub fn url(spec: &OutgoingSql, password: Option<&str>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut url = format!("{}://", spec.engine);
    if let Some(username) = &spec.username {
        url.push_str(&encoded(username));
        if let Some(password) = password {
            url.push(':');
            url.push_str(&encoded(password));
        }
        url.push('@');
    }
    match spec.host.as_deref() {
        Some(host) if host.contains(':') && !host.starts_with('[') => {
            url.push_str(&format!("[{host}]"));
        }
        Some(host) => url.push_str(host),
        None => {}
    }
    if let Some(port) = spec.port {
        url.push_str(&format!(":{port}"));
    }
    url.push('/');
    // SQLAlchemy takes the database's name, or the file's, as it stands.
    url.push_str(&spec.db_name);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: Value, password: Option<&str>, expected: &str) {
        let spec: OutgoingSql = serde_json::from_value(spec).unwrap();
        assert_eq!(url(&spec, password), expected);
    }

    #[test]
    fn addresses_are_as_sqlalchemy_has_them() {
        check(
            json!({"engine": "postgresql+psycopg", "host": "db.example.com", "port": 5433,
                   "db_name": "crm", "username": "us:er", "password": {"secret": "x"}}),
            Some("p@ss/w:rd%"),
            "postgresql+psycopg://us%3Aer:p%40ss%2Fw%3Ard%25@db.example.com:5433/crm",
        );
        check(json!({"engine": "sqlite", "db_name": "/var/x.db"}), None, "sqlite:////var/x.db");
        check(
            json!({"engine": "mysql", "host": "fe80::1", "db_name": "a b"}),
            None,
            "mysql://[fe80::1]/a b",
        );
    }

    #[test]
    fn a_password_is_neither_shown_nor_guessed() {
        let spec = json!({"engine": "mysql", "host": "h", "db_name": "d", "username": "u",
                          "password": {"secret": "x"}});
        let spec: OutgoingSql = serde_json::from_value(spec).unwrap();
        let known = Some(Some(SecretText("geheim".to_owned())));
        let sql = Sql { name: "db".to_owned(), spec: spec.clone(), password: known };
        assert!(!format!("{sql:?}").contains("geheim"));
        assert_eq!(sql.status().address, "mysql://h/d");
        assert_eq!(sql.document().unwrap()["url"], "mysql://u:geheim@h/d");
        let sql = Sql { name: "db".to_owned(), spec, password: Some(None) };
        assert_eq!(
            sql.document().unwrap_err().to_string(),
            "outgoing connection `db`: its secret is not known now; try again"
        );
    }
}
