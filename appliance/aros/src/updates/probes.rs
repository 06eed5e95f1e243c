//! Functional probes: whether the box does what it is for.  A slot is confirmed only after all of them passed.
//!
//! A further component adds a line to [`PROBES`] and a function.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arapi::aros::Probe;
use arapi::arsrv::{CheckRequest, CheckVerdict, ModuleSource};
use arbase::Chain;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::App;

/// How long one probe may take.
const LIMIT: Duration = Duration::from_secs(30);
/// As much of an answer is read; ours are far shorter.
const MAX_ANSWER: u64 = 64 * 1024;
/// The target whose units make a box.
const TARGET: &str = "arint.target";

/// What a probe found, as a sentence; the error is why it did not pass.
type Found<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;
type Check = for<'a> fn(&'a App) -> Found<'a>;

/// The probes, in the order in which they are run.
const PROBES: &[(&str, Check)] = &[
    ("units", |app| Box::pin(units(app))),
    ("disk", |app| Box::pin(disk(app))),
    ("store", |app| Box::pin(store(app))),
    ("channel", |app| Box::pin(channel(app))),
    ("worker", |app| Box::pin(worker(app))),
    ("admin", |app| Box::pin(admin(app))),
];

/// Runs every probe.
pub(crate) async fn run(app: &App) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (name, check) in PROBES {
        let since = Instant::now();
        let found = tokio::time::timeout(LIMIT, check(app))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")));
        let passed = found.is_ok();
        let message = found.unwrap_or_else(|fault| fault);
        let elapsed_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        probes.push(Probe { name: (*name).to_owned(), passed, message, elapsed_ms });
    }
    probes
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<UnitEntry>>;
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<UnitEntry>>;
    fn get_unit(&self, name: &str) -> zbus::Result<zbus::OwnedObjectPath>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn wants(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn condition_result(&self) -> zbus::Result<bool>;
}

/// A unit as the service manager lists it.
#[derive(Debug, serde::Deserialize, zbus::Type)]
struct UnitEntry {
    name: String,
    _description: String,
    _load: String,
    active: String,
    sub: String,
    _following: String,
    path: zbus::OwnedObjectPath,
    _job: u32,
    _job_type: String,
    _job_path: zbus::OwnedObjectPath,
}

/// The start is over, no unit failed, and all of ours are active.
async fn units(app: &App) -> Result<String, String> {
    let failed = |err: zbus::Error| format!("the service manager cannot be asked: {err}");
    let manager = ManagerProxy::new(&app.bus).await.map_err(failed)?;
    let broken = manager.list_units_filtered(&["failed"]).await.map_err(failed)?;
    if !broken.is_empty() {
        let names: Vec<_> = broken.iter().map(|unit| format!("`{}`", unit.name)).collect();
        return Err(format!("failed: {}", names.join(", ")));
    }
    let target = manager.get_unit(TARGET).await.map_err(failed)?;
    let wants = unit(app, target).await.map_err(failed)?.wants().await.map_err(failed)?;
    let names: Vec<&str> =
        wants.iter().map(String::as_str).filter(|name| name.ends_with(".service")).collect();
    let listed = manager.list_units_by_names(&names).await.map_err(failed)?;
    let mut late: Option<&UnitEntry> = None;
    for entry in &listed {
        let skipped = entry.active == "inactive"
            && !unit(app, entry.path.clone())
                .await
                .map_err(failed)?
                .condition_result()
                .await
                .map_err(failed)?;
        if entry.active != "active" && !skipped {
            // One that ends again and again says more than those that wait for it.
            if late.is_none() || entry.sub == "auto-restart" {
                late = Some(entry);
            }
        }
    }
    if let Some(entry) = late {
        return Err(format!("`{}` is {} ({})", entry.name, entry.active, entry.sub));
    }
    match manager.system_state().await.map_err(failed)?.as_str() {
        "running" | "degraded" => Ok(format!("{} units of {TARGET} are active", listed.len())),
        state => Err(format!("the system is {state}")),
    }
}

async fn unit(app: &App, path: zbus::OwnedObjectPath) -> zbus::Result<UnitProxy<'static>> {
    UnitProxy::builder(&app.bus).path(path).build().await
}

/// What is written to `state` is there after a flush.
async fn disk(app: &App) -> Result<String, String> {
    // Two that probe at one time must not meet.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = app.config.state_dir.join(format!("probe.{count}"));
    let shown = path.display().to_string();
    let stamp = format!("{} {}\n", app.updates.ring.boot_id(), arbase::time::now_ms());
    let wrote = tokio::task::spawn_blocking(move || -> std::io::Result<bool> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file = std::fs::File::create(&path)?;
        file.write_all(stamp.as_bytes())?;
        file.sync_all()?;
        let mut back = String::new();
        std::fs::File::open(&path)?.read_to_string(&mut back)?;
        std::fs::remove_file(&path)?;
        Ok(back == stamp)
    })
    .await;
    match wrote {
        Ok(Ok(true)) => Ok(format!("`{shown}` was written, flushed and read back")),
        Ok(Ok(false)) => Err(format!("`{shown}` reads back different from what was written")),
        Ok(Err(err)) => Err(format!("`{shown}` cannot be written: {err}")),
        Err(err) => Err(format!("`{shown}` cannot be written: {err}")),
    }
}

/// The object store is open and takes changes.
async fn store(app: &App) -> Result<String, String> {
    let client = arapi::arclst::Client::in_runtime_dir(&app.config.runtime_dir);
    let status = client.status().await.map_err(|err| Chain(&err).to_string())?;
    if status.writable {
        Ok(format!("revision {} with {} objects, writable", status.revision, status.objects))
    } else {
        Err(status.reason.unwrap_or_else(|| "the object store takes no changes".to_owned()))
    }
}

/// A request goes in at the balancer's port, as those of clients do, and the core answers it.
async fn channel(app: &App) -> Result<String, String> {
    let addr = app.config.channels_addr;
    let stream = connect(addr).await?;
    let answer = request(stream, "/arint/health").await?;
    if answer.status == 200 {
        Ok(format!("the balancer at {addr} and the core behind it serve requests"))
    } else {
        Err(format!("`/arint/health` at {addr} answers {}: {}", answer.status, answer.body.trim()))
    }
}

/// Python code runs in a sandbox: a worker that serves, or, where there is no service yet, one that is made for this.
async fn worker(app: &App) -> Result<String, String> {
    let client = arapi::arsrv::Client::in_runtime_dir(&app.config.runtime_dir);
    let chain = |err| Chain(&err).to_string();
    let status = client.status().await.map_err(chain)?;
    let ready = status.workers.iter().filter(|worker| worker.state == "ready").count();
    if !status.services.is_empty() && ready > 0 {
        return Ok(format!("{ready} workers are ready"));
    }
    if !status.services.is_empty() {
        return Err(status
            .problems
            .into_iter()
            .next()
            .unwrap_or_else(|| "no worker is ready".to_owned()));
    }
    let module = ModuleSource {
        file_name: "boxcheck.py".to_owned(),
        source: "from zato.server.service import Service\n\n\nclass BoxCheck(Service):\n    def handle(self):\n        pass\n".to_owned(),
    };
    let request = CheckRequest { modules: vec![module], ..CheckRequest::default() };
    match client.check(&request).await.map_err(chain)? {
        CheckVerdict::Loads { .. } => Ok("a fresh worker loads a service".to_owned()),
        CheckVerdict::Refused(fault) => {
            Err(format!("a fresh worker loads no service: {}", fault.reason))
        }
    }
}

/// The admin API answers over TLS.
async fn admin(app: &App) -> Result<String, String> {
    let addr = app.config.admin_addr;
    let failed = |err: &dyn std::fmt::Display| format!("no TLS with {addr}: {err}");
    let stream = connect(addr).await?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|err| failed(&err))?
    .dangerous()
    .with_custom_certificate_verifier(Arc::new(AnyCertificate))
    .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").map_err(|err| failed(&err))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|err| failed(&err))?;
    let answer = request(stream, "/v1/claim").await?;
    if answer.status == 200 {
        Ok(format!("the admin API answers at {addr}"))
    } else {
        Err(format!("`/v1/claim` at {addr} answers {}: {}", answer.status, answer.body.trim()))
    }
}

/// Takes any certificate: the probe asks whether the admin API of this very box answers, on loopback, and tells it
/// nothing.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Answered {
    status: u16,
    body: String,
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(addr).await.map_err(|err| format!("nobody answers at {addr}: {err}"))
}

/// One GET on a connection that ends with it.
async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    path: &str,
) -> Result<Answered, String> {
    let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let failed = |err: std::io::Error| format!("the request for `{path}` broke off: {err}");
    stream.write_all(text.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer).await {
        Ok(_) => {}
        // A connection that is closed without TLS's own farewell has still brought the answer.
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(err) => return Err(failed(err)),
    }
    read_answer(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| format!("the answer to `{path}` is no HTTP"))
}

fn read_answer(text: &str) -> Option<Answered> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut first = head.lines().next()?.split(' ');
    if !first.next()?.starts_with("HTTP/1.") {
        return None;
    }
    Some(Answered { status: first.next()?.parse().ok()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_with_status_and_text() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 512];
            let most = stream.read(&mut seen).await.unwrap();
            assert!(seen[..most].starts_with(b"GET /x HTTP/1.1\r\n"));
            stream
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nno\n")
                .await
                .unwrap();
        });
        let answer = request(connect(addr).await.unwrap(), "/x").await.unwrap();
        assert_eq!(answer, Answered { status: 503, body: "no\n".to_owned() });
    }

    #[test]
    fn what_is_no_http_is_no_answer() {
        assert_eq!(read_answer("SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(read_answer(""), None);
    }
}
