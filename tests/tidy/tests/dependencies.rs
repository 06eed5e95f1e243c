//! Who may depend on whom.  Adding an edge means editing the lists here in the same change, which is where
//! review looks.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// The internal edges there may be, tests apart.  A service never depends on another service's crate.
const EDGES: &[(&str, &[&str])] = &[
    ("arapi", &[]),
    ("arbase", &["arapi"]),
    ("arstore", &[]),
    ("artest", &[]),
    ("arproxy", &["arapi"]),
    ("arclst", &["arapi", "arbase", "arstore"]),
    ("arkvd", &["arapi", "arbase", "arstore"]),
    ("arldb", &["arapi", "arbase", "arproxy"]),
    ("arboot", &[]),
    ("arinit", &["arboot"]),
    ("aros", &["arapi", "arbase", "arboot", "arstore"]),
    ("arsrv", &["arapi", "arbase", "arstore"]),
    ("arwadm", &["arapi", "arbase", "arstore"]),
    ("arctl", &["arapi"]),
    ("arint", &["arapi", "arbase", "arclst", "arctl", "arkvd", "arldb", "aros", "arsrv", "arwadm"]),
    ("xtask", &[]),
    ("tidy", &[]),
    ("services", &[]),
    ("bench", &["artest"]),
    ("fuzz", &[]),
];

/// What tests may use on top.
const TEST_EDGES: &[(&str, &[&str])] = &[
    ("services", &["arapi"]),
    ("fuzz", &["arapi", "arctl", "arkvd", "arproxy", "arsrv", "arwadm"]),
];

/// Engines that stay in one crate each.
const ENGINES: &[(&str, &[&str])] = &[
    ("rusqlite", &["arstore"]),
    ("reqwest", &["arsrv", "arctl", "artest", "bench", "services"]),
    ("landlock", &["arsrv"]),
    ("seccompiler", &["arsrv"]),
    ("cap-std", &["arsrv"]),
    ("caps", &["arsrv"]),
    ("jsonschema", &["arsrv"]),
    ("mlua", &["arkvd"]),
    ("argon2", &["arwadm"]),
    ("rcgen", &["arldb", "arwadm"]),
    ("notify", &["arctl", "arwadm"]),
    ("systemd-journal-logger", &["arbase"]),
    ("zbus", &["aros"]),
];

#[test]
fn the_crates_depend_on_each_other_only_as_drawn() {
    let allowed: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let in_tests: BTreeMap<_, _> = TEST_EDGES.iter().copied().collect();
    let packages = members();
    let names: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package.name.as_str();
        let Some(edges) = allowed.get(name) else {
            wrong.push(format!("`{name}` is not drawn at all"));
            continue;
        };
        for dependency in
            package.dependencies.iter().filter(|dependency| names.contains(&dependency.name))
        {
            let target = dependency.name.as_str();
            let fits = match dependency.kind {
                DependencyKind::Development => {
                    target == "artest"
                        || edges.contains(&target)
                        || in_tests.get(name).is_some_and(|more| more.contains(&target))
                }
                _ => edges.contains(&target),
            };
            if !fits {
                wrong.push(format!("`{name}` may not depend on `{target}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn engines_stay_in_their_crates() {
    let engines: BTreeMap<_, _> = ENGINES.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in members() {
        for dependency in &package.dependencies {
            if let Some(homes) = engines.get(dependency.name.as_str())
                && !homes.contains(&package.name.as_str())
                && dependency.kind != DependencyKind::Development
            {
                wrong.push(format!(
                    "`{}` belongs into {homes:?}, not into `{}`",
                    dependency.name, package.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_version_number_lives_in_one_place() {
    let versions: BTreeSet<String> =
        members().iter().map(|package| package.version.to_string()).collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
}

#[expect(clippy::panic, reason = "a test that cannot read the workspace has to end")]
fn members() -> Vec<Package> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .unwrap_or_else(|err| panic!("`cargo metadata` fails in the workspace: {err}"));
    metadata.packages
}
