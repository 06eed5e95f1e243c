//! What a document says that can be asked: operations with their parameters, bodies and answers.

use serde_json::Value;

use super::document::{Document, Refused, join};

/// The methods of HTTP that a path may have.
const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// The kinds of bodies that are understood, the best first.
const BEST: &[fn(&str) -> bool] = &[
    |media| media == "application/json",
    is_json,
    |media| media == "application/x-www-form-urlencoded",
    |media| media == "multipart/form-data",
    |media| media.starts_with("text/"),
    |media| !media.is_empty(),
];

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

/// How a parameter's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One for each item of a list and each element of an object.
    Each,
    /// With something between.
    Joined(char),
    /// `name[element]`.
    Deep,
    /// As JSON.
    Json,
}

/// A parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) is_required: bool,
    pub(super) style: Style,
    /// Where its schema is.
    pub(super) schema: String,
    pub(super) description: Option<String>,
}

/// A body: its media type, and where its schema is, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) media: String,
    pub(super) schema: Option<String>,
    pub(super) is_required: bool,
}

/// An operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// In capitals.
    pub(super) method: String,
    /// As written, below the server's.
    pub(super) path: String,
    /// Where it stands.
    pub(super) place: String,
    /// `operationId`, or method and path.
    pub(super) id: String,
    pub(super) summary: Option<String>,
    pub(super) description: Option<String>,
    pub(super) is_deprecated: bool,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// What of it is left out, one sentence each.
    pub(super) notes: Vec<String>,
    /// The bodies of its good answers; None is an answer without one.
    pub(super) answers: Vec<Option<Body>>,
}

impl Operation {
    /// What a person calls it: method and path.
    pub(super) fn what(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A place that has something to ask, and what was made of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) place: String,
    pub(super) operation: Result<Operation, Refused>,
}

/// All operations in the order in which they are written.
pub(super) fn operations(doc: &Document) -> Vec<Found> {
    let mut all = Vec::new();
    for (path, _) in doc.fields("/paths").into_iter().filter(|(path, _)| path.starts_with('/')) {
        let written = join("/paths", path);
        let place = match doc.resolve(&written) {
            Ok((place, _)) => place,
            Err(refused) => {
                let method = "*".to_owned();
                all.push(Found {
                    method,
                    path: path.clone(),
                    place: written,
                    operation: Err(refused),
                });
                continue;
            }
        };
        for (method, _) in
            doc.fields(&place).into_iter().filter(|(method, _)| METHODS.contains(&method.as_str()))
        {
            let at = join(&place, method);
            let method = method.to_ascii_uppercase();
            let operation = operation(doc, &method, path, &place, &at);
            all.push(Found { method, path: path.clone(), place: at, operation });
        }
    }
    all
}

fn operation(
    doc: &Document,
    method: &str,
    path: &str,
    around: &str,
    place: &str,
) -> Result<Operation, Refused> {
    for at in [place, around] {
        let own = doc.text(&format!("{at}/servers/0/url"));
        if own.is_some() && own != super::server::written(doc) {
            return Err(Refused::new(
                "it has `servers` of its own",
                "import it from a document of its own, in which they are the servers of all",
            ));
        }
    }
    if method == "TRACE" {
        return Err(Refused::new("services do not use TRACE", "leave it out"));
    }
    let mut parameters: Vec<Parameter> = Vec::new();
    // Those of the operation itself take the place of those of the path.
    for at in [place, around] {
        let list = format!("{at}/parameters");
        let count = doc.value.pointer(&list).and_then(Value::as_array).map_or(0, Vec::len);
        for index in 0..count {
            let Some(parameter) = parameter(doc, &format!("{list}/{index}"))? else { continue };
            let is_same =
                |other: &Parameter| other.name == parameter.name && other.place == parameter.place;
            if !parameters.iter().any(is_same) {
                parameters.push(parameter);
            }
        }
    }
    let in_path = placeholders(path)?;
    for name in &in_path {
        if !parameters.iter().any(|one| one.place == Place::Path && one.name == *name) {
            let (name, place) = (name.clone(), Place::Path);
            let (style, schema) = (Style::Joined(','), String::from("/nothing"));
            parameters.push(Parameter {
                name,
                place,
                is_required: true,
                style,
                schema,
                description: None,
            });
        }
    }
    parameters.retain(|one| one.place != Place::Path || in_path.contains(&one.name));
    // Those of the path in its order, then as written.
    parameters.sort_by_key(|one| {
        (one.place != Place::Path, in_path.iter().position(|name| *name == one.name))
    });
    let text = |field: &str| doc.text(&format!("{place}/{field}")).map(ToOwned::to_owned);
    let id =
        text("operationId").unwrap_or_else(|| format!("{} {path}", method.to_ascii_lowercase()));
    Ok(Operation {
        method: method.to_owned(),
        path: path.to_owned(),
        place: place.to_owned(),
        id,
        summary: text("summary"),
        description: text("description"),
        is_deprecated: doc.value.pointer(&format!("{place}/deprecated"))
            == Some(&Value::Bool(true)),
        parameters,
        notes: callbacks(doc, place),
        body: body(doc, place)?,
        answers: answers(doc, place)?,
    })
}

fn callbacks(doc: &Document, place: &str) -> Vec<String> {
    let all = doc.fields(&format!("{place}/callbacks"));
    let each = all.into_iter().map(|(name, _)| {
        let name = name.escape_debug();
        format!("its callback `{name}`, a request that comes later, is left out: make a channel or a call for it by hand")
    });
    each.collect()
}

/// The names between the braces of a path.
pub(super) fn placeholders(path: &str) -> Result<Vec<String>, Refused> {
    let fault = || {
        Refused::new(
            format!("`{}` has a brace that is no parameter, or one twice", path.escape_debug()),
            "mend the path in the document",
        )
    };
    let mut names = Vec::new();
    for part in path.split('{').skip(1) {
        let (name, rest) = part.split_once('}').ok_or_else(fault)?;
        if name.is_empty() || rest.contains('}') || names.iter().any(|known| known == name) {
            return Err(fault());
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn parameter(doc: &Document, place: &str) -> Result<Option<Parameter>, Refused> {
    let (place, written) = doc.resolve(place)?;
    let text = |field: &str| written.get(field).and_then(Value::as_str);
    let fault = |why: String| Refused::new(why, "mend the parameter in the document");
    let name = text("name").ok_or_else(|| fault(format!("`#{place}` has no `name`")))?;
    let at = match text("in") {
        Some("path") => Place::Path,
        Some("query") => Place::Query,
        Some("header") => Place::Header,
        Some("cookie") => Place::Cookie,
        other => {
            let other = other.unwrap_or_default().escape_debug();
            return Err(fault(format!(
                "parameter `{}` is in `{other}`: path, query, header or cookie was expected",
                name.escape_debug()
            )));
        }
    };
    let is_header_of_http = ["accept", "content-type", "authorization"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known));
    if at == Place::Header && is_header_of_http {
        // The specification has these say nothing; they follow from the body and the security.
        return Ok(None);
    }
    let is_list = |style: &str| {
        format!("parameter `{}` is written in the style `{style}`", name.escape_debug())
    };
    let explode = written.get("explode").and_then(Value::as_bool);
    let style = match (at, text("style")) {
        _ if written.get("content").is_some() => Style::Json,
        (Place::Query | Place::Cookie, None | Some("form")) => {
            if explode == Some(false) {
                Style::Joined(',')
            } else {
                Style::Each
            }
        }
        (Place::Query, Some("spaceDelimited")) if explode != Some(true) => Style::Joined(' '),
        (Place::Query, Some("pipeDelimited")) if explode != Some(true) => Style::Joined('|'),
        (Place::Query, Some("spaceDelimited" | "pipeDelimited")) => Style::Each,
        (Place::Query, Some("deepObject")) => Style::Deep,
        (Place::Path | Place::Header, None | Some("simple")) => Style::Joined(','),
        (_, Some(other)) => {
            return Err(Refused::new(
                is_list(&other.escape_debug().to_string()),
                "call it by `self.out.rest[…]` without a client",
            ));
        }
    };
    let schema =
        match written.get("content").and_then(Value::as_object).and_then(|all| all.keys().next()) {
            Some(media) => format!("{}/schema", join(&format!("{place}/content"), media)),
            None => format!("{place}/schema"),
        };
    Ok(Some(Parameter {
        name: name.to_owned(),
        place: at,
        is_required: at == Place::Path || written.get("required") == Some(&Value::Bool(true)),
        style,
        schema,
        description: text("description").map(ToOwned::to_owned),
    }))
}

/// The best of the bodies at a place.
fn best(doc: &Document, place: &str, is_required: bool) -> Option<Body> {
    let content = format!("{place}/content");
    let medias: Vec<&String> = doc.fields(&content).into_iter().map(|(media, _)| media).collect();
    let bare =
        |media: &str| media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let media = BEST.iter().find_map(|fits| medias.iter().find(|media| fits(&bare(media))))?;
    let schema = format!("{}/schema", join(&content, media));
    let schema = doc.value.pointer(&schema).is_some().then_some(schema);
    Some(Body { media: (*media).clone(), schema, is_required })
}

fn body(doc: &Document, place: &str) -> Result<Option<Body>, Refused> {
    let place = format!("{place}/requestBody");
    if doc.value.pointer(&place).is_none() {
        return Ok(None);
    }
    let (place, written) = doc.resolve(&place)?;
    let is_required = written.get("required") == Some(&Value::Bool(true));
    Ok(best(doc, &place, is_required))
}

fn answers(doc: &Document, place: &str) -> Result<Vec<Option<Body>>, Refused> {
    let all = format!("{place}/responses");
    let mut answers = Vec::new();
    let fields = doc.fields(&all);
    let is_good = |status: &str| status.starts_with('2');
    let has_good = fields.iter().any(|(status, _)| is_good(status));
    for (status, _) in fields {
        // Without any other the default is what comes when all is well.
        if is_good(status) || (!has_good && status == "default") {
            let (place, _) = doc.resolve(&join(&all, status))?;
            let body = best(doc, &place, true);
            if !answers.contains(&body) {
                answers.push(body);
            }
        }
    }
    Ok(answers)
}

/// Whether a media type is JSON.
pub(super) fn is_json(media: &str) -> bool {
    let bare = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    bare == "application/json" || bare.ends_with("+json") || bare == "text/json"
}
