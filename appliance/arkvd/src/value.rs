//! The values a key can have, each with a running count of the memory it takes.
//!
//! A clone shares its contents until one of the two is changed; that is how a snapshot is taken
//! without stopping the keyspace for long.  Order inside of hashes and sets depends on the history
//! of changes only, never on chance, so that the same commands lead to the same state everywhere.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};

pub(crate) mod ranked;

use ranked::Ranked;

/// Hashing keyed per process: texts that collide on purpose cannot be prepared.
pub(crate) type Hashing = std::hash::RandomState;

/// What an element of a collection takes beside its bytes.
const ELEMENT: usize = 64;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(Bytes),
    List(Arc<List>),
    Hash(Arc<Hash>),
    Set(Arc<Set>),
    Sorted(Arc<Sorted>),
}

impl Value {
    /// Its type as `TYPE` names it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::Sorted(_) => "zset",
        }
    }

    /// Bytes it takes in memory, about.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(list) => list.memory(),
            Self::Hash(hash) => hash.memory(),
            Self::Set(set) => set.memory(),
            Self::Sorted(sorted) => sorted.memory(),
        }
    }
}

/// What all collections have in common.
pub(crate) trait Collection: Default + Clone {
    /// The collection inside a value of its type.
    fn of(value: &Value) -> Option<&Arc<Self>>;
    /// The same to change; copies it first if a snapshot still needs it.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    /// As a value.
    fn into_value(self) -> Value;
    /// Whether nothing is left; such keys do not exist.
    fn is_empty(&self) -> bool;
    /// Bytes it takes, about.
    fn memory(&self) -> usize;
}

macro_rules! collection {
    ($name:ident) => {
        impl Collection for $name {
            fn of(value: &Value) -> Option<&Arc<Self>> {
                match value {
                    Value::$name(inner) => Some(inner),
                    _ => None,
                }
            }
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                match value {
                    Value::$name(inner) => Some(Arc::make_mut(inner)),
                    _ => None,
                }
            }
            fn into_value(self) -> Value {
                Value::$name(Arc::new(self))
            }
            fn is_empty(&self) -> bool {
                self.len() == 0
            }
            fn memory(&self) -> usize {
                self.memory + self.len() * ELEMENT
            }
        }
    };
}
collection!(List);
collection!(Hash);
collection!(Set);
collection!(Sorted);

/// A copy that does not keep the request it came with alive.
pub(crate) fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Elements in order, quick at both ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct List {
    items: VecDeque<Bytes>,
    memory: usize,
}

impl List {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn items(&self) -> &VecDeque<Bytes> {
        &self.items
    }

    pub(crate) fn push(&mut self, end: End, item: Bytes) {
        self.memory += item.len();
        match end {
            End::Left => self.items.push_front(item),
            End::Right => self.items.push_back(item),
        }
    }

    pub(crate) fn pop(&mut self, end: End) -> Option<Bytes> {
        let item = match end {
            End::Left => self.items.pop_front(),
            End::Right => self.items.pop_back(),
        }?;
        self.memory -= item.len();
        Some(item)
    }

    pub(crate) fn insert(&mut self, index: usize, item: Bytes) {
        self.memory += item.len();
        self.items.insert(index, item);
    }

    /// Removes the elements at these indexes, which are in order.
    pub(crate) fn remove_all(&mut self, indexes: &[usize]) {
        let (mut at, mut next) = (0, indexes.iter().copied().peekable());
        self.items.retain(|_| {
            let goes = next.next_if_eq(&at).is_some();
            at += 1;
            !goes
        });
        self.memory = self.items.iter().map(Bytes::len).sum();
    }

    /// Replaces the element at `index`; says whether there is one.
    pub(crate) fn replace(&mut self, index: usize, item: Bytes) -> bool {
        let Some(place) = self.items.get_mut(index) else { return false };
        self.memory = self.memory - place.len() + item.len();
        *place = item;
        true
    }

    /// Keeps the elements from `start` up to and without `end`.
    pub(crate) fn keep(&mut self, start: usize, end: usize) {
        self.items.truncate(end);
        self.items.drain(..start.min(self.items.len()));
        self.memory = self.items.iter().map(Bytes::len).sum();
    }
}

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Left,
    Right,
}

/// Fields with values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Hash {
    fields: IndexMap<Bytes, Bytes, Hashing>,
    memory: usize,
}

impl Hash {
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(crate) fn fields(&self) -> &IndexMap<Bytes, Bytes, Hashing> {
        &self.fields
    }

    pub(crate) fn get(&self, field: &[u8]) -> Option<&Bytes> {
        self.fields.get(field)
    }

    /// Sets a field; says whether it is new.
    pub(crate) fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.memory += value.len();
        if let Some(old) = self.fields.get_mut(field) {
            self.memory -= old.len();
            *old = own(value);
            return false;
        }
        self.memory += field.len();
        self.fields.insert(own(field), own(value));
        true
    }

    pub(crate) fn remove(&mut self, field: &[u8]) -> bool {
        let Some((field, value)) = self.fields.swap_remove_entry(field) else { return false };
        self.memory -= field.len() + value.len();
        true
    }
}

/// Members without order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Set {
    members: IndexSet<Bytes, Hashing>,
    memory: usize,
}

impl Set {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn members(&self) -> &IndexSet<Bytes, Hashing> {
        &self.members
    }

    pub(crate) fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(member)
    }

    /// Adds a member; says whether it is new.
    pub(crate) fn add(&mut self, member: &[u8]) -> bool {
        if self.members.contains(member) {
            return false;
        }
        self.memory += member.len();
        self.members.insert(own(member))
    }

    pub(crate) fn remove(&mut self, member: &[u8]) -> bool {
        let gone = self.members.swap_remove(member);
        if gone {
            self.memory -= member.len();
        }
        gone
    }

    /// Removes the member at `index`.
    pub(crate) fn take(&mut self, index: usize) -> Option<Bytes> {
        let member = self.members.swap_remove_index(index)?;
        self.memory -= member.len();
        Some(member)
    }
}

/// Members with scores, in the order of score and then bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sorted {
    scores: IndexMap<Bytes, f64, Hashing>,
    order: Ranked,
    memory: usize,
}

impl Sorted {
    pub(crate) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(crate) fn scores(&self) -> &IndexMap<Bytes, f64, Hashing> {
        &self.scores
    }

    pub(crate) fn order(&self) -> &Ranked {
        &self.order
    }

    pub(crate) fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Sets a member's score; says what it was.
    pub(crate) fn set(&mut self, member: &[u8], score: f64) -> Option<f64> {
        if let Some((_, member, old)) = self.scores.get_full_mut(member) {
            let before = *old;
            if before != score {
                self.order.remove(before, member);
                self.order.insert(score, member.clone());
                *old = score;
            }
            return Some(before);
        }
        let member = own(member);
        self.memory += member.len();
        self.order.insert(score, member.clone());
        self.scores.insert(member, score);
        None
    }

    pub(crate) fn remove(&mut self, member: &[u8]) -> bool {
        let Some((member, score)) = self.scores.swap_remove_entry(member) else { return false };
        self.memory -= member.len();
        self.order.remove(score, &member);
        true
    }
}
