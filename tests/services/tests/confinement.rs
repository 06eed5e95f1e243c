//! What users' code cannot reach: the other units' sockets, their databases and keys.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use artest::Node;
use reqwest::Method;
use serde_json::json;

const SPY: &str = r"
import os
import socket

from zato.server.service import Service


class Spy(Service):
    name = 'spy'

    def handle(self):
        run, data = self.request.payload['run'], self.request.payload['data']
        found = {}
        for name in ('arclst', 'arsrv', 'arwadm', 'arldb'):
            found[name] = self.ask(os.path.join(run, name + '.sock'))
        for path in (run + '/peer.token', data + '/arclst/secrets.key', data + '/etc/arclst.toml'):
            try:
                found[path.rsplit('/', 1)[1]] = open(path).read(10)
            except OSError as exc:
                found[path.rsplit('/', 1)[1]] = 'refused'
        self.response.payload = found

    def ask(self, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        try:
            sock.connect(path)
            sock.sendall(b'GET /v1/secrets HTTP/1.1\r\nHost: x\r\nX-ARINT-Service: arsrv\r\nConnection: close\r\n\r\n')
            answer = sock.recv(100)
        except OSError:
            return 'refused'
        return 'refused' if answer.startswith(b'HTTP/1.1 403') else answer.decode()
";

#[tokio::test]
async fn a_service_reaches_neither_the_sockets_nor_the_files_of_the_units() {
    let node = Node::start().await;
    node.deploy("spy.py", SPY).await;
    let payload = json!({"run": node.runtime_dir, "data": node.data_dir});
    let answer =
        node.api(Method::POST, "/v1/services/spy/invoke", Some(json!({"payload": payload}))).await;
    let found: serde_json::Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    let all = ["arclst", "arsrv", "arwadm", "arldb", "peer.token", "secrets.key", "arclst.toml"];
    for name in all {
        assert_eq!(found[name], "refused", "{found}");
    }
}

#[tokio::test]
async fn a_caller_without_the_peer_token_is_told_what_is_missing() {
    let node = Node::start().await;
    for unit in ["arclst", "arsrv", "arwadm", "arldb"] {
        let mut stream =
            UnixStream::connect(node.runtime_dir.join(format!("{unit}.sock"))).unwrap();
        stream
            .write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden"), "{unit}: {answer}");
        assert!(
            answer.contains("only services of this box may call here: header `X-ARINT-Peer` with the text of `peer.token` in the runtime folder was expected"),
            "{unit}: {answer}"
        );
    }
}
