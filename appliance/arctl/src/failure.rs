//! What can go wrong, what is said about it, and the exit code.

use std::error::Error;
use std::path::PathBuf;

use arapi::error::{ErrorBody, ErrorCode};
use serde_json::Value;

/// The exit code of something that failed.
pub(crate) const FAILED: u8 = 1;
/// The exit code of wrong usage.
pub(crate) const USAGE: u8 = 2;
/// The exit code of an answer that is no.
pub(crate) const NO: u8 = 3;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot start")]
    Runtime(#[source] std::io::Error),
    #[error(
        "cannot reach `{server}`; is the box running, and is this its address? (--server, or log in with `arctl login --server URL`)"
    )]
    Unreachable { server: String, source: reqwest::Error },
    #[error("`{server}` did not answer in time")]
    Late { server: String },
    #[error("the answer of `{server}` broke off")]
    Broken { server: String, source: reqwest::Error },
    #[error("`{server}` answered with something that is no admin API; is this its address?")]
    Foreign { server: String, status: u16 },
    #[error("`{server}` answered with another document than this arctl expects")]
    Document { server: String, source: serde_json::Error },
    #[error(
        "the certificate of `{server}` is not known here; run `arctl login --server {server}`, which shows its fingerprint and keeps it"
    )]
    UnknownCertificate { server: String },
    #[error(
        "the certificate of `{server}` has changed: its SHA-256 is {seen} and {pinned} was expected; if the box was set up anew, log in with `--fingerprint {seen}`, otherwise someone is in between"
    )]
    OtherCertificate { server: String, seen: String, pinned: String },
    #[error("`{server}` is no address; something like `https://192.168.1.7:8183` was expected")]
    BadServer { server: String },
    #[error("not logged in to `{server}`; run `arctl login --server {server}`")]
    NotLoggedIn { server: String },
    #[error("{}", body.message)]
    Refused { status: u16, body: Box<ErrorBody> },
    #[error("refused: {sentence}")]
    Deployment { sentence: String, traceback: Option<String> },
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("`{}` cannot be understood: {fault}", path.display())]
    Config { path: PathBuf, fault: String },
    #[error("there is no folder for the config: neither `XDG_CONFIG_HOME` nor `HOME` is set")]
    NoHome,
    #[error("cannot read from the terminal; give `--password-stdin` in scripts")]
    Terminal(#[source] std::io::Error),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Yaml(#[from] crate::yaml::YamlError),
    #[error(transparent)]
    Export(#[from] crate::enmasse::ExportError),
    #[error(transparent)]
    OpenApi(#[from] crate::openapi::OpenApiError),
    #[error("{0}")]
    Failed(String),
    #[error("the answer is no")]
    No,
    #[error("nobody reads the output")]
    NobodyReads,
}

impl Failure {
    /// What is said on stderr, if anything.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::No | Self::NobodyReads => None,
            Self::Deployment { traceback, .. } => {
                let more = traceback.as_ref().map(|text| format!("\n{}", text.trim_end()));
                Some(format!("{self}{}", more.unwrap_or_default()))
            }
            Self::Refused { body, .. } => {
                // From 500 on the log has more under the id.
                let id = if body.code.status() >= 500 && !body.request_id.is_empty() {
                    format!(" (see `arctl logs --cid {}`)", body.request_id)
                } else {
                    String::new()
                };
                Some(format!("error: {}{id}", body.message))
            }
            _ => {
                let mut text = format!("error: {self}");
                let mut cause = self.source();
                while let Some(err) = cause {
                    text.push_str(&format!(": {err}"));
                    cause = err.source();
                }
                Some(text)
            }
        }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::BadServer { .. }
            | Self::Yaml(_)
            | Self::Export(_)
            | Self::OpenApi(_)
            | Self::Config { .. } => USAGE,
            Self::No => NO,
            Self::NobodyReads => 0,
            _ => FAILED,
        }
    }

    /// The details of a refusal, if it is one with this code.
    pub(crate) fn details(&self, code: ErrorCode) -> Option<&Value> {
        match self {
            Self::Refused { body, .. } if body.code == code => body.details.as_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> Failure {
        let body = ErrorBody {
            code,
            message: "no".to_owned(),
            request_id: "abcdefgh".to_owned(),
            details: None,
        };
        Failure::Refused { status: code.status(), body: Box::new(body) }
    }

    #[test]
    fn exit_codes_tell_failure_usage_and_no_apart() {
        assert_eq!(refused(ErrorCode::Forbidden).code(), 1);
        assert_eq!(Failure::Usage("x".to_owned()).code(), 2);
        assert_eq!(Failure::No.code(), 3);
        assert_eq!(Failure::No.text(), None);
    }

    #[test]
    fn a_failure_inside_the_box_says_where_to_look() {
        assert_eq!(
            refused(ErrorCode::Internal).text().unwrap(),
            "error: no (see `arctl logs --cid abcdefgh`)"
        );
        assert_eq!(refused(ErrorCode::NotFound).text().unwrap(), "error: no");
    }

    #[test]
    fn an_unknown_and_a_changed_certificate_say_what_to_do() {
        let server = "https://box:8183".to_owned();
        assert_eq!(
            Failure::UnknownCertificate { server: server.clone() }.text().unwrap(),
            "error: the certificate of `https://box:8183` is not known here; run \
             `arctl login --server https://box:8183`, which shows its fingerprint and keeps it"
        );
        let changed =
            Failure::OtherCertificate { server, seen: "aa".to_owned(), pinned: "bb".to_owned() };
        assert_eq!(
            changed.text().unwrap(),
            "error: the certificate of `https://box:8183` has changed: its SHA-256 is aa and bb was \
             expected; if the box was set up anew, log in with `--fingerprint aa`, otherwise someone is \
             in between"
        );
    }

    #[test]
    fn a_refused_deployment_is_told_with_its_traceback_only_where_asked_for() {
        let failure = |traceback: Option<&str>| Failure::Deployment {
            sentence: "photos.py:12: no".to_owned(),
            traceback: traceback.map(ToOwned::to_owned),
        };
        assert_eq!(failure(None).text().unwrap(), "refused: photos.py:12: no");
        assert_eq!(
            failure(Some("Traceback\n")).text().unwrap(),
            "refused: photos.py:12: no\nTraceback"
        );
    }
}
