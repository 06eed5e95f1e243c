//! Passing a request of a channel on: attempts, waits and what the circuit breaker says, as for calls of services, but
//! for messages that are not read.
//!
//! A request is tried again only where that is safe: nothing of it was sent, or its method is idempotent and all of it
//! is here.  An answer that has begun is the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arapi::names::Cid;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::attempt::{self, Came, Failed};
use super::breaker::Ended;
use super::connection::{CallError, Cause, Presents, Rest, RestCall};
use super::download::Download;
use super::upload::{Lender, Upload, UploadFault, Waits};
use super::way::Way;

/// Bodies of a known length up to this are read whole: the connection is free sooner, and what breaks off within
/// one is a failure that can be told.
pub const HELD: u64 = 64 * 1024;

/// A request to be passed on.
#[derive(Debug)]
pub struct Passing<'r> {
    /// Its method.
    pub method: Method,
    /// What stands for the parameters of the connection's path.
    pub params: &'r [(&'r str, String)],
    /// Its query, as it was written.
    pub query: Option<&'r str>,
    /// Its headers; without a `Host` it gets the connection's.
    pub headers: HeaderMap,
    /// Its body.
    pub upload: Upload,
    /// Until when the answer has to begin.
    pub deadline: Instant,
    /// Its id.
    pub cid: &'r Cid,
}

/// What came back.
#[derive(Debug)]
pub struct PassedBack {
    /// The status.
    pub status: StatusCode,
    /// The headers, as they came.
    pub headers: HeaderMap,
    /// The body.
    pub body: Carried,
}

/// A body that came back.
#[derive(Debug)]
pub enum Carried {
    /// All of it.
    Whole(Bytes),
    /// As it comes.
    Streamed(Box<Download>),
}

/// Why nothing came back.
#[derive(Debug)]
pub enum PassError {
    /// The call failed.
    Call(CallError),
    /// The client's body could not be passed on.
    Upload(UploadFault),
    /// The client did not send all of its body in time.
    ClientLate,
}

impl From<CallError> for PassError {
    fn from(err: CallError) -> Self {
        Self::Call(err)
    }
}

/// Who was waited for in vain.
enum Late {
    Client,
    OtherSide(Duration),
}

impl Rest {
    /// Passes a request on.
    pub async fn pass(self: &Arc<Self>, passing: Passing<'_>) -> Result<PassedBack, PassError> {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        let (cid, started) = (passing.cid, Instant::now());
        let ended = self.pass_on(passing).await;
        let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
        match &ended {
            Ok(back) => {
                if self.is_failure(back.status) {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                }
                log::debug!(
                    cid:% = cid, connection = self.name, status = back.status.as_u16(), elapsed_ms;
                    "request passed on"
                );
            }
            Err(PassError::Call(err)) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                log::warn!(
                    cid:% = cid, connection = self.name, error:% = arbase::Chain(err), elapsed_ms;
                    "request could not be passed on"
                );
            }
            // Told by whoever answers the client: the connection has no part in it.
            Err(PassError::Upload(_) | PassError::ClientLate) => {}
        }
        ended
    }

    async fn pass_on(self: &Arc<Self>, mut passing: Passing<'_>) -> Result<PassedBack, PassError> {
        self.usable()?;
        let way = self.way()?;
        let uri = way
            .uri(passing.params, passing.query)
            .map_err(|source| CallError::Address { name: self.name.clone(), source })?;
        if let Presents::Ntlm(_) = &self.basis.presents {
            return self.pass_by_lane(passing, &uri).await;
        }
        if !passing.headers.contains_key(HOST) {
            passing.headers.insert(HOST, way.host.clone());
        }
        let made = self.present(&mut passing.headers, passing.deadline, None).await?;
        let back = self.pass_attempts(way, &uri, &passing).await?;
        let (Some(made), Presents::Oauth { source }) = (made, &self.basis.presents) else {
            return Ok(back);
        };
        // A token that is refused is asked for anew, once, where all of the request is here.
        if back.status != StatusCode::UNAUTHORIZED || !matches!(passing.upload, Upload::Whole(_)) {
            return Ok(back);
        }
        source.spoil(&made);
        match self.present(&mut passing.headers, passing.deadline, None).await {
            Ok(Some(again)) if again.token != made.token => {
                self.pass_attempts(way, &uri, &passing).await
            }
            Ok(_) | Err(_) => Ok(back),
        }
    }

    async fn pass_attempts(
        self: &Arc<Self>,
        way: &Way,
        uri: &Uri,
        passing: &Passing<'_>,
    ) -> Result<PassedBack, PassError> {
        let spec = &self.basis.spec;
        let limit = Duration::from_millis(spec.timeout_ms);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let pass = self.admit()?;
            let mut request = Request::new(passing.upload.clone());
            *request.method_mut() = passing.method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = passing.headers.clone();
            let once = Box::pin(self.pass_once(way, request, passing.cid));
            let ended = match patiently(once, &passing.upload, limit, passing.deadline).await {
                Ok(ended) => ended,
                // The other side has no part in it.
                Err(Late::Client) => return Err(PassError::ClientLate),
                Err(Late::OtherSide(limit)) => Err(Failed::Late { limit }),
            };
            if ended.is_err()
                && let Upload::Streamed(lender) = &passing.upload
                && let Some(fault) = lender.fault()
            {
                return Err(PassError::Upload(fault));
            }
            let failed = match ended {
                Ok(back) => {
                    let bad = self.is_failure(back.status);
                    pass.report(if bad { Ended::Badly } else { Ended::Well });
                    if !bad {
                        self.found_well(None);
                        return Ok(back);
                    }
                    self.found_badly(&format!("it answered with status {}", back.status));
                    Ok(back)
                }
                Err(failed) => {
                    pass.report(if failed.is_theirs() { Ended::Badly } else { Ended::Well });
                    Err(failed)
                }
            };
            let left = passing.deadline.saturating_duration_since(Instant::now());
            let came = match &failed {
                Ok(back) => Came::Answered(&back.headers),
                Err(failed) => Came::Failed(failed),
            };
            let wait = if is_lent_out(&passing.upload) {
                None
            } else {
                let dice = rand::random();
                attempt::wait_after(&spec.retry, attempts, &passing.method, came, left, dice)
            };
            match (wait, failed) {
                (Some(wait), _) => {
                    log::debug!(
                        cid:% = passing.cid, connection = self.name, attempt = attempts,
                        wait_ms = wait.as_millis(); "request will be passed on again"
                    );
                    self.counts.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(wait).await;
                }
                // The client sees what the other side said.
                (None, Ok(back)) => return Ok(back),
                (None, Err(failed)) => {
                    let err = self.error(failed, Way::shown(uri), attempts);
                    self.found_badly(&arbase::Chain(&err).to_string());
                    return Err(err.into());
                }
            }
        }
    }

    /// Sends a request once, and waits for the answer to begin; a short one is read whole.
    async fn pass_once(
        self: &Arc<Self>,
        way: &Way,
        request: Request<Upload>,
        cid: &Cid,
    ) -> Result<PassedBack, Failed> {
        let sent = way.client.request(request).await;
        let response = sent.map_err(|err| attempt::failure(&err, err.is_connect()))?;
        let (head, body) = response.into_parts();
        let limit = self.basis.spec.max_response_bytes;
        let declared = body.size_hint().exact();
        if declared.is_some_and(|length| length > limit) {
            return Err(Failed::TooLarge { limit });
        }
        let body = match declared {
            Some(0) => Carried::Whole(Bytes::new()),
            Some(length) if length <= HELD => {
                let read = body.collect().await;
                let read = read.map_err(|err| attempt::failure(&err, false))?;
                Carried::Whole(read.to_bytes())
            }
            Some(_) | None => {
                Carried::Streamed(Box::new(Download::of(body, Arc::clone(self), cid.clone())))
            }
        };
        Ok(PassedBack { status: head.status, headers: head.headers, body })
    }

    /// NTLM lets in connections, so a request goes by a lane, and whole.
    async fn pass_by_lane(
        self: &Arc<Self>,
        passing: Passing<'_>,
        uri: &Uri,
    ) -> Result<PassedBack, PassError> {
        let body = match passing.upload {
            Upload::Whole(whole) => whole,
            Upload::Streamed(lender) => {
                let reading = Upload::Streamed(lender.clone()).collect();
                match tokio::time::timeout_at(passing.deadline.into(), reading).await {
                    Ok(Ok(read)) => read.to_bytes(),
                    Ok(Err(_)) | Err(_) => {
                        let fault = lender.fault();
                        return Err(fault.map_or(PassError::ClientLate, PassError::Upload));
                    }
                }
            }
        };
        let fault = |err: &dyn std::error::Error| CallError::Broken {
            name: self.name.clone(),
            address: Way::shown(uri),
            attempts: 0,
            source: Cause(err.to_string()),
        };
        let mut headers = passing.headers;
        headers.remove(CONTENT_LENGTH);
        let mut call = RestCall {
            method: passing.method,
            url: uri.to_string().parse().map_err(|err| fault(&err))?,
            headers,
            body,
            attempt: Duration::from_millis(self.basis.spec.timeout_ms),
            deadline: passing.deadline,
            cid: passing.cid.clone(),
            scopes: None,
        };
        let client = self.usable()?;
        let answered = self.with_credentials(client, &mut call).await?;
        let (status, headers) = (answered.status, answered.headers);
        Ok(PassedBack { status, headers, body: Carried::Whole(answered.body) })
    }

    /// Notes that an answer broke off after it had begun.
    pub(super) fn broke_off(&self, cid: &Cid, why: &str) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        self.found_badly(&format!("its answer broke off: {why}"));
        log::warn!(
            cid:% = cid, connection = self.name, error = why;
            "the answer of a request that was passed on broke off"
        );
    }
}

/// Whether a body went out and cannot be sent again.
fn is_lent_out(upload: &Upload) -> bool {
    match upload {
        Upload::Whole(_) => false,
        Upload::Streamed(lender) => Lender::is_touched(lender),
    }
}

/// Waits for an answer: for `limit` after the body moved last and it was the other side's turn, and for the client's
/// body until the deadline.
async fn patiently<T>(
    mut once: impl Future<Output = T> + Unpin,
    upload: &Upload,
    limit: Duration,
    deadline: Instant,
) -> Result<T, Late> {
    let started = Instant::now();
    let mut until = deadline.min(started + limit);
    loop {
        if let Ok(ended) = tokio::time::timeout_at(until.into(), &mut once).await {
            return Ok(ended);
        }
        let now = Instant::now();
        let late =
            |since: Instant| Late::OtherSide(now.saturating_duration_since(since).min(limit));
        let Upload::Streamed(lender) = upload else { return Err(late(started)) };
        let (waits, moved) = lender.waits();
        let moved = moved.max(started);
        match waits {
            Waits::Client if now >= deadline => return Err(Late::Client),
            Waits::Client => until = deadline.min(now + limit),
            Waits::OtherSide | Waits::Nobody if now >= deadline || now >= moved + limit => {
                return Err(late(moved));
            }
            Waits::OtherSide | Waits::Nobody => until = deadline.min(moved + limit),
        }
    }
}
