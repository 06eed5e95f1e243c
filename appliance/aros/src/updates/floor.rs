//! Downgrade protection: the highest version that was ever confirmed on this box, and how versions are compared.

use std::cmp::Ordering;
use std::path::PathBuf;

use crate::config::Config;

fn file(config: &Config) -> PathBuf {
    config.state_dir.join("version-floor")
}

/// The lowest version that may be installed without saying so; empty before the first confirmation.
pub(crate) fn get(config: &Config) -> String {
    match arstore::file::read(&file(config)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes.unwrap_or_default()).trim().to_owned(),
        Err(err) => {
            log::warn!(error:% = arbase::Chain(&err); "the version floor cannot be read");
            String::new()
        }
    }
}

/// Raises it to a version that was confirmed; it is never lowered.
pub(crate) fn raise(config: &Config, version: &str) {
    if compare(version, &get(config)) == Ordering::Greater
        && let Err(err) = arstore::file::write_private(&file(config), version.as_bytes())
    {
        log::warn!(error:% = arbase::Chain(&err); "the version floor cannot be raised");
    }
}

/// Compares as semantic versioning does (semver.org 2.0, section 11): numbers as numbers, a part with letters after a
/// dash before the release itself.  What stands after `+` is compared too, last: builds of one version follow it.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let split = |text: &str| -> (Vec<String>, Option<Vec<String>>, Vec<String>) {
        let (text, build) = text.split_once('+').unwrap_or((text, ""));
        let (release, pre) = match text.split_once('-') {
            Some((release, pre)) => (release, Some(pre)),
            None => (text, None),
        };
        let parts = |text: &str| {
            text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        (parts(release), pre.map(parts), parts(build))
    };
    let (one, other) = (split(one), split(other));
    by_parts(&one.0, &other.0)
        .then_with(|| match (&one.1, &other.1) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(other)) => by_parts(one, other),
        })
        .then_with(|| by_parts(&one.2, &other.2))
}

fn by_parts(one: &[String], other: &[String]) -> Ordering {
    for at in 0..one.len().max(other.len()) {
        let order = match (one.get(at), other.get(at)) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(one), Some(other)) => match (one.parse::<u64>(), other.parse::<u64>()) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => one.cmp(other),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_people_order_them() {
        let rising =
            ["", "0.1.0-rc.1", "0.1.0-rc.2", "0.1.0", "0.1.0+1", "0.2.0", "0.10.0", "1.0.0"];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("0.1.0", "0.1.0"), Ordering::Equal);
    }

    #[test]
    fn the_floor_rises_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: dir.path().into(), ..Config::default() };
        raise(&config, "0.2.0");
        raise(&config, "0.1.9");
        assert_eq!(get(&config), "0.2.0");
    }
}
