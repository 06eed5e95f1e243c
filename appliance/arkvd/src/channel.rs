//! Channels: who listens, and what waits for each listener.
//!
//! A listener that does not take its messages is cut off rather than kept in memory for ever.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};
use tokio::sync::Notify;

use crate::glob;
use crate::journal::Seq;
use crate::resp::Reply;

/// What may wait for one listener, bytes.
const WAITING_BYTES: usize = 32 * 1024 * 1024;

/// What waits for one client besides the replies to its requests.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: RefCell<VecDeque<(Reply, Seq)>>,
    bytes: Cell<usize>,
    closed: Cell<bool>,
    wake: Notify,
    cut: Notify,
}

impl Outbox {
    /// Adds a message that may be seen once group `after` is safe.
    fn push(&self, message: Reply, bytes: usize, after: Seq) {
        if self.closed.get() {
            return;
        }
        self.bytes.set(self.bytes.get() + bytes);
        if self.bytes.get() > WAITING_BYTES {
            self.close();
        } else {
            self.waiting.borrow_mut().push_back((message, after));
        }
        self.wake.notify_one();
    }

    /// Ends the client's connection.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.waiting.borrow_mut().clear();
        self.wake.notify_one();
        self.cut.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Returns when the connection has to end.
    pub(crate) async fn is_cut(&self) {
        if !self.closed.get() {
            self.cut.notified().await;
        }
    }

    /// Takes all that waits.
    pub(crate) fn take(&self) -> VecDeque<(Reply, Seq)> {
        self.bytes.set(0);
        std::mem::take(&mut *self.waiting.borrow_mut())
    }

    /// Returns when something was added or the connection has to end.
    pub(crate) async fn changed(&self) {
        if self.waiting.borrow().is_empty() && !self.closed.get() {
            self.wake.notified().await;
        }
    }
}

/// Listeners in the order of their coming.
type Listeners = IndexMap<u64, Rc<Outbox>>;

/// All channels somebody listens to.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    exact: IndexMap<Bytes, Listeners>,
    patterns: IndexMap<Bytes, Listeners>,
}

/// What one client listens to.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    exact: IndexSet<Bytes>,
    patterns: IndexSet<Bytes>,
}

/// A channel's name, or a pattern of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Exact,
    Pattern,
}

impl Subscriptions {
    pub(crate) fn count(&self) -> usize {
        self.exact.len() + self.patterns.len()
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.exact.len(), self.patterns.len())
    }

    fn of(&mut self, form: Form) -> &mut IndexSet<Bytes> {
        match form {
            Form::Exact => &mut self.exact,
            Form::Pattern => &mut self.patterns,
        }
    }
}

impl Channels {
    fn of(&mut self, form: Form) -> &mut IndexMap<Bytes, Listeners> {
        match form {
            Form::Exact => &mut self.exact,
            Form::Pattern => &mut self.patterns,
        }
    }

    /// Begins to listen and gives the confirmations.
    pub(crate) fn subscribe(
        &mut self,
        form: Form,
        names: &[Bytes],
        client: u64,
        outbox: &Rc<Outbox>,
        own: &mut Subscriptions,
    ) -> Reply {
        let word = if form == Form::Exact { "subscribe" } else { "psubscribe" };
        let confirm = names.iter().map(|name| {
            let name = crate::value::own(name);
            if own.of(form).insert(name.clone()) {
                let listeners = self.of(form).entry(name.clone()).or_default();
                listeners.insert(client, Rc::clone(outbox));
            }
            Reply::Push(vec![Reply::fixed(word), Reply::Bulk(name), Reply::count(own.count())])
        });
        Reply::Several(confirm.collect())
    }

    /// Stops listening to these, or to all, and gives the confirmations.
    pub(crate) fn unsubscribe(
        &mut self,
        form: Form,
        names: &[Bytes],
        client: u64,
        own: &mut Subscriptions,
    ) -> Reply {
        let word = if form == Form::Exact { "unsubscribe" } else { "punsubscribe" };
        let names: Vec<Bytes> =
            if names.is_empty() { own.of(form).iter().cloned().collect() } else { names.to_vec() };
        if names.is_empty() {
            let confirm = vec![Reply::fixed(word), Reply::Null, Reply::count(own.count())];
            return Reply::Several(vec![Reply::Push(confirm)]);
        }
        let confirm = names.into_iter().map(|name| {
            if own.of(form).shift_remove(&name) {
                self.leave(form, &name, client);
            }
            Reply::Push(vec![Reply::fixed(word), Reply::Bulk(name), Reply::count(own.count())])
        });
        Reply::Several(confirm.collect())
    }

    fn leave(&mut self, form: Form, name: &Bytes, client: u64) {
        let channels = self.of(form);
        if let Some(listeners) = channels.get_mut(name) {
            listeners.shift_remove(&client);
            if listeners.is_empty() {
                channels.swap_remove(name);
            }
        }
    }

    /// Forgets a client.
    pub(crate) fn forget(&mut self, client: u64, own: &mut Subscriptions) {
        for form in [Form::Exact, Form::Pattern] {
            for name in std::mem::take(own.of(form)) {
                self.leave(form, &name, client);
            }
        }
    }

    /// Sends a message to all who listen and says how many that are.
    pub(crate) fn publish(&self, name: &Bytes, message: &Bytes, after: Seq) -> usize {
        let bytes = 64 + name.len() + message.len();
        let mut count = 0;
        let text = |bytes: &Bytes| Reply::Bulk(bytes.clone());
        if let Some(listeners) = self.exact.get(name) {
            for outbox in listeners.values() {
                let push = vec![Reply::fixed("message"), text(name), text(message)];
                outbox.push(Reply::Push(push), bytes, after);
                count += 1;
            }
        }
        for (pattern, listeners) in &self.patterns {
            if !glob::matches(pattern, name) {
                continue;
            }
            for outbox in listeners.values() {
                let push = vec![Reply::fixed("pmessage"), text(pattern), text(name), text(message)];
                outbox.push(Reply::Push(push), bytes + pattern.len(), after);
                count += 1;
            }
        }
        count
    }

    /// The channels somebody listens to by name.
    pub(crate) fn names(&self, pattern: Option<&[u8]>) -> Vec<Bytes> {
        let fits = |name: &&Bytes| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        self.exact.keys().filter(fits).cloned().collect()
    }

    pub(crate) fn listeners(&self, name: &[u8]) -> usize {
        self.exact.get(name).map_or(0, IndexMap::len)
    }

    pub(crate) fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    pub(crate) fn channel_count(&self) -> usize {
        self.exact.len()
    }
}
