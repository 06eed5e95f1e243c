//! Trust by fingerprint: a box's certificate is its own, so what is checked is that it is the same one as at the
//! login, or another one for the same key: a box that is renamed makes its certificate anew and keeps its key.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// Which certificate is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Only this one.
    Pinned(Pinned),
    /// Whichever is presented; for the first look, before anything secret is sent.
    FirstUse,
    /// None.
    Nothing,
}

/// What is known of a box's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// SHA-256 of the certificate or of its public key, in hexadecimal.
    pub(crate) fingerprint: String,
    /// SHA-256 of its public key.
    pub(crate) key: Option<String>,
}

/// What was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fingerprint: String,
    /// SHA-256 of its public key.
    pub(crate) key: Option<String>,
}

impl Pinned {
    /// Whether `seen` is the certificate, or another one for the same key.
    pub(crate) fn accepts(&self, seen: &Seen) -> bool {
        let same_key = seen.key.is_some()
            && (seen.key == self.key || seen.key.as_ref() == Some(&self.fingerprint));
        seen.fingerprint == self.fingerprint || same_key
    }
}

/// Accepts a certificate by its fingerprint, and remembers the one seen.
#[derive(Debug)]
pub(crate) struct Pin {
    trust: Trust,
    seen: Mutex<Option<Seen>>,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    /// A pin that trusts so.
    pub(crate) fn new(trust: Trust) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { trust, seen: Mutex::default(), provider })
    }

    /// The certificate that was presented last.
    pub(crate) fn seen(&self) -> Option<Seen> {
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
        let key = ParsedCertificate::try_from(end_entity)
            .ok()
            .map(|parsed| hex::encode(Sha256::digest(parsed.subject_public_key_info().as_ref())));
        let seen = Seen { fingerprint: hex::encode(Sha256::digest(end_entity)), key };
        let is_trusted = match &self.trust {
            Trust::Pinned(pinned) => pinned.accepts(&seen),
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
        let pinned = |fingerprint: String| Trust::Pinned(Pinned { fingerprint, key: None });
        let (accepted, seen) = check(Trust::FirstUse);
        assert!(accepted);
        assert!(check(pinned(seen.fingerprint)).0);
        assert!(!check(pinned("00".repeat(32))).0);
        assert!(!check(Trust::Nothing).0);
    }

    #[test]
    fn a_renewed_certificate_for_the_same_key_is_the_same_box() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = |host: &str, key: &rcgen::KeyPair| {
            let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.self_signed(key).unwrap().der().clone()
        };
        let look = |trust: Trust, cert: &CertificateDer<'_>| {
            let pin = Pin::new(trust);
            let name = ServerName::try_from("box").unwrap();
            let verified = pin.verify_server_cert(cert, &[], &name, &[], UnixTime::now());
            (verified.is_ok(), pin.seen().unwrap())
        };
        let (before, after) = (made("box-7", &key), made("cellar", &key));
        let (_, Seen { fingerprint, key: known }) = look(Trust::FirstUse, &before);
        assert!(known.is_some());
        let trust = Trust::Pinned(Pinned { fingerprint, key: known.clone() });
        assert!(look(trust.clone(), &after).0);
        let stranger = made("box-7", &rcgen::KeyPair::generate().unwrap());
        assert!(!look(trust, &stranger).0);
        // The key's fingerprint will do where a fingerprint is asked for.
        let by_key = Trust::Pinned(Pinned { fingerprint: known.unwrap(), key: None });
        assert!(look(by_key, &after).0);
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
