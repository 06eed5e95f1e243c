//! `arctl` as a person or script uses it: exit codes, what it says, what it keeps.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use artest::Node;
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";

/// A person with a home folder.
struct Operator {
    home: PathBuf,
    _home: Box<dyn std::any::Any>,
    server: String,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Operator {
    fn of(server: &str) -> Self {
        let home = artest::temp_dir();
        Self { home: home.path().to_owned(), server: server.to_owned(), _home: Box::new(home) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Said {
        let mut command = Command::new(artest::arint());
        command.arg("arctl").args(args).env("XDG_CONFIG_HOME", &self.home);
        for name in ["ARCTL_SERVER", "ARCTL_TOKEN", "ARCTL_PROFILE", "ARCTL_FINGERPRINT"] {
            command.env_remove(name);
        }
        command.current_dir(&self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    #[track_caller]
    fn refused(&self, args: &[&str], code: i32, told: &str) {
        let said = self.run(args);
        assert_eq!((said.code, said.err.trim_end()), (code, told), "{args:?}: {}", said.out);
    }

    #[track_caller]
    fn log_in(&self) {
        let args = ["login", "--server", &self.server, "--user", "admin", "--password-stdin"];
        let said = self.run_with(&args, PASSWORD);
        assert_eq!(said.code, 0, "{}", said.err);
    }
}

#[tokio::test]
async fn a_box_is_claimed_and_its_certificate_is_pinned() {
    let node =
        Node::builder().unclaimed().config("[arwadm]\ntls = \"self-signed\"\n").start().await;
    let server = node.admin.replace("http://", "https://");
    let operator = Operator::of(&server);
    operator.refused(
        &["status", "--server", &server],
        1,
        &format!(
            "error: the certificate of `{server}` is not known here; run `arctl login --server {server}`, \
             which shows its fingerprint and keeps it"
        ),
    );
    let said = operator.run(&["login", "--server", &server, "--user", "x", "--password-stdin"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("is not claimed yet; claim it with `arctl claim --server"),
        "{}",
        said.err
    );
    let code = node.code.clone().unwrap();
    let args =
        ["claim", "--server", &server, "--code", &code, "--user", "admin", "--password-stdin"];
    let said = operator.run_with(&args, PASSWORD);
    assert_eq!(said.code, 0, "{}", said.err);
    let log = node.log();
    let seen = said.err.lines().find(|line| line.trim().len() == 64).unwrap().trim().to_owned();
    assert!(log.contains(&seen), "the fingerprint shown is not the one in the box's log");
    let kept = operator.path("arint/arctl.toml");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(text.contains(&seen) && !text.contains(PASSWORD), "{text}");
    assert!(operator.done(&["whoami"]).starts_with("user:        admin\n"));
    // Another certificate than the one kept.
    let other = text.replace(&seen, &"ab".repeat(32));
    let without_key: Vec<&str> = other.lines().filter(|line| !line.starts_with("key = ")).collect();
    assert!(without_key.len() < other.lines().count(), "{text}");
    std::fs::write(&kept, without_key.join("\n")).unwrap();
    operator.refused(
        &["whoami"],
        1,
        &format!(
            "error: the certificate of `{server}` has changed: its SHA-256 is {seen} and {} was expected; if \
             the box was set up anew, log in with `--fingerprint {seen}`, otherwise someone is in between",
            "ab".repeat(32)
        ),
    );
    std::fs::write(&kept, text).unwrap();
    operator.done(&["logout"]);
    operator.refused(
        &["whoami"],
        1,
        &format!("error: not logged in to `{server}`; run `arctl login --server {server}`"),
    );
}

#[tokio::test]
async fn objects_are_applied_compared_exported_and_removed() {
    let node = Node::start().await;
    let operator = Operator::of(&node.admin);
    operator.log_in();
    let text = "kind: Channel\nname: orders\nspec:\n  url_path: /orders\n  service: orders.get\n  security: [crm]\n---\nkind: Security\nname: crm\nspec:\n  type: basic\n  username: crm\n";
    let file = operator.write("orders.yaml", text);
    let said = operator.run(&["diff", "-f", &file]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(said.out.contains("Channel orders created\n"), "{}", said.out);
    let said = operator.run(&["apply", "-f", &file]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out
            .starts_with("Channel orders created\nSecurity crm created\nSecurity/crm password: "),
        "{}",
        said.out
    );
    assert_eq!(
        said.err,
        "warning: Channel `orders`: service `orders.get` is not deployed; the channel answers 404 until it is\n"
    );
    assert_eq!(
        operator.done(&["apply", "-f", &file]),
        "Channel orders unchanged\nSecurity crm unchanged\n"
    );
    assert_eq!(operator.run(&["diff", "-f", &file]).code, 0);
    // What is exported can be applied, and changes nothing.
    let exported = operator.done(&["export"]);
    assert!(exported.contains("secret: Security/crm/password"), "{exported}");
    let applied = operator.run_with(&["apply", "-f", "-"], &exported);
    assert_eq!(applied.code, 0, "{}", applied.err);
    assert!(applied.out.lines().all(|line| line.ends_with(" unchanged")), "{}", applied.out);
    // A folder of files; a change; a mistake on its line; one that only the box can find.
    let folder = operator.path("all");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.yaml"), text.replace("/orders", "/others")).unwrap();
    let folder = folder.display().to_string();
    assert!(operator.done(&["apply", "-f", &folder]).contains("Channel orders changed\n"));
    let wrong = operator.write("wrong.yaml", &text.replace("security:", "securities:"));
    let said = operator.run(&["apply", "-f", &wrong]);
    assert_eq!(said.code, 2);
    assert!(
        said.err.starts_with(&format!("error: {wrong} line 6: Channel `orders`: ")),
        "{}",
        said.err
    );
    assert!(said.err.contains("unknown field `securities`"), "{}", said.err);
    let missing = operator.write("missing.yaml", &text.replace("[crm]", "[nobody]"));
    let said = operator.run(&["apply", "-f", &missing]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.starts_with(&format!("error: {missing} line 1: Channel `orders`")),
        "{}",
        said.err
    );
    let table = operator.done(&["get", "channels"]);
    assert!(table.starts_with("NAME    METHOD  PATH"), "{table}");
    assert!(table.trim_end().ends_with("service not deployed"), "{table}");
    let one: Value =
        serde_json::from_str(&operator.done(&["get", "channel", "orders", "--json"])).unwrap();
    assert_eq!(one["spec"]["url_path"], "/others");
    assert_eq!(one["status"]["state"], "service not deployed", "{one}");
    operator.refused(&["get", "chanel"], 2, "error: kind `chanel` is unknown; known kinds are Node, Role, User, Token, QuotaTier, Security, SecurityGroup, Grant, Module, Service, Channel, Outgoing, UserConfig, System, Network");
    assert_eq!(
        operator.done(&["delete", "-f", &file]),
        "Channel orders deleted\nSecurity crm deleted\n"
    );
    let said = operator.run(&["get", "channel", "orders"]);
    assert_eq!(said.code, 1, "{}", said.out);
}

#[tokio::test]
async fn services_are_deployed_refused_loudly_invoked_and_rolled_back() {
    let node = Node::start().await;
    let operator = Operator::of(&node.admin);
    operator.log_in();
    let source = "from arint import Service\n\nclass Add(Service):\n    \"\"\"Adds.\"\"\"\n    name = 'sum.add'\n    def handle(self):\n        self.logger.info('adding')\n        self.response.payload = {'sum': self.request.raw_request['a'] + 1}\n";
    let file = operator.write("sums.py", source);
    let out = operator.done(&["deploy", &file]);
    assert!(out.starts_with("Module sums version 1\n  sum.add  Adds.\nlive after "), "{out}");
    assert!(operator.done(&["deploy", &file]).starts_with("Module sums unchanged, version 1\n"));
    operator.write("sums.py", &format!("{source}\n1/0\n"));
    operator.refused(
        &["deploy", &file],
        1,
        "refused: sums.py:10: ZeroDivisionError: division by zero",
    );
    let said = operator.run(&["deploy", &file, "-v"]);
    assert!(said.err.contains("Traceback (most recent call last)"), "{}", said.err);
    assert_eq!(operator.done(&["invoke", "sum.add", "-d", "{\"a\": 4}"]).trim(), "{\"sum\":5}");
    let said = operator.run(&["invoke", "sum.add", "-d", "{}"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.starts_with("error: service `sum.add` answered with 500 (see `arctl logs --cid "),
        "{}",
        said.err
    );
    operator.write("sums.py", &source.replace("+ 1", "+ 2"));
    operator.done(&["deploy", &file]);
    assert!(operator.done(&["rollback", "sums"]).starts_with("Module sums version 3\n"));
    assert_eq!(operator.done(&["invoke", "sum.add", "-d", "{\"a\": 4}"]).trim(), "{\"sum\":5}");
    let versions = operator.done(&["versions", "sums", "--json"]);
    let versions: Value = serde_json::from_str(&versions).unwrap();
    assert_eq!(versions.as_array().unwrap().len(), 3);
    let logs = operator.done(&["logs", "--unit", "sum.add"]);
    assert!(logs.contains("INFO  arsrv: adding from=sum.add cid="), "{logs}");
    assert_eq!(
        operator.done(&["delete", "module", "sums"]),
        "Module sums deleted\nService sum.add deleted\n"
    );
}

#[tokio::test]
async fn users_tokens_and_secrets_have_their_commands() {
    let node = Node::start().await;
    let operator = Operator::of(&node.admin);
    operator.log_in();
    let add = ["user", "add", "anna", "--role", "viewer", "--password-stdin"];
    let said = operator.run_with(&add, "short");
    assert_eq!(
        (said.code, said.err.trim_end()),
        (1, "error: the password has 5 characters, at least 12 are needed")
    );
    let said = operator.run_with(&add, PASSWORD);
    assert_eq!((said.code, said.out.as_str()), (0, "User anna created\n"), "{}", said.err);
    let anna = Operator::of(&node.admin);
    let login = ["login", "--server", &node.admin, "--user", "anna", "--password-stdin"];
    assert_eq!(anna.run_with(&login, PASSWORD).code, 0);
    let said = anna.run(&["secret", "list"]);
    assert_eq!(said.code, 1);
    assert_eq!(
        said.err,
        "error: `user:anna` may not do this: permission `configure` is needed; ask an admin for a role that has it\n"
    );
    assert_eq!(operator.done(&["user", "roles", "anna", "--role", "admin"]), "User anna changed\n");
    anna.done(&["secret", "list"]);
    let passwd = ["user", "passwd", "--password-stdin"];
    let said = anna.run_with(&passwd, &format!("{PASSWORD}\nanother twelve characters\n"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(operator.done(&["user", "disable", "anna"]), "User anna changed\n");
    assert_eq!(anna.run(&["whoami"]).code, 1);
    assert_eq!(operator.done(&["user", "delete", "anna"]), "User anna deleted\n");
    // A token for a program, given by the environment of a script.
    let token = operator.done(&["token", "create", "--description", "ci", "--days", "1"]);
    let nobody = Operator::of(&node.admin);
    nobody.refused(
        &["whoami", "--server", &node.admin],
        1,
        &format!("error: not logged in to `{0}`; run `arctl login --server {0}`", node.admin),
    );
    nobody.done(&["whoami", "--server", &node.admin, "--token", token.trim()]);
    let said = operator.run_with(&["secret", "set", "crm-token", "--stdin"], "hush\n");
    assert_eq!((said.code, said.out.as_str()), (0, "Secret crm-token is kept\n"), "{}", said.err);
    assert!(operator.done(&["secret", "list"]).contains("crm-token"));
    assert_eq!(operator.done(&["security", "reset", "ide_publisher"]).trim().len(), 36);
    let audit = operator.done(&["audit", "--target", "Secret/"]);
    assert!(audit.contains("secret_put") && !audit.contains("hush"), "{audit}");
    let exported = operator.done(&["audit", "--export"]);
    assert!(exported.lines().count() > 5);
    assert!(exported.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[tokio::test]
async fn it_says_what_to_do_where_it_cannot_go_on() {
    let node = Node::start().await;
    let operator = Operator::of(&node.admin);
    let away = format!("http://{}", artest::free_addr());
    let said = operator.run(&["status", "--server", &away]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.starts_with(&format!(
            "error: cannot reach `{away}`; is the box running, and is this its address?"
        )),
        "{}",
        said.err
    );
    let said = operator.run(&["status", "--server", &node.channels]);
    assert_eq!(
        (said.code, said.err.trim_end()),
        (
            1,
            format!(
                "error: `{}` answered with something that is no admin API; is this its address?",
                node.channels
            )
            .as_str()
        )
    );
    assert_eq!(operator.run(&["deplyo"]).code, 2);
    operator.refused(
        &["status", "--server", "ftp://x"],
        2,
        "error: `ftp://x` is no address; something like `https://192.168.1.7:8183` was expected",
    );
    operator.log_in();
    node.settled().await;
    let said = operator.run(&["status"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains(": ok (ARINT "), "{}", said.out);
    for shell in ["bash", "zsh", "fish"] {
        assert!(operator.done(&["completion", shell]).contains("rollback"), "{shell}");
    }
    let status: Value = serde_json::from_str(&operator.done(&["status", "--json"])).unwrap();
    assert_eq!(status["problems"], json!([]));
    assert!(operator.path("arint/arctl.toml").is_file());
}
