//! Certificates of clients (mutual TLS): what a channel asks of one, and how it comes here.
//!
//! TLS ends before the core, so the certificate comes in the header [`HEADER`], in the form of Envoy and of what
//! nginx can write: `Cert="<PEM, percent-encoded>"`, `Chain` likewise.  The balancer removes the header from what
//! clients send; it is only read where the config's `client_certificates` says that the proxy in front always sets
//! it, because whoever can write it needs no key.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arapi::objects::TlsChannelSpec;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

/// The header it comes in.
pub const HEADER: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// A certificate whose key its owner has proven to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    leaf: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
}

/// What a channel asks of a certificate.
#[derive(Debug)]
pub struct Asked {
    spec: TlsChannelSpec,
    fingerprint: Option<Vec<u8>>,
    authority: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientCertificate {
    /// From DER.
    pub fn of_der(leaf: Vec<u8>, chain: Vec<Vec<u8>>) -> Self {
        Self { leaf: leaf.into(), chain: chain.into_iter().map(Into::into).collect() }
    }

    /// The one that the nearest proxy has seen; None: none that can be read.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get_all(HEADER).iter().next_back()?.as_bytes())
    }

    /// Reads the header's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let element = split(value, b',').into_iter().next_back()?;
        let mut found: Option<CertificateDer<'static>> = None;
        let mut chain = Vec::new();
        for pair in split(element, b';') {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (key, value) = pair.split_at(at);
            let value = unquoted(value.get(1..)?.trim_ascii());
            let pem = || percent_decode(value).collect::<Vec<u8>>();
            let key = key.trim_ascii();
            if key.eq_ignore_ascii_case(b"cert") {
                if found.is_some() {
                    return None;
                }
                found = Some(CertificateDer::from_pem_slice(&pem()).ok()?);
            } else if key.eq_ignore_ascii_case(b"chain") {
                let read = CertificateDer::pem_slice_iter(&pem()).collect::<Result<Vec<_>, _>>();
                chain = read.ok()?;
            }
        }
        let leaf = found?;
        // A chain may begin with the certificate itself.
        chain.retain(|one| *one != leaf);
        Some(Self { leaf, chain })
    }
}

/// Parts between separators that do not stand in quotes.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut in_quotes, mut is_escaped) = (false, false);
    text.split(|byte| {
        let escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if in_quotes && !escaped => is_escaped = true,
            b'"' if !escaped => in_quotes = !in_quotes,
            _ => {}
        }
        *byte == separator && !in_quotes
    })
    .collect()
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

impl Asked {
    /// What a security asks.
    pub fn new(spec: &TlsChannelSpec) -> Result<Self, String> {
        let fingerprint = match &spec.fingerprint {
            Some(text) => Some(hex::decode(text.replace(':', "")).map_err(|err| err.to_string())?),
            None => None,
        };
        let authority = spec.ca_pem.as_deref().map(authority).transpose()?;
        if fingerprint.is_none() && authority.is_none() {
            return Err("it asks for neither authority nor fingerprint".to_owned());
        }
        Ok(Self { spec: spec.clone(), fingerprint, authority })
    }

    /// Whether a certificate fits; why not, for the log.
    pub fn check(&self, certificate: &ClientCertificate, now: SystemTime) -> Result<(), String> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let leaf = &certificate.leaf;
        if let Some(wanted) = &self.fingerprint {
            let own: [u8; 32] = Sha256::digest(leaf).into();
            if !bool::from(own.ct_eq(wanted)) {
                return Err("its fingerprint is another".to_owned());
            }
        }
        if let Some(authority) = &self.authority {
            let now = UnixTime::since_unix_epoch(since);
            let checked = authority.verify_client_cert(leaf, &certificate.chain, now);
            checked.map_err(|err| err.to_string())?;
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|err| err.to_string())?;
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let moment = ASN1Time::from_timestamp(seconds).map_err(|err| err.to_string())?;
        if !parsed.validity().is_valid_at(moment) {
            return Err("it has expired, or does not hold yet".to_owned());
        }
        for (part, wanted) in &self.spec.subject {
            if !has_subject(&parsed, part, wanted) {
                return Err(format!("its subject has another `{part}`"));
            }
        }
        match &self.spec.san {
            Some(wanted) if !has_name(&parsed, wanted) => {
                Err("its alternative names are others".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn has_subject(certificate: &X509Certificate<'_>, part: &str, wanted: &str) -> bool {
    let oid = match part.to_ascii_uppercase().as_str() {
        "CN" => "2.5.4.3",
        "SERIALNUMBER" => "2.5.4.5",
        "C" => "2.5.4.6",
        "L" => "2.5.4.7",
        "ST" => "2.5.4.8",
        "O" => "2.5.4.10",
        "OU" => "2.5.4.11",
        "DC" => "0.9.2342.19200300.100.1.25",
        "UID" => "0.9.2342.19200300.100.1.1",
        "EMAILADDRESS" => "1.2.840.113549.1.9.1",
        _ => part,
    };
    certificate.subject().iter_attributes().any(|attribute| {
        attribute.attr_type().to_id_string() == oid
            && attribute.as_str().is_ok_and(|value| value == wanted)
    })
}

fn has_name(certificate: &X509Certificate<'_>, wanted: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    let addr: Option<std::net::IpAddr> = wanted.parse().ok();
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(name) => name.eq_ignore_ascii_case(wanted),
        GeneralName::RFC822Name(name) | GeneralName::URI(name) => *name == wanted,
        GeneralName::IPAddress(bytes) => match addr {
            Some(std::net::IpAddr::V4(addr)) => addr.octets() == **bytes,
            Some(std::net::IpAddr::V6(addr)) => addr.octets() == **bytes,
            None => false,
        },
        _ => false,
    })
}

fn authority(pem: &str) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|err| err.to_string())?;
        roots.add(certificate).map_err(|err| err.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|err| err.to_string())
}

/// For fuzzing: any bytes as the header's value and as a certificate.
pub fn fuzz(bytes: &[u8]) {
    ClientCertificate::parse(bytes);
    let spec = TlsChannelSpec {
        ca_pem: None,
        fingerprint: Some(hex::encode(Sha256::digest(bytes))),
        subject: [("CN".to_owned(), "x".to_owned())].into(),
        san: Some("x".to_owned()),
        is_active: true,
        rate_limit: None,
    };
    if let Ok(asked) = Asked::new(&spec) {
        let certificate = ClientCertificate::of_der(bytes.to_vec(), Vec::new());
        asked.check(&certificate, UNIX_EPOCH + Duration::from_secs(1_700_000_000)).ok();
    }
}
