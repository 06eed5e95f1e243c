//! The boot loader's entries on the ESP, and the only order in which they may be changed.
//!
//! An entry is `/loader/entries/arint-<generation>-<slot>[+left[-done]].conf` and names one unified kernel image,
//! `/EFI/arint/<slot>-<generation>.efi`.  The boot loader counts tries down in the name.  It takes entries that are not
//! exhausted before exhausted ones, then the highest generation, and passes over entries whose image is missing.
//!
//! FAT knows no atomic rename, and writes what it has in its cache in any order.  So nothing is renamed and nothing is
//! written over: a file gets a new name, is made durable together with the whole file system, and only then does
//! whatever it replaces go.
//!
//! **Invariant:** a power cut at any step leaves an entry that can be started, and never one with an incomplete image
//! before a good one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::slot::Slot;
use crate::uki::{self, UkiError};

/// The folder of the entries on the ESP.
pub const ENTRIES: &str = "loader/entries";
/// The folder of the kernel images on the ESP.
pub const IMAGES: &str = "EFI/arint";
/// Tries a new entry has.
pub const TRIES: u32 = 3;

/// The tries that stand in an entry's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Left.
    pub left: u32,
    /// Done.
    pub done: u32,
}

/// What an entry's file name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Grows with every choice of a primary slot.
    pub generation: u32,
    /// The slot.
    pub slot: Slot,
    /// The tries; nothing once the entry is confirmed.
    pub tries: Option<Tries>,
}

impl Name {
    /// Reads a file name, or what the boot loader makes of it in `LoaderEntrySelected` (without the tries).
    pub fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_prefix("arint-")?;
        let stem = stem.strip_suffix(".conf").unwrap_or(stem);
        let (rest, tries) = match stem.split_once('+') {
            None => (stem, None),
            Some((rest, tries)) => {
                let (left, done) = tries.split_once('-').unwrap_or((tries, "0"));
                (rest, Some(Tries { left: number(left)?, done: number(done)? }))
            }
        };
        let (generation, slot) = rest.split_once('-')?;
        let slot = Slot::ALL.into_iter().find(|known| known.as_str() == slot)?;
        Some(Self { generation: number(generation)?, slot, tries })
    }

    /// Whether the boot loader takes it only if there is nothing else.
    pub fn is_exhausted(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arint-{:06}-{}", self.generation, self.slot)?;
        match self.tries {
            None => {}
            Some(Tries { left, done: 0 }) => write!(f, "+{left}")?,
            Some(Tries { left, done }) => write!(f, "+{left}-{done}")?,
        }
        f.write_str(".conf")
    }
}

fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its file name, as it stands on the ESP.
    pub file: String,
    /// What the name says.
    pub name: Name,
    /// The image's version.
    pub version: String,
    /// Its kernel image, relative to the ESP.
    pub image: String,
    /// Whether the kernel image is there; the boot loader passes over an entry without one.
    pub has_image: bool,
}

impl Entry {
    /// Whether the boot loader starts it by itself.
    pub fn is_startable(&self) -> bool {
        self.has_image && !self.name.is_exhausted()
    }
}

/// What a slot's entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be started.
    Good,
    /// It has no entry that the boot loader would start.
    Bad,
}

/// The file system of the ESP, as far as entries need it.  Paths are relative, with `/`.
pub trait Folder {
    /// Keeps other processes from changing anything as long as it lives.
    type Lock;
    /// Waits until no other process changes anything.
    fn lock(&self) -> io::Result<Self::Lock>;
    /// Names in a folder; a missing folder has none.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// A small file.
    fn read(&self, path: &str) -> io::Result<String>;
    /// Whether there is such a file.
    fn has(&self, path: &str) -> io::Result<bool>;
    /// Writes a file that is not there yet; durable only after `sync`.
    fn create(&self, path: &str, content: &mut dyn Read) -> io::Result<()>;
    /// Reads a file back from the device, not from a cache, and compares.
    fn is_same(&self, path: &str, content: &mut dyn Read) -> io::Result<bool>;
    /// Removes a file; durable only after `sync`.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes everything so far durable.
    fn sync(&self) -> io::Result<()>;
}

/// A step of changing the entries that failed.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    /// The entries cannot be read.
    #[error("cannot read the boot entries in `{ENTRIES}`")]
    Read(#[source] io::Error),
    /// Another process cannot be waited for.
    #[error("cannot lock the boot entries")]
    Lock(#[source] io::Error),
    /// The new image cannot be read or is none.
    #[error("cannot take the kernel image of slot {0}")]
    Image(Slot, #[source] UkiError),
    /// The new image cannot be written.
    #[error("cannot write the kernel image `{0}`")]
    WriteImage(String, #[source] io::Error),
    /// What was read back differs.
    #[error(
        "the kernel image `{0}` reads back different from what was written: the disk is failing"
    )]
    Differs(String),
    /// An entry cannot be written.
    #[error("cannot write the boot entry `{0}`")]
    WriteEntry(String, #[source] io::Error),
    /// A file that is not needed any more cannot be removed.
    #[error("cannot remove `{0}`")]
    Remove(String, #[source] io::Error),
    /// There is nothing to mark.
    #[error("slot {0} has no boot entry: choose it with `arint os boot set-primary {0}`")]
    NoEntry(Slot),
}

/// The entries of an ESP.
#[derive(Debug)]
pub struct Entries<F> {
    folder: F,
}

impl<F: Folder> Entries<F> {
    /// Works on this ESP.
    pub fn new(folder: F) -> Self {
        Self { folder }
    }

    /// Every entry of ours, the one the boot loader takes next first.
    ///
    /// A file that is no complete entry is left out, as the boot loader leaves it out.
    ///
    /// # Errors
    /// The ESP cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, EntriesError> {
        let mut entries = Vec::new();
        for file in self.folder.list(ENTRIES).map_err(EntriesError::Read)? {
            let Some(name) = Name::parse(&file).filter(|_| file.ends_with(".conf")) else {
                continue;
            };
            // A torn file may be anything.
            let text = match self.folder.read(&format!("{ENTRIES}/{file}")) {
                Ok(text) => text,
                Err(err)
                    if matches!(
                        err.kind(),
                        io::ErrorKind::InvalidData | io::ErrorKind::NotFound
                    ) =>
                {
                    continue;
                }
                Err(err) => return Err(EntriesError::Read(err)),
            };
            let Some(image) = value(&text, "efi") else { continue };
            let image = image.trim_start_matches('/').to_owned();
            let version = value(&text, "version").unwrap_or_default();
            let version =
                version.split_once('-').map_or(version, |(_, version)| version).to_owned();
            let has_image = self.folder.has(&image).map_err(EntriesError::Read)?;
            entries.push(Entry { file, name, version, image, has_image });
        }
        entries.sort_by_key(|entry| {
            let left = entry.name.tries.map_or(u32::MAX, |tries| tries.left);
            use std::cmp::Reverse;
            (
                !entry.has_image,
                entry.name.is_exhausted(),
                Reverse(entry.name.generation),
                Reverse(left),
            )
        });
        Ok(entries)
    }

    /// The entry that is started next: not exhausted, of the highest generation.
    ///
    /// # Errors
    /// The ESP cannot be read.
    pub fn primary(&self) -> Result<Option<Entry>, EntriesError> {
        Ok(self.list()?.into_iter().find(Entry::is_startable))
    }

    /// Whether the boot loader would start this slot.
    ///
    /// # Errors
    /// The ESP cannot be read.
    pub fn state(&self, slot: Slot) -> Result<State, EntriesError> {
        let good = self.list()?.iter().any(|entry| entry.name.slot == slot && entry.is_startable());
        Ok(if good { State::Good } else { State::Bad })
    }

    /// Makes a slot the one that is started next, with the kernel image that begins where `source` begins.
    ///
    /// # Errors
    /// The image is none, or the ESP cannot be read or written; what was started before is started still.
    pub fn set_primary<R: Read + Seek>(
        &self,
        slot: Slot,
        source: &mut R,
    ) -> Result<Entry, EntriesError> {
        let _lock = self.folder.lock().map_err(EntriesError::Lock)?;
        let info = uki::inspect(source).map_err(|err| EntriesError::Image(slot, err))?;
        // What a former attempt left behind would be in the way on a small ESP.
        self.clean_locked()?;
        let generation = self.next_generation()?;
        let image = image_path(slot, generation);
        let written = self.write_image(&image, source, info.size);
        if let Err(err) = written {
            // Half an image that nothing names only takes room; the next attempt removes it if this cannot.
            self.folder.remove(&image).and_then(|()| self.folder.sync()).ok();
            return Err(err);
        }
        let name = Name { generation, slot, tries: Some(Tries { left: TRIES, done: 0 }) };
        let version = info.version.unwrap_or_else(|| "unknown".to_owned());
        let entry = self.write_entry(name, &version, &image)?;
        self.remove_entries(|old| old.name.slot == slot && old.name.generation < generation)?;
        self.clean_locked()?;
        Ok(entry)
    }

    fn write_image<R: Read + Seek>(
        &self,
        image: &str,
        source: &mut R,
        size: u64,
    ) -> Result<(), EntriesError> {
        let failed = |err| EntriesError::WriteImage(image.to_owned(), err);
        source.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.folder.create(image, &mut source.take(size)).map_err(failed)?;
        self.folder.sync().map_err(failed)?;
        source.seek(SeekFrom::Start(0)).map_err(failed)?;
        if !self.folder.is_same(image, &mut source.take(size)).map_err(failed)? {
            return Err(EntriesError::Differs(image.to_owned()));
        }
        Ok(())
    }

    fn write_entry(&self, name: Name, version: &str, image: &str) -> Result<Entry, EntriesError> {
        let file = name.to_string();
        let path = format!("{ENTRIES}/{file}");
        let failed = |err| EntriesError::WriteEntry(file.clone(), err);
        self.folder
            .create(&path, &mut entry_text(&name, version, image).as_bytes())
            .map_err(failed)?;
        self.folder.sync().map_err(failed)?;
        Ok(Entry {
            file,
            name,
            version: version.to_owned(),
            image: image.to_owned(),
            has_image: true,
        })
    }

    /// Takes the tries off the slot's newest entry: it has done what it is for.
    ///
    /// # Errors
    /// It has none, or the ESP cannot be read or written.
    pub fn mark_good(&self, slot: Slot) -> Result<(), EntriesError> {
        self.replace_name(slot, |_| None)
    }

    /// Exhausts the slot's entries: the boot loader takes them only if there is nothing else.
    ///
    /// # Errors
    /// It has none, or the ESP cannot be read or written.
    pub fn mark_bad(&self, slot: Slot) -> Result<(), EntriesError> {
        self.replace_name(slot, |tries| {
            Some(Tries { left: 0, done: tries.map_or(0, |tries| tries.done).max(1) })
        })
    }

    /// Whether the boot loader would start something if this slot were exhausted.
    ///
    /// # Errors
    /// The ESP cannot be read.
    pub fn has_other(&self, slot: Slot) -> Result<Option<Slot>, EntriesError> {
        Ok(self
            .list()?
            .iter()
            .find(|entry| entry.name.slot != slot && entry.is_startable())
            .map(|e| e.name.slot))
    }

    /// Puts an entry with other tries in the place of the newest one; the new name is there before the old one goes.
    fn replace_name(
        &self,
        slot: Slot,
        tries: impl Fn(Option<Tries>) -> Option<Tries>,
    ) -> Result<(), EntriesError> {
        let _lock = self.folder.lock().map_err(EntriesError::Lock)?;
        let entries = self.list()?;
        let of_slot = || entries.iter().filter(|entry| entry.name.slot == slot && entry.has_image);
        let newest = of_slot()
            .max_by_key(|entry| entry.name.generation)
            .ok_or(EntriesError::NoEntry(slot))?;
        let generation = newest.name.generation;
        let wanted = Name { tries: tries(newest.name.tries), ..newest.name };
        // After a power cut in here, the wanted name may stand beside the old one already.
        let same = |old: &Entry| old.name.tries.map(|t| t.left) == wanted.tries.map(|t| t.left);
        let keep = match of_slot().find(|old| old.name.generation == generation && same(old)) {
            Some(there) => there.file.clone(),
            None => self.write_entry(wanted, &newest.version, &newest.image)?.file,
        };
        self.remove_entries(|old| {
            old.name.slot == slot
                && old.name.generation <= generation
                && !old.file.eq_ignore_ascii_case(&keep)
        })
    }

    fn remove_entries(&self, is_old: impl Fn(&Entry) -> bool) -> Result<(), EntriesError> {
        let mut removed = None;
        for old in self.list()?.into_iter().filter(is_old) {
            let path = format!("{ENTRIES}/{}", old.file);
            self.folder.remove(&path).map_err(|err| EntriesError::Remove(path.clone(), err))?;
            removed = Some(path);
        }
        match removed {
            Some(path) => self.folder.sync().map_err(|err| EntriesError::Remove(path, err)),
            None => Ok(()),
        }
    }

    /// Removes kernel images that no entry names, and entries whose image is missing or that are no entry.
    ///
    /// # Errors
    /// The ESP cannot be read or written.
    pub fn clean(&self) -> Result<(), EntriesError> {
        let _lock = self.folder.lock().map_err(EntriesError::Lock)?;
        self.clean_locked()
    }

    fn clean_locked(&self) -> Result<(), EntriesError> {
        let entries = self.list()?;
        let mut old = Vec::new();
        for file in self.folder.list(ENTRIES).map_err(EntriesError::Read)? {
            let ours = Name::parse(&file).is_some() && file.ends_with(".conf");
            if ours && !entries.iter().any(|entry| entry.has_image && entry.file == file) {
                old.push(format!("{ENTRIES}/{file}"));
            }
        }
        for file in self.folder.list(IMAGES).map_err(EntriesError::Read)? {
            let path = format!("{IMAGES}/{file}");
            let named = entries.iter().any(|entry| entry.image.eq_ignore_ascii_case(&path));
            if image_generation(&file).is_some() && !named {
                old.push(path);
            }
        }
        for path in &old {
            self.folder.remove(path).map_err(|err| EntriesError::Remove(path.clone(), err))?;
        }
        match old.pop() {
            Some(path) => self.folder.sync().map_err(|err| EntriesError::Remove(path, err)),
            None => Ok(()),
        }
    }

    fn next_generation(&self) -> Result<u32, EntriesError> {
        let entries = self.folder.list(ENTRIES).map_err(EntriesError::Read)?;
        let images = self.folder.list(IMAGES).map_err(EntriesError::Read)?;
        let of_entries =
            entries.iter().filter_map(|file| Name::parse(file).map(|name| name.generation));
        let of_images = images.iter().filter_map(|file| image_generation(file));
        Ok(of_entries.chain(of_images).max().unwrap_or(0) + 1)
    }
}

/// Where the kernel image of a slot and generation lies on the ESP.
pub fn image_path(slot: Slot, generation: u32) -> String {
    format!("{IMAGES}/{slot}-{generation:06}.efi")
}

fn image_generation(file: &str) -> Option<u32> {
    let (slot, generation) = file.strip_suffix(".efi")?.split_once('-')?;
    slot.parse::<Slot>().ok()?;
    number(generation)
}

/// The text of an entry.
///
/// The generation leads the version, because the boot loader sorts by it; the image comes last, so that a text that was
/// cut short names none.
pub fn entry_text(name: &Name, version: &str, image: &str) -> String {
    let version: String =
        version.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    format!(
        "title ARINT {version} ({slot})\nsort-key arint\nversion {generation:06}-{version}\nefi /{image}\n",
        slot = name.slot,
        generation = name.generation,
    )
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.trim().split_once([' ', '\t'])?;
        (name == key && !value.trim().is_empty()).then(|| value.trim())
    })
}

/// The ESP where it is mounted.
#[derive(Debug)]
pub struct Esp {
    root: PathBuf,
}

impl Esp {
    /// Works below the folder where the ESP is mounted.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl Folder for Esp {
    type Lock = File;

    fn lock(&self) -> io::Result<File> {
        let root = File::open(&self.root)?;
        root.lock()?;
        Ok(root)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        match fs::read_dir(self.root.join(dir)) {
            Ok(files) => {
                files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned())).collect()
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(err) => Err(err),
        }
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        File::open(self.root.join(path))?.take(64 * 1024).read_to_string(&mut text)?;
        Ok(text)
    }

    fn has(&self, path: &str) -> io::Result<bool> {
        self.root.join(path).try_exists()
    }

    fn create(&self, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let path = self.root.join(path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        io::copy(content, &mut file)?;
        file.sync_all()
    }

    fn is_same(&self, path: &str, content: &mut dyn Read) -> io::Result<bool> {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        let mut file = File::open(self.root.join(path))?;
        // The pages are clean after the sync; without them, the device must say what it holds.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let (mut here, mut there) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let len = fill(content, &mut there)?;
            if fill(&mut file, &mut here)? != len || here.get(..len) != there.get(..len) {
                return Ok(false);
            }
            if len == 0 {
                return Ok(true);
            }
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(path)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        // The file system as a whole: on FAT, folders and the allocation table have no other barrier that is sure.
        let root = File::open(&self.root)?;
        nix::unistd::syncfs(&root)?;
        Ok(())
    }
}

fn fill(source: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buf.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod power;
#[cfg(test)]
mod tests;
