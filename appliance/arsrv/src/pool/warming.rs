//! Warming up: what services have a new worker do before it takes calls.
//!
//! A service with a method `warm_up_worker` gets a CALL of channel `warm-up`.  One that fails or takes too long is told of
//! in the log and keeps no worker from working; one that ends the worker has it refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arapi::Cid;
use arapi::arsrv::{FoundService, LoadFault};
use arapi::objects::Priority;
use bytes::Bytes;
use futures_util::future::join_all;

use crate::call::{Call, Outcome};
use crate::worker::{Ended, Loaded, NoSeat, Sending, Worker};

/// Has a worker's services warm up, all at the same time, for at most `limit`.
pub(super) async fn warm_up(
    worker: &Arc<Worker>,
    loaded: &Loaded,
    limit: Duration,
) -> Result<(), LoadFault> {
    let services = loaded.services.iter().filter(|service| service.warms_up);
    let deadline = Instant::now() + limit;
    let warming = services.map(|service| one(worker, service, deadline, limit));
    join_all(warming).await.into_iter().collect()
}

async fn one(
    worker: &Arc<Worker>,
    service: &FoundService,
    deadline: Instant,
    limit: Duration,
) -> Result<(), LoadFault> {
    let (name, began) = (service.name.as_str(), Instant::now());
    let cid = Cid::random();
    let call = Call {
        service: name.into(),
        cid: cid.clone(),
        channel: "warm-up",
        data_format: "dict",
        method: None,
        http: Bytes::new(),
        environ: Bytes::new(),
        body: Bytes::new(),
        deadline,
        spool: None,
        priority: Priority::Batch,
        is_idempotent: false,
    };
    let sending = Sending {
        call: &call,
        service_json: &serde_json::Value::from(name).to_string(),
        deadline,
        depth: 0,
        trace: None,
        seat: Box::new(NoSeat),
    };
    let ended = match worker.send(sending) {
        Ok(sent) => sent.wait(deadline).await,
        Err(err) => return Err(fault(service, &err.to_string())),
    };
    let worker = worker.name.as_str();
    match ended {
        Some(Ended::Answered(Outcome::Done(_) | Outcome::Streamed(..))) => {
            let took_ms = began.elapsed().as_secs_f64() * 1000.0;
            log::debug!(worker, service = name, took_ms; "warmed up");
            Ok(())
        }
        Some(Ended::Answered(Outcome::Failed(failure))) => {
            log::warn!(worker, service = name, cid:% = cid, error = failure.message.as_str(); "could not warm up");
            Ok(())
        }
        None => {
            log::warn!(worker, service = name, cid:% = cid, limit:? = limit; "did not warm up in time");
            Ok(())
        }
        Some(Ended::NeverBegun) => Err(fault(service, "before it began")),
        Some(Ended::Responsible(how) | Ended::Interrupted(how)) => Err(fault(service, &how)),
    }
}

fn fault(service: &FoundService, how: &str) -> LoadFault {
    LoadFault {
        reason: format!("the worker ended while service `{}` warmed up: {how}", service.name),
        file: String::new(),
        line: 0,
        traceback: String::new(),
        exit_code: None,
    }
}
