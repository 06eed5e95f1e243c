//! Faults: how SOAP says what went wrong, in either version.

use arapi::objects::SoapVersion;
use http::StatusCode;
use serde_json::Value;

use super::envelope::namespace;
use crate::call::Failure;
use crate::http::answer::HIDDEN;
use crate::http::steps::Denied;

/// The namespace of what is in `detail`.
const DETAIL: &str = "urn:arint:fault";
/// The namespace of WS-Security's fault codes.
const WSSE: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The sender's: the same message will fail again.
    Sender,
    /// Ours: the same message may pass later.
    Receiver,
    /// Another version of SOAP.
    VersionMismatch,
    /// Credentials in the message are missing or wrong.
    FailedAuthentication,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose it is.
    pub code: Code,
    /// One sentence.
    pub reason: String,
    /// The status of HTTP, where it is not that of the code.
    pub status: Option<StatusCode>,
    /// More about it: the exception's arguments.
    pub details: Value,
}

impl Fault {
    /// A fault.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), status: None, details: Value::Null }
    }

    /// Of a request that goes no further.  What HTTP has a status for keeps it.
    pub fn of_denied(denied: &Denied) -> Self {
        let code = if denied.status.is_server_error() { Code::Receiver } else { Code::Sender };
        let reason =
            denied.sentence.clone().unwrap_or("there is nothing for this request".to_owned());
        Self { status: Some(denied.status), ..Self::new(code, reason) }
    }

    /// Of a service that failed, or could not be run.
    pub fn of_failure(failure: &Failure, return_tracebacks: bool) -> Self {
        let kind = failure.kind.as_str();
        if matches!(kind, "not-found" | "inactive") {
            return Self::of_denied(&Denied::hidden());
        }
        if failure.status == 500 && !return_tracebacks {
            return Self::new(Code::Receiver, HIDDEN);
        }
        let code = if (400..500).contains(&failure.status) { Code::Sender } else { Code::Receiver };
        let own = match &failure.details {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let reason = own.unwrap_or_else(|| {
            match failure.status {
                504 => "the service did not answer in time",
                503 => "the service cannot be run now; try again",
                400..500 => "the service refused the message",
                _ => HIDDEN,
            }
            .to_owned()
        });
        let details = match &failure.details {
            Value::String(_) => Value::Null,
            details => details.clone(),
        };
        // What a proxy or a client acts upon whatever the message is.
        let status = StatusCode::from_u16(failure.status)
            .ok()
            .filter(|status| matches!(status.as_u16(), 401 | 403 | 429 | 503 | 504));
        Self { status, details, ..Self::new(code, reason) }
    }

    /// The status of HTTP that goes with it (SOAP 1.1, section 6.2; SOAP 1.2 part 2, section 7.5.2.2).
    pub fn status(&self, version: SoapVersion) -> StatusCode {
        self.status.unwrap_or(match (version, self.code) {
            (SoapVersion::V12, Code::Sender | Code::FailedAuthentication) => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        })
    }

    /// The message.
    pub fn write(&self, version: SoapVersion, cid: &str) -> String {
        let mut out = String::with_capacity(512);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soap:Envelope xmlns:soap=\"");
        out.push_str(namespace(version));
        out.push_str("\"><soap:Body><soap:Fault>");
        match version {
            SoapVersion::V11 => self.write_11(&mut out, cid),
            SoapVersion::V12 => self.write_12(&mut out, cid),
        }
        out.push_str("</soap:Fault></soap:Body></soap:Envelope>");
        out
    }

    fn write_11(&self, out: &mut String, cid: &str) {
        out.push_str(match self.code {
            Code::Sender => "<faultcode>soap:Client</faultcode>",
            Code::Receiver => "<faultcode>soap:Server</faultcode>",
            Code::VersionMismatch => "<faultcode>soap:VersionMismatch</faultcode>",
            Code::FailedAuthentication => "<faultcode xmlns:wsse=\"",
        });
        if self.code == Code::FailedAuthentication {
            out.push_str(WSSE);
            out.push_str("\">wsse:FailedAuthentication</faultcode>");
        }
        out.push_str("<faultstring>");
        put_text(out, &self.reason);
        out.push_str("</faultstring>");
        // What is wrong with a header has none (SOAP 1.1, section 4.4).
        if self.code != Code::FailedAuthentication {
            out.push_str("<detail>");
            self.write_detail(out, cid);
            out.push_str("</detail>");
        }
    }

    fn write_12(&self, out: &mut String, cid: &str) {
        out.push_str("<soap:Code>");
        match self.code {
            Code::Sender => out.push_str("<soap:Value>soap:Sender</soap:Value>"),
            Code::Receiver => out.push_str("<soap:Value>soap:Receiver</soap:Value>"),
            Code::VersionMismatch => out.push_str("<soap:Value>soap:VersionMismatch</soap:Value>"),
            Code::FailedAuthentication => {
                out.push_str(
                    "<soap:Value>soap:Sender</soap:Value><soap:Subcode><soap:Value xmlns:wsse=\"",
                );
                out.push_str(WSSE);
                out.push_str("\">wsse:FailedAuthentication</soap:Value></soap:Subcode>");
            }
        }
        out.push_str("</soap:Code><soap:Reason><soap:Text xml:lang=\"en\">");
        put_text(out, &self.reason);
        out.push_str("</soap:Text></soap:Reason><soap:Detail>");
        self.write_detail(out, cid);
        out.push_str("</soap:Detail>");
    }

    fn write_detail(&self, out: &mut String, cid: &str) {
        out.push_str("<cid xmlns=\"");
        out.push_str(DETAIL);
        out.push_str("\">");
        put_text(out, cid);
        out.push_str("</cid>");
        if !matches!(self.details, Value::Null) {
            out.push_str("<details xmlns=\"");
            out.push_str(DETAIL);
            out.push_str("\">");
            put_text(out, &self.details.to_string());
            out.push_str("</details>");
        }
    }
}

/// Writes text; what XML has no character for becomes the replacement character.
pub fn put_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            '\r' => out.push_str("&#13;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_as_each_version_has_it() {
        let fault = Fault::new(Code::Sender, "a < b\u{1}");
        assert_eq!(
            fault.write(SoapVersion::V11, "abc"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body><soap:Fault>\
             <faultcode>soap:Client</faultcode><faultstring>a &lt; b\u{fffd}</faultstring>\
             <detail><cid xmlns=\"urn:arint:fault\">abc</cid></detail></soap:Fault></soap:Body></soap:Envelope>"
        );
        assert_eq!(
            fault.write(SoapVersion::V12, "abc"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <soap:Envelope xmlns:soap=\"http://www.w3.org/2003/05/soap-envelope\"><soap:Body><soap:Fault>\
             <soap:Code><soap:Value>soap:Sender</soap:Value></soap:Code>\
             <soap:Reason><soap:Text xml:lang=\"en\">a &lt; b\u{fffd}</soap:Text></soap:Reason>\
             <soap:Detail><cid xmlns=\"urn:arint:fault\">abc</cid></soap:Detail></soap:Fault></soap:Body></soap:Envelope>"
        );
    }

    #[test]
    fn each_code_has_its_status() {
        let status = |code, version| Fault::new(code, "").status(version).as_u16();
        assert_eq!(status(Code::Sender, SoapVersion::V11), 500);
        assert_eq!(status(Code::Sender, SoapVersion::V12), 400);
        assert_eq!(status(Code::Receiver, SoapVersion::V12), 500);
        assert_eq!(status(Code::FailedAuthentication, SoapVersion::V12), 400);
        let denied = Denied::because(StatusCode::TOO_MANY_REQUESTS, "x");
        assert_eq!(Fault::of_denied(&denied).status(SoapVersion::V11).as_u16(), 429);
    }
}
