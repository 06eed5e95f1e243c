//! What the signed kernel command line says: version, root, and where the boot loader cannot say it, slot and mode.

use arboot::{Mode, Slot};

use crate::verity::Verity;

/// The unit systemd starts instead of the default one.
pub(crate) fn unit(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Normal => None,
        Mode::Recovery => Some("--unit=arint-recovery.target"),
        Mode::Install => Some("--unit=arint-install.target"),
    }
}

/// The command line, as far as it concerns the first stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) version: String,
    pub(crate) root: Verity,
    pub(crate) slot: Option<Slot>,
    pub(crate) mode: Option<Mode>,
}

/// A command line that does not say what to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandLineError {
    #[error("the kernel command line has no `{0}`")]
    Missing(&'static str),
    #[error(
        "`arint.root={0}` and `arint.verity={1}` on the kernel command line are not a root hash and `<data blocks>:<salt>`"
    )]
    Root(String, String),
    #[error("`arint.mode={0}` on the kernel command line is none of `recovery` and `install`")]
    Mode(String),
    #[error("`arint.slot={0}` on the kernel command line is none of `a`, `b` and `recovery`")]
    Slot(String),
}

impl CommandLine {
    /// The last of several words of a kind counts, as with the kernel.
    pub(crate) fn parse(line: &str) -> Result<Self, CommandLineError> {
        let word =
            |key: &str| line.split_whitespace().rev().find_map(|word| word.strip_prefix(key));
        let root = word("arint.root=").ok_or(CommandLineError::Missing("arint.root="))?;
        let shape = word("arint.verity=").ok_or(CommandLineError::Missing("arint.verity="))?;
        Ok(Self {
            version: word("arint.version=").unwrap_or("unknown").to_owned(),
            root: Verity::parse(root, shape)
                .ok_or_else(|| CommandLineError::Root(root.to_owned(), shape.to_owned()))?,
            slot: match word("arint.slot=") {
                None => None,
                Some(slot) => {
                    Some(slot.parse().map_err(|_| CommandLineError::Slot(slot.to_owned()))?)
                }
            },
            mode: match word("arint.mode=") {
                None => None,
                Some("recovery") => Some(Mode::Recovery),
                Some("install") => Some(Mode::Install),
                Some(other) => return Err(CommandLineError::Mode(other.to_owned())),
            },
        })
    }
}

/// The mode: what the command line says, else what the entry's name says.
pub(crate) fn mode(line: &CommandLine, entry: Option<&str>, slot: Option<Slot>) -> Mode {
    line.mode.unwrap_or_else(|| match (entry, slot) {
        (Some(entry), _) if entry.contains("install") => Mode::Install,
        (_, Some(Slot::Recovery)) => Mode::Recovery,
        _ => Mode::Normal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_command_line_names_root_version_and_mode() {
        let line = format!(
            "quiet panic=5 arint.version=0.1.0 arint.root={HASH} arint.verity=2048:aabb console=ttyS0"
        );
        let parsed = CommandLine::parse(&line).unwrap();
        assert_eq!((parsed.version.as_str(), parsed.slot, parsed.mode), ("0.1.0", None, None));
        assert_eq!(parsed.root.data_blocks, 2048);
        assert_eq!(parsed.root.root_hex(), HASH);
        let more = CommandLine::parse(&format!("{line} arint.slot=b arint.mode=install")).unwrap();
        assert_eq!((more.slot, more.mode), (Some(Slot::B), Some(Mode::Install)));
    }

    #[test]
    fn a_command_line_that_names_no_root_is_refused() {
        let err = |line: &str| CommandLine::parse(line).unwrap_err().to_string();
        assert_eq!(err("quiet root=/dev/sda1"), "the kernel command line has no `arint.root=`");
        assert_eq!(err("arint.root=12"), "the kernel command line has no `arint.verity=`");
        assert_eq!(
            err("arint.root=12 arint.verity=5"),
            "`arint.root=12` and `arint.verity=5` on the kernel command line are not a root hash and `<data blocks>:<salt>`"
        );
        assert_eq!(
            err(&format!("arint.root={HASH} arint.verity=1:- arint.mode=x")),
            "`arint.mode=x` on the kernel command line is none of `recovery` and `install`"
        );
        assert_eq!(
            err(&format!("arint.root={HASH} arint.verity=1:- arint.slot=x")),
            "`arint.slot=x` on the kernel command line is none of `a`, `b` and `recovery`"
        );
    }

    #[test]
    fn the_entry_decides_the_mode_unless_the_command_line_does() {
        let line = CommandLine::parse(&format!("arint.root={HASH} arint.verity=1:-")).unwrap();
        assert_eq!(mode(&line, Some("arint-000003-b.conf"), Some(Slot::B)), Mode::Normal);
        assert_eq!(
            mode(&line, Some("arint-000000-recovery.conf"), Some(Slot::Recovery)),
            Mode::Recovery
        );
        assert_eq!(mode(&line, Some("arint-install.conf"), None), Mode::Install);
        let forced = CommandLine { mode: Some(Mode::Install), ..line };
        assert_eq!(mode(&forced, Some("arint-000003-b.conf"), Some(Slot::B)), Mode::Install);
    }
}
