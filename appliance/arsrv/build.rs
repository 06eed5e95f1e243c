//! Tells cargo that the SDK is part of the crate: `include_dir` alone does not notice new files.

fn main() {
    println!("cargo:rerun-if-changed=sdk/src");
}
