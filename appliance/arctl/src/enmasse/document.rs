//! An export of Zato as a list of entries, whatever they say.
//!
//! An export is a map of sections, and a section a list of items; YAML and JSON are both read as YAML, of which JSON is
//! (all but) a part.  A text in place of an item, and the section `include`, name a further file, relative to the one
//! they stand in.  Files come through the argument: nothing here reads one.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::once;
use crate::yaml::{Whole, YamlError};

/// How deep files may include each other.
const DEEPEST: usize = 16;
/// Fields that say which item it is, the best first.
const NAMES: &[&str] = &["name", "security", "security_name", "role_name", "topic_name", "sub_key"];

/// An item of an export.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The section, for example `channel_plain_http`.
    pub section: String,
    /// The item's name, or what comes nearest to one.
    pub name: String,
    /// Its fields.
    pub fields: Map<String, Value>,
    /// The file it stands in.
    pub file: String,
    /// Where it begins, counted from 1.
    pub line: u64,
}

/// Why a text is no export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// It is neither YAML nor JSON.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Its form is another one.
    #[error("{file} line {line}: {fault}")]
    Form {
        /// The file.
        file: String,
        /// Counted from 1.
        line: u64,
        /// What was expected.
        fault: String,
    },
    /// An included file cannot be read.
    #[error("{file} line {line}: the included file `{path}` cannot be read: {reason}")]
    Include {
        /// The file that includes it.
        file: String,
        /// Counted from 1.
        line: u64,
        /// The included one.
        path: String,
        /// Why not.
        reason: String,
    },
    /// There is nothing in it.
    #[error("there is no item in {files}")]
    Empty {
        /// The files.
        files: String,
    },
}

/// Gives the text of an included file, or says why it cannot.
pub type Include<'a> = dyn FnMut(&Path) -> Result<String, String> + 'a;

/// Reads a file and all that it includes.
pub fn read(file: &str, text: &str, include: &mut Include<'_>) -> Result<Vec<Entry>, ExportError> {
    let mut reader =
        Reader { entries: Vec::new(), seen: BTreeSet::from([file.to_owned()]), include };
    reader.file(file, text, None, 0)?;
    Ok(reader.entries)
}

struct Reader<'a> {
    entries: Vec<Entry>,
    seen: BTreeSet<String>,
    include: &'a mut Include<'a>,
}

impl Reader<'_> {
    /// Reads one file; `section` is what a lone item in it belongs to.
    fn file(
        &mut self,
        file: &str,
        text: &str,
        section: Option<&str>,
        depth: usize,
    ) -> Result<(), ExportError> {
        for Whole { value, lines, line } in once::wholes(file, text)? {
            let at = |path: &str| lines.get(path).copied().unwrap_or(line);
            let fault = |line: u64, fault: &str| ExportError::Form {
                file: file.to_owned(),
                line,
                fault: fault.to_owned(),
            };
            let Value::Object(fields) = value else {
                return Err(fault(line, "an export is a map of sections, each a list of items"));
            };
            if let (Some(section), true) = (section, fields.contains_key("name")) {
                self.entry(section, fields, file, line, 0);
                continue;
            }
            let mut all: Vec<(u64, String, usize, Value)> = Vec::new();
            for (section, items) in fields {
                let items = match items {
                    Value::Null => continue,
                    Value::Array(items) => items,
                    path @ Value::String(_) if section == "include" => vec![path],
                    _ => {
                        let told = format!("section `{section}` is no list of items");
                        return Err(fault(at(&section), &told));
                    }
                };
                let place = |index: usize| {
                    lines.get(&format!("{section}[{index}]")).copied().unwrap_or(at(&section))
                };
                let each = items.into_iter().enumerate();
                all.extend(each.map(|(index, item)| (place(index), section.clone(), index, item)));
            }
            // As a person wrote them: maps forget that.
            all.sort_by_key(|(line, _, _, _)| *line);
            for (line, section, index, item) in all {
                match item {
                    Value::Null => {}
                    Value::Object(fields) if section != "include" => {
                        self.entry(&section, fields, file, line, index);
                    }
                    Value::String(path) => self.include(file, line, &section, &path, depth)?,
                    _ => {
                        let told = "an item with fields, or the name of a file, was expected";
                        return Err(fault(line, told));
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        section: &str,
        fields: Map<String, Value>,
        file: &str,
        line: u64,
        index: usize,
    ) {
        let name = NAMES.iter().find_map(|name| match fields.get(*name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(number @ Value::Number(_)) => Some(number.to_string()),
            _ => None,
        });
        let name = name.unwrap_or_else(|| format!("#{}", index + 1));
        let (section, file) = (section.to_owned(), file.to_owned());
        self.entries.push(Entry { section, name, fields, file, line });
    }

    fn include(
        &mut self,
        file: &str,
        line: u64,
        section: &str,
        path: &str,
        depth: usize,
    ) -> Result<(), ExportError> {
        let plain = path.strip_prefix("file://").unwrap_or(path);
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        let joined = folder.join(plain);
        let name = joined.display().to_string();
        let fault = |reason: String| ExportError::Include {
            file: file.to_owned(),
            line,
            path: name.clone(),
            reason,
        };
        if depth >= DEEPEST {
            return Err(fault(format!("files include each other more than {DEEPEST} deep")));
        }
        if !self.seen.insert(name.clone()) {
            return Err(fault("it was read already; each file may be included once".to_owned()));
        }
        let text = (self.include)(&joined).map_err(fault)?;
        self.file(&name, &text, Some(section), depth + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_all(files: &[(&str, &str)]) -> Result<Vec<Entry>, ExportError> {
        let others: BTreeMap<&str, &str> = files.iter().copied().collect();
        read(files[0].0, files[0].1, &mut |path| {
            let text = others.get(path.to_str().unwrap());
            text.map(|text| (*text).to_owned()).ok_or_else(|| "no such file".to_owned())
        })
    }

    #[track_caller]
    fn found(files: &[(&str, &str)], expected: &[(&str, &str, &str, u64)]) {
        let entries = read_all(files).unwrap();
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (&*entry.section, &*entry.name, &*entry.file, entry.line))
            .collect();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn refused(files: &[(&str, &str)], expected: &str) {
        assert_eq!(read_all(files).unwrap_err().to_string(), expected);
    }

    #[test]
    fn items_are_found_with_section_name_and_line() {
        let yaml = "scheduler:\n\n- name: nightly\n  service: x\nnothing:\ndef_sec:\n  - {name: 7}\n  - type: jwt\n";
        found(
            &[("e.yaml", yaml)],
            &[
                ("scheduler", "nightly", "e.yaml", 3),
                ("def_sec", "7", "e.yaml", 7),
                ("def_sec", "#2", "e.yaml", 8),
            ],
        );
        let json = "{\n  \"def_sec\": [\n    {\"name\": \"a\\/b\", \"is_active\": true}\n  ]\n}";
        found(&[("e.json", json)], &[("def_sec", "a/b", "e.json", 3)]);
        let tabs = json.replace("  ", "\t");
        found(&[("e.json", &tabs)], &[("def_sec", "a/b", "e.json", 3)]);
    }

    #[test]
    fn json_is_read_where_it_is_no_yaml() {
        // YAML knows no halves of a character.
        let json = "{\"def_sec\": [{\"name\": \"\\ud83d\\ude00\"}]}";
        found(&[("e.json", json)], &[("def_sec", "😀", "e.json", 1)]);
        refused(
            &[("e.json", "{\"x\": \"\\ud83d\\ude00\",\n\"a\": [], \"a\": []}")],
            "e.json line 2: duplicate key `a`",
        );
    }

    #[test]
    fn files_are_included_by_section_and_by_item() {
        found(
            &[
                (
                    "d/e.yaml",
                    "include: [more.yaml]\nscheduler:\n- file://jobs/one.json\n- name: b\n",
                ),
                ("d/more.yaml", "def_sec:\n- name: s\ninclude: x/last.yaml\n"),
                ("d/x/last.yaml", "def_sec:\n- name: t\n"),
                ("d/jobs/one.json", "{\"name\": \"a\"}"),
            ],
            &[
                ("def_sec", "s", "d/more.yaml", 2),
                ("def_sec", "t", "d/x/last.yaml", 2),
                ("scheduler", "a", "d/jobs/one.json", 1),
                ("scheduler", "b", "d/e.yaml", 4),
            ],
        );
    }

    #[test]
    fn what_is_no_export_is_refused_with_file_and_line() {
        refused(
            &[("e.yaml", "- a\n")],
            "e.yaml line 1: an export is a map of sections, each a list of items",
        );
        refused(
            &[("e.yaml", "\nscheduler: yes, all\n")],
            "e.yaml line 2: section `scheduler` is no list of items",
        );
        refused(
            &[("e.yaml", "scheduler:\n- 5\n")],
            "e.yaml line 2: an item with fields, or the name of a file, was expected",
        );
        refused(
            &[("e.yaml", "include: [a.yaml]\n")],
            "e.yaml line 1: the included file `a.yaml` cannot be read: no such file",
        );
        refused(
            &[("e.yaml", "include: [a.yaml]\n"), ("a.yaml", "include: [e.yaml]\n")],
            "a.yaml line 1: the included file `e.yaml` cannot be read: it was read already; each file may be included once",
        );
        let told =
            read_all(&[("e.yaml", "email_smtp: []\nemail_smtp: []\n")]).unwrap_err().to_string();
        assert!(told.starts_with("e.yaml line 2: ") && told.contains("duplicate"), "{told}");
    }
}
