//! Layout, headers, documents: what can be seen without building anything.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_top_level_is_exactly_what_the_owner_fixed() {
    let fixed = [
        "Cargo.toml",
        "appliance",
        "image",
        "buildroot-overlay",
        "hw",
        "scripts",
        "tests",
        "docs",
        "Makefile",
        "README.md",
        // What tools need.
        ".ci",
        ".gitignore",
        ".git",
        "Cargo.lock",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "clippy.toml",
    ];
    let strangers: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !fixed.contains(&name.as_str()) && name != "target")
        .collect();
    assert!(strangers.is_empty(), "these do not belong into the top level: {strangers:?}");
}

#[test]
fn every_rust_file_begins_with_what_it_is_for() {
    let without: Vec<PathBuf> = files_with("rs")
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .filter(|path| !read(path).starts_with("//!"))
        .collect();
    assert!(without.is_empty(), "these have no `//!` header: {without:#?}");
}

#[test]
fn every_python_file_begins_with_what_it_is_for() {
    let without: Vec<PathBuf> = files_with("py")
        .into_iter()
        // Services of tests look as users write them.
        .filter(|path| !path.components().any(|part| part.as_os_str() == "services"))
        .filter(|path| {
            let text = read(path);
            let start = text.trim_start();
            !start.is_empty()
                && !["\"\"\"", "r\"\"\"", "# ", "#!", "'''"]
                    .iter()
                    .any(|mark| start.starts_with(mark))
        })
        .collect();
    assert!(without.is_empty(), "these do not begin with a docstring: {without:#?}");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let without: Vec<PathBuf> = files_named("Cargo.toml")
        .into_iter()
        .filter(|path| {
            let text = read(path);
            text.contains("[package]") && !text.contains("[lints]\nworkspace = true")
        })
        .collect();
    assert!(without.is_empty(), "these do not say `[lints] workspace = true`: {without:#?}");
}

#[test]
fn no_file_is_called_after_nothing() {
    let vague = ["utils.rs", "common.rs", "helpers.rs", "misc.rs", "util.rs"];
    let found: Vec<PathBuf> = files_with("rs")
        .into_iter()
        .filter(|path| vague.iter().any(|name| path.ends_with(name)))
        .collect();
    assert!(found.is_empty(), "give these the name of what is in them: {found:#?}");
}

#[test]
fn no_test_is_switched_off() {
    let marks = [
        concat!("#[ig", "nore"),
        concat!("#[should", "_panic"),
        concat!("pytest.mark.", "skip"),
        concat!("pytest.mark.", "xfail"),
    ];
    let mut found = Vec::new();
    for path in files_with("rs").into_iter().chain(files_with("py")) {
        let text = read(&path);
        if marks.iter().any(|mark| text.contains(mark)) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "these switch tests off: {found:#?}");
}

#[test]
fn a_todo_names_a_decision() {
    let word = concat!("TO", "DO");
    let mut found = Vec::new();
    for path in files_with("rs").into_iter().chain(files_with("py")) {
        for (number, line) in read(&path).lines().enumerate() {
            if line.contains(word) && !line.contains("docs/decisions/") {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "these name no decision: {found:#?}");
}

#[test]
fn every_path_named_in_documents_exists() {
    let rooms = [
        "appliance/",
        "image/",
        "buildroot-overlay/",
        "hw/",
        "scripts/",
        "tests/",
        "docs/",
        ".ci/",
    ];
    let mut missing = Vec::new();
    for path in files_with("md") {
        let text = read(&path);
        // Between backticks and between the parentheses of links; code blocks show examples and are left out.
        let mut in_block = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            }
            if in_block {
                continue;
            }
            let coded = line.split('`').skip(1).step_by(2);
            let linked = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for named in coded.chain(linked) {
                let named = named.trim_end_matches(['/', ',', '.']);
                let named = named.split(['#', ':']).next().unwrap_or_default();
                let is_plain = !named.contains(['<', '>', '*', '{', '}', ' ', '…', '$', '=']);
                let relative = path.parent().unwrap_or(Path::new(""));
                let in_room = rooms.iter().any(|room| named.starts_with(room));
                let is_link = !in_room
                    && line.contains(&format!("]({named}"))
                    && named.ends_with(".md")
                    && !named.starts_with("http");
                if in_room && is_plain && !root().join(named).exists_try() {
                    missing.push(format!("{}: {named}", path.display()));
                }
                if is_link && !root().join(relative).join(named).exists_try() {
                    missing.push(format!("{}: {named}", path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "documents name what is not there: {missing:#?}");
}

#[test]
fn change_fragments_are_well_formed() {
    let kinds = ["added", "changed", "fixed", "removed", "breaking"];
    let mut bad = Vec::new();
    for entry in fs::read_dir(root().join("docs/changes")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "README.md" {
            continue;
        }
        let parts: Vec<&str> = name.split('.').collect();
        let fits = matches!(parts.as_slice(), [slug, kind, "md"] if !slug.is_empty() && kinds.contains(kind));
        if !fits || fs::read_to_string(&path).unwrap().trim().is_empty() {
            bad.push(name);
        }
    }
    assert!(
        bad.is_empty(),
        "not `<slug>.<added|changed|fixed|removed|breaking>.md`, or empty: {bad:?}"
    );
}

#[test]
fn decisions_are_numbered_without_gaps_and_say_what_was_rejected() {
    let mut names: Vec<String> = fs::read_dir(root().join("docs/decisions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        let number = format!("{:04}-", index + 1);
        assert!(name.starts_with(&number), "`{name}` should start with `{number}`");
        let text = read(Path::new(&format!("docs/decisions/{name}")));
        for heading in ["## Context", "## Decision", "## Rejected", "## Consequences"] {
            assert!(text.contains(heading), "`{name}` has no `{heading}`");
        }
    }
}

#[test]
fn the_glossary_knows_every_component() {
    let glossary = read(Path::new("docs/glossary.md"));
    let crates: BTreeSet<String> = fs::read_dir(root().join("appliance"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("ar"))
        .collect();
    let unknown: Vec<_> =
        crates.into_iter().filter(|name| !glossary.contains(&format!("`{name}`"))).collect();
    assert!(unknown.is_empty(), "docs/glossary.md does not explain {unknown:?}");
}

trait ExistsTry {
    fn exists_try(&self) -> bool;
}

impl ExistsTry for PathBuf {
    fn exists_try(&self) -> bool {
        self.try_exists().unwrap_or(false)
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn files_with(extension: &str) -> Vec<PathBuf> {
    all_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

fn files_named(name: &str) -> Vec<PathBuf> {
    all_files().into_iter().filter(|path| path.ends_with(name)).collect()
}

/// Every file of the repository, relative to its root; what tools leave behind is passed over.
fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            let path = folder.join(&name);
            let leftovers = [
                "target",
                ".git",
                "__pycache__",
                "node_modules",
                ".pytest_cache",
                ".mypy_cache",
                ".hypothesis",
            ];
            if leftovers.iter().any(|left| *left == name) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
