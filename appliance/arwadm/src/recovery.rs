//! The recovery system: no object store, nobody to be recognized; who reads the code on the box's screen is let in.
//!
//! In recovery `/var` is in memory, so users and passwords are out of reach.  A fresh first-run code on the screen and
//! the serial console proves possession: it is the password of the user `recovery`, who may look at the operating
//! system, install a bundle and reset the box, and nothing else.  Log-ins live in memory.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arapi::ObjectName;
use arapi::arwadm::{LoginRequest, TokenAnswer};
use arapi::error::ErrorCode;
use arapi::objects::Permission;
use arbase::http::{ApiError, with_cid};
use arbase::time::now_ms;
use arbase::{Chain, Stop};

use crate::claim::{self, ClaimCode};
use crate::gate::Caller;
use crate::lockout::Key;
use crate::routes::Route;
use crate::server::App;
use crate::tokens::{NewToken, sha256_hex};

/// The user of the recovery system.
pub(crate) const USER: &str = "recovery";
/// What he may do.
pub(crate) const PERMISSIONS: [Permission; 3] =
    [Permission::Read, Permission::Logs, Permission::System];
/// Waits between questions for the slot that runs.
const RETRY: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(10);

/// What the recovery system runs with.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// Why it runs, one sentence.
    pub(crate) why: String,
    code: ClaimCode,
    /// SHA-256 of a token, its name, and when it ends.
    log_ins: Mutex<Vec<(String, ObjectName, u64)>>,
}

impl Recovery {
    /// The name of a token that holds.
    pub(crate) fn log_in_of(&self, token: &str) -> Option<ObjectName> {
        let sha256 = sha256_hex(token.as_bytes());
        let log_ins = self.log_ins.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = log_ins.iter().find(|(kept, _, ends)| *kept == sha256 && *ends > now_ms());
        fits.map(|(_, name, _)| name.clone())
    }

    /// Ends a log-in.
    pub(crate) fn end(&self, name: &ObjectName) {
        let mut log_ins = self.log_ins.lock().unwrap_or_else(PoisonError::into_inner);
        log_ins.retain(|(_, kept, _)| kept != name);
    }
}

/// Whether a call is answered in recovery.
pub(crate) fn answers(route: &Route) -> bool {
    route.path.starts_with("/v1/system/")
        || matches!(
            route.name,
            "openapi"
                | "claim_info"
                | "login"
                | "logout"
                | "whoami"
                | "status"
                | "session"
                | "session_open"
                | "session_close"
        )
}

/// Learns from the operating system unit whether this is the recovery system.  On a machine without that unit it
/// never is, and the question is asked now and then, because the unit may start later.
pub(crate) async fn watch(app: App, stop: Stop) {
    let mut asked = 0;
    loop {
        let status = with_cid(arapi::Cid::random(), app.aros().status()).await;
        match status {
            Ok(status) if status.boot.slot == "recovery" => {
                let why =
                    status.boot.fell_back.unwrap_or_else(|| "an admin asked for it".to_owned());
                return begin(&app, why);
            }
            Ok(_) => return,
            Err(err) => log::debug!(error:% = Chain(&err); "the slot that runs is not known yet"),
        }
        asked += 1;
        tokio::select! {
            () = tokio::time::sleep(if asked < 120 { RETRY } else { LATER }) => {}
            () = stop.wait() => return,
        }
    }
}

fn begin(app: &App, why: String) {
    let path = claim::code_file(&app.config.runtime_dir);
    let code = claim::kept_or_new(&path).unwrap_or_else(|err| {
        log::error!(error:% = Chain(&err); "cannot keep the recovery code in its file");
        ClaimCode::random()
    });
    // See `show_code` for why a code may stand in the log; this one dies with the recovery system.
    log::warn!(reason = why; "this is the recovery system; log in as `recovery` with the code {}", code.shown());
    app.enter_recovery(Recovery { why, code, log_ins: Mutex::default() });
}

impl App {
    /// Gives a token for the code.
    pub(crate) async fn recovery_login(
        &self,
        caller: &Caller,
        recovery: &Recovery,
        request: LoginRequest,
    ) -> Result<TokenAnswer, ApiError> {
        let keys = [Key::Claim];
        self.attempt(&keys)?;
        if request.user != USER || !recovery.code.fits(&request.password) {
            return Err(ApiError::new(
                ErrorCode::Unauthorized,
                "this is the recovery system: log in as `recovery` with the code that the box shows on its screen and serial console",
            ));
        }
        self.succeeded(&keys);
        let token = NewToken::random();
        let name =
            ObjectName::parse(&token.name).map_err(|err| ApiError::invalid(err.to_string()))?;
        let user = ObjectName::parse(USER).map_err(|err| ApiError::invalid(err.to_string()))?;
        let expires_ms = now_ms().saturating_add(self.config.login_ttl_s.saturating_mul(1000));
        {
            let mut log_ins = recovery.log_ins.lock().unwrap_or_else(PoisonError::into_inner);
            log_ins.retain(|(_, _, ends)| *ends > now_ms());
            log_ins.push((token.sha256, name, expires_ms));
        }
        let caller = caller.recognized(&user);
        self.note(vec![self.entry(&caller, format!("Token/{}", token.name))]).await?;
        Ok(TokenAnswer { name: token.name, token: token.token, expires_ms: Some(expires_ms) })
    }
}
