//! User config: the ini files that services read as `self.user_config`.

use arapi::ini::{self, IniError};
use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::document::Entry;
use super::fields::Refused;
use super::plan::{Draft, Made};

/// The section that ini files get here, and in the file of what was not taken.
const SECTION: &str = "user_config";

/// An ini file as an entry.
pub(super) fn entry(file: &str, name: &str, bytes: &[u8]) -> Result<Entry, IniError> {
    let sections = ini::parse(bytes)?;
    let fields = Map::from_iter([
        ("name".to_owned(), json!(name)),
        ("sections".to_owned(), json!(sections)),
    ]);
    let (section, file) = (SECTION.to_owned(), file.to_owned());
    Ok(Entry { section, name: name.to_owned(), fields, file, line: 1 })
}

/// User configs.
pub(super) fn user_configs(draft: &mut Draft<'_>) {
    for (index, entry) in draft.open() {
        if entry.section == SECTION {
            draft.each(index, entry, |_, fields| {
                let sections = fields.raw(&["sections"]).cloned();
                let sections = sections.unwrap_or_else(|| Value::Object(Map::new()));
                if !sections.is_object() {
                    return Err(Refused::fault("field `sections` is no map of sections"));
                }
                Ok(Made::new(Kind::UserConfig, json!({"sections": sections})))
            });
        }
    }
}
