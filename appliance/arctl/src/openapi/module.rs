//! A module of Python: what it imports, the classes of the schemas, and what stands below them; and its file.
//!
//! A file that was written here has the SHA-256 of the rest of it on a line of its own.
//!
//! **Invariant:** a file that somebody has changed, or that is not ours, is written over only where that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::schema::{Class, Schemas};
use super::types::{Type, WIDTH, docstring, quoted};
use crate::failure::Failure;

/// How the line of a file's SHA-256 begins.
const SEAL: &str = "# sha256 ";
/// Names and addresses are as long as they are, so lines may be.
const LINTERS: &str = "# flake8: noqa: E501\n";

/// What a module needs of others.
#[derive(Debug, Default)]
pub(super) struct Module {
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Module {
    /// Imports a name of a module.
    pub(super) fn import(&mut self, module: &str, name: &str) {
        self.imports.entry(module.to_owned()).or_default().insert(name.to_owned());
    }

    /// Imports what a hint needs.
    pub(super) fn uses(&mut self, hint: &Type) {
        let mut names = BTreeSet::new();
        hint.names(&mut names);
        for name in names {
            match name.as_str() {
                "Any" | "Literal" => self.import("typing", &name),
                "UUID" => self.import("uuid", "UUID"),
                name if name.starts_with("datetime.") => {
                    self.imports.entry("datetime".to_owned()).or_default();
                }
                _ => {}
            }
        }
    }

    /// The head of a method.
    pub(super) fn function(&self, name: &str, arguments: &[String], hint: &Type) -> String {
        let flat = format!("    def {name}({}) -> {}:\n", arguments.join(", "), hint.flat());
        if flat.len() <= WIDTH && !flat.trim_end().contains('\n') {
            return flat;
        }
        let each: String = arguments.iter().map(|one| format!("        {one},\n")).collect();
        format!("    def {name}(\n{each}    ) -> {}:\n", hint.written(9, 4))
    }

    /// The whole module but for its docstring.
    pub(super) fn written(mut self, schemas: Schemas<'_>, body: &str) -> String {
        let (classes, aliases) = schemas.done();
        let mut parts = Vec::new();
        for class in &classes {
            parts.push(self.class(class));
        }
        let mut lines = String::new();
        for alias in &aliases {
            self.import("typing", "TypeAlias");
            self.uses(&alias.hint);
            let left = format!("{}: TypeAlias = ", alias.name);
            lines.push_str(&format!("{left}{}\n", alias.hint.written(left.len(), 0)));
        }
        if !lines.is_empty() {
            parts.push(lines);
        }
        if !body.is_empty() {
            parts.push(body.to_owned());
        }
        parts.insert(0, self.head());
        parts.join("\n\n")
    }

    fn class(&mut self, class: &Class) -> String {
        self.import("dataclasses", "dataclass");
        if class.base.is_none() {
            self.import("arint.openapi", "Element");
        }
        let base = class.base.as_deref().unwrap_or("Element");
        let mut text = format!("@dataclass(kw_only=True)\nclass {}({base}):\n", class.name);
        let doc = class.doc.clone().unwrap_or_else(|| format!("`{}` of the document.", class.name));
        text.push_str(&docstring(&[doc], 4));
        text.push('\n');
        for field in &class.fields {
            let hint =
                if field.is_optional { field.hint.clone().or_null() } else { field.hint.clone() };
            self.uses(&hint);
            let is_renamed = field.name != field.key;
            let mut set = Vec::new();
            if field.is_optional {
                set.push("default=None".to_owned());
            }
            if is_renamed {
                set.push(format!("metadata={{'name': {}}}", quoted(&field.key)));
            }
            let value = match (is_renamed, field.is_optional) {
                (false, false) => String::new(),
                (false, true) => " = None".to_owned(),
                (true, _) => {
                    self.import("dataclasses", "field");
                    format!(" = field({})", set.join(", "))
                }
            };
            let left = format!("    {}: ", field.name);
            let taken = left.len() + value.len();
            text.push_str(&format!("{left}{}{value}\n", hint.written(taken, 4)));
        }
        text
    }

    /// The imports: Python's own, then ours.
    fn head(&self) -> String {
        let mut text = String::from("from __future__ import annotations\n");
        let is_ours = |module: &str| module.starts_with("arint");
        for ours in [false, true] {
            let mut lines: Vec<String> = Vec::new();
            for (module, names) in self.imports.iter().filter(|one| is_ours(one.0) == ours) {
                if names.is_empty() {
                    // Whole modules come first.
                    lines.insert(0, format!("import {module}\n"));
                } else {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    lines.push(format!("from {module} import {}\n", names.join(", ")));
                }
            }
            if !lines.is_empty() {
                text.push('\n');
                text.extend(lines);
            }
        }
        text
    }
}

/// A module's file: docstring, seal, text.
pub(super) fn sealed(doc: &[String], text: &str) -> String {
    let before = format!("{}\n", docstring(doc, 0));
    let is_long = before.lines().chain(text.lines()).any(|line| line.chars().count() > WIDTH);
    let after = format!("{}\n{text}", if is_long { LINTERS } else { "" });
    format!("{before}{SEAL}{}\n{after}", digest(&format!("{before}{after}")))
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Whether a file is as it was written here.
fn is_untouched(text: &str) -> bool {
    let Some(line) = text.lines().find(|line| line.starts_with(SEAL)) else { return false };
    let rest = text.replacen(&format!("{line}\n"), "", 1);
    line.strip_prefix(SEAL) == Some(digest(&rest).as_str())
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Written {
    Created,
    Updated,
    Unchanged,
}

/// What writing would do; fails where the file is somebody else's.
pub(super) fn look(path: &Path, text: &str, force: bool) -> Result<Written, Failure> {
    let there = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Written::Created),
        Err(source) => return Err(Failure::Read { path: path.to_owned(), source }),
    };
    if there == text.as_bytes() {
        return Ok(Written::Unchanged);
    }
    let is_ours = String::from_utf8(there).is_ok_and(|there| is_untouched(&there));
    if is_ours || force {
        return Ok(Written::Updated);
    }
    Err(Failure::Usage(format!(
        "`{}` was changed by hand, or was never written by this command, and is left alone; `--output FILE` writes to another file, `--only objects` writes none, `--force` writes over it",
        path.display()
    )))
}

/// Writes a module, whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let fault = |source| Failure::Write { path: path.to_owned(), source };
    let draft = path.with_extension("py.new");
    let mut file = fs::File::create(&draft).map_err(fault)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault)?;
    fs::rename(&draft, path).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_changed_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x_client.py");
        let first = sealed(&["One.".to_owned()], "A = 1\n");
        assert_eq!(look(&path, &first, false).unwrap(), Written::Created);
        write(&path, &first).unwrap();
        assert_eq!(look(&path, &first, false).unwrap(), Written::Unchanged);
        let second = sealed(&["One.".to_owned()], "A = 2\n");
        assert_eq!(look(&path, &second, false).unwrap(), Written::Updated);
        fs::write(&path, first.replace("A = 1", "A = 3")).unwrap();
        assert_eq!(
            look(&path, &second, false).unwrap_err().to_string(),
            format!(
                "`{}` was changed by hand, or was never written by this command, and is left alone; `--output FILE` writes to another file, `--only objects` writes none, `--force` writes over it",
                path.display()
            )
        );
        assert_eq!(look(&path, &second, true).unwrap(), Written::Updated);
        fs::write(&path, "mine").unwrap();
        assert!(look(&path, &second, false).is_err());
    }
}
