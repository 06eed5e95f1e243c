//! Databases of services on a whole node, against real servers: pools, health, restarts, and what goes wrong.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests end the test"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use artest::Node;
use reqwest::Method;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const SOURCE: &str = "
import time
from contextlib import closing
from sqlalchemy import text
from arint import Service

class Count(Service):
    name = 'db.count'
    def handle(self):
        with closing(self.outgoing.sql.get('db').session()) as session:
            session.execute(text('CREATE TABLE IF NOT EXISTS visit (id INTEGER)'))
            session.execute(text('INSERT INTO visit VALUES (1)'))
            session.commit()
            self.response.payload = {'calls': session.execute(text('SELECT count(*) FROM visit')).scalar()}

class Hold(Service):
    name = 'db.hold'
    def handle(self):
        with closing(self.outgoing.sql.get('db').session()) as session:
            session.execute(text('SELECT 1'))
            time.sleep(4)
";

/// A server in a process of its own.
struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    port: u64,
    password: String,
}

impl Server {
    fn start(kind: &str) -> Self {
        let script = artest::repository().join("tests/services/services/database_peer.py");
        let mut command = Command::new(artest::python());
        command.arg(script).arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut server =
            Self { child, stdin, stdout: BufReader::new(stdout), port: 0, password: String::new() };
        let told: Value = serde_json::from_str(&server.line())
            .expect("the server did not start; install postgresql, mariadb-server-core and mariadb-client-core");
        server.port = told["port"].as_u64().unwrap();
        server.password = told["password"].as_str().unwrap().to_owned();
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn told(&mut self, what: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{what}").unwrap();
        assert_eq!(self.line().trim(), "done", "{what}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input ends it, and its database with it.
        drop(self.stdin.take());
        self.child.wait().ok();
    }
}

async fn connection(node: &Node) -> Value {
    let status = node.api(Method::GET, "/v1/status", None).await;
    status["arsrv"]["outgoing"][0].clone()
}

async fn until(node: &Node, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    artest::wait_for(what, LIMIT, async || {
        let now = connection(node).await;
        if fits(&now) { Ok(now) } else { Err(now) }
    })
    .await
}

async fn a_database_is_used_watched_lost_and_found_again(kind: &str, engine: &str) {
    let mut server = Server::start(kind);
    let node = Node::start().await;
    let spec = json!({"type": "sql", "engine": engine, "host": "127.0.0.1", "port": server.port,
        "db_name": "crm", "username": "crm", "password": {"value": server.password}, "pool_size": 2,
        "ping_interval_s": 0});
    node.put("Outgoing", "db", spec).await;
    node.deploy("counting.py", SOURCE).await;
    node.settled().await;
    let ping = async || node.api(Method::POST, "/v1/outgoing/db/ping", None).await;
    // Nobody has used it yet, so nobody knows.
    assert_eq!(
        ping().await["message"],
        "outgoing connection `db` is a database, which workers check; no service has used it since they started"
    );
    let invoke = async |service: &str| {
        node.api(Method::POST, &format!("/v1/services/{service}/invoke"), None).await
    };
    let answer = invoke("db.count").await;
    assert_eq!(answer["status"], 200, "{answer}");
    let up = until(&node, "the database to be up", |now| now["health"] == "up").await;
    assert_eq!((&up["pool"]["in_use"], &up["pool"]["errors"]), (&json!(0), &json!(0)), "{up}");
    let found = ping().await;
    assert_eq!(found["ok"], true, "{found}");
    // What services hold is seen while they hold it.
    let held = invoke("db.hold");
    let seen = until(&node, "a connection in use", |now| now["pool"]["in_use"] == 1);
    let (held, _) = tokio::join!(held, seen);
    assert_eq!(held["status"], 200, "{held}");
    server.told("stop");
    let failed = invoke("db.count").await;
    assert_eq!(failed["status"], 500, "{failed}");
    let told = failed["body"].as_str().unwrap();
    assert!(told.contains("outgoing connection `db` cannot connect to the database"), "{told}");
    let down = until(&node, "the database to be down", |now| now["health"] == "down").await;
    let why = down["last_error"].as_str().unwrap();
    assert!(why.starts_with("outgoing connection `db` cannot connect to the database: "), "{why}");
    let found = ping().await;
    assert_eq!((&found["ok"], &found["message"]), (&json!(false), &json!(why)), "{found}");
    server.told("start");
    let answer = invoke("db.count").await;
    assert_eq!(answer["status"], 200, "{answer}");
    until(&node, "the database to be up again", |now| now["health"] == "up").await;
    let mut arctl = Command::new(artest::arint());
    arctl
        .args(["arctl", "status"])
        .env("ARCTL_SERVER", &node.admin)
        .env("ARCTL_TOKEN", &node.token);
    let said = String::from_utf8(arctl.output().unwrap().stdout).unwrap();
    assert!(said.contains("  database db: up, 0 of "), "{said}");
    let status = node.api(Method::GET, "/v1/status", None).await.to_string();
    let log = node.stop();
    for place in [&status, &log, &said, &told.to_owned()] {
        assert!(!place.contains(&server.password) && !place.contains("ge%3Ah"), "{place}");
    }
}

#[tokio::test]
async fn postgresql_is_used_watched_lost_and_found_again() {
    a_database_is_used_watched_lost_and_found_again("PostgreSQL", "postgresql").await;
}

#[tokio::test]
async fn mariadb_is_used_watched_lost_and_found_again() {
    a_database_is_used_watched_lost_and_found_again("MariaDB", "mariadb").await;
}
