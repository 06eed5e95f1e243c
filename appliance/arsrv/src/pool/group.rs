//! The workers that run the services of one group, and the calls that wait for a place in them.
//!
//! A call takes the worker with the fewest calls that has room.  Where none has, it waits: interactive calls before
//! batch ones, each in order of arrival.  Batch calls leave a quarter of every worker free, so that an interactive one
//! seldom waits for them at all; and now and then one of them goes first, so that they get on.
//!
//! **Invariant:** the group's lock is never held while a worker's is taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arapi::objects::Priority;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::worker::{Seat, State, Worker};

/// After so many interactive calls that went before it, a batch call goes first.
const MOST_FIRST: u32 = 8;

/// What a call takes of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A thread.
    Thread,
    /// A place on the event loop.
    Coroutine,
    /// A thread, for a service that another one waits for: it always finds a place, or those that wait would
    /// wait for each other.
    Nested,
}

/// How much one worker is given at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Calls of any kind.
    pub(crate) calls: usize,
    /// Calls that take a thread.
    pub(crate) threads: usize,
}

/// What a worker has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    calls: usize,
    threads: usize,
}

impl Room {
    /// What of it calls of a priority may fill.
    fn for_priority(self, priority: Priority) -> Self {
        let share = |all: usize| (all - all.div_ceil(4)).max(1);
        match priority {
            Priority::Interactive => self,
            Priority::Batch => Self { calls: share(self.calls), threads: share(self.threads) },
        }
    }

    fn is_enough(self, held: Held, load: Load) -> bool {
        match load {
            Load::Nested => true,
            Load::Coroutine => held.calls < self.calls,
            Load::Thread => held.calls < self.calls && held.threads < self.threads,
        }
    }
}

/// Which of the workers takes a call: the one with the fewest, among equals the first.
/// Those without a number take none.
fn choose(held: impl Iterator<Item = Option<Held>>, room: Room, load: Load) -> Option<usize> {
    held.enumerate()
        .filter_map(|(at, held)| held.map(|held| (at, held)))
        .filter(|(_, held)| room.is_enough(*held, load))
        .min_by_key(|(_, held)| held.calls)
        .map(|(at, _)| at)
}

/// A group of workers.
pub(crate) struct Group {
    /// Its name.
    pub(crate) name: String,
    /// The group whose modules its workers load: itself, but for a quarantine.
    pub(crate) base: String,
    /// How many workers it is to have.
    pub(crate) wanted: usize,
    room: Room,
    state: Mutex<Crew>,
}

#[derive(Default)]
struct Crew {
    members: Vec<Member>,
    interactive: VecDeque<Waiting>,
    batch: VecDeque<Waiting>,
    /// Interactive calls that got places while batch ones waited, since the last of those did.
    went_first: u32,
}

impl Crew {
    fn waiting(&mut self, priority: Priority) -> &mut VecDeque<Waiting> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }

    /// Whether a new call has to wait behind others.
    fn has_before(&self, priority: Priority) -> bool {
        !self.interactive.is_empty() || (priority == Priority::Batch && !self.batch.is_empty())
    }
}

struct Member {
    worker: Arc<Worker>,
    held: Held,
}

struct Waiting {
    load: Load,
    give: oneshot::Sender<Place>,
}

/// A call's place in a worker of a group.
pub(crate) struct Place {
    group: Arc<Group>,
    worker: Arc<Worker>,
    load: Load,
    /// Given back already.
    is_void: bool,
}

/// A place, and what the service's own limit gave for it.
impl Seat for (Place, Option<Arc<OwnedSemaphorePermit>>) {}

impl Place {
    /// The worker.
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_void {
            self.group.give_back(&self.worker, self.load);
        }
    }
}

impl Group {
    /// A group without workers.
    pub(crate) fn new(name: String, base: String, wanted: usize, room: Room) -> Arc<Self> {
        Arc::new(Self { name, base, wanted, room, state: Mutex::default() })
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place now, or what will bring one.
    pub(crate) fn place(
        self: &Arc<Self>,
        load: Load,
        priority: Priority,
    ) -> Result<Place, oneshot::Receiver<Place>> {
        let mut crew = self.crew();
        // Those that wait already come first, but for what they themselves wait for.
        if (load == Load::Nested || !crew.has_before(priority))
            && let Some(place) = self.take(&mut crew, load, priority)
        {
            return Ok(place);
        }
        let waiting = crew.waiting(priority);
        if waiting.len() >= 64 {
            // Callers that went away leave their entries behind.
            let open = waiting.iter().filter(|waiting| !waiting.give.is_closed()).count();
            if open * 2 < waiting.len() {
                waiting.retain(|waiting| !waiting.give.is_closed());
            }
        }
        let (give, given) = oneshot::channel();
        waiting.push_back(Waiting { load, give });
        Err(given)
    }

    fn take(self: &Arc<Self>, crew: &mut Crew, load: Load, priority: Priority) -> Option<Place> {
        // One that has just died may not have left yet.
        let held = crew
            .members
            .iter()
            .map(|member| (member.worker.state() == State::Ready).then_some(member.held));
        let at = choose(held, self.room.for_priority(priority), load)?;
        let member = crew.members.get_mut(at)?;
        member.held.calls += 1;
        if load != Load::Coroutine {
            member.held.threads += 1;
        }
        let worker = Arc::clone(&member.worker);
        Some(Place { group: Arc::clone(self), worker, load, is_void: false })
    }

    fn give_back(self: &Arc<Self>, worker: &Arc<Worker>, load: Load) {
        let mut crew = self.crew();
        Self::free(&mut crew, worker, load);
        self.serve(&mut crew);
    }

    fn free(crew: &mut Crew, worker: &Arc<Worker>, load: Load) {
        let member = crew.members.iter_mut().find(|member| Arc::ptr_eq(&member.worker, worker));
        // A worker that drains has left already.
        if let Some(member) = member {
            member.held.calls = member.held.calls.saturating_sub(1);
            if load != Load::Coroutine {
                member.held.threads = member.held.threads.saturating_sub(1);
            }
        }
    }

    /// Gives places to those that wait, as long as there are any.
    fn serve(self: &Arc<Self>, crew: &mut Crew) {
        loop {
            for priority in [Priority::Interactive, Priority::Batch] {
                let waiting = crew.waiting(priority);
                while waiting.front().is_some_and(|first| first.give.is_closed()) {
                    waiting.pop_front();
                }
            }
            let order = match crew.went_first >= MOST_FIRST && !crew.batch.is_empty() {
                true => [Priority::Batch, Priority::Interactive],
                false => [Priority::Interactive, Priority::Batch],
            };
            if !order.into_iter().any(|priority| self.serve_one(crew, priority)) {
                return;
            }
        }
    }

    /// Gives a place to the first that waits with this priority; says whether there was one, and somebody to take it.
    fn serve_one(self: &Arc<Self>, crew: &mut Crew, priority: Priority) -> bool {
        let Some(load) = crew.waiting(priority).front().map(|first| first.load) else {
            return false;
        };
        let Some(place) = self.take(crew, load, priority) else {
            return false;
        };
        let Some(first) = crew.waiting(priority).pop_front() else {
            return false;
        };
        crew.went_first = match priority {
            Priority::Interactive if !crew.batch.is_empty() => crew.went_first + 1,
            Priority::Interactive | Priority::Batch => 0,
        };
        if let Err(mut back) = first.give.send(place) {
            // It went away this very moment.  Dropping the place would take the lock again.
            back.is_void = true;
            Self::free(crew, &back.worker, load);
        }
        true
    }

    /// Adds a worker that is ready.
    pub(crate) fn add(self: &Arc<Self>, worker: Arc<Worker>) {
        let mut crew = self.crew();
        crew.members.push(Member { worker, held: Held::default() });
        Self::forget_dead(&mut crew);
        self.serve(&mut crew);
    }

    /// Takes a worker out: it gets no more calls.
    pub(crate) fn remove(&self, worker: &Arc<Worker>) {
        self.crew().members.retain(|member| !Arc::ptr_eq(&member.worker, worker));
    }

    /// Puts other workers in the place of all; returns the old ones.
    pub(crate) fn replace(self: &Arc<Self>, workers: Vec<Arc<Worker>>) -> Vec<Arc<Worker>> {
        let mut crew = self.crew();
        let new = workers.into_iter().map(|worker| Member { worker, held: Held::default() });
        let old = std::mem::replace(&mut crew.members, new.collect());
        self.serve(&mut crew);
        old.into_iter().map(|member| member.worker).collect()
    }

    /// How many workers take calls.
    pub(crate) fn strength(&self) -> usize {
        let mut crew = self.crew();
        Self::forget_dead(&mut crew);
        crew.members.len()
    }

    /// A worker can die between getting ready and being added; then nobody removed it.
    fn forget_dead(crew: &mut Crew) {
        crew.members.retain(|member| member.worker.state() == State::Ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { calls: 4, threads: 3 };

    fn held(calls: usize, threads: usize) -> Option<Held> {
        Some(Held { calls, threads })
    }

    #[test]
    fn the_worker_with_the_fewest_calls_is_chosen() {
        let crew = [None, held(2, 0), held(1, 1), held(1, 0)];
        assert_eq!(choose(crew.into_iter(), ROOM, Load::Thread), Some(2));
        assert_eq!(choose([].into_iter(), ROOM, Load::Thread), None);
    }

    #[test]
    fn batch_calls_leave_a_quarter_of_every_worker_free() {
        let room = Room { calls: 8, threads: 4 }.for_priority(Priority::Batch);
        assert_eq!(room, Room { calls: 6, threads: 3 });
        assert_eq!(choose([held(3, 3)].into_iter(), room, Load::Thread), None);
        let least = Room { calls: 1, threads: 1 };
        assert_eq!(least.for_priority(Priority::Batch), least);
    }

    #[test]
    fn a_worker_without_a_free_thread_still_takes_coroutines() {
        let crew = [held(3, 3)];
        assert_eq!(choose(crew.into_iter(), ROOM, Load::Thread), None);
        assert_eq!(choose(crew.into_iter(), ROOM, Load::Coroutine), Some(0));
    }

    #[test]
    fn a_service_that_another_waits_for_always_finds_a_place() {
        let crew = [held(9, 9), held(4, 4)];
        assert_eq!(choose(crew.into_iter(), ROOM, Load::Coroutine), None);
        assert_eq!(choose(crew.into_iter(), ROOM, Load::Nested), Some(1));
    }
}
