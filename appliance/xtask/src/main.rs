//! Repository chores, called through the Makefile.
//!
//! `xtask notes` joins the fragments in `docs/changes` into release notes on standard output.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// The kinds of fragments in the order in which a reader wants them.
const KINDS: &[(&str, &str)] = &[
    ("breaking", "Breaking"),
    ("added", "Added"),
    ("changed", "Changed"),
    ("fixed", "Fixed"),
    ("removed", "Removed"),
];

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    let done = match chore.as_deref() {
        Some("notes") => notes(),
        _ => Err(io::Error::other("usage: xtask notes")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Nothing can be said where standard error is gone.
            writeln!(io::stderr(), "xtask: {err}").ok();
            ExitCode::FAILURE
        }
    }
}

fn notes() -> io::Result<()> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/changes"));
    let mut fragments = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "README.md" {
            fragments.insert(name, fs::read_to_string(&path)?);
        }
    }
    io::stdout().write_all(joined(env!("CARGO_PKG_VERSION"), &fragments).as_bytes())
}

/// The notes of one release from its fragments, by file name.
fn joined(version: &str, fragments: &BTreeMap<String, String>) -> String {
    let mut text = format!("# ARINT {version}\n");
    for (kind, title) in KINDS {
        let of_kind: Vec<&String> = fragments
            .iter()
            .filter(|(name, _)| name.ends_with(&format!(".{kind}.md")))
            .map(|(_, fragment)| fragment)
            .collect();
        if of_kind.is_empty() {
            continue;
        }
        text.push_str(&format!("\n## {title}\n\n"));
        for fragment in of_kind {
            let mut lines = fragment.trim().lines();
            text.push_str(&format!("* {}\n", lines.next().unwrap_or_default()));
            for line in lines {
                text.push_str(&format!("  {line}\n"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn fragments_are_grouped_by_kind_and_breaking_ones_come_first() {
        let fragments = [
            ("b.added.md", "New thing.\nMore of it.\n"),
            ("a.breaking.md", "Old thing gone.\n"),
            ("c.added.md", "Newer thing.\n"),
        ];
        let fragments = fragments.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        assert_eq!(
            joined("1.0.0", &fragments),
            "# ARINT 1.0.0\n\n## Breaking\n\n* Old thing gone.\n\n## Added\n\n* New thing.\n  More of it.\n* Newer thing.\n"
        );
    }
}
