//! Bodies too large for memory: they lie in a file that has no name, and come out of it a piece at a time.
//!
//! The file is on the disk of the core's state and is gone with its last user, or with the core.  It never grows beyond
//! what the budget of bodies allows.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Bodies from this size on are spooled.
pub const FROM: usize = 8 * 1024 * 1024;
/// How much is in memory at a time.
pub(crate) const PIECE: usize = 256 * 1024;

/// Where bodies are spooled.
#[derive(Debug, Clone)]
pub struct Spools(PathBuf);

/// A body in a file.
#[derive(Debug)]
pub struct Spool {
    file: File,
    length: usize,
}

/// A body that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    file: Arc<File>,
    written: usize,
    gathered: BytesMut,
}

impl Spools {
    /// In this folder.
    pub fn in_folder(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Begins a body.
    pub(super) async fn begin(&self) -> io::Result<Writing> {
        let dir = self.0.clone();
        let file = blocking(move || open(&dir)).await?;
        Ok(Writing { file: Arc::new(file), written: 0, gathered: BytesMut::new() })
    }
}

/// A file that nobody else can read, and that has no name once it is open.
fn open(dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("body-{:016x}", rand::random::<u64>()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // Fails only when the runtime is stopping.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|err| Err(io::Error::other(err)))
}

impl Writing {
    /// Adds to it.
    pub(super) async fn add(&mut self, data: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= PIECE { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> io::Result<()> {
        let piece = self.gathered.split().freeze();
        let (file, at) = (Arc::clone(&self.file), offset(self.written));
        self.written += piece.len();
        blocking(move || file.write_all_at(&piece, at)).await
    }

    /// The body, once all of it is there.
    pub(super) async fn finish(mut self) -> io::Result<Spool> {
        self.write().await?;
        let Self { file, written, .. } = self;
        // Nobody else has it: what wrote last has ended.
        let file = Arc::try_unwrap(file).map_err(|_| io::Error::other("the file is in use"))?;
        Ok(Spool { file, length: written })
    }
}

impl Spool {
    /// How long it is.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The piece that begins at `at`; empty at the end.  Blocks.
    pub fn piece(&self, at: usize) -> io::Result<Bytes> {
        let mut piece = vec![0; PIECE.min(self.length.saturating_sub(at))];
        self.file.read_exact_at(&mut piece, offset(at))?;
        Ok(piece.into())
    }

    /// The same without blocking.
    pub(crate) async fn piece_at(self: &Arc<Self>, at: usize) -> io::Result<Bytes> {
        let spool = Arc::clone(self);
        blocking(move || spool.piece(at)).await
    }

    /// Reads it from its beginning.  Blocks.
    pub fn reader(&self) -> Reader<'_> {
        Reader { spool: self, at: 0, piece: Bytes::new() }
    }
}

fn offset(at: usize) -> u64 {
    u64::try_from(at).unwrap_or(u64::MAX)
}

/// Reads a spooled body.
#[derive(Debug)]
pub struct Reader<'s> {
    spool: &'s Spool,
    at: usize,
    piece: Bytes,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.spool.piece(self.at)?;
            self.at += self.piece.len();
        }
        let length = self.piece.len().min(buffer.len());
        let part = self.piece.split_to(length);
        if let Some(room) = buffer.get_mut(..length) {
            room.copy_from_slice(&part);
        }
        Ok(length)
    }
}

/// Where a spooled body stops to be UTF-8, if it does.  Blocks.
pub fn not_utf8_at(spool: &Spool) -> io::Result<Option<usize>> {
    let mut before = 0;
    // A character that the end of a piece goes through is looked at again with the next piece.
    let mut open: Vec<u8> = Vec::new();
    let mut at = 0;
    loop {
        let piece = spool.piece(at)?;
        if piece.is_empty() {
            return Ok((!open.is_empty()).then_some(before));
        }
        at += piece.len();
        open.extend_from_slice(&piece);
        match std::str::from_utf8(&open) {
            Ok(_) => {
                before += open.len();
                open.clear();
            }
            Err(err) if err.error_len().is_none() => {
                before += err.valid_up_to();
                open.drain(..err.valid_up_to());
            }
            Err(err) => return Ok(Some(before + err.valid_up_to())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    async fn spooled(body: &[u8]) -> Spool {
        let dir = tempfile::tempdir().unwrap();
        let mut writing = Spools::in_folder(dir.path()).begin().await.unwrap();
        for part in body.chunks(100_003) {
            writing.add(part).await.unwrap();
        }
        // It has no name.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        writing.finish().await.unwrap()
    }

    #[tokio::test]
    async fn a_body_comes_out_as_it_went_in() {
        let body: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let spool = spooled(&body).await;
        assert_eq!(spool.len(), body.len());
        let mut read = Vec::new();
        spool.reader().read_to_end(&mut read).unwrap();
        assert!(read == body);
    }

    #[tokio::test]
    async fn characters_go_through_the_ends_of_pieces() {
        let text = "ö".repeat(PIECE);
        // One byte first, so that every piece ends within a character.
        let spool = spooled(format!("x{text}").as_bytes()).await;
        assert_eq!(not_utf8_at(&spool).unwrap(), None);
        let mut broken = format!("x{text}").into_bytes();
        broken[PIECE * 2 - 1] = 0xff;
        assert_eq!(not_utf8_at(&spooled(&broken).await).unwrap(), Some(PIECE * 2 - 1));
        broken = vec![b'x'; PIECE];
        broken.push(0xc3);
        assert_eq!(not_utf8_at(&spooled(&broken).await).unwrap(), Some(PIECE));
    }
}
