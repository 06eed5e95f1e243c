//! Wheels as files: what their names say, and whether one is whole.

use std::path::Path;

use arapi::objects::{LockedPackage, is_wheel_name};
use sha2::{Digest as _, Sha256};

use super::requirements::normalized;

/// Looks whether a file is the wheel that its name says; run as a process of its own, never in a worker.
/// Prints one sentence if not, nothing if it is.
pub(crate) const LOOK: &str = r#"
import re, sys, zipfile
path, name, version = sys.argv[1:4]
def normalized(text):
    return re.sub(r"[-_.]+", "-", text).lower()
def look():
    try:
        wheel = zipfile.ZipFile(path)
        broken = wheel.testzip()
    except Exception as exc:
        return f"it is not a zip archive ({exc})"
    if broken is not None:
        return f"`{broken}` in it is broken"
    for entry in wheel.namelist():
        if entry.startswith("/") or ".." in entry.split("/") or "\\" in entry:
            return f"`{entry}` in it leads out of its folder"
    found = [entry for entry in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", entry)]
    if len(found) != 1 or found[0].replace("METADATA", "WHEEL") not in wheel.namelist():
        return "it has no `.dist-info` with METADATA and WHEEL"
    from email.parser import HeaderParser
    head = HeaderParser().parsestr(wheel.read(found[0]).decode("utf-8", "replace"))
    if normalized(head.get("Name") or "") != normalized(name) or (head.get("Version") or "") != version:
        return f"its METADATA is that of {head.get('Name')} {head.get('Version')}"
sys.stdout.write(look() or "")
"#;

/// What a wheel's file name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The package, as they are compared by.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
}

/// Reads a file name; None: it is not that of a wheel.
pub(crate) fn named(file: &str) -> Option<Named> {
    if !is_wheel_name(file) {
        return None;
    }
    let mut parts = file.split('-');
    let (name, version) = (parts.next()?, parts.next()?);
    Some(Named { name: normalized(name), version: version.to_owned() })
}

/// SHA-256 of a file in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// The wheels of a folder, by name.
pub(crate) fn all_in(folder: &Path) -> std::io::Result<Vec<LockedPackage>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some(Named { name, version }) = named(&file) {
            let sha256 = sha256_of(&entry.path())?;
            found.push(LockedPackage { name, version, file, sha256 });
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheels_name_says_package_and_version() {
        let found = named("Foo_Bar-1.0.post1-py3-none-any.whl").unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str()), ("foo-bar", "1.0.post1"));
        assert!(named("foo-1.0-1-cp311-cp311-manylinux_2_17_x86_64.whl").is_some());
        for other in ["foo.whl", "foo-1.0.tar.gz", "../foo-1-py3-none-any.whl", "a-1-py3--any.whl"]
        {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
