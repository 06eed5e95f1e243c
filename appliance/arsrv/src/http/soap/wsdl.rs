//! The description (WSDL 1.1) of the SOAP channels of a path: an operation for each, in every version it takes.
//!
//! What a message holds is declared by the service; its worker, which knows the order of what is declared, writes the
//! schema.  The operation's name is the last part of the channel's action, or made of the service's name.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use arapi::names::Cid;
use arapi::objects::SoapVersion;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;

use super::fault::{Code, Fault, put_text};
use crate::call::{Call, Outcome};
use crate::channel::Channel;
use crate::http::door::Door;
use crate::http::steps::Visit;

/// One operation.
struct Operation {
    name: String,
    namespace: String,
    action: String,
    version: Option<SoapVersion>,
    /// The schema of its messages.
    schema: String,
}

/// The description of the channels of the path that was asked for.
pub async fn of_path(door: &Door, visit: &Visit<'_>) -> Result<String, Fault> {
    let mut operations: Vec<Operation> = Vec::new();
    for channel in visit.found.alike() {
        if !channel.is_serving() || !channel.spec.serve_wsdl {
            continue;
        }
        let mut name = operation_name(channel);
        while operations.iter().any(|known| known.name == name) {
            name.push('_');
        }
        let namespace = format!("urn:arint:{}", escaped_uri(channel.name.as_str()));
        let schema = schema(door, visit.cid, channel, &name, &namespace).await?;
        let action = channel.spec.soap_action.clone().unwrap_or_default();
        let version = channel.spec.soap_version;
        operations.push(Operation { name, namespace, action, version, schema });
    }
    let first = visit.channel();
    Ok(written(first.name.as_str(), &address(visit), &operations))
}

/// Where messages are to be sent: where the description was asked for.
fn address(visit: &Visit<'_>) -> String {
    let headers: &HeaderMap = &visit.parts.headers;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    let host = text("host").unwrap_or("localhost");
    format!("{scheme}://{host}{}", visit.parts.uri.path())
}

/// The name of a channel's operation.
fn operation_name(channel: &Channel) -> String {
    let action = channel.spec.soap_action.as_deref().unwrap_or_default();
    let last = action.rsplit(['/', ':', '#']).next().unwrap_or_default();
    if is_name(last) { last.to_owned() } else { name_of(&channel.service) }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// A service's name as one that programs can have for a function.
fn name_of(service: &str) -> String {
    let mut name: String =
        service.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name.insert(0, '_');
    }
    name
}

/// A name as part of a URN.
fn escaped_uri(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2E", ".")
        .replace("%2D", "-")
        .replace("%5F", "_")
}

/// The schema of a service's messages, as a worker writes it.
async fn schema(
    door: &Door,
    cid: &Cid,
    channel: &Channel,
    operation: &str,
    namespace: &str,
) -> Result<String, Fault> {
    let receiver = |reason: &str| Fault::new(Code::Receiver, reason);
    let Some(target) = channel.targets.one() else {
        return Err(receiver("the channel has no service"));
    };
    let body = json!({"operation": operation, "namespace": namespace}).to_string();
    let call = Call {
        service: Arc::clone(&target.service),
        cid: cid.clone(),
        channel: "soap-schema",
        data_format: "json",
        method: None,
        http: Bytes::new(),
        environ: Bytes::new(),
        body: body.into(),
        spool: None,
        deadline: Instant::now() + target.timeout,
        priority: channel.spec.priority,
        is_idempotent: true,
    };
    match door.invoker.call(call).await {
        Outcome::Done(reply) => String::from_utf8(Vec::from(reply.body))
            .map_err(|_| receiver("the worker wrote a schema that is no text")),
        Outcome::Streamed(..) => Err(receiver("the worker wrote no schema")),
        Outcome::Failed(failure) => {
            log::warn!(
                cid:% = cid, channel:% = channel.name, service:% = target.service,
                error = failure.message; "service cannot be described"
            );
            Err(Fault::of_failure(&failure, door.return_tracebacks))
        }
    }
}

fn written(name: &str, address: &str, operations: &[Operation]) -> String {
    let text = |text: &str| {
        let mut out = String::new();
        put_text(&mut out, text);
        out
    };
    let name = name_of(name);
    let mut out = String::with_capacity(4096);
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    write!(
        out,
        "<wsdl:definitions name=\"{name}\" targetNamespace=\"urn:arint:wsdl:{name}\" xmlns:tns=\"urn:arint:wsdl:{name}\" \
         xmlns:wsdl=\"http://schemas.xmlsoap.org/wsdl/\" xmlns:soap=\"http://schemas.xmlsoap.org/wsdl/soap/\" \
         xmlns:soap12=\"http://schemas.xmlsoap.org/wsdl/soap12/\">\n<wsdl:types>\n"
    )
    .ok();
    for operation in operations {
        out.push_str(&operation.schema);
        out.push('\n');
    }
    out.push_str("</wsdl:types>\n");
    for Operation { name, namespace, .. } in operations {
        let namespace = text(namespace);
        for (message, element) in
            [("Request", name.clone()), ("Response", format!("{name}Response"))]
        {
            writeln!(
                out,
                "<wsdl:message name=\"{name}{message}\"><wsdl:part name=\"parameters\" xmlns:m=\"{namespace}\" element=\"m:{element}\"/></wsdl:message>"
            )
            .ok();
        }
    }
    writeln!(out, "<wsdl:portType name=\"{name}Port\">").ok();
    for Operation { name, .. } in operations {
        writeln!(
            out,
            "<wsdl:operation name=\"{name}\"><wsdl:input message=\"tns:{name}Request\"/><wsdl:output message=\"tns:{name}Response\"/></wsdl:operation>"
        )
        .ok();
    }
    out.push_str("</wsdl:portType>\n");
    let versions = [(SoapVersion::V11, "soap", "11"), (SoapVersion::V12, "soap12", "12")];
    let takes =
        |operation: &&Operation, version| operation.version.is_none_or(|only| only == version);
    let used: Vec<_> = versions
        .into_iter()
        .filter(|(version, ..)| operations.iter().any(|operation| takes(&operation, *version)))
        .collect();
    for (version, prefix, number) in &used {
        writeln!(
            out,
            "<wsdl:binding name=\"{name}Soap{number}\" type=\"tns:{name}Port\"><{prefix}:binding style=\"document\" transport=\"http://schemas.xmlsoap.org/soap/http\"/>"
        )
        .ok();
        for operation in operations.iter().filter(|operation| takes(operation, *version)) {
            writeln!(
                out,
                "<wsdl:operation name=\"{}\"><{prefix}:operation soapAction=\"{}\" style=\"document\"/>\
                 <wsdl:input><{prefix}:body use=\"literal\"/></wsdl:input><wsdl:output><{prefix}:body use=\"literal\"/></wsdl:output></wsdl:operation>",
                operation.name,
                text(&operation.action)
            )
            .ok();
        }
        out.push_str("</wsdl:binding>\n");
    }
    writeln!(out, "<wsdl:service name=\"{name}\">").ok();
    for (_, prefix, number) in &used {
        writeln!(
            out,
            "<wsdl:port name=\"{name}Soap{number}\" binding=\"tns:{name}Soap{number}\"><{prefix}:address location=\"{}\"/></wsdl:port>",
            text(address)
        )
        .ok();
    }
    out.push_str("</wsdl:service>\n</wsdl:definitions>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_that_programs_can_have_them() {
        assert_eq!(name_of("orders.get-one"), "orders_get_one");
        assert_eq!(name_of("2nd"), "_2nd");
        assert!(is_name("GetOrder") && !is_name("") && !is_name("1st") && !is_name("a b"));
        assert_eq!(escaped_uri("a b/ü.c-d_e"), "a%20b%2F%C3%BC.c-d_e");
    }
}
