//! Factory reset: begun here with a record in the black box, finished by `arint os storage` at the next start.
//!
//! **Invariant:** once the record is in the black box, every later start finishes the reset before anything is mounted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use arapi::aros::{ResetAnswer, ResetRequest};
use arbase::http::ApiError;
use arboot::{Event, Record};

use super::confirm;
use crate::server::App;

/// The note that ends a reset.
pub(crate) const FINISHED: &str = "factory reset finished: state and data were made anew";

/// Whether a reset has begun that is not finished yet.
pub(crate) fn is_begun(records: &[Record]) -> bool {
    records
        .iter()
        .rev()
        .find_map(|record| match &record.event {
            Event::FactoryReset { .. } => Some(true),
            Event::Note { text } if text == FINISHED => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}

/// Begins one, and restarts the box.
pub(crate) async fn begin(
    app: &Arc<App>,
    request: &ResetRequest,
    hostname: &str,
    fingerprint: &str,
    by: &str,
) -> Result<ResetAnswer, ApiError> {
    if request.hostname != hostname {
        return Err(ApiError::invalid(format!(
            "`{}` is not the host name of this box, which has to be typed for a reset",
            request.hostname
        )));
    }
    let failed = |err: super::ring::RingError| ApiError::internal("begin the reset", &err);
    app.updates
        .ring
        .append(Event::FactoryReset { fingerprint: fingerprint.to_owned(), by: by.to_owned() })
        .map_err(failed)?;
    app.updates.ring.new_machine_id().map_err(failed)?;
    // The rest is done at the next start, when nothing holds the file systems; the key is gone at once.
    destroy_files(&app.config.state_dir);
    confirm::reboot_soon(app);
    Ok(ResetAnswer {
        fingerprint: fingerprint.to_owned(),
        message:
            "the box's key is destroyed; the box restarts, destroys everything else and is new"
                .to_owned(),
    })
}

/// Overwrites the files of a folder where they lie.
fn destroy_files(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        if let Err(err) = overwrite(&path) {
            log::warn!(path:% = path.display(), error:% = err; "file cannot be overwritten");
        }
    }
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(1 << 20);
    file.write_all_at(&vec![0; bytes], 0)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: Event) -> Record {
        Record { seq: 1, time_ms: 0, boot_id: String::new(), event }
    }

    #[test]
    fn a_reset_is_begun_by_its_record_and_ended_by_its_note() {
        let begun = record(Event::FactoryReset { fingerprint: "ab".into(), by: "anna".into() });
        let ended = record(Event::Note { text: FINISHED.into() });
        let other = record(Event::Note { text: "x".into() });
        assert!(!is_begun(&[]));
        assert!(is_begun(&[begun.clone(), other.clone()]));
        assert!(!is_begun(&[begun.clone(), ended.clone(), other]));
        assert!(is_begun(&[begun.clone(), ended, begun]));
    }

    #[test]
    fn a_destroyed_file_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("identity"), "secret").unwrap();
        destroy_files(dir.path());
        assert_eq!(std::fs::read(dir.path().join("identity")).unwrap(), [0; 6]);
    }
}
