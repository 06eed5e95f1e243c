//! The ring, on whole, torn and rotten disks, and what it answers.

use std::cell::RefCell;
use std::io;

use super::*;

/// A disk with a write cache: what was not synced may be lost, whole or in part, in any order.
#[derive(Debug, Default)]
struct Cached {
    platter: RefCell<Vec<u8>>,
    cache: RefCell<Vec<(u64, Vec<u8>)>>,
    /// Writes and syncs that still succeed before the power goes.
    left: RefCell<Option<u32>>,
}

impl Cached {
    fn new(blocks: usize) -> Self {
        Self { platter: RefCell::new(vec![0; blocks * BLOCK]), ..Self::default() }
    }

    fn step(&self) -> io::Result<()> {
        match self.left.borrow_mut().as_mut() {
            Some(0) => Err(io::Error::other("power cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The power goes: each sector of each cached write is kept or lost by itself.
    fn cut(&self, random: &mut Random) {
        for (offset, bytes) in self.cache.borrow_mut().drain(..) {
            for (at, sector) in (offset..).step_by(512).zip(bytes.chunks(512)) {
                if random.below(2) == 0 {
                    let at = usize::try_from(at).unwrap();
                    self.platter.borrow_mut()[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        *self.left.borrow_mut() = None;
    }
}

impl Disk for Cached {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.platter.borrow()[at..at + buf.len()]);
        for (offset, bytes) in self.cache.borrow().iter() {
            let start = usize::try_from(*offset).unwrap();
            for (place, byte) in (start..).zip(bytes) {
                if place >= at && place < at + buf.len() {
                    buf[place - at] = *byte;
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.cache.borrow_mut().push((offset, buf.to_vec()));
        self.step()
    }

    fn sync(&self) -> io::Result<()> {
        self.step()?;
        for (offset, bytes) in self.cache.borrow_mut().drain(..) {
            let at = usize::try_from(offset).unwrap();
            self.platter.borrow_mut()[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.platter.borrow().len() as u64)
    }
}

/// Numbers that only a seed decides (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn note(text: &str) -> Event {
    Event::Note { text: text.to_owned() }
}

fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| match &record.event {
            Event::Note { text } => text.clone(),
            other => panic!("a note was expected, not {other:?}"),
        })
        .collect()
}

#[test]
fn what_was_appended_is_read_again_oldest_first() {
    let disk = Cached::new(8);
    let mut blackbox = BlackBox::open(&disk).unwrap();
    assert_eq!(blackbox.records().unwrap(), []);
    for n in 1..=4 {
        let record = blackbox.append(n * 10, "boot", note(&n.to_string())).unwrap();
        assert_eq!(record.seq, n);
    }
    let records = BlackBox::open(&disk).unwrap().records().unwrap();
    assert_eq!(texts(&records), ["1", "2", "3", "4"]);
    assert_eq!((records[3].time_ms, records[3].boot_id.as_str()), (40, "boot"));
}

#[test]
fn the_ring_goes_round_and_keeps_the_newest() {
    let disk = Cached::new(8);
    let mut blackbox = BlackBox::open(&disk).unwrap();
    for n in 1..=100 {
        blackbox.append(0, "b", note(&n.to_string())).unwrap();
    }
    assert_eq!(texts(&blackbox.records().unwrap()), ["95", "96", "97", "98", "99", "100"]);
}

#[test]
fn two_processes_append_to_one_ring_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    std::fs::write(&path, vec![0; 64 * BLOCK]).unwrap();
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let (mut one, mut two) = (BlackBox::open(open()).unwrap(), BlackBox::open(open()).unwrap());
    one.append(0, "b", note("1")).unwrap();
    two.append(0, "b", note("2")).unwrap();
    two.append(0, "b", note("3")).unwrap();
    one.append(0, "b", note("4")).unwrap();
    assert_eq!(texts(&two.records().unwrap()), ["1", "2", "3", "4"]);
}

#[test]
fn a_long_text_is_cut_with_a_mark_and_the_rest_stays() {
    let disk = Cached::new(8);
    let mut blackbox = BlackBox::open(&disk).unwrap();
    // Control characters take six bytes each once they are escaped.
    let text = "\u{1}ä".repeat(10_000);
    blackbox.append(0, "b", note(&text)).unwrap();
    let [kept] = &texts(&blackbox.records().unwrap())[..] else {
        panic!("one record was expected")
    };
    assert!(
        kept.ends_with(CUT) && kept.len() > 700 && text.starts_with(kept.trim_end_matches(CUT)),
        "{}",
        kept.len()
    );
}

#[test]
fn a_rotten_block_costs_only_its_own_record() {
    let disk = Cached::new(8);
    let mut blackbox = BlackBox::open(&disk).unwrap();
    for n in 1..=4 {
        blackbox.append(0, "b", note(&n.to_string())).unwrap();
    }
    disk.platter.borrow_mut()[(2 + 2) * BLOCK + 30] ^= 0x10;
    let mut blackbox = BlackBox::open(&disk).unwrap();
    assert_eq!(texts(&blackbox.records().unwrap()), ["1", "3", "4"]);
    blackbox.append(0, "b", note("5")).unwrap();
    assert_eq!(texts(&blackbox.records().unwrap()), ["1", "3", "4", "5"]);
}

#[test]
fn a_partition_full_of_something_else_is_taken_over() {
    let disk = Cached::new(8);
    let mut random = Random(7);
    for byte in disk.platter.borrow_mut().iter_mut() {
        *byte = u8::try_from(random.below(256)).unwrap();
    }
    let mut blackbox = BlackBox::open(&disk).unwrap();
    blackbox.append(0, "b", note("1")).unwrap();
    let id = blackbox.machine_id().unwrap();
    let mut again = BlackBox::open(&disk).unwrap();
    assert_eq!(
        (texts(&again.records().unwrap()), again.machine_id().unwrap()),
        (vec!["1".to_owned()], id)
    );
}

#[test]
fn a_partition_that_is_too_small_is_refused() {
    assert_eq!(
        BlackBox::open(Cached::new(3)).unwrap_err().to_string(),
        "the black box has 12288 bytes, and at least 16384 are needed: enlarge the partition `blackbox`"
    );
}

#[test]
fn the_machine_id_is_made_once_and_changes_only_by_reset() {
    let disk = Cached::new(8);
    let mut blackbox = BlackBox::open(&disk).unwrap();
    assert_eq!(blackbox.known_machine_id().unwrap(), None);
    let id = blackbox.machine_id().unwrap();
    assert!(id.len() == 32 && id.as_bytes()[12] == b'4', "{id}");
    assert_eq!(BlackBox::open(&disk).unwrap().machine_id().unwrap(), id);
    for copy in 0..2 {
        let whole = disk.platter.borrow().clone();
        disk.platter.borrow_mut()[copy * BLOCK + 20] ^= 1;
        assert_eq!(
            BlackBox::open(&disk).unwrap().machine_id().unwrap(),
            id,
            "copy {copy} is rotten"
        );
        *disk.platter.borrow_mut() = whole;
    }
    let new = blackbox.new_machine_id().unwrap();
    assert_ne!(new, id);
    assert_eq!(BlackBox::open(&disk).unwrap().machine_id().unwrap(), new);
}

#[test]
fn no_power_cut_loses_what_was_appended_or_the_machine_id() {
    let mut kept_unfinished = 0;
    for seed in 1..=5_000 {
        let mut random = Random(seed * 0x9e37_79b9);
        let disk = Cached::new(6 + usize::try_from(random.below(6)).unwrap());
        let room = disk.platter.borrow().len() / BLOCK - 2;
        let mut acknowledged: Vec<String> = Vec::new();
        let mut id: Option<String> = None;
        let mut former: Option<String> = None;
        let mut n = 0;
        for _life in 0..4 {
            *disk.left.borrow_mut() = Some(u32::try_from(random.below(12)).unwrap());
            let mut unfinished = None;
            if let Ok(mut blackbox) = BlackBox::open(&disk) {
                loop {
                    if random.below(4) == 0 {
                        former.clone_from(&id);
                        match blackbox.new_machine_id() {
                            Ok(new) => (id, former) = (Some(new), None),
                            Err(_) => break,
                        }
                    } else {
                        n += 1;
                        if blackbox.append(0, "b", note(&n.to_string())).is_err() {
                            unfinished = Some(n.to_string());
                            break;
                        }
                        acknowledged.push(n.to_string());
                    }
                }
            }
            disk.cut(&mut random);
            let after = BlackBox::open(&disk).unwrap();
            let found = texts(&after.records().unwrap());
            // The record that was being written may have taken the oldest one's place.
            let sure = acknowledged.len().saturating_sub(room - 1);
            for text in &acknowledged[sure..] {
                assert!(
                    found.contains(text),
                    "seed {seed}: {text} was acknowledged and is gone from {found:?}"
                );
            }
            if let Some(text) = unfinished
                && found.contains(&text)
            {
                kept_unfinished += 1;
                acknowledged.push(text);
            }
            if let Some(id) = &id
                && former.is_none()
            {
                assert_eq!(after.known_machine_id().unwrap().as_ref(), Some(id), "seed {seed}");
            } else if id.is_some() {
                assert!(
                    after.known_machine_id().unwrap().is_some(),
                    "seed {seed}: the machine id is gone"
                );
            }
            id = after.known_machine_id().unwrap();
            former = None;
        }
    }
    assert!(
        kept_unfinished > 100,
        "the simulation never kept an unfinished write: {kept_unfinished}"
    );
}

fn history(events: &[Event]) -> Vec<Record> {
    (1..)
        .zip(events)
        .map(|(seq, event)| Record {
            seq,
            time_ms: 0,
            boot_id: String::new(),
            event: event.clone(),
        })
        .collect()
}

fn started(slot: Slot, cause: Option<&str>) -> Event {
    Event::Started {
        slot,
        entry: String::new(),
        version: "1".to_owned(),
        cause: cause.map(str::to_owned),
    }
}

fn chosen(slot: Slot) -> Event {
    Event::Chosen { slot, version: "0.2.0".to_owned(), by: "update".to_owned() }
}

fn confirmed(slot: Slot) -> Event {
    Event::Confirmed { slot, version: "0.2.0".to_owned() }
}

fn probe_failed(slot: Slot) -> Event {
    Event::ProbeFailed {
        slot,
        version: "0.2.0".to_owned(),
        probe: "channel".to_owned(),
        reason: "no answer within 10 s".to_owned(),
    }
}

#[test]
fn one_sentence_says_why_the_box_went_back() {
    let why_b = |tail: &[Event]| {
        let mut events = vec![started(Slot::A, None), confirmed(Slot::A), chosen(Slot::B)];
        events.extend_from_slice(tail);
        why(&history(&events), Slot::A).unwrap()
    };
    let (a, b) = (started(Slot::A, None), started(Slot::B, None));
    assert_eq!(
        why_b(&[b.clone(), b.clone(), b.clone(), probe_failed(Slot::B), a.clone()]),
        "slot b (version 0.2.0) was left after 3 starts that were not confirmed; the last one failed at probe \
         `channel`: no answer within 10 s"
    );
    let failed = Event::FirstStageFailed {
        slot: Slot::B,
        version: "0.2.0".to_owned(),
        reason: "no partition has this root".to_owned(),
    };
    assert_eq!(
        why_b(&[b.clone(), failed, a.clone()]),
        "slot b (version 0.2.0) was left after 1 start that was not confirmed; it failed in the first stage: no \
         partition has this root"
    );
    assert_eq!(
        why_b(&[b.clone(), b.clone(), started(Slot::A, Some("watchdog"))]),
        "slot b (version 0.2.0) was left after 2 starts that were not confirmed; the last one was ended by the watchdog"
    );
    assert_eq!(
        why_b(&[b.clone(), started(Slot::A, Some("panic"))]),
        "slot b (version 0.2.0) was left after 1 start that was not confirmed; it ended in a kernel panic"
    );
    assert_eq!(
        why_b(&[b.clone(), b.clone(), b, a.clone()]),
        "slot b (version 0.2.0) was left after 3 starts that were not confirmed; how the last one ended is not known \
         (power cut or reset)"
    );
    let marked = Event::MarkedBad { slot: Slot::B, reason: "admin alice".to_owned() };
    assert_eq!(
        why_b(&[marked, a]),
        "slot b (version 0.2.0) was left because it was marked bad: admin alice"
    );
    assert_eq!(why_b(&[]), "slot b (version 0.2.0) was chosen and has not been started yet");
}

#[test]
fn a_box_that_runs_where_it_was_told_to_has_nothing_to_explain() {
    assert_eq!(why(&history(&[started(Slot::A, None)]), Slot::A), None);
    let events =
        [started(Slot::A, None), chosen(Slot::B), started(Slot::B, None), confirmed(Slot::B)];
    assert_eq!(why(&history(&events), Slot::B), None);
}

#[test]
fn a_box_that_was_sent_into_recovery_and_came_back_has_nothing_to_explain() {
    let stopping = |how: &str| Event::Stopping { how: how.to_owned() };
    let mut events = vec![
        started(Slot::A, None),
        confirmed(Slot::A),
        stopping("recovery"),
        started(Slot::Recovery, None),
    ];
    assert_eq!(why(&history(&events), Slot::Recovery), None);
    events.extend([stopping("reboot"), started(Slot::A, None)]);
    assert_eq!(why(&history(&events), Slot::A), None);
}

#[test]
fn a_slot_left_long_after_its_confirmation_is_explained_without_a_choice() {
    let events = [
        started(Slot::A, None),
        confirmed(Slot::A),
        started(Slot::A, None),
        probe_failed(Slot::A),
        started(Slot::Recovery, None),
    ];
    assert_eq!(
        why(&history(&events), Slot::Recovery).unwrap(),
        "slot a (version 1) was left after 1 start that was not confirmed; it failed at probe `channel`: no answer \
         within 10 s"
    );
}

#[test]
fn starts_are_counted_since_the_last_confirmation_or_choice_and_orderly_ends_do_not_count() {
    let stop = Event::Stopping { how: "reboot".to_owned() };
    let count = |events: &[Event]| unconfirmed_starts(&history(events), Slot::B);
    let (a, b) = (started(Slot::A, None), started(Slot::B, None));
    assert_eq!(count(&[b.clone(), confirmed(Slot::B)]), 0);
    assert_eq!(count(&[confirmed(Slot::B), b.clone(), b.clone(), a.clone(), b.clone()]), 3);
    assert_eq!(count(&[b.clone(), chosen(Slot::B), b.clone()]), 1);
    assert_eq!(count(&[b.clone(), b.clone(), stop.clone(), b.clone()]), 2);
    assert_eq!(count(&[b.clone(), a, stop, b]), 2);
}
