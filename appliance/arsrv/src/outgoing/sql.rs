//! Where databases are, and how their pools are: services open them through SQLAlchemy, ask here for the address, and
//! their workers report.
//!
//! The core speaks no database's protocol: a check is asked of the workers that use the connection.
//!
//! **Invariant:** a worker that reports no more is not counted any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arapi::arsrv::{OutgoingStatus, PingResult, PoolFigures};
use arapi::objects::OutgoingSql;
use arapi::objects::SecretText;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::connection::CallError;

/// A worker reports every second; after so long without a word it is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest time for a check that somebody waits for.
const CHECK: Duration = Duration::from_secs(15);
/// Longest sentence that is taken from a worker.
const LONGEST: usize = 500;

/// A database connection.
#[derive(Debug)]
pub struct Sql {
    /// Its name.
    pub name: String,
    /// What was configured.
    pub spec: OutgoingSql,
    /// The password: None where there is none to send, `Some(None)` where it is not known.
    pub password: Option<Option<SecretText>>,
    /// What workers have told.
    pub told: Arc<Told>,
}

impl PartialEq for Sql {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.spec, &self.password) == (&other.name, &other.spec, &other.password)
    }
}

/// What workers have told about a connection.
#[derive(Debug)]
pub struct Told {
    workers: Mutex<BTreeMap<String, (Instant, Report)>>,
    /// Errors of workers that are silent; one of them may speak again.
    errors_before: Mutex<BTreeMap<String, u64>>,
    /// When somebody last wanted a check.
    wanted: Mutex<Option<Instant>>,
    /// Counts reports.
    reported: watch::Sender<u64>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            workers: Mutex::default(),
            errors_before: Mutex::default(),
            wanted: Mutex::default(),
            reported: watch::Sender::new(0),
        }
    }
}

/// How one worker's pool is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Report {
    size: u32,
    open: u32,
    in_use: u32,
    waiting: u32,
    errors: u64,
    fault: Option<String>,
    checked_ms: Option<u64>,
    ping_ms: Option<f64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Told {
    /// Takes a worker's report; says whether it is to check now.
    fn take(&self, worker: &str, mut report: Report, now: Instant) -> bool {
        if let Some(fault) = &mut report.fault {
            *fault = fault.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        }
        let mut workers = locked(&self.workers);
        locked(&self.errors_before).remove(worker);
        workers.insert(worker.to_owned(), (now, report));
        self.forget_silent(&mut workers, now);
        drop(workers);
        self.reported.send_modify(|count| *count = count.wrapping_add(1));
        locked(&self.wanted).take_if(|wanted| now.duration_since(*wanted) < CHECK).is_some()
    }

    fn forget_silent(&self, workers: &mut BTreeMap<String, (Instant, Report)>, now: Instant) {
        workers.retain(|worker, (at, report)| {
            let is_there = now.duration_since(*at) < SILENCE;
            if !is_there && report.errors > 0 {
                locked(&self.errors_before).insert(worker.clone(), report.errors);
            }
            is_there
        });
    }

    /// All workers together, and what the one found that looked last.
    fn now(&self, now: Instant) -> (PoolFigures, Option<Report>) {
        let mut workers = locked(&self.workers);
        self.forget_silent(&mut workers, now);
        let errors = locked(&self.errors_before).values().sum();
        let mut pool = PoolFigures { errors, ..PoolFigures::default() };
        for (_, report) in workers.values() {
            pool.workers += 1;
            pool.size = pool.size.saturating_add(report.size);
            pool.open = pool.open.saturating_add(report.open);
            pool.in_use = pool.in_use.saturating_add(report.in_use);
            pool.waiting = pool.waiting.saturating_add(report.waiting);
            pool.errors = pool.errors.saturating_add(report.errors);
        }
        let last = workers.values().map(|(_, report)| report);
        let last = last.filter(|report| report.checked_ms.is_some());
        (pool, last.max_by_key(|report| report.checked_ms).cloned())
    }
}

impl Sql {
    /// What a service gets: SQLAlchemy's address, with the password, and how its pool is to be.
    pub fn document(&self) -> Result<Value, CallError> {
        if !self.spec.is_active {
            return Err(CallError::Inactive { name: self.name.clone() });
        }
        let password = match &self.password {
            None => None,
            Some(None) => return Err(CallError::SecretUnknown { name: self.name.clone() }),
            Some(Some(password)) => Some(password.0.as_str()),
        };
        Ok(json!({
            "url": url(&self.spec, password),
            "pool_size": self.spec.pool_size,
            "pool_timeout_ms": self.spec.pool_timeout_ms,
            "ping_interval_s": self.spec.ping_interval_s,
        }))
    }

    /// Takes a worker's report; says whether it is to check now.
    pub fn take(&self, worker: &str, report: Report) -> bool {
        self.told.take(worker, report, Instant::now())
    }

    /// How it is.
    pub fn status(&self) -> OutgoingStatus {
        let (pool, last) = self.told.now(Instant::now());
        let fault = last.as_ref().and_then(|last| last.fault.clone());
        let health = match (self.spec.is_active, &last, &fault) {
            (false, _, _) => "inactive",
            (true, None, _) => "unknown",
            (true, Some(_), None) => "up",
            (true, Some(_), Some(_)) => "down",
        };
        let unknown = matches!(self.password, Some(None));
        OutgoingStatus {
            name: self.name.clone(),
            address: url(&OutgoingSql { username: None, ..self.spec.clone() }, None),
            health: health.to_owned(),
            last_error: fault.or_else(|| unknown.then(|| "its password is not known".to_owned())),
            checked_ms: last.as_ref().and_then(|last| last.checked_ms),
            ping_ms: last.as_ref().and_then(|last| last.ping_ms),
            circuit: "closed".to_owned(),
            calls: 0,
            retries: 0,
            failures: 0,
            pool: Some(pool),
        }
    }

    /// Has a worker check it now.
    pub async fn ping(&self) -> PingResult {
        let started = Instant::now();
        let answer = |ok: bool, message: String| PingResult {
            ok,
            status: None,
            message,
            elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
        };
        if self.told.now(started).0.workers == 0 {
            return answer(
                false,
                format!(
                    "outgoing connection `{}` is a database, which workers check; no service has used it since they started",
                    self.name
                ),
            );
        }
        let before = arbase::time::now_ms();
        let mut reported = self.told.reported.subscribe();
        *locked(&self.told.wanted) = Some(started);
        let looked = async {
            loop {
                // The sender lives as long as this.
                reported.changed().await.ok();
                let last = self.told.now(Instant::now()).1;
                if let Some(last) = last.filter(|last| last.checked_ms >= Some(before)) {
                    return last;
                }
            }
        };
        match tokio::time::timeout(CHECK, looked).await {
            Ok(Report { fault: None, ping_ms, .. }) => {
                let took = ping_ms.unwrap_or_default();
                answer(true, format!("`{}` answered a worker within {took:.1} ms", self.name))
            }
            Ok(Report { fault: Some(fault), .. }) => answer(false, fault),
            Err(_) => answer(
                false,
                format!(
                    "outgoing connection `{}`: no worker got an answer within {CHECK:?}",
                    self.name
                ),
            ),
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
        let sql = Sql {
            name: "db".to_owned(),
            spec: spec.clone(),
            password: known,
            told: Arc::default(),
        };
        assert!(!format!("{sql:?}").contains("geheim"));
        assert_eq!(sql.status().address, "mysql://h/d");
        assert_eq!(sql.document().unwrap()["url"], "mysql://u:geheim@h/d");
        let sql = Sql { name: "db".to_owned(), spec, password: Some(None), told: Arc::default() };
        assert_eq!(
            sql.document().unwrap_err().to_string(),
            "outgoing connection `db`: its secret is not known now; try again"
        );
    }

    fn report(in_use: u32, errors: u64, checked_ms: Option<u64>, fault: Option<&str>) -> Report {
        let fault = fault.map(ToOwned::to_owned);
        Report { size: 5, open: 3, in_use, waiting: 1, errors, fault, checked_ms, ping_ms: None }
    }

    #[test]
    fn the_pools_of_all_workers_count_together_until_a_worker_is_silent() {
        let (told, start) = (Told::default(), Instant::now());
        told.take("default-1", report(2, 1, Some(10), Some("gone\n\u{7}away")), start);
        told.take("default-2", report(1, 0, Some(20), None), start);
        let (pool, last) = told.now(start);
        let expected =
            PoolFigures { workers: 2, size: 10, open: 6, in_use: 3, waiting: 2, errors: 1 };
        assert_eq!(pool, expected);
        assert_eq!(last.unwrap().fault, None, "the one that looked last");
        told.take("default-2", report(0, 0, Some(20), None), start + SILENCE / 2);
        let (pool, _) = told.now(start + SILENCE);
        // Errors of the silent one have happened all the same.
        let expected =
            PoolFigures { workers: 1, size: 5, open: 3, in_use: 0, waiting: 1, errors: 1 };
        assert_eq!(pool, expected);
    }

    #[test]
    fn what_workers_say_is_told_without_control_characters() {
        let (told, now) = (Told::default(), Instant::now());
        told.take("default-1", report(0, 0, Some(1), Some("gone\n\u{7}away")), now);
        assert_eq!(told.now(now).1.unwrap().fault.unwrap(), "goneaway");
    }

    #[test]
    fn a_check_is_asked_of_one_worker() {
        let (told, now) = (Told::default(), Instant::now());
        assert!(!told.take("default-1", Report::default(), now));
        *locked(&told.wanted) = Some(now);
        assert!(told.take("default-1", Report::default(), now));
        assert!(!told.take("default-2", Report::default(), now));
    }
}
