//! What is still to be written to a worker, in order.
//!
//! Small frames are put together in one buffer; large bodies are kept as they are and not copied, spooled ones read from
//! their file a piece at a time.  Whoever writes
//! takes everything there is at once: one system call then carries the frames of many calls.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;

use crate::http::spool::Spool;

/// Bodies from this size on are not copied.
const LARGE: usize = 16 * 1024;
/// A buffer that has grown beyond this is not kept.
const KEPT: usize = 256 * 1024;
/// Pieces handed to the kernel at once.
const PIECES: usize = 64;

/// A part that is not in the tail.
#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    /// What of a spooled body comes after so many bytes.
    Spooled(Arc<Spool>, usize),
}

/// Bytes in order: whole pieces, then the buffer that still grows.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    tail: Vec<u8>,
}

impl Outbox {
    /// Whether there is nothing to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    /// Where frames are written.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Adds the body that belongs behind what was just written to the tail.
    pub(crate) fn push_body(&mut self, body: &Bytes) {
        if body.len() < LARGE {
            self.tail.extend_from_slice(body);
        } else {
            self.close_tail();
            self.pieces.push_back(Piece::Bytes(body.clone()));
        }
    }

    /// The same for a spooled one.
    pub(crate) fn push_spool(&mut self, spool: &Arc<Spool>) {
        self.close_tail();
        self.pieces.push_back(Piece::Spooled(Arc::clone(spool), 0));
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Piece::Bytes(std::mem::take(&mut self.tail).into()));
        }
    }

    /// Writes everything, which empties it; a tail of usual size keeps its memory.
    pub(crate) async fn write_to(&mut self, socket: &mut OwnedWriteHalf) -> std::io::Result<()> {
        if !self.pieces.is_empty() {
            self.close_tail();
            while let Some(front) = self.pieces.front_mut() {
                if let Piece::Spooled(spool, at) = front {
                    let piece = spool.piece_at(*at).await?;
                    *at += piece.len();
                    if piece.is_empty() {
                        self.pieces.pop_front();
                    } else {
                        socket.write_all(&piece).await?;
                    }
                    continue;
                }
                let slices: Vec<IoSlice<'_>> = self
                    .pieces
                    .iter()
                    .map_while(|piece| match piece {
                        Piece::Bytes(bytes) => Some(IoSlice::new(bytes)),
                        Piece::Spooled(..) => None,
                    })
                    .take(PIECES)
                    .collect();
                let mut written = socket.write_vectored(&slices).await?;
                if written == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                while let Some(Piece::Bytes(front)) = self.pieces.front_mut() {
                    let now = written.min(front.len());
                    front.advance(now);
                    written -= now;
                    if !front.is_empty() {
                        break;
                    }
                    self.pieces.pop_front();
                }
            }
        }
        socket.write_all(&self.tail).await?;
        self.tail.clear();
        if self.tail.capacity() > KEPT {
            self.tail = Vec::new();
        }
        Ok(())
    }
}
