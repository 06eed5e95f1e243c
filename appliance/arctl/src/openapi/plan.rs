//! What becomes of a document: objects, a module of Python, and a word about every part.
//!
//! **Invariant:** every operation and every security scheme is told of exactly once; what is planned keeps the box's rules.

use arapi::names::{Kind, ObjectName, is_reserved};
use arapi::objects::Spec;
use serde_json::{Map, Value};

use super::document::{Document, Refused, join};
use super::operation::{self, Operation};
use crate::enmasse::{Missing, Outcome, Planned, Present};

/// What is told of a part of a document.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Told {
    /// What it is, for example `GET /pets/{id}`.
    pub what: String,
    /// Where it stands, as a JSON Pointer.
    pub place: String,
    /// On which line, counted from 1.
    pub line: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// What it went into: `Kind/name`, or a class with its method.
    pub into: Vec<String>,
    /// What is otherwise than in the document, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// What becomes of a document.
#[derive(Debug, Default)]
pub struct Plan {
    /// The objects, each before what refers to it.
    pub objects: Vec<Planned>,
    /// The text of the module.
    pub module: String,
    /// A word about every part.
    pub told: Vec<Told>,
    /// Secrets that are to be set.
    pub missing: Vec<Missing>,
    /// What whoever imports should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Tells of a part that was taken, or changed where there are notes.
    pub(super) fn take(
        &mut self,
        doc: &Document,
        what: &str,
        place: &str,
        into: Vec<String>,
        notes: Vec<String>,
    ) {
        let outcome = if notes.is_empty() { Outcome::Taken } else { Outcome::Changed };
        self.told.push(told(doc, what, place, outcome, into, notes, None));
    }

    /// Tells of a part that was not taken.
    pub(super) fn refuse(&mut self, doc: &Document, what: &str, place: &str, refused: Refused) {
        self.told.push(told(
            doc,
            what,
            place,
            Outcome::NotTaken,
            Vec::new(),
            Vec::new(),
            Some(refused),
        ));
    }

    /// Plans an object; the fields go over those that the box has under this name, and what is null goes away.
    pub(super) fn put(
        &mut self,
        present: &Present,
        kind: Kind,
        name: &str,
        fields: Map<String, Value>,
    ) -> Result<String, Refused> {
        let rename = "choose another name with `--name`";
        let object_name =
            ObjectName::parse(name).map_err(|err| Refused::new(err.to_string(), rename))?;
        if is_reserved(name) {
            return Err(Refused::new(
                format!("names like `{name}` are kept for the parts of ARINT"),
                rename,
            ));
        }
        let there = present.get(&(kind, name.to_owned())).and_then(Value::as_object);
        let mut spec = match there {
            Some(there)
                if there.get("type") == fields.get("type") || !fields.contains_key("type") =>
            {
                there.clone()
            }
            Some(there) => {
                let of = there.get("type").and_then(Value::as_str).unwrap_or_default();
                return Err(Refused::new(
                    format!("the box has a {kind} `{name}` of type `{of}`"),
                    rename,
                ));
            }
            None => Map::new(),
        };
        spec.extend(fields);
        spec.retain(|_, value| !value.is_null());
        let spec = Value::Object(spec);
        Spec::parse(kind, name, spec.clone()).map_err(|err| {
            Refused::new(err.to_string(), "change the document, or apply the object by hand")
        })?;
        self.objects.push(Planned { kind, name: object_name, spec });
        Ok(format!("{kind}/{name}"))
    }
}

fn told(
    doc: &Document,
    what: &str,
    place: &str,
    outcome: Outcome,
    into: Vec<String>,
    notes: Vec<String>,
    refused: Option<Refused>,
) -> Told {
    let (why, instead) = match refused {
        Some(refused) => (Some(refused.why), Some(refused.instead)),
        None => (None, None),
    };
    let (what, place) = (what.to_owned(), format!("#{place}"));
    let line = doc.line(place.trim_start_matches('#'));
    Told { what, place, line, outcome, into, notes, why, instead }
}

/// The operations that can be taken; the others, and what stands beside them, are told of.
pub(super) fn operations(doc: &Document, plan: &mut Plan) -> Vec<Operation> {
    let mut taken = Vec::new();
    for found in operation::operations(doc) {
        match found.operation {
            Ok(operation) => taken.push(operation),
            Err(refused) => {
                plan.refuse(
                    doc,
                    &format!("{} {}", found.method, found.path),
                    &found.place,
                    refused,
                );
            }
        }
    }
    for (name, _) in doc.fields("/webhooks") {
        let refused = Refused::new(
            "it is a request that the other side makes to whoever wants it",
            "make a channel and a service for it by hand",
        );
        plan.refuse(doc, &format!("webhook {name}"), &join("/webhooks", name), refused);
    }
    taken
}

/// A name for connection or module that follows from the title.
pub(super) fn name_of(doc: &Document) -> String {
    let title = doc.text("/info/title").unwrap_or("api");
    let name = super::names::dashed(title);
    for noise in ["swagger-", "open-api-", "openapi-"] {
        if let Some(rest) = name.strip_prefix(noise) {
            return rest.to_owned();
        }
    }
    name
}
