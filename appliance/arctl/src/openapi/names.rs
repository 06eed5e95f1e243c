//! Names of a document as names of Python's: classes, methods, parameters and elements that no other has.

use std::collections::BTreeMap;

use crate::python::KEYWORDS;

/// What no name may be beside Python's keywords: what generated modules use and do not define.
const TAKEN: &[&str] = &[
    "match",
    "case",
    "type",
    "self",
    "cls",
    "annotations",
    "bool",
    "bytes",
    "dict",
    "float",
    "int",
    "list",
    "str",
    "super",
    "object",
    "dataclass",
    "field",
    "datetime",
    "Any",
    "Literal",
    "TypeAlias",
    "UUID",
    "Client",
    "ClientError",
    "Element",
    "NotWritten",
    "Service",
    "as_json",
    "deep",
    "joined",
    "body",
    "result",
    "timeout",
];
/// What elements of a Model may not be called, because Models have it.
const OF_MODELS: &[&str] =
    &["after_created", "clone", "from_dict", "from_json", "get", "to_dict", "to_json"];

/// Names in use, each with the number that was tried last to make another one of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(BTreeMap<String, u32>);

impl Names {
    /// A name that nothing has, as near as possible to the one that is wanted.
    pub(super) fn take(&mut self, wanted: &str) -> String {
        let first = if KEYWORDS.contains(&wanted) || TAKEN.contains(&wanted) {
            format!("{wanted}_")
        } else {
            wanted.to_owned()
        };
        let mut name = first.clone();
        let mut count = self.0.get(&name).copied().unwrap_or(1);
        while self.0.contains_key(&name) {
            count += 1;
            let gap = if wanted.ends_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
            name = format!("{wanted}{gap}{count}");
        }
        self.0.insert(first, count);
        self.0.insert(name.clone(), 1);
        name
    }

    /// Whether something has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// An element's name, which stays what it is where Python and Models allow it.
    pub(super) fn element(&mut self, wanted: &str) -> String {
        let is_name = wanted.starts_with(|c: char| c.is_ascii_alphabetic())
            && wanted.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = if is_name { wanted.to_owned() } else { snake(wanted) };
        // A word of Python's own grammar that is no keyword is a good name here.
        if matches!(name.as_str(), "type" | "timeout" | "body" | "result") {
            let is_free = self.0.insert(name.clone(), 1).is_none();
            return if is_free { name } else { self.take(&format!("{name}_")) };
        }
        let hides = OF_MODELS.contains(&name.as_str());
        self.take(&if hides { format!("{name}_") } else { name })
    }
}

/// The words of a name: letters and digits, divided where small letters are followed by large ones.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    let letters: Vec<char> = name.chars().collect();
    for (index, c) in letters.iter().copied().enumerate() {
        let next_is_small = letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
        let begins = !before.is_ascii_alphanumeric()
            || (c.is_ascii_uppercase()
                && (before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && next_is_small)));
        if c.is_ascii_alphanumeric() {
            if begins {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.push(c);
            }
        }
        before = c;
    }
    words
}

/// `listPets` as `list_pets`.
pub(super) fn snake(name: &str) -> String {
    let name = words(name).join("_").to_ascii_lowercase();
    match name.bytes().next() {
        None => "value".to_owned(),
        Some(b'0'..=b'9') => format!("n{name}"),
        Some(_) => name,
    }
}

/// `listPets` as `list-pets`.
pub(super) fn dashed(name: &str) -> String {
    snake(name).replace('_', "-")
}

/// `list_pets` as `ListPets`; large letters stay.
pub(super) fn pascal(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let mut made = String::new();
    for part in parts {
        let mut letters = part.chars();
        made.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        made.push_str(letters.as_str());
    }
    match made.bytes().next() {
        None => "Value".to_owned(),
        Some(b'0'..=b'9') => format!("N{made}"),
        Some(_) => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_names_of_python() {
        for (name, small, large) in [
            ("listPets", "list_pets", "ListPets"),
            ("get-HTTP-data", "get_http_data", "GetHTTPData"),
            ("HTTPError2", "http_error2", "HTTPError2"),
            ("2fast", "n2fast", "N2fast"),
            ("äöü", "value", "Value"),
            ("a.b/c d", "a_b_c_d", "ABCD"),
        ] {
            assert_eq!((snake(name).as_str(), pascal(name).as_str()), (small, large), "{name}");
        }
    }

    #[test]
    fn no_two_have_the_same_name_and_none_is_a_word_of_python() {
        let mut names = Names::default();
        let given: Vec<String> = ["Pet", "Pet", "Pet2", "Pet", "class", "class"]
            .iter()
            .map(|name| names.take(name))
            .collect();
        assert_eq!(given, ["Pet", "Pet2", "Pet2_2", "Pet3", "class_", "class2"]);
        let mut names = Names::default();
        let given: Vec<String> = ["petId", "x-rate", "type", "get", "list"]
            .iter()
            .map(|name| names.element(name))
            .collect();
        assert_eq!(given, ["petId", "x_rate", "type", "get_", "list_"]);
    }
}
