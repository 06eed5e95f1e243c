//! One request on its way through the proxy, checked and with its ids, as the services behind the front
//! see it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;

use crate::body::ClientBody;
use crate::trust::Network;
use crate::watch::{BodyFault, Watch};

/// A request, past [`crate::headers::admit`].
#[derive(Debug)]
pub struct Exchange {
    /// Method, target and headers, as a backend is to see them.
    pub head: Parts,
    /// The body, under the limits of size and time.
    pub body: ClientBody,
    /// The correlation id.
    pub cid: HeaderValue,
    /// Who asks.
    pub peer: Arc<Peer>,
    pub(crate) watch: Arc<Watch>,
}

impl Exchange {
    /// Why the body ended early, if it did.
    pub fn body_fault(&self) -> Option<BodyFault> {
        self.watch.body_fault()
    }
}

/// The other end of a client connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address; an IPv4 address is given as such, on a dual-stack socket too.
    pub addr: SocketAddr,
    /// Whether what it says about whom it asks for is believed.
    pub trusted: bool,
    /// `http` or `https`.
    pub scheme: HeaderValue,
    /// Its address as a header value.
    pub forwarded_for: HeaderValue,
    /// The certificate whose key it has, as `X-Forwarded-Client-Cert` tells it.
    pub certificate: Option<HeaderValue>,
}

impl Peer {
    /// A peer at `addr` that came by `scheme`.
    pub fn new(addr: SocketAddr, scheme: &'static str, trusted: &[Network]) -> Self {
        let ip = addr.ip().to_canonical();
        let text = ip.to_string();
        Self {
            addr: SocketAddr::new(ip, addr.port()),
            trusted: trusted.iter().any(|network| network.contains(ip)),
            scheme: HeaderValue::from_static(scheme),
            // An address is always a fitting value.
            forwarded_for: HeaderValue::from_str(&text)
                .unwrap_or(HeaderValue::from_static("unknown")),
            certificate: None,
        }
    }
}
