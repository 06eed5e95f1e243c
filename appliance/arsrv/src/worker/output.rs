//! What services print and log, as lines of our log.
//!
//! **Invariant:** a service that prints without end costs neither memory nor much time here: lines beyond a rate are
//! counted and left out, and then its pipe is read slowly.

use std::borrow::Cow;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use log::Level;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line; the rest of it is cut off.
const LINE: usize = 8 * 1024;
/// Lines a second in the long run, and at once.
const PRINTED: (f64, f64) = (200.0, 2000.0);
const LOGGED: (f64, f64) = (5000.0, 50_000.0);

/// Lets so many lines a second pass.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    rate: f64,
    most: f64,
    left: f64,
    filled: Instant,
    left_out: u64,
}

impl Throttle {
    /// For LOG frames.
    pub(crate) fn logged() -> Self {
        Self::of(LOGGED)
    }

    fn of((rate, most): (f64, f64)) -> Self {
        let bucket = Bucket { rate, most, left: most, filled: Instant::now(), left_out: 0 };
        Self(Mutex::new(bucket))
    }

    /// Whether a line may pass; with it, how many were left out before it.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.left = bucket.most.min(since.mul_add(bucket.rate, bucket.left));
        bucket.filled = now;
        // Once dry, it opens again with a tenth of a second's worth, so that the notes of lines left out stay few.
        let needed = if bucket.left_out > 0 { (bucket.rate / 10.0).max(1.0) } else { 1.0 };
        if bucket.left < needed {
            bucket.left_out += 1;
            return None;
        }
        bucket.left -= 1.0;
        Some(std::mem::take(&mut bucket.left_out))
    }
}

/// A LOG frame.
#[derive(Debug, Deserialize)]
pub(crate) struct LogFrame<'a> {
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    logger: Cow<'a, str>,
    #[serde(borrow, default)]
    cid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

impl<'a> LogFrame<'a> {
    /// Reads one.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// Puts it into our log, as a line of the service.
    pub(crate) fn log(&self, worker: &str, throttle: &Throttle) {
        let level = match self.level.as_ref() {
            "error" | "critical" => Level::Error,
            "warn" | "warning" => Level::Warn,
            "debug" => Level::Debug,
            _ => Level::Info,
        };
        if level > log::max_level() {
            return;
        }
        let Some(left_out) = throttle.pass(Instant::now()) else {
            return;
        };
        let target = format!("service:{}", self.logger);
        note_left_out(worker, left_out);
        match &self.cid {
            Some(cid) => log::log!(target: &target, level, cid:% = cid; "{}", self.message),
            None => log::log!(target: &target, level, worker; "{}", self.message),
        }
    }
}

fn note_left_out(worker: &str, lines: u64) {
    if lines > 0 {
        log::warn!(worker, lines; "log lines left out: there were too many");
    }
}

/// Reads a worker's stdout or stderr to its end.  `keep` is given every line that passes.
pub(crate) async fn follow(
    mut pipe: impl AsyncRead + Unpin,
    worker: String,
    level: Level,
    mut keep: impl FnMut(&str),
) {
    let throttle = Throttle::of(PRINTED);
    let mut lines = Lines::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let got = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(got) => got,
        };
        let mut dropped = false;
        let piece = buffer.get(..got).unwrap_or_default();
        lines.split(piece, &mut |line| {
            if let Some(left_out) = throttle.pass(Instant::now()) {
                note_left_out(&worker, left_out);
                keep(line);
                log::log!(level, worker = worker.as_str(); "{line}");
            } else {
                dropped = true;
            }
        });
        if dropped {
            // At most 64 KiB each 10 ms: the service has to wait, the core does not work for it.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    lines.end(&mut |line| {
        keep(line);
        log::log!(level, worker = worker.as_str(); "{line}");
    });
}

/// Cuts a stream into lines of bounded length.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn split(&mut self, piece: &[u8], each: &mut dyn FnMut(&str)) {
        let mut parts = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = LINE.saturating_sub(self.partial.len()).min(part.len());
            self.partial.extend_from_slice(part.get(..room).unwrap_or_default());
            if parts.peek().is_some() {
                self.end(each);
            }
        }
    }

    fn end(&mut self, each: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.partial);
        let line = text.trim_end();
        if !line.is_empty() {
            each(line);
        }
        drop(text);
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for piece in pieces {
            lines.split(piece, &mut |line| got.push(line.to_owned()));
        }
        lines.end(&mut |line| got.push(line.to_owned()));
        got
    }

    #[test]
    fn lines_come_whole_however_they_were_read() {
        assert_eq!(lines_of(&[b"on", b"e\ntwo\n\nth", b"ree"]), ["one", "two", "three"]);
        assert_eq!(lines_of(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = vec![b'x'; LINE * 3];
        let lines = lines_of(&[&long, b"y\nnext"]);
        assert_eq!((lines[0].len(), lines[1].as_str()), (LINE, "next"));
    }

    #[test]
    fn lines_beyond_the_rate_are_counted_and_left_out() {
        let throttle = Throttle::of((10.0, 5.0));
        let start = Instant::now();
        let passed = (0..100).filter(|_| throttle.pass(start).is_some()).count();
        assert_eq!(passed, 5);
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.pass(later), Some(95));
        assert_eq!(throttle.pass(later), Some(0));
    }
}
