//! The OpenAPI 3.1 document of the channels: what a caller can ask of this box, and with which credentials.
//!
//! [`document`] is a pure function of channels and of what workers said of their services (docstring, declared input and
//! output).  Who may read about which channel is decided before, by [`readable`].
//!
//! **Invariant:** a path is only told to callers who may use it, unless the config says that everybody may read.

use std::collections::{BTreeMap, BTreeSet};

use arapi::arsrv::FoundService;
use arapi::names::ObjectName;
use arapi::objects::{ChannelType, DataFormat, HttpMethod};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::channel::table::{Channel, Table, Target, Targets};
use crate::security::Scheme;

/// Who may read the document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readers {
    /// Who presents credentials of any channel: he reads of the channels that he may use.
    #[default]
    Callers,
    /// Everybody reads of every channel.
    Public,
    /// Nobody: the path is not there.
    Off,
}

/// The channels that a caller may read about; `caller` is None where everybody may read.
pub fn readable<'t>(table: &'t Table, caller: Option<&ObjectName>) -> Vec<&'t Channel> {
    let may_use = |channel: &Channel, target: &Target| match caller {
        None => true,
        Some(caller) => {
            let admitted = channel.gate.is_open() || channel.gate.knows(caller);
            admitted
                && target.granted.as_ref().is_none_or(|granted| {
                    let methods = methods_of(channel, None);
                    methods.iter().any(|method| granted.find(caller, *method).is_some())
                })
        }
    };
    let all = table.all().map(AsRef::as_ref);
    // OpenAPI has words for REST alone; SOAP has its WSDL.  What a gateway leads to is nobody's business.
    let is_told = |channel: &&Channel| match &channel.targets {
        Targets::One(target) if channel.spec.channel_type == ChannelType::Rest => {
            channel.is_serving() && may_use(channel, target)
        }
        Targets::Onward(onward) => channel.is_serving() && may_use(channel, &onward.target),
        Targets::One(_) | Targets::Named(_) => false,
    };
    all.filter(is_told).collect()
}

/// The document; `version` changes when something that is told of may have changed.
pub fn document(channels: &[&Channel], services: &[FoundService], version: &str) -> Value {
    let services: BTreeMap<&str, &FoundService> =
        services.iter().map(|service| (service.name.as_str(), service)).collect();
    let mut paths: BTreeMap<String, (String, Map<String, Value>)> = BTreeMap::new();
    let mut schemes = Map::new();
    let mut ids = BTreeSet::new();
    for channel in channels {
        let service = services.get(&*channel.service).copied();
        // `/a/{x}` and `/a/{y}` are one path here: the names of the first count.
        let (path, operations) = paths
            .entry(without_names(&channel.spec.url_path))
            .or_insert_with(|| (channel.spec.url_path.clone(), Map::new()));
        let names = parameters(path);
        for method in methods_of(channel, service) {
            let key = method.as_str().to_ascii_lowercase();
            match operations.get_mut(&key) {
                // The same path and method for another `Accept`.
                Some(there) => join(there, channel, service),
                None => {
                    let mut made = operation(channel, service, method, &names, &mut schemes);
                    made.insert("operationId".to_owned(), unique(&mut ids, &channel.name, method));
                    operations.insert(key, made.into());
                }
            }
        }
    }
    let paths: Map<String, Value> =
        paths.into_values().map(|(path, operations)| (path, operations.into())).collect();
    let mut components = json!({
        "schemas": {"Error": {
            "type": "object",
            "properties": {
                "result": {"type": "string"},
                "cid": {"type": "string", "description": "names the request in the logs of the box"},
                "details": {"description": "what was wrong"},
            },
            "required": ["result", "cid"],
        }},
    });
    if let (false, Some(map)) = (schemes.is_empty(), components.as_object_mut()) {
        map.insert("securitySchemes".to_owned(), schemes.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Channels of this box", "version": version},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    })
}

/// A path with nothing between its braces.
fn without_names(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            match c {
                '{' => inside = true,
                '}' => inside = false,
                _ => return !inside,
            }
            true
        })
        .collect()
}

/// The names between a path's braces.
fn parameters(path: &str) -> Vec<String> {
    let parts = path.split('{').skip(1);
    parts.filter_map(|part| Some(part.split_once('}')?.0.to_owned())).collect()
}

/// The methods that are told of: the channel's own, those of the service, or the one that fits its input.
fn methods_of(channel: &Channel, service: Option<&FoundService>) -> Vec<HttpMethod> {
    if let Some(method) = channel.spec.method {
        return vec![method];
    }
    let Some(service) = service else { return HttpMethod::ALL.to_vec() };
    let verb = |method: &HttpMethod| service.verbs.iter().any(|verb| verb == method.as_str());
    let verbs: Vec<HttpMethod> = HttpMethod::ALL.iter().copied().filter(verb).collect();
    if !verbs.is_empty() {
        return verbs;
    }
    let in_path = parameters(&channel.spec.url_path);
    let properties = service.input.as_ref().and_then(|input| input.get("properties")?.as_object());
    let has_body = channel.spec.request_schema.is_some()
        || match properties {
            Some(properties) => properties.keys().any(|name| !in_path.contains(name)),
            None => service.input.is_some(),
        };
    vec![if has_body { HttpMethod::Post } else { HttpMethod::Get }]
}

/// What bodies of a data format are called.
fn media(format: DataFormat, is_request: bool) -> &'static str {
    match format {
        DataFormat::Json => "application/json",
        DataFormat::Form if is_request => "application/x-www-form-urlencoded",
        DataFormat::Form => "application/json",
        DataFormat::Xml => "application/xml",
        DataFormat::Csv => "text/csv",
        DataFormat::Hl7 => "x-application/hl7-v2+er7",
        DataFormat::None => "*/*",
    }
}

/// Whether the schema of what a service declares is the schema of the body.
fn is_structured(format: DataFormat) -> bool {
    matches!(format, DataFormat::Json | DataFormat::Form | DataFormat::Xml | DataFormat::None)
}

fn operation(
    channel: &Channel,
    service: Option<&FoundService>,
    method: HttpMethod,
    in_path: &[String],
    schemes: &mut Map<String, Value>,
) -> Map<String, Value> {
    let spec = &channel.spec;
    let mut made = Map::new();
    let mut set = |field: &str, value: Value| drop(made.insert(field.to_owned(), value));
    if let Some(service) = service {
        set("tags", json!([service.module]));
        if !service.summary.is_empty() {
            set("summary", service.summary.as_str().into());
        }
        let rest = service.doc.strip_prefix(service.summary.as_str()).unwrap_or(&service.doc);
        let any = spec.method.is_none() && service.verbs.is_empty();
        let any = if any { "Any method is taken." } else { "" };
        let description: Vec<&str> =
            [rest.trim(), any].into_iter().filter(|part| !part.is_empty()).collect();
        if !description.is_empty() {
            set("description", description.join("\n\n").into());
        }
    }
    let declared = service.and_then(|service| service.input.as_ref());
    let input = spec.request_schema.as_ref().or(declared);
    let has_body = matches!(method, HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch);
    let mut parameters: Vec<Value> = in_path
        .iter()
        .map(|name| {
            let of_input = input.and_then(|input| input.get("properties")?.get(name)).cloned();
            let schema = of_input.unwrap_or_else(|| json!({"type": "string"}));
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    if has_body {
        let declared = input.filter(|_| is_structured(spec.data_format));
        let schema = declared.map(|input| without(input, in_path));
        let mut content = Map::new();
        let body = schema.map_or_else(|| json!({}), |schema| json!({"schema": schema}));
        content.insert(media(spec.data_format, true).to_owned(), body);
        let is_needed = input.is_some_and(|input| {
            let required = input.get("required").and_then(Value::as_array);
            required.is_some_and(|names| {
                names.iter().any(|name| !in_path.iter().any(|in_path| name == in_path))
            })
        });
        set("requestBody", json!({"required": is_needed, "content": content}));
    } else if let Some(properties) = input.and_then(|input| input.get("properties")?.as_object()) {
        let required = input.and_then(|input| input.get("required")?.as_array());
        let in_query = properties.iter().filter(|(name, _)| !in_path.contains(name));
        parameters.extend(in_query.map(|(name, schema)| {
            let is_required = required.is_some_and(|names| names.iter().any(|one| one == name));
            json!({"name": name, "in": "query", "required": is_required, "schema": schema})
        }));
    }
    if !parameters.is_empty() {
        set("parameters", parameters.into());
    }
    set("responses", responses(channel, service).into());
    let asked: Vec<Value> = channel
        .gate
        .schemes()
        .into_iter()
        .filter_map(|(name, scheme)| {
            let key = component(name);
            schemes.insert(key.clone(), described(scheme)?);
            Some(json!({key: []}))
        })
        .collect();
    set("security", asked.into());
    made
}

/// An object's schema without some of its properties.
fn without(schema: &Value, names: &[String]) -> Value {
    let mut schema = schema.clone();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| !names.contains(name));
    }
    let left = schema.get_mut("required").and_then(Value::as_array_mut).map(|required| {
        required.retain(|name| !names.iter().any(|gone| name == gone));
        required.len()
    });
    if let (Some(0), Some(fields)) = (left, schema.as_object_mut()) {
        fields.remove("required");
    }
    schema
}

fn answer(channel: &Channel, service: Option<&FoundService>) -> (String, Value) {
    let spec = &channel.spec;
    let configured = spec.content_type.as_deref().or(spec.http_accept.as_deref());
    let called = configured.unwrap_or_else(|| media(spec.data_format, false)).to_owned();
    let declared = service.and_then(|service| service.output.as_ref());
    let schema = spec.response_schema.as_ref().or(declared);
    match schema.filter(|_| is_structured(spec.data_format)) {
        Some(schema) => (called, json!({"schema": schema})),
        None => (called, json!({})),
    }
}

fn responses(channel: &Channel, service: Option<&FoundService>) -> Map<String, Value> {
    let (called, body) = answer(channel, service);
    let error = |what: &str| match channel.spec.data_format {
        DataFormat::Json | DataFormat::Hl7 => json!({
            "description": what,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }),
        _ => json!({"description": what, "content": {"text/plain": {}}}),
    };
    let mut made = Map::new();
    let mut content = Map::new();
    content.insert(called, body);
    made.insert(
        "200".to_owned(),
        json!({"description": "The answer of the service.", "content": content}),
    );
    made.insert("400".to_owned(), error("The request is not what the service takes."));
    if !channel.gate.is_open() {
        made.insert("401".to_owned(), error("Credentials are missing or wrong."));
    }
    if !channel.gate.is_open()
        && (channel.spec.use_rbac || !channel.spec.security_groups.is_empty())
    {
        made.insert("403".to_owned(), error("These credentials may not do this."));
    }
    if channel.may_be_limited() {
        made.insert(
            "429".to_owned(),
            error("Too many requests; `Retry-After` says when to come again."),
        );
    }
    made.insert("default".to_owned(), error("Something went wrong."));
    made
}

/// Another channel's answers, for the same path and method.
fn join(operation: &mut Value, channel: &Channel, service: Option<&FoundService>) {
    let (called, body) = answer(channel, service);
    let content = operation.pointer_mut("/responses/200/content").and_then(Value::as_object_mut);
    if let Some(content) = content {
        content.entry(called).or_insert(body);
    }
}

/// A name as components may have it.
fn component(name: &ObjectName) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    name.as_str().chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

/// A name for an operation that no other has.
fn unique(ids: &mut BTreeSet<String>, channel: &ObjectName, method: HttpMethod) -> Value {
    let mut id = channel.to_string();
    if ids.contains(&id) {
        id = format!("{id} {}", method.as_str());
    }
    let first = id.clone();
    let mut count = 2;
    while !ids.insert(id.clone()) {
        id = format!("{first} {count}");
        count += 1;
    }
    id.into()
}

/// A security as OpenAPI has it; a token in a SOAP message has no word there.
fn described(scheme: Scheme<'_>) -> Option<Value> {
    Some(match scheme {
        Scheme::Basic => json!({"type": "http", "scheme": "basic"}),
        Scheme::ApiKey(header) => json!({"type": "apiKey", "in": "header", "name": header}),
        Scheme::Bearer => json!({"type": "http", "scheme": "bearer"}),
        Scheme::Jwt => json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
        Scheme::Certificate => json!({"type": "mutualTLS"}),
        Scheme::UsernameToken => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_differ_in_names_alone_are_one() {
        assert_eq!(without_names("/a/{x}/b/{y-z}"), "/a/{}/b/{}");
        assert_eq!(parameters("/a/{x}/b/{y-z}"), ["x", "y-z"]);
        assert_eq!(parameters("/a"), Vec::<String>::new());
    }

    #[test]
    fn names_of_components_have_no_blanks() {
        let name = ObjectName::parse("my shop/ü.1").unwrap();
        assert_eq!(component(&name), "my_shop__.1");
    }

    #[test]
    fn what_stands_in_the_path_is_not_in_the_body() {
        let schema = json!({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]});
        assert_eq!(
            without(&schema, &["a".to_owned()]),
            json!({"type": "object", "properties": {"b": {}}})
        );
    }
}
