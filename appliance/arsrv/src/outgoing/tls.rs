//! TLS for connections out: rustls with the `ring` provider.
//!
//! The system's certificate authorities are read from its files (`/etc/ssl/certs`), so that what an admin installs counts
//! and nothing has to be asked over the network; they are read once and shared by all connections.
//! A connection's own authority is trusted beside them, by that connection alone.

use std::sync::{Arc, OnceLock};

use arapi::objects::SecretText;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The connection's certificate authority cannot be read.
    #[error("`tls_ca_pem` is not a certificate in PEM: {0}")]
    Pem(String),
    /// The connection's own certificate or key cannot be used.
    #[error("the {0} that it is to present cannot be used: {1}")]
    Own(&'static str, String),
    /// There is no authority at all.
    #[error(
        "this system has no certificate authorities; install `ca-certificates` or give the connection a `tls_ca_pem`"
    )]
    NoAuthorities,
    /// rustls refuses.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// What a connection's certificate is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust<'a> {
    /// The system's authorities, and this one in PEM.
    Authorities(Option<&'a str>),
    /// Anything: `validate_tls` is off.
    Anyone,
}

/// What a connection shows of itself (mutual TLS), both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, with what leads to its authority behind it.
    pub certificate: SecretText,
    /// The key.
    pub key: SecretText,
}

/// The configuration for a connection that shows nothing of itself.
pub fn config(trust: Trust<'_>) -> Result<ClientConfig, TlsError> {
    config_with(trust, None)
}

/// The configuration for a connection.
pub fn config_with(trust: Trust<'_>, own: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|err| TlsError::Setup(err.to_string()))?;
    let builder = match trust {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        }
        Trust::Authorities(own) => builder.with_webpki_verifier(verifier(own, provider)?),
    };
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.certificate.0.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|err| TlsError::Own("certificate", err.to_string()))?;
            if chain.is_empty() {
                let fault = "there is no `BEGIN CERTIFICATE` in it".to_owned();
                return Err(TlsError::Own("certificate", fault));
            }
            let key = PrivateKeyDer::from_pem_slice(own.key.0.as_bytes())
                .map_err(|err| TlsError::Own("key", err.to_string()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|err| TlsError::Own("key", err.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn verifier(
    own: Option<&str>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    static SYSTEM: OnceLock<Arc<WebPkiServerVerifier>> = OnceLock::new();
    if own.is_none()
        && let Some(shared) = SYSTEM.get()
    {
        return Ok(Arc::clone(shared));
    }
    let mut roots = system_roots();
    if let Some(pem) = own {
        let mut any = false;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|err| TlsError::Pem(err.to_string()))?;
            roots.add(certificate).map_err(|err| TlsError::Pem(err.to_string()))?;
            any = true;
        }
        if !any {
            return Err(TlsError::Pem("there is no `BEGIN CERTIFICATE` in it".to_owned()));
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|err| TlsError::Setup(err.to_string()))?;
    if own.is_none() {
        return Ok(Arc::clone(SYSTEM.get_or_init(|| verifier)));
    }
    Ok(verifier)
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for err in &found.errors {
        log::warn!(error:% = err; "some of the system's certificate authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    // Old authorities that webpki cannot read are passed over, as every TLS library does.
    roots.add_parsable_certificates(found.certs);
    roots
}

/// Takes every certificate, and still checks that the other side has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
