//! The support bundle: what someone needs who was not there, in one archive, without secrets.
//!
//! Built while it is sent: nothing of it lies on the disk, which may be full.
//!
//! **Invariant:** no value of a secret of the store leaves in it, whoever may have logged it; nor does the claim code, a
//! password or the peer token.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arbase::Chain;
use arbase::http::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{console, units};
use crate::server::App;

/// Lines of the journal of each boot, the newest.
const LINES: &str = "--lines=20000";
/// What stands where a secret stood.
const REMOVED: &str = "(secret removed)";
/// What stands before a claim code, at a line's begin with a capital.
const CODE_WORD: &str = "ode";
/// Characters of a claim code.
const CODE_LENGTH: usize = 9;
/// A shorter value stands for too much else: it would be removed everywhere and tell itself by that.
const SHORTEST: usize = 6;

/// `GET /v1/support/bundle`: a `tar.gz`.
pub(super) async fn bundle_read(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let secrets = secrets(&app).await;
    let mut files: Vec<(&str, Vec<u8>)> = vec![
        ("status.json", json(&super::status::status(&app).await)),
        ("network.json", json(&app.system.network.status(&app).await)),
        ("identity.json", json(&app.system.identity.wire())),
    ];
    match units::list(&app).await {
        Ok(units) => files.push(("units.json", json(&units))),
        Err(err) => files.push(("units.txt", Chain(&err).to_string().into_bytes())),
    }
    match crate::updates::black_box_view(&app).await {
        Ok(view) => files.push(("blackbox.json", json(&view))),
        Err(err) => files.push(("blackbox.txt", Chain(&err).to_string().into_bytes())),
    }
    for (name, path) in [
        ("os-release", "/etc/os-release"),
        ("cmdline", "/proc/cmdline"),
        ("boot.json", "/run/arint-boot.json"),
        ("meminfo", "/proc/meminfo"),
        ("mounts", "/proc/self/mounts"),
        ("partitions", "/proc/partitions"),
        ("pressure-memory", "/proc/pressure/memory"),
        ("pressure-io", "/proc/pressure/io"),
    ] {
        if let Ok(bytes) = std::fs::read(path) {
            files.push((name, bytes));
        }
    }
    let folder = format!("{}-{}", arbase::host::name(), arbase::time::now_ms() / 1000);
    let disposition = format!("attachment; filename=\"{folder}.tar.gz\"");
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        if let Err(err) = write(Pipe(sender), &folder, &files, &secrets) {
            // The reader has gone, most likely; it sees a short archive otherwise.
            log::warn!(error:% = Chain(&err); "support bundle broke off");
        }
    });
    let bytes = futures_util::stream::unfold(receiver, async |mut receiver| {
        let part: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(part), receiver))
    });
    log::info!("support bundle read");
    let headers = [
        (http::header::CONTENT_TYPE, "application/gzip".to_owned()),
        (http::header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// Every text that must not leave.
async fn secrets(app: &App) -> Secrets {
    let mut values = BTreeSet::new();
    let store = &app.system.store;
    match store.secret_names().await {
        Ok(names) => {
            for name in names {
                match store.secret(&name).await {
                    Ok(value) => drop(values.insert(value.0)),
                    Err(err) => {
                        log::warn!(name, error:% = Chain(&err); "secret cannot be removed from the bundle")
                    }
                }
            }
        }
        Err(err) => {
            log::warn!(error:% = Chain(&err); "secrets of the store are not known to the bundle")
        }
    }
    for file in [console::FIRST_RUN_CODE, arapi::client::PEER_TOKEN] {
        if let Ok(text) = std::fs::read_to_string(app.config.runtime_dir.join(file)) {
            values.insert(text.trim().to_owned());
        }
    }
    Secrets::new(values)
}

/// Values that are taken out of texts.
#[derive(Debug, Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut all = BTreeSet::new();
        for value in values {
            // As it is, as JSON has it, and each of its lines, because the journal cuts at them.
            let written = serde_json::to_string(&value).unwrap_or_default();
            all.extend(written.get(1..written.len() - 1).map(ToOwned::to_owned));
            all.extend(value.lines().map(ToOwned::to_owned));
            all.insert(value);
        }
        let mut all: Vec<String> = all.into_iter().filter(|text| text.len() >= SHORTEST).collect();
        // The longest first: one may be a part of another.
        all.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Self(all)
    }

    fn removed_from(&self, bytes: &[u8]) -> Vec<u8> {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REMOVED);
            }
        }
        without_codes(&text).into_bytes()
    }
}

/// Takes out claim codes, which nobody knows any more once the box is claimed: the first start's log has one.
fn without_codes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(CODE_WORD) {
        kept.push_str(before);
        kept.push_str(CODE_WORD);
        let word = behind.trim_start_matches([':', ' ']);
        let (gap, word) = behind.split_at(behind.len() - word.len());
        kept.push_str(gap);
        rest = word;
        if let Some((code, after)) = word.split_at_checked(CODE_LENGTH)
            && is_code(code)
        {
            kept.push_str(REMOVED);
            rest = after;
        }
    }
    kept.push_str(rest);
    kept
}

/// Whether a word has the form of a claim code, `K7PM-2XQH`.
fn is_code(word: &str) -> bool {
    word.bytes().enumerate().all(|(at, byte)| match (at, byte) {
        (4, byte) => byte == b'-',
        (_, b'2'..=b'9') => true,
        (_, b'I' | b'L' | b'O' | b'U') => false,
        (_, byte) => byte.is_ascii_uppercase(),
    })
}

/// Sends what is written, in parts.
struct Pipe(mpsc::Sender<Bytes>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let part = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(part).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write(
    pipe: Pipe,
    folder: &str,
    files: &[(&str, Vec<u8>)],
    secrets: &Secrets,
) -> std::io::Result<()> {
    let buffered = std::io::BufWriter::with_capacity(64 * 1024, pipe);
    let mut archive = tar::Builder::new(GzEncoder::new(buffered, Compression::default()));
    for (name, bytes) in files {
        append(&mut archive, folder, name, &secrets.removed_from(bytes))?;
    }
    for (name, arguments) in [
        ("journal.txt", ["--boot=0", LINES].as_slice()),
        ("journal-last-boot.txt", ["--boot=-1", LINES].as_slice()),
        ("kernel.txt", ["--boot=0", "--dmesg", LINES].as_slice()),
    ] {
        let text = journal(arguments);
        append(&mut archive, folder, name, &secrets.removed_from(&text))?;
    }
    archive.into_inner()?.finish()?.flush()
}

/// Lines of the journal, or why there are none: there is no last boot on the first one.
fn journal(arguments: &[&str]) -> Vec<u8> {
    let read = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=short-iso-precise", "--no-hostname"])
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    match read {
        Ok(output) if output.stdout.is_empty() => output.stderr,
        Ok(output) => output.stdout,
        Err(err) => format!("journalctl does not start: {err}\n").into_bytes(),
    }
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    folder: &str,
    name: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len().try_into().unwrap_or_default());
    header.set_mode(0o600);
    header.set_mtime(arbase::time::now_ms() / 1000);
    archive.append_data(&mut header, format!("{folder}/{name}"), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_however_they_were_written() {
        let secrets = Secrets::new(
            ["hunter2-hunter2", "with \"quotes\"", "line one\nline two", "12345"].map(Into::into),
        );
        let removed =
            |text: &str| String::from_utf8(secrets.removed_from(text.as_bytes())).unwrap();
        assert_eq!(removed("password=hunter2-hunter2;"), "password=(secret removed);");
        assert_eq!(removed("\"with \\\"quotes\\\"\""), "\"(secret removed)\"");
        assert_eq!(removed("x line two y"), "x (secret removed) y");
        assert_eq!(
            removed("claim it with the code ZZK3-94AH\nCode:  ZZK3-94AH, exit code 2 or K7PM-2XQH"),
            "claim it with the code (secret removed)\nCode:  (secret removed), exit code 2 or K7PM-2XQH"
        );
        assert_eq!(removed("port 12345"), "port 12345", "too short to be told from anything else");
    }
}
