//! What passes: every kind of request and answer that HTTP/1.1 knows and a channel has a use for.

use std::sync::atomic::Ordering::SeqCst;

use crate::fixture::Fixture;

#[tokio::test]
async fn a_request_reaches_the_core_with_its_ids_and_the_answer_comes_back() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let answer = client
        .ask(
            "POST /echo?a=b%20c HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\
             Connection: keep-alive, x-secret\r\nX-Secret: 1\r\nX-Zato-CID: my-own-cid\r\n\
             X-Forwarded-For: 10.9.8.7\r\nAccept: */*\r\n\r\nhello",
        )
        .await;
    assert_eq!(answer.status, 200);
    let cid = answer.header("x-zato-cid").unwrap().to_owned();
    let mut lines: Vec<_> = answer.text().lines().map(str::to_owned).collect();
    let traceparent = lines.iter().position(|line| line.starts_with("traceparent: ")).unwrap();
    assert!(lines.remove(traceparent).starts_with(&format!("traceparent: 00-{cid}")));
    let headers = 1..lines.len() - 2;
    lines[headers].sort();
    assert_eq!(
        lines,
        [
            "POST /echo?a=b%20c",
            "accept: */*",
            "content-length: 5",
            "host: shop.test",
            "x-client-cid: my-own-cid",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: shop.test",
            "x-forwarded-proto: http",
            &format!("x-zato-cid: {cid}"),
            "",
            "hello",
        ]
    );
    assert_eq!(answer.header("x-hop"), None, "{answer:?}");
    assert_eq!(answer.header("connection"), None, "{answer:?}");
    let next = client.get("/echo").await;
    assert_ne!(next.header("x-zato-cid"), Some(cid.as_str()));
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/x").await.text(), "ok");
        assert_eq!(client.post("/count", b"12345").await.text(), "5");
    }
    let mut other = fixture.client().await;
    assert_eq!(other.get("/x").await.text(), "ok");
    assert_eq!(backend.seen.connections.load(SeqCst), 1);
    let status = fixture.status().await;
    assert_eq!((status.connections, status.requests, status.refused), (2, 101, 0));
    assert_eq!((status.backends[0].requests, status.backends[0].failures), (101, 0));
    assert_eq!((status.backends[0].name.as_str(), status.backends[0].in_flight), ("local", 0));
    assert!(status.backends[0].rtt_ms.unwrap() > 0.0);
    assert_eq!(status.listen, fixture.addr.to_string());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let mut requests = String::new();
    for at in 0..40 {
        requests +=
            &format!("POST /echo?{at} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{at:02}");
    }
    client.send(requests).await;
    for at in 0..40 {
        let answer = client.answer().await;
        assert!(answer.text().starts_with(&format!("POST /echo?{at}\n")), "{answer:?}");
        assert!(answer.text().ends_with(&format!("\n\n{at:02}")), "{answer:?}");
    }
}

#[tokio::test]
async fn http_1_0_is_served_and_closed_unless_it_asks_otherwise() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let answer = client.ask("GET /chunks?3 HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.text(), "piece 0\npiece 1\npiece 2\n");

    let mut client = fixture.client().await;
    let keeping = "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(client.ask(keeping).await.text(), "ok");
    assert_eq!(client.ask(keeping).await.text(), "ok");
    assert_eq!(client.ask("GET /x HTTP/1.0\r\n\r\n").await.text(), "ok");
    client.closes().await;
}

#[tokio::test]
async fn the_answer_to_head_has_the_length_and_no_body() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    for size in ["10", "1000000"] {
        client.send(format!("HEAD /big?{size} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.try_answer(true).await.unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some(size)));
    }
    assert_eq!(client.get("/x").await.text(), "ok");
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_is_wanted() {
    let (fixture, _backend) = Fixture::with_core(|config| config.max_body_bytes = 1000).await;
    let mut client = fixture.client().await;
    let head = "POST /count HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
    client.send(format!("{head}Content-Length: 3\r\n\r\n")).await;
    assert_eq!(client.try_answer(false).await.unwrap().status, 100);
    assert_eq!(client.ask("abc").await.text(), "3");

    let answer = client.ask(format!("{head}Content-Length: 1001\r\n\r\n")).await;
    answer.is_error(413, "the request body is larger than 1000 bytes");
    client.closes().await;
}

#[tokio::test]
async fn large_and_chunked_bodies_flow_through_in_both_directions() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let body = vec![b'y'; 5_000_000];
    assert_eq!(client.post("/count", &body).await.text(), "5000000");
    assert_eq!(client.get("/big?5000000").await.body.len(), 5_000_000);
    for pieces in [1, 3, 3000] {
        let mut request =
            "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        for _ in 0..pieces {
            // hyper takes 16 KiB of chunk extensions in all.
            let note = if pieces < 100 { ";note=1" } else { "" };
            request += &format!("64{note}\r\n{}\r\n", "z".repeat(100));
        }
        request += "0\r\nX-Trailer: dropped\r\n\r\n";
        let answer = client.ask(request).await;
        assert_eq!(answer.text(), (pieces * 100).to_string());
        let answer = client.get(&format!("/chunks?{pieces}")).await;
        assert_eq!(answer.text().lines().count(), pieces);
    }
    assert_eq!(backend.seen.connections.load(SeqCst), 1, "the backend's connection is kept too");
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_the_body_reaches_the_client() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let head = "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n";
    client.send([head.as_bytes(), &[b'x'; 300_000]].concat()).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (401, "no"));
}

#[tokio::test]
async fn the_server_as_a_whole_is_asked_about_at_the_balancer() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let answer = client.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    assert!(backend.seen.requests.lock().unwrap().is_empty());
    let answer = client.ask("OPTIONS /echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.text().starts_with("OPTIONS /echo\n"));
    let answer = client.ask("GET http://b.test:80/echo?x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.text().starts_with("GET /echo?x\n"), "{answer:?}");
    assert!(answer.text().contains("\nhost: b.test:80\n"), "{answer:?}");
}

#[tokio::test]
async fn curl_and_python_are_served() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let file = fixture.dir.path().join("body");
    std::fs::write(&file, vec![b'q'; 3_000_000]).unwrap();
    let url = format!("http://{}", fixture.addr);
    let curl = |args: Vec<String>| async move {
        let output = tokio::process::Command::new("curl").arg("-sS").args(args).output().await;
        let output = output.expect("`curl` is missing: install the Debian package `curl`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // Larger than a megabyte: curl asks with `Expect: 100-continue`.
    let body = format!("@{}", file.display());
    let args = ["--data-binary", &body, &format!("{url}/count"), &format!("{url}/count")];
    assert_eq!(curl(args.map(str::to_owned).into()).await, "30000003000000");
    let args = [
        "-T",
        &file.display().to_string(),
        "-H",
        "Transfer-Encoding: chunked",
        &format!("{url}/count"),
    ];
    assert_eq!(curl(args.map(str::to_owned).into()).await, "3000000");
    // Offers an upgrade to HTTP/2, which may be left unanswered.
    let args = ["--http2", &format!("{url}/x")];
    assert_eq!(curl(args.map(str::to_owned).into()).await, "ok");

    let script = format!(
        "import http.client\nc = http.client.HTTPConnection('{}', timeout=10)\n\
         for _ in range(3):\n    c.request('PUT', '/count', body=iter([b'ab', b'cde']))\n    \
         print(c.getresponse().read().decode())\n",
        fixture.addr
    );
    let output = tokio::process::Command::new("python3").arg("-c").arg(script).output().await;
    let output = output.expect("`python3` is missing: install the Debian package `python3`");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5\n5\n5\n", "{output:?}");
}
