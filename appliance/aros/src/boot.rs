//! `arint os boot …`: which slot is started next, as RAUC asks and tells it (its custom boot loader backend).
//!
//! Answers go to the standard output, one word each; the exit code says whether it worked.  The ESP is mounted by a
//! unit, not here.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use arbase::Chain;
use arboot::entries::Folder;
use arboot::{BlackBox, BlackBoxError, Entries, EntriesError, Esp, Event, Mode, Slot, State};
use clap::{Args, Subcommand, ValueEnum};

use crate::updates::started::{self, Started, StartedError};

/// What RAUC takes for "started from none of the slots".
const EXTERNAL: &str = "_external_";

/// Which slot is started next.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// Where the ESP is mounted.
    #[arg(long, value_name = "DIR", default_value = "/efi")]
    esp: PathBuf,
    /// The folder with the partitions by label.
    #[arg(long, value_name = "DIR", default_value = "/dev/disk/by-partlabel")]
    partitions: PathBuf,
    /// What the first stage left.
    #[arg(long, value_name = "FILE", default_value = started::PATH)]
    started: PathBuf,
    #[command(subcommand)]
    command: BootCommand,
}

#[derive(Debug, Subcommand)]
enum BootCommand {
    /// Print the slot that is started next.
    GetPrimary,
    /// Start a slot next, with the kernel image on its boot partition.
    SetPrimary {
        /// The slot.
        slot: Slot,
        /// Who chose it.
        #[arg(long, default_value = "update")]
        by: String,
    },
    /// Print `good` if the boot loader would start the slot, else `bad`.
    GetState {
        /// The slot.
        slot: Slot,
    },
    /// Mark a slot good, which takes its tries away, or bad, which exhausts them.
    SetState {
        /// The slot.
        slot: Slot,
        /// The state.
        state: StateWord,
        /// Why.
        #[arg(long, default_value = "marked bad by RAUC, as at the begin of an update")]
        reason: String,
    },
    /// Print the slot that runs.
    GetCurrent,
    /// Print every entry, the one that is started next first.
    List,
    /// Remove what an update that was cut short left on the ESP.
    Clean,
}

/// RAUC's words for a slot's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateWord {
    Good,
    Bad,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// The entries.
    #[error("the boot entries were not read or changed")]
    Entries(#[from] EntriesError),
    /// The ESP holds none.
    #[error("there are no boot entries below `{}`: mount the ESP there", .0.display())]
    NoEntries(PathBuf),
    /// Neither slot would be started.
    #[error("neither slot a nor slot b would be started next, but {0}")]
    NoPrimary(String),
    /// The recovery system cannot be chosen.
    #[error("the recovery system is never the primary slot: choose `a` or `b`")]
    Recovery,
    /// The slot's kernel image.
    #[error("cannot open the kernel image `{}`", path.display())]
    Image {
        /// The partition.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What runs.
    #[error(transparent)]
    Started(#[from] StartedError),
    /// The answer.
    #[error("cannot write the answer")]
    Answer(#[source] io::Error),
}

/// Runs one command and prints its answer.
pub(crate) fn main(args: &BootArgs) -> Result<(), BootError> {
    let answer = run(args)?;
    io::stdout().write_all(answer.as_bytes()).map_err(BootError::Answer)
}

fn run(args: &BootArgs) -> Result<String, BootError> {
    let entries = Entries::new(Esp::new(&args.esp));
    match &args.command {
        BootCommand::GetPrimary => primary(args, &entries),
        BootCommand::SetPrimary { slot, by } => {
            let label = slot.boot_label().ok_or(BootError::Recovery)?;
            let path = args.partitions.join(label);
            let mut image =
                File::open(&path).map_err(|source| BootError::Image { path, source })?;
            let entry = entries.set_primary(*slot, &mut image)?;
            note(args, Event::Chosen { slot: *slot, version: entry.version, by: by.clone() });
            Ok(String::new())
        }
        BootCommand::GetState { slot } => Ok(match entries.state(*slot)? {
            State::Good => "good\n".to_owned(),
            State::Bad => "bad\n".to_owned(),
        }),
        BootCommand::SetState { slot, state: StateWord::Good, .. } => {
            entries.mark_good(*slot)?;
            Ok(String::new())
        }
        BootCommand::SetState { slot, state: StateWord::Bad, reason } => {
            match entries.mark_bad(*slot) {
                Ok(()) => note(args, Event::MarkedBad { slot: *slot, reason: reason.clone() }),
                // A slot that was never filled is as bad as can be.
                Err(EntriesError::NoEntry(_)) => {}
                Err(err) => return Err(err.into()),
            }
            Ok(String::new())
        }
        BootCommand::GetCurrent => {
            let started = Started::read(&args.started)?;
            Ok(match started {
                Started { slot: slot @ (Slot::A | Slot::B), mode: Mode::Normal, .. } => {
                    format!("{slot}\n")
                }
                _ => format!("{EXTERNAL}\n"),
            })
        }
        BootCommand::List => list(args, &entries),
        BootCommand::Clean => {
            entries.clean()?;
            Ok(String::new())
        }
    }
}

fn primary<F: Folder>(args: &BootArgs, entries: &Entries<F>) -> Result<String, BootError> {
    match entries.primary()? {
        Some(entry) if entry.name.slot != Slot::Recovery => Ok(format!("{}\n", entry.name.slot)),
        Some(entry) => Err(BootError::NoPrimary(format!("`{}`", entry.file))),
        None if entries.list()?.is_empty() => Err(BootError::NoEntries(args.esp.clone())),
        None => Err(BootError::NoPrimary("an exhausted entry".to_owned())),
    }
}

fn list<F: Folder>(args: &BootArgs, entries: &Entries<F>) -> Result<String, BootError> {
    // Before the first stage, or on a developer's machine, nothing runs from a slot.
    let current = Started::read(&args.started).ok().map(|started| started.slot);
    let mut text = String::new();
    for entry in entries.list()? {
        let state = match entry.name.tries {
            _ if !entry.has_image => "no image".to_owned(),
            None => "confirmed".to_owned(),
            Some(tries) if tries.left == 0 => "exhausted".to_owned(),
            Some(tries) => format!("{} tries left", tries.left),
        };
        let running = if current == Some(entry.name.slot) { "  running" } else { "" };
        text += &format!("{:<34} {:<12} {state}{running}\n", entry.file, entry.version);
    }
    Ok(text)
}

/// Keeps an event.  A choice that was made is made, whether or not the black box can be written.
fn note(args: &BootArgs, event: Event) {
    if let Err(err) = append(&args.partitions, event) {
        log::warn!(error:% = Chain(&err); "the black box was not written");
    }
}

fn append(partitions: &Path, event: Event) -> Result<(), BlackBoxError> {
    let partition = partitions.join("blackbox");
    let file =
        File::options().read(true).write(true).open(partition).map_err(BlackBoxError::Read)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    BlackBox::open(file)?.append(
        u64::try_from(now.as_millis()).unwrap_or(0),
        &arboot::boot_id(),
        event,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BootArgs,
    }

    struct Box {
        dir: tempfile::TempDir,
    }

    impl Box {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("partitions")).unwrap();
            fs::create_dir(dir.path().join("esp")).unwrap();
            fs::write(dir.path().join("partitions/blackbox"), vec![0; 1 << 16]).unwrap();
            Self { dir }
        }

        fn image(&self, slot: &str, version: &str) {
            let image = arboot::uki::sample(&format!("arint.version={version}"), 2000);
            fs::write(self.dir.path().join("partitions").join(format!("boot-{slot}")), image)
                .unwrap();
        }

        fn running(&self, text: &str) {
            fs::write(self.dir.path().join("started"), text).unwrap();
        }

        fn boot(&self, words: &[&str]) -> Result<String, String> {
            let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
            let fixed = [
                "boot".into(),
                "--esp".into(),
                path("esp"),
                "--partitions".into(),
                path("partitions"),
            ];
            let more = ["--started".into(), path("started")];
            let all =
                fixed.into_iter().chain(more).chain(words.iter().map(|word| (*word).to_owned()));
            run(&Cli::try_parse_from(all).unwrap().args).map_err(|err| Chain(&err).to_string())
        }

        fn events(&self) -> Vec<Event> {
            let file = File::options()
                .read(true)
                .write(true)
                .open(self.dir.path().join("partitions/blackbox"))
                .unwrap();
            BlackBox::open(file)
                .unwrap()
                .records()
                .unwrap()
                .into_iter()
                .map(|record| record.event)
                .collect()
        }
    }

    #[test]
    fn an_update_as_rauc_does_it_is_tried_confirmed_and_can_be_left() {
        let b = Box::new();
        b.image("a", "0.1.0");
        b.boot(&["set-primary", "a"]).unwrap();
        b.boot(&["set-state", "a", "good"]).unwrap();
        b.running(
            r#"{"slot":"a","entry":"arint-000001-a.conf","version":"0.1.0","mode":"normal"}"#,
        );
        assert_eq!(b.boot(&["get-current"]).unwrap(), "a\n");
        assert_eq!(b.boot(&["get-state", "b"]).unwrap(), "bad\n");
        // RAUC marks the slot bad, writes it, and chooses it.
        b.boot(&["set-state", "b", "bad"]).unwrap();
        b.image("b", "0.2.0");
        b.boot(&["set-primary", "b"]).unwrap();
        assert_eq!(b.boot(&["get-primary"]).unwrap(), "b\n");
        assert_eq!(b.boot(&["get-state", "b"]).unwrap(), "good\n");
        assert_eq!(
            b.boot(&["list"]).unwrap(),
            "arint-000002-b+3.conf              0.2.0        3 tries left\n\
             arint-000001-a.conf                0.1.0        confirmed  running\n"
        );
        b.boot(&["set-state", "b", "bad", "--reason", "admin alice"]).unwrap();
        assert_eq!(b.boot(&["get-primary"]).unwrap(), "a\n");
        assert_eq!(
            b.events(),
            [
                Event::Chosen { slot: Slot::A, version: "0.1.0".into(), by: "update".into() },
                Event::Chosen { slot: Slot::B, version: "0.2.0".into(), by: "update".into() },
                Event::MarkedBad { slot: Slot::B, reason: "admin alice".into() },
            ]
        );
    }

    #[test]
    fn what_cannot_be_answered_fails_with_its_reason() {
        let b = Box::new();
        let esp = b.dir.path().join("esp");
        assert_eq!(
            b.boot(&["get-primary"]).unwrap_err(),
            format!("there are no boot entries below `{}`: mount the ESP there", esp.display())
        );
        assert_eq!(
            b.boot(&["set-primary", "recovery"]).unwrap_err(),
            "the recovery system is never the primary slot: choose `a` or `b`"
        );
        b.image("a", "0.1.0");
        b.boot(&["set-primary", "a"]).unwrap();
        b.boot(&["set-state", "a", "bad"]).unwrap();
        assert_eq!(
            b.boot(&["get-primary"]).unwrap_err(),
            "neither slot a nor slot b would be started next, but an exhausted entry"
        );
        fs::write(b.dir.path().join("partitions/boot-b"), vec![0; 9000]).unwrap();
        assert_eq!(
            b.boot(&["set-primary", "b"]).unwrap_err(),
            "the boot entries were not read or changed: cannot take the kernel image of slot b: this is no unified \
             kernel image: it does not begin with `MZ`"
        );
        assert!(
            b.boot(&["set-primary", "b", "--by", "x"]).is_err()
                && b.boot(&["get-current"]).is_err()
        );
    }

    #[test]
    fn the_recovery_system_is_none_of_the_slots() {
        let b = Box::new();
        b.running(r#"{"slot":"recovery","entry":"arint-000000-recovery.conf","version":"0.1.0","mode":"recovery"}"#);
        assert_eq!(b.boot(&["get-current"]).unwrap(), "_external_\n");
        // Until the recovery partition is filled, its root is slot a's.
        b.running(r#"{"slot":"a","entry":"arint-000000-recovery.conf","version":"0.1.0","mode":"recovery"}"#);
        assert_eq!(b.boot(&["get-current"]).unwrap(), "_external_\n");
    }
}
