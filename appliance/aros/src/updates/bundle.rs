//! Bundles on this box: the one that was uploaded, and the one that was installed last, which neighbours stream.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use arapi::aros::BundleInfo;
use arapi::error::ErrorCode;
use arbase::http::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::rauc::{self, InstallerProxy};
use crate::config::Config;
use crate::server::App;

/// Bytes that an upload leaves free on `data`, so that the box's work goes on.
const RESERVE: u64 = 32 << 20;
/// Read at once while serving.
const CHUNK: usize = 128 << 10;

/// Held by the one upload that is taken at a time.
static UPLOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A file in the making, which gives its room back however the making ends, unless it was renamed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                log::warn!(path:% = self.0.display(), error:% = err; "what was uploaded in part cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Where an uploaded bundle waits for its installation.
pub(crate) fn waiting(config: &Config) -> PathBuf {
    config.data_dir.join("bundle.raucb")
}

/// The bundle that was installed last.
fn kept(config: &Config) -> PathBuf {
    config.data_dir.join("installed.raucb")
}

/// Keeps the bundle that was just installed, for neighbours.
pub(crate) async fn keep(config: &Config) -> std::io::Result<()> {
    tokio::fs::rename(waiting(config), kept(config)).await
}

/// Gives back the room of an uploaded bundle that cannot be installed.
pub(crate) async fn discard(config: &Config) {
    if let Err(err) = remove(&waiting(config)).await {
        log::warn!(error:% = err; "the uploaded bundle cannot be removed");
    }
}

/// Takes an upload: durable and looked at by RAUC before it is accepted.
pub(crate) async fn receive(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<BundleInfo, ApiError> {
    let config = &app.config;
    if app.updates.install.status().is_some_and(|install| install.state == "running") {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            "an installation runs; send the bundle after its end",
        ));
    }
    let Ok(_only) = UPLOAD.try_lock() else {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            "another upload of a bundle runs; wait for its end",
        ));
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or_default();
    refuse_size(config, announced)?;
    let io = |err: std::io::Error| match err.kind() {
        std::io::ErrorKind::StorageFull => no_room(config),
        _ => ApiError::internal("keep the bundle", &err),
    };
    tokio::fs::create_dir_all(&config.data_dir).await.map_err(io)?;
    // What was uploaded before and not installed gives its room, and what a power cut left of an upload.
    let part = Part(config.data_dir.join("bundle.part"));
    remove(&part.0).await.map_err(io)?;
    remove(&waiting(config)).await.map_err(io)?;
    if free(&config.data_dir).is_some_and(|free| free < announced.saturating_add(RESERVE)) {
        // The neighbours' copy is worth less than this update.
        remove(&kept(config)).await.map_err(io)?;
    }
    if free(&config.data_dir).is_some_and(|free| free < announced.saturating_add(RESERVE)) {
        return Err(no_room(config));
    }
    let (bytes, sha256) = store(config, &part.0, body).await?;
    let found = look(app, &part.0).await?;
    tokio::fs::rename(&part.0, waiting(config)).await.map_err(io)?;
    File::open(&config.data_dir).await.map_err(io)?.sync_all().await.map_err(io)?;
    Ok(BundleInfo { compatible: found.compatible, version: found.version, bytes, sha256 })
}

async fn look(app: &App, path: &Path) -> Result<rauc::Bundle, ApiError> {
    let rauc = InstallerProxy::new(&app.bus)
        .await
        .map_err(|err| ApiError::internal("reach RAUC", &err))?;
    rauc::inspect(&rauc, &path.display().to_string(), HashMap::new())
        .await
        .map_err(|said| ApiError::new(ErrorCode::Refused, rauc::sentence(&said)))
}

fn refuse_size(config: &Config, bytes: u64) -> Result<(), ApiError> {
    if bytes <= config.max_bundle_bytes {
        return Ok(());
    }
    let message = format!(
        "the bundle is larger than the {} bytes that are taken; is it a bundle at all?",
        config.max_bundle_bytes
    );
    Err(ApiError::new(ErrorCode::TooLarge, message))
}

fn no_room(config: &Config) -> ApiError {
    let message = format!(
        "no room for the bundle in `{}`; remove what is not needed there, or install from an address, which needs no room",
        config.data_dir.display()
    );
    ApiError::new(ErrorCode::NoRoom, message)
}

async fn store(config: &Config, part: &Path, body: Body) -> Result<(u64, String), ApiError> {
    let io = |err: std::io::Error| match err.kind() {
        std::io::ErrorKind::StorageFull => no_room(config),
        _ => ApiError::internal("keep the bundle", &err),
    };
    let mut file = File::create(part).await.map_err(io)?;
    let mut digest = Sha256::new();
    let mut bytes: u64 = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|err| {
            ApiError::invalid(format!("the upload broke off after {bytes} bytes: {err}"))
        })?;
        bytes = bytes.saturating_add(chunk.len() as u64);
        refuse_size(config, bytes)?;
        digest.update(&chunk);
        file.write_all(&chunk).await.map_err(io)?;
    }
    file.flush().await.map_err(io)?;
    file.sync_all().await.map_err(io)?;
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, sha256))
}

async fn remove(path: &Path) -> std::io::Result<()> {
    match tokio::fs::remove_file(path).await {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn free(dir: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Serves the bundle that was installed last, whole or a range of it (RFC 9110, section 14), as RAUC streams it.
pub(crate) async fn serve(app: &App, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let none = || {
        ApiError::not_found(
            "no bundle is kept here: none was uploaded and installed, or its room was needed",
        )
    };
    let mut file = File::open(kept(&app.config)).await.map_err(|_| none())?;
    let internal = |err: std::io::Error| ApiError::internal("serve the bundle", &err);
    let bytes = file.metadata().await.map_err(internal)?.len();
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, "application/vnd.rauc.bundle")
        .header(header::ACCEPT_RANGES, "bytes");
    let (first, length) = match asked.map(|asked| range(asked, bytes)) {
        None | Some(Range::Whole) => (0, bytes),
        Some(Range::Part(first, length)) => {
            let last = first.saturating_add(length).saturating_sub(1);
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{bytes}"));
            (first, length)
        }
        Some(Range::Beyond) => {
            return response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{bytes}"))
                .body(Body::empty())
                .map_err(|err| ApiError::internal("serve the bundle", &err));
        }
    };
    file.seek(SeekFrom::Start(first)).await.map_err(internal)?;
    let chunks = futures_util::stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok::<_, std::io::Error>(None);
        }
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = vec![0; most];
        file.read_exact(&mut chunk).await?;
        Ok(Some((chunk, (file, left - most as u64))))
    });
    response
        .header(header::CONTENT_LENGTH, length)
        .body(Body::from_stream(chunks))
        .map_err(|err| ApiError::internal("serve the bundle", &err))
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From here, so many bytes.
    Part(u64, u64),
    /// Something else than one range of bytes was asked for, which may be answered with the whole.
    Whole,
    /// Nothing of it is there.
    Beyond,
}

fn range(asked: &str, bytes: u64) -> Range {
    let Some((first, last)) = asked.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Range::Whole;
    };
    match (first.trim(), last.trim()) {
        ("", last) => match last.parse::<u64>() {
            Ok(0) => Range::Beyond,
            Ok(length) => Range::Part(bytes.saturating_sub(length), length.min(bytes)),
            Err(_) => Range::Whole,
        },
        (first, last) => {
            let end = if last.is_empty() { Ok(u64::MAX) } else { last.parse::<u64>() };
            match (first.parse::<u64>(), end) {
                (Ok(first), Ok(last)) if first <= last => {
                    if first >= bytes {
                        return Range::Beyond;
                    }
                    let last = last.min(bytes.saturating_sub(1));
                    Range::Part(first, last.saturating_sub(first).saturating_add(1))
                }
                _ => Range::Whole,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_ends_too_early_gives_its_room_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole) = (dir.path().join("bundle.part"), dir.path().join("bundle.raucb"));
        let part = Part(path.clone());
        std::fs::write(&part.0, "half").unwrap();
        drop(part);
        assert!(!path.try_exists().unwrap());
        let part = Part(path);
        std::fs::write(&part.0, "whole").unwrap();
        std::fs::rename(&part.0, &whole).unwrap();
        drop(part);
        assert_eq!(std::fs::read(whole).unwrap(), b"whole");
    }

    #[test]
    fn ranges_are_cut_to_what_is_there() {
        assert_eq!(range("bytes=0-3", 10), Range::Part(0, 4));
        assert_eq!(range("bytes=4-", 10), Range::Part(4, 6));
        assert_eq!(range("bytes=4-99", 10), Range::Part(4, 6));
        assert_eq!(range("bytes=-3", 10), Range::Part(7, 3));
        assert_eq!(range("bytes=10-", 10), Range::Beyond);
        assert_eq!(range("bytes=0-1,3-4", 10), Range::Whole);
        assert_eq!(range("lines=1-2", 10), Range::Whole);
    }
}
