//! What services start and do not wait for: asynchronous calls with callbacks, fan-outs, parallel executions and
//! background retries.
//!
//! A [`Job`] is a document that says everything.  Today it is kept in memory: it is lost with the core, and callers
//! are told so by the integrator's guide.  [`Inner::accept`] is the one place where a job is taken, and [`run`] the
//! one where it is carried out: a journal comes between the two.
//!
//! **Invariant:** what goes wrong in a job or a callback ends in the log and nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arapi::names::Cid;
use arapi::objects::Priority;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Inner;
use crate::call::{Call, Outcome, Reply};
use crate::telemetry::trace::{self, Trace};

/// Longest time for one call of a job; that of its service is nearly always shorter.
const LIMIT: Duration = Duration::from_secs(3600);
/// Most tries of a background retry.
const MOST_TRIES: u32 = 10_000;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Something to be done later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    /// The correlation id of the job itself.
    cid: Cid,
    /// The service that wants it.
    source: String,
    /// What to do.
    what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum What {
    /// One call, and the services that are given its answer.
    Invoke {
        target: Target,
        #[serde(default)]
        callbacks: Vec<String>,
    },
    /// Several calls at once; each answer is for `on_target`, all of them together for `on_final`.
    FanOut {
        targets: Vec<Target>,
        #[serde(default)]
        on_target: Vec<String>,
        #[serde(default)]
        on_final: Vec<String>,
    },
    /// The same without an end that is waited for.
    Parallel {
        targets: Vec<Target>,
        #[serde(default)]
        on_target: Vec<String>,
    },
    /// One call, until it goes well.
    Retry {
        target: Target,
        repeats: u32,
        pause_ms: u64,
        #[serde(default)]
        callback: Option<String>,
        #[serde(default)]
        context: Value,
        /// The correlation id of the request that wanted it.
        orig_cid: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    service: String,
    #[serde(default)]
    payload: Value,
}

/// How many jobs there are, and how many of their calls may run at a time.
pub(super) struct Later {
    jobs: AtomicUsize,
    running: Semaphore,
}

impl Later {
    /// No jobs yet; half of the workers' threads may be theirs.
    pub(super) fn of(threads: usize) -> Self {
        Self { jobs: AtomicUsize::new(0), running: Semaphore::new((threads / 2).max(1)) }
    }
}

/// A service's answer within a job.
struct Answer {
    target: String,
    response: Value,
    /// What went wrong, if anything did.
    exception: Option<String>,
    asked: String,
    answered: String,
}

impl Inner {
    /// Takes a job, or says with type and sentence why not.
    pub(super) fn accept(
        self: &Arc<Self>,
        document: &[u8],
        trace: Option<&Trace>,
    ) -> Result<(), (&'static str, String)> {
        let mut job: Job = serde_json::from_slice(document).map_err(|err| {
            ("bad-request", format!("what is to be done later cannot be read: {err}"))
        })?;
        let table = self.table();
        if let What::Invoke { target, callbacks } = &mut job.what
            && callbacks.is_empty()
        {
            // As in 3.2: a service of this name is told without being asked for.
            let usual = format!("{}-async-callback", target.service);
            if table.services.get(usual.as_str()).is_some_and(|entry| entry.is_active) {
                callbacks.push(usual);
            }
        }
        for service in job.services() {
            match table.services.get(service.as_str()) {
                Some(entry) if entry.is_active => {}
                Some(_) => return Err(("inactive", format!("service `{service}` is inactive"))),
                None => return Err(("not-found", format!("service `{service}` is not deployed"))),
            }
        }
        if self.later.jobs.fetch_add(1, Ordering::AcqRel) >= self.config.queue {
            self.later.jobs.fetch_sub(1, Ordering::AcqRel);
            let most = self.config.queue;
            return Err((
                "refused",
                format!("{most} asynchronous calls are under way already, which is as many as may"),
            ));
        }
        let inner = Arc::clone(self);
        let trace = match trace {
            Some(trace) => {
                let mut step = trace.open(
                    trace::What::Later,
                    &job.services().first().map_or(String::new(), |name| (*name).clone()),
                );
                step.say("cid", job.cid.as_str());
                step.done();
                trace.follow(&job.cid)
            }
            None => Trace::begin(&job.cid, None),
        };
        tokio::spawn(async move {
            trace::scope(Some(trace), run(&inner, job)).await;
            inner.later.jobs.fetch_sub(1, Ordering::AcqRel);
        });
        Ok(())
    }

    /// Calls a service of a job.
    async fn later_call(
        &self,
        cid: &Cid,
        channel: &'static str,
        target: &Target,
        environ: &Value,
    ) -> Answer {
        // Never closed.
        let _turn = self.later.running.acquire().await;
        let asked = now();
        let body = match &target.payload {
            Value::Null => Bytes::new(),
            payload => payload.to_string().into(),
        };
        let call = Call {
            service: target.service.as_str().into(),
            cid: cid.clone(),
            channel,
            data_format: "dict",
            method: None,
            http: Bytes::new(),
            environ: if environ.is_null() { Bytes::new() } else { environ.to_string().into() },
            body,
            deadline: Instant::now() + LIMIT,
            spool: None,
            priority: Priority::Batch,
            is_idempotent: false,
        };
        let (response, exception) = match self.call(call, 0).await {
            Outcome::Done(reply) => (value_of(&reply), None),
            // The SDK streams nothing but answers to channels.
            Outcome::Streamed(..) => (Value::Null, Some("it streams its answer".to_owned())),
            Outcome::Failed(failure) => (Value::Null, Some(failure.message)),
        };
        if let Some(error) = &exception {
            log::warn!(
                cid:% = cid, service = target.service, channel, error;
                "a service that nobody waits for failed"
            );
        }
        Answer { target: target.service.clone(), response, exception, asked, answered: now() }
    }

    async fn callbacks(&self, cid: &Cid, channel: &'static str, names: &[String], payload: &Value) {
        let environ = json!({"in_reply_to": cid});
        let calls = names.iter().map(|service| {
            let target = Target { service: service.clone(), payload: payload.clone() };
            let environ = &environ;
            async move { self.later_call(cid, channel, &target, environ).await }
        });
        futures_util::future::join_all(calls).await;
    }
}

impl Job {
    /// Every service that it names.
    fn services(&self) -> Vec<&String> {
        match &self.what {
            What::Invoke { target, callbacks } => {
                std::iter::once(&target.service).chain(callbacks).collect()
            }
            What::FanOut { targets, on_target, on_final } => targets
                .iter()
                .map(|target| &target.service)
                .chain(on_target)
                .chain(on_final)
                .collect(),
            What::Parallel { targets, on_target } => {
                targets.iter().map(|target| &target.service).chain(on_target).collect()
            }
            What::Retry { target, callback, .. } => {
                std::iter::once(&target.service).chain(callback).collect()
            }
        }
    }
}

/// Carries a job out.
async fn run(inner: &Inner, job: Job) {
    let Job { cid, source, what } = job;
    match what {
        What::Invoke { target, callbacks } => {
            let answer = inner.later_call(&cid, "invoke-async", &target, &Value::Null).await;
            if answer.exception.is_none() {
                inner.callbacks(&cid, "invoke-async-callback", &callbacks, &answer.response).await;
            }
        }
        What::FanOut { targets, on_target, on_final } => {
            let words = ("fanout-call", "fanout-on-target");
            let all = spread(inner, &cid, &source, &targets, &on_target, words).await;
            let answers = serde_json::Map::from_iter(all);
            let payload = json!({
                "source": source, "cid": cid, "phase": "on-final", "data": answers,
                "on_target": on_target, "on_final": on_final,
                "ok": answers.values().all(|one| one.get("ok") == Some(&Value::Bool(true))),
            });
            inner.callbacks(&cid, "fanout-on-final", &on_final, &payload).await;
        }
        What::Parallel { targets, on_target } => {
            let words = ("parallel-exec-call", "parallel-exec-on-target");
            spread(inner, &cid, &source, &targets, &on_target, words).await;
        }
        What::Retry { target, repeats, pause_ms, callback, context, orig_cid } => {
            let pause = Duration::from_millis(pause_ms).min(LONGEST_PAUSE);
            let repeats = repeats.clamp(1, MOST_TRIES);
            let mut tries = 0;
            let answer = loop {
                tries += 1;
                let answer = inner.later_call(&cid, "invoke-async", &target, &Value::Null).await;
                if answer.exception.is_none() || tries >= repeats {
                    break answer;
                }
                tokio::time::sleep(pause).await;
            };
            let mut payload = document(&cid, &source, &answer, "callback");
            let more = json!({
                "orig_cid": orig_cid, "call_cid": cid, "retry_repeats": repeats,
                "retry_seconds": pause.as_secs_f64(), "tries": tries, "context": context,
            });
            if let (Value::Object(all), Value::Object(more)) = (&mut payload, more) {
                all.extend(more);
            }
            let callbacks: Vec<String> = callback.into_iter().collect();
            inner.callbacks(&cid, "invoke-async-callback", &callbacks, &payload).await;
        }
    }
}

/// Calls every target at once and tells each answer; returns what was told, by target.
async fn spread(
    inner: &Inner,
    cid: &Cid,
    source: &str,
    targets: &[Target],
    on_target: &[String],
    (call, callback): (&'static str, &'static str),
) -> Vec<(String, Value)> {
    let calls = targets.iter().map(|target| async move {
        let answer = inner.later_call(cid, call, target, &Value::Null).await;
        let payload = document(cid, source, &answer, "on-target");
        inner.callbacks(cid, callback, on_target, &payload).await;
        (target.service.clone(), payload)
    });
    futures_util::future::join_all(calls).await
}

/// An answer as callbacks get it.
fn document(cid: &Cid, source: &str, answer: &Answer, phase: &str) -> Value {
    json!({
        "source": source, "target": answer.target, "response": answer.response,
        "req_ts_utc": answer.asked, "resp_ts_utc": answer.answered,
        "ok": answer.exception.is_none(), "exception": answer.exception, "cid": cid, "phase": phase,
    })
}

/// An answer as JSON; text and whatever else as a text.
fn value_of(reply: &Reply) -> Value {
    let is_json = reply.content_type.as_deref().is_some_and(|kind| kind.contains("json"));
    let text = || Value::String(String::from_utf8_lossy(&reply.body).into_owned());
    if is_json { serde_json::from_slice(&reply.body).unwrap_or_else(|_| text()) } else { text() }
}

fn now() -> String {
    arbase::time::rfc3339(arbase::time::now_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_says_every_service_that_it_needs() {
        let job = |what: Value| {
            let cid = Cid::random();
            serde_json::from_value::<Job>(json!({"cid": cid, "source": "a", "what": what})).unwrap()
        };
        let target = |name: &str| json!({"service": name, "payload": {"n": 1}});
        let invoke = job(json!({"invoke": {"target": target("b"), "callbacks": ["c"]}}));
        assert_eq!(invoke.services(), ["b", "c"]);
        let fan_out = job(json!({"fan_out": {
            "targets": [target("b"), {"service": "c"}], "on_target": ["d"], "on_final": ["e"],
        }}));
        assert_eq!(fan_out.services(), ["b", "c", "d", "e"]);
        let parallel = job(json!({"parallel": {"targets": [target("b")]}}));
        assert_eq!(parallel.services(), ["b"]);
        let retry = job(json!({"retry": {
            "target": target("b"), "repeats": 3, "pause_ms": 10, "callback": "c", "orig_cid": "x",
        }}));
        assert_eq!(retry.services(), ["b", "c"]);
        // A journal can write it down and read it again.
        let again = serde_json::from_str::<Job>(&serde_json::to_string(&retry).unwrap()).unwrap();
        assert_eq!(again, retry);
    }

    #[test]
    fn what_is_no_job_is_not_taken_for_one() {
        for document in [
            "{}",
            r#"{"cid":"0123456789abcdef01234567","source":"a","what":{"unknown":{}}}"#,
            r#"{"cid":"a b","source":"a","what":{"parallel":{"targets":[]}}}"#,
        ] {
            assert!(serde_json::from_str::<Job>(document).is_err(), "{document}");
        }
    }

    #[test]
    fn text_stays_text_and_json_becomes_json() {
        let reply = |content_type: Option<&str>, body: &'static str| Reply {
            status: 200,
            content_type: content_type.map(str::to_owned),
            headers: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        assert_eq!(value_of(&reply(Some("application/json"), "{\"a\":1}")), json!({"a": 1}));
        assert_eq!(value_of(&reply(Some("application/json"), "{")), json!("{"));
        assert_eq!(value_of(&reply(Some("text/plain"), "1")), json!("1"));
        assert_eq!(value_of(&reply(None, "")), json!(""));
    }
}
