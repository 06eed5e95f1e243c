//! Entries on a real folder.

use super::*;
use crate::uki::sample;

fn uki(version: &str) -> io::Cursor<Vec<u8>> {
    let mut partition = sample(&format!("arint.version={version}"), 3000);
    partition.resize(20_000, 0);
    io::Cursor::new(partition)
}

#[test]
fn names_are_read_as_the_boot_loader_writes_them() {
    let name = |file: &str| Name::parse(file).map(|name| (name.generation, name.slot, name.tries));
    let tries = |left, done| Some(Tries { left, done });
    assert_eq!(name("arint-000012-b+3.conf"), Some((12, Slot::B, tries(3, 0))));
    assert_eq!(name("arint-000012-b+2-1.conf"), Some((12, Slot::B, tries(2, 1))));
    assert_eq!(name("arint-000000-recovery.conf"), Some((0, Slot::Recovery, None)));
    assert_eq!(name("arint-000012-b"), Some((12, Slot::B, None)));
    for none in [
        "arint-12-c.conf",
        "arint-+3.conf",
        "arint-x-a.conf",
        "arint-1-a+.conf",
        "arint-1-a+3-x.conf",
        "other.conf",
    ] {
        assert_eq!(name(none), None, "{none}");
    }
    for file in ["arint-000012-b+3.conf", "arint-000012-b+0-3.conf", "arint-000000-recovery.conf"] {
        assert_eq!(Name::parse(file).unwrap().to_string(), file);
    }
}

#[test]
fn a_slot_is_chosen_confirmed_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let entries = Entries::new(Esp::new(dir.path()));
    let files = || {
        let mut files = [ENTRIES, IMAGES]
            .iter()
            .flat_map(|folder| Esp::new(dir.path()).list(folder).unwrap())
            .collect::<Vec<_>>();
        files.sort();
        files.join(" ")
    };
    assert_eq!(entries.primary().unwrap(), None);
    entries.set_primary(Slot::A, &mut uki("0.1.0")).unwrap();
    entries.mark_good(Slot::A).unwrap();
    assert_eq!(files(), "a-000001.efi arint-000001-a.conf");
    let chosen = entries.set_primary(Slot::B, &mut uki("0.2.0")).unwrap();
    assert_eq!(entries.primary().unwrap(), Some(chosen));
    assert_eq!(files(), "a-000001.efi arint-000001-a.conf arint-000002-b+3.conf b-000002.efi");
    assert_eq!(
        fs::read_to_string(dir.path().join("loader/entries/arint-000002-b+3.conf")).unwrap(),
        "title ARINT 0.2.0 (b)\nsort-key arint\nversion 000002-0.2.0\nefi /EFI/arint/b-000002.efi\n"
    );
    let written = fs::read(dir.path().join("EFI/arint/b-000002.efi")).unwrap();
    assert!(uki("0.2.0").into_inner().starts_with(&written) && written.len() < 10_000);
    entries.mark_bad(Slot::B).unwrap();
    assert_eq!(entries.primary().unwrap().unwrap().version, "0.1.0");
    assert_eq!(
        (entries.state(Slot::A).unwrap(), entries.state(Slot::B).unwrap()),
        (State::Good, State::Bad)
    );
    assert_eq!(entries.has_other(Slot::A).unwrap(), None);
    assert_eq!(entries.has_other(Slot::B).unwrap(), Some(Slot::A));
    entries.mark_bad(Slot::B).unwrap();
    assert_eq!(files(), "a-000001.efi arint-000001-a.conf arint-000002-b+0-1.conf b-000002.efi");
    entries.set_primary(Slot::B, &mut uki("0.3.0")).unwrap();
    entries.mark_good(Slot::B).unwrap();
    assert_eq!(files(), "a-000001.efi arint-000001-a.conf arint-000003-b.conf b-000003.efi");
}

#[test]
fn what_is_no_image_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let entries = Entries::new(Esp::new(dir.path()));
    entries.set_primary(Slot::A, &mut uki("0.1.0")).unwrap();
    let before = entries.list().unwrap();
    let err = entries.set_primary(Slot::B, &mut io::Cursor::new(vec![0; 9000])).unwrap_err();
    assert_eq!(err.to_string(), "cannot take the kernel image of slot b");
    assert_eq!(entries.list().unwrap(), before);
    let err = entries.mark_good(Slot::B).unwrap_err();
    assert_eq!(
        err.to_string(),
        "slot b has no boot entry: choose it with `arint os boot set-primary b`"
    );
}

#[test]
fn two_processes_that_change_the_entries_at_once_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let entries = || Entries::new(Esp::new(dir.path()));
    entries().set_primary(Slot::A, &mut uki("0.1.0")).unwrap();
    std::thread::scope(|scope| {
        for slot in [Slot::A, Slot::B] {
            let entries = &entries;
            scope.spawn(move || {
                for n in 0..20 {
                    entries().set_primary(slot, &mut uki(&format!("0.1.{n}"))).unwrap();
                    entries().clean().unwrap();
                    entries().mark_good(slot).unwrap();
                }
            });
        }
    });
    let files: Vec<_> = entries()
        .list()
        .unwrap()
        .into_iter()
        .map(|e| (e.name.slot, e.has_image, e.name.tries))
        .collect();
    assert!(
        files.len() == 2 && files.iter().all(|(_, image, tries)| *image && tries.is_none()),
        "{files:?}"
    );
}
