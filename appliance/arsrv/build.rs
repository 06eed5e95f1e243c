//! Tells cargo that the SDK is part of the crate: `include_dir` alone does not notice new files.

#[expect(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn main() {
    println!("cargo:rerun-if-changed=sdk/src");
}
