use std::net::SocketAddr;

use http::Request;

use super::*;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A request's head and what became of it.
struct Passed(Parts);

impl Passed {
    #[track_caller]
    fn has(&self, name: &str, value: &str) {
        let found: Vec<_> = self.0.headers.get_all(name).iter().collect();
        assert_eq!(found, [value], "{name} of {:?}", self.0.headers);
    }

    #[track_caller]
    fn lacks(&self, name: &str) {
        assert_eq!(self.0.headers.get(name), None, "{name} of {:?}", self.0.headers);
    }
}

fn admitted(head: Request<()>, trusted: &str) -> Result<Passed, Refusal> {
    let trusted: Vec<_> = trusted.parse().into_iter().collect();
    let addr: SocketAddr = "[::ffff:192.0.2.7]:4000".parse().unwrap();
    let peer = Peer::new(addr, "http", &trusted);
    let (mut parts, ()) = head.into_parts();
    admit(&mut parts, &peer, &Ids::random()).map(|()| Passed(parts))
}

fn get(headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::get("/orders?id=1").header("host", "shop.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[track_caller]
fn refused(request: Request<()>, status: u16, sentence: &str) {
    let refusal = admitted(request, "").err().unwrap();
    assert_eq!((refusal.status.as_u16(), &*refusal.details), (status, sentence));
    assert!(refusal.close, "what follows on the connection is not trusted");
}

#[test]
fn what_is_about_the_connection_only_is_not_passed_on() {
    let passed = admitted(
        get(&[
            ("connection", "keep-alive, X-Secret-Hop , close"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "Chunked"),
            ("expect", "100-Continue"),
            ("accept", "*/*"),
        ]),
        "",
    )
    .unwrap();
    for name in [
        "connection",
        "x-secret-hop",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "transfer-encoding",
        "expect",
    ] {
        passed.lacks(name);
    }
    passed.has("accept", "*/*");
    passed.has("host", "shop.test");
}

#[test]
fn a_client_cannot_have_the_proxys_own_headers_taken_away() {
    let names = "host, content-length, x-zato-cid, x-forwarded-for, traceparent";
    let passed = admitted(get(&[("connection", names), ("content-length", "5")]), "").unwrap();
    passed.has("host", "shop.test");
    passed.has("content-length", "5");
    passed.has("x-forwarded-for", "192.0.2.7");
    assert!(passed.0.headers.contains_key("x-zato-cid"));
    assert!(passed.0.headers.contains_key("traceparent"));
}

#[test]
fn a_client_is_not_believed_about_itself() {
    let passed = admitted(
        get(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.test"),
            ("x-forwarded-prefix", "/x"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x_zato-cid", "fake"),
            ("transfer_encoding", "chunked"),
            ("my_own", "kept"),
        ]),
        "",
    )
    .unwrap();
    passed.has("x-forwarded-for", "192.0.2.7");
    passed.has("x-forwarded-proto", "http");
    passed.has("x-forwarded-host", "shop.test");
    for name in [
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "x_forwarded_for",
        "x_zato-cid",
        "transfer_encoding",
    ] {
        passed.lacks(name);
    }
    passed.has("my_own", "kept");
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to_the_chain() {
    let passed = admitted(
        get(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.test"),
        ]),
        "192.0.2.0/24",
    )
    .unwrap();
    passed.has("x-forwarded-for", "10.0.0.1, 10.0.0.2, 192.0.2.7");
    passed.has("x-forwarded-proto", "https");
    passed.has("x-forwarded-host", "bank.test");
}

#[test]
fn the_correlation_id_is_always_new_and_the_clients_is_kept_beside_it() {
    let passed =
        admitted(get(&[("x-zato-cid", "client-1234"), ("x-client-cid", "other-1234")]), "")
            .unwrap();
    passed.has("x-client-cid", "client-1234");
    let cid = passed.0.headers.get("x-zato-cid").unwrap();
    assert!(is_cid(cid.as_bytes()) && cid.len() == 24);

    let passed = admitted(get(&[("x-zato-cid", "a b"), ("x-client-cid", "other-1234")]), "");
    passed.unwrap().lacks("x-client-cid");
}

#[test]
fn a_traceparent_is_kept_if_it_is_one_and_made_otherwise() {
    admitted(get(&[("traceparent", TRACEPARENT)]), "").unwrap().has("traceparent", TRACEPARENT);
    let made = admitted(get(&[("traceparent", "00-junk")]), "").unwrap();
    assert!(is_traceparent(made.0.headers.get("traceparent").unwrap().as_bytes()));
}

#[test]
fn the_authority_of_an_absolute_target_is_the_host() {
    let mut request = get(&[]);
    *request.uri_mut() = "http://other.test:81/a?b=c".parse().unwrap();
    let passed = admitted(request, "").unwrap();
    passed.has("host", "other.test:81");
    assert_eq!(passed.0.uri, "/a?b=c");
    let mut request = get(&[]);
    *request.uri_mut() = "http://user:pw@other.test/".parse().unwrap();
    refused(request, 400, "the request target names a user, which is not allowed");
}

#[test]
fn what_has_two_meanings_is_refused() {
    refused(get(&[("host", "other.test")]), 400, "the request has more than one Host header");
    let mut without = get(&[]);
    without.headers_mut().clear();
    refused(without, 400, "the request has no Host header");
    let coding = "the only transfer coding taken here is `chunked`, once";
    refused(get(&[("transfer-encoding", "gzip, chunked")]), 501, coding);
    let twice = get(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]);
    refused(twice, 501, coding);
    let expectation = "the only expectation taken here is `100-continue`";
    refused(get(&[("expect", "magic")]), 417, expectation);
    let socket = "a WebSocket is asked for by GET with `Connection: Upgrade`, in HTTP/1.1";
    refused(get(&[("upgrade", "WebSocket")]), 400, socket);
    let mut connect = get(&[]);
    *connect.method_mut() = Method::CONNECT;
    refused(connect, 405, "the method CONNECT is not taken here");
    let mut star = get(&[]);
    *star.uri_mut() = "*".parse().unwrap();
    refused(star, 400, "the request target does not begin with `/`");
}

#[test]
fn a_request_for_a_web_socket_is_passed_on_as_one() {
    let asked = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
    ];
    let passed = admitted(get(&asked), "").unwrap();
    passed.has("connection", "upgrade");
    passed.has("upgrade", "websocket");
    passed.has("sec-websocket-version", "13");
    assert!(passed.0.extensions.get::<WantsWebSocket>().is_some());
    let with_body = [("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "1")];
    refused(get(&with_body), 400, "a request for a WebSocket has no body");
}

#[test]
fn http_1_0_needs_no_host() {
    let mut old = get(&[]);
    old.headers_mut().clear();
    *old.version_mut() = Version::HTTP_10;
    let passed = admitted(old, "").unwrap();
    passed.has("host", "");
    assert_eq!(passed.0.version, Version::HTTP_11);
}

#[test]
fn an_answer_loses_what_was_about_the_backends_connection_only() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "timeout=5"),
        ("content-length", "3"),
        ("x-zato-cid", "the core's"),
        ("server", "arsrv"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer(&mut headers, &HeaderValue::from_static("ours"));
    let mut left: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    left.sort_by_key(|(name, _)| *name);
    assert_eq!(left, [("content-length", "3"), ("server", "arsrv"), ("x-zato-cid", "ours")]);
}
