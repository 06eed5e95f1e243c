//! Profiles: asks workers what they are doing, and puts their answers together.
//!
//! A worker is asked by a CALL of channel `profile`, which it answers when the time is over.  One profile is taken at a
//! time.  Whoever stops waiting ends it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arapi::arsrv::{Profile, ProfileFrame, ProfileRequest, ProfileStack, ProfiledWorker};
use arapi::error::ErrorCode;
use arapi::objects::Priority;
use arbase::http::{ApiError, current_cid};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;

use super::{Inner, locked};
use crate::call::{Call, Outcome};
use crate::worker::{Ended, NoSeat, Sending, State, Worker};

/// How long after the end a worker's answer is waited for: it may be busy, and its answer long.
const PATIENCE: Duration = Duration::from_secs(15);
/// Different stacks in the answer; the rarest are counted together.
const MOST_STACKS: usize = 20_000;

/// What a worker answers.
#[derive(Debug, Deserialize)]
struct Told {
    seconds: f64,
    samples: u64,
    others: u64,
    cost_s: f64,
    frames: Vec<ProfileFrame>,
    stacks: Vec<ProfileStack>,
}

/// Takes a profile.
pub(super) async fn take(inner: &Inner, request: &ProfileRequest) -> Result<Profile, ApiError> {
    request.check().map_err(ApiError::invalid)?;
    let _only = inner.profiling.try_lock().map_err(|_| {
        ApiError::new(ErrorCode::Conflict, "a profile is being taken; try again when it is done")
    })?;
    let workers = chosen(inner, request)?;
    let body: Bytes =
        json!({"seconds": request.seconds, "rate_hz": request.rate_hz}).to_string().into();
    let deadline = Instant::now() + Duration::from_secs(request.seconds.into()) + PATIENCE;
    let asking = workers.iter().map(|(group, worker)| {
        let body = body.clone();
        async move {
            let about = ProfiledWorker {
                name: worker.name.clone(),
                group: group.clone(),
                pid: worker.pid,
                ..ProfiledWorker::default()
            };
            match ask(worker, body, deadline).await {
                Ok(told) => {
                    let Told { seconds, samples, cost_s, .. } = told;
                    (ProfiledWorker { seconds, samples, cost_s, ..about }, Some(told))
                }
                Err(error) => (ProfiledWorker { error: Some(error), ..about }, None),
            }
        }
    });
    let (about, told): (Vec<_>, Vec<_>) = join_all(asking).await.into_iter().unzip();
    Ok(merged(about, told.into_iter().flatten(), request.service.as_deref()))
}

/// The workers to be asked.
fn chosen(inner: &Inner, request: &ProfileRequest) -> Result<Vec<(String, Arc<Worker>)>, ApiError> {
    if let Some(service) = &request.service
        && !inner.table().services.contains_key(service.as_str())
    {
        return Err(ApiError::not_found(format!(
            "there is no service `{}`",
            service.escape_debug()
        )));
    }
    let is_wanted = |worker: &Worker| {
        worker.state() == State::Ready
            && request.worker.as_ref().is_none_or(|name| *name == worker.name)
    };
    let workers: Vec<_> =
        locked(&inner.workers).iter().filter(|(_, worker)| is_wanted(worker)).cloned().collect();
    match (&request.worker, workers.is_empty()) {
        (Some(name), true) => Err(ApiError::not_found(format!(
            "there is no worker `{}` that is ready; `arctl status` lists them",
            name.escape_debug()
        ))),
        (None, true) => Err(ApiError::unavailable("no worker is ready")),
        (_, false) => Ok(workers),
    }
}

async fn ask(worker: &Arc<Worker>, body: Bytes, deadline: Instant) -> Result<Told, String> {
    let call = Call {
        service: "profile".into(),
        cid: current_cid(),
        channel: "profile",
        data_format: "dict",
        method: None,
        http: Bytes::new(),
        environ: Bytes::new(),
        body,
        deadline,
        spool: None,
        priority: Priority::Interactive,
        is_idempotent: false,
    };
    let sending = Sending {
        call: &call,
        service_json: "\"profile\"",
        deadline,
        depth: 0,
        trace: None,
        seat: Box::new(NoSeat),
    };
    let sent = worker.send(sending).map_err(|err| err.to_string())?;
    match sent.wait(deadline).await {
        Some(Ended::Answered(Outcome::Done(reply))) => serde_json::from_slice(&reply.body)
            .map_err(|err| format!("the worker's answer cannot be read: {err}")),
        Some(Ended::Answered(Outcome::Failed(failure))) => Err(failure.message),
        Some(Ended::Answered(Outcome::Streamed(..))) => {
            Err("the worker's answer cannot be read: it is a stream".to_owned())
        }
        Some(Ended::NeverBegun) => Err("the worker has ended".to_owned()),
        Some(Ended::Responsible(how) | Ended::Interrupted(how)) => {
            Err(format!("the worker has ended: {how}"))
        }
        None => Err("the worker did not answer in time".to_owned()),
    }
}

fn merged(
    workers: Vec<ProfiledWorker>,
    told: impl Iterator<Item = Told>,
    only: Option<&str>,
) -> Profile {
    let mut profile = Profile { workers, ..Profile::default() };
    let mut numbers: HashMap<ProfileFrame, u32> = HashMap::new();
    let mut counts: HashMap<(String, bool, Vec<u32>, u32), u64> = HashMap::new();
    for Told { others, frames, stacks, .. } in told {
        profile.others += others;
        let renumbered: Vec<u32> = frames
            .into_iter()
            .map(|frame| {
                let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                *numbers.entry(frame).or_insert(next)
            })
            .collect();
        for stack in stacks {
            if only.is_some_and(|only| only != stack.service) {
                continue;
            }
            let place = |number: &u32| {
                let at = usize::try_from(*number).ok()?;
                renumbered.get(at).copied()
            };
            let path: Vec<u32> = stack.frames.iter().filter_map(place).collect();
            *counts.entry((stack.service, stack.working, path, stack.line)).or_default() +=
                stack.count;
        }
    }
    let mut stacks: Vec<ProfileStack> = counts
        .into_iter()
        .map(|((service, working, frames, line), count)| ProfileStack {
            service,
            working,
            frames,
            line,
            count,
        })
        .collect();
    stacks.sort_by(|one, other| {
        let key = |stack: &ProfileStack| (stack.service.clone(), stack.frames.clone(), stack.line);
        other.count.cmp(&one.count).then_with(|| key(one).cmp(&key(other)))
    });
    let rare = stacks.split_off(stacks.len().min(MOST_STACKS));
    profile.others += rare.iter().map(|stack| stack.count).sum::<u64>();
    profile.stacks = stacks;
    let mut frames: Vec<_> = numbers.into_iter().collect();
    frames.sort_by_key(|(_, number)| *number);
    profile.frames = frames.into_iter().map(|(frame, _)| frame).collect();
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_workers_saw_is_put_together_whatever_they_number_it() {
        let one = told(
            r#"{"seconds": 1, "samples": 9, "others": 1, "cost_s": 0,
                "frames": [{"name": "A.handle", "file": "a.py", "line": 3}, {"name": "f", "file": "a.py", "line": 1}],
                "stacks": [{"service": "a", "working": true, "frames": [0, 1], "line": 2, "count": 5},
                           {"service": "a", "working": false, "frames": [0], "line": 4, "count": 1}]}"#,
        );
        let other = told(
            r#"{"seconds": 1, "samples": 9, "others": 2, "cost_s": 0,
                "frames": [{"name": "f", "file": "a.py", "line": 1}, {"name": "A.handle", "file": "a.py", "line": 3},
                           {"name": "B.handle", "file": "b.py", "line": 9}],
                "stacks": [{"service": "a", "working": true, "frames": [1, 0], "line": 2, "count": 4},
                           {"service": "b", "working": true, "frames": [2], "line": 9, "count": 7},
                           {"service": "b", "working": true, "frames": [77], "line": 9, "count": 1}]}"#,
        );
        let all = merged(Vec::new(), [one, other].into_iter(), None);
        let seen: Vec<(&str, bool, Vec<&str>, u64)> = all
            .stacks
            .iter()
            .map(|stack| {
                let names = stack
                    .frames
                    .iter()
                    .map(|at| all.frames[usize::try_from(*at).unwrap()].name.as_str());
                (stack.service.as_str(), stack.working, names.collect(), stack.count)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("a", true, vec!["A.handle", "f"], 9),
                ("b", true, vec!["B.handle"], 7),
                ("a", false, vec!["A.handle"], 1),
                ("b", true, vec![], 1),
            ]
        );
        assert_eq!(all.others, 3);
    }
}
