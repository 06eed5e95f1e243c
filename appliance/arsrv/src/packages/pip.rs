//! What pip said, as one sentence.
//!
//! Pip speaks to a person before a terminal; an operator is told the requirement, what is wrong with it and what to do.

use std::collections::BTreeMap;

/// What a sentence needs to know beside pip's own words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    /// Packages that are held at their version, with the module that holds them.
    pub(crate) held: &'a BTreeMap<String, String>,
    /// The group of workers.
    pub(crate) group: &'a str,
    /// The names of the indexes.
    pub(crate) indexes: &'a [String],
}

/// Why pip failed.
pub(crate) fn sentence(stdout: &str, stderr: &str, around: Around<'_>) -> String {
    let errors: Vec<&str> =
        stderr.lines().filter_map(|line| line.strip_prefix("ERROR: ")).collect();
    if errors.iter().any(|error| error.contains("THESE PACKAGES DO NOT MATCH THE HASHES")) {
        return mismatch(stderr);
    }
    if errors.iter().any(|error| error.starts_with("Cannot install ")) {
        // Depending on its version pip writes the causes to the one or the other.
        return contradiction(&format!("{stdout}\n{stderr}"), around);
    }
    for error in &errors {
        if error.starts_with("In --require-hashes mode") {
            return unhashed(stderr);
        }
        if let Some(rest) = error.strip_prefix("Package '") {
            let (name, rest) = rest.split_once('\'').unwrap_or((rest, ""));
            let wants = rest.trim_start_matches(" requires a different Python: ");
            let (has, wants) = wants.split_once(" not in ").unwrap_or((wants, "another"));
            return format!(
                "`{name}` needs Python {}, and workers have {has}",
                wants.trim_matches('\'')
            );
        }
        if let Some(rest) = error.strip_prefix("Invalid requirement: ") {
            let quoted = rest.split('\'').nth(1).unwrap_or(rest);
            return format!(
                "`{quoted}` is not a requirement; something like `name==1.2` was expected"
            );
        }
        if let Some(rest) =
            error.strip_prefix("Could not find a version that satisfies the requirement ")
        {
            return missing(rest, stderr, around);
        }
    }
    // A fault of its own ends with a traceback.
    if let Some(error) = errors.last().filter(|error| **error != "Exception:") {
        return format!("pip says: {error}");
    }
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
    format!("pip failed: {}", last.unwrap_or("it said nothing").trim())
}

/// `foo==9 (from bar) (from versions: 1.0, 2.0)`.
fn missing(rest: &str, stderr: &str, around: Around<'_>) -> String {
    let (what, versions) = rest.split_once(" (from versions: ").unwrap_or((rest, "none"));
    let versions = versions.trim_end_matches(')');
    let (what, needed_by) = match what.split_once(" (from ") {
        // Where it stands in a file of ours says nothing.
        Some((what, by)) if !by.starts_with("-r ") => {
            let by = by.trim_end_matches(')').split(['-', '=', ' ']).next().unwrap_or_default();
            (what, format!(", which `{by}` needs,"))
        }
        Some((what, _)) => (what, String::new()),
        None => (what, String::new()),
    };
    let trouble = stderr.lines().find_map(|line| {
        let line = line.strip_prefix("WARNING: ")?;
        if line.contains("401 Error") || line.contains("403 Error") {
            Some("refuses the credentials")
        } else if line.contains("CERTIFICATE_VERIFY_FAILED") {
            Some("has a certificate that is not trusted")
        } else if line.starts_with("Retrying") {
            Some("cannot be reached")
        } else {
            None
        }
    });
    let indexes: Vec<String> = around.indexes.iter().map(|name| format!("`{name}`")).collect();
    let indexes = indexes.join(", ");
    let place = if indexes.is_empty() {
        "among the uploaded wheels, and no index is configured".to_owned()
    } else {
        format!("among the uploaded wheels or in the index {indexes}")
    };
    match (versions, trouble) {
        ("none", Some(trouble)) => format!(
            "`{what}`{needed_by} is not among the uploaded wheels, and the index {indexes} {trouble}"
        ),
        ("none", None) => format!(
            "there is no wheel of `{what}`{needed_by} for this box {place}; upload one with `arctl packages upload`"
        ),
        (versions, _) => {
            format!("no version fits `{what}`{needed_by} {place}: there are {versions}")
        }
    }
}

fn contradiction(said: &str, around: Around<'_>) -> String {
    let causes: Vec<&str> = said
        .lines()
        .skip_while(|line| !line.starts_with("The conflict is caused by"))
        .skip(1)
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let mut told = Vec::new();
    for cause in &causes {
        if let Some(held) = cause.strip_prefix("The user requested (constraint) ") {
            let name = held.split("==").next().unwrap_or(held);
            let module = around.held.get(&super::requirements::normalized(name));
            told.push(match module {
                Some(module) => format!(
                    "`{held}` is held by module `{module}` in group `{}` (another group: `arctl deploy --group`)",
                    around.group
                ),
                None => format!("`{held}` is held"),
            });
        } else if let Some(wanted) = cause.strip_prefix("The user requested ") {
            told.push(format!("`{wanted}` is required"));
        } else if let Some((by, on)) = cause.split_once(" depends on ") {
            told.push(format!("`{by}` needs `{on}`"));
        }
    }
    if told.is_empty() {
        return "the requirements contradict each other".to_owned();
    }
    format!("the requirements contradict each other: {}", told.join(", "))
}

fn mismatch(stderr: &str) -> String {
    let mut what = "a package";
    let (mut expected, mut got) = (Vec::new(), "another");
    for line in stderr.lines().skip_while(|line| !line.contains("DO NOT MATCH")).skip(1) {
        let line = line.trim();
        if let Some((name, _)) = line.split_once(" from ") {
            what = name;
        } else if let Some(hash) = line.strip_prefix("Expected sha256 ") {
            expected.push(hash.trim());
        } else if let Some(hash) = line.strip_prefix("Expected     or ") {
            expected.push(hash.trim());
        } else if let Some(hash) = line.strip_prefix("Got ") {
            got = hash.trim();
            break;
        }
    }
    format!(
        "the wheel of `{what}` has SHA-256 {got}, and the requirements want {}",
        expected.join(" or ")
    )
}

fn unhashed(stderr: &str) -> String {
    let mut lines = stderr.lines().skip_while(|line| !line.contains("In --require-hashes mode"));
    let is_about_versions = lines.next().is_some_and(|line| line.contains("pinned with =="));
    let entry = lines.map(str::trim).find(|line| !line.is_empty()).unwrap_or("a package");
    if is_about_versions {
        let what = entry.split(" from ").next().unwrap_or(entry);
        return format!(
            "`{what}` has no exact version and hash, and other requirements have hashes; add `name==version --hash=sha256:…` for it"
        );
    }
    format!("`{entry}` has to stand in the requirements too, because others have hashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &str, indexes: &[&str], expected: &str) {
        let indexes: Vec<String> = indexes.iter().map(|name| (*name).to_owned()).collect();
        let held = BTreeMap::from([("bar".to_owned(), "billing".to_owned())]);
        let around = Around { held: &held, group: "default", indexes: &indexes };
        assert_eq!(sentence("", said, around), expected);
        // Pip writes the causes of a conflict to its other stream.
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("ERROR: ")).collect();
        if said.contains("caused by") {
            assert_eq!(sentence(said, &errors.join("\n"), around), expected);
        }
    }

    #[test]
    fn what_is_missing_is_named_with_who_needs_it() {
        check(
            "ERROR: Could not find a version that satisfies the requirement foo==9 (from versions: 1.0, 2.0)\n\
             ERROR: No matching distribution found for foo==9",
            &[],
            "no version fits `foo==9` among the uploaded wheels, and no index is configured: there are 1.0, 2.0",
        );
        check(
            "ERROR: Could not find a version that satisfies the requirement absent>=3 (from needy) (from versions: none)",
            &["main"],
            "there is no wheel of `absent>=3`, which `needy` needs, for this box among the uploaded wheels or in the \
             index `main`; upload one with `arctl packages upload`",
        );
        check(
            "ERROR: Package 'fresh' requires a different Python: 3.11.2 not in '>=3.99'",
            &[],
            "`fresh` needs Python >=3.99, and workers have 3.11.2",
        );
        check(
            "ERROR: Invalid requirement: 'foo==bogus version': Expected semicolon\n",
            &[],
            "`foo==bogus version` is not a requirement; something like `name==1.2` was expected",
        );
    }

    #[test]
    fn an_index_in_trouble_is_named_without_its_credentials() {
        let missing = "ERROR: Could not find a version that satisfies the requirement foo==1 (from versions: none)";
        let unreachable =
            format!("WARNING: Retrying (Retry(total=0)) after connection broken by X\n{missing}");
        check(
            &unreachable,
            &["main"],
            "`foo==1` is not among the uploaded wheels, and the index `main` cannot be reached",
        );
        let refused =
            format!("WARNING: 401 Error, Credentials not correct for http://x\n{missing}");
        check(
            &refused,
            &["main"],
            "`foo==1` is not among the uploaded wheels, and the index `main` refuses the credentials",
        );
    }

    #[test]
    fn contradictions_say_who_wants_what() {
        check(
            "ERROR: Cannot install -r r.txt (line 1) and bar==2.0 because these package versions have conflicting \
             dependencies.\n\nThe conflict is caused by:\n    The user requested bar==2.0\n    foo 1.0 depends on bar<2\n\n",
            &[],
            "the requirements contradict each other: `bar==2.0` is required, `foo 1.0` needs `bar<2`",
        );
        check(
            "ERROR: Cannot install -r r.txt (line 1)\n\nThe conflict is caused by:\n    foo 2.0 depends on bar>=2\n    \
             The user requested (constraint) bar==1.0\n\n",
            &[],
            "the requirements contradict each other: `foo 2.0` needs `bar>=2`, `bar==1.0` is held by module `billing` \
             in group `default` (another group: `arctl deploy --group`)",
        );
    }

    #[test]
    fn hashes_that_do_not_match_or_are_missing_are_told() {
        check(
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If\n    foo==1.0 from \
             file:///w/foo-1.0-py3-none-any.whl (from -r r.txt (line 1)):\n        Expected sha256 00\n             Got    \
                 7c\n",
            &[],
            "the wheel of `foo==1.0` has SHA-256 7c, and the requirements want 00",
        );
        check(
            "ERROR: In --require-hashes mode, all requirements must have their versions pinned with ==. These do not:\n    \
             bar<2 from file:///w/bar-1.0-py3-none-any.whl (from foo==1.0->-r r.txt (line 1))",
            &[],
            "`bar<2` has no exact version and hash, and other requirements have hashes; add `name==version \
             --hash=sha256:…` for it",
        );
        check("ERROR: Something new\n", &[], "pip says: Something new");
        check("", &[], "pip failed: it said nothing");
    }
}
