//! Channels that pass requests on to an outgoing connection, through a whole node, to a Python server and to nginx.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

mod peer;

use std::time::Duration;

use artest::Node;
use bytes::Bytes;
use futures_util::StreamExt as _;
use peer::{Nginx, Passing, make_certificates};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// A node whose channels `/on/{rest}` and others lead to a peer.
async fn node(peer: &Passing) -> Node {
    let node = Node::builder().config("[arsrv]\nworkers = 1\n").start().await;
    outgoing(&node, "behind", json!({"host": peer.url, "url_path": "/{rest}"})).await;
    channel(&node, "on", json!({"url_path": "/on/{rest}"}), json!({"outgoing": "behind"})).await;
    node.settled().await;
    node
}

async fn outgoing(node: &Node, name: &str, fields: Value) {
    let mut spec = json!({"type": "rest", "ping_interval_s": 0,
        "retry": {"backoff_ms": 0, "max_backoff_ms": 0}, "circuit_breaker": {"failures": 0}});
    merge(&mut spec, fields);
    node.put("Outgoing", name, spec).await;
}

async fn channel(node: &Node, name: &str, fields: Value, pass_through: Value) {
    let mut spec = json!({"pass_through": pass_through});
    merge(&mut spec, fields);
    node.put("Channel", name, spec).await;
}

fn merge(spec: &mut Value, fields: Value) {
    let fields = fields.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
}

async fn get(node: &Node, path: &str) -> Response {
    node.http().get(format!("{}{path}", node.channels)).send().await.unwrap()
}

async fn text(answer: Response) -> (u16, String) {
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The values of a header that the peer saw.
fn header<'v>(seen: &'v Value, name: &str) -> Vec<&'v str> {
    let all = seen["headers"].as_array().unwrap();
    all.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_on_as_it_came_and_its_answer_comes_back() {
    let peer = Passing::start();
    let node = node(&peer).await;
    let url = format!("{}/on/a%20b/c%C3%A9?x=%201&y", node.channels);
    let request = node.http().patch(&url).header("X-Acme", "one").header("Authorization", "mine");
    let request = request.header("Cookie", "a=1").body("the body");
    let answer = request.send().await.unwrap();
    let cid = answer.headers().get("x-zato-cid").unwrap().to_str().unwrap().to_owned();
    let seen: Value = answer.json().await.unwrap();
    assert_eq!(seen["method"], "PATCH");
    assert_eq!(seen["path"], "/a%20b/c%C3%A9?x=%201&y");
    assert_eq!(seen["start"], "the body");
    assert_eq!(header(&seen, "x-acme"), ["one"]);
    // An open channel asks for no credentials: these are for the other side.
    assert_eq!(header(&seen, "authorization"), ["mine"]);
    assert_eq!(header(&seen, "cookie"), ["a=1"]);
    assert_eq!(header(&seen, "x-zato-cid"), [cid.as_str()]);
    assert_eq!(header(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(header(&seen, "x-forwarded-proto"), ["http"]);
    let asked = node.channels.strip_prefix("http://").unwrap();
    assert_eq!(header(&seen, "x-forwarded-host"), [asked]);
    assert_eq!(header(&seen, "host"), [peer.url.strip_prefix("http://").unwrap()]);
    assert_eq!(header(&seen, "via"), ["1.1 arint"]);
    assert_eq!(header(&seen, "traceparent").len(), 1);
    assert!(header(&seen, "forwarded").is_empty() && header(&seen, "connection").is_empty());

    let answer = get(&node, "/on/headers").await;
    let headers = answer.headers();
    assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(headers["etag"], "\"one\"");
    assert_eq!(headers["x-other"], "2");
    assert!(!headers.contains_key("x-hop"), "{headers:?}");
    assert_ne!(headers["x-zato-cid"], "mine");
    assert_eq!(text(answer).await, (200, "text".to_owned()));
    assert_eq!(text(get(&node, "/on/status/404").await).await, (404, "as you wished".to_owned()));

    // How long it would be is told, and nothing is sent.
    let head = node.http().head(format!("{}/on/large/70000", node.channels)).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "70000");
    // What climbs goes nowhere.
    let raw = artest_raw(&node, "GET /on/%2e%2e/x HTTP/1.1").await;
    assert!(raw.starts_with("HTTP/1.1 400 "), "{raw}");
    assert!(raw.ends_with("it has `.` or `..` between slashes, or a part is missing"), "{raw}");
}

/// Sends a request line that clients would change.
async fn artest_raw(node: &Node, line: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let addr = node.channels.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_chosen_and_credentials_stay() {
    let peer = Passing::start();
    let node = node(&peer).await;
    node.put(
        "Security",
        "anna",
        json!({"type": "basic", "username": "anna", "password": {"value": "p"}}),
    )
    .await;
    node.put("Security", "key", json!({"type": "api_key", "key": {"value": "k"}})).await;
    let secured = json!({"url_path": "/secured/{rest}", "security": ["anna", "key"]});
    channel(&node, "secured", secured, json!({"outgoing": "behind", "forwarded": "both"})).await;
    let named = json!({"outgoing": "behind", "request_headers": ["X-Acme-*", "Authorization"],
        "response_headers": ["ETag"], "forwarded": "none", "preserve_host": true});
    let fields = json!({"url_path": "/named/{rest}", "security": ["anna"]});
    channel(&node, "named", fields, named).await;
    node.settled().await;
    let ask = async |path: &str| {
        let request = node.http().get(format!("{}{path}", node.channels)).header("X-Acme-A", "1");
        request.header("X-B", "2").basic_auth("anna", Some("p")).send().await.unwrap()
    };
    assert_eq!(get(&node, "/secured/x").await.status().as_u16(), 401);
    let seen: Value = ask("/secured/x").await.json().await.unwrap();
    assert!(header(&seen, "authorization").is_empty(), "{seen}");
    assert_eq!(header(&seen, "x-b"), ["2"]);
    let asked = node.channels.strip_prefix("http://").unwrap();
    let expected = format!("for=127.0.0.1;proto=http;host=\"{asked}\"");
    assert_eq!(header(&seen, "forwarded"), [expected.as_str()]);
    assert_eq!(header(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    let url = format!("{}/secured/x", node.channels);
    let by_key = node.http().get(url).header("X-API-Key", "k").send().await.unwrap();
    let seen: Value = by_key.json().await.unwrap();
    assert!(header(&seen, "x-api-key").is_empty(), "{seen}");

    let seen: Value = ask("/named/x").await.json().await.unwrap();
    assert_eq!(header(&seen, "authorization").len(), 1);
    assert_eq!(header(&seen, "x-acme-a"), ["1"]);
    assert!(header(&seen, "x-b").is_empty() && header(&seen, "x-forwarded-for").is_empty());
    assert_eq!(header(&seen, "host"), [asked]);
    let answer = ask("/named/headers").await;
    assert!(answer.headers().contains_key("etag") && !answer.headers().contains_key("x-other"));
    assert_eq!(answer.headers()["content-type"], "text/plain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_flow_both_ways_at_once() {
    let peer = Passing::start();
    let node = node(&peer).await;
    // Larger than what the balancer holds back.
    let piece = Bytes::from(vec![b'z'; 200_000]);
    let (send, pieces) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(pieces, async |mut pieces| {
        pieces.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), pieces))
    });
    let url = format!("{}/on/both", node.channels);
    let request = node.http().post(url).body(reqwest::Body::wrap_stream(Box::pin(pieces)));
    let asking = tokio::spawn(request.send());
    send.send(piece.clone()).await.unwrap();
    // The answer begins, and has all of the first piece, before the second is sent.
    let answer = asking.await.unwrap().unwrap();
    let mut lines = answer.bytes_stream();
    let mut told = String::new();
    let mut sum = 0;
    while sum < piece.len() {
        told.push_str(std::str::from_utf8(&lines.next().await.unwrap().unwrap()).unwrap());
        let whole = told.rsplit_once('\n').map_or("", |(whole, _)| whole);
        sum = whole.lines().map(|line| line.parse::<usize>().unwrap()).sum();
    }
    assert_eq!(sum, piece.len());
    send.send(piece.clone()).await.unwrap();
    drop(send);
    while let Some(more) = lines.next().await {
        told.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
    }
    let sum: usize = told.lines().map(|line| line.parse::<usize>().unwrap()).sum();
    assert_eq!(sum, 2 * piece.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_100_mb_take_less_than_30_mb_of_balancer_and_core() {
    const LENGTH: usize = 100_000_000;
    let peer = Passing::start();
    let node = node(&peer).await;
    let fields = json!({"host": peer.url, "url_path": "/{rest}", "max_response_bytes": 200_000_000,
        "timeout_ms": 60_000});
    outgoing(&node, "large", fields).await;
    let fields = json!({"url_path": "/large/{rest}", "max_body_bytes": 120_000_000,
        "timeout_ms": 110_000});
    channel(&node, "large", fields, json!({"outgoing": "large"})).await;
    node.settled().await;
    let post = async |body: Vec<u8>| {
        let request = node.http().post(format!("{}/large/x", node.channels)).body(body);
        let answer = request.timeout(Duration::from_secs(120)).send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    // Once, so that what is needed for any request is there.
    assert_eq!(post(vec![b'x'; 100_000]).await["length"], 100_000);
    let before = node.most_memory(&["arldb", "arsrv"]);
    assert_eq!(post(vec![b'x'; LENGTH]).await["length"], LENGTH);
    let answer = get(&node, &format!("/large/large/{LENGTH}")).await;
    assert_eq!(answer.content_length(), Some(u64::try_from(LENGTH).unwrap()));
    let mut body = answer.bytes_stream();
    let mut length = 0;
    while let Some(piece) = body.next().await {
        length += piece.unwrap().len();
    }
    assert_eq!(length, LENGTH);
    let more = node.most_memory(&["arldb", "arsrv"]).saturating_sub(before);
    artest::say(&format!("100 MB there and back: {more} KiB more in balancer and core"));
    assert!(more < 30_000, "{more} KiB");
    // Above what the channel takes.
    let request = node.http().post(format!("{}/on/x", node.channels)).body(vec![b'x'; 70_000_000]);
    let (status, sentence) = text(request.send().await.unwrap()).await;
    assert_eq!(status, 413, "{sentence}");
    // And above what the connection takes back.
    let (status, sentence) = text(get(&node, "/on/large/70000000").await).await;
    assert_eq!(status, 502);
    assert_eq!(sentence, "the answer of the system behind this channel is too large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_safe_is_sent_again() {
    let peer = Passing::start();
    let node = node(&peer).await;
    let broke_off =
        "the system behind this channel ended the connection before its answer was complete";
    let send = async |method: Method, path: &str, body: Vec<u8>| {
        let url = format!("{}/on/{path}", node.channels);
        text(node.http().request(method, url).body(body).send().await.unwrap()).await
    };
    // Idempotent: the third attempt is answered.
    let (status, body) = send(Method::GET, "gone/a?times=2", Vec::new()).await;
    assert_eq!((status, body.as_str()), (200, "there again"));
    let (status, _) = send(Method::PUT, "gone/b?times=2", b"short".to_vec()).await;
    assert_eq!(status, 200);
    // It may have been carried out.
    let (status, body) = send(Method::POST, "gone/c?times=2", b"short".to_vec()).await;
    assert_eq!((status, body.as_str()), (502, broke_off));
    assert_eq!(send(Method::GET, "seen/gone/c", Vec::new()).await.1, "1");
    // It went out piece by piece and is not here any more.
    let (status, body) = send(Method::PUT, "gone/d?times=2", vec![b'x'; 500_000]).await;
    assert_eq!((status, body.as_str()), (502, broke_off));
    assert_eq!(send(Method::GET, "seen/gone/d", Vec::new()).await.1, "1");
    // A status of the list; what the other side said comes back in the end.
    let (status, body) = send(Method::GET, "status/503", Vec::new()).await;
    assert_eq!((status, body.as_str()), (503, "as you wished"));
    assert_eq!(send(Method::GET, "seen/status/503", Vec::new()).await.1, "3");
    assert_eq!(send(Method::POST, "status/502", Vec::new()).await.0, 502);
    assert_eq!(send(Method::GET, "seen/status/502", Vec::new()).await.1, "1");
    // The figures know of all that.
    let status = node.api(Method::GET, "/v1/status", None).await;
    let text = status.to_string();
    assert!(text.contains("\"outgoing\":\"behind\""), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_killed_ends_what_it_began_and_nothing_else() {
    let mut peer = Passing::start();
    let node = node(&peer).await;
    let answer = get(&node, "/on/half").await;
    assert_eq!(answer.status().as_u16(), 200);
    let mut body = answer.bytes_stream();
    let mut length = body.next().await.unwrap().unwrap().len();
    let waiting = {
        let (http, url) = (node.http().clone(), format!("{}/on/silent", node.channels));
        tokio::spawn(async move { text(http.post(url).body("x").send().await.unwrap()).await })
    };
    artest::wait_for("the second request to arrive", Duration::from_secs(30), async || match text(
        get(&node, "/on/seen/silent").await,
    )
    .await
    .1
    {
        count if count == "1" => Ok(()),
        count => Err(count),
    })
    .await;
    peer.kill();
    // The client sees that the answer is not complete.
    let broken = loop {
        match body.next().await {
            Some(Ok(more)) => length += more.len(),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken && length < 1_000_000, "{length}");
    let (status, sentence) = waiting.await.unwrap();
    assert_eq!(status, 502);
    assert!(
        sentence.ends_with("ended the connection before its answer was complete"),
        "{sentence}"
    );
    // Nobody is there now.
    let (status, sentence) = text(get(&node, "/on/x").await).await;
    assert_eq!(status, 502);
    assert_eq!(sentence, "the system behind this channel cannot be reached");
    let log = node.log();
    assert!(log.contains("the answer of a request that was passed on broke off"), "{log}");
    // Another one, and it goes on.
    let next = Passing::start();
    outgoing(&node, "behind", json!({"host": next.url, "url_path": "/{rest}"})).await;
    node.settled().await;
    assert_eq!(get(&node, "/on/x").await.status().as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_in_time_is_not_waited_for() {
    let peer = Passing::start();
    let node = node(&peer).await;
    let fields = json!({"host": peer.url, "url_path": "/{rest}", "timeout_ms": 300,
        "retry": {"attempts": 1}, "circuit_breaker": {"failures": 3, "open_ms": 600_000}});
    outgoing(&node, "short", fields).await;
    channel(&node, "short", json!({"url_path": "/short/{rest}"}), json!({"outgoing": "short"}))
        .await;
    node.settled().await;
    let sentence = "the system behind this channel did not answer in time";
    assert_eq!(text(get(&node, "/short/silent").await).await, (504, sentence.to_owned()));
    // A body that the other side does not take.
    let large = node.http().post(format!("{}/short/takes-nothing", node.channels));
    let (status, told) = text(large.body(vec![b'x'; 30_000_000]).send().await.unwrap()).await;
    assert_eq!((status, told.as_str()), (504, sentence));
    // An answer that stops breaks off.
    let answer = get(&node, "/short/half").await;
    assert!(answer.bytes().await.is_err());
    // Three in a row, and the circuit is open.
    for _ in 0..3 {
        get(&node, "/short/silent").await;
    }
    let answer = get(&node, "/short/x").await;
    assert!(answer.headers().contains_key("retry-after"), "{:?}", answer.headers());
    let sentence = "the system behind this channel fails; try again later";
    assert_eq!(text(answer).await, (503, sentence.to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_channels_do_is_done_here_too() {
    let peer = Passing::start();
    let node = node(&peer).await;
    let to = || json!({"outgoing": "behind"});
    let cached = json!({"url_path": "/cached/{rest}", "response_cache": {"ttl": 60}});
    channel(&node, "cached", cached, to()).await;
    let checked = json!({"url_path": "/checked/{rest}", "data_format": "json",
        "request_schema": {"type": "object"}, "response_schema": {"required": ["n"]}});
    channel(&node, "checked", checked, to()).await;
    let kept = json!({"url_path": "/kept/{rest}", "audit": {"is_received_active": true,
        "is_sent_active": true}, "content_encoding": "gzip", "cors": {"origins": ["https://a.example"]},
        "rate_limit": {"definition": "*=3/h"}});
    channel(&node, "kept", kept, to()).await;
    node.settled().await;

    let first = get(&node, "/cached/json/a").await;
    assert!(first.headers().contains_key("etag"));
    assert_eq!(text(first).await.1, "{\"n\": 1}");
    assert_eq!(text(get(&node, "/cached/json/a").await).await.1, "{\"n\": 1}");

    let post = async |path: &str, body: &'static str| {
        let url = format!("{}{path}", node.channels);
        text(node.http().post(url).body(body).send().await.unwrap()).await
    };
    assert_eq!(post("/checked/json/b", "{}").await, (200, "{\"n\": 1}".to_owned()));
    let (status, told) = post("/checked/json/b", "[]").await;
    assert!(status == 400 && told.contains("the request breaks the channel's schema"), "{told}");
    let (status, told) = post("/checked/x", "{}").await;
    assert!(status == 500 && told.contains("breaks the channel's schema"), "{told}");

    let url = format!("{}/kept/headers", node.channels);
    let request = node.http().get(url).header("Origin", "https://a.example").body("asked");
    let answer = request.send().await.unwrap();
    // The channel says who may read it, not the other side.
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://a.example");
    assert_eq!(text(answer).await, (200, "text".to_owned()));
    let (_, plain) = text(get(&node, "/kept/packed").await).await;
    assert_eq!(plain, "text ".repeat(1000));
    assert_eq!(get(&node, "/kept/x").await.status().as_u16(), 200);
    assert_eq!(get(&node, "/kept/x").await.status().as_u16(), 429);
    artest::wait_for("the messages to be kept", Duration::from_secs(30), async || {
        let page = node.api(Method::GET, "/v1/channels/kept/messages", None).await.to_string();
        if page.contains("asked") && page.contains("\"text\"") { Ok(()) } else { Err(page) }
    })
    .await;
    // Each request is a trace with the call in it.
    let cid = get(&node, "/on/x").await.headers()["x-zato-cid"].to_str().unwrap().to_owned();
    let trace = node.api(Method::GET, &format!("/v1/traces/{cid}"), None).await.to_string();
    assert!(trace.contains("outgoing") && trace.contains("behind"), "{trace}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_without_a_way_says_so() {
    let peer = Passing::start();
    let node = node(&peer).await;
    let missing = node
        .try_api(
            Method::PUT,
            "/v1/objects/Channel/lost",
            Some(json!({"spec": {"url_path": "/lost", "pass_through": {"outgoing": "nothing"}}})),
        )
        .await;
    assert!(format!("{missing:?}").contains("nothing"), "{missing:?}");
    channel(&node, "narrow", json!({"url_path": "/narrow"}), json!({"outgoing": "behind"})).await;
    node.settled().await;
    assert_eq!(get(&node, "/narrow").await.status().as_u16(), 404);
    let status = node.api(Method::GET, "/v1/status", None).await.to_string();
    let sentence = "the path of outgoing connection `behind` needs `{rest}`, which the channel's path does not have";
    assert!(status.contains(sentence), "{status}");
    // Nor while the connection is switched off.
    let off = json!({"host": peer.url, "url_path": "/{rest}", "is_active": false});
    outgoing(&node, "behind", off).await;
    node.settled().await;
    assert_eq!(get(&node, "/on/x").await.status().as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_passed_to_over_tls() {
    let dir = artest::temp_dir();
    make_certificates(dir.path());
    std::fs::write(dir.path().join("page"), "from nginx ".repeat(20_000)).unwrap();
    let server = format!(
        "location /files/ {{ alias {}/; etag on; }} location /back {{ return 302 /files/page; }}",
        dir.path().display()
    );
    let nginx = Nginx::start(dir.path(), &server);
    let node = Node::builder().config("[arsrv]\nworkers = 1\n").start().await;
    let ca = std::fs::read_to_string(dir.path().join("ca.crt")).unwrap();
    let fields = json!({"host": nginx.url, "url_path": "/{rest}", "tls_ca_pem": ca});
    outgoing(&node, "nginx", fields).await;
    channel(&node, "nginx", json!({"url_path": "/n/{rest}"}), json!({"outgoing": "nginx"})).await;
    outgoing(&node, "stranger", json!({"host": nginx.url, "url_path": "/{rest}"})).await;
    channel(&node, "stranger", json!({"url_path": "/s/{rest}"}), json!({"outgoing": "stranger"}))
        .await;
    node.settled().await;
    let answer = get(&node, "/n/files/page").await;
    let etag = answer.headers()["etag"].clone();
    assert_eq!(text(answer).await, (200, "from nginx ".repeat(20_000)));
    let ask = async |name: &str, value: &str| {
        let url = format!("{}/n/files/page", node.channels);
        node.http().get(url).header(name, value).send().await.unwrap()
    };
    assert_eq!(ask("If-None-Match", etag.to_str().unwrap()).await.status().as_u16(), 304);
    let part = ask("Range", "bytes=5-9").await;
    assert_eq!(part.headers()["content-range"], "bytes 5-9/220000");
    assert_eq!(text(part).await, (206, "nginx".to_owned()));
    // A redirect is the client's to follow.
    let client = reqwest::Client::builder().no_proxy();
    let client = client.redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = client.get(format!("{}/n/back", node.channels)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 302);
    assert!(answer.headers()["location"].to_str().unwrap().ends_with("/files/page"));
    // Without the authority there is no connection.
    let sentence = "the system behind this channel cannot be reached";
    assert_eq!(text(get(&node, "/s/files/page").await).await, (502, sentence.to_owned()));
}
