//! Commit-confirm of the network: what was confirmed, what is on trial, and what is to be done next.
//!
//! A state machine without a world: it reads no clock, writes no file and calls nobody.  [`super`] stores [`Kept`]
//! before it carries out a step.
//!
//! **Invariant:** a trial is on disk as a trial before it takes effect, so that whatever restarts, the box comes up with
//! what was confirmed, and the change that was on trial is not tried again by itself.

use std::time::{Duration, Instant};

use arapi::arclst::{Change, Expect};
use arapi::names::{Kind, ObjectName};
use arapi::objects::{NetworkSpec, Object, SecretField, SecretText, Spec};
use serde::{Deserialize, Serialize};

use super::render;

/// Who writes an object whose network needs no confirmation: nobody is there who could give it.
const UNATTENDED: &str = "seed";

/// A network with what it needs to take effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// What is configured.
    pub(crate) spec: NetworkSpec,
    /// The passphrase of its wireless network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passphrase: Option<SecretText>,
    /// The object it came from; none for the network a box has without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
}

/// Which change a trial is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The network that is tried, so that it is known again.
    pub(crate) network: Network,
    /// The store's revision of its object; 0 where there is none.
    pub(crate) revision: u64,
}

/// What is kept on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// What was confirmed last.
    #[serde(default)]
    pub(crate) confirmed: Network,
    /// The change on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trial: Option<Mark>,
    /// The change that was rolled back and still stands in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Mark>,
    /// Why the last trial ended without being kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_rollback: Option<String>,
}

/// What the store says now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// The object of this box.
    pub(crate) own: Option<Object>,
    /// The object of every box without one of its own.
    pub(crate) default: Option<Object>,
}

impl Seen {
    /// The object that counts.
    pub(crate) fn effective(&self) -> Option<&Object> {
        self.own.as_ref().or(self.default.as_ref())
    }

    /// The network it describes, without the passphrase, and the name of the secret that has it.
    pub(crate) fn wanted(&self) -> (Network, u64, Option<String>) {
        let Some((object, Spec::Network(spec))) =
            self.effective().map(|object| (object, object.spec.clone()))
        else {
            return (Network::default(), 0, None);
        };
        let secret = object.spec.secret_names().into_iter().next();
        let network =
            Network { spec, passphrase: None, object: Some(object.name.as_str().to_owned()) };
        (network, object.revision, secret)
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing changed.
    Nothing,
    /// Make this network take effect.
    Apply,
    /// The store has what was rolled back: write the confirmed network back.
    WriteBack,
}

/// Confirmed and trial, with the time that is left.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// What is on disk, or is to be.
    pub(crate) kept: Kept,
    deadline: Option<Instant>,
}

impl Machine {
    /// Starts from what was kept.  A trial that was on when the box or the unit ended is over.
    pub(crate) fn starting_from(mut kept: Kept) -> Self {
        if let Some(mark) = kept.trial.take() {
            kept.last_rollback = Some(format!(
                "{} was not confirmed before the box restarted",
                described(&mark.network)
            ));
            kept.refused = Some(mark);
        }
        Self { kept, deadline: None }
    }

    /// What is to be in effect.
    pub(crate) fn in_effect(&self) -> &Network {
        self.kept.trial.as_ref().map_or(&self.kept.confirmed, |mark| &mark.network)
    }

    /// Takes in what the store says: `wanted` at `revision`, written by `who`.
    pub(crate) fn see(
        &mut self,
        wanted: Network,
        revision: u64,
        who: &str,
        now: Instant,
        length: Duration,
    ) -> Step {
        if wanted == self.kept.confirmed {
            self.kept.refused = None;
            return match self.kept.trial.take() {
                // Set back by whoever changed it.
                Some(_) => {
                    self.deadline = None;
                    Step::Apply
                }
                None => Step::Nothing,
            };
        }
        if same_effect(&wanted, &self.kept.confirmed) && self.kept.trial.is_none() {
            // Only the object it comes from is another.
            self.kept.confirmed = wanted;
            self.kept.refused = None;
            return Step::Apply;
        }
        let mark = Mark { network: wanted, revision };
        if self.kept.trial.as_ref() == Some(&mark) {
            return Step::Nothing;
        }
        if self.kept.refused.as_ref() == Some(&mark) {
            return Step::WriteBack;
        }
        self.kept.refused = None;
        if who == UNATTENDED {
            self.kept.confirmed = mark.network;
            self.kept.trial = None;
            self.deadline = None;
        } else {
            self.kept.trial = Some(mark);
            self.deadline = Some(now + length);
        }
        Step::Apply
    }

    /// The trial proved itself; false if there is none.
    pub(crate) fn confirm(&mut self) -> bool {
        let Some(mark) = self.kept.trial.take() else { return false };
        self.kept.confirmed = mark.network;
        self.kept.last_rollback = None;
        self.deadline = None;
        true
    }

    /// Ends a trial that was not confirmed.
    pub(crate) fn roll_back(&mut self, reason: String) -> Step {
        let Some(mark) = self.kept.trial.take() else { return Step::Nothing };
        self.deadline = None;
        self.kept.last_rollback = Some(reason);
        self.kept.refused = Some(mark);
        Step::Apply
    }

    /// When the trial ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The trial, and the time it has.
    pub(crate) fn trial(&self, now: Instant) -> Option<(&NetworkSpec, Duration)> {
        let mark = self.kept.trial.as_ref()?;
        Some((&mark.network.spec, self.deadline?.saturating_duration_since(now)))
    }

    /// The changes that make the store say again what was confirmed.
    pub(crate) fn changes_back(&self, seen: &Seen, node: &ObjectName) -> Vec<Change> {
        let mut changes = Vec::new();
        let confirmed = &self.kept.confirmed;
        let name = confirmed.object.as_deref();
        let delete = |object: &Object| Change::Delete {
            kind: Kind::Network,
            name: object.name.clone(),
            expect: Expect::Revision(object.revision),
        };
        let own_counts = name == Some(node.as_str());
        if let Some(own) = seen.own.as_ref().filter(|_| !own_counts) {
            changes.push(delete(own));
        }
        match name.and_then(|name| ObjectName::parse(name).ok()) {
            Some(name) => {
                let there = if own_counts { seen.own.as_ref() } else { seen.default.as_ref() };
                let same = there.is_some_and(
                    |object| matches!(&object.spec, Spec::Network(spec) if *spec == confirmed.spec),
                );
                if let (Some(value), Some(secret)) = (&confirmed.passphrase, confirmed.secret()) {
                    changes.push(Change::PutSecret { name: secret, value: value.clone() });
                }
                if !same {
                    changes.push(Change::Put {
                        kind: Kind::Network,
                        name,
                        spec: serde_json::to_value(&confirmed.spec).unwrap_or_default(),
                        expect: there.map_or(Expect::Absent, |it| Expect::Revision(it.revision)),
                    });
                }
            }
            None => changes.extend(seen.default.iter().map(delete)),
        }
        changes
    }
}

impl Network {
    /// The name of the secret with the passphrase.
    fn secret(&self) -> Option<String> {
        let mut spec = Spec::Network(self.spec.clone());
        spec.secrets_mut().into_iter().find_map(|(_, field)| match field {
            SecretField::Secret(name) => Some(name.clone()),
            SecretField::Value(_) | SecretField::Generate(_) => None,
        })
    }
}

/// Whether two networks are the same but for the object they come from.
fn same_effect(one: &Network, other: &Network) -> bool {
    one.passphrase == other.passphrase
        && render::render(&one.spec) == render::render(&other.spec)
        && render::wifi(&one.spec) == render::wifi(&other.spec)
}

/// A change in a sentence.
pub(crate) fn described(network: &Network) -> String {
    match &network.object {
        Some(name) => format!("the change of Network `{name}`"),
        None => "the removal of the Network object".to_owned(),
    }
}

#[cfg(test)]
mod tests;
