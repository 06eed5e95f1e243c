//! Writes the OpenAPI document of the admin API: `cargo run -p arwadm --example openapi > docs/api/arwadm.json`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let document = serde_json::to_string_pretty(&arwadm::openapi_document())?;
    writeln!(std::io::stdout().lock(), "{document}")
}
