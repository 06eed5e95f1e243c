//! The one form of an error over every API: `{"code", "message", "request_id"}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What went wrong, for programs.  The HTTP status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request is malformed or breaks a rule.
    Invalid,
    /// 401: no or wrong credentials.
    Unauthorized,
    /// 403: known, but not allowed.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 405: there is such a thing, and it does not take this method.
    MethodNotAllowed,
    /// 409: based on an old revision, or someone else has it.
    Conflict,
    /// 413: larger than allowed.
    TooLarge,
    /// 422: a deployment that does not load.
    Refused,
    /// 429: too often.
    TooManyRequests,
    /// 500: our fault; the cause is in the log under the request id.
    Internal,
    /// 503: not now; try again.
    Unavailable,
    /// 504: not in time.
    Timeout,
    /// 507: no room.
    NoRoom,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Refused => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::NoRoom => 507,
        }
    }
}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// One sentence for people: what, where, what was expected, what to do.
    pub message: String,
    /// The correlation id; the log has more under it.
    pub request_id: String,
    /// More that a program can use, for example file and line of a refused deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}
