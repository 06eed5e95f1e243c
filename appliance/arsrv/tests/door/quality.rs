//! What channels do beside invoking their service: packing, keeping, checking.

use std::io::{Read as _, Write as _};

use arsrv::call::{Call, Outcome, Reply};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::Request;
use serde_json::{Value, json};

use super::{Got, Setting, Stage, done};

fn packed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    GzDecoder::new(body).read_to_end(&mut whole).unwrap();
    whole
}

#[track_caller]
fn check_error(got: &Got, status: u16, details: &str) {
    let expected = json!({"result": "Error", "cid": got.cid(), "details": details});
    assert_eq!((got.status.as_u16(), got.json()), (status, expected));
}

async fn echo(call: Call) -> Outcome {
    done(200, call.body)
}

/// Answers with the headers that services see, and the length of the body.
async fn seen(call: Call) -> Outcome {
    let http: Value = serde_json::from_slice(&call.http).unwrap();
    done(200, json!({"headers": http["headers"], "length": call.body.len()}).to_string())
}

async fn post_packed(stage: &Stage, path: &str, body: impl Into<Bytes>) -> Got {
    stage.send_body(Request::post(path).header("content-encoding", "gzip"), body).await
}

// gzip.

#[tokio::test]
async fn a_packed_request_reaches_its_service_unpacked() {
    let stage = Setting::new()
        .service("seen", seen)
        .service("echo", echo)
        .channel("seen", "/seen", "seen", json!({"data_format": "json"}))
        .channel("echo", "/echo", "echo", json!({"data_format": "json"}))
        .start()
        .await;
    let text = json!({"photos": "x".repeat(500)}).to_string();
    let got = post_packed(&stage, "/seen", packed(text.as_bytes())).await;
    assert_eq!(got.json()["length"], text.len());
    let headers = got.json()["headers"].to_string();
    assert!(
        !headers.contains("content-encoding") && !headers.contains("content-length"),
        "{headers}"
    );
    assert_eq!(post_packed(&stage, "/echo", packed(text.as_bytes())).await.text(), text);
    // What is inside is checked like any other body.
    let got = post_packed(&stage, "/echo", packed(b"{1}")).await;
    check_error(&got, 400, "the request body is not JSON: key must be a string at line 1 column 2");
}

#[tokio::test]
async fn packed_requests_that_are_broken_too_large_or_bombs_are_refused() {
    let stage = Setting::new()
        .service("seen", seen)
        .channel("seen", "/seen", "seen", json!({"data_format": "json"}))
        .channel(
            "large",
            "/large",
            "seen",
            json!({"max_body_bytes": 100_000_000_u64, "data_format": "json"}),
        )
        .start()
        .await;
    let not_gzip =
        "the request body is not gzip, though its Content-Encoding says so, or it is not complete";
    check_error(&post_packed(&stage, "/seen", "plain").await, 400, not_gzip);
    let whole = packed(b"{}");
    check_error(
        &post_packed(&stage, "/seen", whole[..whole.len() - 1].to_vec()).await,
        400,
        not_gzip,
    );
    let got = post_packed(&stage, "/seen", packed(&[b' '; 100_001])).await;
    check_error(
        &got,
        413,
        "the request body is larger than the 100000 bytes this channel takes once it is unpacked",
    );
    let bomb = packed(&vec![b' '; 50_000_000]);
    assert!(bomb.len() < 100_000);
    let swells =
        "the request body swells too much by being unpacked; send it without Content-Encoding";
    check_error(&post_packed(&stage, "/large", bomb).await, 413, swells);
    let got = stage.send_body(Request::post("/seen").header("content-encoding", "br"), "x").await;
    check_error(
        &got,
        415,
        "the request body is encoded as `br`; send it with gzip or without Content-Encoding",
    );
}

#[tokio::test]
async fn answers_are_packed_where_channel_and_client_say_so() {
    let stage = Setting::new()
        .service("echo", echo)
        .service("own", async |_| {
            let headers = vec![
                ("ETag".to_owned(), "\"1\"".to_owned()),
                ("Content-Encoding".to_owned(), "br".to_owned()),
            ];
            Outcome::Done(Reply {
                status: 200,
                content_type: None,
                headers,
                body: vec![7; 1000].into(),
            })
        })
        .channel("packs", "/packs", "echo", json!({"content_encoding": "gzip"}))
        .channel("own", "/own", "own", json!({"content_encoding": "gzip"}))
        .channel("plain", "/plain", "echo", json!({}))
        .start()
        .await;
    for size in [1000, 100_000] {
        let text = "abcdefghij".repeat(size / 10);
        let ask = |path: &str| Request::post(path).header("accept-encoding", "br, gzip");
        let got = stage.send_body(ask("/packs"), text.clone()).await;
        assert_eq!(got.header("content-encoding"), Some("gzip"));
        assert_eq!(got.header("vary"), Some("Accept-Encoding"));
        assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()));
        assert!(got.body.len() < size / 4);
        assert_eq!(unpacked(&got.body), text.as_bytes());
        let got = stage.post("/packs", text.clone()).await;
        assert_eq!((got.header("content-encoding"), got.text()), (None, text.as_str()));
        assert_eq!(got.header("vary"), Some("Accept-Encoding"));
        let got = stage.send_body(ask("/plain"), text.clone()).await;
        assert_eq!((got.header("content-encoding"), got.header("vary")), (None, None));
    }
    let ask = |path: &str| Request::post(path).header("accept-encoding", "gzip");
    // Small, or already packed by the service.
    assert_eq!(stage.send_body(ask("/packs"), "small").await.header("content-encoding"), None);
    let got = stage.send(ask("/own")).await;
    assert_eq!((got.header("content-encoding"), got.header("etag")), (Some("br"), Some("\"1\"")));
}
