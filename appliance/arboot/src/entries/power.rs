//! Power cuts at every step of changing the entries, on a folder that loses what was not made durable.
//!
//! The boot loader is modelled here by itself, from its documentation, and shares no code with what is tested.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;
use crate::blackbox::tests::Random;
use crate::uki::sample;

/// Something the disk was told and has not made durable.
#[derive(Debug, Clone)]
enum Pending {
    Create(String, Vec<u8>),
    Remove(String),
}

/// A FAT with a write cache.
#[derive(Debug, Default)]
struct Cached {
    durable: RefCell<BTreeMap<String, Vec<u8>>>,
    pending: RefCell<Vec<Pending>>,
    /// Whatever was once in a file may still be in the cluster a new one gets.
    stale: RefCell<Vec<Vec<u8>>>,
    /// Steps until the power goes.
    left: Cell<u32>,
    /// Bytes that fit.
    room: Cell<usize>,
}

impl Cached {
    fn visible(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.durable.borrow().clone();
        for op in self.pending.borrow().iter() {
            apply(&mut files, op.clone());
        }
        files
    }

    fn step(&self) -> io::Result<()> {
        match self.left.get() {
            0 => Err(io::Error::other("power cut")),
            left => {
                self.left.set(left - 1);
                Ok(())
            }
        }
    }

    /// The power goes: of what was not synced anything may be there, in any order, whole, in part or as rubbish.
    fn cut(&self, random: &mut Random) {
        let mut files = self.durable.borrow_mut();
        for op in self.pending.borrow_mut().drain(..) {
            match (op, random.below(3)) {
                (_, 0) => {}
                (Pending::Remove(path), _) => drop(files.remove(&path)),
                (Pending::Create(path, content), 1) => drop(files.insert(path, content)),
                (Pending::Create(path, content), _) => {
                    let len = usize::try_from(random.below(content.len() as u64 + 1)).unwrap();
                    let stale = self.stale.borrow();
                    let torn = match random.below(4) {
                        0 => Vec::new(),
                        1 => vec![0; content.len()],
                        2 if !stale.is_empty() => stale
                            [usize::try_from(random.below(stale.len() as u64)).unwrap()]
                        .clone(),
                        _ => content[..len].to_vec(),
                    };
                    files.insert(path, torn);
                }
            }
        }
    }
}

fn apply(files: &mut BTreeMap<String, Vec<u8>>, op: Pending) {
    match op {
        Pending::Create(path, content) => drop(files.insert(path, content)),
        Pending::Remove(path) => drop(files.remove(&path)),
    }
}

impl Folder for &Cached {
    type Lock = ();

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let files = self.visible();
        let names = files.keys().filter_map(|path| path.strip_prefix(dir)?.strip_prefix('/'));
        Ok(names.map(str::to_owned).collect())
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let files = self.visible();
        let content = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        String::from_utf8(content.clone()).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn has(&self, path: &str) -> io::Result<bool> {
        Ok(self.visible().contains_key(path))
    }

    fn create(&self, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let files = self.visible();
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let used: usize = files.values().map(Vec::len).sum();
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let full = used + bytes.len() > self.room.get();
        if full {
            bytes.truncate(self.room.get().saturating_sub(used));
        }
        // What is begun may reach the disk even if the call does not come back.
        self.pending.borrow_mut().push(Pending::Create(path.to_owned(), bytes));
        self.step()?;
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn is_same(&self, path: &str, content: &mut dyn Read) -> io::Result<bool> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(self.visible().get(path) == Some(&bytes))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        if let Some(content) = self.visible().get(path) {
            self.stale.borrow_mut().push(content.clone());
        }
        self.pending.borrow_mut().push(Pending::Remove(path.to_owned()));
        self.step()
    }

    fn sync(&self) -> io::Result<()> {
        self.step()?;
        let mut files = self.durable.borrow_mut();
        for op in self.pending.borrow_mut().drain(..) {
            apply(&mut files, op);
        }
        Ok(())
    }
}

/// What the boot loader would start: file name and image, by its documented order.
fn loader(files: &BTreeMap<String, Vec<u8>>) -> Option<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (path, content) in files {
        let Some(file) = path.strip_prefix("loader/entries/") else { continue };
        // Bytes that are no text are passed over line by line.
        let text = String::from_utf8_lossy(content);
        let key = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.trim().split_once(' ')?;
                (name == key).then(|| value.trim().to_owned())
            })
        };
        let Some(image) = key("efi").and_then(|efi| files.get(efi.trim_start_matches('/'))) else {
            continue;
        };
        let id = file.split('+').next().unwrap_or(file).trim_end_matches(".conf").to_owned();
        let exhausted = file.contains("+0");
        found.push((
            (exhausted, key("sort-key").is_none()),
            key("version").unwrap_or_default(),
            id,
            file.to_owned(),
            image,
        ));
    }
    // Versions begin with six digits, so that their order is the order of their letters.
    found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)).then_with(|| b.2.cmp(&a.2)));
    found.into_iter().next().map(|(_, _, _, file, image)| (file, image.clone()))
}

/// The boot loader's count: it renames the entry before it starts it.
fn count_down(files: &mut BTreeMap<String, Vec<u8>>, file: &str) {
    let Some(mut name) = Name::parse(file) else { return };
    if let Some(tries) = name.tries.as_mut() {
        *tries = Tries { left: tries.left.saturating_sub(1), done: tries.done + 1 };
        let content = files.remove(&format!("{ENTRIES}/{file}")).unwrap();
        files.insert(format!("{ENTRIES}/{name}"), content);
    }
}

fn slot_of(file: &str) -> Slot {
    Name::parse(file).unwrap().slot
}

/// A box as it comes: slot A with tries, and the recovery system.
fn fresh(images: &mut Vec<Vec<u8>>) -> Cached {
    let disk = Cached { left: Cell::new(u32::MAX), room: Cell::new(40_000), ..Cached::default() };
    {
        let mut files = disk.durable.borrow_mut();
        for (slot, generation, tries) in
            [(Slot::A, 1, Some(Tries { left: 3, done: 0 })), (Slot::Recovery, 0, None)]
        {
            let image = sample("arint.version=0.0.1", 3000);
            let name = Name { generation, slot, tries };
            let path = image_path(slot, generation);
            files.insert(
                format!("{ENTRIES}/{name}"),
                entry_text(&name, "0.0.1", &path).into_bytes(),
            );
            files.insert(path, image.clone());
            images.push(image);
        }
    }
    disk
}

#[test]
fn a_power_cut_at_any_step_leaves_a_box_that_starts_what_it_was_told() {
    let (mut cuts, mut torn) = (0, 0);
    for seed in 1..=2_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut images = Vec::new();
        let disk = fresh(&mut images);
        for life in 0..5 {
            // The box starts.
            let (file, image) = loader(&disk.durable.borrow()).unwrap();
            assert!(
                images.contains(&image),
                "seed {seed}, life {life}: `{file}` starts half an image"
            );
            count_down(&mut disk.durable.borrow_mut(), &file);
            let booted = slot_of(&file);
            let entries = Entries::new(&disk);
            disk.left.set(u32::try_from(random.below(30)).unwrap());
            // It is confirmed, or chooses, or leaves its slot, until the power goes.
            let mut good = booted == Slot::Recovery;
            let mut wanted = None;
            let ended = loop {
                let done = match random.below(4) {
                    0 if booted != Slot::Recovery => {
                        entries.mark_good(booted).map(|()| good = true)
                    }
                    1 if booted != Slot::Recovery => match entries.has_other(booted) {
                        Ok(Some(_)) => {
                            // From here on it may or may not be bad.
                            (good, wanted) = (false, None);
                            entries.mark_bad(booted)
                        }
                        _ => Ok(()),
                    },
                    _ => {
                        // RAUC: mark bad, write, choose.
                        let other = if booted == Slot::A { Slot::B } else { Slot::A };
                        let image = sample("arint.version=0.0.2", 2000 + images.len() * 7);
                        images.push(image.clone());
                        let marked = match entries.mark_bad(other) {
                            Err(EntriesError::NoEntry(_)) => Ok(()),
                            done => done,
                        };
                        wanted = None;
                        marked
                            .and_then(|()| entries.set_primary(other, &mut Cursor::new(image)))
                            .map(|entry| {
                                wanted = Some(entry.file);
                            })
                    }
                };
                if done.is_err() {
                    // A choice in flight may or may not have been made.
                    break matches!(
                        done,
                        Err(EntriesError::WriteEntry(..) | EntriesError::Remove(..))
                    );
                }
                if random.below(8) == 0 {
                    break false;
                }
            };
            torn += u32::from(!disk.pending.borrow().is_empty());
            disk.cut(&mut random);
            disk.left.set(u32::MAX);
            cuts += 1;
            let files = disk.durable.borrow().clone();
            let (next, image) = loader(&files).expect("an entry that starts");
            assert!(
                images.contains(&image),
                "seed {seed}, life {life}: `{next}` starts half an image"
            );
            if let (Some(wanted), false) = (&wanted, ended) {
                assert_eq!(
                    &next, wanted,
                    "seed {seed}, life {life}: the choice that was acknowledged is not started"
                );
            }
            if good && booted != Slot::Recovery {
                let startable = entries
                    .list()
                    .unwrap()
                    .iter()
                    .any(|e| e.name.slot == booted && e.is_startable());
                assert!(
                    startable,
                    "seed {seed}, life {life}: the confirmed slot {booted} was lost"
                );
            }
            // Whatever was left behind, the next one to come can clean up and work on.
            if random.below(3) == 0 {
                entries.clean().unwrap();
                let (after, _) = loader(&disk.durable.borrow()).unwrap();
                assert_eq!(
                    after, next,
                    "seed {seed}, life {life}: cleaning changed what is started"
                );
            }
        }
    }
    assert!(torn > 2_000, "only {torn} of {cuts} cuts hit something unfinished");
}

#[test]
fn a_full_esp_refuses_the_new_image_and_starts_the_old_one() {
    let mut images = Vec::new();
    let disk = fresh(&mut images);
    disk.room.set(8_000);
    let entries = Entries::new(&disk);
    let err = entries
        .set_primary(Slot::B, &mut Cursor::new(sample("arint.version=0.0.2", 4000)))
        .unwrap_err();
    assert_eq!(err.to_string(), "cannot write the kernel image `EFI/arint/b-000002.efi`");
    let files = disk.visible();
    assert!(
        !files.contains_key("EFI/arint/b-000002.efi"),
        "the half image stays: {:?}",
        files.keys()
    );
    assert_eq!(loader(&files).unwrap().0, "arint-000001-a+3.conf");
    // With room again, the same choice works.
    disk.room.set(40_000);
    entries.set_primary(Slot::B, &mut Cursor::new(sample("arint.version=0.0.2", 4000))).unwrap();
    assert_eq!(loader(&disk.visible()).unwrap().0, "arint-000002-b+3.conf");
}
