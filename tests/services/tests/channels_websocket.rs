//! WebSocket channels through the balancer: sessions, messages, what services send, limits, and how connections end.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests end the test"
)]

use std::time::Duration;

use artest::Node;
use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    token: String,
    sent: u32,
}

fn address(node: &Node, path: &str) -> String {
    format!("{}{path}", node.channels.replacen("http", "ws", 1))
}

impl Client {
    async fn try_open(node: &Node, path: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let mut request = address(node, path).into_client_request().unwrap();
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { socket, token: String::new(), sent: 0 })
    }

    /// Opens one and creates a session without credentials.
    async fn open(node: &Node, path: &str) -> Self {
        let mut client = Self::try_open(node, path, &[]).await.unwrap();
        client.log_in(json!({})).await;
        client
    }

    /// Creates a session; the answer.
    async fn try_log_in(&mut self, credentials: Value) -> Value {
        let mut meta = json!({"action": "create-session", "id": "log-in", "timestamp": "2026-01-01T00:00:00",
                              "client_id": "c-1", "client_name": "tests"});
        for (key, value) in credentials.as_object().unwrap() {
            meta[key] = value.clone();
        }
        self.say(json!({"meta": meta})).await;
        self.hear().await
    }

    async fn log_in(&mut self, credentials: Value) {
        let answer = self.try_log_in(credentials).await;
        assert_eq!(answer["meta"]["msg_type"], "zwsx.rspa", "{answer}");
        assert_eq!(answer["meta"]["in_reply_to"], "log-in");
        self.token = answer["data"]["token"].as_str().unwrap().to_owned();
    }

    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message; pings are answered by the way.
    async fn hear(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a message was expected: {other:?}"),
            }
        }
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(LIMIT, self.socket.next()).await;
        next.expect("nothing came").expect("the connection ended").unwrap()
    }

    /// Why the connection ended: the code and the reason.
    async fn end(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Message::Close(Some(frame)) => {
                    // The good-bye is answered, as a client does.
                    while self.socket.next().await.is_some_and(|next| next.is_ok()) {}
                    return (frame.code.into(), frame.reason.to_string());
                }
                Message::Close(None) => return (1005, String::new()),
                _ => {}
            }
        }
    }

    async fn send(&mut self, data: Value) -> String {
        self.sent += 1;
        let id = format!("m{}", self.sent);
        let meta = json!({"action": "invoke-service", "id": id, "timestamp": "2026-01-01T00:00:00",
                          "token": self.token});
        self.say(json!({"meta": meta, "data": data})).await;
        id
    }

    /// Sends a message and waits for the answer to it.
    async fn ask(&mut self, data: Value) -> Value {
        let id = self.send(data).await;
        let answer = self.hear().await;
        assert_eq!(answer["meta"]["in_reply_to"], id);
        answer
    }
}

fn channel(more: Value) -> Value {
    let mut spec = json!({"type": "web_socket", "url_path": "/live", "service": "wsx.echo"});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

/// A security that a user's name opens with a password.
fn people(password: &str) -> Value {
    json!({"type": "basic", "username": "anna", "password": {"value": password}})
}

/// A node with services, and with a channel.
async fn node(more: Value) -> Node {
    let node = Node::start().await;
    node.put("Security", "people", people("s3cret-word")).await;
    let key = json!({"type": "api_key", "key": {"value": "key-of-a-program"}});
    node.put("Security", "program", key).await;
    let source = artest::repository().join("tests/services/services/sockets.py");
    node.deploy("sockets.py", &std::fs::read_to_string(source).unwrap()).await;
    node.put("Channel", "live", channel(more)).await;
    let send = json!({"url_path": "/send", "service": "wsx.send", "data_format": "json"});
    node.put("Channel", "send", send).await;
    node.settled().await;
    node
}

async fn send(node: &Node, what: Value) -> Value {
    let answer = node.request(Method::POST, "/send", what.to_string()).await;
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn messages_are_carried_out_in_a_session_and_answered_by_their_ids() {
    let node = node(json!({"url_path": "/live/{room}"})).await;
    let mut client = Client::open(&node, "/live/7?x=1").await;
    let answer = client.ask(json!({"n": 1})).await;
    assert_eq!(answer["meta"]["msg_type"], "zwsx.rspok");
    assert_eq!(answer["meta"]["status"], 200);
    assert_eq!(
        answer["data"],
        json!({"data": {"n": 1}, "channel": ["live", "web-socket", null], "params": {"room": "7"}, "client": "c-1"})
    );
    let answer = client.ask(json!({"bad": 1})).await;
    assert_eq!(answer["meta"]["msg_type"], "zwsx.rsperr");
    assert_eq!(answer["meta"]["status"], 400);
    assert_eq!(answer["meta"]["error_message"], "no such thing");
    assert_eq!(answer["data"]["cid"].as_str().unwrap().len(), 24);
    let answer = client.ask(json!({"boom": 1})).await;
    assert_eq!(answer["meta"]["status"], 500);
    assert_eq!(answer["meta"]["error_message"], "[\"first\",2]");
    // Many at once are carried out one after another, in their order.
    let mut ids = Vec::new();
    for number in 0..50 {
        ids.push(client.send(json!({"n": number})).await);
    }
    for (number, id) in ids.iter().enumerate() {
        let answer = client.hear().await;
        assert_eq!(
            (answer["meta"]["in_reply_to"].as_str(), &answer["data"]["data"]["n"]),
            (Some(&**id), &json!(number))
        );
    }
    // What is no message is told so, and the session goes on.
    client.socket.send(Message::text("{")).await.unwrap();
    assert_eq!(client.hear().await["meta"]["status"], 400);
    client.socket.send(Message::binary(b"\xff".to_vec())).await.unwrap();
    assert_eq!(client.end().await, (4001, "Invalid UTF-8 bytes".to_owned()));
}

#[tokio::test]
async fn a_client_of_another_make_is_served_too() {
    let node = node(json!({"security": ["people"], "ping_interval": 1})).await;
    node.settled().await;
    let script = artest::repository().join("tests/services/services/websocket_client.py");
    let done = tokio::process::Command::new("/usr/bin/python3")
        .arg(script)
        .args([&address(&node, "/live"), "anna", "s3cret-word"])
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "it needs the Debian package `python3-websockets`:\n{errors}");
    let lines = String::from_utf8(done.stdout).unwrap();
    let messages: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(messages.len(), 4);
    for (number, message) in messages[1..].iter().enumerate() {
        assert_eq!(message["data"]["data"], json!({"n": number}));
        assert_eq!(message["data"]["channel"], json!(["live", "web-socket", "anna"]));
    }
}

#[tokio::test]
async fn only_who_shows_credentials_gets_a_session_and_nothing_goes_without_its_token() {
    let node = node(json!({"security": ["people", "program"]})).await;
    node.put(
        "Security",
        "program",
        json!({"type": "api_key", "key": {"value": "key-of-a-program"}}),
    )
    .await;
    node.settled().await;

    let mut client = Client::try_open(&node, "/live", &[]).await.unwrap();
    client.log_in(json!({"username": "anna", "secret": "s3cret-word"})).await;
    assert_eq!(client.ask(json!({})).await["data"]["channel"][2], "anna");
    // A new session has a new token.
    let before = client.token.clone();
    client.token = before.clone();
    let mut again = json!({"action": "create-session", "id": "log-in", "timestamp": "", "token": before,
                           "username": "anna", "secret": "s3cret-word"});
    client.say(json!({"meta": again.take()})).await;
    let answer = client.hear().await;
    assert_ne!(answer["data"]["token"], before);
    client.send(json!({})).await;
    assert_eq!(client.hear().await["meta"]["msg_type"], "zwsx.merr");
    assert_eq!(client.end().await, (1008, "forbidden".to_owned()));

    let headers = [("x-api-key", "key-of-a-program")];
    let mut client = Client::try_open(&node, "/live", &headers).await.unwrap();
    client.log_in(json!({})).await;

    for credentials in [json!({}), json!({"username": "anna", "secret": "wrong"})] {
        let mut client = Client::try_open(&node, "/live", &[]).await.unwrap();
        let answer = client.try_log_in(credentials).await;
        assert_eq!(answer["meta"]["msg_type"], "zwsx.merr");
        assert_eq!(answer["meta"]["status"], 403);
        assert_eq!(answer["data"], "You are not authorized to access this resource");
        assert_eq!(client.end().await.0, 1008);
    }
    let mut client = Client::try_open(&node, "/live", &[]).await.unwrap();
    client.send(json!({})).await;
    assert_eq!(client.hear().await["meta"]["msg_type"], "zwsx.merr");
    assert_eq!(client.end().await.0, 1008);
}

#[tokio::test]
async fn who_creates_no_session_or_answers_no_ping_is_sent_away() {
    let node =
        node(json!({"new_token_wait_time": 1, "ping_interval": 1, "pings_missed_threshold": 1}))
            .await;
    let mut silent = Client::try_open(&node, "/live", &[]).await.unwrap();
    assert_eq!(silent.hear().await["meta"]["msg_type"], "zwsx.merr");
    assert_eq!(silent.end().await.0, 1008);

    // One that answers pings stays, one that does not is sent away.
    let mut client = Client::open(&node, "/live").await;
    let mut deaf = raw(&node, "/live").await;
    let meta = json!({"meta": {"action": "create-session", "id": "1", "timestamp": ""}});
    deaf.write_all(&masked(meta.to_string().as_bytes())).await.unwrap();
    let mut heard = Vec::new();
    let cut_off = tokio::time::timeout(LIMIT, deaf.read_to_end(&mut heard));
    let told = tokio::select! {
        told = client.hear() => Some(told),
        cut_off = cut_off => cut_off.expect("not cut off").ok().and(None),
    };
    assert_eq!(told, None);
    let pings = heard.windows(7).filter(|bytes| bytes == b"\x89\x05arint").count();
    assert!(pings >= 1, "{heard:?}");
    let text = String::from_utf8_lossy(&heard);
    assert!(text.contains("zwsx.rspa") && text.ends_with("Pings missed"), "{text}");
    assert_eq!(client.ask(json!({"n": 1})).await["meta"]["status"], 200);
}

/// A connection whose frames nobody looks after.
async fn raw(node: &Node, path: &str) -> TcpStream {
    let address = node.channels.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    stream
}

/// A text of a client as a frame.
fn masked(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(short @ ..126) => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

#[tokio::test]
async fn services_reach_clients_one_and_all() {
    let node = node(json!({"service_whitelist": ["wsx.*"], "service": null})).await;
    let mut first = Client::open(&node, "/live").await;
    let mut second = Client::open(&node, "/live").await;
    // One that has no session is not spoken to.
    let mut third = Client::try_open(&node, "/live", &[]).await.unwrap();
    let told = send(&node, json!({"do": "broadcast", "data": {"price": 7}})).await;
    assert_eq!(told, json!({"clients": 2}));
    for client in [&mut first, &mut second] {
        let message = client.hear().await;
        assert_eq!(message["meta"]["msg_type"], "zwsx.rqc");
        assert_eq!(message["data"], json!({"price": 7}));
    }
    third.log_in(json!({})).await;

    let answer = first.ask(json!({"service": "wsx.own"})).await;
    let id = answer["data"]["id"].as_str().unwrap().to_owned();
    let asking = send(&node, json!({"do": "invoke", "client": id, "data": {"what": "position"}}));
    let answering = async {
        let asked = first.hear().await;
        assert_eq!(asked["data"], json!({"what": "position"}));
        let meta = json!({"action": "client-response", "id": "r", "timestamp": "", "token": first.token,
                          "in_reply_to": asked["meta"]["id"]});
        first.say(json!({"meta": meta, "data": [52.2, 21.0]})).await;
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer, json!({"answer": [52.2, 21.0]}));

    for (what, sentence) in [
        (
            json!({"do": "invoke", "client": "ws.none", "data": 1}),
            "channel `live` has no client `ws.none`",
        ),
        (json!({"do": "broadcast", "channel": "none", "data": 1}), "there is no channel `none`"),
        (
            json!({"do": "broadcast", "channel": "send", "data": 1}),
            "channel `send` is no WebSocket",
        ),
        (
            json!({"do": "invoke", "client": id, "data": 1, "timeout": 0.2}),
            "the client did not answer in time",
        ),
    ] {
        let answer = node.request(Method::POST, "/send", what.to_string()).await;
        assert_eq!(answer.status().as_u16(), 500);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["details"], json!([sentence]));
    }
    first.hear().await;
    send(&node, json!({"do": "disconnect", "client": id})).await;
    assert_eq!(first.end().await, (1000, "a service ended it".to_owned()));
    let told = send(&node, json!({"do": "broadcast", "data": 1})).await;
    assert_eq!(told, json!({"clients": 2}));
}

#[tokio::test]
async fn a_gateway_leads_to_what_is_on_its_list() {
    let node = node(json!({"service_whitelist": ["wsx.*"], "service": null})).await;
    let mut client = Client::open(&node, "/live").await;
    let answer = client.ask(json!({"service": "wsx.echo", "request": {"n": 1}})).await;
    assert_eq!(answer["data"]["data"], json!({"n": 1}));
    assert_eq!(client.ask(json!({"service": "wsx.text"})).await["data"], "changed");
    for service in ["secret.hidden", "wsx.nothing"] {
        let answer = client.ask(json!({"service": service})).await;
        assert_eq!(answer["meta"]["status"], 404);
        assert_eq!(answer["meta"]["error_message"], "there is nothing for this message");
    }
    assert_eq!(client.ask(json!({"n": 1})).await["meta"]["status"], 400);
}

#[tokio::test]
async fn a_hook_is_told_of_those_that_come_and_go() {
    let node = node(json!({"hook_service": "wsx.hook"})).await;
    let told = json!({"url_path": "/told", "service": "wsx.told", "data_format": "json"});
    node.put("Channel", "told", told).await;
    node.settled().await;
    let mut client = Client::open(&node, "/live").await;
    // Who never had a session is nobody.
    drop(Client::try_open(&node, "/live", &[]).await.unwrap());
    client.socket.close(None).await.unwrap();
    artest::wait_for("the hook to have been told", LIMIT, async || {
        let told: Value = node.request(Method::GET, "/told", "").await.json().await.unwrap();
        let expected = json!(["came c-1 live ws.", "went c-1 live ws."]);
        if told == expected { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test]
async fn there_are_limits_to_connections_messages_and_their_sizes() {
    let node = node(json!({"max_connections": 2, "max_body_bytes": 500})).await;
    let mut first = Client::open(&node, "/live").await;
    let second = Client::open(&node, "/live").await;
    let Err(Error::Http(answer)) = Client::try_open(&node, "/live", &[]).await else { panic!() };
    assert_eq!(answer.status().as_u16(), 503);
    assert_eq!(answer.headers()["retry-after"], "5");
    let status = node.api(Method::GET, "/v1/status", None).await;
    let channels = status["arsrv"]["channels"].as_array().unwrap();
    let live = channels.iter().find(|channel| channel["name"] == "live").unwrap();
    assert_eq!((&live["connections"], &live["type"]), (&json!(2), &json!("web_socket")));
    drop(second);
    artest::wait_for("a place to be free", LIMIT, async || {
        Client::try_open(&node, "/live", &[]).await.map(drop)
    })
    .await;
    first.send(json!({"x": "y".repeat(600)})).await;
    let end = first.end().await;
    assert_eq!(end, (1009, "the message is larger than this channel takes".to_owned()));

    let limited = channel(json!({"url_path": "/limited", "rate_limit": {"definition": "* = 3/d"}}));
    node.put("Channel", "limited", limited).await;
    node.settled().await;
    let mut client = Client::open(&node, "/limited").await;
    for status in [200, 200, 429] {
        assert_eq!(client.ask(json!({})).await["meta"]["status"], status);
    }
    let Err(Error::Http(answer)) = Client::try_open(&node, "/limited", &[]).await else { panic!() };
    assert_eq!(answer.status().as_u16(), 429);

    // What asks for no WebSocket is told how.
    let answer = node.request(Method::GET, "/live", "").await;
    assert_eq!(answer.status().as_u16(), 426);
    assert_eq!(node.request(Method::POST, "/live", "{}").await.status().as_u16(), 404);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_the_others_notice_nothing() {
    let node = node(json!({})).await;
    let mut slow = raw(&node, "/live").await;
    let meta = json!({"meta": {"action": "create-session", "id": "1", "timestamp": ""}});
    slow.write_all(&masked(meta.to_string().as_bytes())).await.unwrap();
    let mut client = Client::open(&node, "/live").await;
    let mut heard = Vec::new();
    while !heard.windows(9).any(|bytes| bytes == b"zwsx.rspa") {
        heard.push(slow.read_u8().await.unwrap());
    }
    assert_eq!(
        send(&node, json!({"do": "broadcast", "data": "hello"})).await,
        json!({"clients": 2})
    );
    client.hear().await;
    // A few more than can wait are enough: what the sockets between take is little beside them.
    let mut was_cut_off = false;
    for _ in 0..600 {
        let told = send(&node, json!({"do": "broadcast", "size": 400_000})).await;
        let message = client.hear().await;
        assert_eq!(message["data"].as_str().unwrap().len(), 400_000);
        was_cut_off = told == json!({"clients": 1});
        if was_cut_off {
            break;
        }
    }
    assert!(was_cut_off);
    drop(slow);
}

#[tokio::test]
async fn sessions_follow_what_is_configured() {
    let node = node(json!({"security": ["people"]})).await;
    let mut client = Client::try_open(&node, "/live", &[]).await.unwrap();
    client.log_in(json!({"username": "anna", "secret": "s3cret-word"})).await;
    assert_eq!(client.ask(json!({"n": 1})).await["meta"]["status"], 200);
    // Another service, the same session.
    node.put("Channel", "live", channel(json!({"security": ["people"], "service": "wsx.text"})))
        .await;
    node.settled().await;
    assert_eq!(client.ask(json!({"n": 1})).await["data"], "changed");
    // Another password, no session.
    node.put("Security", "people", people("an0ther-word")).await;
    let end = client.end().await;
    assert_eq!(end, (1008, "the credentials open nothing here any more".to_owned()));
    let mut client = Client::try_open(&node, "/live", &[]).await.unwrap();
    client.log_in(json!({"username": "anna", "secret": "an0ther-word"})).await;
    node.put("Channel", "live", channel(json!({"security": ["people"], "is_active": false}))).await;
    assert_eq!(client.end().await, (1001, "the channel has gone".to_owned()));
    let Err(Error::Http(answer)) = Client::try_open(&node, "/live", &[]).await else { panic!() };
    assert_eq!(answer.status().as_u16(), 404);
}

#[tokio::test]
async fn a_restart_of_the_core_finishes_what_has_begun_and_says_good_bye() {
    let node = node(json!({})).await;
    let mut client = Client::open(&node, "/live").await;
    let begun = client.send(json!({"sleep": 2.0})).await;
    let waits = client.send(json!({"n": 2})).await;
    artest::wait_for("the message to be under way", LIMIT, async || {
        let status = node.api(Method::GET, "/v1/status", None).await;
        let workers = status["arsrv"]["workers"].as_array().unwrap().clone();
        let busy = workers.iter().any(|worker| worker["in_flight"].as_u64() > Some(0));
        if busy { Ok(()) } else { Err(workers) }
    })
    .await;
    kill(Pid::from_raw(unit(&node, "arsrv").cast_signed()), Signal::SIGTERM).unwrap();
    for (id, status) in [(begun, 200), (waits, 503)] {
        let answer = client.hear().await;
        assert_eq!(answer["meta"]["in_reply_to"], id);
        assert_eq!(answer["meta"]["status"], status);
    }
    assert_eq!(client.end().await, (1001, "the box is restarting".to_owned()));
    // The next core takes it again.
    let mut client = artest::wait_for("the core to be back", LIMIT, async || {
        Client::try_open(&node, "/live", &[]).await
    })
    .await;
    client.log_in(json!({})).await;
    let log = node.stop();
    assert!(!log.contains("WebSockets cut off by the stop"), "{log}");
}

fn unit(node: &Node, name: &str) -> u32 {
    let is_unit = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').nth(1) == Some(name)
    };
    processes_below(node.pid()).into_iter().find(is_unit).unwrap()
}

fn processes_below(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for thread in
            std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten()
        {
            let children =
                std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
                found.push(pid);
                parents.push(pid);
            }
        }
    }
    found
}
