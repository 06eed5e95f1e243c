//! Clients that wait for an element: in which lists and sorted sets, and in what order.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::command::Spec;
use crate::journal::Seq;
use crate::resp::Reply;

/// A key of a database.
pub(crate) type Place = (usize, Bytes);

/// A command that waits.
pub(crate) struct Ticket {
    pub(crate) db: usize,
    pub(crate) spec: &'static Spec,
    pub(crate) argv: Vec<Bytes>,
    pub(crate) answer: oneshot::Sender<(Reply, Seq)>,
}

/// All that wait.
#[derive(Default)]
pub(crate) struct Waiting {
    tickets: HashMap<u64, Ticket>,
    queues: HashMap<Place, VecDeque<u64>>,
    ready: VecDeque<Place>,
}

impl Waiting {
    pub(crate) fn count(&self) -> usize {
        self.tickets.len()
    }

    pub(crate) fn add(&mut self, client: u64, ticket: Ticket) {
        for key in ticket.spec.keys_of(&ticket.argv) {
            let queue = self.queues.entry((ticket.db, key.clone())).or_default();
            if !queue.contains(&client) {
                queue.push_back(client);
            }
        }
        self.tickets.insert(client, ticket);
    }

    /// Takes a client out; gives its ticket if it still waited.
    pub(crate) fn remove(&mut self, client: u64) -> Option<Ticket> {
        let ticket = self.tickets.remove(&client)?;
        for key in ticket.spec.keys_of(&ticket.argv) {
            let place = (ticket.db, key.clone());
            if let Some(queue) = self.queues.get_mut(&place) {
                queue.retain(|waiting| *waiting != client);
                if queue.is_empty() {
                    self.queues.remove(&place);
                }
            }
        }
        Some(ticket)
    }

    /// Notes that a key has changed.
    pub(crate) fn key_changed(&mut self, db: usize, key: &Bytes) {
        if self.queues.is_empty() {
            return;
        }
        let place = (db, key.clone());
        if self.queues.contains_key(&place) {
            self.ready.push_back(place);
        }
    }

    /// Notes that a whole database has changed.
    pub(crate) fn database_changed(&mut self, db: usize) {
        let places = self.queues.keys().filter(|(of, _)| *of == db);
        self.ready.extend(places.cloned());
    }

    /// The clients that wait for the next changed key, first come first.
    pub(crate) fn next_ready(&mut self) -> Option<Vec<u64>> {
        let place = self.ready.pop_front()?;
        Some(
            self.queues
                .get(&place)
                .map(|queue| queue.iter().copied().collect())
                .unwrap_or_default(),
        )
    }

    pub(crate) fn ticket(&self, client: u64) -> Option<&Ticket> {
        self.tickets.get(&client)
    }
}
