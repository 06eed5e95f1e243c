//! The module of a typed client: classes of the schemas, and one method for each operation.

use serde_json::Value;

use super::document::Document;
use super::module::Module;
use super::names::{Names, pascal, snake};
use super::operation::{Body, Operation, Parameter, Place, Style, is_json};
use super::schema::Schemas;
use super::types::{Type, docstring, quoted};

/// What a client is made of.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) doc: &'a Document,
    pub(super) operations: &'a [Operation],
    pub(super) connection: &'a str,
    pub(super) path_parameter: &'a str,
}

/// The class's name for a connection's.
pub(super) fn class_name(connection: &str) -> String {
    format!("{}Client", pascal(connection))
}

/// The text of the module, without its header, and the method of each operation.
pub(super) fn client(wanted: &Wanted<'_>) -> (String, Vec<String>) {
    let mut names = Names::default();
    let class = names.take(&class_name(wanted.connection));
    let mut schemas = Schemas::of(wanted.doc, names);
    let mut module = Module::default();
    module.import("arint.openapi", "Client");
    let mut methods = Names::default();
    let mut text = String::new();
    let mut called = Vec::new();
    for operation in wanted.operations {
        let method = methods.take(&snake(&operation.id));
        text.push('\n');
        text.push_str(&self::method(&method, operation, &mut schemas, &mut module));
        called.push(method);
    }
    let info = |field: &str| match wanted.doc.value.pointer(&format!("/info/{field}")) {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let title = format!("{} {}", info("title"), info("version"));
    let title = title.trim();
    let title = if title.is_empty() { wanted.connection } else { title };
    let doc = docstring(&[format!("{}.", title.trim_end_matches('.')), info("description")], 4);
    let connection = quoted(wanted.connection);
    let mut body = format!("class {class}(Client):\n{doc}\n    connection = {connection}\n");
    if wanted.path_parameter != "path" {
        body.push_str(&format!("    path_parameter = {}\n", quoted(wanted.path_parameter)));
    }
    body.push_str(&text);
    (module.written(schemas, &body), called)
}

/// A parameter as the method has it.
struct Argument<'a> {
    name: String,
    hint: Type,
    of: &'a Parameter,
}

fn method(
    method: &str,
    operation: &Operation,
    schemas: &mut Schemas<'_>,
    module: &mut Module,
) -> String {
    let mut used = Names::default();
    let wanted = pascal(&snake(&operation.id));
    let arguments: Vec<Argument<'_>> = operation
        .parameters
        .iter()
        .map(|parameter| Argument {
            name: used.take(&snake(&parameter.name)),
            hint: schemas.hint(&parameter.schema, &format!("{wanted}{}", pascal(&parameter.name))),
            of: parameter,
        })
        .collect();
    let body = operation.body.as_ref().map(|body| (body, body_hint(body, schemas, &wanted)));
    let returns = answer(operation, schemas, &wanted);
    let body_argument =
        body.as_ref().map(|(body, hint)| argument("body", hint, body.is_required, module));
    let mut signature = vec!["self".to_owned()];
    let in_path = |one: &&Argument<'_>| one.of.place == Place::Path;
    let written = |one: &Argument<'_>, module: &mut Module| {
        argument(&one.name, &one.hint, one.of.is_required, module)
    };
    for one in arguments.iter().filter(in_path) {
        signature.push(written(one, module));
    }
    let is_needed = operation.body.as_ref().is_some_and(|body| body.is_required);
    signature.extend(body_argument.clone().filter(|_| is_needed));
    let mut named: Vec<String> = Vec::new();
    let (required, optional): (Vec<_>, Vec<_>) =
        arguments.iter().filter(|one| !in_path(one)).partition(|one| one.of.is_required);
    named.extend(required.into_iter().map(|one| written(one, module)));
    named.extend(body_argument.filter(|_| !is_needed));
    named.extend(optional.into_iter().map(|one| written(one, module)));
    if !named.is_empty() {
        signature.push("*".to_owned());
        signature.extend(named);
    }
    let hint = returns.as_ref().map_or(Type::Null, |(hint, _)| hint.clone());
    module.uses(&hint);
    let mut text = module.function(method, &signature, &hint);
    text.push_str(&docstring(&told(operation, &arguments), 8));
    let mut call = vec![quoted(&operation.method), quoted(&decoded(&operation.path))];
    for (place, word) in [
        (Place::Path, "parts"),
        (Place::Query, "query"),
        (Place::Header, "headers"),
        (Place::Cookie, "cookies"),
    ] {
        let sent: Vec<String> = arguments
            .iter()
            .filter(|one| one.of.place == place)
            .map(|one| sent(one, module))
            .collect();
        if !sent.is_empty() {
            call.push(dict(word, &sent));
        }
    }
    if let Some((body, _)) = &body {
        call.push("body=body".to_owned());
        call.push(format!("media={}", quoted(&body.media)));
    }
    match &returns {
        None => {
            text.push_str(&format!("        self._call({})\n", lines(&call, 8)));
        }
        Some((hint, media)) => {
            if let Some(media) = media {
                call.push(format!("accept={}", quoted(media)));
            }
            call.push(format!("returns={}", hint.written(20, 12)));
            let left = format!("        result: {} = self._call(", hint.written(16, 8));
            text.push_str(&format!("{left}{})\n        return result\n", lines(&call, 8)));
        }
    }
    text
}

/// Arguments of a call, one on a line.
fn lines(arguments: &[String], indent: usize) -> String {
    let blanks = " ".repeat(indent);
    let each: String = arguments.iter().map(|one| format!("{blanks}    {one},\n")).collect();
    format!("\n{each}{blanks}")
}

fn dict(word: &str, items: &[String]) -> String {
    let flat = format!("{word}={{{}}}", items.join(", "));
    if flat.len() + 13 <= super::types::WIDTH {
        return flat;
    }
    let each: String = items.iter().map(|item| format!("                {item},\n")).collect();
    format!("{word}={{\n{each}            }}")
}

fn argument(name: &str, hint: &Type, is_required: bool, module: &mut Module) -> String {
    module.uses(hint);
    let taken = 8 + name.len() + 2;
    if is_required {
        return format!("{name}: {}", hint.written(taken, 8));
    }
    let hint = hint.clone().or_null();
    format!("{name}: {} = None", hint.written(taken + 8, 8))
}

/// A parameter as the call sends it.
fn sent(one: &Argument<'_>, module: &mut Module) -> String {
    let (key, name) = (quoted(&one.of.name), &one.name);
    match (one.of.style, one.of.place) {
        (Style::Each, _) => format!("{key}: {name}"),
        // Lists are joined by commas anyhow, and what is no list needs nothing.
        (Style::Joined(_), _) if !may_be_many(&one.hint) => format!("{key}: {name}"),
        (Style::Joined(','), Place::Path | Place::Header)
            if !matches!(one.hint, Type::Dict(_) | Type::Name(_)) =>
        {
            format!("{key}: {name}")
        }
        (Style::Joined(gap), _) => {
            module.import("arint.openapi", "joined");
            let gap =
                if gap == ',' { String::new() } else { format!(", {}", quoted(&gap.to_string())) };
            format!("{key}: joined({name}{gap})")
        }
        (Style::Deep, _) => {
            module.import("arint.openapi", "deep");
            format!("**deep({key}, {name})")
        }
        (Style::Json, _) => {
            module.import("arint.openapi", "as_json");
            format!("{key}: as_json({name})")
        }
    }
}

/// Whether a value may be a list or an object.
fn may_be_many(hint: &Type) -> bool {
    match hint {
        Type::Any | Type::Null | Type::Literal(_) => false,
        Type::Name(name) => name.starts_with(|c: char| c.is_ascii_uppercase()) && name != "UUID",
        Type::List(_) | Type::Dict(_) => true,
        Type::Union(of) => of.iter().any(may_be_many),
    }
}

fn body_hint(body: &Body, schemas: &mut Schemas<'_>, wanted: &str) -> Type {
    let fields = ["application/x-www-form-urlencoded", "multipart/form-data"];
    let is_structured =
        is_json(&body.media) || fields.iter().any(|known| body.media.starts_with(known));
    match (&body.schema, is_structured) {
        (Some(place), true) => schemas.hint(place, &format!("{wanted}Body")),
        (None, true) => Type::Any,
        (_, false) => Type::union([Type::name("bytes"), Type::name("str")]),
    }
}

/// What comes back, and what is asked for by `Accept`; None where nothing does.
fn answer(
    operation: &Operation,
    schemas: &mut Schemas<'_>,
    wanted: &str,
) -> Option<(Type, Option<String>)> {
    if operation.answers.iter().all(Option::is_none) || operation.method == "HEAD" {
        return None;
    }
    // What is read differently cannot be told apart by its type: the first kind counts.
    let first = operation.answers.iter().flatten().next()?;
    let mut hints = Vec::new();
    for (index, answer) in operation.answers.iter().enumerate() {
        let Some(body) = answer else {
            hints.push(Type::Null);
            continue;
        };
        if is_json(&body.media) != is_json(&first.media) {
            continue;
        }
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        hints.push(match &body.schema {
            Some(place) if is_json(&body.media) => {
                schemas.hint(place, &format!("{wanted}Answer{number}"))
            }
            None if is_json(&body.media) => Type::Any,
            _ if body.media.starts_with("text/") => Type::name("str"),
            _ => Type::name("bytes"),
        });
    }
    // A file is read as it is, with nothing beside it.
    let hint = if is_json(&first.media) {
        Type::union(hints)
    } else {
        hints.into_iter().find(|hint| *hint != Type::Null)?
    };
    let media = (!first.media.contains('*')).then(|| first.media.clone());
    Some((hint, media))
}

fn told(operation: &Operation, arguments: &[Argument<'_>]) -> Vec<String> {
    let sentence = |text: &String| {
        let text = text.trim();
        if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
    };
    let mut all: Vec<String> = Vec::new();
    let called = format!("{} {}", operation.method, operation.path);
    all.push(operation.summary.as_ref().map_or_else(|| format!("{called}."), sentence));
    all.extend(
        operation.description.clone().filter(|text| Some(text) != operation.summary.as_ref()),
    );
    for one in arguments {
        if let Some(description) = &one.of.description {
            all.push(format!("`{}`: {}", one.name, description.trim()));
        }
    }
    if operation.is_deprecated {
        all.push("It is deprecated.".to_owned());
    }
    if operation.summary.is_some() {
        all.push(format!("{called}."));
    }
    all
}

/// The path with what is written as `%20` in it as it is: the connection encodes it again.
pub(super) fn decoded(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let braces = |text: &str| text.matches(['{', '}']).count();
    if braces(&decoded) == braces(path) { decoded } else { path.to_owned() }
}
