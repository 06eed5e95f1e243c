//! `arctl new service`: the file of a service that can be deployed as it is, its test, and what tests need.
//!
//! It needs no box.
//!
//! **Invariant:** no file that is there is changed; either all of the new ones are written or, as far as that can be seen
//! before, none.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use arapi::names::{ObjectName, is_reserved};

use crate::failure::Failure;
use crate::out;
use crate::python::KEYWORDS;

/// What every folder of tests needs once.
const CONFTEST: &str = "\"\"\"Lets tests run services without a node: the fixture `arint`.\"\"\"

pytest_plugins = ['arint.testing']
";

const SERVICE: &str = "\"\"\"Service `{name}`.\"\"\"

from zato.server.service import Service


class {class}(Service):
    \"\"\"Greets whoever asks.\"\"\"

    name = '{name}'
    input = 'who'

    def handle(self):
        who = self.request.input.who
        self.logger.info('greeting %s', who)
        self.response.payload = {'greeting': f'Hello {who}'}
";

const TEST: &str = "\"\"\"Tests of service `{name}`; they need no node.\"\"\"

from {module} import {class}


def test_it_greets(arint):
    answer = arint.request({class}, json={'who': 'Anna'})
    assert answer.status == 200, answer.error
    assert answer.data == {'greeting': 'Hello Anna'}


def test_it_refuses_a_request_without_input(arint):
    assert arint.request({class}, json={}).status == 400
";

/// What a module called so would hide.
const NOT_MODULES: &[&str] = &[
    "arint",
    "zato",
    "bunch",
    "requests",
    "redis",
    "sqlalchemy",
    "test",
    "json",
    "logging",
    "conftest",
];

/// Writes the files.
pub(crate) fn service(name: &str, folder: &Path) -> Result<(), Failure> {
    let (module, class) = names_of(name)?;
    let fill = |text: &str| {
        text.replace("{name}", name).replace("{module}", &module).replace("{class}", &class)
    };
    let wanted: Vec<(PathBuf, String)> = vec![
        (folder.join(format!("{module}.py")), fill(SERVICE)),
        (folder.join(format!("test_{module}.py")), fill(TEST)),
    ];
    for (path, _) in &wanted {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::Usage(format!(
                "`{}` is there already; choose another name or another folder",
                path.display()
            )));
        }
    }
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(fault(folder))?;
    for (path, text) in &wanted {
        write_new(path, text).map_err(fault(path))?;
        out::line(&format!("made {}", path.display()))?;
    }
    let conftest = folder.join("conftest.py");
    match write_new(&conftest, CONFTEST) {
        Ok(()) => out::line(&format!("made {}", conftest.display())),
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(Failure::Write { path: conftest, source }),
    }
}

/// Never over what is there, even if it has come up just now.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// The names of module and class for a service's name.
fn names_of(name: &str) -> Result<(String, String), Failure> {
    let usage = Failure::Usage;
    ObjectName::parse(name).map_err(|err| usage(err.to_string()))?;
    if is_reserved(name) {
        return Err(usage(format!(
            "name `{name}` is reserved: names that start with `AR` or with the name of an ARINT component are the producer's; choose another"
        )));
    }
    let parts: Vec<&str> = name.split(['.', '-', '_']).collect();
    let is_word =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !parts.iter().all(is_word) || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(usage(format!(
            "`{}` cannot name a file and a class: words of letters and digits, joined by `.`, `-` or `_`, were expected, for example `orders.create`",
            name.escape_debug()
        )));
    }
    let module = parts.join("_").to_ascii_lowercase();
    if KEYWORDS.contains(&module.as_str()) || NOT_MODULES.contains(&module.as_str()) {
        return Err(usage(format!(
            "a file `{module}.py` would hide something of Python or of the SDK; choose a name of two words, for example `{module}.get`"
        )));
    }
    let class = parts.iter().map(|part| {
        let mut letters = part.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    });
    Ok((module, class.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        names_of(name).unwrap_err().text().unwrap_or_default()
    }

    #[test]
    fn a_services_name_gives_its_file_and_its_class() {
        let names = |name| names_of(name).unwrap();
        assert_eq!(names("orders.create"), ("orders_create".into(), "OrdersCreate".into()));
        assert_eq!(names("crm-sync_v2"), ("crm_sync_v2".into(), "CrmSyncV2".into()));
    }

    #[test]
    fn names_that_could_not_be_deployed_are_refused_with_what_to_do() {
        assert!(refusal("ARx").contains("name `ARx` is reserved"), "{}", refusal("ARx"));
        for bad in ["", "1st", "a..b", "a b", "zürich.get", "a/b", "../x"] {
            assert!(!refusal(bad).is_empty(), "{bad}");
        }
        assert!(refusal("class").contains("for example `class.get`"), "{}", refusal("class"));
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        service("orders.create", &folder).unwrap();
        let file = folder.join("orders_create.py");
        assert!(fs::read_to_string(&file).unwrap().contains("class OrdersCreate(Service):"));
        let refused = service("orders.create", &folder).unwrap_err().text().unwrap();
        assert!(refused.contains("orders_create.py` is there already"), "{refused}");
        fs::remove_file(&file).unwrap();
        fs::write(folder.join("conftest.py"), "mine").unwrap();
        // The test is there, so the service is not written either.
        assert!(service("orders.create", &folder).is_err());
        assert!(!file.try_exists().unwrap());
        service("orders.get", &folder).unwrap();
        assert_eq!(fs::read_to_string(folder.join("conftest.py")).unwrap(), "mine");
    }
}
