//! `arctl import-openapi` against a node: what is configured, what is written, and that it works.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use artest::Node;
use reqwest::Method;
use serde_json::{Value, json};

/// The other system, on a port of its own.
struct Peer {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    host: String,
}

impl Peer {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/parcel_peer.py");
        let mut child =
            Command::new(artest::python()).arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port: u16 = lines.next().unwrap().unwrap().trim().parse().unwrap();
        Self { child, lines, host: format!("http://127.0.0.1:{port}/v2") }
    }

    /// The next request that is no health check.
    fn next(&mut self) -> Value {
        loop {
            let line = self.lines.next().unwrap().unwrap();
            let seen: Value = serde_json::from_str(&line).unwrap();
            if seen.get("method").is_none_or(|method| method != "HEAD") {
                return seen;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A person in a folder, with a document.
struct Importer {
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

impl Importer {
    fn of(node: &Node, document: &str) -> Self {
        let kept = artest::temp_dir();
        let folder = kept.path().to_owned();
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../appliance/arctl/golden/openapi")
            .join(document);
        std::fs::copy(from, folder.join(document)).unwrap();
        let (admin, token) = (node.admin.clone(), node.token.clone());
        Self { folder, _folder: Box::new(kept), admin, token }
    }

    fn run(&self, command: &str, stdin: &str) -> Said {
        let mut child = Command::new(artest::arint())
            .args(command.split(' '))
            .env("XDG_CONFIG_HOME", &self.folder)
            .env("ARCTL_SERVER", &self.admin)
            .env("ARCTL_TOKEN", &self.token)
            .env_remove("ARCTL_PROFILE")
            .env_remove("ARCTL_FINGERPRINT")
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap()
    }
}

const SHOP: &str = r#"
from arint import Service
from arint.openapi import ClientError
from parcels_client import Address, Parcel, ParcelsClient

class Send(Service):
    name = 'shop.send'

    def handle(self):
        client = ParcelsClient(self)
        page = client.parcels_list(page_size=5, tag=['a', 'b'])
        to = Address(name='Żaneta', city=page.items[0].to.city, country='NO')
        sent = client.parcels_send(Parcel(to=to, weight=2.5, content=None, class_='letter'))
        client.post_parcels_id_cancel(sent.id, body={'why': 'test'})
        try:
            client.parcels_label(sent.id)
        except ClientError as exc:
            self.response.payload = {'sent': str(sent.id), 'status': exc.status, 'told': exc.data['message']}
"#;

#[tokio::test]
async fn a_document_becomes_a_connection_and_a_client_that_calls_the_other_side() {
    let node = Node::start().await;
    let mut peer = Peer::start();
    let person = Importer::of(&node, "parcels.json");
    let import = format!(
        "arctl import-openapi parcels.json --as outgoing --host {} --username anna --secret-stdin",
        peer.host
    );
    // Looking first: nothing changes.
    let said = person.run(&format!("{import} --dry-run"), "s3cret\n");
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(said.out.contains("module `parcels_client.py` created\n"), "{}", said.out);
    assert!(
        said.out.contains("6 taken, 1 changed, 2 not taken (not carried out)\n"),
        "{}",
        said.out
    );
    assert!(!person.folder.join("parcels_client.py").try_exists().unwrap());
    let objects = node.api(Method::GET, "/v1/objects/Outgoing", None).await;
    assert_eq!(objects["objects"], json!([]));
    // The import.
    let said = person.run(&import, "s3cret\n");
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    for line in [
        "taken      GET /parcels: ParcelsClient.parcels_list\n",
        "taken      security basic: Security/parcels.basic created\n",
        "not taken  webhook delivered (line 66, #/webhooks/delivered)\n           why: ",
        "Outgoing/parcels created\n",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    assert!(!said.out.contains("s3cret"), "{}", said.out);
    // What it wrote works as it is.
    std::fs::write(person.folder.join("shop.py"), SHOP).unwrap();
    let said = person.run("arctl deploy parcels_client.py shop.py", "");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    node.settled().await;
    let said = person.run("arctl invoke shop.send", "");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    let id = "5a7f0f4e-0000-4000-8000-000000000001";
    assert_eq!(answer, json!({"sent": id, "status": 404, "told": "no such parcel"}));
    let list = peer.next();
    assert_eq!(list["path"], "/v2/parcels?page-size=5&tag=a&tag=b");
    // anna:s3cret
    assert_eq!(list["Authorization"], "Basic YW5uYTpzM2NyZXQ=");
    let send = peer.next();
    assert_eq!(send["Content-Type"], "application/json");
    assert_eq!(
        serde_json::from_str::<Value>(send["body"].as_str().unwrap()).unwrap(),
        json!({"to": {"name": "Żaneta", "city": "Oslo", "country": "NO"}, "weight": 2.5, "content": null, "class": "letter"})
    );
    let cancel = peer.next();
    assert_eq!(cancel["path"], format!("/v2/parcels/{id}%3Acancel"));
    assert_eq!(cancel["Content-Type"], "application/merge-patch+json");
    // Again: nothing is new, and the secret stays without being given.
    let again = import.replace(" --secret-stdin", "");
    let said = person.run(&again, "");
    for line in [
        "Security/parcels.basic unchanged\n",
        "Outgoing/parcels unchanged\n",
        "module `parcels_client.py` unchanged\n",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    // What somebody has changed is left alone.
    let changed = format!("{}# mine\n", person.read("parcels_client.py"));
    std::fs::write(person.folder.join("parcels_client.py"), &changed).unwrap();
    let said = person.run(&again, "");
    assert_eq!(said.code, 2, "{}{}", said.out, said.err);
    assert!(said.err.contains("`parcels_client.py` was changed by hand"), "{}", said.err);
    assert_eq!(person.read("parcels_client.py"), changed);
    let said = person.run(&format!("{again} --force"), "");
    assert!(said.out.contains("module `parcels_client.py` updated\n"), "{}", said.out);
}

#[tokio::test]
async fn a_module_alone_needs_no_box() {
    let node = Node::builder().unclaimed().start().await;
    let mut person = Importer::of(&node, "petstore.yaml");
    person.admin = "http://127.0.0.1:1".to_owned();
    let document = person.read("petstore.yaml");
    let said = person.run("arctl import-openapi - --only module --output pets.py", &document);
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(said.out.ends_with("module `pets.py` created\n"), "{}", said.out);
    let said = person.run("arctl import-openapi petstore.yaml", "");
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.err.starts_with("error: cannot reach `http://127.0.0.1:1`"), "{}", said.err);
    assert!(!person.folder.join("petstore_client.py").try_exists().unwrap());
}

/// `petstore.add-pet`, written.
const WRITTEN: &str = "    def handle(self) -> None:
        pet = self.request.input
        pet.id = 7
        pet.status = 'available' if pet.name != 'Rex' else 'eaten'
        self.response.payload = pet
";

#[tokio::test]
async fn a_document_becomes_channels_and_services_to_be_filled_in() {
    let node = Node::start().await;
    let person = Importer::of(&node, "petstore.yaml");
    let import = "arctl import-openapi petstore.yaml --as channels --module petstore";
    let said = person.run(&format!("{import} --dry-run"), "");
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(
        said.out.contains("9 taken, 1 changed, 2 not taken (not carried out)\n"),
        "{}",
        said.out
    );
    assert!(!person.folder.join("petstore.py").try_exists().unwrap());
    let objects = node.api(Method::GET, "/v1/objects/Channel", None).await;
    assert_eq!(objects["objects"], json!([]));
    let said = person.run(import, "");
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(said.err.contains("warning: open to all is `petstore.login-user`"), "{}", said.err);
    let not_yet = "warning: 9 of the channels answer 404 until their services are deployed (`arctl deploy petstore.py`)\n";
    assert!(said.err.contains(not_yet), "{}", said.err);
    let made =
        said.out.lines().find_map(|line| line.strip_prefix("Security/petstore.api_key key: "));
    let key = made.unwrap().split(' ').next().unwrap().to_owned();
    // The module can be deployed as it is.
    let said = person.run("arctl deploy petstore.py", "");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    node.settled().await;
    let call = |method: Method, path: &str, body: Value| {
        let request = node.http().request(method, format!("{}/api/v3{path}", node.channels));
        let request = request.header("X-Pet-Key", &key);
        let request = if body.is_null() { request } else { request.json(&body) };
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let (status, answer) = call(Method::GET, "/pet/7", Value::Null).await;
    assert_eq!(
        (status, &answer["details"]),
        (
            501,
            &json!(
                "service `petstore.get-pet-by-id` is not written yet: fill in `handle` of class `GetPetById` in module `petstore`, and deploy it"
            )
        )
    );
    let bare = node.http().get(format!("{}/api/v3/pet/7", node.channels)).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    let (status, answer) = call(Method::POST, "/pet", json!({"name": 5, "photoUrls": []})).await;
    assert_eq!(
        (status, answer["details"].as_str().unwrap().contains("`/name`")),
        (400, true),
        "{answer}"
    );
    let (status, _) = call(Method::GET, "/pet/x", Value::Null).await;
    assert_eq!(status, 400);
    // A service is written, and the document holds for its answers, too.
    let skeleton = person.read("petstore.py");
    let (before, after) = skeleton.split_once("class AddPet(Service):").unwrap();
    let after = after.replacen(
        "    def handle(self) -> None:\n        raise NotWritten(self)\n",
        WRITTEN,
        1,
    );
    let written = format!("{before}class AddPet(Service):{after}");
    std::fs::write(person.folder.join("petstore.py"), &written).unwrap();
    let said = person.run("arctl deploy petstore.py", "");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let pet = json!({"name": "Żaneta", "photoUrls": ["a"], "x-chip": null});
    let (status, answer) = call(Method::POST, "/pet", pet).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer,
        json!({"id": 7, "name": "Żaneta", "photoUrls": ["a"], "status": "available"})
    );
    let (status, _) = call(Method::POST, "/pet", json!({"name": "Rex", "photoUrls": []})).await;
    assert_eq!(status, 500);
    // It is told of to those who may call.
    let document =
        node.http().get(format!("{}/openapi.json", node.channels)).header("X-Pet-Key", &key);
    let document: Value = document.send().await.unwrap().json().await.unwrap();
    assert!(document["paths"]["/api/v3/pet/{petId}"]["get"].is_object(), "{document:#}");
    // What was written is not lost; the channels alone can be imported again.
    let said = person.run(import, "");
    assert_eq!(said.code, 2, "{}{}", said.out, said.err);
    assert_eq!(person.read("petstore.py"), written);
    let said = person.run(&format!("{import} --only objects"), "");
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(said.out.contains("Channel/petstore.add-pet unchanged"), "{}", said.out);
}
