//! A document as channels, one for each operation, and a module of services that are to be filled in.
//!
//! **Invariant:** a channel whose credentials could not be taken is not taken either, because it would be open to all.

use std::collections::{BTreeMap, BTreeSet};

use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::credentials::{self, Scheme, Way, asked, schemes};
use super::document::{Document, Refused};
use super::json_schema::JsonSchemas;
use super::module::sealed;
use super::operation::{Body, Operation, is_json};
use super::plan::{Plan, operations};
use super::skeleton::{self, Service};
use crate::enmasse::Present;

/// What the person who imports says.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    /// The module's name, with which those of services and channels begin.
    pub module: String,
    /// The path that all others are below, instead of that of the document's server.
    pub base_path: Option<String>,
    /// A security of the box that channels ask for where the document asks for any.
    pub security: Option<String>,
    /// The user's name for basic authentication.
    pub username: Option<String>,
}

/// Makes the plan.
pub fn channels(doc: &Document, said: &Channels, present: &Present) -> Plan {
    let mut plan = Plan::default();
    let base = said.base_path.clone().unwrap_or_else(|| super::server::base(doc));
    let base = base.trim_end_matches('/');
    let taken = operations(doc, &mut plan);
    let mut known = schemes_of(doc, said, &mut plan);
    let mut services: Vec<(Service<'_>, String, Vec<String>)> = Vec::new();
    let mut open = Vec::new();
    let mut json_schemas = JsonSchemas::of(doc);
    for (operation, name) in skeleton::names(&said.module, &taken) {
        let mut notes = operation.notes.clone();
        let made = security(doc, said, operation, &mut known, present, &mut plan, &mut notes);
        let made = made.and_then(|security| {
            let (path, renamed) = path(base, &operation.path, &mut notes)?;
            let mut fields = fields(&mut json_schemas, operation, &name, &path, &mut notes);
            let there =
                present.get(&(Kind::Channel, name.clone())).and_then(|there| there.get("security"));
            let is_set = there.and_then(Value::as_array).is_some_and(|there| !there.is_empty());
            if security.is_empty() && !is_set {
                open.push(name.clone());
            }
            if !is_set || said.security.is_some() {
                fields.insert("security".to_owned(), json!(security));
            }
            let object = plan.put(present, Kind::Channel, &name, fields)?;
            Ok((Service { operation, name: name.clone(), path, renamed }, object))
        });
        match made {
            Ok((service, object)) => services.push((service, object, notes)),
            Err(refused) => plan.refuse(doc, &operation.what(), &operation.place, refused),
        }
    }
    let (services, rest): (Vec<_>, Vec<_>) =
        services.into_iter().map(|(service, object, notes)| (service, (object, notes))).unzip();
    let (text, classes) = skeleton::module(doc, &services);
    for ((service, class), (object, notes)) in services.iter().zip(&classes).zip(rest) {
        let into = vec![object, format!("class {class}")];
        plan.take(doc, &service.operation.what(), &service.operation.place, into, notes);
    }
    for (scheme, object) in known.into_values() {
        match object {
            Some(object) => plan.take(
                doc,
                &format!("security {}", scheme.name),
                &scheme.place,
                vec![object],
                Vec::new(),
            ),
            None => {
                let refused =
                    Refused::new("no channel that was taken asks for it", "nothing is to be done");
                plan.refuse(doc, &format!("security {}", scheme.name), &scheme.place, refused);
            }
        }
    }
    if !open.is_empty() {
        let are = if open.len() == 1 { "is" } else { "are" };
        plan.warnings.push(format!(
            "open to all {are} {}, because the document asks for no credentials there",
            open.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    // What others refer to comes first.
    plan.objects.sort_by_key(|planned| planned.kind);
    plan.told.sort_by_key(|told| (told.line, told.place.clone()));
    let file = doc.file.rsplit('/').next().unwrap_or_default();
    let module_doc = [
        format!("The services behind the channels of `{file}`."),
        format!(
            "Made by `arctl import-openapi --as channels --module {}`; each answers 501 until its `handle` is written.",
            said.module
        ),
        "From the first change on this file is yours: importing again leaves it alone.".to_owned(),
    ];
    plan.module = sealed(&module_doc, &text);
    plan
}

/// The schemes that have a security here, with the object once a channel needs it.
type Known = BTreeMap<String, (Scheme, Option<String>)>;

fn schemes_of(doc: &Document, said: &Channels, plan: &mut Plan) -> Known {
    let mut known = Known::new();
    for credentials::Found { name, place, scheme } in schemes(doc, Way::In) {
        let scheme = match &said.security {
            Some(security) => Err(Refused::new(
                format!("the channels ask for `{security}`"),
                "import again without `--security` if it is to be made",
            )),
            None => scheme,
        };
        match scheme {
            Ok(scheme) => drop(known.insert(name, (scheme, None))),
            Err(refused) => plan.refuse(doc, &format!("security {name}"), &place, refused),
        }
    }
    known
}

/// The securities that an operation's channel asks for; none where it is to be open.
fn security(
    doc: &Document,
    said: &Channels,
    operation: &Operation,
    known: &mut Known,
    present: &Present,
    plan: &mut Plan,
    notes: &mut Vec<String>,
) -> Result<Vec<String>, Refused> {
    let ways = asked(doc, operation);
    if ways.iter().all(BTreeSet::is_empty) {
        return Ok(Vec::new());
    }
    if let Some(security) = &said.security {
        return Ok(vec![security.clone()]);
    }
    let mut securities = Vec::new();
    let mut others = Vec::new();
    for way in &ways {
        let mut names = way.iter();
        match (names.next(), names.next()) {
            (None, _) => notes.push(
                "its credentials may be left out, and the channel asks for them all the same"
                    .to_owned(),
            ),
            (Some(name), None) if known.contains_key(name) => {
                match object(said, name, known, present, plan) {
                    Ok(security) => securities.push(security),
                    Err(refused) => {
                        known.remove(name);
                        let place = super::document::join("/components/securitySchemes", name);
                        plan.refuse(doc, &format!("security {name}"), &place, refused);
                        others.push(format!("`{name}`"));
                    }
                }
            }
            _ => {
                let names: Vec<String> = way.iter().map(|name| format!("`{name}`")).collect();
                others.push(names.join(" with "));
            }
        }
    }
    if securities.is_empty() {
        return Err(Refused::new(
            format!(
                "it asks for {}, which was not taken, and without it would be open to all",
                others.join(" or ")
            ),
            "make a Security by `arctl apply`, and import again with `--security NAME`",
        ));
    }
    if !others.is_empty() {
        notes.push(format!("it also admits {}, which the channel does not", others.join(" or ")));
    }
    Ok(securities)
}

/// The security of a scheme, planned the first time.
fn object(
    said: &Channels,
    name: &str,
    known: &mut Known,
    present: &Present,
    plan: &mut Plan,
) -> Result<String, Refused> {
    let security = format!("{}.{name}", said.module);
    let Some((scheme, object)) = known.get_mut(name) else { return Ok(security) };
    if object.is_none() {
        let there = present.get(&(Kind::Security, security.clone()));
        let is_kept = there.is_some_and(|there| there.get("type") == scheme.spec.get("type"));
        let mut fields = scheme.spec.as_object().cloned().unwrap_or_default();
        if let (Some(field), false) = (scheme.username, is_kept && said.username.is_none()) {
            let username = said.username.as_ref().unwrap_or(&said.module);
            fields.insert(field.to_owned(), username.as_str().into());
        }
        if !is_kept {
            // The box makes it, and whoever imports hands it to those who call.
            fields.insert(scheme.secret.to_owned(), json!({"generate": "uuid4"}));
        }
        *object = Some(plan.put(present, Kind::Security, &security, fields)?);
    }
    Ok(security)
}

/// The channel's path, and what its parameters are called there.
fn path(
    base: &str,
    written: &str,
    notes: &mut Vec<String>,
) -> Result<(String, Vec<(String, String)>), Refused> {
    let mut path = written.to_owned();
    let mut renamed = Vec::new();
    let mut used = BTreeSet::new();
    for name in super::operation::placeholders(written)? {
        let fits =
            |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        let mut wanted: String = name.chars().map(fits).collect();
        while !used.insert(wanted.clone()) {
            wanted.push('_');
        }
        if wanted != name {
            notes.push(format!(
                "parameter `{}` of the path is `{wanted}` here",
                name.escape_debug()
            ));
            path = path.replace(&format!("{{{name}}}"), &format!("{{{wanted}}}"));
            renamed.push((name, wanted));
        }
    }
    // Channels are found by the path as it is after decoding.
    Ok((format!("{base}{}", super::client::decoded(&path)), renamed))
}

fn fields(
    schemas: &mut JsonSchemas<'_>,
    operation: &Operation,
    name: &str,
    path: &str,
    notes: &mut Vec<String>,
) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |field: &str, value: Value| drop(fields.insert(field.to_owned(), value));
    let body = operation.body.as_ref();
    let answer = operation.answers.iter().flatten().next();
    let data_format = data_format(body, answer);
    set("url_path", path.into());
    set("method", operation.method.as_str().into());
    set("service", name.into());
    set("data_format", data_format.into());
    set("match_slash", false.into());
    let usual = if data_format == "json" { "application/json" } else { "" };
    let content_type = answer.map(|answer| answer.media.as_str());
    let content_type = content_type.filter(|media| *media != usual && !media.contains('*'));
    set("content_type", content_type.map_or(Value::Null, Into::into));
    let takes_body = matches!(operation.method.as_str(), "POST" | "PUT" | "PATCH");
    let mut request_schema = Value::Null;
    if let Some(place) = body.and_then(|body| body.schema.as_ref()) {
        let (schema, told) = schemas.schema(place, "readOnly");
        let is_optional = body.is_some_and(|body| !body.is_required);
        match schema {
            // Forms are checked by the service's input, files by nobody.
            Some(_) if matches!(data_format, "none" | "form") => {}
            Some(_) if data_format != "json" => notes.push(format!(
                "its body is not JSON (`data_format: {data_format}`), and is not checked"
            )),
            Some(_) if takes_body && is_optional => {
                notes.push("its body may be left out, and is not checked, because a channel's schema asks for one".to_owned());
            }
            Some(schema) => {
                request_schema = schema;
                notes.extend(told);
            }
            None => notes.extend(told),
        }
    }
    set("request_schema", request_schema);
    let mut response_schema = Value::Null;
    match operation.answers.as_slice() {
        [Some(Body { schema: Some(place), media, .. })]
            if data_format == "json" && is_json(media) =>
        {
            let (schema, told) = schemas.schema(place, "writeOnly");
            notes.extend(told);
            response_schema = schema.unwrap_or_default();
        }
        [_, _, ..] if answer.is_some() => {
            notes.push("it has several good answers, and they are not checked".to_owned());
        }
        _ => {}
    }
    set("response_schema", response_schema);
    fields
}

/// The form of requests and answers together.
fn data_format(body: Option<&Body>, answer: Option<&Body>) -> &'static str {
    let is_xml = |media: &str| media.contains("/xml") || media.contains("+xml");
    match (body.map(|body| body.media.as_str()), answer.map(|answer| answer.media.as_str())) {
        (None, None) => "json",
        (Some(media), _) if media.starts_with("application/x-www-form-urlencoded") => "form",
        // Text and bytes go out as they are, whatever the form of requests is.
        (Some(media), _) if is_json(media) => "json",
        (None, Some(answer)) if is_json(answer) => "json",
        (Some(media), _) if is_xml(media) => "xml",
        (None, Some(answer)) if is_xml(answer) => "xml",
        _ => "none",
    }
}
