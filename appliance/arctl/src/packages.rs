//! Commands about Python packages: the wheels on a box, and the environments that are built of them.

use std::path::{Path, PathBuf};

use arapi::arsrv::{PackagesView, WheelInfo};
use arapi::client::path_part;
use arapi::objects::{LockedPackage, is_wheel_name};

use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table};

/// `arctl packages`.
pub(crate) async fn list(api: &Api, json: bool) -> Result<(), Failure> {
    let view: PackagesView = api.get("/v1/packages").await?;
    if json {
        return out::json(&view);
    }
    match view.indexes.as_slice() {
        [] => out::line("no index is configured: requirements are resolved from uploaded wheels")?,
        indexes => out::line(&format!("index: {}", indexes.join(", ")))?,
    }
    let mut table = Table::new(&["WHEEL", "BYTES", "SHA-256"]);
    for wheel in &view.wheels {
        let short = wheel.sha256.chars().take(12).collect();
        table.row([wheel.file.clone(), wheel.bytes.to_string(), short]);
    }
    table.print("no wheel is uploaded")?;
    let mut table = Table::new(&["ENVIRONMENT", "GROUPS", "PACKAGES"]);
    for environment in &view.environments {
        let groups = environment.groups.join(", ");
        table.row([environment.name.clone(), groups, shown(&environment.packages)]);
    }
    table.print("no environment is built")
}

/// Packages in one cell.
pub(crate) fn shown(packages: &[LockedPackage]) -> String {
    let each = packages.iter().map(|package| format!("{} {}", package.name, package.version));
    each.collect::<Vec<_>>().join(", ")
}

/// `arctl packages upload`.
pub(crate) async fn upload(api: &Api, paths: &[PathBuf], json: bool) -> Result<(), Failure> {
    let mut uploaded = Vec::new();
    for path in wheels_of(paths)? {
        let fault = |source| Failure::Read { path: path.clone(), source };
        let file = tokio::fs::File::open(&path).await.map_err(fault)?;
        let length = file.metadata().await.map_err(fault)?.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let onto = format!("/v1/packages/wheels/{}", path_part(&name));
        let info: WheelInfo = api.upload(&onto, file, length, |_| {}).await?;
        if json {
            uploaded.push(info);
        } else {
            out::line(&format!("{} uploaded, SHA-256 {}", info.file, info.sha256))?;
        }
    }
    if json { out::json(&uploaded) } else { Ok(()) }
}

/// The files that are meant; a folder stands for the wheels in it.
fn wheels_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let is_wheel =
        |path: &Path| path.file_name().is_some_and(|name| is_wheel_name(&name.to_string_lossy()));
    let mut wheels = Vec::new();
    for path in paths {
        let fault = |source| Failure::Read { path: path.clone(), source };
        if std::fs::metadata(path).map_err(fault)?.is_dir() {
            let entries = std::fs::read_dir(path).map_err(fault)?;
            let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            inside.retain(|file| is_wheel(file));
            inside.sort();
            if inside.is_empty() {
                let text = format!("there is no wheel in `{}`", path.display());
                return Err(Failure::Failed(text));
            }
            wheels.extend(inside);
        } else if is_wheel(path) {
            wheels.push(path.clone());
        } else {
            return Err(Failure::Usage(format!(
                "`{}` is not the name of a wheel; something like `name-1.2-py3-none-any.whl` was expected (`pip download --only-binary=:all:` gets them)",
                path.display()
            )));
        }
    }
    Ok(wheels)
}

/// `arctl packages remove`.
pub(crate) async fn remove(api: &Api, wheels: &[String]) -> Result<(), Failure> {
    for wheel in wheels {
        let () = api.delete(&format!("/v1/packages/wheels/{}", path_part(wheel))).await?;
        out::line(&format!("{wheel} removed"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_wheels_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b-1-py3-none-any.whl", "a-1-py3-none-any.whl", "notes.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = wheels_of(&[dir.path().to_owned()]).unwrap();
        let expected = ["a-1-py3-none-any.whl", "b-1-py3-none-any.whl"];
        assert_eq!(found, expected.map(|name| dir.path().join(name)));
        let refused = wheels_of(&[dir.path().join("notes.txt")]).unwrap_err();
        assert!(refused.to_string().contains("is not the name of a wheel"), "{refused}");
    }
}
