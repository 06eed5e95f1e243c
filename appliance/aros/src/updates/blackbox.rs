//! The black box for people, and the kernel's last words, which are put into it.

use std::path::Path;

use arapi::aros::{BlackBoxEntry, BlackBoxView};
use arboot::{Event, Record, Slot};

use super::ring::Ring;

/// Entries that are shown.
const SHOWN: usize = 500;
/// Lines of a panic that are kept.
const PANIC_LINES: usize = 24;

/// What `GET /v1/blackbox` answers.
pub(crate) fn view(records: &[Record], booted: Option<Slot>) -> BlackBoxView {
    let entries = records.iter().rev().take(SHOWN).map(entry).collect();
    BlackBoxView { why: booted.and_then(|slot| arboot::why(records, slot)), entries }
}

fn entry(record: &Record) -> BlackBoxEntry {
    let (event, text) = told(&record.event);
    BlackBoxEntry {
        seq: record.seq,
        time_ms: record.time_ms,
        boot_id: record.boot_id.clone(),
        event: event.to_owned(),
        text,
    }
}

/// One word, and one sentence.
fn told(event: &Event) -> (&'static str, String) {
    match event {
        Event::Started { slot, entry, version, cause } => {
            let cause = match cause.as_deref() {
                Some(cause) => format!(" after: {cause}"),
                None => String::new(),
            };
            ("started", format!("slot {slot} (version {version}) started by `{entry}`{cause}"))
        }
        Event::FirstStageFailed { slot, version, reason } => (
            "first_stage_failed",
            format!("slot {slot} (version {version}) could not be started: {reason}"),
        ),
        Event::Confirmed { slot, version } => {
            ("confirmed", format!("slot {slot} (version {version}) does what it is for"))
        }
        Event::ProbeFailed { slot, version, probe, reason } => (
            "probe_failed",
            format!("slot {slot} (version {version}) failed at probe `{probe}`: {reason}"),
        ),
        Event::Chosen { slot, version, by } => {
            ("chosen", format!("slot {slot} (version {version}) was chosen by {by}"))
        }
        Event::MarkedBad { slot, reason } => {
            ("marked_bad", format!("slot {slot} is not started any more: {reason}"))
        }
        Event::Stopping { how } => ("stopping", format!("orderly end: {how}")),
        Event::Panicked { text } => ("panicked", format!("the kernel died: {text}")),
        Event::FactoryReset { fingerprint, by } => (
            "factory_reset",
            format!("{by} reset the box; the key with fingerprint {fingerprint} is destroyed"),
        ),
        Event::Note { text } => ("note", text.clone()),
    }
}

/// Puts what the kernel left in its persistent store into the black box, and empties the store.
///
/// A file is removed only after its text is in the black box.
pub(crate) fn collect_panics(pstore: &Path, ring: &Ring) {
    let Ok(files) = std::fs::read_dir(pstore) else { return };
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
    files.sort();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("dmesg-") {
            continue;
        }
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(err) => {
                log::warn!(path:% = path.display(), error:% = err; "the kernel's last words cannot be read");
                continue;
            }
        };
        let kept = ring.append(Event::Panicked { text: lines_that_matter(&text) });
        match kept {
            Ok(()) => {
                if let Err(err) = std::fs::remove_file(&path) {
                    log::warn!(path:% = path.display(), error:% = err; "the kernel's last words cannot be removed");
                }
            }
            Err(err) => {
                log::error!(error:% = arbase::Chain(&err); "the black box cannot be written");
                return;
            }
        }
    }
}

/// From the line that says what happened on; the last lines where none does.
fn lines_that_matter(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let words = [
        "Kernel panic",
        "BUG:",
        "Oops",
        "general protection",
        "Unable to handle",
        "soft lockup",
        "hung_task",
    ];
    let first = lines
        .iter()
        .position(|line| words.iter().any(|word| line.contains(word)))
        .unwrap_or(lines.len().saturating_sub(PANIC_LINES));
    let shown: Vec<&str> =
        lines.into_iter().skip(first).take(PANIC_LINES).map(without_time).collect();
    shown.join("\n")
}

/// `<0>[   12.345678] text` is `text`.
fn without_time(line: &str) -> &str {
    let rest = line
        .split_once('>')
        .filter(|(level, _)| level.starts_with('<'))
        .map_or(line, |(_, rest)| rest);
    match rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((time, text)) if time.trim().parse::<f64>().is_ok() => text.trim(),
        _ => rest.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_last_words_move_into_the_black_box_once() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("blackbox");
        std::fs::File::create(&device).unwrap().set_len(1 << 20).unwrap();
        let ring = Ring::new(&device);
        let pstore = dir.path().join("pstore");
        std::fs::create_dir(&pstore).unwrap();
        let dump = "Panic#1 Part1\n<6>[    1.000000] usb 1-1: new device\n<0>[   12.345678] Kernel panic - not syncing: x\n<4>[   12.345679] Call Trace:\n";
        std::fs::write(pstore.join("dmesg-efi_pstore-1"), dump).unwrap();
        collect_panics(&pstore, &ring);
        collect_panics(&pstore, &ring);
        let view = view(&ring.records().unwrap(), Some(Slot::A));
        let shown: Vec<_> =
            view.entries.iter().map(|entry| (entry.event.as_str(), entry.text.as_str())).collect();
        assert_eq!(
            shown,
            [("panicked", "the kernel died: Kernel panic - not syncing: x\nCall Trace:")]
        );
        assert!(std::fs::read_dir(&pstore).unwrap().next().is_none());
    }
}
