//! What a `requirements.txt` may say: names with versions, markers and hashes.
//!
//! Where packages come from is not the file's to say: options, addresses and paths are refused, each with its line.
//! Whether anything fits is pip's to say, see [`super::pip`].

/// A `requirements.txt` that can be handed to pip.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// One requirement a line, as they were given.
    pub(crate) text: String,
    /// The names, as packages are compared by, with their lines.
    pub(crate) names: Vec<(String, u32)>,
    /// Whether hashes are given.
    pub(crate) has_hashes: bool,
}

/// Why a line is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct BadLine {
    /// Which, from 1.
    pub(crate) line: u32,
    /// One sentence.
    pub(crate) reason: String,
}

/// The form in which names of packages are compared (PEP 503).
pub(crate) fn normalized(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Reads a file.
pub(crate) fn parse(text: &str) -> Result<Wanted, BadLine> {
    let mut wanted = Wanted { text: String::new(), names: Vec::new(), has_hashes: false };
    let mut without_hash: Option<(u32, String)> = None;
    for (line, whole) in logical_lines(text) {
        let bad = |reason: String| BadLine { line, reason };
        let (requirement, hashes) = split_hashes(&whole, line)?;
        if requirement.starts_with('-') {
            return Err(bad(format!(
                "`{}` is an option, and only requirements and `--hash` are taken here; indexes are configured as an Outgoing of type `package_index`",
                shown(requirement)
            )));
        }
        let is_address = requirement.contains("://")
            || requirement.contains('@')
            || requirement.contains('/')
            || requirement.split(';').next().unwrap_or_default().trim().ends_with(".whl");
        if is_address || requirement.contains("${") {
            return Err(bad(format!(
                "`{}` says where a package is to come from; a name like `name==1.2` was expected, and the wheel itself by `arctl packages upload`",
                shown(requirement)
            )));
        }
        let name = name_of(requirement).ok_or_else(|| {
            bad(format!(
                "`{}` is not a requirement; something like `name==1.2` was expected",
                shown(requirement)
            ))
        })?;
        if hashes.is_empty() {
            without_hash.get_or_insert((line, requirement.to_owned()));
        } else {
            wanted.has_hashes = true;
        }
        wanted.names.push((normalized(name), line));
        wanted.text.push_str(requirement);
        for hash in hashes {
            wanted.text.push_str(&format!(" --hash={hash}"));
        }
        wanted.text.push('\n');
    }
    if wanted.has_hashes
        && let Some((line, requirement)) = without_hash
    {
        let reason = format!(
            "`{}` has no `--hash` and others have one; give every requirement a hash, or none",
            shown(&requirement)
        );
        return Err(BadLine { line, reason });
    }
    Ok(wanted)
}

/// Lines with their continuations, without comments; each with the number it begins at.
fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut lines: Vec<(u32, String)> = Vec::new();
    let mut open: Option<(u32, String)> = None;
    for (number, line) in (1u32..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = match line.find('#') {
            Some(0) => "",
            Some(at) if line.get(..at).is_some_and(|before| before.ends_with([' ', '\t'])) => {
                line.get(..at).unwrap_or_default()
            }
            _ => line,
        };
        let (line, goes_on) = match line.trim_end().strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        let (begun, mut whole) = open.take().unwrap_or((number, String::new()));
        whole.push(' ');
        whole.push_str(line.trim());
        if goes_on {
            open = Some((begun, whole));
        } else {
            lines.push((begun, whole));
        }
    }
    lines.extend(open);
    lines.retain(|(_, line)| !line.trim().is_empty());
    lines.into_iter().map(|(number, line)| (number, line.trim().to_owned())).collect()
}

fn split_hashes(line: &str, number: u32) -> Result<(&str, Vec<&str>), BadLine> {
    let Some((requirement, rest)) = line.split_once(" --hash") else {
        return Ok((line, Vec::new()));
    };
    let mut hashes = Vec::new();
    for one in rest.split(" --hash") {
        let hash = one.trim().trim_start_matches('=').trim();
        let is_hash = hash
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if !is_hash {
            return Err(BadLine {
                line: number,
                reason: format!(
                    "`--hash={}` is not a hash; `--hash=sha256:` and 64 hexadecimal digits were expected",
                    shown(hash)
                ),
            });
        }
        hashes.push(hash);
    }
    Ok((requirement.trim(), hashes))
}

/// The name that a requirement begins with; None: it begins with none.
fn name_of(requirement: &str) -> Option<&str> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let end = requirement.find(|c| !is_inside(c)).unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at_checked(end)?;
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let follows = rest.trim_start().chars().next();
    let fits = follows.is_none_or(|c| "<>=!~;[(".contains(c));
    (edge(name.chars().next()) && edge(name.chars().last()) && fits && rest.is_ascii())
        .then_some(name)
}

/// A text of a user in a sentence.
fn shown(text: &str) -> String {
    text.chars().take(120).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_versions_markers_and_hashes_are_taken() {
        let hash = "0".repeat(64);
        let text = format!(
            "# what we need\nFoo.Bar_baz == 1.0  --hash=sha256:{hash} \\\n  --hash=sha256:{hash}\n\n\
             qux[extra]>=1,<2; python_version >= '3.11' --hash=sha256:{hash} # why\n"
        );
        let wanted = parse(&text).unwrap();
        assert_eq!(wanted.names, [("foo-bar-baz".to_owned(), 2), ("qux".to_owned(), 5)]);
        assert!(wanted.has_hashes);
        assert_eq!(
            wanted.text,
            format!(
                "Foo.Bar_baz == 1.0 --hash=sha256:{hash} --hash=sha256:{hash}\n\
                 qux[extra]>=1,<2; python_version >= '3.11' --hash=sha256:{hash}\n"
            )
        );
        assert_eq!(parse("# nothing\n\n").unwrap().names, []);
    }

    #[track_caller]
    fn refused(text: &str, line: u32, reason: &str) {
        let reason = reason.to_owned();
        assert_eq!(parse(text), Err(BadLine { line, reason }));
    }

    #[test]
    fn where_packages_come_from_is_not_the_files_to_say() {
        refused(
            "a\n--index-url https://x\n",
            2,
            "`--index-url https://x` is an option, and only requirements and `--hash` are taken here; indexes are \
             configured as an Outgoing of type `package_index`",
        );
        for place in ["git+https://x/y.git", "foo @ https://x/foo.whl", "./foo.whl", "foo-1.whl"] {
            refused(
                place,
                1,
                &format!(
                    "`{place}` says where a package is to come from; a name like `name==1.2` was expected, and the \
                     wheel itself by `arctl packages upload`"
                ),
            );
        }
        let secret = parse("foo==${HOME}").unwrap_err();
        assert!(secret.reason.contains("says where"), "{secret}");
    }

    #[test]
    fn what_is_no_requirement_is_named_with_its_line() {
        refused(
            "a==1\n\nfoo bar\n",
            3,
            "`foo bar` is not a requirement; something like `name==1.2` was expected",
        );
        refused(
            "foo --hash=md5:00",
            1,
            "`--hash=md5:00` is not a hash; `--hash=sha256:` and 64 hexadecimal digits were expected",
        );
        let hash = "a".repeat(64);
        refused(
            &format!("a==1 --hash=sha256:{hash}\nb==2\n"),
            2,
            "`b==2` has no `--hash` and others have one; give every requirement a hash, or none",
        );
        assert!(parse("Ünicode").is_err() && parse("-").is_err() && parse("=1").is_err());
    }
}
