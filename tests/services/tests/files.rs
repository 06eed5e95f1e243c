//! Connections of type `files`: real services on a real node, and a node that is killed while they write.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use artest::Node;
use reqwest::Method;
use serde_json::{Value, json};

const SERVICE: &str = r#"
from arint import Service


class Keep(Service):
    name = 'files.keep'

    def handle(self):
        folder = self.out.files['invoices'].conn
        asked = self.request.payload
        number, size = asked['number'], asked['size']
        folder.write(f'{number}.bin', bytes([number % 251]) * size, overwrite=False)
        self.response.payload = {'kept': number}


class Walk(Service):
    name = 'files.walk'

    def handle(self):
        folder = self.out.files.get('invoices')
        folder.create_directory('a/b')
        folder.write('a/b/text.txt', 'zwölf')
        folder.append('a/b/text.txt', ' Boxkämpfer')
        pieces = (bytes([piece]) * 3_000_000 for piece in range(10))
        folder.write('a/large.bin', pieces)
        large = [len(piece) for piece in folder.read_chunks('a/large.bin')]
        folder.move('a/large.bin', 'larger.bin')
        info = folder.info('a/b/text.txt')
        told = {}
        for name, does in {
            'missing': lambda: folder.read('nowhere'),
            'there': lambda: folder.write('larger.bin', b'', overwrite=False),
            'outside': lambda: folder.read('../../arsrv.toml'),
            'full': lambda: folder.delete_directory('a'),
            'unknown': lambda: self.out.files['none'].list(),
            'read-only': lambda: self.out.files['shown'].delete('larger.bin'),
        }.items():
            try:
                does()
            except Exception as err:
                told[name] = type(err).__name__
        folder.delete_directory('a', recursive=True)
        self.response.payload = {
            'size': info.size, 'path': info.path,
            'large': large, 'told': told,
            'left': [(entry.path, entry.type, entry.size) for entry in self.out.files['shown'].list()],
        }


class Total(Service):
    name = 'files.total'

    def handle(self):
        found = {}
        for entry in self.out.files['invoices'].list('', '*.bin'):
            content = self.out.files['invoices'].read(entry.name)
            found[entry.name] = [len(content), sorted(set(content))]
        self.response.payload = found
"#;

async fn set_up(node: &Node) {
    node.put("Outgoing", "invoices", json!({"type": "files"})).await;
    let shown = json!({"type": "files", "folder": "invoices", "read_only": true});
    node.put("Outgoing", "shown", shown).await;
    node.deploy("keep.py", SERVICE).await;
    let keep = json!({"url_path": "/keep", "service": "files.keep", "data_format": "json"});
    node.put("Channel", "keep", keep).await;
    node.settled().await;
}

async fn invoke(node: &Node, service: &str) -> Value {
    let path = format!("/v1/services/{service}/invoke");
    let answer = node.api(Method::POST, &path, Some(json!({"payload": null}))).await;
    assert_eq!(answer["status"], 200, "{answer}\n{}", node.log());
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_use_a_folder_of_the_box_and_nothing_else() {
    let node = Node::start().await;
    set_up(&node).await;
    let walked = invoke(&node, "files.walk").await;
    assert_eq!(walked["size"], "zwölf Boxkämpfer".len());
    assert_eq!(walked["path"], "a/b/text.txt");
    let large = walked["large"].as_array().unwrap();
    assert_eq!(large.iter().map(|piece| piece.as_u64().unwrap()).sum::<u64>(), 30_000_000);
    assert_eq!(
        walked["told"],
        json!({
            "missing": "FileNotFoundError", "there": "FileExistsError", "outside": "ValueError",
            "full": "OSError", "unknown": "KeyError", "read-only": "PermissionError",
        })
    );
    assert_eq!(walked["left"], json!([["larger.bin", "file", 30_000_000]]));
    let lies = node.data_dir.join("arsrv/files/invoices/larger.bin");
    assert_eq!(std::fs::metadata(lies).unwrap().len(), 30_000_000);
    let ping = node.api(Method::POST, "/v1/outgoing/invoices/ping", Some(Value::Null)).await;
    assert_eq!(ping["ok"], true, "{ping}");
    let status = node.api(Method::GET, "/v1/status", None).await;
    let outgoing = status["arsrv"]["outgoing"].as_array().unwrap();
    let one = outgoing.iter().find(|one| one["name"] == "invoices").unwrap();
    assert_eq!((one["health"].as_str(), one["failures"].as_u64()), (Some("up"), Some(0)), "{one}");
}

/// What was answered is there, whole; what was not is there whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_loses_no_file_it_has_answered_for() {
    let dir = artest::temp_dir();
    let mut answered = BTreeSet::new();
    let mut number = 0u32;
    // Of one request of the core, and of several.
    for size in [200_000usize, 20_000_000] {
        for _ in 0..3 {
            let node = Node::builder().data_dir(dir.path()).start().await;
            set_up(&node).await;
            let url = format!("{}/keep", node.channels);
            let mut sent = Vec::new();
            for _ in 0..8 {
                number += 1;
                let body = json!({"number": number, "size": size});
                let request = node.http().post(&url).json(&body).timeout(Duration::from_secs(60));
                let number = number;
                sent.push(tokio::spawn(async move {
                    let answer = request.send().await.ok()?;
                    answer.status().is_success().then_some((number, size))
                }));
            }
            // Killed as soon as the first is answered: others are at every stage.
            let (first, _, rest) = futures_util::future::select_all(sent).await;
            let core = node.pids(&["arsrv"])[0];
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(core.cast_signed()),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
            node.kill();
            answered.extend(first.unwrap());
            for one in rest {
                answered.extend(one.await.unwrap());
            }
        }
    }
    assert!(answered.len() >= 6, "{answered:?}");
    let node = Node::builder().data_dir(dir.path()).start().await;
    set_up(&node).await;
    let found = invoke(&node, "files.total").await;
    for (number, size) in &answered {
        let file = &found[format!("{number}.bin")];
        assert_eq!(*file, json!([size, [number % 251]]), "{number}.bin was answered");
    }
    for (name, file) in found.as_object().unwrap() {
        let length = file[0].as_u64().unwrap();
        assert!([200_000, 20_000_000].contains(&length), "{name} has {length} bytes");
    }
    let parts = dir.path().join("arsrv/files/invoices/.arint-parts");
    let left: usize = std::fs::read_dir(parts)
        .unwrap()
        .map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count())
        .sum();
    assert_eq!(left, 0, "what was half written is gone");
}
