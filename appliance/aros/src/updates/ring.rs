//! The black box as this unit uses it: opened for each record, because the first stage, RAUC's backend and the
//! oneshots write to it as well.

use std::fs::File;
use std::path::{Path, PathBuf};

use arboot::{BlackBox, BlackBoxError, Event, Record};

/// Where it lies, once udev has run.
pub(crate) const DEVICE: &str = "/dev/disk/by-partlabel/blackbox";

/// The black box.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    device: PathBuf,
    boot_id: String,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    /// There is none.
    #[error("cannot open the black box `{}`", device.display())]
    Open {
        /// The device.
        device: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Box(#[from] BlackBoxError),
}

impl Ring {
    /// The one on this device.
    pub(crate) fn new(device: &Path) -> Self {
        Self { device: device.to_owned(), boot_id: arboot::boot_id() }
    }

    /// The kernel's id of this start.
    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Appends; it is durable when this returns.
    pub(crate) fn append(&self, event: Event) -> Result<(), RingError> {
        self.open()?.append(arbase::time::now_ms(), &self.boot_id, event)?;
        Ok(())
    }

    /// Appends where nothing better can be done if it fails than to say so in the log.
    pub(crate) fn note(&self, event: Event) {
        if let Err(err) = self.append(event) {
            log::error!(error:% = arbase::Chain(&err); "the black box cannot be written");
        }
    }

    /// Everything in it, oldest first.
    pub(crate) fn records(&self) -> Result<Vec<Record>, RingError> {
        Ok(self.open()?.records()?)
    }

    /// Gives the box another machine id, from its next start on.
    pub(crate) fn new_machine_id(&self) -> Result<(), RingError> {
        self.open()?.new_machine_id()?;
        Ok(())
    }

    fn open(&self) -> Result<BlackBox<File>, RingError> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(&self.device)
            .map_err(|source| RingError::Open { device: self.device.clone(), source })?;
        Ok(BlackBox::open(file)?)
    }
}
