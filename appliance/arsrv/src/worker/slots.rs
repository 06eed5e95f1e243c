//! The slots file: which calls a worker has begun, still readable when it is dead.
//!
//! The core makes the file, the worker writes it by way of a shared mapping, and the core reads it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

/// Calls a worker can have begun at one time.
const SLOTS: usize = 1024;
const SIZE: usize = 8 * (1 + SLOTS);

/// The file of one worker; removed with this.
#[derive(Debug)]
pub(crate) struct SlotsFile {
    path: PathBuf,
    file: File,
}

/// What the file said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    /// The call that most recently took up running; 0: none.
    pub(crate) current: u64,
    /// The calls begun and not yet answered.
    pub(crate) begun: HashSet<u64>,
}

impl SlotsFile {
    /// Makes an empty one, for a worker of this user.
    pub(crate) fn create(path: &Path, uid: Option<u32>) -> std::io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len(u64::try_from(SIZE).unwrap_or(u64::MAX))?;
        if let Some(uid) = uid {
            chown(path, Some(uid), Some(uid))?;
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Reads it as it is now.  A file cut short by the worker counts as far as it goes.
    pub(crate) fn read(&self) -> std::io::Result<Slots> {
        let mut bytes = vec![0; SIZE];
        let mut have = 0;
        while let Some(rest) = bytes.get_mut(have..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, u64::try_from(have).unwrap_or(u64::MAX))? {
                0 => break,
                got => have += got,
            }
        }
        Ok(parse(&bytes))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SlotsFile {
    fn drop(&mut self) {
        // One that stays is replaced when the name is used again.
        std::fs::remove_file(&self.path).ok();
    }
}

/// Reads the file's bytes, whatever they are.
fn parse(bytes: &[u8]) -> Slots {
    let mut numbers = bytes
        .chunks_exact(8)
        .map(|eight| u64::from_le_bytes(eight.first_chunk().copied().unwrap_or_default()));
    let current = numbers.next().unwrap_or(0);
    Slots { current, begun: numbers.take(SLOTS).filter(|id| *id != 0).collect() }
}

impl Slots {
    /// Which of the unanswered calls is held responsible for the worker's end.
    ///
    /// The one that ran last if it had not been answered; otherwise the only one begun.  Of several that had begun it
    /// cannot be known, and none is.
    pub(crate) fn culprit(&self, unanswered: impl Iterator<Item = u64>) -> Option<u64> {
        let mut begun = unanswered.filter(|id| self.begun.contains(id));
        let first = begun.next()?;
        let mut others = begun.peekable();
        if others.peek().is_none() || first == self.current {
            return Some(first);
        }
        others.find(|id| *id == self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(current: u64, begun: &[u64]) -> Slots {
        Slots { current, begun: begun.iter().copied().collect() }
    }

    #[test]
    fn the_call_that_ran_last_is_held_responsible() {
        assert_eq!(slots(2, &[1, 2, 3]).culprit([1, 2, 3, 4].into_iter()), Some(2));
        assert_eq!(slots(1, &[1, 2]).culprit([1, 2].into_iter()), Some(1));
    }

    #[test]
    fn an_answered_call_is_not_held_responsible_and_the_only_one_left_is() {
        // 9 was answered: its RESULT came, its slot was not cleared any more.
        assert_eq!(slots(9, &[9, 4]).culprit([4, 5].into_iter()), Some(4));
        assert_eq!(slots(9, &[9, 4, 5]).culprit([4, 5].into_iter()), None);
    }

    #[test]
    fn calls_never_begun_are_not_held_responsible() {
        assert_eq!(slots(0, &[]).culprit([1, 2].into_iter()), None);
        assert_eq!(slots(7, &[]).culprit([7].into_iter()), None);
    }

    #[test]
    fn any_bytes_are_read() {
        assert_eq!(parse(&[]), Slots::default());
        assert_eq!(parse(&[1; 7]), Slots::default());
        let mut bytes = vec![0; SIZE + 80];
        bytes[0] = 5;
        bytes[8] = 6;
        bytes[SIZE - 8] = 7;
        bytes[SIZE] = 8;
        assert_eq!(parse(&bytes), slots(5, &[6, 7]));
    }

    #[test]
    fn a_file_cut_short_is_read_as_far_as_it_goes() {
        let path = std::env::temp_dir().join(format!("arsrv-slots-{}", std::process::id()));
        let file = SlotsFile::create(&path, None).unwrap();
        file.file.write_all_at(&3u64.to_le_bytes(), 0).unwrap();
        assert_eq!(file.read().unwrap(), slots(3, &[]));
        file.file.set_len(3).unwrap();
        assert_eq!(file.read().unwrap(), slots(3, &[]));
        drop(file);
        assert!(!path.try_exists().unwrap());
    }
}
