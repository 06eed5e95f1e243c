//! Reads request bodies within bounds, unpacking them where they are packed.
//!
//! A body is read whole, because a service gets it whole; so its size is bounded twice: by its channel, and,
//! together with all other large ones, by a budget.  The largest lie in a [`super::spool`] instead of memory.  What does not fit the budget is left in the client's
//! hands: it is not read until others are done.
//!
//! **Invariant:** whoever waits for the budget holds none of it, so waiting always ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::gzip::{self, Coding, Unpacker};
use super::spool::{self, Spool, Spools};

/// Bodies up to this size need no budget.
const SMALL: usize = 1024 * 1024;
/// The budget is counted in units of this many bytes.
const UNIT: usize = 64 * 1024;
/// Largest body that fits a frame to a worker, with room for what goes with it.
pub const LARGEST: usize = 250 * 1024 * 1024;

/// What all large bodies together may take.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    all: usize,
}

/// A body in memory; its part of the budget is free again once this is dropped.
#[derive(Debug)]
pub struct Whole {
    /// The body, if it is not spooled.
    pub bytes: Bytes,
    spool: Option<Arc<Spool>>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Larger than allowed.
    #[error("request body is larger than the {limit} bytes this channel takes")]
    TooLarge {
        /// How much is.
        limit: usize,
    },
    /// Larger than allowed once it is unpacked.
    #[error("request body is larger than the {limit} bytes this channel takes once it is unpacked")]
    TooLargeUnpacked {
        /// How much is.
        limit: usize,
    },
    /// It would unpack to many times its length.
    #[error("request body swells too much by being unpacked; send it without Content-Encoding")]
    Swells,
    /// It says that it is gzip and is not.
    #[error("request body is not gzip, though its Content-Encoding says so, or it is not complete")]
    NotGzip,
    /// Too many large ones at once.
    #[error(
        "request body cannot be taken now: other large requests fill the memory for them; try again"
    )]
    Full,
    /// Not there in time.
    #[error("request body did not arrive within {limit:?}")]
    Late {
        /// How long was waited.
        limit: Duration,
    },
    /// There is no room on disk, or no disk.
    #[error("request body cannot be taken now: it cannot be kept on disk; try again")]
    Disk(#[source] std::io::Error),
    /// The client broke off, or sent no HTTP.
    #[error("request body broke off")]
    Broken(#[source] hyper::Error),
}

impl Budget {
    /// A budget of `bytes`.
    pub fn of(bytes: usize) -> Self {
        let all = bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(all)), all }
    }

    async fn take(&self, bytes: usize, until: Instant) -> Result<OwnedSemaphorePermit, BodyError> {
        // One body may be larger than the budget: it then takes all of it.
        let units = u32::try_from(bytes.div_ceil(UNIT).min(self.all)).unwrap_or(u32::MAX);
        let taking = Arc::clone(&self.units).acquire_many_owned(units);
        // The inner error would be that of a closed semaphore, and nobody closes it.
        match tokio::time::timeout_at(until, taking).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(BodyError::Full),
        }
    }
}

impl Whole {
    /// Nothing.
    pub fn empty() -> Self {
        Self { bytes: Bytes::new(), spool: None, permit: None }
    }

    /// Parts it into the bytes, what is spooled instead of them, and what holds the budget.
    pub fn into_parts(self) -> (Bytes, Option<Arc<Spool>>, impl Send) {
        (self.bytes, self.spool, self.permit)
    }
}

/// Reads a body of at most `limit` bytes, waiting no longer than `time`.  Where there are `spools`, one that is too large
/// for memory ends up there.
pub async fn read(
    body: Incoming,
    coding: Coding,
    limit: usize,
    time: Duration,
    budget: &Budget,
    spools: Option<&Spools>,
) -> Result<Whole, BodyError> {
    if body.is_end_stream() {
        return Ok(Whole::empty());
    }
    let limit = limit.min(LARGEST);
    let declared = body.size_hint().exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if declared.is_some_and(|size| size > limit) {
        return Err(BodyError::TooLarge { limit });
    }
    let until = Instant::now() + time;
    let reading = async {
        match coding {
            Coding::Identity => read_all(body, declared, limit, until, budget, spools).await,
            Coding::Gzip => Box::pin(unpack_all(body, limit, until, budget)).await,
        }
    };
    match tokio::time::timeout_at(until, reading).await {
        Ok(read) => read,
        Err(_) => Err(BodyError::Late { limit: time }),
    }
}

async fn unpack_all(
    mut body: Incoming,
    limit: usize,
    until: Instant,
    budget: &Budget,
) -> Result<Whole, BodyError> {
    let mut permit = None;
    let mut unpacker = Unpacker::new(limit);
    let refused = |fault| match fault {
        gzip::Fault::TooLarge => BodyError::TooLargeUnpacked { limit },
        gzip::Fault::Swells => BodyError::Swells,
        gzip::Fault::Broken => BodyError::NotGzip,
    };
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        while !data.is_empty() {
            let before = unpacker.unpacked();
            unpacker.take(&mut data).map_err(refused)?;
            if unpacker.unpacked() > SMALL && permit.is_none() {
                permit = Some(budget.take(limit, until).await?);
            }
            // A step that unpacked to much took its time; others are to have theirs.
            if unpacker.unpacked() - before > UNIT {
                tokio::task::yield_now().await;
            }
        }
    }
    let bytes = unpacker.finish().map_err(refused)?;
    Ok(Whole { bytes, spool: None, permit })
}

async fn read_all(
    mut body: Incoming,
    declared: Option<usize>,
    limit: usize,
    until: Instant,
    budget: &Budget,
    spools: Option<&Spools>,
) -> Result<Whole, BodyError> {
    let mut permit = match declared {
        Some(size) if size > SMALL => Some(budget.take(size, until).await?),
        Some(_) | None => None,
    };
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut read = 0;
    let mut spooling = match spools.filter(|_| declared.is_some_and(|size| size >= spool::FROM)) {
        Some(spools) => Some(spools.begin().await.map_err(BodyError::Disk)?),
        None => None,
    };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        read += data.len();
        if let Some(writing) = &mut spooling {
            if read > limit {
                return Err(BodyError::TooLarge { limit });
            }
            writing.add(&data).await.map_err(BodyError::Disk)?;
            continue;
        }
        if first.is_empty() && more.is_empty() {
            // Nearly every body comes in one piece and needs no copy.
            first = data;
        } else {
            if more.is_empty() {
                more.reserve(declared.unwrap_or(first.len() + data.len()));
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
        if read > limit {
            return Err(BodyError::TooLarge { limit });
        }
        if read > SMALL && permit.is_none() {
            // Of unknown size: it may become as large as it is allowed to.
            permit = Some(budget.take(limit, until).await?);
        }
        if read >= spool::FROM
            && let Some(spools) = spools
        {
            let mut writing = spools.begin().await.map_err(BodyError::Disk)?;
            writing.add(&first).await.map_err(BodyError::Disk)?;
            writing.add(&more).await.map_err(BodyError::Disk)?;
            (first, more) = (Bytes::new(), BytesMut::new());
            spooling = Some(writing);
        }
    }
    if let Some(writing) = spooling {
        let spool = Some(Arc::new(writing.finish().await.map_err(BodyError::Disk)?));
        return Ok(Whole { bytes: Bytes::new(), spool, permit });
    }
    let bytes = if more.is_empty() { first } else { more.freeze() };
    Ok(Whole { bytes, spool: None, permit })
}
