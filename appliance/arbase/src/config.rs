//! Config files: TOML, one per component, unknown fields refused with file and line.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a config file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read config `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or not what was expected.
    #[error("config `{}` line {line}: {fault}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected.
        fault: String,
    },
    /// The form is right and a rule is broken.
    #[error("config `{}`: `{field}`: {rule}", path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The rule with the value found.
        rule: String,
    },
}

/// A rule of one field that the types cannot express.
pub type Broken = (&'static str, String);

/// Loads `<dir>/<unit>.toml`.  Where the file is missing every field has its default; where it
/// is there it must be right.
pub fn load<C: DeserializeOwned>(
    dir: &Path,
    unit: &str,
    check: impl FnOnce(&C) -> Result<(), Broken>,
) -> Result<C, ConfigError> {
    let path = dir.join(format!("{unit}.toml"));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    parse(&path, &text, check)
}

/// Parses the text of a config file; `path` is for the message.
pub fn parse<C: DeserializeOwned>(
    path: &Path,
    text: &str,
    check: impl FnOnce(&C) -> Result<(), Broken>,
) -> Result<C, ConfigError> {
    let config: C = toml::from_str(text).map_err(|err| {
        let at = err.span().map_or(0, |span| span.start).min(text.len());
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let fault = err.message().replace('\n', ", ");
        ConfigError::Form { path: path.to_owned(), line, fault }
    })?;
    check(&config).map_err(|(field, rule)| ConfigError::Rule {
        path: path.to_owned(),
        field,
        rule,
    })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the refusal is of interest")]
    struct Sample {
        port: u16,
    }

    #[test]
    fn an_unknown_config_field_is_named_with_file_and_line() {
        let refused = parse::<Sample>(
            Path::new("/etc/arint/x.toml"),
            "# x\nport = 1\nprot = 2\n",
            |_| Ok(()),
        );
        assert_eq!(
            refused.unwrap_err().to_string(),
            "config `/etc/arint/x.toml` line 3: unknown field `prot`, expected `port`"
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_file_and_line() {
        let refused = parse::<Sample>(Path::new("x.toml"), "port = 70000\n", |_| Ok(()));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "config `x.toml` line 1: invalid value: integer `70000`, expected u16"
        );
    }
}
