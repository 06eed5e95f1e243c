//! The module of services behind the channels of a document: each declares its input and output, and answers 501 until
//! it is written.

use super::document::Document;
use super::module::Module;
use super::names::{Names, dashed, pascal, snake};
use super::operation::{Operation, Place, Style, is_json};
use super::schema::{Class, Field, Schemas};
use super::types::{Type, docstring, quoted};

/// A service that is to be.
#[derive(Debug)]
pub(super) struct Service<'a> {
    pub(super) operation: &'a Operation,
    /// The service's name, and the channel's.
    pub(super) name: String,
    /// The channel's path, with names of parameters as the box takes them.
    pub(super) path: String,
    /// Those names, by those of the document.
    pub(super) renamed: Vec<(String, String)>,
}

/// A name for each operation's service, below that of the module.
pub(super) fn names<'a>(module: &str, operations: &'a [Operation]) -> Vec<(&'a Operation, String)> {
    let mut used = Names::default();
    let each = operations.iter().map(|operation| {
        let name = snake(&operation.id);
        // `parcels.list` in module `parcels` says the module's name already.
        let short = name.strip_prefix(&format!("{}_", snake(module)));
        let name = used.take(short.unwrap_or(&name));
        (operation, format!("{module}.{}", dashed(&name)))
    });
    each.collect()
}

/// The text of the module, without its header, and the class of each service.
pub(super) fn module(doc: &Document, services: &[Service<'_>]) -> (String, Vec<String>) {
    let mut schemas = Schemas::of(doc, Names::default());
    let classes: Vec<String> =
        services.iter().map(|one| schemas.names.take(&pascal(&snake(&one.operation.id)))).collect();
    let mut module = Module::default();
    let mut text = String::new();
    for (service, class) in services.iter().zip(&classes) {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&self::class(service, class, &mut schemas, &mut module));
    }
    if !classes.is_empty() {
        module.import("arint", "Service");
        module.import("arint.openapi", "NotWritten");
    }
    (module.written(schemas, &text), classes)
}

fn class(
    service: &Service<'_>,
    class: &str,
    schemas: &mut Schemas<'_>,
    module: &mut Module,
) -> String {
    let operation = service.operation;
    let input = input(service, class, schemas);
    let output = output(operation, class, schemas);
    let mut text =
        format!("class {class}(Service):\n{}\n", docstring(&told(service, input.as_ref()), 4));
    text.push_str(&format!("    name = {}\n", quoted(&service.name)));
    for (word, hint) in [("input", &input), ("output", &output)] {
        if let Some(hint) = hint {
            module.uses(hint);
            text.push_str(&format!("    {word} = {}\n", hint.written(13, 4)));
        }
    }
    text.push_str("\n    def handle(self) -> None:\n        raise NotWritten(self)\n");
    text
}

/// What a service's input is: the body's class, with the parameters of path and query.
fn input(service: &Service<'_>, class: &str, schemas: &mut Schemas<'_>) -> Option<Type> {
    let operation = service.operation;
    let body = operation.body.as_ref();
    let is_read =
        |media: &str| is_json(media) || media.starts_with("application/x-www-form-urlencoded");
    let body = body.filter(|body| is_read(&body.media)).and_then(|body| body.schema.as_ref());
    let body = body.map(|place| schemas.hint(place, &format!("{class}Body")));
    let mut fields = Vec::new();
    let mut used = Names::default();
    for parameter in &operation.parameters {
        if !matches!(parameter.place, Place::Path | Place::Query) || parameter.style == Style::Deep
        {
            continue;
        }
        let renamed = service.renamed.iter().find(|(name, _)| *name == parameter.name);
        let is_in_path = parameter.place == Place::Path;
        let key = renamed.filter(|_| is_in_path).map_or(&parameter.name, |(_, to)| to).clone();
        let hint = match parameter.style {
            Style::Json => Type::name("str"),
            _ => schemas.hint(&parameter.schema, &format!("{class}{}", pascal(&key))),
        };
        // One value of a list comes as it is, and several that are joined come as one.
        let hint = if matches!(hint, Type::List(_)) {
            Type::union([hint, Type::name("str")])
        } else {
            hint
        };
        fields.push(Field {
            name: used.element(&key),
            key,
            hint,
            is_optional: !parameter.is_required,
        });
    }
    let base = match body {
        None | Some(Type::Dict(_)) => None,
        Some(Type::Name(name)) => match schemas.elements(&name) {
            Some(elements) => {
                fields.retain(|field| !elements.contains(&field.key));
                Some(name)
            }
            // What is no object cannot have parameters beside it.
            None => return None,
        },
        Some(Type::List(of)) => {
            let is_class = matches!(&*of, Type::Name(name) if schemas.elements(name).is_some());
            return is_class.then_some(Type::List(of));
        }
        Some(_) => return None,
    };
    if fields.is_empty() {
        return base.map(Type::Name);
    }
    let name = schemas.names.take(&format!("{class}Input"));
    let doc = Some(format!("What service `{}` takes.", service.name));
    schemas.add(Class { name: name.clone(), base, doc, fields });
    Some(Type::Name(name))
}

/// What a service answers, where that is a class or a list of one.
fn output(operation: &Operation, class: &str, schemas: &mut Schemas<'_>) -> Option<Type> {
    let [Some(answer)] = operation.answers.as_slice() else { return None };
    let place = answer.schema.as_ref().filter(|_| is_json(&answer.media))?;
    let hint = schemas.hint(place, &format!("{class}Answer"));
    let one = if let Type::List(of) = &hint { of } else { &hint };
    matches!(one, Type::Name(name) if schemas.elements(name).is_some()).then_some(hint)
}

fn told(service: &Service<'_>, input: Option<&Type>) -> Vec<String> {
    let operation = service.operation;
    let called = format!("{} {}", operation.method, service.path);
    let mut all: Vec<String> = match &operation.summary {
        Some(summary) => vec![
            format!("{}.", summary.trim_end_matches('.')),
            operation.description.clone().unwrap_or_default(),
        ],
        None => vec![format!("{called}."), operation.description.clone().unwrap_or_default()],
    };
    for parameter in &operation.parameters {
        let place = match parameter.place {
            Place::Header => "header",
            Place::Cookie => "cookie",
            _ if parameter.style == Style::Deep => "query",
            _ => continue,
        };
        let description = parameter.description.as_deref().unwrap_or("see `self.request.http`");
        all.push(format!("`{}` ({place}): {description}", parameter.name));
    }
    if input.is_none() && operation.body.is_some() {
        all.push("The body is in `self.request.payload`.".to_owned());
    }
    if operation.is_deprecated {
        all.push("It is deprecated.".to_owned());
    }
    if operation.summary.is_some() {
        all.push(format!("{called}."));
    }
    all
}
