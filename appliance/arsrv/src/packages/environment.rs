//! Which packages the workers of a group have: those of all modules that run in it, together.
//!
//! **Invariant:** there is one version of a package in an environment; two modules that need different ones cannot
//! run in one group.

use std::collections::BTreeMap;

use arapi::objects::LockedPackage;
use sha2::{Digest as _, Sha256};

/// The packages of a group of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    /// Names the content: two with the same name are the same.
    pub(crate) name: String,
    /// What is in it, by name.
    pub(crate) packages: Vec<LockedPackage>,
}

/// Two modules of a group need different versions of a package.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "module `{module}` needs `{package}` {version} and module `{other}` {other_version}, and both run in group `{group}`; give the services of one of them another group (`arctl deploy --group`)"
)]
pub(crate) struct Conflict {
    /// The group.
    pub(crate) group: String,
    /// The package.
    pub(crate) package: String,
    /// A module.
    pub(crate) module: String,
    /// What it needs.
    pub(crate) version: String,
    /// The other module.
    pub(crate) other: String,
    /// What that needs.
    pub(crate) other_version: String,
}

/// What the modules of a group need together; None: nothing beside what every worker has.
pub(crate) fn plan<'a>(
    group: &str,
    needs: impl Iterator<Item = (&'a str, &'a [LockedPackage])>,
) -> Result<Option<Environment>, Box<Conflict>> {
    let mut packages: BTreeMap<&str, (&LockedPackage, &str)> = BTreeMap::new();
    for (module, lock) in needs {
        for package in lock {
            let first = packages.entry(&package.name).or_insert((package, module));
            // The same version with another content is another one: hashes are what was agreed on.
            if first.0.sha256 != package.sha256 {
                return Err(Box::new(Conflict {
                    group: group.to_owned(),
                    package: package.name.clone(),
                    module: module.to_owned(),
                    version: package.version.clone(),
                    other: first.1.to_owned(),
                    other_version: first.0.version.clone(),
                }));
            }
        }
    }
    let packages: Vec<LockedPackage> =
        packages.into_values().map(|(package, _)| package.clone()).collect();
    if packages.is_empty() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    for package in &packages {
        hash.update(package.file.as_bytes());
        hash.update([0]);
        hash.update(package.sha256.as_bytes());
    }
    let name = hex::encode(hash.finalize()).chars().take(24).collect();
    Ok(Some(Environment { name, packages }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            file: format!("{name}-{version}-py3-none-any.whl"),
            sha256: hex::encode(Sha256::digest(format!("{name} {version}"))),
        }
    }

    #[test]
    fn modules_of_a_group_share_what_they_need() {
        let (one, two) = ([package("b", "1"), package("a", "1")], [package("a", "1")]);
        let both = plan("default", [("x", &one[..]), ("y", &two[..])].into_iter());
        let both = both.unwrap().unwrap();
        let names: Vec<&str> = both.packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let alone = plan("other", [("x", &one[..])].into_iter()).unwrap().unwrap();
        assert_eq!(both, alone);
        assert_eq!(plan("default", [("z", &[][..])].into_iter()), Ok(None));
    }

    #[test]
    fn two_versions_in_a_group_are_refused_with_both_modules() {
        let (one, two) = ([package("a", "1")], [package("a", "2")]);
        let refused = plan("default", [("x", &one[..]), ("y", &two[..])].into_iter());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "module `y` needs `a` 2 and module `x` 1, and both run in group `default`; give the services of one of \
             them another group (`arctl deploy --group`)"
        );
    }
}
