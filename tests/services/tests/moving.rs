//! The walk-through of docs/user/integrator/moving-from-zato.md: an installation of 3.2 is taken over and called.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The other system, on a port of its own.
struct Crm {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    host: String,
}

impl Crm {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/crm.py");
        let mut child =
            Command::new(artest::python()).arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port: u16 = lines.next().unwrap().unwrap().trim().parse().unwrap();
        Self { child, lines, host: format!("http://127.0.0.1:{port}") }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A person in a folder with what was brought from the old installation.
struct Mover {
    folder: PathBuf,
    _folder: Box<dyn std::any::Any>,
    admin: String,
    token: String,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Mover {
    fn of(node: &Node) -> Self {
        let kept = artest::temp_dir();
        let folder = kept.path().to_owned();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("moving");
        for part in ["services", "user-conf"] {
            std::fs::create_dir(folder.join(part)).unwrap();
        }
        for file in ["export.yaml", "services/orders.py", "user-conf/shop.ini"] {
            std::fs::copy(from.join(file), folder.join(file)).unwrap();
        }
        let (admin, token) = (node.admin.clone(), node.token.clone());
        Self { folder, _folder: Box::new(kept), admin, token }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs a command as the guide has it.
    #[track_caller]
    fn run(&self, command: &str) -> Said {
        let guide = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/user/integrator/moving-from-zato.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        let listed = command.trim_end_matches(" --json");
        assert!(guide.contains(listed), "`{command}` is not in the guide");
        self.just_run(command)
    }

    fn just_run(&self, command: &str) -> Said {
        let output = Command::new(artest::arint())
            .args(command.split(' '))
            .env("XDG_CONFIG_HOME", &self.folder)
            .env("ARCTL_SERVER", &self.admin)
            .env("ARCTL_TOKEN", &self.token)
            .env_remove("ARCTL_PROFILE")
            .env_remove("ARCTL_FINGERPRINT")
            .current_dir(&self.folder)
            .output()
            .unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The value that was shown of an object's secret.
fn shown<'a>(out: &'a str, of: &str) -> &'a str {
    let mut rests = out.lines().filter_map(|line| line.strip_prefix(of));
    let rest = rests.find(|rest| rest.contains("shown only")).unwrap();
    rest.split(' ').next().unwrap()
}

#[tokio::test]
async fn an_installation_of_3_2_is_taken_over_and_answers_as_before() {
    let node = Node::start().await;
    let mut crm = Crm::start();
    let mover = Mover::of(&node);
    let mut env = std::fs::File::create(mover.path("secrets.env")).unwrap();
    writeln!(env, "[env]\nSHOP_PASSWORD=old-shop-password\nCRM_PASSWORD=old-crm-password").unwrap();
    writeln!(env, "CRM_HOST={}", crm.host).unwrap();
    // Looking first: nothing changes.
    let import = "arctl import-enmasse --env-file secrets.env export.yaml user-conf/shop.ini";
    let said = mover.run(&format!("{import} --dry-run"));
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    let counts = "8 taken, 0 changed, 1 not taken, 1 not needed";
    assert!(said.out.contains(&format!("{counts} (not carried out)\n")), "{}", said.out);
    assert!(!mover.path("export.not-taken.yaml").try_exists().unwrap());
    let channels = node.api(Method::GET, "/v1/objects/Channel", None).await;
    assert_eq!(channels["objects"], json!([]));
    // The import.
    let said = mover.run(import);
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    for line in [
        "not needed def_sec pubapi\n",
        "taken      def_sec shop: Security/shop created\n",
        "taken      channel_plain_http stock.get: Channel/stock.get created\n",
        "taken      user_config shop: UserConfig/shop created\n",
        "not taken  scheduler stock.sync (export.yaml line 73)\n           why: this release has no component for jobs\n           instead: ",
        &format!("{counts}\nwhat was not taken is kept in `export.not-taken.yaml`\n"),
        "secret missing: Security/stock.key key: the export has none; a new one is made, which callers have to be given\n",
        "secret missing: Security/reporting password: the export has none; the definition is switched off until the right one is set\n",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    assert!(
        said.err.contains(
            "warning: Channel `orders.create`: service `orders.create` is not deployed; the channel answers 404 until it is\n"
        ),
        "{}",
        said.err
    );
    let key = shown(&said.out, "Security/stock.key key: ").to_owned();
    for secret in ["old-shop-password", "old-crm-password"] {
        assert!(!said.out.contains(secret) && !said.err.contains(secret));
    }
    let said = mover.run("arctl deploy services");
    assert_eq!(said.code, 0, "{}", said.err);
    node.settled().await;
    // The callers notice nothing: same paths, same passwords, same answers.
    let url = format!("{}/api/orders", node.channels);
    let order = json!({"customer_id": "77", "sku": "A-1"});
    let answer = node.http().post(&url).json(&order).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let answer =
        node.http().post(&url).basic_auth("shop", Some("old-shop-password")).json(&order).send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let document: Value = answer.json().await.unwrap();
    assert_eq!(
        document,
        json!({"response": {"order_id": 4711, "customer_id": 77, "channel": "web"}})
    );
    let asked = crm.next();
    assert_eq!(asked["path"], "/customers/77/orders");
    assert_eq!(asked["body"], json!({"sku": "A-1", "count": 1}));
    assert_eq!(asked["authorization"], "Basic YXJpbnQ6b2xkLWNybS1wYXNzd29yZA==");
    let stock = node.http().get(format!("{}/api/stock/A-123", node.channels));
    let answer = stock.header("X-Stock-Key", &key).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"sku": "A-123", "item_count": 5}));
    // Once more: nothing changes, and the key that was made stays.
    let revision = node.api(Method::GET, "/v1/objects/Channel", None).await["revision"].clone();
    let said = mover.run(&format!("{import} --json"));
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let objects = report["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 8);
    assert!(objects.iter().all(|object| object["what"] == "unchanged"), "{objects:?}");
    assert_eq!(report["generated_secrets"], json!([]));
    assert_eq!(report["items"].as_array().unwrap().len(), 10);
    let after = node.api(Method::GET, "/v1/objects/Channel", None).await["revision"].clone();
    assert_eq!(after, revision);
    // What was left out can be imported by a release that knows it.
    let said = mover.run("arctl import-enmasse export.not-taken.yaml");
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(said.out.contains("0 taken, 0 changed, 1 not taken, 0 not needed\n"), "{}", said.out);
    let log = node.stop();
    assert!(!log.contains("old-shop-password") && !log.contains("old-crm-password"));
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_whole() {
    let node = Node::start().await;
    let mover = Mover::of(&node);
    std::fs::write(mover.path("export.yaml"), "def_sec:\n- name: a\n  type: [\n").unwrap();
    let said = mover.just_run("arctl import-enmasse export.yaml");
    assert_eq!(said.code, 2);
    assert!(said.err.starts_with("error: export.yaml line "), "{}", said.err);
    std::fs::write(mover.path("export.yaml"), "include: [more.yaml]\n").unwrap();
    let said = mover.just_run("arctl import-enmasse export.yaml");
    assert_eq!(
        (said.code, &*said.err),
        (
            2,
            "error: export.yaml line 1: the included file `more.yaml` cannot be read: No such file or directory (os error 2)\n"
        )
    );
    std::fs::write(mover.path("export.yaml"), "def_sec: []\n").unwrap();
    let said = mover.just_run("arctl import-enmasse export.yaml");
    assert_eq!((said.code, &*said.err), (2, "error: there is no item in `export.yaml`\n"));
}
