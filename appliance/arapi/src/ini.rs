//! Ini files, as users' config is written: in the pickup folder, and in an installation that moves over.
//!
//! Sections in brackets, `key = value` (or `key: value`) below them, comments after `#` or `;` at the start of a line and
//! after a blank and `#` behind a value; a value in quotes is taken as it is.  A pure function over bytes.

use std::collections::BTreeMap;

/// Section, then key, then value.
type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Why a text is no ini file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IniError {
    /// Not UTF-8.
    #[error("line {line}: the text is not UTF-8")]
    Encoding {
        /// Counted from 1.
        line: usize,
    },
    /// A bracket without its other half, or nothing between them.
    #[error("line {line}: `{found}` is no section; `[name]` was expected")]
    Section {
        /// Counted from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// Neither section nor key with value.
    #[error("line {line}: `{found}` has no `=`; `key = value` was expected")]
    NoValue {
        /// Counted from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// A key outside of sections.
    #[error("line {line}: key `{key}` stands before the first `[section]`")]
    NoSection {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A key twice in one section.
    #[error("line {line}: key `{key}` is in section `{section}` twice")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// The section.
        section: String,
        /// The key.
        key: String,
    },
}

/// Reads an ini file.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, BTreeMap<String, String>>, IniError> {
    let text = std::str::from_utf8(bytes).map_err(|err| {
        let before = bytes.get(..err.valid_up_to()).unwrap_or_default();
        IniError::Encoding { line: before.iter().filter(|byte| **byte == b'\n').count() + 1 }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sections = Sections::new();
    let mut current: Option<String> = None;
    for (index, written) in text.lines().enumerate() {
        let line = index + 1;
        let content = written.trim();
        let found = || content.chars().take(80).collect::<String>();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = content.strip_prefix('[') {
            let name = rest.split_once(']').filter(|(_, after)| {
                let after = after.trim_start();
                after.is_empty() || after.starts_with(['#', ';'])
            });
            let name = name.map(|(name, _)| name.trim()).filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| IniError::Section { line, found: found() })?;
            sections.entry(name.to_owned()).or_default();
            current = Some(name.to_owned());
            continue;
        }
        let (key, value) = content
            .split_once('=')
            .or_else(|| content.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| IniError::NoValue { line, found: found() })?;
        let Some(section) = &current else {
            return Err(IniError::NoSection { line, key: key.to_owned() });
        };
        let keys = sections.entry(section.clone()).or_default();
        if keys.insert(key.to_owned(), plain(value)).is_some() {
            let (section, key) = (section.clone(), key.to_owned());
            return Err(IniError::Twice { line, section, key });
        }
    }
    Ok(sections)
}

fn plain(value: &str) -> String {
    for quote in ['"', '\''] {
        let inside = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote));
        if let Some((inside, after)) = inside
            && (after.trim().is_empty() || after.trim_start().starts_with('#'))
        {
            return inside.to_owned();
        }
    }
    if value.starts_with('#') {
        return String::new();
    }
    let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
    value.get(..end).unwrap_or(value).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expected);
    }

    #[test]
    fn sections_keys_comments_and_quotes_are_read() {
        let text = "\u{feff}# head\n[crm]\nurl = http://x/#frag # the server\nname: \"a # b\"\n\
                    ; more\n[empty] # nothing yet\n[crm]\n  key='x'\nnone =\n";
        let sections = parse(text.as_bytes()).unwrap();
        let crm = &sections["crm"];
        assert_eq!(crm["url"], "http://x/#frag");
        assert_eq!(crm["name"], "a # b");
        assert_eq!(crm["key"], "x");
        assert_eq!(crm["none"], "");
        assert!(sections["empty"].is_empty());
    }

    #[test]
    fn a_fault_is_named_with_its_line() {
        refused("a = 1\n", "line 1: key `a` stands before the first `[section]`");
        refused("[x]\nfoo\n", "line 2: `foo` has no `=`; `key = value` was expected");
        refused("\n[x\n", "line 2: `[x` is no section; `[name]` was expected");
        refused("[x]\na=1\na=2\n", "line 3: key `a` is in section `x` twice");
        assert_eq!(parse(b"[x]\na=\xff\n"), Err(IniError::Encoding { line: 2 }));
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_it_reads_it_reads_again() {
        let alphabet = b"[]=:#; \n\t\"'ab\xc3\xa4\xff";
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..24 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % alphabet.len();
                bytes.push(alphabet[at]);
            }
            let Ok(sections) = parse(&bytes) else { continue };
            let mut text = String::new();
            for (section, keys) in &sections {
                if section.contains(']') || section.trim() != section {
                    continue;
                }
                text.push_str(&format!("[{section}]\n"));
                for (key, value) in keys {
                    if !key.contains(['#', ';', '[', ':']) && !value.contains(['"', '\'', '#']) {
                        text.push_str(&format!("{key} = {value}\n"));
                    }
                }
            }
            assert!(parse(text.as_bytes()).is_ok(), "{text:?}");
        }
    }
}
