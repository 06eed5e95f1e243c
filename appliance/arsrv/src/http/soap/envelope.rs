//! SOAP envelopes as they come in: one pass over the text, no tree.
//!
//! It finds the version, the UsernameToken of WS-Security, and whether there is one body; the worker, which gets the
//! envelope as it came, builds the tree of what is in the body.  So what could harm the worker is refused here: a
//! DOCTYPE and references to entities (with them a few bytes become gigabytes), processing instructions (SOAP forbids
//! them), nesting and numbers of elements beyond any use.
//!
//! **Invariant:** what passes has exactly one envelope, at most one header, and one body.

use arapi::objects::SoapVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

use super::fault::{Code, Fault};
use crate::security::wss::UsernameToken;

/// The namespace of SOAP 1.1.
pub const NS_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// The namespace of SOAP 1.2.
pub const NS_12: &str = "http://www.w3.org/2003/05/soap-envelope";
/// The namespaces of WS-Security 1.0.
const WSSE: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
const WSU: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";

/// Deepest nesting.
const DEPTH: usize = 100;
/// Most elements and attributes.
const NODES: usize = 250_000;
/// Longest text of an element of a UsernameToken.
const TOKEN_TEXT: usize = 4096;

/// What an envelope says.
#[derive(Debug)]
pub struct Envelope {
    /// Its version.
    pub version: SoapVersion,
    /// Who sends it, and how that is shown.
    pub token: Option<UsernameToken>,
}

/// What an element is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Envelope,
    Header,
    Body,
    Security,
    UsernameToken,
    Username,
    Password,
    Nonce,
    Created,
    Other,
}

/// The namespace of SOAP that a version has.
pub fn namespace(version: SoapVersion) -> &'static str {
    match version {
        SoapVersion::V11 => NS_11,
        SoapVersion::V12 => NS_12,
    }
}

fn sender(reason: impl Into<String>) -> Fault {
    Fault::new(Code::Sender, reason)
}

/// Reads a message.  A fault says what is wrong with it.
pub fn read(message: &[u8]) -> Result<Envelope, Fault> {
    let text = std::str::from_utf8(message).map_err(|err| {
        sender(format!("the message is not UTF-8 at byte {}, and has to be", err.valid_up_to()))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reading = Reading::default();
    let mut reader = NsReader::from_str(text);
    loop {
        let (namespace, event) = reader
            .read_resolved_event()
            .map_err(|err| sender(format!("the message is not well-formed XML: {err}")))?;
        match event {
            Event::Start(start) => {
                let part = reading.part(&namespace, &start)?;
                reading.enter(part, &start)?;
            }
            Event::Empty(start) => {
                let part = reading.part(&namespace, &start)?;
                reading.enter(part, &start)?;
                reading.leave();
            }
            Event::End(_) => reading.leave(),
            Event::Text(text) => reading.text(&text.xml10_content())?,
            Event::CData(text) => reading.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let bad = || sender("the message refers to an entity, which is not accepted");
                if let Some(found) = reference.resolve_char_ref().map_err(|_| bad())? {
                    reading.text(found.encode_utf8(&mut [0; 4]))?;
                } else {
                    let name = reference.xml10_content();
                    reading.text(resolve_predefined_entity(&name).ok_or_else(bad)?)?;
                }
            }
            Event::DocType(_) => {
                return Err(sender("the message has a DOCTYPE, which is not accepted"));
            }
            Event::PI(_) => {
                return Err(sender("the message has a processing instruction, which SOAP forbids"));
            }
            Event::Decl(declaration) => {
                if let Some(Ok(encoding)) = declaration.encoding()
                    && !encoding.eq_ignore_ascii_case("utf-8")
                    && !encoding.eq_ignore_ascii_case("us-ascii")
                {
                    let encoding = encoding.escape_debug();
                    return Err(sender(format!(
                        "the message is in `{encoding}`; send it in UTF-8"
                    )));
                }
            }
            Event::Comment(_) => {}
            Event::Eof => return reading.end(),
        }
    }
}

/// How far it has come.
#[derive(Default)]
struct Reading {
    version: Option<SoapVersion>,
    /// What the elements around are.
    path: Vec<Part>,
    nodes: usize,
    has_header: bool,
    has_body: bool,
    token: Option<UsernameToken>,
}

impl Reading {
    /// What an element is, by its name and where it stands.
    fn part(
        &mut self,
        namespace: &ResolveResult<'_>,
        start: &BytesStart<'_>,
    ) -> Result<Part, Fault> {
        let name = start.local_name();
        let name: &str = name.into_inner();
        let namespace = match namespace {
            ResolveResult::Bound(namespace) => namespace.into_inner(),
            ResolveResult::Unbound => "",
            ResolveResult::Unknown(prefix) => {
                let prefix = prefix.escape_debug();
                return Err(sender(format!("the prefix `{prefix}` is not declared")));
            }
        };
        let Some(above) = self.path.last() else {
            return self.root(namespace, name);
        };
        let is_soap = self.version.map(self::namespace) == Some(namespace);
        Ok(match (above, name) {
            (Part::Envelope, "Header") if is_soap => Part::Header,
            (Part::Envelope, "Body") if is_soap => Part::Body,
            (Part::Envelope, _) => {
                let name = name.escape_debug();
                return Err(sender(format!("`{name}` stands beside header and body")));
            }
            (Part::Header, "Security") if namespace == WSSE => Part::Security,
            (Part::Security, "UsernameToken") if namespace == WSSE => Part::UsernameToken,
            (Part::UsernameToken, "Username") if namespace == WSSE => Part::Username,
            (Part::UsernameToken, "Password") if namespace == WSSE => Part::Password,
            (Part::UsernameToken, "Nonce") if namespace == WSSE => Part::Nonce,
            (Part::UsernameToken, "Created") if namespace == WSU => Part::Created,
            _ => Part::Other,
        })
    }

    fn root(&mut self, namespace: &str, name: &str) -> Result<Part, Fault> {
        if self.version.is_some() {
            return Err(sender("the message has more than one root element"));
        }
        self.version = Some(match namespace {
            NS_11 if name == "Envelope" => SoapVersion::V11,
            NS_12 if name == "Envelope" => SoapVersion::V12,
            other if name == "Envelope" => {
                let reason = format!(
                    "the envelope has the namespace `{}`, which is neither SOAP 1.1 nor 1.2",
                    other.chars().take(200).collect::<String>().escape_debug()
                );
                return Err(Fault::new(Code::VersionMismatch, reason));
            }
            _ => return Err(sender("the message is no SOAP envelope")),
        });
        Ok(Part::Envelope)
    }

    fn enter(&mut self, part: Part, start: &BytesStart<'_>) -> Result<(), Fault> {
        self.nodes += 1;
        // Each attribute has one.
        self.nodes += start.attributes_raw().bytes().filter(|byte| *byte == b'=').count();
        if self.nodes > NODES {
            return Err(sender(format!(
                "the message has more than {NODES} elements and attributes"
            )));
        }
        self.path.push(part);
        if self.path.len() > DEPTH {
            return Err(sender(format!("the message is nested more than {DEPTH} deep")));
        }
        match part {
            Part::Header if self.has_header => return Err(sender("the message has two headers")),
            Part::Header if self.has_body => {
                return Err(sender("the message has its header behind its body"));
            }
            Part::Header => self.has_header = true,
            Part::Body if self.has_body => return Err(sender("the message has two bodies")),
            Part::Body => self.has_body = true,
            Part::UsernameToken if self.token.is_some() => {
                return Err(sender("the message has two UsernameTokens"));
            }
            Part::UsernameToken => self.token = Some(UsernameToken::default()),
            Part::Password => {
                let attribute = start
                    .try_get_attribute("Type")
                    .map_err(|err| sender(format!("the message is not well-formed XML: {err}")))?;
                let is_digest =
                    attribute.is_some_and(|attribute| attribute.value.ends_with("#PasswordDigest"));
                if let Some(token) = &mut self.token {
                    token.is_digest = is_digest;
                }
            }
            Part::Nonce => {
                if let Some(token) = &mut self.token {
                    token.nonce.get_or_insert_default();
                }
            }
            Part::Created => {
                if let Some(token) = &mut self.token {
                    token.created.get_or_insert_default();
                }
            }
            Part::Envelope | Part::Security | Part::Username | Part::Other => {}
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.path.pop();
    }

    fn text(&mut self, text: &str) -> Result<(), Fault> {
        let Some(above) = self.path.last() else {
            return if text.trim().is_empty() {
                Ok(())
            } else {
                Err(sender("the message has text beside its envelope"))
            };
        };
        let Some(token) = &mut self.token else { return Ok(()) };
        let into = match above {
            Part::Username => &mut token.username,
            Part::Password => &mut token.password,
            Part::Nonce => token.nonce.get_or_insert_default(),
            Part::Created => token.created.get_or_insert_default(),
            _ => return Ok(()),
        };
        if into.len() + text.len() > TOKEN_TEXT {
            return Err(sender("the UsernameToken is too long"));
        }
        into.push_str(text);
        Ok(())
    }

    fn end(self) -> Result<Envelope, Fault> {
        let Some(version) = self.version else {
            return Err(sender("the message is empty; a SOAP envelope was expected"));
        };
        if !self.path.is_empty() {
            return Err(sender("the message ends before its envelope does"));
        }
        if !self.has_body {
            return Err(sender("the message has no body"));
        }
        let token = self.token.map(|mut token| {
            token.username = token.username.trim().to_owned();
            token
        });
        Ok(Envelope { version, token })
    }
}

/// For fuzzing: any bytes as a message; what is wrong with it has to be a fault that can be written.
#[expect(clippy::panic, reason = "this is how a fuzzer is told")]
pub fn fuzz(bytes: &[u8]) {
    let Err(fault) = read(bytes) else { return };
    for version in [SoapVersion::V11, SoapVersion::V12] {
        let written = fault.write(version, "cid");
        if let Err(err) = read(written.as_bytes()) {
            panic!("a fault that is no message: {written}: {err:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(namespace: &str, inside: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<s:Envelope xmlns:s=\"{namespace}\" xmlns:w=\"{WSSE}\" xmlns:u=\"{WSU}\">{inside}</s:Envelope>"
        )
    }

    #[track_caller]
    fn refused(message: &str, reason: &str) {
        let fault = read(message.as_bytes()).unwrap_err();
        assert_eq!(fault.reason, reason, "{message}");
    }

    #[test]
    fn both_versions_are_told_by_their_namespace() {
        for (namespace, version) in [(NS_11, SoapVersion::V11), (NS_12, SoapVersion::V12)] {
            let message = envelope(namespace, "<!-- a --><s:Body><x>1 &lt; &#50;</x></s:Body>");
            assert_eq!(read(message.as_bytes()).unwrap().version, version);
        }
        let other = envelope("urn:soap:3", "<s:Body/>");
        let fault = read(other.as_bytes()).unwrap_err();
        assert_eq!(fault.code, Code::VersionMismatch);
    }

    #[test]
    fn a_username_token_is_read_from_the_header_and_from_nowhere_else() {
        let token = "<w:UsernameToken><w:Username> crm </w:Username>\
             <w:Password Type=\"http://x#PasswordDigest\">a&amp;b</w:Password>\
             <w:Nonce>bm9uY2U=</w:Nonce><u:Created>2026-11-21T07:00:00Z</u:Created></w:UsernameToken>";
        let header = format!("<s:Header><w:Security>{token}</w:Security></s:Header><s:Body/>");
        let found = read(envelope(NS_11, &header).as_bytes()).unwrap().token.unwrap();
        assert_eq!((&*found.username, &*found.password), ("crm", "a&b"));
        assert!(found.is_digest);
        assert_eq!(found.nonce.as_deref(), Some("bm9uY2U="));
        assert_eq!(found.created.as_deref(), Some("2026-11-21T07:00:00Z"));
        for elsewhere in [
            format!("<s:Body><w:Security>{token}</w:Security></s:Body>"),
            format!("<s:Header><x><w:Security>{token}</w:Security></x></s:Header><s:Body/>"),
            format!("<s:Header>{token}</s:Header><s:Body/>"),
        ] {
            assert!(read(envelope(NS_11, &elsewhere).as_bytes()).unwrap().token.is_none());
        }
        let twice =
            format!("<s:Header><w:Security>{token}{token}</w:Security></s:Header><s:Body/>");
        refused(&envelope(NS_11, &twice), "the message has two UsernameTokens");
    }

    #[test]
    fn bombs_are_refused_before_anything_is_built() {
        let entities = format!(
            "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]>{}",
            envelope(NS_11, "<s:Body><x>&b;</x></s:Body>").split_once('\n').unwrap().1
        );
        refused(&entities, "the message has a DOCTYPE, which is not accepted");
        refused(
            &envelope(NS_11, "<s:Body><x>&b;</x></s:Body>"),
            "the message refers to an entity, which is not accepted",
        );
        let deep = format!("<s:Body>{}{}</s:Body>", "<x>".repeat(200), "</x>".repeat(200));
        refused(&envelope(NS_11, &deep), "the message is nested more than 100 deep");
        let wide = format!("<s:Body>{}</s:Body>", "<x/>".repeat(NODES));
        refused(
            &envelope(NS_11, &wide),
            "the message has more than 250000 elements and attributes",
        );
    }

    #[test]
    fn what_is_no_envelope_is_told_so() {
        refused("", "the message is empty; a SOAP envelope was expected");
        refused("<a/>", "the message is no SOAP envelope");
        refused(&envelope(NS_11, ""), "the message has no body");
        refused(&envelope(NS_11, "<s:Body/><s:Body/>"), "the message has two bodies");
        refused(
            &envelope(NS_11, "<s:Body/><s:Header/>"),
            "the message has its header behind its body",
        );
        refused(&envelope(NS_11, "<x/><s:Body/>"), "`x` stands beside header and body");
        refused(
            &envelope(NS_11, "<?php x?><s:Body/>"),
            "the message has a processing instruction, which SOAP forbids",
        );
        refused(
            "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><a/>",
            "the message is in `iso-8859-1`; send it in UTF-8",
        );
        let cut = envelope(NS_11, "<s:Body>");
        assert!(read(cut.as_bytes()).unwrap_err().reason.contains("well-formed"));
    }
}
