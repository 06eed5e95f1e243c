//! Documents of OpenAPI 3.0 and 3.1 as an outgoing connection with a typed client, or as channels with services.
//!
//! [`Document`] makes a value of a text, `operation` and `schema` read it, `client` and `skeleton` write Python, [`outgoing`]
//! and [`channels`] plan the objects, and the command applies the plan through the admin API.  Nothing but the document is
//! read, and nothing is fetched.

pub mod channels;
mod client;
pub(crate) mod command;
mod credentials;
pub mod document;
mod json_schema;
mod module;
mod names;
mod operation;
pub mod outgoing;
pub mod plan;
mod schema;
mod server;
mod skeleton;
mod types;

use std::path::Path;

pub use channels::Channels;
pub use document::{Document, OpenApiError};
pub use outgoing::Outgoing;
pub use plan::{Plan, Told};

use crate::enmasse::Present;
use crate::failure::Failure;

/// Checks that a file can be deployed under its name.
fn module_name(path: &Path) -> Result<(), Failure> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_name = stem.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name && path.extension().is_some_and(|end| end == "py") {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "`{}` cannot be a module: letters, digits and `_`, then `.py`, were expected",
        path.display()
    )))
}

/// For fuzzing: any text as a document.  Panics where a part is lost or an object breaks a rule.
#[expect(clippy::panic, reason = "this is how a fuzzer is told")]
pub fn fuzz(text: &str) {
    let Ok(doc) = Document::read("d.yaml", text) else { return };
    let said = Outgoing {
        name: "api".to_owned(),
        host: Some("https://api.example.com".to_owned()),
        ..Outgoing::default()
    };
    let parts = operation::operations(&doc).len()
        + credentials::schemes(&doc, credentials::Way::Out).len()
        + doc.fields("/webhooks").len();
    let check = |plan: &Plan, parts: usize| {
        if plan.told.len() != parts {
            panic!("{text:?} has {parts} parts, and told was of {:?}", plan.told);
        }
        for planned in &plan.objects {
            let spec = planned.spec.clone();
            if let Err(err) = arapi::Spec::parse(planned.kind, planned.name.as_str(), spec) {
                panic!("{text:?} made what is none: {err}");
            }
        }
    };
    if let Ok(plan) = outgoing::outgoing(&doc, &said, &Present::new()) {
        check(&plan, parts + 1);
    }
    let said = Channels { module: "api".to_owned(), ..Channels::default() };
    check(&channels::channels(&doc, &said, &Present::new()), parts);
}

#[cfg(test)]
mod tests;
