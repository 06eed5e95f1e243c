//! A document as one outgoing connection with a typed client.
//!
//! The connection's path ends in one parameter that takes the rest of every operation's path, so one connection, with one
//! pool and one set of credentials, serves the whole document.

use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::client::{self, Wanted};
use super::credentials::{self, Scheme, Way, asked, best, schemes};
use super::document::{Document, Refused};
use super::module::sealed;
use super::operation::{Operation, Place};
use super::plan::{Plan, operations};
use super::server::{self, Server};
use crate::enmasse::{Missing, Present};

/// What the person who imports says.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// The connection's name.
    pub name: String,
    /// Scheme, host and perhaps path, instead of those of the document.
    pub host: Option<String>,
    /// The security scheme to present, instead of the one that opens most.
    pub scheme: Option<String>,
    /// A security of the box to present, instead of the document's.
    pub security: Option<String>,
    /// The user, or the client's id.
    pub username: Option<String>,
    /// The password, key, token or client's secret.
    pub secret: Option<String>,
    /// A certificate authority in PEM.
    pub tls_ca_pem: Option<String>,
}

/// Makes the plan; fails where there is no host, or no such scheme.
pub fn outgoing(doc: &Document, said: &Outgoing, present: &Present) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let server = server::of(doc, said.host.as_deref())?;
    let mut operations = operations(doc, &mut plan);
    let security = security(doc, said, &operations, present, &mut plan)?;
    let path_parameter = free(&operations);
    // A path that has a colon or the like is encoded by the box; one that climbs is refused by it.
    operations.retain(|operation| {
        let climbs = operation.path.split('/').any(|part| part == "." || part == "..");
        if climbs {
            let refused =
                Refused::new("its path has `.` or `..` as a part", "mend the path in the document");
            plan.refuse(doc, &operation.what(), &operation.place, refused);
        }
        !climbs
    });
    let object = connection(said, &server, &path_parameter, security.as_ref(), present, &mut plan)?;
    plan.take(doc, &format!("server {}", server.written), "/servers/0", vec![object], server.notes);
    let wanted = Wanted {
        doc,
        operations: &operations,
        connection: &said.name,
        path_parameter: &path_parameter,
    };
    let (text, methods) = client::client(&wanted);
    let class = client::class_name(&said.name);
    for (operation, method) in operations.iter().zip(methods) {
        let mut notes = operation.notes.clone();
        let ways = asked(doc, operation);
        let opens = |way: &std::collections::BTreeSet<String>| match &security {
            Some(Presented { scheme: Some(scheme), .. }) => way.iter().all(|name| name == scheme),
            // What the security opens is known to whoever named it.
            Some(Presented { scheme: None, .. }) => true,
            None => way.is_empty(),
        };
        if !ways.is_empty() && !ways.iter().any(opens) {
            let names: Vec<String> = ways
                .iter()
                .map(|way| {
                    way.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
                })
                .collect();
            notes.push(format!(
                "it asks for {}, which the connection does not present",
                names.join(" or ")
            ));
        }
        plan.take(
            doc,
            &operation.what(),
            &operation.place,
            vec![format!("{class}.{method}")],
            notes,
        );
    }
    plan.told.sort_by_key(|told| (told.line, told.place.clone()));
    let file = doc.file.rsplit('/').next().unwrap_or_default();
    let module_doc = [
        format!("A client for what the outgoing connection `{}` leads to.", said.name),
        format!(
            "Made of `{file}` by `arctl import-openapi --as outgoing --name {}`: change that and import again instead of changing this.",
            said.name
        ),
        format!("In a service: `{class}(self).some_operation(…)`."),
    ];
    plan.module = sealed(&module_doc, &text);
    Ok(plan)
}

/// A name for the connection's path parameter that no query uses.
fn free(operations: &[Operation]) -> String {
    let queries = operations.iter().flat_map(|operation| &operation.parameters);
    let is_free =
        |name: &str| !queries.clone().any(|one| one.place == Place::Query && one.name == name);
    let mut name = "path".to_owned();
    while !is_free(&name) {
        name.push('-');
    }
    name
}

fn connection(
    said: &Outgoing,
    server: &Server,
    path_parameter: &str,
    security: Option<&Presented>,
    present: &Present,
    plan: &mut Plan,
) -> Result<String, String> {
    let there = present.get(&(Kind::Outgoing, said.name.clone()));
    let mut fields = Map::new();
    let mut set = |field: &str, value: Value| drop(fields.insert(field.to_owned(), value));
    set("type", "rest".into());
    set("host", server.host.as_str().into());
    set("url_path", format!("{}/{{{path_parameter}}}", server.base).into());
    set("data_format", "json".into());
    if let Some(pem) = &said.tls_ca_pem {
        set("tls_ca_pem", pem.as_str().into());
    }
    let is_chosen = said.security.is_some() || said.scheme.is_some();
    if let Some(security) = security
        && (is_chosen || there.is_none_or(|there| there.get("security").is_none()))
    {
        set("security", security.security.as_str().into());
    }
    plan.put(present, Kind::Outgoing, &said.name, fields)
        .map_err(|refused| format!("{}; {}", refused.why, refused.instead))
}

/// The security that the connection presents, and the scheme it stands for.
#[derive(Debug)]
struct Presented {
    security: String,
    scheme: Option<String>,
}

fn security(
    doc: &Document,
    said: &Outgoing,
    operations: &[Operation],
    present: &Present,
    plan: &mut Plan,
) -> Result<Option<Presented>, String> {
    let mut known = Vec::new();
    let found = schemes(doc, Way::Out);
    if let Some(wanted) = &said.scheme
        && !found.iter().any(|one| one.name == *wanted && one.scheme.is_ok())
    {
        let names: Vec<&str> =
            found.iter().filter(|one| one.scheme.is_ok()).map(|one| one.name.as_str()).collect();
        return Err(format!(
            "{} has no security scheme `{}` that a connection can present; there are: {}",
            doc.file,
            wanted.escape_debug(),
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        ));
    }
    for credentials::Found { name, place, scheme } in found {
        match scheme {
            Ok(scheme) => known.push(scheme),
            Err(refused) => plan.refuse(doc, &format!("security {name}"), &place, refused),
        }
    }
    let named = said.scheme.as_ref().and_then(|name| known.iter().find(|one| one.name == *name));
    let chosen = match &said.security {
        Some(_) => None,
        None => named.or_else(|| best(doc, operations, &known)),
    };
    let mut presented = said.security.as_ref().map(|security| {
        if !present.contains_key(&(Kind::Security, security.clone())) {
            plan.warnings.push(format!("the box has no Security `{security}` yet"));
        }
        Presented { security: security.clone(), scheme: None }
    });
    for scheme in &known {
        let what = format!("security {}", scheme.name);
        if chosen.is_some_and(|chosen| chosen.name == scheme.name) {
            match one(scheme, said, present, plan) {
                Ok((object, notes)) => {
                    let security = object.trim_start_matches("Security/").to_owned();
                    presented = Some(Presented { security, scheme: Some(scheme.name.clone()) });
                    plan.take(doc, &what, &scheme.place, vec![object], notes);
                }
                Err(refused) => plan.refuse(doc, &what, &scheme.place, refused),
            }
            continue;
        }
        let (why, instead) = match &said.security {
            Some(security) => (
                format!("the connection presents `{security}`"),
                "import again without `--security` if it is to be made".to_owned(),
            ),
            None => (
                "a connection presents one, and this is not the one with which most can be called"
                    .to_owned(),
                format!(
                    "import again with `--scheme {} --name …` for another connection",
                    scheme.name
                ),
            ),
        };
        plan.refuse(doc, &what, &scheme.place, Refused::new(why, instead));
    }
    Ok(presented)
}

/// Plans a scheme's security, with a word about what is to be set.
fn one(
    scheme: &Scheme,
    said: &Outgoing,
    present: &Present,
    plan: &mut Plan,
) -> Result<(String, Vec<String>), Refused> {
    let name = format!("{}.{}", said.name, scheme.name);
    let there = present.get(&(Kind::Security, name.clone()));
    let is_kept = there.is_some_and(|there| there.get("type") == scheme.spec.get("type"));
    let mut fields = scheme.spec.as_object().cloned().unwrap_or_default();
    let mut missing = Vec::new();
    let object = format!("{}/{name}", Kind::Security);
    let mut lacks = |field: &str, why: &str| {
        missing.push(Missing {
            object: object.clone(),
            field: field.to_owned(),
            why: why.to_owned(),
        });
    };
    if let Some(field) = scheme.username {
        match &said.username {
            Some(username) => drop(fields.insert(field.to_owned(), username.as_str().into())),
            None if is_kept => {}
            None => {
                fields.insert(field.to_owned(), said.name.as_str().into());
                lacks(
                    field,
                    &format!(
                        "no document has it, and `{}` stands in for it; `--username` gives it",
                        said.name
                    ),
                );
            }
        }
    }
    match &said.secret {
        Some(secret) => {
            fields.insert(scheme.secret.to_owned(), json!({"value": secret}));
            fields.insert("is_active".to_owned(), true.into());
        }
        None if is_kept => {}
        None => {
            fields.insert(scheme.secret.to_owned(), json!({"generate": "uuid4"}));
            fields.insert("is_active".to_owned(), false.into());
            lacks(
                scheme.secret,
                "no document has it; the security is switched off until it is set, by importing again with `--ask-secret`",
            );
        }
    }
    let made = plan.put(present, Kind::Security, &name, fields)?;
    plan.missing.extend(missing);
    Ok((made, Vec::new()))
}
