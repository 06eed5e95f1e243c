//! TLS on the side that clients see: handshakes with the configuration of the moment.
//!
//! Where its certificates come from is the business of who makes the configuration; replacing it leaves the
//! connections there are alone.
//!
//! A client's certificate is asked for where the configuration does so.  It is taken whoever has signed it: the
//! handshake proves that its owner has the key, and whether that opens anything a channel decides, which is told in
//! `X-Forwarded-Client-Cert` (docs/decisions/0024-gates-and-tokens.md).

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;

/// The first byte of a TLS connection: a handshake record (RFC 8446, section 5.1).
pub(crate) const HANDSHAKE: u8 = 0x16;

/// How TLS is spoken.
#[derive(Debug)]
pub struct Tls {
    now: RwLock<Arc<ServerConfig>>,
    /// Whether a client that speaks without TLS is refused.
    pub(crate) is_required: bool,
}

impl Tls {
    /// TLS with this configuration, for all clients or for those that begin with it.
    pub fn new(config: ServerConfig, is_required: bool) -> Self {
        Self { now: RwLock::new(Arc::new(config)), is_required }
    }

    /// New connections have this configuration from now on.
    pub fn replace(&self, config: ServerConfig) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&now))
    }
}

/// A client's certificates as `X-Forwarded-Client-Cert` has them; None if there are none.
pub(crate) fn forwarded(certificates: Option<&[CertificateDer<'_>]>) -> Option<HeaderValue> {
    let (leaf, rest) = certificates?.split_first()?;
    let mut text = format!("Cert=\"{}\"", encoded(&[leaf]));
    if !rest.is_empty() {
        let rest: Vec<&CertificateDer<'_>> = rest.iter().collect();
        text.push_str(&format!(";Chain=\"{}\"", encoded(&rest)));
    }
    HeaderValue::from_str(&text).ok()
}

/// PEM, percent-encoded.
fn encoded(certificates: &[&CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut text = BASE64_STANDARD.encode(certificate);
        while text.len() > 64 {
            let rest = text.split_off(64);
            pem.push_str(&text);
            pem.push('\n');
            text = rest;
        }
        pem.push_str(&text);
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    utf8_percent_encode(&pem, NON_ALPHANUMERIC).to_string()
}

/// Takes any certificate whose key the client has, and clients that have none.
#[derive(Debug)]
pub struct AnyClient(WebPkiSupportedAlgorithms);

impl AnyClient {
    /// With the signatures that a provider knows.
    pub fn new(algorithms: WebPkiSupportedAlgorithms) -> Arc<Self> {
        Arc::new(Self(algorithms))
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
