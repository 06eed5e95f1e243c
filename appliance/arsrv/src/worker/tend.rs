//! Looking after one worker: signs of life, memory, calls given up, and its end.

use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arapi::arsrv::LoadFault;
use tokio::process::Child;
use tokio::task::JoinHandle;

use super::process::{as_number, in_words, kill_group, resident_bytes, was_its_own_doing};
use super::slots::Slots;
use super::stream::Piece;
use super::{Cause, End, Ended, Link, Pending, Scratch, State, Worker, frame};
use crate::worker::frame::Kind;

/// How often a worker with calls is looked at, and one without.
const BUSY: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(2);
/// How often it is pinged, and how long it may keep silent.
const PING_EVERY: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(10);
/// How long a call that was given up may go on running before its worker is replaced.
const OVERRUN: Duration = Duration::from_secs(2);
/// How long a worker far over its memory may finish what it has.
const FAR_OVER: Duration = Duration::from_secs(1);
/// How long a drained worker may take to exit.
const EXIT: Duration = Duration::from_secs(5);
/// How long its last words may take after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The other tasks of a worker.
pub(super) struct Tasks {
    pub(super) reading: JoinHandle<()>,
    pub(super) writing: JoinHandle<()>,
    pub(super) printing: JoinHandle<()>,
}

/// What the tender remembers from look to look.
struct Watch {
    pinged: Instant,
    memory_seen: Option<Instant>,
    /// Most memory it may have; more than the rule where the modules alone need more.
    allowed: u64,
    /// When it was seen that the process has nothing left to do.
    done_since: Option<Instant>,
    /// When it has to be gone.
    kill_at: Option<Instant>,
    worn_out_told: bool,
    /// Since when it takes no more calls.
    draining_since: Option<Instant>,
}

/// Tends a worker to its end.
pub(super) async fn tend(worker: Arc<Worker>, mut child: Child, tasks: Tasks, scratch: Scratch) {
    let mut watch = Watch {
        pinged: Instant::now(),
        memory_seen: None,
        allowed: worker.rules.memory_bytes,
        done_since: None,
        kill_at: None,
        worn_out_told: false,
        draining_since: None,
    };
    let status = loop {
        let pause =
            if worker.state() == State::Ready && worker.in_flight() == 0 { IDLE } else { BUSY };
        tokio::select! {
            status = child.wait() => break status,
            () = worker.to_tend.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        if look(&worker, &mut watch) {
            kill_group(worker.pid);
            // Where it has no session of its own yet; fails only if it has ended.
            child.start_kill().ok();
        }
    };
    // Whatever it started goes with it, and with that the other ends of its pipes.
    kill_group(worker.pid);
    let Tasks { mut reading, writing, mut printing } = tasks;
    let last_words = async {
        // A task that panicked has said so itself.
        (&mut reading).await.ok();
        (&mut printing).await.ok();
    };
    tokio::time::timeout(LAST_WORDS, last_words).await.ok();
    reading.abort();
    writing.abort();
    printing.abort();
    bury(&worker, status.ok());
    drop(scratch);
}

/// One look; whether the process has to be killed now.
fn look(worker: &Arc<Worker>, watch: &mut Watch) -> bool {
    let now = Instant::now();
    if worker.state() == State::Starting {
        let late = worker.born.elapsed() >= worker.rules.load_limit;
        return late || worker.link().is_closed;
    }
    look_at_memory(worker, watch, now);
    look_at_life(worker, watch, now);
    look_at_given_up(worker, now);
    if !watch.worn_out_told
        && worker.rules.most_calls > 0
        && worker.served() >= worker.rules.most_calls
        && worker.state() == State::Ready
    {
        watch.worn_out_told = true;
        worker.host.worn_out(worker);
    }
    if worker.state() == State::Draining {
        return look_at_draining(worker, watch, now);
    }
    false
}

fn doom(worker: &Arc<Worker>, cause: Cause) {
    if worker.state() < State::Draining {
        log::warn!(worker = worker.name.as_str(), reason:% = words(&cause); "worker is replaced");
        worker.drain(cause);
        worker.host.doomed(worker);
    }
}

fn look_at_memory(worker: &Arc<Worker>, watch: &mut Watch, now: Instant) {
    if watch.memory_seen.is_some_and(|seen| now.duration_since(seen) < BUSY / 2) {
        return;
    }
    let Some(found) = resident_bytes(worker.pid) else {
        return;
    };
    worker.memory_bytes.store(found, Ordering::Relaxed);
    if watch.memory_seen.replace(now).is_none() && found > watch.allowed {
        // Replacing it would go on for ever.
        log::error!(worker = worker.name.as_str(), found_mib = found / 1024 / 1024, allowed_mib = watch.allowed / 1024 / 1024; "the modules alone need more memory than a worker may have; set worker_memory_mib higher");
        watch.allowed = found.saturating_add(found / 2);
    }
    let allowed = watch.allowed;
    if found <= allowed {
        return;
    }
    let mib = |bytes: u64| bytes / 1024 / 1024;
    let cause = Cause::Memory { found_mib: mib(found), allowed_mib: mib(allowed) };
    if found > allowed.saturating_add(allowed / 2) {
        worker.link().cause = Some(cause.clone());
        watch.kill_at.get_or_insert(now + FAR_OVER);
    }
    doom(worker, cause);
}

fn look_at_life(worker: &Arc<Worker>, watch: &mut Watch, now: Instant) {
    if now.duration_since(watch.pinged) >= PING_EVERY {
        watch.pinged = now;
        let mut link = worker.link();
        link.last_ping += 1;
        let ping = link.last_ping;
        // An empty frame fits.
        frame::put_plain(link.outbox.tail(), Kind::Ping, ping, b"").ok();
        drop(link);
        worker.to_write.notify_one();
    }
    let heard = Duration::from_millis(worker.heard_ms.load(Ordering::Relaxed));
    if worker.born.elapsed().saturating_sub(heard) > SILENCE {
        worker.link().cause = Some(Cause::Silent);
        doom(worker, Cause::Silent);
        watch.kill_at = Some(now);
    }
}

/// Finds out which of the calls given up are over.  One that goes on for too long costs the worker its life.
fn look_at_given_up(worker: &Arc<Worker>, now: Instant) {
    let ponged = worker.ponged.load(Ordering::Acquire);
    let is_known = |pending: &Pending| pending.given_up.is_some_and(|(ping, _)| ping <= ponged);
    if !worker.link().calls.values().any(is_known) {
        return;
    }
    // Without the file (its folder was removed) every call given up counts as running.
    let Ok(slots) = worker.slots.read() else {
        return;
    };
    let mut over = Vec::new();
    let mut overrun = false;
    {
        let mut link = worker.link();
        let ended: Vec<u64> = link
            .calls
            .iter()
            .filter(|(id, pending)| is_known(pending) && !slots.begun.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            over.extend(link.calls.remove(&id));
        }
        for pending in link.calls.values() {
            overrun |= is_known(pending) && has_overrun(pending, now);
        }
    }
    // Giving seats back takes the group's lock, which must not be taken under the link's.
    drop(over);
    if overrun {
        doom(worker, Cause::Overrun);
    }
}

/// Whether a draining worker has had its time.
fn look_at_draining(worker: &Arc<Worker>, watch: &mut Watch, now: Instant) -> bool {
    if watch.kill_at.is_some_and(|at| now >= at) {
        return true;
    }
    let since = *watch.draining_since.get_or_insert(now);
    if now.duration_since(since) >= worker.rules.timeout {
        cut_streams(worker, now);
    }
    let (all_over, only_overrun, is_broken) = {
        let link = worker.link();
        (
            link.calls.is_empty(),
            link.calls.values().all(|pending| has_overrun(pending, now)),
            matches!(link.cause, Some(Cause::Protocol(_))),
        )
    };
    if is_broken || (only_overrun && !all_over) {
        return true;
    }
    if !all_over {
        watch.done_since = None;
        return false;
    }
    now.duration_since(*watch.done_since.get_or_insert(now)) >= EXIT
}

/// Ends the answers that still come piece by piece: they may go on for ever, and a worker that drains may not.
fn cut_streams(worker: &Arc<Worker>, now: Instant) {
    let mut link = worker.link();
    let streaming: Vec<u64> = link
        .calls
        .iter()
        .filter(|(_, pending)| pending.given_up.is_none())
        .filter_map(|(id, pending)| {
            let stream = pending.stream.as_ref()?;
            stream.send(Piece::BrokenOff("its worker was replaced".to_owned()));
            Some(*id)
        })
        .collect();
    for id in streaming {
        link.give_up(id, now);
    }
    drop(link);
    worker.to_write.notify_one();
}

/// Whether a call was given up and goes on running for too long.
fn has_overrun(pending: &Pending, now: Instant) -> bool {
    pending.given_up.is_some_and(|(_, since)| now.saturating_duration_since(since) >= OVERRUN)
}

fn words(cause: &Cause) -> String {
    match cause {
        Cause::Unneeded => "not needed any more".to_owned(),
        Cause::Overrun => "a call that was given up goes on running".to_owned(),
        Cause::Memory { found_mib, allowed_mib } => {
            format!("memory {found_mib} MiB is above the {allowed_mib} MiB allowed")
        }
        Cause::Silent => format!("no sign of life for {} s", SILENCE.as_secs()),
        Cause::Protocol(fault) => fault.clone(),
    }
}

/// Tells every call of a dead worker what became of it.
fn bury(worker: &Arc<Worker>, status: Option<ExitStatus>) {
    let (calls, cause) = {
        let mut link = worker.link();
        link.is_closed = true;
        let Link { calls, cause, .. } = &mut *link;
        (std::mem::take(calls), cause.take())
    };
    let was_starting = worker.state() == State::Starting;
    worker.set_state(State::Dead);
    let number = status.and_then(as_number);
    let exit = status.map_or_else(|| "unknown end".to_owned(), in_words);
    if was_starting {
        settle_unready(worker, &exit, number);
    }
    let killed_by_us = matches!(
        cause,
        Some(Cause::Memory { .. } | Cause::Silent | Cause::Protocol(_) | Cause::Overrun)
    );
    let how = match &cause {
        Some(cause) if killed_by_us => words(cause),
        _ => exit,
    };
    // An unreadable file says the worst: nothing is known to have not begun.
    let slots = worker
        .slots
        .read()
        .unwrap_or_else(|_| Slots { current: 0, begun: calls.keys().copied().collect() });
    let own_doing = killed_by_us || status.is_some_and(was_its_own_doing);
    let unanswered = calls.iter().filter(|(_, pending)| pending.given_up.is_none());
    let culprit = match &cause {
        // Those that overran have been given up; the others are bystanders.
        Some(Cause::Overrun) => None,
        _ if own_doing => slots.culprit(unanswered.map(|(id, _)| *id)),
        _ => None,
    };
    let mut blamed: Vec<Arc<str>> = Vec::new();
    for (id, pending) in calls {
        let overran = matches!(cause, Some(Cause::Overrun)) && pending.given_up.is_some();
        if (culprit == Some(id) || overran) && !blamed.contains(&pending.service) {
            blamed.push(Arc::clone(&pending.service));
        }
        if let Some(stream) = &pending.stream {
            stream.send(Piece::BrokenOff(format!("its worker ended ({how})")));
        }
        let Some(tell) = pending.tell else {
            continue;
        };
        let ended = if culprit == Some(id) {
            Ended::Responsible(how.clone())
        } else if slots.begun.contains(&id) {
            Ended::Interrupted(how.clone())
        } else {
            Ended::NeverBegun
        };
        // Its caller may have gone a moment ago.
        tell.send(ended).ok();
    }
    let is_no_loss = was_starting || matches!(cause, Some(Cause::Unneeded));
    let end = End { how, blamed, is_no_loss };
    worker.host.ended(worker, &end);
    worker.gone.send_replace(true);
}

fn settle_unready(worker: &Worker, exit: &str, number: Option<i32>) {
    let late = worker.born.elapsed() >= worker.rules.load_limit;
    let reason = if late {
        format!("the modules are not loaded after {} ms", worker.rules.load_limit.as_millis())
    } else {
        format!("the worker ended while it loaded the modules ({exit})")
    };
    let lines = worker.last_lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    worker.settle(Err(LoadFault {
        reason,
        file: String::new(),
        line: 0,
        traceback: lines,
        exit_code: number,
    }));
}
