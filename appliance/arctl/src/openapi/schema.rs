//! Schemas as classes, aliases and type hints of Python's.
//!
//! Objects with named properties become classes, everything else a hint; `allOf` is flattened.  References may go in a
//! circle: classes name one another, and a hint that would contain itself is `Any` there.
//!
//! **Invariant:** time and text are in proportion to the document, however its references lead to one another.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::{Document, join, target};
use super::names::{Names, pascal};
use super::types::{Type, quoted};

/// Most elements of all classes together.
const MOST_ELEMENTS: usize = 200_000;
/// How deep schemas may contain each other where they have no name.
const DEEPEST: usize = 64;

/// An element of a class.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) hint: Type,
    pub(super) is_optional: bool,
}

/// A class.
#[derive(Debug, Clone)]
pub(super) struct Class {
    pub(super) name: String,
    /// The class whose elements it has as well.
    pub(super) base: Option<String>,
    pub(super) doc: Option<String>,
    pub(super) fields: Vec<Field>,
}

/// A hint under a name.
#[derive(Debug, Clone)]
pub(super) struct Alias {
    pub(super) name: String,
    pub(super) hint: Type,
}

/// Everything made of a document's schemas.
#[derive(Debug)]
pub(super) struct Schemas<'d> {
    doc: &'d Document,
    pub(super) names: Names,
    /// The names of components, and of what else became a class, by place.
    named: BTreeMap<String, String>,
    hints: BTreeMap<String, Type>,
    under_way: BTreeSet<String>,
    depth: usize,
    classes: Vec<Class>,
    aliases: Vec<Alias>,
    /// Values by which a class is told apart from others, by class and element.
    told_apart: BTreeMap<(String, String), BTreeSet<String>>,
    /// How many elements there may be yet.
    left: Cell<usize>,
}

/// An object's properties by name: where each is, and whether it has to be there.
type Properties = BTreeMap<String, (String, bool)>;

impl<'d> Schemas<'d> {
    /// Makes classes and aliases of all components.
    pub(super) fn of(doc: &'d Document, names: Names) -> Self {
        let mut made = Self {
            doc,
            names,
            named: BTreeMap::new(),
            hints: BTreeMap::new(),
            under_way: BTreeSet::new(),
            depth: 0,
            classes: Vec::new(),
            aliases: Vec::new(),
            told_apart: BTreeMap::new(),
            left: Cell::new(MOST_ELEMENTS),
        };
        let components = "/components/schemas";
        let all = doc.fields(components);
        for (name, _) in &all {
            let class = made.names.take(&pascal(name));
            made.named.insert(join(components, name), class);
        }
        for (name, _) in all {
            let place = join(components, name);
            let called = made.named.get(&place).cloned().unwrap_or_default();
            match made.properties(&place) {
                Some(properties) => made.class(&place, called, properties),
                None => {
                    let hint = made.hint_of(&place, &called);
                    made.aliases.push(Alias { name: called, hint });
                }
            }
        }
        made
    }

    /// The hint for the schema at a place; `wanted` names the class it may need.
    pub(super) fn hint(&mut self, place: &str, wanted: &str) -> Type {
        if let Some(name) = self.named.get(place) {
            return Type::Name(name.clone());
        }
        if let Some(hint) = self.hints.get(place) {
            return hint.clone();
        }
        if self.depth >= DEEPEST || !self.under_way.insert(place.to_owned()) {
            return Type::Any;
        }
        self.depth += 1;
        let hint = self.hint_of(place, wanted);
        self.depth -= 1;
        self.under_way.remove(place);
        self.hints.insert(place.to_owned(), hint.clone());
        hint
    }

    fn hint_of(&mut self, place: &str, wanted: &str) -> Type {
        let doc = self.doc;
        let Some(schema) = doc.value.pointer(place).filter(|schema| schema.is_object()) else {
            return Type::Any;
        };
        if let Some(to) = schema.get("$ref").and_then(Value::as_str) {
            return target(to).map_or(Type::Any, |to| self.hint(&to, wanted));
        }
        let is_nullable = schema.get("nullable") == Some(&Value::Bool(true));
        let hint = self.plain(place, schema, wanted);
        if is_nullable { hint.or_null() } else { hint }
    }

    fn plain(&mut self, place: &str, schema: &'d Value, wanted: &str) -> Type {
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return literal(values, schema);
        }
        if let Some(value) = schema.get("const") {
            return literal(std::slice::from_ref(value), schema);
        }
        if let Some(only) = self.only(place, schema) {
            return self.hint(&only, wanted);
        }
        if let Some(properties) = self.properties(place) {
            let name = self.names.take(&pascal(wanted));
            self.named.insert(place.to_owned(), name.clone());
            self.class(place, name.clone(), properties);
            return Type::Name(name);
        }
        for word in ["oneOf", "anyOf"] {
            if let Some(of) = schema.get(word).and_then(Value::as_array) {
                return self.one_of(place, word, of.len(), wanted);
            }
        }
        if let Some(of) = schema.get("allOf").and_then(Value::as_array) {
            // No objects: the first that says something.
            let each = (0..of.len()).map(|index| format!("{place}/allOf/{index}"));
            let mut hints = each.map(|place| self.hint(&place, wanted));
            return hints.find(|hint| *hint != Type::Any).unwrap_or(Type::Any);
        }
        match schema.get("type") {
            Some(Value::String(word)) => self.of_type(place, schema, word, wanted),
            Some(Value::Array(words)) => {
                let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                let hints: Vec<Type> =
                    words.iter().map(|word| self.of_type(place, schema, word, wanted)).collect();
                Type::union(hints)
            }
            _ if schema.get("items").is_some() => self.of_type(place, schema, "array", wanted),
            _ if schema.get("additionalProperties").is_some() => {
                self.of_type(place, schema, "object", wanted)
            }
            _ => Type::Any,
        }
    }

    /// The one schema that another stands for: `allOf` with one item is how 3.0 decorates a reference.
    fn only(&self, place: &str, schema: &Value) -> Option<String> {
        let [one] = schema.get("allOf")?.as_array()?.as_slice() else { return None };
        (one.get("$ref").is_some() && schema.get("properties").is_none())
            .then(|| format!("{place}/allOf/0"))
    }

    fn of_type(&mut self, place: &str, schema: &Value, word: &str, wanted: &str) -> Type {
        match word {
            "string" => Type::name(match schema.get("format").and_then(Value::as_str) {
                Some("date-time") => "datetime.datetime",
                Some("date") => "datetime.date",
                Some("uuid") => "UUID",
                Some("binary") => "bytes",
                _ => "str",
            }),
            "integer" => Type::name("int"),
            "number" => Type::name("float"),
            "boolean" => Type::name("bool"),
            "null" => Type::Null,
            "array" if schema.get("items").is_some() => {
                Type::list(self.hint(&format!("{place}/items"), &format!("{wanted}Item")))
            }
            "array" => Type::list(Type::Any),
            "object" => match schema.get("additionalProperties") {
                Some(Value::Object(_)) => Type::dict(
                    self.hint(&format!("{place}/additionalProperties"), &format!("{wanted}Value")),
                ),
                _ => Type::dict(Type::Any),
            },
            _ => Type::Any,
        }
    }

    fn one_of(&mut self, place: &str, word: &str, count: usize, wanted: &str) -> Type {
        let places: Vec<String> =
            (0..count).map(|index| format!("{place}/{word}/{index}")).collect();
        let mut hints = Vec::new();
        for (index, place) in places.iter().enumerate() {
            hints.push(self.hint(place, &format!("{wanted}{}", index + 1)));
        }
        let element = self.doc.text(&format!("{place}/discriminator/propertyName"));
        if let Some(element) = element {
            let mapping = self.doc.value.pointer(&format!("{place}/discriminator/mapping"));
            let mapping = mapping.and_then(Value::as_object);
            for (place, hint) in places.iter().zip(&hints) {
                let to = self.doc.text(&format!("{place}/$ref")).unwrap_or_default();
                let (Type::Name(class), Some((_, own))) = (hint, to.rsplit_once('/')) else {
                    continue;
                };
                let is_meant =
                    |value: &Value| value.as_str().is_some_and(|value| value == to || value == own);
                let mapped = mapping.into_iter().flatten().filter(|(_, value)| is_meant(value));
                let mut values: BTreeSet<String> = mapped.map(|(name, _)| name.clone()).collect();
                if values.is_empty() {
                    values.insert(own.to_owned());
                }
                let key = (class.clone(), element.to_owned());
                self.told_apart.entry(key).or_default().extend(values);
            }
        }
        Type::union(hints)
    }

    /// The properties of an object, those of `allOf` included; None where it names none.
    fn properties(&self, place: &str) -> Option<Properties> {
        let schema = self.doc.value.pointer(place)?;
        if self.only(place, schema).is_some()
            || schema.get("$ref").is_some()
            || schema.get("enum").is_some()
        {
            return None;
        }
        let mut properties = Properties::new();
        let mut required = BTreeSet::new();
        self.collect(place, &mut BTreeSet::new(), &mut properties, &mut required);
        for name in required {
            if let Some((_, is_required)) = properties.get_mut(&name) {
                *is_required = true;
            }
        }
        (!properties.is_empty()).then_some(properties)
    }

    fn collect(
        &self,
        place: &str,
        seen: &mut BTreeSet<String>,
        properties: &mut Properties,
        required: &mut BTreeSet<String>,
    ) {
        let Ok((place, schema)) = self.doc.resolve(place) else { return };
        if seen.len() > DEEPEST || !seen.insert(place.clone()) {
            return;
        }
        let all_of = schema.get("allOf").and_then(Value::as_array).map_or(0, Vec::len);
        for index in 0..all_of {
            self.collect(&format!("{place}/allOf/{index}"), seen, properties, required);
        }
        let own = format!("{place}/properties");
        for (name, _) in self.doc.fields(&own) {
            let Some(left) = self.left.get().checked_sub(1) else { return };
            self.left.set(left);
            properties.insert(name.clone(), (join(&own, name), false));
        }
        let names = schema.get("required").and_then(Value::as_array);
        required
            .extend(names.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned));
    }

    fn class(&mut self, place: &str, name: String, properties: Properties) {
        let mut ordered: Vec<(String, (String, bool))> = properties.into_iter().collect();
        ordered.sort_by_key(|(_, (place, _))| self.doc.line(place));
        // Its place in the order is before those that only it needs.
        let at = self.classes.len();
        let doc = self.doc.text(&format!("{place}/description"));
        let doc = doc.or_else(|| self.doc.text(&format!("{place}/title"))).map(ToOwned::to_owned);
        self.classes.push(Class { name: name.clone(), base: None, doc, fields: Vec::new() });
        let mut used = Names::default();
        let mut fields = Vec::new();
        for (key, (place, is_required)) in ordered {
            let hint = self.hint(&place, &format!("{name}{}", pascal(&key)));
            let schema = self.doc.resolve(&place).ok().map(|(_, schema)| schema);
            let is = |word: &str| {
                schema.is_some_and(|schema| schema.get(word) == Some(&Value::Bool(true)))
            };
            // What only one side sends is missing on the way of the other.
            let is_optional = !is_required || is("readOnly") || is("writeOnly");
            fields.push(Field { name: used.element(&key), key, hint, is_optional });
        }
        if let Some(class) = self.classes.get_mut(at) {
            class.fields = fields;
        }
    }

    /// The names of a class's elements; None where the name is that of no class.
    pub(super) fn elements(&self, name: &str) -> Option<Vec<String>> {
        let class = self.classes.iter().find(|class| class.name == name)?;
        Some(class.fields.iter().map(|field| field.key.clone()).collect())
    }

    /// Adds a class of fields that no schema has.
    pub(super) fn add(&mut self, class: Class) {
        self.classes.push(class);
    }

    /// The classes, and the aliases, each behind those it is made of.
    pub(super) fn done(mut self) -> (Vec<Class>, Vec<Alias>) {
        for class in &mut self.classes {
            for field in &mut class.fields {
                // In a class its elements hide what the module has under the same name.
                while self.names.has(&field.name) {
                    field.name.push('_');
                }
                let values = self.told_apart.get(&(class.name.clone(), field.key.clone()));
                if let (Some(values), Type::Name(name)) = (values, &field.hint)
                    && name == "str"
                {
                    field.hint = Type::Literal(values.iter().map(|value| quoted(value)).collect());
                }
            }
        }
        let mut open: BTreeMap<String, Type> =
            self.aliases.iter().map(|alias| (alias.name.clone(), alias.hint.clone())).collect();
        let mut ordered = Vec::new();
        for alias in &self.aliases {
            put(&alias.name, &mut open, &mut Vec::new(), &mut ordered);
        }
        (self.classes, ordered)
    }
}

/// Puts an alias behind those it is made of; what would go in a circle is `Any`.
fn put(
    name: &str,
    open: &mut BTreeMap<String, Type>,
    above: &mut Vec<String>,
    ordered: &mut Vec<Alias>,
) {
    let Some(mut hint) = open.remove(name) else { return };
    above.push(name.to_owned());
    let mut names = BTreeSet::new();
    hint.names(&mut names);
    for other in names {
        if above.contains(&other) || (above.len() >= DEEPEST && open.contains_key(&other)) {
            hint = hint.without(&other);
        } else {
            put(&other, open, above, ordered);
        }
    }
    above.pop();
    ordered.push(Alias { name: name.to_owned(), hint });
}

/// The hint for values that are all there are.
fn literal(values: &[Value], schema: &Value) -> Type {
    let mut words = Vec::new();
    let mut others = Vec::new();
    for value in values {
        match value {
            Value::String(text) => words.push(quoted(text)),
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                words.push(number.to_string())
            }
            Value::Bool(true) => words.push("True".to_owned()),
            Value::Bool(false) => words.push("False".to_owned()),
            Value::Null => others.push(Type::Null),
            Value::Number(_) => others.push(Type::name("float")),
            Value::Array(_) | Value::Object(_) => return Type::Any,
        }
    }
    let mut seen = BTreeSet::new();
    words.retain(|word| seen.insert(word.clone()));
    let is_date =
        matches!(schema.get("format").and_then(Value::as_str), Some("date" | "date-time"));
    let known = if words.is_empty() {
        None
    } else if is_date {
        Some(Type::name("str"))
    } else if words.len() > 100 {
        // A list of countries is better told by the document.
        let texts = words.iter().filter(|word| word.starts_with('\'')).count();
        Some(match texts {
            0 => Type::name("int"),
            texts if texts == words.len() => Type::name("str"),
            _ => Type::Any,
        })
    } else {
        Some(Type::Literal(words))
    };
    Type::union(known.into_iter().chain(others))
}
