//! The box's own certificate: made at the first start, kept with its key, known by its fingerprint.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;

use arstore::file::{FileError, read, write_private};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::tokens::sha256_hex;

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

/// A certificate in use.
pub(crate) struct OwnCertificate {
    /// Accepts connections with it.
    pub(crate) acceptor: TlsAcceptor,
    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fingerprint: String,
}

impl std::fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnCertificate")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// Loads the certificate of the folder, or makes it.
pub(crate) fn load_or_make(dir: &Path, host: &str) -> Result<OwnCertificate, TlsError> {
    let (cert_path, key_path) = (dir.join("cert.pem"), dir.join("key.pem"));
    let (cert, key) = match (read(&cert_path)?, read(&key_path)?) {
        (Some(cert), Some(key)) => (cert, key),
        _ => {
            let (cert, key) = make(host)?;
            // The key first: a certificate without its key is made anew.
            write_private(&key_path, key.as_bytes())?;
            write_private(&cert_path, cert.as_bytes())?;
            (cert.into_bytes(), key.into_bytes())
        }
    };
    let pem = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Pem { path, source }
    };
    let cert = CertificateDer::from_pem_slice(&cert).map_err(pem(&cert_path))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(pem(&key_path))?;
    let fingerprint = sha256_hex(&cert);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![cert], key))
        .map_err(|source| TlsError::Use { dir: dir.display().to_string(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(OwnCertificate { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
}

/// Certificate and key in PEM.
fn make(host: &str) -> Result<(String, String), TlsError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let is_name = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if is_name && host != "localhost" {
        names.push(host.to_owned());
        if !host.contains('.') {
            names.push(format!("{host}.local"));
        }
    }
    names.extend(own_addresses());
    let key = KeyPair::generate().map_err(TlsError::Make)?;
    let mut params = CertificateParams::new(names).map_err(TlsError::Make)?;
    let title = if is_name { host } else { "ARINT" };
    params.distinguished_name.push(DnType::CommonName, title);
    params.distinguished_name.push(DnType::OrganizationName, "ARINT box");
    let cert = params.self_signed(&key).map_err(TlsError::Make)?;
    Ok((cert.pem(), key.serialize_pem()))
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
        let first = load_or_make(dir.path(), "box-7").unwrap();
        assert_eq!(first.fingerprint.len(), 64);
        let mode = std::fs::metadata(dir.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = load_or_make(dir.path(), "box-7").unwrap();
        assert_eq!(again.fingerprint, first.fingerprint);
    }

    #[test]
    fn a_host_name_that_is_none_does_not_stop_the_box() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_or_make(dir.path(), "what ever_ö").is_ok());
    }

    #[test]
    fn a_damaged_certificate_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cert.pem"), "x").unwrap();
        std::fs::write(dir.path().join("key.pem"), "x").unwrap();
        let refused = load_or_make(dir.path(), "box").unwrap_err().to_string();
        assert_eq!(
            refused,
            format!(
                "`{}/cert.pem` holds no PEM; remove `cert.pem` and `key.pem` to have new ones made",
                dir.path().display()
            )
        );
    }
}
