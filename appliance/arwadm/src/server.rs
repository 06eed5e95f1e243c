//! Start, run, stop; and what the handlers share.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arapi::arclst::{Change, Expect, Transaction};
use arapi::arwadm::{AuditEntry, ClaimInfo, ClaimRequest, Done, LoginRequest, TokenAnswer};
use arapi::error::ErrorCode;
use arapi::names::is_reserved;
use arapi::objects::{SecretText, TokenSpec, UserSpec};
use arapi::{Cid, Kind, ObjectName, Spec, arclst, arldb, aros, arsrv};
use arbase::http::{
    ApiError, ListenError, current_cid, for_peers, listen_unix, peer_token, with_cid,
    with_common_form,
};
use arbase::time::now_ms;
use arbase::{Chain, Stop, Stopper};
use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use crate::audit::Audit;
use crate::claim::{self, ClaimCode};
use crate::config::{Config, TlsMode};
use crate::gate::{Caller, gate, with_security_headers};
use crate::lockout::{Key, Lockout, Wait};
use crate::password::{Passwords, check_new};
use crate::people::{Mirror, People};
use crate::recovery::{self, Recovery};
use crate::remote::passed_on;
use crate::tls::{OwnCertificate, TlsError};
use crate::tokens::NewToken;
use crate::{listen, metrics, pages, pickup, plan, system, tls};

/// How long the start waits for the object store; after that it comes up without.
const STORE_WAIT: Duration = Duration::from_secs(20);
/// Between two rounds of removing ended tokens and old audit entries.
const SWEEP: Duration = Duration::from_secs(600);
/// Refused attempts of strangers that are written down one by one in a minute; the rest is counted.
const REFUSALS_A_MINUTE: u32 = 120;
/// The credentials of the editor protocol.
const PUBLISHER: &str = "ide_publisher";

/// Why the admin API cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The audit log cannot be opened.
    #[error("cannot open the audit log")]
    Audit(#[source] arstore::OpenError),
    /// There is no certificate.
    #[error("cannot prepare the certificate")]
    Tls(#[source] TlsError),
    /// The address cannot be had.
    #[error("cannot listen on `{addr}`")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot serve the socket")]
    Socket(#[source] ListenError),
    /// The process does not know who it is.
    #[error("cannot read `/proc/self`")]
    OwnUser(#[source] io::Error),
}

/// The admin API, started.
#[derive(Debug)]
pub struct Server {
    app: App,
    router: Router,
    network: TcpListener,
    local_addr: SocketAddr,
    certificate: Option<Arc<OwnCertificate>>,
    local: UnixListener,
    /// Where figures are given without a token.
    figures: Option<TcpListener>,
    token: String,
    stopper: Stopper,
    stop: Stop,
}

impl Server {
    /// Opens the audit log and the listeners, and waits a while for the object store.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (stopper, stop) = Stop::new();
        let audit = Audit::open(&config.state_dir).map_err(StartError::Audit)?;
        let own_uid = std::fs::metadata("/proc/self").map_err(StartError::OwnUser)?.uid();
        let certificate = match config.tls {
            TlsMode::Off => None,
            TlsMode::SelfSigned => {
                let made =
                    OwnCertificate::load(&config.state_dir.join("tls"), &arbase::host::name());
                Some(Arc::new(made.map_err(StartError::Tls)?))
            }
        };
        let network = bind(&config).await?;
        let figures = match config.metrics_listen {
            None => None,
            Some(addr) => {
                let bound = TcpListener::bind(addr).await;
                Some(bound.map_err(|source| StartError::Listen { addr, source })?)
            }
        };
        let local_addr = network.local_addr().map_err(|source| StartError::Listen {
            addr: config.listen.candidates().first().copied().unwrap_or(([0, 0, 0, 0], 0).into()),
            source,
        })?;
        let socket = config.runtime_dir.join("arwadm.sock");
        let local = listen_unix(&socket, 0o660).map_err(StartError::Socket)?;
        let token = peer_token(&config.runtime_dir).map_err(StartError::Socket)?;
        let app = App::new(config, audit, own_uid, certificate.clone(), &stop);
        if let Some(certificate) = &certificate {
            log::info!(fingerprint = certificate.fingerprint(); "certificate in use");
            tls::show(&app.config.runtime_dir, certificate);
        }
        let router = router(&app);
        let first_run = tokio::spawn(first_run(app.clone()));
        let recovery = tokio::spawn(recovery::watch(app.clone(), stop.clone()));
        let known = async {
            tokio::select! {
                _ = first_run => {}
                () = app.recovery_begins() => {}
            }
        };
        if tokio::time::timeout(STORE_WAIT, known).await.is_err() {
            log::warn!(waited_ms = STORE_WAIT.as_millis(); "the object store does not answer; starting without it");
        }
        // Goes on by itself where the slot is not known yet.
        drop(recovery);
        Ok(Self {
            app,
            router,
            network,
            local_addr,
            certificate,
            local,
            figures,
            token,
            stopper,
            stop,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until told to stop.
    pub async fn run_until(self, stop: Stop) {
        let Self {
            app,
            router,
            network,
            certificate,
            local,
            figures,
            token,
            stopper,
            stop: own_stop,
            ..
        } = self;
        let mut parts = JoinSet::new();
        let limits = listen::Limits::with_connections(app.config.connections);
        let tls = certificate.as_ref().map(|certificate| certificate.acceptor());
        if let Some(certificate) = certificate {
            let (named, runtime_dir) = (app.clone(), app.config.runtime_dir.clone());
            let names = move || {
                let app = named.clone();
                async move { app.names().await }
            };
            parts.spawn(tls::follow(certificate, runtime_dir, names, own_stop.clone()));
        }
        // What a service's code may not do under the user of the core, it may not do by naming itself a unit.
        let to_local = whole(for_peers(router.clone(), &token));
        parts.spawn(listen::serve_network(network, tls, whole(router), limits, own_stop.clone()));
        parts.spawn(listen::serve_local(local, to_local, own_stop.clone()));
        if let Some(listener) = figures {
            let router = metrics::loopback_router(app.clone());
            // In a box: this future would be large otherwise.
            let serving = listen::serve_network(listener, None, router, limits, own_stop.clone());
            parts.spawn(Box::pin(serving));
        }
        parts.spawn(pickup::run(app.clone(), own_stop.clone()));
        parts.spawn(sweep(app, own_stop));
        stop.wait().await;
        stopper.stop();
        while parts.join_next().await.is_some() {}
    }
}

/// The routes with what every answer has in common.
fn whole(router: Router) -> Router {
    with_common_form(router).layer(map_response(with_security_headers))
}

async fn bind(config: &Config) -> Result<TcpListener, StartError> {
    let mut failed = None;
    for addr in config.listen.candidates() {
        match TcpListener::bind(addr).await {
            Ok(listener) => return Ok(listener),
            Err(source) => {
                failed.get_or_insert(StartError::Listen { addr, source });
            }
        }
    }
    Err(failed.unwrap_or(StartError::Listen {
        addr: ([0, 0, 0, 0], 0).into(),
        source: io::Error::from(io::ErrorKind::AddrNotAvailable),
    }))
}

fn router(app: &App) -> Router {
    let mut router = Router::new();
    for route in crate::ROUTES {
        let passes = from_fn_with_state((app.clone(), route), gate);
        router = router.route(route.path, (route.handler)().route_layer(passes));
    }
    router
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(app.clone())
        .merge(pages::router())
}

/// What the handlers share.  Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) audit: Audit,
    pub(crate) mirror: Mirror,
    pub(crate) own_uid: u32,
    /// Held while a transaction of a person is planned and committed.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Held while a deployment is checked and committed.
    pub(crate) deploying: tokio::sync::Mutex<()>,
    /// Downloads of the update bundle that are still free.
    pub(crate) downloads: Arc<tokio::sync::Semaphore>,
    certificate: Option<Arc<OwnCertificate>>,
    /// What this unit has answered.
    pub(crate) answers: metrics::Answers,
    recovery: OnceLock<Recovery>,
    recovery_begins: tokio::sync::Notify,
    lockout: Mutex<Lockout>,
    passwords: Passwords,
    code: Mutex<Option<ClaimCode>>,
    refusals: Mutex<Refusals>,
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Counts refused attempts of strangers, so that they cannot fill the disk.
#[derive(Debug, Default)]
struct Refusals {
    minute: u64,
    written: u32,
    passed_over: u32,
}

impl Refusals {
    /// Whether one at `now_ms` is written down, and how many of an earlier minute were not.
    fn admit(&mut self, now_ms: u64) -> (bool, u32) {
        let minute = now_ms / 60_000;
        let mut before = 0;
        if minute != self.minute {
            before = std::mem::take(&mut self.passed_over);
            self.minute = minute;
            self.written = 0;
        }
        if self.written < REFUSALS_A_MINUTE {
            self.written += 1;
            (true, before)
        } else {
            self.passed_over += 1;
            (false, before)
        }
    }
}

impl App {
    fn new(
        config: Config,
        audit: Audit,
        own_uid: u32,
        certificate: Option<Arc<OwnCertificate>>,
        stop: &Stop,
    ) -> Self {
        let client = arclst::Client::in_runtime_dir(&config.runtime_dir);
        Self(Arc::new(Parts {
            mirror: Mirror::start(client, stop.clone()),
            config,
            audit,
            own_uid,
            changing: tokio::sync::Mutex::default(),
            deploying: tokio::sync::Mutex::default(),
            downloads: Arc::new(tokio::sync::Semaphore::new(system::DOWNLOADS)),
            certificate,
            answers: metrics::Answers::default(),
            recovery: OnceLock::new(),
            recovery_begins: tokio::sync::Notify::new(),
            lockout: Mutex::default(),
            passwords: Passwords::default(),
            code: Mutex::default(),
            refusals: Mutex::default(),
        }))
    }

    /// What the recovery system runs with; none in the usual one.
    pub(crate) fn recovery(&self) -> Option<&Recovery> {
        self.recovery.get()
    }

    /// From now on this is the recovery system.
    pub(crate) fn enter_recovery(&self, recovery: Recovery) {
        // A second time changes nothing: it is entered once, by one task.
        drop(self.recovery.set(recovery));
        self.recovery_begins.notify_one();
    }

    async fn recovery_begins(&self) {
        self.recovery_begins.notified().await;
    }

    /// Whether people come over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.certificate.is_some()
    }

    /// The host name and the addresses as they are now.  This unit may have started before the box had them, and in its
    /// sandbox the kernel goes on saying the old name: the operating system unit is asked first.
    async fn names(&self) -> (String, Vec<String>) {
        let client = aros::Client(self.aros().0.with_limit(Duration::from_secs(5)));
        let host =
            client.status().await.map_or_else(|_| arbase::host::name(), |status| status.hostname);
        let network = client.0.get::<aros::NetworkStatus>("/v1/network").await.unwrap_or_default();
        let addresses = network.links.iter().flat_map(|link| &link.addresses);
        let ips = addresses.filter_map(|address| address.split('/').next()?.parse::<IpAddr>().ok());
        let reached = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        };
        (host, ips.filter(reached).map(|ip| ip.to_string()).collect())
    }

    /// What a user may do.
    pub(crate) async fn permissions(&self, user: &str) -> Vec<arapi::objects::Permission> {
        if self.recovery().is_some() {
            return recovery::PERMISSIONS.into();
        }
        self.mirror.first().await.permissions(user).into_iter().collect()
    }

    /// Ends the log-in that a call came with.
    pub(crate) async fn log_out(&self, caller: &Caller) -> Result<Done, ApiError> {
        if let (Some(recovery), Some(token)) = (self.recovery(), &caller.token) {
            recovery.end(token);
            self.note(vec![self.entry(caller, format!("Token/{token}"))]).await?;
            return Ok(Done { revision: 0 });
        }
        self.end_tokens(caller, caller.token.clone().into_iter().collect()).await
    }

    /// The object store, called as part of this request.
    pub(crate) fn arclst(&self) -> arclst::Client {
        let client = arclst::Client::in_runtime_dir(&self.config.runtime_dir);
        arclst::Client(client.0.with_cid(current_cid().to_string()))
    }

    /// The integrator core, called as part of this request.
    pub(crate) fn arsrv(&self) -> arsrv::Client {
        let client = arsrv::Client::in_runtime_dir(&self.config.runtime_dir);
        arsrv::Client(client.0.with_cid(current_cid().to_string()))
    }

    /// The balancer, called as part of this request.
    pub(crate) fn arldb(&self) -> arldb::Client {
        let client = arldb::Client::in_runtime_dir(&self.config.runtime_dir);
        arldb::Client(client.0.with_cid(current_cid().to_string()))
    }

    /// The box's name.
    pub(crate) async fn node(&self) -> String {
        let client = self.arclst().0.with_limit(Duration::from_secs(2));
        let status = arclst::Client(client).status().await;
        status.map_or_else(|_| arbase::host::name(), |status| status.node)
    }

    /// An audit entry of something done, to be completed.
    pub(crate) fn entry(&self, caller: &Caller, target: String) -> AuditEntry {
        AuditEntry {
            seq: 0,
            time_ms: now_ms(),
            who: caller.who.clone(),
            remote: caller.remote.clone(),
            action: caller.action.to_owned(),
            target,
            outcome: "done".to_owned(),
            reason: None,
            cid: current_cid().to_string(),
            before: None,
            after: None,
        }
    }

    /// Writes down what was done; it is on disk when this returns.
    pub(crate) async fn note(&self, entries: Vec<AuditEntry>) -> Result<(), ApiError> {
        let written = self.audit.append(entries).await;
        written.map_err(|err| ApiError::internal("write the audit log", &err))
    }

    /// Writes down a refused or failed attempt.
    pub(crate) async fn note_refusal(
        &self,
        caller: &Caller,
        target: String,
        outcome: &str,
        reason: Option<String>,
    ) {
        let (is_written, before) = if caller.is_anonymous() {
            self.refusals.lock().unwrap_or_else(PoisonError::into_inner).admit(now_ms())
        } else {
            (true, 0)
        };
        let mut entries = Vec::new();
        if before > 0 {
            entries.push(AuditEntry {
                remote: "various".to_owned(),
                outcome: "refused".to_owned(),
                reason: Some(format!("{before} more attempts of strangers were refused before")),
                ..self.entry(caller, String::new())
            });
        }
        if is_written {
            let outcome = outcome.to_owned();
            entries.push(AuditEntry { outcome, reason, ..self.entry(caller, target) });
        }
        if let Err(err) = self.audit.append(entries).await {
            log::error!(cid:% = current_cid(), error:% = Chain(&err); "cannot write the audit log");
        }
    }

    /// After a change: waits until users, roles and tokens are seen as they are now.
    pub(crate) async fn settle(&self, kinds: impl Iterator<Item = Kind>, revision: u64) {
        let mut kinds = kinds;
        if kinds.any(|kind| People::KINDS.contains(&kind)) {
            self.mirror.reached(revision).await;
        }
    }

    /// What a stranger may know.
    pub(crate) async fn claim_info(&self) -> ClaimInfo {
        let recovery = self.recovery().map(|recovery| recovery.why.clone());
        // Whom a box in recovery belongs to cannot be read there; it is not to be claimed in any case.
        let claimed = recovery.is_some() || self.mirror.first().await.is_claimed();
        ClaimInfo {
            claimed,
            node: self.node().await,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: self.certificate.as_ref().map(|certificate| certificate.fingerprint()),
            key: self.certificate.as_ref().and_then(|certificate| certificate.key()),
            recovery,
            seed_refused: if claimed { None } else { self.seed_refused() },
        }
    }

    /// Why the operating system unit's `arint-seed` refused a seed file, if it did.
    fn seed_refused(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.config.runtime_dir.join("seed-refused")).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// Makes the first admin.
    pub(crate) async fn claim(
        &self,
        caller: &Caller,
        request: ClaimRequest,
    ) -> Result<TokenAnswer, ApiError> {
        let claimed = || {
            ApiError::new(
                ErrorCode::Conflict,
                "this box is claimed already; log in with `arctl login`",
            )
        };
        if self.mirror.first().await.is_claimed() {
            return Err(claimed());
        }
        let keys = [Key::Claim];
        self.attempt(&keys)?;
        let fits = {
            let code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
            code.as_ref().is_some_and(|code| code.fits(&request.code))
        };
        if !fits {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "the code is wrong; the box shows it on its screen and console, in its log, and in the file `first-run-code`",
            ));
        }
        self.succeeded(&keys);
        check_new(&request.password).map_err(ApiError::invalid)?;
        if is_reserved(request.user.as_str()) {
            let source = arapi::names::NameError::Reserved(request.user.to_string());
            return Err(ApiError::invalid(source.to_string()));
        }
        let hash = self.passwords.hash(request.password).await;
        let hash = hash.map_err(|err| ApiError::internal("hash a password", &err))?;
        let _one = self.changing.lock().await;
        if self.mirror.first().await.is_claimed() {
            return Err(claimed());
        }
        let admin = ObjectName::parse("admin").map_err(|err| ApiError::invalid(err.to_string()))?;
        let user = UserSpec { password_hash: Some(hash), roles: vec![admin], is_active: true };
        let put = Change::Put {
            kind: Kind::User,
            name: request.user.clone(),
            spec: Spec::User(user).to_json(),
            expect: Expect::Absent,
        };
        let caller = caller.recognized(&request.user);
        let ttl_s = Some(self.config.login_ttl_s);
        let answer =
            self.give_token_with(&caller, request.user.clone(), "claim", ttl_s, Some(put)).await?;
        self.note(vec![self.entry(&caller, format!("User/{}", request.user))]).await?;
        *self.code.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(err) = std::fs::remove_file(claim::code_file(&self.config.runtime_dir)) {
            log::warn!(error:% = Chain(&err); "cannot remove the first-run code");
        }
        log::info!(cid:% = current_cid(), who = caller.who, remote = caller.remote; "box claimed");
        Ok(answer)
    }

    /// Gives a token for a password.
    pub(crate) async fn login(
        &self,
        caller: &Caller,
        request: LoginRequest,
    ) -> Result<TokenAnswer, ApiError> {
        if let Some(recovery) = self.recovery() {
            return self.recovery_login(caller, recovery, request).await;
        }
        let people = self.mirror.first().await;
        let user = ObjectName::parse(&request.user).ok();
        let known = user.as_ref().and_then(|user| people.users.get(user));
        let hash = known.filter(|user| user.is_active).and_then(|user| user.password_hash.clone());
        let keys = [Key::User(request.user.clone()), Key::Address(caller.remote.clone())];
        self.attempt(&keys)?;
        let fits = self.passwords.fits(hash, request.password).await;
        let fits = fits.map_err(|err| ApiError::internal("verify a password", &err))?;
        let Some(user) = user.filter(|_| fits) else {
            return Err(ApiError::new(ErrorCode::Unauthorized, "user or password is wrong"));
        };
        self.succeeded(&keys);
        let caller = caller.recognized(&user);
        let answer =
            self.give_token(&caller, user.clone(), "login", Some(self.config.login_ttl_s)).await?;
        log::info!(cid:% = current_cid(), who = caller.who, remote = caller.remote; "logged in");
        Ok(answer)
    }

    /// Makes a token for a user.
    pub(crate) async fn give_token(
        &self,
        caller: &Caller,
        user: ObjectName,
        description: &str,
        ttl_s: Option<u64>,
    ) -> Result<TokenAnswer, ApiError> {
        let answer = self.give_token_with(caller, user, description, ttl_s, None).await?;
        self.note(vec![self.entry(caller, format!("Token/{}", answer.name))]).await?;
        Ok(answer)
    }

    async fn give_token_with(
        &self,
        caller: &Caller,
        user: ObjectName,
        description: &str,
        ttl_s: Option<u64>,
        first: Option<Change>,
    ) -> Result<TokenAnswer, ApiError> {
        let token = NewToken::random();
        let name =
            ObjectName::parse(&token.name).map_err(|err| ApiError::invalid(err.to_string()))?;
        let expires_ms = ttl_s.map(|ttl| now_ms().saturating_add(ttl.saturating_mul(1000)));
        let spec = TokenSpec {
            user,
            sha256: token.sha256.clone(),
            expires_ms,
            description: description.to_owned(),
        };
        let put = Change::Put {
            kind: Kind::Token,
            name,
            spec: Spec::Token(spec).to_json(),
            expect: Expect::Absent,
        };
        let changes = first.into_iter().chain([put]).collect();
        self.commit_own(caller, "make a token", changes).await?;
        Ok(TokenAnswer { name: token.name, token: token.token, expires_ms })
    }

    /// Ends tokens.
    pub(crate) async fn end_tokens(
        &self,
        caller: &Caller,
        names: Vec<ObjectName>,
    ) -> Result<Done, ApiError> {
        let entries =
            names.iter().map(|name| self.entry(caller, format!("Token/{name}"))).collect();
        let delete = |name| Change::Delete { kind: Kind::Token, name, expect: Expect::Any };
        let changes = names.into_iter().map(delete).collect();
        let revision = self.commit_own(caller, "end tokens", changes).await?;
        self.note(entries).await?;
        Ok(Done { revision })
    }

    /// Checks a user's password, as a login does.
    pub(crate) async fn check_password(
        &self,
        caller: &Caller,
        user: &ObjectName,
        password: String,
    ) -> Result<(), ApiError> {
        let keys = [Key::User(user.to_string()), Key::Address(caller.remote.clone())];
        self.attempt(&keys)?;
        let (_, spec) = self.stored_user(user).await?;
        let fits = self.passwords.fits(spec.password_hash, password).await;
        if !fits.map_err(|err| ApiError::internal("verify a password", &err))? {
            return Err(ApiError::new(ErrorCode::Forbidden, "the present password is wrong"));
        }
        self.succeeded(&keys);
        Ok(())
    }

    /// Sets a user's password; his tokens end, but for the one this call came with.
    pub(crate) async fn set_password(
        &self,
        caller: &Caller,
        user: &ObjectName,
        password: String,
    ) -> Result<Done, ApiError> {
        check_new(&password).map_err(ApiError::invalid)?;
        let hash = self.passwords.hash(password).await;
        let hash = hash.map_err(|err| ApiError::internal("hash a password", &err))?;
        let _one = self.changing.lock().await;
        let (revision, spec) = self.stored_user(user).await?;
        let spec = UserSpec { password_hash: Some(hash), ..spec };
        let put = Change::Put {
            kind: Kind::User,
            name: user.clone(),
            spec: Spec::User(spec).to_json(),
            expect: Expect::Revision(revision),
        };
        let tokens = self.mirror.first().await.tokens_of(user.as_str()).into_iter();
        let others = tokens.filter(|token| Some(token) != caller.token.as_ref());
        let delete = |name| Change::Delete { kind: Kind::Token, name, expect: Expect::Any };
        let changes = std::iter::once(put).chain(others.map(delete)).collect();
        let revision = self.commit_own(caller, "set a password", changes).await?;
        self.note(vec![self.entry(caller, format!("User/{user}"))]).await?;
        Ok(Done { revision })
    }

    /// Commits changes of users and tokens, and waits until they are seen.
    async fn commit_own(
        &self,
        caller: &Caller,
        doing: &'static str,
        changes: Vec<Change>,
    ) -> Result<u64, ApiError> {
        let transaction = Transaction {
            changes,
            who: caller.who.clone(),
            cid: Some(current_cid().to_string()),
            dry_run: false,
        };
        let committed = self.arclst().commit(&transaction).await;
        let committed = committed.map_err(|err| passed_on(doing, &err))?;
        self.mirror.reached(committed.revision).await;
        Ok(committed.revision)
    }

    pub(crate) fn attempt(&self, keys: &[Key]) -> Result<(), ApiError> {
        let mut lockout = self.lockout.lock().unwrap_or_else(PoisonError::into_inner);
        lockout.attempt(keys, Instant::now()).map_err(|wait: Wait| {
            let refused = ApiError::new(ErrorCode::TooManyRequests, wait.to_string());
            refused.with_details(serde_json::json!({"retry_after_s": wait.0.as_secs().max(1)}))
        })
    }

    pub(crate) fn succeeded(&self, keys: &[Key]) {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner).succeeded(keys);
    }
}

/// What an unclaimed box needs: the credentials of the editor protocol, and the code.
async fn first_run(app: App) {
    with_cid(Cid::random(), async {
        let mut reported = false;
        // A box that was claimed keeps what its admin made of it.
        while !app.mirror.first().await.is_claimed() {
            match make_publisher(&app).await {
                Ok(()) => return show_code(&app, &app.config.runtime_dir),
                Err(err) if !reported => {
                    log::error!(error:% = Chain(&err); "cannot make the first objects; trying again");
                    reported = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}

async fn make_publisher(app: &App) -> Result<(), arapi::ClientError> {
    let present = app.arclst().list(Some(Kind::Security)).await?;
    let Ok(name) = ObjectName::parse(PUBLISHER) else { return Ok(()) };
    if present.objects.iter().any(|object| object.name == name) {
        return Ok(());
    }
    let secret = plan::own_secret(Kind::Security, PUBLISHER, "password");
    let value = SecretText(uuid::Uuid::new_v4().to_string());
    let spec = serde_json::json!({
        "type": "basic", "username": PUBLISHER, "password": {"secret": secret},
    });
    let changes = vec![
        Change::PutSecret { name: secret, value },
        Change::Put { kind: Kind::Security, name, spec, expect: Expect::Absent },
    ];
    let who = "system:first-run".to_owned();
    let cid = Some(current_cid().to_string());
    app.arclst().commit(&Transaction { changes, who, cid, dry_run: false }).await.map(drop)
}

fn show_code(app: &App, runtime_dir: &Path) {
    let path: PathBuf = claim::code_file(runtime_dir);
    let code = claim::kept_or_new(&path).unwrap_or_else(|err| {
        log::error!(error:% = Chain(&err); "cannot keep the first-run code in its file");
        ClaimCode::random()
    });
    // Secrets never reach a log, and this one does on purpose: a box without a screen is claimed by whoever can read
    // its serial console or journal.  It opens one door once, and is worth nothing after the claim.
    log::warn!(path:% = path.display(); "this box is not claimed; claim it with the code {}", code.shown());
    *app.code.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
}

/// Removes tokens that have ended and the oldest audit entries, now and then.
async fn sweep(app: App, stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = stop.wait() => return,
        }
        let people = app.mirror.first().await;
        let ended = people.ended_tokens(now_ms());
        if !ended.is_empty() {
            let caller = Caller::own("system:expiry", "token_revoke");
            if let Err(err) = with_cid(Cid::random(), app.end_tokens(&caller, ended)).await {
                log::warn!(reason = err.message(); "cannot remove tokens that have ended");
            }
        }
        match app.audit.prune(app.config.audit_entries).await {
            Ok(0) => {}
            Ok(removed) => log::info!(removed; "old audit entries removed"),
            Err(err) => log::error!(error:% = Chain(&err); "cannot remove old audit entries"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_fill_the_audit_log() {
        let mut refusals = Refusals::default();
        let written = (0..1000).filter(|_| refusals.admit(60_000).0).count();
        assert_eq!(written, 120);
        assert_eq!(refusals.admit(120_000), (true, 880));
        assert_eq!(refusals.admit(120_001), (true, 0));
    }
}
