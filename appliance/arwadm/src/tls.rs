//! The box's own certificate: made at the first start, kept with its key, known by its fingerprint.
//!
//! When the box is renamed the certificate is made anew, for the same key: who pinned the key (`arctl`) notices nothing.
//!
//! **Invariant:** the key is made once; only a factory reset or an admin who removes it ends it.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arbase::{Chain, Stop};
use arstore::file::{FileError, read, write_private};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::tokens::sha256_hex;

/// The first look at the host name, which may be set while this unit starts; then between two looks.
const FIRST_LOOK: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(30);
/// Most names and addresses in a certificate.
const MOST_NAMES: usize = 40;
/// Looks at which the addresses count as well: the network may come up after this unit.
const ADDRESS_LOOKS: u32 = 4;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be made.
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
    /// What is in the file is no certificate.
    #[error("`{path}` holds no PEM; remove `cert.pem` and `key.pem` to have new ones made")]
    Pem {
        /// The file.
        path: String,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit.
    #[error(
        "the certificate in `{dir}` cannot be used; remove `cert.pem` and `key.pem` to have new ones made"
    )]
    Use {
        /// The folder.
        dir: String,
        /// Why.
        source: rustls::Error,
    },
}

/// The certificate in use, and how it is renewed.
pub(crate) struct OwnCertificate {
    dir: PathBuf,
    acceptor: TlsAcceptor,
    now: Arc<InUse>,
}

impl std::fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnCertificate")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// What a handshake takes; replaced while connections go on.
struct InUse(RwLock<(Arc<CertifiedKey>, String, Vec<String>)>);

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InUse")
    }
}

impl ResolvesServerCert for InUse {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

impl OwnCertificate {
    /// Loads the certificate of the folder, or makes it; one that lacks the host name or an address of the box is
    /// made anew for the same key.
    pub(crate) fn load(dir: &Path, host: &str) -> Result<Self, TlsError> {
        let mut names = names_of(host);
        names.extend(own_addresses());
        let now = Arc::new(InUse(RwLock::new(usable(dir, host, &names)?)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Use { dir: dir.display().to_string(), source })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&now) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { dir: dir.to_owned(), acceptor, now })
    }

    /// Accepts connections with it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        self.now.0.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// SHA-256 of its public key, in hexadecimal; that of a certificate made anew is the same.
    pub(crate) fn key(&self) -> Option<String> {
        let now = self.now.0.read().unwrap_or_else(PoisonError::into_inner);
        now.0.key.public_key().map(|public| sha256_hex(&public))
    }

    /// Makes the certificate anew if it lacks the host name or one of the addresses; says whether it did.
    fn renew(&self, host: &str, addresses: &[String]) -> Result<bool, TlsError> {
        let wanted = names_of(host);
        let has = self.now.0.read().unwrap_or_else(PoisonError::into_inner).2.clone();
        if wanted.iter().chain(addresses).all(|name| has.contains(name)) {
            return Ok(false);
        }
        // Addresses it has already stay, while the name does: a box has several, and not all come up at once.
        let kept = has.iter().filter(|name| name.parse::<IpAddr>().is_ok());
        let mut names = wanted;
        for name in addresses.iter().chain(kept).cloned().chain(own_addresses()) {
            if !names.contains(&name) && names.len() < MOST_NAMES {
                names.push(name);
            }
        }
        let renewed = usable(&self.dir, host, &names)?;
        *self.now.0.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(true)
    }
}

/// Puts the fingerprint where the unit that draws the screen finds it.
pub(crate) fn show(runtime_dir: &Path, certificate: &OwnCertificate) {
    let path = runtime_dir.join("certificate-fingerprint");
    if let Err(err) = std::fs::write(&path, format!("{}\n", certificate.fingerprint())) {
        log::warn!(path:% = path.display(), error:% = Chain(&err); "cannot show the certificate's fingerprint");
    }
}

/// Follows the host name: a box that is renamed has a certificate for its new name within a minute.
///
/// Addresses come and go with DHCP and are only looked at soon after the start: whoever has accepted this certificate
/// in a browser is not asked again each time.
pub(crate) async fn follow<F: Future<Output = (String, Vec<String>)>>(
    certificate: Arc<OwnCertificate>,
    runtime_dir: PathBuf,
    names: impl Fn() -> F,
    stop: Stop,
) {
    let mut wait = FIRST_LOOK;
    for look in 0u32.. {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.wait() => return,
        }
        wait = LOOK;
        let (host, mut addresses) = names().await;
        if look >= ADDRESS_LOOKS {
            addresses.clear();
        }
        match certificate.renew(&host, &addresses) {
            Ok(true) => {
                show(&runtime_dir, &certificate);
                log::info!(name = host, fingerprint = certificate.fingerprint(); "certificate made anew for a new name or address, with the same key");
            }
            Ok(false) => {}
            Err(err) => log::error!(error:% = Chain(&err); "cannot make the certificate anew"),
        }
    }
}

/// Loads certificate and key, making what is missing or lacks one of `names`.
fn usable(
    dir: &Path,
    host: &str,
    names: &[String],
) -> Result<(Arc<CertifiedKey>, String, Vec<String>), TlsError> {
    let (cert_path, key_path, names_path) =
        (dir.join("cert.pem"), dir.join("key.pem"), dir.join("names"));
    let kept_names = read(&names_path)?.unwrap_or_default();
    let kept_names: Vec<String> =
        String::from_utf8_lossy(&kept_names).lines().map(ToOwned::to_owned).collect();
    let is_for_all = names.iter().all(|name| kept_names.contains(name));
    let pem = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Pem { path, source }
    };
    let (cert, key, names) = match (read(&cert_path)?, read(&key_path)?) {
        (Some(cert), Some(key)) if is_for_all => (cert, key, kept_names),
        (cert, key) => {
            // Damage is told, not painted over with a new certificate.
            if let Some(cert) = cert {
                CertificateDer::from_pem_slice(&cert).map_err(pem(&cert_path))?;
            }
            let key = match key {
                Some(key) => {
                    KeyPair::from_pem(&String::from_utf8_lossy(&key)).map_err(TlsError::Make)?
                }
                None => KeyPair::generate().map_err(TlsError::Make)?,
            };
            let cert = make(host, names, &key)?;
            let key = key.serialize_pem().into_bytes();
            // The key first: a certificate without its key is made anew.  The names last: without them, too.
            write_private(&key_path, &key)?;
            write_private(&cert_path, cert.as_bytes())?;
            write_private(&names_path, names.join("\n").as_bytes())?;
            (cert.into_bytes(), key, names.to_vec())
        }
    };
    let cert = CertificateDer::from_pem_slice(&cert).map_err(pem(&cert_path))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(pem(&key_path))?;
    let fingerprint = sha256_hex(&cert);
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(vec![cert], key, &provider)
        .map_err(|source| TlsError::Use { dir: dir.display().to_string(), source })?;
    Ok((Arc::new(certified), fingerprint, names))
}

/// Whether a host name can stand in a certificate.
fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// The names a certificate has to have, addresses apart.
fn names_of(host: &str) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if is_name(host) && host != "localhost" {
        names.push(host.to_owned());
        if !host.contains('.') {
            names.push(format!("{host}.local"));
        }
    }
    names
}

/// A certificate in PEM.
fn make(host: &str, names: &[String], key: &KeyPair) -> Result<String, TlsError> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(TlsError::Make)?;
    let title = if is_name(host) { host } else { "ARINT" };
    params.distinguished_name.push(DnType::CommonName, title);
    params.distinguished_name.push(DnType::OrganizationName, "ARINT box");
    let cert = params.self_signed(key).map_err(TlsError::Make)?;
    Ok(cert.pem())
}

/// The addresses this box would call from.  Nothing is sent: connecting a datagram socket only asks
/// the routing table.
fn own_addresses() -> Vec<String> {
    let ask = |bind: &str, towards: &str| {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(towards).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback() && !ip.is_unspecified()).then(|| ip.to_string())
    };
    // Addresses reserved for documentation (RFC 5737, RFC 3849).
    let both = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    both.into_iter().filter_map(|(bind, towards)| ask(bind, towards)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_certificate_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = OwnCertificate::load(dir.path(), "box-7").unwrap();
        assert_eq!(first.fingerprint().len(), 64);
        let mode = std::fs::metadata(dir.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = OwnCertificate::load(dir.path(), "box-7").unwrap();
        assert_eq!(again.fingerprint(), first.fingerprint());
    }

    #[test]
    fn a_renamed_box_gets_a_certificate_for_its_new_name_and_keeps_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let certificate = OwnCertificate::load(dir.path(), "box-7").unwrap();
        let key = || std::fs::read(dir.path().join("key.pem")).unwrap();
        let (first, first_key, first_pin) = (certificate.fingerprint(), key(), certificate.key());
        assert_eq!(first_pin.as_deref().map(str::len), Some(64));
        assert!(!certificate.renew("box-7", &[]).unwrap());
        assert!(certificate.renew("box-7", &["192.0.2.7".to_owned()]).unwrap());
        assert!(certificate.renew("cellar", &[]).unwrap());
        assert_ne!(certificate.fingerprint(), first);
        assert_eq!((key(), certificate.key()), (first_key, first_pin));
        let names = std::fs::read_to_string(dir.path().join("names")).unwrap();
        for name in ["cellar.local", "192.0.2.7"] {
            assert!(names.lines().any(|kept| kept == name), "{name}: {names}");
        }
        // The same after a restart.
        let again = OwnCertificate::load(dir.path(), "cellar").unwrap();
        assert_eq!(again.fingerprint(), certificate.fingerprint());
    }

    #[test]
    fn a_host_name_that_is_none_does_not_stop_the_box() {
        let dir = tempfile::tempdir().unwrap();
        assert!(OwnCertificate::load(dir.path(), "what ever_ö").is_ok());
    }

    #[test]
    fn a_damaged_certificate_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cert.pem"), "x").unwrap();
        std::fs::write(dir.path().join("key.pem"), "x").unwrap();
        let refused = OwnCertificate::load(dir.path(), "box").unwrap_err().to_string();
        assert_eq!(
            refused,
            format!(
                "`{}/cert.pem` holds no PEM; remove `cert.pem` and `key.pem` to have new ones made",
                dir.path().display()
            )
        );
    }
}
