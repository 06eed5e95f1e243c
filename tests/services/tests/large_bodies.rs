//! Large bodies through a whole node: they pass without being kept in the memory of balancer and core.

use std::time::Duration;

use artest::Node;
use serde_json::json;

const SERVICE: &str = "\
import hashlib
from zato.server.service import Service

class Count(Service):
    name = 'large.count'
    def handle(self):
        body = self.request.raw_request
        body = body.encode() if isinstance(body, str) else body
        self.response.payload = {'length': len(body), 'sum': hashlib.sha256(body).hexdigest()}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_100_mb_takes_less_than_30_mb_of_balancer_and_core() {
    const LENGTH: usize = 100_000_000;
    let config = "[arsrv]\nworkers = 1\nworker_memory_mib = 2048\n";
    let node = Node::builder().config(config).start().await;
    node.deploy("large.py", SERVICE).await;
    for (name, format) in [("large", "none"), ("large-json", "json")] {
        let channel = json!({
            "url_path": format!("/{name}"), "service": "large.count", "data_format": format,
            "max_body_bytes": 120_000_000, "timeout_ms": 110_000,
        });
        node.put("Channel", name, channel).await;
    }
    node.settled().await;
    let send = async |path: &str, body: Vec<u8>| {
        let request = node.http().post(format!("{}{path}", node.channels)).body(body);
        let answer = request.timeout(Duration::from_secs(120)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    // Once, so that what is needed for any request is there.
    assert_eq!(send("/large", vec![b'x'; 1000]).await.0, 200);
    let before = node.most_memory(&["arldb", "arsrv"]);
    let mut body = vec![b' '; LENGTH];
    for (at, byte) in body.iter_mut().enumerate().step_by(997) {
        *byte = b'0' + u8::try_from(at % 10).unwrap();
    }
    body[0] = b'[';
    let (status, text) = send("/large", body.clone()).await;
    assert_eq!(status, 200, "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["length"], LENGTH);
    let more = node.most_memory(&["arldb", "arsrv"]).saturating_sub(before);
    artest::say(&format!("100 MB through: {more} KiB more in balancer and core"));
    assert!(more < 30_000, "{more} KiB");
    // Checked as JSON from where it lies.
    let (status, text) = send("/large-json", body).await;
    assert_eq!(status, 400);
    assert!(text.contains("the request body is not JSON: "), "{text}");
    let more = node.most_memory(&["arldb", "arsrv"]).saturating_sub(before);
    assert!(more < 30_000, "{more} KiB");
    // Of a length that nobody says before, and whole: what the service gets is what was sent.
    let document = json!(vec!["ö".repeat(500); 12_000]).to_string();
    let dir = artest::temp_dir();
    let file = dir.path().join("document.json");
    std::fs::write(&file, &document).unwrap();
    let sent = tokio::process::Command::new("curl")
        .args(["-sS", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary"])
        .arg(format!("@{}", file.display()))
        .arg(format!("{}/large-json", node.channels))
        .output();
    let output = sent.await.unwrap();
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"));
    assert_eq!(answer["length"], document.len(), "{answer}");
    // Nothing of it is left.
    let left = std::fs::read_dir(node.data_dir.join("arsrv/bodies")).unwrap().count();
    assert_eq!(left, 0);
}
