//! What becomes of an export: objects, and a word about every entry.
//!
//! [`plan`] is a pure function: it looks at the entries, the environment and what the box has, and at nothing else.
//!
//! **Invariant:** every entry is told of exactly once, as taken, changed, not taken, or not needed.
//! **Invariant:** what is planned keeps the box's rules, and refers to nothing that neither is there nor is planned; a
//! channel whose credentials could not be taken is not taken either, because it would be open to all.

use std::collections::BTreeMap;

use arapi::names::{Kind, ObjectName, is_reserved};
use arapi::objects::Spec;
use serde_json::Value;

use super::document::Entry;
use super::fields::{Env, Fields, Refused};
use super::{channel, grants, later, limits, outgoing, security, user_config};

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is here as it was there.
    Taken,
    /// It is here, and something is otherwise.
    Changed,
    /// It is not here.
    NotTaken,
    /// It was Zato's own, and ARINT has its own.
    NotNeeded,
}

/// What is told of an entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Told {
    /// The section.
    pub section: String,
    /// The name.
    pub name: String,
    /// The file.
    pub file: String,
    /// Where in it, counted from 1.
    pub line: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The objects it went into, as `Kind/name`.
    pub objects: Vec<String>,
    /// What is otherwise than in the export, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// A secret that the export does not have.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// The object, as `Kind/name`.
    pub object: String,
    /// The field.
    pub field: String,
    /// Why it is missing, and what that means, in one sentence.
    pub why: String,
}

/// An object to be made or replaced.
#[derive(Clone, PartialEq)]
pub struct Planned {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: ObjectName,
    /// The spec, secrets included.
    pub spec: Value,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// The specs of what the box has.
pub type Present = BTreeMap<(Kind, String), Value>;

/// What becomes of an export.
#[derive(Debug, Default)]
pub struct Plan {
    /// The objects, each before what refers to it.
    pub objects: Vec<Planned>,
    /// A word about every entry, in their order.
    pub told: Vec<Told>,
    /// Secrets that the export does not have.
    pub missing: Vec<Missing>,
}

/// Makes the plan.
pub fn plan(entries: &[Entry], env: &Env, present: &Present) -> Plan {
    let mut draft = Draft::new(entries, env, present);
    // What others refer to comes first.
    limits::tiers(&mut draft);
    security::securities(&mut draft);
    security::groups(&mut draft);
    grants::grants(&mut draft);
    channel::channels(&mut draft);
    outgoing::outgoing(&mut draft);
    user_config::user_configs(&mut draft);
    later::rest(&mut draft);
    draft.done()
}

/// What an entry was made into.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) kind: Kind,
    pub(super) spec: Value,
    pub(super) missing: Vec<Missing>,
}

impl Made {
    pub(super) fn new(kind: Kind, spec: Value) -> Self {
        Self { kind, spec, missing: Vec::new() }
    }
}

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) env: &'a Env,
    pub(super) present: &'a Present,
    planned: BTreeMap<(Kind, String), usize>,
    objects: Vec<Planned>,
    told: Vec<Option<Told>>,
    missing: Vec<Missing>,
}

impl<'a> Draft<'a> {
    fn new(entries: &'a [Entry], env: &'a Env, present: &'a Present) -> Self {
        Self {
            entries,
            env,
            present,
            planned: BTreeMap::new(),
            objects: Vec::new(),
            told: entries.iter().map(|_| None).collect(),
            missing: Vec::new(),
        }
    }

    /// The entries of which nothing was told yet, with their numbers.
    pub(super) fn open(&self) -> Vec<(usize, &'a Entry)> {
        let all = self.entries.iter().enumerate();
        all.filter(|(index, _)| self.told.get(*index).is_some_and(Option::is_none)).collect()
    }

    /// The fields of an entry.
    pub(super) fn fields(&self, entry: &'a Entry) -> Fields<'a> {
        Fields::new(&entry.fields, self.env)
    }

    /// The spec of an object that is planned.
    pub(super) fn planned_spec(&self, kind: Kind, name: &str) -> Option<&Value> {
        let at = self.objects.iter().find(|one| one.kind == kind && one.name.as_str() == name);
        at.map(|planned| &planned.spec)
    }

    /// The spec of an object that is planned or there.
    pub(super) fn spec_of(&self, kind: Kind, name: &str) -> Option<&Value> {
        let there = || self.present.get(&(kind, name.to_owned()));
        self.planned_spec(kind, name).or_else(there)
    }

    /// Whether an object is planned or there.
    pub(super) fn is_there(&self, kind: Kind, name: &str) -> bool {
        self.spec_of(kind, name).is_some()
    }

    /// Makes one entry's object, or tells why not.
    pub(super) fn each(
        &mut self,
        index: usize,
        entry: &'a Entry,
        make: impl FnOnce(&Self, &mut Fields<'a>) -> Result<Made, Refused>,
    ) {
        let mut fields = self.fields(entry);
        if fields.flag(&["is_internal"]).ok().flatten() == Some(true) {
            self.tell(index, Outcome::NotNeeded, Vec::new(), fields.notes, None);
            return;
        }
        let made = make(self, &mut fields);
        fields.note_the_rest();
        match made {
            Ok(made) => self.put(index, &entry.name, made, fields.notes),
            Err(refused) => self.refuse(index, refused),
        }
    }

    /// Plans an object, unless it breaks a rule.
    fn put(&mut self, index: usize, name: &str, made: Made, notes: Vec<String>) {
        match self.add(Some(index), made.kind, name, made.spec) {
            Ok(object) => {
                self.missing.extend(made.missing);
                let outcome = if notes.is_empty() { Outcome::Taken } else { Outcome::Changed };
                self.tell(index, outcome, vec![object], notes, None);
            }
            Err(refused) => self.refuse(index, refused),
        }
    }

    /// Plans an object and gives it as `Kind/name`.
    pub(super) fn add(
        &mut self,
        index: Option<usize>,
        kind: Kind,
        name: &str,
        spec: Value,
    ) -> Result<String, Refused> {
        let rename = "give it another name in the export, and in the services that use it";
        let object_name =
            ObjectName::parse(name).map_err(|err| Refused::new(err.to_string(), rename))?;
        if is_reserved(name) {
            let why = format!("names like `{name}` are kept for the parts of ARINT");
            return Err(Refused::new(why, rename));
        }
        if let Some(first) = self.planned.get(&(kind, name.to_owned())) {
            let place = self
                .entries
                .get(*first)
                .map(|entry| format!("{} of {} line {}", entry.section, entry.file, entry.line));
            let place = place.unwrap_or_default();
            return Err(Refused::new(
                format!(
                    "two of the kind {kind} cannot have the same name, and this one has {place}"
                ),
                rename,
            ));
        }
        let parsed = Spec::parse(kind, name, self.with_kept_secrets(kind, name, &spec));
        let parsed = parsed.map_err(|err| Refused::fault(err.to_string()))?;
        for (wanted, other) in parsed.references() {
            if !self.is_there(wanted, other.as_str()) {
                return Err(Refused::new(
                    format!(
                        "it needs the {wanted} `{other}`, which was not taken and is not on the box"
                    ),
                    format!("put `{other}` into the export or on the box, and import it again"),
                ));
            }
        }
        self.planned.insert((kind, name.to_owned()), index.unwrap_or(usize::MAX));
        self.objects.push(Planned { kind, name: object_name, spec });
        Ok(format!("{kind}/{name}"))
    }

    /// The spec with the secrets that the box keeps where they are left out, as the box will see it.
    fn with_kept_secrets(&self, kind: Kind, name: &str, spec: &Value) -> Value {
        let mut spec = spec.clone();
        let there = self.present.get(&(kind, name.to_owned())).and_then(Value::as_object);
        if let (Some(there), Some(fields)) = (there, spec.as_object_mut())
            && there.get("type") == fields.get("type")
        {
            for (field, value) in there {
                if value.get("secret").is_some() && !fields.contains_key(field) {
                    fields.insert(field.clone(), value.clone());
                }
            }
        }
        spec
    }

    /// Tells of an entry that it is not taken.
    pub(super) fn refuse(&mut self, index: usize, refused: Refused) {
        self.tell(index, Outcome::NotTaken, Vec::new(), Vec::new(), Some(refused));
    }

    /// Tells of an entry.
    pub(super) fn tell(
        &mut self,
        index: usize,
        outcome: Outcome,
        objects: Vec<String>,
        notes: Vec<String>,
        refused: Option<Refused>,
    ) {
        let (Some(entry), Some(slot)) = (self.entries.get(index), self.told.get_mut(index)) else {
            return;
        };
        let (why, instead) = match refused {
            Some(refused) => (Some(refused.why), Some(refused.instead)),
            None => (None, None),
        };
        *slot = Some(Told {
            section: entry.section.clone(),
            name: entry.name.clone(),
            file: entry.file.clone(),
            line: entry.line,
            outcome,
            objects,
            notes,
            why,
            instead,
        });
    }

    fn done(self) -> Plan {
        let mut objects = self.objects;
        objects.sort_by_key(|planned| planned.kind);
        // `later` has told of everything that was left.
        let told = self.told.into_iter().flatten().collect();
        Plan { objects, told, missing: self.missing }
    }
}
