//! Everything the connections share: keys, log, who waits, who listens, scripts.
//!
//! It belongs to one thread; commands run one after the other, each as a whole.
//!
//! **Invariant (durability `sync`):** no reply shows a change that a crash could undo.  A write is
//! answered after it is on disk.  A read does not wait for the disk, unless it looks at a key whose
//! last change is still on its way there; then its reply follows that change.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::channel::{Channels, Outbox};
use crate::command::{Effect, Keys, Spec};
use crate::config::Config;
use crate::journal::{Log, Record, Seq};
use crate::keyspace::{Change, Command, DATABASES, Keyspace, OUT_OF_MEMORY};
use crate::resp::Reply;
use crate::script::Scripts;
use crate::value::Hashing;
use crate::waiting::{Place, Ticket, Waiting};

/// Keys share this many marks of their last change; more means less waiting for a neighbour's.
const MARKS: usize = 8192;
/// Keys swept in one step, so that nobody waits long for it.
const SWEEP: usize = 500;

/// What others may know of a client.
#[derive(Debug)]
pub(crate) struct ClientInfo {
    pub(crate) addr: String,
    pub(crate) since_ms: u64,
    pub(crate) name: std::cell::RefCell<Bytes>,
    pub(crate) db: Cell<usize>,
    pub(crate) last_command: Cell<&'static str>,
    pub(crate) last_ms: Cell<u64>,
    pub(crate) version: Cell<i64>,
    pub(crate) subscribed: Cell<(usize, usize)>,
    pub(crate) outbox: Rc<Outbox>,
}

/// Figures for `INFO`.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) connections: u64,
    pub(crate) refused: u64,
    pub(crate) commands: u64,
    pub(crate) expired: u64,
    pub(crate) snapshots: u64,
    pub(crate) last_snapshot_ms: u64,
}

/// Somebody who wants to know whether a key has changed.
struct Watcher {
    changed: Rc<Cell<bool>>,
    /// Whether the key existed when the watching began.
    existed: bool,
}

/// The state all connections share.
pub(crate) struct Engine {
    pub(crate) keyspace: Keyspace,
    pub(crate) log: Box<dyn Log>,
    pub(crate) config: Rc<Config>,
    pub(crate) password: String,
    pub(crate) channels: Channels,
    pub(crate) scripts: Option<Scripts>,
    pub(crate) waiting: Waiting,
    pub(crate) clients: BTreeMap<u64, Rc<ClientInfo>>,
    pub(crate) figures: Figures,
    pub(crate) started_ms: u64,
    pub(crate) run_id: String,
    watched: HashMap<Place, Vec<Watcher>>,
    group: Vec<Record>,
    marks: Vec<Seq>,
    hashing: Hashing,
    now_ms: u64,
    seed: u64,
    next_client: u64,
}

impl Engine {
    pub(crate) fn new(
        keyspace: Keyspace,
        log: Box<dyn Log>,
        config: Rc<Config>,
        password: String,
    ) -> Self {
        let now_ms = arbase::time::now_ms();
        let last = log.last();
        Self {
            keyspace,
            log,
            password,
            channels: Channels::default(),
            scripts: None,
            waiting: Waiting::default(),
            clients: BTreeMap::new(),
            figures: Figures { last_snapshot_ms: now_ms, ..Figures::default() },
            started_ms: now_ms,
            run_id: format!("{:032x}{:08x}", rand::random::<u128>(), rand::random::<u32>()),
            watched: HashMap::new(),
            group: Vec::new(),
            // After a restart all that was read is safe.
            marks: vec![last; MARKS],
            hashing: Hashing::new(),
            now_ms,
            seed: rand::random(),
            next_client: 1,
            config,
        }
    }

    /// The time; it never goes back.
    pub(crate) fn now(&mut self) -> u64 {
        self.now_ms = self.now_ms.max(arbase::time::now_ms());
        self.now_ms
    }

    /// The time of the command that runs.
    pub(crate) fn same_now(&self) -> u64 {
        self.now_ms
    }

    pub(crate) fn new_client(&mut self) -> u64 {
        let id = self.next_client;
        self.next_client += 1;
        self.figures.connections += 1;
        id
    }

    /// Does a command on keys, as part of the group at hand.
    pub(crate) fn on_keys(&mut self, db: usize, spec: &Spec, argv: &[Bytes]) -> Reply {
        if spec.writes() {
            if let Some(refused) = self.refuses_writes() {
                return refused;
            }
            if spec.effect == Effect::Grow && self.keyspace.is_full() {
                return Reply::error(OUT_OF_MEMORY);
            }
        }
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (now_ms, seed) = (self.now_ms, self.seed);
        let known = self.keyspace.change_count();
        let reply = self.keyspace.apply_known(now_ms, spec, &Command { db, seed, argv });
        if self.keyspace.change_count() > known {
            self.group.push(Record { now_ms, seed, db, argv: argv.to_vec() });
        }
        reply
    }

    /// Whether the command at hand has changed something.
    pub(crate) fn has_open_group(&self) -> bool {
        !self.group.is_empty()
    }

    /// Why no write can be accepted now.
    fn refuses_writes(&self) -> Option<Reply> {
        let progress = self.log.progress();
        let progress = progress.borrow();
        progress.fault.as_ref().map(|fault| {
            Reply::Error(format!("MISCONF Errors writing to the log on disk: {fault}").into())
        })
    }

    /// Ends the group at hand: it goes to the log, and those who watch or wait for its keys learn of
    /// it.  Gives its number, or nothing if nothing was changed.
    pub(crate) fn commit(&mut self) -> Option<Seq> {
        let seq = self.commit_one();
        if seq.is_some() {
            self.serve_waiting();
        }
        seq
    }

    fn commit_one(&mut self) -> Option<Seq> {
        if self.group.is_empty() {
            return None;
        }
        let seq = self.log.append(&self.group);
        self.group.clear();
        for change in self.keyspace.take_changes() {
            match change {
                Change::Key(db, key) => {
                    let mark = self.mark(db, &key);
                    if let Some(mark) = self.marks.get_mut(mark) {
                        *mark = seq;
                    }
                    self.waiting.key_changed(db, &key);
                    if !self.watched.is_empty() {
                        for watcher in self.watched.get(&(db, key)).into_iter().flatten() {
                            watcher.changed.set(true);
                        }
                    }
                }
                Change::Database(db) => {
                    self.marks.fill(seq);
                    self.waiting.database_changed(db);
                    for ((of, key), watchers) in &self.watched {
                        if *of == db {
                            // A key that was not there and is not there has not changed.
                            let exists = self.keyspace.exists(self.now_ms, db, key);
                            for watcher in watchers.iter().filter(|w| w.existed || exists) {
                                watcher.changed.set(true);
                            }
                        }
                    }
                }
            }
        }
        Some(seq)
    }

    fn mark(&self, db: usize, key: &[u8]) -> usize {
        let hash = self.hashing.hash_one((db, key));
        usize::try_from(hash).unwrap_or(0) % MARKS
    }

    /// The group a reply of this command has to wait for, if nothing else was said.
    pub(crate) fn seen(&self, db: usize, spec: &Spec, argv: &[Bytes]) -> Seq {
        match spec.keys {
            Keys::None => 0,
            Keys::All => self.log.last(),
            Keys::At(1, 1, _) => {
                let key = argv.get(1).map(AsRef::as_ref).unwrap_or_default();
                self.marks.get(self.mark(db, key)).copied().unwrap_or(0)
            }
            _ => {
                let keys = spec.keys_of(argv);
                let marks = keys.iter().filter_map(|key| self.marks.get(self.mark(db, key)));
                marks.copied().max().unwrap_or(0)
            }
        }
    }

    /// Lets a client wait for an element.
    pub(crate) fn wait(
        &mut self,
        client: u64,
        db: usize,
        spec: &'static Spec,
        argv: Vec<Bytes>,
    ) -> oneshot::Receiver<(Reply, Seq)> {
        let (answer, answered) = oneshot::channel();
        self.waiting.add(client, Ticket { db, spec, argv, answer });
        answered
    }

    /// Serves those who wait for the keys that were changed, first come first.
    fn serve_waiting(&mut self) {
        while let Some(clients) = self.waiting.next_ready() {
            for client in clients {
                let Some(ticket) = self.waiting.ticket(client) else { continue };
                let (db, spec, argv) = (ticket.db, ticket.spec, ticket.argv.clone());
                let reply = self.on_keys(db, spec, &argv);
                // Nothing there, or a value of another type: it goes on waiting.
                if matches!(reply, Reply::Null | Reply::NullArray | Reply::Error(_)) {
                    continue;
                }
                let seq = self.commit_one().unwrap_or(0);
                if let Some(ticket) = self.waiting.remove(client) {
                    // If the client has gone meanwhile the element is lost, as in Redis.
                    ticket.answer.send((reply, seq)).ok();
                }
            }
        }
    }

    /// Notes that a client watches a key.
    pub(crate) fn watch(&mut self, place: Place, existed: bool, flag: &Rc<Cell<bool>>) {
        let watcher = Watcher { changed: Rc::clone(flag), existed };
        self.watched.entry(place).or_default().push(watcher);
    }

    /// Ends the watching of these keys under this flag.
    pub(crate) fn unwatch(&mut self, places: &[Place], flag: &Rc<Cell<bool>>) {
        for place in places {
            if let Some(watchers) = self.watched.get_mut(place) {
                watchers.retain(|other| !Rc::ptr_eq(&other.changed, flag));
                if watchers.is_empty() {
                    self.watched.remove(place);
                }
            }
        }
    }

    /// Removes some keys whose time has passed; says whether there may be more.
    pub(crate) fn sweep(&mut self) -> bool {
        if self.refuses_writes().is_some() {
            return false;
        }
        let now_ms = self.now();
        let overdue = self.keyspace.overdue(now_ms, SWEEP);
        let count = overdue.len();
        self.figures.expired += u64::try_from(count).unwrap_or(0);
        let mut by_db: Vec<Vec<Bytes>> = vec![Vec::new(); DATABASES];
        for (db, key) in overdue {
            if let Some(keys) = by_db.get_mut(db) {
                keys.push(key);
            }
        }
        let Some(del) = crate::command::named(b"del") else { return false };
        for (db, keys) in by_db.into_iter().enumerate() {
            if !keys.is_empty() {
                let mut argv = vec![Bytes::from_static(b"DEL")];
                argv.extend(keys);
                self.on_keys(db, del, &argv);
            }
        }
        self.commit();
        count == SWEEP
    }
}

#[cfg(test)]
mod tests;
