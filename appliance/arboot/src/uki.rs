//! Unified kernel images: how long one is that lies raw at the start of a larger partition, and what it says of itself.
//!
//! Reads the PE headers only; whether the image is signed by the right key is for the firmware to say.

use std::io::{self, Read, Seek, SeekFrom};

/// More than any kernel with a first stage has; what claims more is no image of ours.
const LARGEST: u64 = 192 * 1024 * 1024;
const SECTION_HEADER: usize = 40;
/// A command line or an `os-release` is far smaller.
const LARGEST_TEXT: u64 = 64 * 1024;

/// What is no unified kernel image.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// It cannot be read.
    #[error("cannot read the kernel image")]
    Read(#[source] io::Error),
    /// It is something else.
    #[error("this is no unified kernel image: {0}")]
    NotOne(&'static str),
}

/// What a unified kernel image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uki {
    /// Bytes from the start of the file to the end of its last section or signature.
    pub size: u64,
    /// The kernel command line.
    pub cmdline: Option<String>,
    /// `arint.version=` of the command line, else `VERSION_ID` of its `os-release`.
    pub version: Option<String>,
}

/// Reads the headers of the image that starts where `source` starts.
///
/// # Errors
/// It cannot be read, or is no PE file of a sensible size.
pub fn inspect<R: Read + Seek>(source: &mut R) -> Result<Uki, UkiError> {
    let dos = part(source, 0, 64)?;
    if !dos.starts_with(b"MZ") {
        return Err(UkiError::NotOne("it does not begin with `MZ`"));
    }
    let pe = u64::from(le32(&dos, 0x3c)?);
    let coff = part(source, pe, 24)?;
    if !coff.starts_with(b"PE\0\0") {
        return Err(UkiError::NotOne("it has no PE header"));
    }
    let sections = le16(&coff, 6)?;
    let optional_len = le16(&coff, 20)?;
    let optional = part(source, pe + 24, usize::from(optional_len))?;
    // PE32+ has its data directories 16 bytes after PE32.
    let directories = match le16(&optional, 0)? {
        0x20b => 112,
        0x10b => 96,
        _ => return Err(UkiError::NotOne("its optional header is of an unknown kind")),
    };
    let table =
        part(source, pe + 24 + u64::from(optional_len), usize::from(sections) * SECTION_HEADER)?;
    let mut size = pe + 24 + u64::from(optional_len) + table.len() as u64;
    let (mut cmdline, mut os_release) = (None, None);
    for header in table.chunks_exact(SECTION_HEADER) {
        let (virtual_size, raw_size, raw_at) =
            (le32(header, 8)?, le32(header, 16)?, le32(header, 20)?);
        if raw_at == 0 {
            continue;
        }
        size = size.max(u64::from(raw_at) + u64::from(raw_size));
        let len = u64::from(virtual_size.min(raw_size));
        match header.get(..8) {
            Some(b".cmdline") => cmdline = text(source, raw_at.into(), len)?,
            Some(b".osrel\0\0") => os_release = text(source, raw_at.into(), len)?,
            _ => {}
        }
    }
    // The signature is the fifth data directory, and the only one whose address is a place in the file.
    if let (Ok(at @ 1..), Ok(len)) =
        (le32(&optional, directories + 32), le32(&optional, directories + 36))
    {
        size = size.max(u64::from(at) + u64::from(len));
    }
    if sections == 0 || size > LARGEST {
        return Err(UkiError::NotOne("its sections make no sense"));
    }
    let end = source.seek(SeekFrom::End(0)).map_err(UkiError::Read)?;
    if end < size {
        return Err(UkiError::NotOne("it ends before its last section"));
    }
    let version = cmdline
        .as_deref()
        .and_then(|line| {
            line.split_whitespace().rev().find_map(|word| word.strip_prefix("arint.version="))
        })
        .or_else(|| {
            let line =
                os_release.as_deref()?.lines().find_map(|line| line.strip_prefix("VERSION_ID="))?;
            Some(line.trim_matches(['"', '\'']))
        })
        .map(str::to_owned);
    Ok(Uki { size, cmdline, version })
}

fn part<R: Read + Seek>(source: &mut R, at: u64, len: usize) -> Result<Vec<u8>, UkiError> {
    let mut bytes = vec![0; len];
    source.seek(SeekFrom::Start(at)).map_err(UkiError::Read)?;
    match source.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => {
            Err(UkiError::NotOne("it ends within its headers"))
        }
        Err(err) => Err(UkiError::Read(err)),
    }
}

fn text<R: Read + Seek>(source: &mut R, at: u64, len: u64) -> Result<Option<String>, UkiError> {
    if len > LARGEST_TEXT {
        return Ok(None);
    }
    let bytes = part(source, at, usize::try_from(len).unwrap_or(0))?;
    Ok(String::from_utf8(bytes).ok().map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned()))
}

fn le16(bytes: &[u8], at: usize) -> Result<u16, UkiError> {
    let two = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
    two.map(u16::from_le_bytes).ok_or(UkiError::NotOne("its headers are too short"))
}

fn le32(bytes: &[u8], at: usize) -> Result<u32, UkiError> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_le_bytes).ok_or(UkiError::NotOne("its headers are too short"))
}

/// The smallest file that passes for a unified kernel image, for tests: a command line, `filler` bytes of kernel, and a
/// signature behind both.
pub fn sample(cmdline: &str, filler: usize) -> Vec<u8> {
    let (line_at, line_len) = (1024, cmdline.len().next_multiple_of(512));
    let kernel_at = line_at + line_len;
    let mut file = vec![0; kernel_at];
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = file.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, b"MZ");
    put(0x3c, &[64]);
    put(64, b"PE\0\0");
    put(70, &[2]);
    put(84, &[160]);
    put(88, &0x20b_u16.to_le_bytes());
    put(88 + 112 + 32, &number(kernel_at + filler));
    put(88 + 112 + 36, &number(24));
    let sections = [
        (b".cmdline", cmdline.len(), line_len, line_at),
        (b".linux\0\0", filler, filler, kernel_at),
    ];
    for (header, (name, len, raw, at)) in (88 + 160..).step_by(SECTION_HEADER).zip(sections) {
        put(header, name);
        put(header + 8, &number(len));
        put(header + 16, &number(raw));
        put(header + 20, &number(at));
    }
    put(line_at, cmdline.as_bytes());
    file.extend((0..=250).cycle().take(filler));
    file.extend([0x5a; 24]);
    file
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_size_of_an_image_at_the_start_of_a_partition_ends_with_its_signature() {
        let mut partition = sample("quiet arint.version=0.2.0 panic=5", 5000);
        let size = partition.len() as u64;
        partition.resize(100_000, 0xff);
        let uki = inspect(&mut Cursor::new(partition)).unwrap();
        assert_eq!((uki.size, uki.version.as_deref()), (size, Some("0.2.0")));
        assert_eq!(uki.cmdline.as_deref(), Some("quiet arint.version=0.2.0 panic=5"));
    }

    #[test]
    fn what_is_no_image_is_refused_and_never_panics() {
        let refused = |bytes: &[u8]| inspect(&mut Cursor::new(bytes)).unwrap_err().to_string();
        assert_eq!(
            refused(&[0; 4096]),
            "this is no unified kernel image: it does not begin with `MZ`"
        );
        assert_eq!(refused(b"MZ"), "this is no unified kernel image: it ends within its headers");
        let whole = sample("x", 100);
        assert_eq!(
            refused(&whole[..whole.len() - 1]),
            "this is no unified kernel image: it ends before its last section"
        );
        for at in 0..whole.len().min(340) {
            for value in [0, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                drop(inspect(&mut Cursor::new(&broken)));
            }
        }
        for end in 0..whole.len() {
            inspect(&mut Cursor::new(&whole[..end])).unwrap_err();
        }
    }
}
