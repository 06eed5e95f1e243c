//! Taking over an installation of Zato: exports of its command `enmasse`, and ini files of user config.
//!
//! [`document`] makes a list of entries of the files, [`plan()`] decides what becomes of each without looking at anything
//! else, and the command applies the plan through the admin API.  The parts of the plan: `security`, `channel`,
//! `outgoing`, `limits`, `grants`, `user_config`, and `later` for what has no component here yet.
//!
//! Nothing is asked of a running Zato, and services are deployed by `arctl deploy`.

mod channel;
pub(crate) mod command;
pub mod document;
mod fields;
mod grants;
mod later;
mod limits;
mod outgoing;
pub mod plan;
mod protocol;
mod security;
mod user_config;

pub use document::{Entry, ExportError, read};
pub use fields::Env;
pub use plan::{Missing, Outcome, Plan, Planned, Present, Told, plan};

/// For fuzzing: any text as an export that includes itself.  Panics where an entry is lost or an object breaks a rule.
#[expect(clippy::panic, reason = "this is how a fuzzer is told")]
pub fn fuzz(text: &str) {
    let Ok(entries) = read("e.yaml", text, &mut |_| Ok(text.to_owned())) else { return };
    let plan = plan(&entries, &Env::new(), &Present::new());
    let told: Vec<_> = plan.told.iter().map(|told| (&told.section, &told.name)).collect();
    let there: Vec<_> = entries.iter().map(|entry| (&entry.section, &entry.name)).collect();
    if told != there {
        panic!("{text:?} has {there:?}, and told was of {told:?}");
    }
    for planned in &plan.objects {
        if let Err(err) =
            arapi::Spec::parse(planned.kind, planned.name.as_str(), planned.spec.clone())
        {
            panic!("{text:?} made what is none: {err}");
        }
    }
}

#[cfg(test)]
mod tests;
