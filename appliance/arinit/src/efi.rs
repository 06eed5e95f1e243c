//! What the boot loader leaves in EFI variables.

use std::fs;
use std::path::Path;

/// The vendor of the boot loader interface.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// A text the boot loader left; nothing without EFI.
pub(crate) fn text(efivars: &Path, name: &str) -> Option<String> {
    decode(&fs::read(efivars.join(format!("{name}-{VENDOR}"))).ok()?)
}

/// Four bytes of attributes, then UTF-16 with a zero at its end.
fn decode(bytes: &[u8]) -> Option<String> {
    let units = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, b| unit << 8 | u16::from(*b)));
    let text = String::from_utf16(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>()).ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_read_as_the_boot_loader_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend("arint-000012-b.conf\0".encode_utf16().flat_map(u16::to_le_bytes));
        fs::write(dir.path().join(format!("LoaderEntrySelected-{VENDOR}")), bytes).unwrap();
        assert_eq!(text(dir.path(), "LoaderEntrySelected").as_deref(), Some("arint-000012-b.conf"));
        assert_eq!(text(dir.path(), "LoaderDevicePartUUID"), None);
        assert_eq!(decode(&[6, 0, 0]), None);
    }
}
