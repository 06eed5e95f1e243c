//! Commands about services: deploying them, their versions, calling them by hand.

use std::path::{Path, PathBuf};

use arapi::arsrv::{InvokeResponse, LoadFault, ModuleSource, PingResult};
use arapi::arwadm::{DeployAnswer, DeployRequest, InvokeBody, ModuleVersion, RollbackRequest};
use arapi::client::path_part;
use arapi::error::ErrorCode;
use serde_json::Value;

use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table, moment};
use crate::{packages, prompt};

/// How `arctl deploy` deploys.
#[derive(Debug, Default)]
pub(crate) struct With {
    /// Check only.
    pub(crate) dry_run: bool,
    /// The file of requirements.
    pub(crate) requirements: Option<PathBuf>,
    /// Resolve them again.
    pub(crate) upgrade: bool,
    /// The group of workers.
    pub(crate) group: Option<String>,
}

/// `arctl deploy`.
pub(crate) async fn deploy(
    api: &Api,
    paths: &[PathBuf],
    with: With,
    verbose: bool,
    json: bool,
) -> Result<(), Failure> {
    let files = read_all(paths)?;
    let requirements = requirements(paths, with.requirements.as_deref())?;
    if with.upgrade && requirements.is_none() {
        let text = "`--upgrade` resolves requirements again: give them with `--requirements`, or as `requirements.txt` in the folder";
        return Err(Failure::Usage(text.to_owned()));
    }
    let With { dry_run, upgrade, group, .. } = with;
    let request = DeployRequest { files, dry_run, requirements, upgrade, group };
    let answer: DeployAnswer =
        api.post("/v1/deployments", &request).await.map_err(|err| refusal(err, verbose, json))?;
    told(&answer, dry_run, json)
}

/// `arctl rollback`.
pub(crate) async fn rollback(
    api: &Api,
    module: &str,
    to: Option<u64>,
    verbose: bool,
    json: bool,
) -> Result<(), Failure> {
    let path = format!("/v1/deployments/{}/rollback", path_part(module));
    let answer: DeployAnswer = api
        .post(&path, &RollbackRequest { to })
        .await
        .map_err(|err| refusal(err, verbose, json))?;
    told(&answer, false, json)
}

/// The requirements of a deployment: those that are given, or those of the folder.
fn requirements(paths: &[PathBuf], given: Option<&Path>) -> Result<Option<String>, Failure> {
    let read = |path: &Path| {
        let fault = |source| Failure::Read { path: path.to_owned(), source };
        std::fs::read_to_string(path).map_err(fault)
    };
    if let Some(path) = given {
        return read(path).map(Some);
    }
    let mut found: Option<(PathBuf, String)> = None;
    for path in paths.iter().filter(|path| path.is_dir()) {
        let path = path.join("requirements.txt");
        if !path.is_file() {
            continue;
        }
        let text = read(&path)?;
        match &found {
            Some((other, known)) if *known != text => {
                return Err(Failure::Usage(format!(
                    "`{}` and `{}` differ; deploy the folders one by one, or name one of the files with `--requirements`",
                    other.display(),
                    path.display()
                )));
            }
            _ => found = Some((path, text)),
        }
    }
    Ok(found.map(|(_, text)| text))
}

pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<ModuleSource>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let fault = |source| Failure::Read { path: path.clone(), source };
        if std::fs::metadata(path).map_err(fault)?.is_dir() {
            let entries = std::fs::read_dir(path).map_err(fault)?;
            let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            inside.retain(|file| is_source(file) && !is_of_tests(file));
            inside.sort();
            if inside.is_empty() {
                let text = format!(
                    "there is no file ending with `.py` in `{}`, tests apart",
                    path.display()
                );
                return Err(Failure::Failed(text));
            }
            for file in inside {
                files.push(read_one(&file)?);
            }
        } else {
            files.push(read_one(path)?);
        }
    }
    Ok(files)
}

/// Whether it is Python source.
pub(crate) fn is_source(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "py")
}

/// Whether it is of the tests beside the services, as `arctl new service` makes them: the names that pytest looks for.
pub(crate) fn is_of_tests(file: &Path) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    name == "conftest" || name.starts_with("test_") || name.ends_with("_test")
}

fn read_one(path: &Path) -> Result<ModuleSource, Failure> {
    let source = std::fs::read_to_string(path)
        .map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(ModuleSource { file_name: name.unwrap_or_default(), source })
}

/// A refused deployment with file and line in the form that editors jump to.
pub(crate) fn refusal(failure: Failure, verbose: bool, json: bool) -> Failure {
    let Some(details) = failure.details(ErrorCode::Refused) else { return failure };
    let Ok(fault) = serde_json::from_value::<LoadFault>(details.clone()) else { return failure };
    if json && let Failure::Refused { body, .. } = &failure {
        // The document goes to stdout, the sentence to stderr.
        out::json(body).ok();
    }
    let place = match (fault.file.as_str(), fault.line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    let sentence = format!("{place}{}", fault.reason);
    let traceback = Some(fault.traceback).filter(|text| verbose && !text.is_empty());
    Failure::Deployment { sentence, traceback }
}

pub(crate) fn told(answer: &DeployAnswer, dry_run: bool, json: bool) -> Result<(), Failure> {
    if json {
        return out::json(answer);
    }
    for module in &answer.modules {
        let (name, version) = (&module.name, module.version);
        let text = match (dry_run, module.changed) {
            (true, true) => format!("Module {name} would be version {version}"),
            (_, false) => format!("Module {name} unchanged, version {version}"),
            (false, true) => format!("Module {name} version {version}"),
        };
        out::line(&text)?;
    }
    for service in &answer.services {
        let summary = if service.summary.is_empty() { "" } else { "  " };
        out::line(&format!("  {}{summary}{}", service.name, service.summary))?;
    }
    for service in &answer.removed {
        out::line(&format!("  {service} is gone"))?;
    }
    let state = if dry_run { "checked" } else { "live" };
    out::line(&format!("{state} after {:.0} ms", answer.elapsed_ms))
}

/// `arctl versions`.
pub(crate) async fn versions(api: &Api, module: &str, json: bool) -> Result<(), Failure> {
    let path = format!("/v1/deployments/{}", path_part(module));
    let versions: Vec<ModuleVersion> = api.get(&path).await?;
    if json {
        return out::json(&versions);
    }
    let titles = ["VERSION", "SERVES", "DEPLOYED", "BY", "ORIGIN", "SHA-256", "PACKAGES"];
    let mut table = Table::new(&titles);
    for version in versions {
        table.row([
            version.version.to_string(),
            if version.current { "yes" } else { "" }.to_owned(),
            moment(version.time_ms),
            version.who,
            version.origin,
            version.sha256.chars().take(12).collect(),
            packages::shown(&version.packages),
        ]);
    }
    table.print("there is no version")
}

/// `arctl invoke`.
pub(crate) async fn invoke(
    api: &Api,
    service: &str,
    data: Option<&str>,
    timeout_ms: Option<u64>,
    json: bool,
) -> Result<(), Failure> {
    let payload = payload(data)?;
    let path = format!("/v1/services/{}/invoke", path_part(service));
    let answer: InvokeResponse = api.post(&path, &InvokeBody { payload, timeout_ms }).await?;
    if json {
        out::json(&answer)?;
    } else {
        match (&answer.body, &answer.body_base64) {
            (Some(body), _) if body.is_empty() => {}
            (Some(body), _) => out::line(body)?,
            (None, Some(body)) => out::line(body)?,
            (None, None) => {}
        }
    }
    if answer.status < 400 {
        return Ok(());
    }
    let (status, cid) = (answer.status, &answer.cid);
    Err(Failure::Failed(format!(
        "service `{service}` answered with {status} (see `arctl logs --cid {cid}`)"
    )))
}

pub(crate) fn payload(data: Option<&str>) -> Result<Value, Failure> {
    let text = match data {
        None => return Ok(Value::Null),
        Some("-") => prompt::all_of_stdin()?,
        Some(data) => match data.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| Failure::Read { path: path.into(), source })?,
            None => data.to_owned(),
        },
    };
    serde_json::from_str(&text).map_err(|err| {
        Failure::Usage(format!("the payload is not JSON: {err} (a text is written as '\"text\"')"))
    })
}

/// `arctl ping`.
pub(crate) async fn ping(api: &Api, outgoing: &str, json: bool) -> Result<(), Failure> {
    let path = format!("/v1/outgoing/{}/ping", path_part(outgoing));
    let answer: PingResult = api.post(&path, &()).await?;
    if json {
        out::json(&answer)?;
    } else {
        out::line(&format!("{} ({:.0} ms)", answer.message, answer.elapsed_ms))?;
    }
    if answer.ok { Ok(()) } else { Err(Failure::No) }
}

#[cfg(test)]
mod tests {
    use arapi::error::ErrorBody;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_has_file_and_line_as_editors_want_them() {
        let body = ErrorBody {
            code: ErrorCode::Refused,
            message: "photos.py line 12: no module named `x`".to_owned(),
            request_id: String::new(),
            details: Some(json!({"reason": "no module named `x`", "file": "photos.py", "line": 12,
                "traceback": "Traceback …"})),
        };
        let failure = || Failure::Refused { status: 422, body: Box::new(body.clone()) };
        assert_eq!(
            refusal(failure(), false, false).text().unwrap(),
            "refused: photos.py:12: no module named `x`"
        );
        assert_eq!(
            refusal(failure(), true, false).text().unwrap(),
            "refused: photos.py:12: no module named `x`\nTraceback …"
        );
        assert_eq!(refusal(failure(), false, false).code(), 1);
    }

    #[test]
    fn a_payload_is_json_from_the_line_or_a_file() {
        assert_eq!(payload(None).unwrap(), Value::Null);
        assert_eq!(payload(Some("{\"a\": 1}")).unwrap(), json!({"a": 1}));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        std::fs::write(&path, "[1]").unwrap();
        assert_eq!(payload(Some(&format!("@{}", path.display()))).unwrap(), json!([1]));
        let refused = payload(Some("hello")).unwrap_err();
        assert_eq!(refused.code(), 2);
        assert_eq!(
            refused.to_string(),
            "the payload is not JSON: expected value at line 1 column 1 (a text is written as \
             '\"text\"')"
        );
    }

    #[test]
    fn a_folder_stands_for_the_sources_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.py", "a.py", "notes.txt", "test_a.py", "a_test.py", "conftest.py"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let files = read_all(&[dir.path().to_owned()]).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.file_name.as_str()).collect();
        assert_eq!(names, ["a.py", "b.py"]);
    }

    #[test]
    fn a_folders_requirements_go_along_unless_others_are_named() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let paths = [one.path().to_owned(), two.path().to_owned()];
        assert_eq!(requirements(&paths, None).unwrap(), None);
        std::fs::write(one.path().join("requirements.txt"), "foo").unwrap();
        assert_eq!(requirements(&paths, None).unwrap().as_deref(), Some("foo"));
        std::fs::write(two.path().join("requirements.txt"), "bar").unwrap();
        assert!(requirements(&paths, None).unwrap_err().to_string().contains("differ"));
        let given = two.path().join("requirements.txt");
        assert_eq!(requirements(&paths, Some(&given)).unwrap().as_deref(), Some("bar"));
    }
}
