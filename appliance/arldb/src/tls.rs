//! Certificate and key of the port of the channels: those of files, or made by the balancer itself; taken anew whenever
//! they change.
//!
//! Connections that are open keep the certificate that they began with.
//!
//! **Invariant:** what cannot be used changes nothing: the certificate before stays in use, and the log says why.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arbase::{Chain, Stop};
use arproxy::tls::{AnyClient, Tls};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoClientAuth;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ServerConfig, SupportedProtocolVersion};
use serde::Deserialize;

use crate::config::Config;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Whether TLS is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsUse {
    /// No.
    #[default]
    Off,
    /// With clients that begin with it.
    Optional,
    /// With all; others are told so.
    Required,
}

/// The least version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in the file is not what belongs there.
    #[error("`{}` holds no {expected} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// There is none in it.
    #[error("`{}` holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
    /// Certificate and key do not fit, or are of a kind that is not known.
    #[error("the certificate of `{}` cannot be used with the key of `{}`", certificate.display(), key.display())]
    Use {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Certificate and key in use.
#[derive(Debug)]
pub(crate) struct Material {
    certificate: PathBuf,
    key: PathBuf,
    asks_clients: bool,
    versions: &'static [&'static SupportedProtocolVersion],
    seen: Seen,
}

/// What tells that a file was changed.
type Seen = [Option<(SystemTime, u64)>; 2];

impl Material {
    /// Loads what the config names, making it where it names nothing.  None: TLS is off.
    pub(crate) fn load(config: &Config) -> Result<Option<(Self, Arc<Tls>)>, TlsError> {
        if config.tls == TlsUse::Off {
            return Ok(None);
        }
        let (certificate, key) = match (&config.tls_certificate, &config.tls_key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            _ => own(&config.state_dir)?,
        };
        const BOTH: &[&SupportedProtocolVersion] =
            &[&rustls::version::TLS13, &rustls::version::TLS12];
        const NEW: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        let versions = match config.tls_min_version {
            TlsVersion::V12 => BOTH,
            TlsVersion::V13 => NEW,
        };
        let asks_clients = config.tls_client_certificates;
        let mut material = Self { certificate, key, asks_clients, versions, seen: [None, None] };
        material.seen = material.look();
        let tls = Tls::new(material.configuration()?, config.tls == TlsUse::Required);
        Ok(Some((material, Arc::new(tls))))
    }

    fn look(&self) -> Seen {
        [&self.certificate, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    /// What handshakes are made with.
    fn configuration(&self) -> Result<ServerConfig, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        let fault = |path: &Path, expected| {
            let path = path.to_owned();
            move |source| TlsError::Pem { path, expected, source }
        };
        let certificates = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(fault(&self.certificate, "certificate"))?;
        if certificates.is_empty() {
            return Err(TlsError::Empty { path: self.certificate.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(fault(&self.key, "private key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients: Arc<dyn ClientCertVerifier> = match self.asks_clients {
            true => AnyClient::new(provider.signature_verification_algorithms),
            false => Arc::new(NoClientAuth),
        };
        let wrong = |source| TlsError::Use {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .map_err(wrong)?
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates, key)
            .map_err(wrong)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Takes the files anew whenever they change, until told to stop.
    pub(crate) async fn follow(mut self, tls: Arc<Tls>, stop: Stop) {
        loop {
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let seen = self.look();
            if seen == self.seen {
                continue;
            }
            self.seen = seen;
            match self.configuration() {
                Ok(config) => {
                    tls.replace(config);
                    log::info!(file:% = self.certificate.display(); "certificate taken anew");
                }
                // While both are being written they do not fit; the next look finds them changed again.
                Err(err) => {
                    log::warn!(error:% = Chain(&err); "certificate cannot be taken anew; the one before stays in use");
                }
            }
        }
    }
}

/// The files of our own certificate, made where they are missing or lack a name of the box.
fn own(state_dir: &Path) -> Result<(PathBuf, PathBuf), TlsError> {
    let file = |name: &str| state_dir.join(name);
    let (certificate, key, listed) = (file("cert.pem"), file("key.pem"), file("names"));
    let names = own_names();
    let known = std::fs::read_to_string(&listed).unwrap_or_default();
    let is_there = |path: &Path| path.try_exists().unwrap_or(false);
    let has_all = names.iter().all(|name| known.lines().any(|known| known == name));
    if has_all && is_there(&certificate) && is_there(&key) {
        return Ok((certificate, key));
    }
    let pair = match std::fs::read_to_string(&key) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(TlsError::Make)?,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            KeyPair::generate().map_err(TlsError::Make)?
        }
        Err(source) => return Err(TlsError::Read { path: key, source }),
    };
    let mut params = CertificateParams::new(names.clone()).map_err(TlsError::Make)?;
    let title = names.iter().find(|name| *name != "localhost" && name.parse::<IpAddr>().is_err());
    params.distinguished_name.push(DnType::CommonName, title.map_or("ARINT", |name| name));
    params.distinguished_name.push(DnType::OrganizationName, "ARINT box");
    let made = params.self_signed(&pair).map_err(TlsError::Make)?;
    // The key first: a certificate without its key is made anew.
    write(&key, &pair.serialize_pem())?;
    write(&certificate, &made.pem())?;
    write(&listed, &names.join("\n"))?;
    Ok((certificate, key))
}

/// Writes a file that only its owner reads.
fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let writing = || {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let new = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    writing().map_err(|source| TlsError::Write { path: path.to_owned(), source })
}

/// What the box is called, and its addresses.
fn own_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = arbase::host::name();
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if is_name && !host.is_empty() && host != "localhost" {
        names.push(host.clone());
        if !host.contains('.') {
            names.push(format!("{host}.local"));
        }
    }
    // Nothing is sent: connecting a datagram socket only asks the routing table.
    let ask = |bind: &str, towards: &str| {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(towards).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback() && !ip.is_unspecified()).then(|| ip.to_string())
    };
    // Addresses reserved for documentation (RFC 5737, RFC 3849).
    let both = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    names.extend(both.into_iter().filter_map(|(bind, towards)| ask(bind, towards)));
    names
}
