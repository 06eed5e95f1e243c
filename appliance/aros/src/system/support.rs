//! A support session: a log-in on the box's own screens, opened by an admin for a time.
//!
//! The user `support` is locked but for that time.  Its password is random, is told once, and only its hash is written,
//! into `/etc/shadow` in memory: after a restart it is locked whatever happened.
//!
//! **Invariant:** when a session is over, by time, by an admin or because this unit ends, the user is locked and
//! whoever was logged in is gone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arapi::aros::{Done, SupportRequest, SupportSession};
use arapi::error::ErrorCode;
use arbase::http::{Answer, ApiError, Body};
use arbase::{Chain, Stop};
use axum::Json;
use axum::extract::State;
use rand::RngCore as _;
use tokio::sync::{Mutex, Notify};

use super::{bus, identity};
use crate::server::App;

/// The user who may log in.
const USER: &str = "support";
/// Its number (`sysusers.d/arint.conf`).
const UID: u32 = 64_700;
/// The unit of a log-in on one terminal.
const UNIT: &str = "arint-support@";
/// Where the hash goes.
const SHADOW: &str = "/etc/shadow";
const SYSTEMD: &str = "org.freedesktop.systemd1";
/// The longest session, minutes.
const MOST_MINUTES: u32 = 480;

/// Sessions are opened and closed here.
#[derive(Debug)]
pub(crate) struct Support {
    /// Held while one is opened or closed.
    door: Mutex<()>,
    open: std::sync::Mutex<Option<Open>>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until_ms: u64,
    deadline: Instant,
}

impl Support {
    pub(crate) fn new() -> Self {
        Self { door: Mutex::new(()), open: std::sync::Mutex::new(None), changed: Notify::new() }
    }

    fn session(&self) -> Option<Open> {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, session: Option<Open>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = session;
        self.changed.notify_one();
    }

    /// Whether a session is open.
    pub(crate) fn is_open(&self) -> bool {
        self.session().is_some()
    }

    async fn open(&self, app: &App, minutes: u32) -> Result<SupportSession, ApiError> {
        let _held = self.door.lock().await;
        if self.is_open() {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                "a support session is open already; close it first (`DELETE /v1/support`)",
            ));
        }
        let password = password();
        let hash = hash(&password).map_err(|err| ApiError::internal("hash a password", &err))?;
        let length = Duration::from_secs(u64::from(minutes) * 60);
        let until_ms = arbase::time::now_ms() + u64::from(minutes) * 60_000;
        // Known to be open before it is: whatever fails from here on closes it again.
        self.set(Some(Open { until_ms, deadline: Instant::now() + length }));
        let opened = async {
            set_hash(Path::new(SHADOW), &hash)
                .map_err(|err| ApiError::internal("unlock the user of support", &err))?;
            for unit in units(app) {
                let started = bus::within("open a log-in", SYSTEMD, async {
                    bus::systemd(&app.bus).await?.start_unit(&unit, "replace").await
                });
                started.await.map_err(|err| err.answer())?;
            }
            Ok(())
        };
        if let Err(err) = opened.await {
            self.lock_out(app).await;
            return Err(err);
        }
        log::info!(user = USER, minutes; "support session opened");
        super::note(app, &format!("a support session of {minutes} minutes was opened")).await;
        Ok(SupportSession { user: USER.to_owned(), password: Some(password), until_ms })
    }

    /// Closes a session; false if none is open.
    pub(crate) async fn close(&self, app: &App, reason: &str) -> bool {
        let _held = self.door.lock().await;
        if !self.is_open() {
            return false;
        }
        self.lock_out(app).await;
        log::info!(user = USER, reason; "support session closed");
        super::note(app, &format!("the support session was closed: {reason}")).await;
        true
    }

    /// Locks the user and ends its log-ins.  Each step is tried whatever became of the one before.
    async fn lock_out(&self, app: &App) {
        if let Err(err) = set_hash(Path::new(SHADOW), LOCKED) {
            log::error!(user = USER, error:% = Chain(&err); "user of support cannot be locked");
        }
        for unit in units(app) {
            let stopped = bus::within("close a log-in", SYSTEMD, async {
                bus::systemd(&app.bus).await?.stop_unit(&unit, "replace").await
            });
            if let Err(err) = stopped.await {
                log::error!(unit, error:% = Chain(&err); "log-in of support cannot be closed");
            }
        }
        let ended = bus::within("end a session", "org.freedesktop.login1", async {
            bus::logind(&app.bus).await?.terminate_user(UID).await
        });
        if let Err(err) = ended.await {
            // Nobody was logged in, or the unit's end took the session with it.
            log::debug!(user = USER, error:% = Chain(&err); "no session to end");
        }
        self.set(None);
        app.system.changed.notify_waiters();
    }

    /// Closes sessions in time, and the last one at the end of the unit.
    pub(crate) async fn run(&self, app: &App, stop: Stop) {
        // A predecessor that died with a session open has left it so.  One that was opened just now is none of those.
        let held = self.door.lock().await;
        if !self.is_open() && is_unlocked(Path::new(SHADOW)) {
            self.lock_out(app).await;
            super::note(app, "a support session was closed: the unit had ended").await;
        }
        drop(held);
        loop {
            let deadline = self.session().map(|open| open.deadline);
            let over = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.wait() => break,
                () = self.changed.notified() => {}
                () = over => {
                    self.close(app, "its time is over").await;
                }
            }
        }
        self.close(app, "the unit ends").await;
    }
}

/// The units of the log-ins, one a terminal.
fn units(app: &App) -> Vec<String> {
    let terminal = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        Some(format!("{UNIT}{name}.service"))
    };
    app.system.consoles.iter().filter_map(terminal).collect()
}

/// 100 random bits that can be typed: four groups of five letters and digits.
fn password() -> String {
    let mut bits = [0_u8; 13];
    rand::rng().fill_bytes(&mut bits);
    let letters: Vec<char> = identity::crockford(&bits).chars().take(20).collect();
    let groups: Vec<String> = letters.chunks(5).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

/// Why no hash was made.
#[derive(Debug, thiserror::Error)]
#[error("cannot hash the password of the support session")]
struct HashError;

/// The hash of crypt(5), method SHA-512: what every libc can check.
fn hash(password: &str) -> Result<String, HashError> {
    let mut bits = [0_u8; 10];
    rand::rng().fill_bytes(&mut bits);
    let salt = identity::crockford(&bits);
    let params = sha_crypt::Sha512Params::new(sha_crypt::ROUNDS_DEFAULT).map_err(|_| HashError)?;
    let hash = sha_crypt::sha512_crypt_b64(password.as_bytes(), salt.as_bytes(), &params);
    hash.map(|hash| format!("$6${salt}${hash}")).map_err(|_| HashError)
}

/// What no password hashes to.
const LOCKED: &str = "!*";

/// The text of a shadow file with another hash for the user.
fn with_hash(text: &str, hash: &str) -> String {
    let mut found = false;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.first() == Some(&USER) {
            found = true;
            if let Some(field) = fields.get_mut(1) {
                *field = hash;
            }
            // An account that had expired would not let anybody in.
            if let Some(field) = fields.get_mut(7) {
                *field = "";
            }
        }
        lines.push(fields.join(":"));
    }
    if !found {
        lines.push(format!("{USER}:{hash}:::::::"));
    }
    lines.join("\n") + "\n"
}

/// Writes the hash into the file as it lies: owner and mode stay, and a power cut takes the whole file anyway.
fn set_hash(path: &Path, hash: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let text = with_hash(&std::fs::read_to_string(path)?, hash);
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len().try_into().unwrap_or(u64::MAX))
}

fn is_unlocked(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':'));
    line.is_some_and(|rest| rest.starts_with('$'))
}

/// `POST /v1/support`.
pub(super) async fn support_open(
    State(app): State<Arc<App>>,
    Body(request): Body<SupportRequest>,
) -> Answer<SupportSession> {
    let minutes = request.minutes;
    if !(1..=MOST_MINUTES).contains(&minutes) {
        return Err(ApiError::invalid(format!(
            "{minutes} minutes are not between 1 and {MOST_MINUTES}"
        )));
    }
    Ok(Json(app.system.support.open(&app, minutes).await?))
}

/// `GET /v1/support`: the open session, without its password; `null` if there is none.
pub(super) async fn support_show(State(app): State<Arc<App>>) -> Answer<Option<SupportSession>> {
    let session = app.system.support.session().map(|open| SupportSession {
        user: USER.to_owned(),
        password: None,
        until_ms: open.until_ms,
    });
    Ok(Json(session))
}

/// `DELETE /v1/support`.
pub(super) async fn support_close(State(app): State<Arc<App>>) -> Answer<Done> {
    if app.system.support.close(&app, "an admin closed it").await {
        return Ok(Json(Done { message: "the support session is closed".to_owned() }));
    }
    Err(ApiError::not_found("no support session is open"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_can_be_typed_and_is_never_the_same() {
        let (one, other) = (password(), password());
        assert_eq!(one.len(), 23);
        assert!(one.chars().all(|c| c == '-' || "0123456789abcdefghjkmnpqrstvwxyz".contains(c)));
        assert_ne!(one, other);
    }

    #[test]
    fn the_hash_is_the_one_that_libc_checks() {
        let password = password();
        let hash = hash(&password).unwrap();
        let openssl = artest::tool("openssl", "openssl");
        let salt = hash.split('$').nth(2).unwrap();
        let checked = std::process::Command::new(openssl)
            .args(["passwd", "-6", "-salt", salt, &password])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(checked.stdout).unwrap().trim(), hash);
    }

    #[test]
    fn only_the_user_of_support_is_unlocked_and_locked_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shadow");
        let text = "root:!*:19000::::::\nsupport:!*:19000:0:99999:7::1:\nsupporter:!*:::::::\n";
        std::fs::write(&path, text).unwrap();
        assert!(!is_unlocked(&path));
        set_hash(&path, "$6$a$b").unwrap();
        assert!(is_unlocked(&path));
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "root:!*:19000::::::\nsupport:$6$a$b:19000:0:99999:7:::\nsupporter:!*:::::::\n"
        );
        set_hash(&path, LOCKED).unwrap();
        assert!(!is_unlocked(&path));
        assert_eq!(with_hash("root:*::::::\n", "!*"), "root:*::::::\nsupport:!*:::::::\n");
    }
}
