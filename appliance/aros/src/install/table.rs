//! The stick's partition table, made to fit another disk (UEFI 2.10, section 5.3).
//!
//! Only names of its own change: the disk gets a new identity, and so does its ESP, so that firmware and first stage
//! tell it from the stick; the second copy goes to the disk's end.

/// Bytes of a sector; disks with others are refused before.
pub(crate) const SECTOR: u64 = 512;
/// Sectors of header and entries: what lies before the first partition, without the protective MBR.
const TABLE: u64 = 33;
const HEADER: usize = 92;

/// Why a disk's first sectors are no table that can be taken over.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    /// No signature.
    #[error("the stick has no GUID partition table; write the installer to it again")]
    None,
    /// A checksum does not fit, or a size is not the usual one.
    #[error("the stick's partition table is damaged; write the installer to it again")]
    Damaged,
    /// A partition of the contract is not in it.
    #[error("the stick has no partition `{0}`; write the installer to it again")]
    NoPartition(&'static str),
}

/// A partition table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    mbr: Vec<u8>,
    header: Vec<u8>,
    entries: Vec<u8>,
}

/// Where a partition lies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

impl Table {
    /// From the first 34 sectors of a disk.
    pub(crate) fn parse(sectors: &[u8]) -> Result<Self, TableError> {
        let part = |from: usize, len: usize| {
            sectors.get(from..from.saturating_add(len)).ok_or(TableError::Damaged)
        };
        let (mbr, header, entries) = (part(0, 512)?, part(512, HEADER)?, part(1024, 16384)?);
        if !header.starts_with(b"EFI PART") {
            return Err(TableError::None);
        }
        let table = Self { mbr: mbr.to_vec(), header: header.to_vec(), entries: entries.to_vec() };
        let usual = u32_at(header, 12) == Some(92)
            && u64_at(header, 72) == Some(2)
            && u32_at(header, 80) == Some(128)
            && u32_at(header, 84) == Some(128);
        let whole = u32_at(header, 88) == Some(crc(&table.entries))
            && u32_at(header, 16) == Some(header_crc(header));
        if usual && whole { Ok(table) } else { Err(TableError::Damaged) }
    }

    /// Where a partition lies.
    pub(super) fn place(&self, label: &'static str) -> Result<Place, TableError> {
        self.places()
            .into_iter()
            .find(|(name, _)| name == label)
            .map(|(_, place)| place)
            .ok_or(TableError::NoPartition(label))
    }

    /// Where the last partition ends, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.places().into_iter().map(|(_, place)| place.start + place.bytes).max().unwrap_or(0)
    }

    fn places(&self) -> Vec<(String, Place)> {
        self.entries
            .chunks_exact(128)
            .filter_map(|entry| {
                let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
                if entry.get(..16)?.iter().all(|byte| *byte == 0) {
                    return None;
                }
                let units: Vec<u16> = entry
                    .get(56..128)?
                    .chunks_exact(2)
                    .filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)))
                    .take_while(|unit| *unit != 0)
                    .collect();
                let bytes = last.checked_sub(first)?.checked_add(1)?.checked_mul(SECTOR)?;
                let start = first.checked_mul(SECTOR)?;
                Some((String::from_utf16_lossy(&units), Place { start, bytes }))
            })
            .collect()
    }

    /// For a disk of so many sectors: its first 34 and its last 33.
    pub(crate) fn fitted(
        mut self,
        sectors: u64,
        disk: [u8; 16],
        esp: [u8; 16],
    ) -> (Vec<u8>, Vec<u8>) {
        // The ESP is the first entry, by the contract's layout; its identity is in the second 16 bytes.
        put(&mut self.entries, 16, &esp);
        // The protective MBR covers the disk, as far as it can count.
        let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
        put(&mut self.mbr, 446 + 12, &covered.to_le_bytes());
        put(&mut self.header, 48, &(sectors - 1 - TABLE).to_le_bytes());
        put(&mut self.header, 56, &disk);
        let entries_crc = crc(&self.entries);
        put(&mut self.header, 88, &entries_crc.to_le_bytes());

        let mut header = |own: u64, other: u64, entries: u64| {
            put(&mut self.header, 24, &own.to_le_bytes());
            put(&mut self.header, 32, &other.to_le_bytes());
            put(&mut self.header, 72, &entries.to_le_bytes());
            let crc = header_crc(&self.header);
            put(&mut self.header, 16, &crc.to_le_bytes());
            let mut sector = self.header.clone();
            sector.resize(512, 0);
            sector
        };
        let first = header(1, sectors - 1, 2);
        let second = header(sectors - 1, 1, sectors - TABLE);
        let front = [self.mbr.as_slice(), &first, &self.entries].concat();
        let back = [self.entries.as_slice(), &second].concat();
        (front, back)
    }
}

/// An identifier that nobody else has (version 4), as the table keeps it.
pub(crate) fn fresh() -> [u8; 16] {
    use rand::RngCore as _;
    let mut id = [0; 16];
    rand::rng().fill_bytes(&mut id);
    let [_, _, _, _, _, _, _, version, variant, ..] = &mut id;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    id
}

/// The header's checksum is taken with zeros in its place.
fn header_crc(header: &[u8]) -> u32 {
    let mut header = header.to_vec();
    put(&mut header, 16, &[0; 4]);
    crc(&header)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(part.len())) {
        place.copy_from_slice(part);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
