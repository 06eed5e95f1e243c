//! What is not HTTP, or has two meanings, is answered with one sentence and reaches no core.

use crate::client::Answer;
use crate::fixture::Fixture;

/// Sends the bytes and gives the answer, after which the connection must be closed.
async fn refused(fixture: &Fixture, bytes: &[u8]) -> Answer {
    let mut client = fixture.client().await;
    client.send(bytes).await;
    let answer = client.try_answer(false).await;
    let answer =
        answer.unwrap_or_else(|| panic!("no answer to {:?}", bytes.escape_ascii().to_string()));
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    client.closes().await;
    answer
}

#[tokio::test]
async fn what_is_not_http_is_answered_with_400_and_what_is_wrong() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let cases: [(&str, &str); 14] = [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{7c}\x03\x03\r\n\r\n", "invalid HTTP method parsed"),
        ("hello\r\n\r\n", "invalid HTTP method parsed"),
        ("GET /a b HTTP/1.1\r\n\r\n", "invalid HTTP version parsed"),
        ("GET / HTTP/3.0\r\n\r\n", "invalid HTTP version parsed"),
        ("GET / HTTP/1.1\r\nHost a\r\n\r\n", "invalid HTTP header parsed"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "invalid HTTP header parsed"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "invalid HTTP header parsed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "invalid HTTP header parsed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "invalid HTTP header parsed"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "invalid content-length parsed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "invalid content-length parsed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            "invalid content-length parsed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "invalid content-length parsed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "invalid transfer-encoding parsed",
        ),
    ];
    for (bytes, fault) in cases {
        let answer = refused(&fixture, bytes.as_bytes()).await;
        answer.is_error(400, &format!("the request is not well-formed HTTP/1.1: {fault}"));
    }
    let answer = refused(&fixture, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(backend.seen.requests.lock().unwrap().is_empty());
    let status = fixture.status().await;
    assert_eq!((status.refused, status.connections), (15, 0));
}

#[tokio::test]
async fn what_the_balancer_does_not_take_is_refused_with_its_status() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let cases = [
        ("GET /x HTTP/1.1\r\n\r\n", 400, "the request has no Host header"),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
            "the request has more than one Host header",
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            405,
            "the method CONNECT is not taken here",
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "the method TRACE is not taken here"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            400,
            "a WebSocket is asked for by GET with `Connection: Upgrade`, in HTTP/1.1",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            400,
            "a WebSocket is asked for by GET with `Connection: Upgrade`, in HTTP/1.1",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
            400,
            "a request for a WebSocket has no body",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "the only transfer coding taken here is `chunked`, once",
        ),
    ];
    for (bytes, status, sentence) in cases {
        let answer = refused(&fixture, bytes.as_bytes()).await;
        answer.is_error(status, sentence);
    }
    assert!(backend.seen.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_in_two_framings_cannot_smuggle_another() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    for framing in [
        "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let mut client = fixture.client().await;
        let answer = client
            .ask(format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\n{framing}\r\n0\r\n\r\n\
                 GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("content-length: 6"), "{answer:?}");
        client.closes().await;
    }
    assert_eq!(backend.seen.count("/echo"), 2);
    assert_eq!(backend.seen.count("/smuggled"), 0);
}

#[tokio::test]
async fn malformed_chunks_are_refused_and_reach_no_service() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let head = "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in ["xyz\r\n", "5\r\nabcdefgh\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let answer = refused(&fixture, format!("{head}{chunks}").as_bytes()).await;
        answer.is_error(400, "the request body broke off or is not well-formed");
    }
}

#[tokio::test]
async fn a_malformed_request_after_a_good_one_is_told_too() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "ok");
    let answer = client.answer().await;
    answer.is_error(400, "the request is not well-formed HTTP/1.1: invalid HTTP method parsed");
    client.closes().await;
}

/// Not a search for faults, which fuzzing is for, but a guard that junk never hangs or kills anything.
#[tokio::test]
async fn junk_is_answered_or_closed_and_the_balancer_goes_on() {
    let (fixture, _backend) = Fixture::with_core(|config| config.header_timeout_ms = 300).await;
    let good = b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc";
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    for _ in 0..300 {
        let mut bytes = good.to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        bytes.truncate(random(bytes.len()) + 1);
        let mut client = fixture.client().await;
        client.send(&bytes).await;
        // The client says that it is done, so that a body that is not complete has an end.
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        let mut all = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut all);
        tokio::time::timeout(std::time::Duration::from_secs(10), read).await.unwrap().ok();
    }
    assert_eq!(fixture.client().await.get("/x").await.text(), "ok");
    fixture.wait_until(|status| status.connections <= 1).await;
}
