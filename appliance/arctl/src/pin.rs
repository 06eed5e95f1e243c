//! Trust by fingerprint: a box's certificate is its own, so what is checked is that it is the same one as at the
//! login.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// Which certificate is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Only the one with this SHA-256, in hexadecimal.
    Pinned(String),
    /// Whichever is presented; for the first look, before anything secret is sent.
    FirstUse,
    /// None.
    Nothing,
}

/// Accepts a certificate by its fingerprint, and remembers the one seen.
#[derive(Debug)]
pub(crate) struct Pin {
    trust: Trust,
    seen: Mutex<Option<String>>,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    /// A pin that trusts so.
    pub(crate) fn new(trust: Trust) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { trust, seen: Mutex::default(), provider })
    }

    /// The fingerprint of the certificate that was presented last.
    pub(crate) fn seen(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it trusts.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// A TLS config that asks this pin.
    pub(crate) fn tls(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let verifier = Arc::clone(self);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = hex::encode(Sha256::digest(end_entity));
        let is_trusted = match &self.trust {
            Trust::Pinned(pinned) => seen == *pinned,
            Trust::FirstUse => true,
            Trust::Nothing => false,
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        if is_trusted {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("not the pinned certificate".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A fingerprint as people write it: any case, colons or blanks between.
pub(crate) fn parse_fingerprint(text: &str) -> Option<String> {
    let plain: String =
        text.chars().filter(|c| !matches!(c, ':' | ' ')).map(|c| c.to_ascii_lowercase()).collect();
    (plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_certificate_is_accepted() {
        let cert = CertificateDer::from(vec![1, 2, 3]);
        let name = ServerName::try_from("box").unwrap();
        let check = |trust: Trust| {
            let pin = Pin::new(trust);
            let verified = pin.verify_server_cert(&cert, &[], &name, &[], UnixTime::now());
            (verified.is_ok(), pin.seen().unwrap())
        };
        let (accepted, seen) = check(Trust::FirstUse);
        assert!(accepted);
        assert!(check(Trust::Pinned(seen)).0);
        assert!(!check(Trust::Pinned("00".repeat(32))).0);
        assert!(!check(Trust::Nothing).0);
    }

    #[test]
    fn a_fingerprint_is_taken_with_colons_and_in_any_case() {
        let plain = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        assert_eq!(parse_fingerprint(&colons), Some(plain.clone()));
        assert_eq!(parse_fingerprint(&plain), Some(plain));
        assert_eq!(parse_fingerprint("ab"), None);
    }
}
