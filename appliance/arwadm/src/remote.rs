//! Calls to the other services, and what their failures mean to the caller of the admin API.

use std::net::SocketAddr;

use arapi::{ClientError, ErrorCode};
use arbase::Chain;
use arbase::http::ApiError;

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over the network.
    Network(SocketAddr),
    /// Over the socket of this box, from a process of this user.
    Local {
        /// The user's number.
        uid: u32,
    },
}

impl Peer {
    /// As it stands in the audit log and in the lockout: without the port.
    pub(crate) fn shown(self) -> String {
        match self {
            Self::Network(addr) => addr.ip().to_canonical().to_string(),
            Self::Local { uid } => format!("uid {uid}"),
        }
    }
}

/// Passes on what another service said to a caller's mistake; everything else is that service's
/// absence or our own fault.
pub(crate) fn passed_on(doing: &'static str, err: &ClientError) -> ApiError {
    match err {
        ClientError::Answer { body, .. } if body.code.status() < 500 => {
            let error = ApiError::new(body.code, body.message.clone());
            match &body.details {
                Some(details) => error.with_details(details.clone()),
                None => error,
            }
        }
        ClientError::Answer { body, .. }
            if matches!(
                body.code,
                ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::NoRoom
            ) =>
        {
            ApiError::new(body.code, body.message.clone())
        }
        ClientError::Connect { .. } => {
            log::warn!(doing, error:% = Chain(err); "a service cannot be reached");
            ApiError::unavailable(err.to_string())
        }
        // It ends or starts anew in this moment; a caller that asks again is answered.
        ClientError::Broken { .. } => {
            log::warn!(doing, error:% = Chain(err); "a service broke off");
            ApiError::unavailable(format!("{err}; it may be starting anew: try again"))
        }
        ClientError::Late { .. } => ApiError::new(ErrorCode::Timeout, err.to_string()),
        ClientError::Answer { .. } | ClientError::Decode { .. } => ApiError::internal(doing, err),
    }
}
