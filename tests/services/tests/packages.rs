//! Packages of services: from uploaded wheels and from an index, one version with their service, side by side in
//! groups of workers.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use artest::Node;
use axum::extract::{Path as Segment, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A service that answers which version of the package it has.
fn source(service: &str, package: &str) -> String {
    format!(
        "from arint import Service\nimport {package}\n\nclass Asked(Service):\n    name = '{service}'\n    def handle(self):\n        self.response.payload = {package}.VERSION\n"
    )
}

fn wheel(folder: &Path, name: &str, version: &str, requires: &[&str]) -> PathBuf {
    artest::make_wheel(folder, name, version, &format!("VERSION = '{name} {version}'\n"), requires)
}

async fn upload(node: &Node, path: &Path) -> (StatusCode, Value) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let request = node.http().put(format!("{}/v1/packages/wheels/{name}", node.admin));
    let body = std::fs::read(path).unwrap();
    let answer = request.bearer_auth(&node.token).body(body).send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap())
}

async fn uploaded(node: &Node, path: &Path) {
    let (status, answer) = upload(node, path).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// Deploys one file with requirements and more fields of the request.
async fn deploy(
    node: &Node,
    file: &str,
    source: &str,
    requirements: &str,
    more: Value,
) -> (StatusCode, Value) {
    let mut request =
        json!({"files": [{"file_name": file, "source": source}], "requirements": requirements});
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    node.try_api(Method::POST, "/v1/deployments", Some(request)).await
}

async fn deployed(node: &Node, file: &str, source: &str, requirements: &str) -> Value {
    let (status, answer) = deploy(node, file, source, requirements, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

async fn refused(node: &Node, requirements: &str, told: &str) {
    let source = source("other.get", "foo");
    let (status, answer) = deploy(node, "other.py", &source, requirements, json!({})).await;
    assert_eq!((status, &answer["message"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(told)));
}

async fn invoke(node: &Node, service: &str) -> Value {
    node.api(Method::POST, &format!("/v1/services/{service}/invoke"), None).await["body"].clone()
}

async fn lock_of(node: &Node, module: &str) -> Vec<String> {
    let object = node.api(Method::GET, &format!("/v1/objects/Module/{module}"), None).await;
    let lock = object["spec"]["requirements"]["lock"].as_array().unwrap();
    lock.iter()
        .map(|package| {
            assert_eq!(package["sha256"].as_str().unwrap().len(), 64);
            format!(
                "{} {}",
                package["name"].as_str().unwrap(),
                package["version"].as_str().unwrap()
            )
        })
        .collect()
}

#[tokio::test]
async fn packages_come_from_uploaded_wheels_and_are_one_version_with_their_service() {
    let (wheels, data) = (artest::temp_dir(), artest::temp_dir());
    let node = Node::builder().data_dir(data.path()).start().await;
    let (foo_1, foo_2) = (
        wheel(wheels.path(), "foo", "1.0", &["bar-baz>=1"]),
        wheel(wheels.path(), "foo", "2.0", &["bar-baz>=1"]),
    );
    let bar = wheel(wheels.path(), "bar-baz", "1.5", &[]);
    let asked = source("asked.get", "foo");
    // Nothing is there yet, and nothing changes.
    let (status, answer) = deploy(&node, "asked.py", &asked, "foo==1.0\n", json!({})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        answer["message"],
        "requirements.txt line 1: there is no wheel of `foo==1.0` for this box among the uploaded wheels, and no index is \
         configured; upload one with `arctl packages upload`"
    );
    assert_eq!(node.api(Method::GET, "/v1/deployments", None).await, json!([]));
    for path in [&foo_1, &bar] {
        uploaded(&node, path).await;
    }
    // A check changes nothing either.
    let dry = deploy(&node, "asked.py", &asked, "foo", json!({"dry_run": true})).await;
    assert_eq!(dry.0, StatusCode::OK, "{}", dry.1);
    assert_eq!(node.api(Method::GET, "/v1/deployments", None).await, json!([]));
    deployed(&node, "asked.py", &asked, "foo\n").await;
    assert_eq!(invoke(&node, "asked.get").await, "foo 1.0");
    assert_eq!(lock_of(&node, "asked").await, ["bar-baz 1.5", "foo 1.0"]);
    // A newer wheel changes nothing by itself, nor does a deployment with the same requirements.
    uploaded(&node, &foo_2).await;
    let again = deployed(&node, "asked.py", &asked, "foo\n").await;
    assert_eq!(again["modules"][0], json!({"name": "asked", "version": 1, "changed": false}));
    assert_eq!(invoke(&node, "asked.get").await, "foo 1.0");
    // A new source keeps its packages.
    node.deploy("asked.py", &format!("{asked}\n# new\n")).await;
    assert_eq!(invoke(&node, "asked.get").await, "foo 1.0");
    // Asked for, they are upgraded as one version with the service, and go back with it.
    let (status, answer) =
        deploy(&node, "asked.py", &asked, "foo\n", json!({"upgrade": true})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["modules"][0]["version"], 3);
    assert_eq!(invoke(&node, "asked.get").await, "foo 2.0");
    let versions = node.api(Method::GET, "/v1/deployments/asked", None).await;
    assert_eq!(versions[0]["packages"][1]["version"], "2.0");
    // The wheel it was built of is not even needed any more.
    let path = "/v1/packages/wheels/foo-1.0-py3-none-any.whl";
    node.api(Method::DELETE, path, None).await;
    let back =
        node.api(Method::POST, "/v1/deployments/asked/rollback", Some(json!({"to": 1}))).await;
    assert_eq!(back["modules"][0]["version"], 4);
    assert_eq!(invoke(&node, "asked.get").await, "foo 1.0");
    // Environments that neither serve nor served a moment ago are gone.
    let environments = find(data.path(), "environments");
    deployed(&node, "asked.py", &asked, "foo==2.0\n").await;
    deployed(&node, "asked.py", "from arint import Service\nclass Asked(Service):\n    name = 'asked.get'\n    def handle(self):\n        self.response.payload = 'none'\n", "").await;
    node.deploy("more.py", &source("more.get", "json").replace("json.VERSION", "'more'")).await;
    artest::wait_for("environments to be removed", LIMIT, async || {
        let left: Vec<_> =
            std::fs::read_dir(&environments).unwrap().flatten().map(|it| it.path()).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(invoke(&node, "asked.get").await, "none");
}

/// A folder of this name somewhere below.
fn find(below: &Path, name: &str) -> PathBuf {
    let mut open = vec![below.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() && !entry.path().is_symlink() {
                if entry.file_name().to_string_lossy() == name {
                    return entry.path();
                }
                open.push(entry.path());
            }
        }
    }
    below.join(name)
}

#[tokio::test]
async fn groups_have_different_versions_of_a_package_side_by_side() {
    let wheels = artest::temp_dir();
    let node = Node::start().await;
    for version in ["1.0", "2.0"] {
        uploaded(&node, &wheel(wheels.path(), "foo", version, &[])).await;
    }
    node.deploy("plain.py", &source("plain.get", "json").replace("json.VERSION", "'plain'")).await;
    deployed(&node, "one.py", &source("one.get", "foo"), "foo==1.0").await;
    // In the same group there is one version.
    let two = source("two.get", "foo");
    let (status, answer) = deploy(&node, "two.py", &two, "foo==2.0", json!({})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        answer["message"],
        "requirements.txt line 1: the requirements contradict each other: `foo==2.0` is required, `foo==1.0` is held by \
         module `one` in group `default` (another group: `arctl deploy --group`)"
    );
    let (status, answer) = deploy(&node, "two.py", &two, "foo==2.0", json!({"group": "new"})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    for _ in 0..10 {
        assert_eq!(invoke(&node, "one.get").await, "foo 1.0");
        assert_eq!(invoke(&node, "two.get").await, "foo 2.0");
        assert_eq!(invoke(&node, "plain.get").await, "plain");
    }
    // One service invokes the other across groups.
    let source = "from arint import Service\nimport foo\nclass Both(Service):\n    name = 'both.get'\n    def handle(self):\n        self.response.payload = foo.VERSION + ', ' + self.invoke('two.get')\n";
    deployed(&node, "both.py", source, "foo").await;
    assert_eq!(invoke(&node, "both.get").await, "foo 1.0, foo 2.0");
    let view = node.api(Method::GET, "/v1/packages", None).await;
    let groups = |version: &str| {
        let environments = view["environments"].as_array().unwrap();
        let fits = |it: &&Value| it["packages"][0]["version"] == version;
        environments.iter().find(fits).unwrap()["groups"].clone()
    };
    assert_eq!((groups("1.0"), groups("2.0")), (json!(["default"]), json!(["new"])));
    // Moved by hand to where its packages are others, a service goes on where it was, and the status says why.
    node.put("Service", "two.get", json!({"group": "default"})).await;
    artest::wait_for("the status to tell", LIMIT, async || {
        let status = node.api(Method::GET, "/v1/status", None).await;
        let problems = status["arsrv"]["problems"].to_string();
        let told =
            "module `two` needs `foo` 2.0 and module `both` 1.0, and both run in group `default`";
        if problems.contains(told) { Ok(()) } else { Err(status["arsrv"].clone()) }
    })
    .await;
    assert_eq!(invoke(&node, "two.get").await, "foo 2.0");
}

#[tokio::test]
async fn hashes_are_required_where_they_are_given_and_bad_lines_are_named() {
    let wheels = artest::temp_dir();
    let node = Node::start().await;
    let foo = wheel(wheels.path(), "foo", "1.0", &["bar"]);
    let bar = wheel(wheels.path(), "bar", "1.0", &[]);
    uploaded(&node, &foo).await;
    uploaded(&node, &bar).await;
    let view = node.api(Method::GET, "/v1/packages", None).await;
    let hash = |file: &str| {
        let wheels = view["wheels"].as_array().unwrap();
        let found = wheels.iter().find(|wheel| wheel["file"].as_str().unwrap().starts_with(file));
        found.unwrap()["sha256"].as_str().unwrap().to_owned()
    };
    let (foo_hash, bar_hash, zeros) = (hash("foo"), hash("bar"), "0".repeat(64));
    let with = format!("foo==1.0 --hash=sha256:{foo_hash}\nbar==1.0 --hash=sha256:{bar_hash}\n");
    deployed(&node, "asked.py", &source("asked.get", "foo"), &with).await;
    assert_eq!(invoke(&node, "asked.get").await, "foo 1.0");
    refused(
        &node,
        &format!("bar==1.0 --hash=sha256:{bar_hash}\nfoo==1.0 --hash=sha256:{zeros}\n"),
        &format!(
            "requirements.txt line 2: the wheel of `foo==1.0` has SHA-256 {foo_hash}, and the requirements want {zeros}"
        ),
    )
    .await;
    refused(
        &node,
        &format!("foo==1.0 --hash=sha256:{foo_hash}\n"),
        "requirements.txt: `bar` has no exact version and hash, and other requirements have hashes; add `name==version \
         --hash=sha256:…` for it",
    )
    .await;
    refused(
        &node,
        "foo\n--extra-index-url http://evil/\n",
        "requirements.txt line 2: `--extra-index-url http://evil/` is an option, and only requirements and `--hash` are \
         taken here; indexes are configured as an Outgoing of type `package_index`",
    )
    .await;
    refused(
        &node,
        "foo==7\n",
        "requirements.txt line 1: the requirements contradict each other: `foo==7` is required, `foo==1.0` is held by module \
         `asked` in group `default` (another group: `arctl deploy --group`)",
    )
    .await;
    // What is uploaded is looked at before it has its name.
    let broken = wheels.path().join("qux-1.0-py3-none-any.whl");
    std::fs::write(&broken, "no zip").unwrap();
    let (status, answer) = upload(&node, &broken).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let told = "`qux-1.0-py3-none-any.whl` is not a whole wheel: it is not a zip archive (File is not a zip file)";
    assert_eq!(answer["message"], told);
    std::fs::copy(&foo, &broken).unwrap();
    let (_, answer) = upload(&node, &broken).await;
    let told = "`qux-1.0-py3-none-any.whl` is not a whole wheel: its METADATA is that of foo 1.0";
    assert_eq!(answer["message"], told);
    artest::make_wheel(wheels.path(), "foo", "1.0", "VERSION = 'another'\n", &[]);
    let (status, answer) = upload(&node, &foo).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        format!(
            "`foo-1.0-py3-none-any.whl` is there already with another content (SHA-256 {foo_hash}); remove that first, or \
             give the package another version"
        )
    );
    let request = node.http().put(format!("{}/v1/packages/wheels/x.tar.gz", node.admin));
    let answer = request.bearer_auth(&node.token).body("x").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(
        answer["message"],
        "`x.tar.gz` is not the name of a wheel; something like `name-1.2-py3-none-any.whl` was expected"
    );
}

#[tokio::test]
async fn an_environment_is_whole_or_not_there_and_is_built_again_without_an_index() {
    let (wheels, data) = (artest::temp_dir(), artest::temp_dir());
    let node = Node::builder().data_dir(data.path()).start().await;
    uploaded(&node, &wheel(wheels.path(), "foo", "1.0", &[])).await;
    deployed(&node, "asked.py", &source("asked.get", "foo"), "foo").await;
    node.api(Method::DELETE, "/v1/packages/wheels/foo-1.0-py3-none-any.whl", None).await;
    node.stop();
    // What a power cut leaves: one that was not finished has another name, and one may be lost altogether.
    let environments = find(data.path(), "environments");
    let built: Vec<PathBuf> =
        std::fs::read_dir(&environments).unwrap().flatten().map(|it| it.path()).collect();
    assert_eq!(built.len(), 1);
    let name = built[0].file_name().unwrap().to_string_lossy().into_owned();
    std::fs::rename(&built[0], environments.join(format!("new-1-{name}"))).unwrap();
    let node = Node::builder().data_dir(data.path()).start().await;
    artest::wait_for("the service", LIMIT, async || {
        let path = "/v1/services/asked.get/invoke";
        let (_, answer) = node.try_api(Method::POST, path, None).await;
        if answer["body"] == "foo 1.0" { Ok(()) } else { Err(answer) }
    })
    .await;
    let built: Vec<PathBuf> =
        std::fs::read_dir(&environments).unwrap().flatten().map(|it| it.path()).collect();
    assert_eq!(built, [environments.join(name)]);
}

/// An index as PEP 503 has it, behind a password.
struct Index {
    folder: PathBuf,
    asked: std::sync::Mutex<Vec<String>>,
}

async fn simple(
    State(index): State<Arc<Index>>,
    Segment(package): Segment<String>,
    headers: HeaderMap,
) -> axum::response::Response {
    use base64::Engine as _;
    let expected = base64::engine::general_purpose::STANDARD.encode("reader:geheim pass");
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    if given != Some(&format!("Basic {expected}")) {
        let ask = [("www-authenticate", "Basic realm=index")];
        return (StatusCode::UNAUTHORIZED, ask, "").into_response();
    }
    index.asked.lock().unwrap().push(package.clone());
    let links: String = std::fs::read_dir(&index.folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|file| file.starts_with(&format!("{}-", package.replace('-', "_"))))
        .map(|file| format!("<a href=\"/files/{file}\">{file}</a>\n"))
        .collect();
    ([("content-type", "text/html")], links).into_response()
}

async fn file(State(index): State<Arc<Index>>, Segment(file): Segment<String>) -> Vec<u8> {
    std::fs::read(index.folder.join(file)).unwrap()
}

#[tokio::test]
async fn packages_come_from_an_index_with_its_password_and_its_failures_are_told() {
    let wheels = artest::temp_dir();
    wheel(wheels.path(), "foo", "1.0", &["bar"]);
    wheel(wheels.path(), "bar", "3.0", &[]);
    let index = Arc::new(Index { folder: wheels.path().to_owned(), asked: Default::default() });
    let router = axum::Router::new()
        .route("/simple/{package}/", axum::routing::get(simple))
        .route("/files/{file}", axum::routing::get(file))
        .with_state(Arc::clone(&index));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/simple", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let node = Node::start().await;
    let configure = async |password: &str| {
        let spec = json!({"type": "package_index", "address": address, "username": "reader",
            "password": {"value": password}});
        node.put("Outgoing", "main", spec).await;
        node.settled().await;
    };
    configure("wrong").await;
    refused(
        &node,
        "foo\n",
        "requirements.txt line 1: `foo` is not among the uploaded wheels, and the index `main` refuses the credentials",
    )
    .await;
    configure("geheim pass").await;
    deployed(&node, "asked.py", &source("asked.get", "foo"), "foo\n").await;
    assert_eq!(invoke(&node, "asked.get").await, "foo 1.0");
    assert_eq!(lock_of(&node, "asked").await, ["bar 3.0", "foo 1.0"]);
    assert_eq!(*index.asked.lock().unwrap(), ["foo", "bar"]);
    let status = node.api(Method::GET, "/v1/status", None).await;
    assert_eq!(status["arsrv"]["outgoing"][0]["health"], "up", "{status}");
    serving.abort();
    serving.await.unwrap_err();
    refused(
        &node,
        "qux\n",
        "requirements.txt line 1: `qux` is not among the uploaded wheels, and the index `main` cannot be reached",
    )
    .await;
    assert_eq!(invoke(&node, "asked.get").await, "foo 1.0");
    let spec = json!({"type": "package_index", "address": "ftp://x", "colour": 1});
    let put = json!({"changes": [{"do": "put", "kind": "Outgoing", "name": "bad", "spec": spec}]});
    let (status, answer) = node.try_api(Method::POST, "/v1/transactions", Some(put)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["message"].as_str().unwrap().contains("unknown field `colour`"), "{answer}");
    let log = node.stop();
    assert!(!log.contains("geheim"), "the password is in the log");
}

#[tokio::test]
async fn arctl_uploads_wheels_and_deploys_a_folder_with_its_requirements() {
    let folder = artest::temp_dir();
    let node = Node::start().await;
    let arctl = |args: &[&str]| {
        let mut command = Command::new(artest::arint());
        command.arg("arctl").args(args).env("XDG_CONFIG_HOME", folder.path());
        command.env("ARCTL_SERVER", &node.admin).env("ARCTL_TOKEN", &node.token);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(folder.path().join("wheels")).unwrap();
    std::fs::create_dir(folder.path().join("asked")).unwrap();
    wheel(&folder.path().join("wheels"), "foo", "1.0", &[]);
    std::fs::write(folder.path().join("asked/asked.py"), source("asked.get", "foo")).unwrap();
    std::fs::write(folder.path().join("asked/requirements.txt"), "foo>=1\n").unwrap();
    let (code, _, told) = arctl(&["deploy", &path("asked")]);
    assert_eq!(code, 1);
    assert_eq!(
        told.trim_end(),
        "refused: requirements.txt:1: there is no wheel of `foo>=1` for this box among the uploaded wheels, and no index is \
         configured; upload one with `arctl packages upload`"
    );
    let (code, out, told) = arctl(&["packages", "upload", &path("wheels")]);
    assert_eq!(code, 0, "{told}");
    assert!(out.starts_with("foo-1.0-py3-none-any.whl uploaded, SHA-256 "), "{out}");
    let (code, out, told) = arctl(&["deploy", &path("asked"), "--group", "apart"]);
    assert_eq!(code, 0, "{told}");
    assert!(out.contains("Module asked version 1"), "{out}");
    let (_, out, _) = arctl(&["packages"]);
    assert!(out.contains("no index is configured") && out.contains("apart"), "{out}");
    let (_, out, _) = arctl(&["versions", "asked"]);
    assert!(out.contains("foo 1.0"), "{out}");
    let (code, out, told) = arctl(&["packages", "remove", "foo-1.0-py3-none-any.whl"]);
    assert_eq!((code, out.as_str()), (0, "foo-1.0-py3-none-any.whl removed\n"), "{told}");
    let (code, _, told) = arctl(&["packages", "remove", "foo-1.0-py3-none-any.whl"]);
    assert_ne!(code, 0);
    assert!(told.contains("there is no uploaded wheel `foo-1.0-py3-none-any.whl`"), "{told}");
    let (code, out, told) = arctl(&["invoke", "asked.get"]);
    assert_eq!((code, out.as_str()), (0, "foo 1.0\n"), "{told}");
}

#[tokio::test]
async fn requirements_in_the_pickup_folder_go_with_the_files_beside_them() {
    let wheels = artest::temp_dir();
    let node = Node::start().await;
    for version in ["1.0", "2.0"] {
        uploaded(&node, &wheel(wheels.path(), "foo", version, &[])).await;
    }
    let until = async |expected: &str| {
        artest::wait_for(&format!("the service to answer {expected}"), LIMIT, async || {
            let path = "/v1/services/asked.get/invoke";
            let (_, answer) = node.try_api(Method::POST, path, None).await;
            if answer["body"] == expected { Ok(()) } else { Err(answer) }
        })
        .await;
    };
    let put = |name: &str, text: &str| std::fs::write(node.pickup_dir.join(name), text).unwrap();
    put("requirements.txt", "foo==1.0\n");
    put("asked.py", &source("asked.get", "foo"));
    until("foo 1.0").await;
    put("asked.requirements.txt", "foo==2.0\n");
    until("foo 2.0").await;
    put("asked.requirements.txt", "foo==3.0\n");
    let note = node.pickup_dir.join("asked.py.refused.txt");
    artest::wait_for("the note", LIMIT, async || {
        let text = std::fs::read_to_string(&note).unwrap_or_default();
        let told = "requirements.txt line 1: no version fits `foo==3.0`";
        if text.starts_with(told) { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(invoke(&node, "asked.get").await, "foo 2.0");
}
