use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use super::*;

fn random_text(random: &mut StdRng) -> String {
    let alphabet = ['a', 'Z', '"', '\\', '\n', '\t', '\0', '\u{1f}', 'π', '🦀', '/', '{', '\u{7f}'];
    (0..random.random_range(0..30))
        .map(|_| alphabet[random.random_range(0..alphabet.len())])
        .collect()
}

fn random_bytes(random: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..=most)];
    random.fill_bytes(&mut bytes);
    bytes
}

/// Feeds a stream in pieces of random size.
fn frames_of(stream: &[u8], random: &mut StdRng) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(random.random_range(1..=rest.len()));
        rest = behind;
        decoder.room().extend_from_slice(piece);
        while let Some(frame) = decoder.take().unwrap() {
            frames.push(frame);
        }
    }
    frames
}

fn whole(frame: &Frame) -> Bytes {
    match &frame.payload {
        Payload::Whole(payload) => payload.clone(),
        Payload::TooLong(length) => panic!("too long: {length}"),
    }
}

#[test]
fn whatever_is_called_is_read_again_as_it_was() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..500 {
        let mut stream = Vec::new();
        let mut sent = Vec::new();
        for _ in 0..random.random_range(1..5) {
            let service = random_text(&mut random);
            let cid = random_text(&mut random);
            let method = random.random_bool(0.5).then_some("POST");
            let http = random_bytes(&mut random, 100);
            let body = random_bytes(&mut random, 3000);
            let (id, timeout_ms) =
                (random.next_u64(), random.next_u64() >> random.random_range(0..64));
            let service_json = serde_json::to_string(&service).unwrap();
            let meta = CallMeta {
                service_json: &service_json,
                cid: &cid,
                channel: "http-soap",
                data_format: "json",
                method,
                timeout_ms,
                environ: b"",
            };
            put_call(&mut stream, id, meta, &http, body.len()).unwrap();
            stream.extend_from_slice(&body);
            let meta = json!({
                "service": service, "cid": cid, "channel": "http-soap", "data_format": "json",
                "method": method, "timeout_ms": timeout_ms, "environ": null,
            });
            sent.push((id, meta, http, body));
        }
        let frames = frames_of(&stream, &mut random);
        assert_eq!(frames.len(), sent.len());
        for (frame, (id, meta, http, body)) in frames.iter().zip(sent) {
            assert_eq!((frame.kind, frame.id), (Kind::Call, id));
            let parts = CallParts::split(whole(frame)).unwrap();
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&parts.meta).unwrap(), meta);
            assert_eq!(parts.http, http);
            assert_eq!(parts.body, body);
        }
    }
}

#[test]
fn frames_with_meta_and_body_and_empty_ones_are_read_again_as_they_were() {
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..500 {
        let mut stream = Vec::new();
        let meta = random_bytes(&mut random, 200);
        let body = random_bytes(&mut random, 200_000);
        put_plain(&mut stream, Kind::Ping, 7, b"").unwrap();
        put_meta_body(&mut stream, Kind::Result, 8, &meta, body.len()).unwrap();
        stream.extend_from_slice(&body);
        put_plain(&mut stream, Kind::Hello, 0, &meta).unwrap();
        let frames = frames_of(&stream, &mut random);
        assert_eq!(frames.len(), 3);
        assert_eq!((frames[0].kind, frames[0].id, whole(&frames[0]).len()), (Kind::Ping, 7, 0));
        let parts = MetaBody::split(Kind::Result, whole(&frames[1])).unwrap();
        assert_eq!(
            (frames[1].id, parts.meta.as_ref(), parts.body.as_ref()),
            (8, &meta[..], &body[..])
        );
        assert_eq!(whole(&frames[2]), meta);
    }
}

#[test]
fn any_text_becomes_a_json_string() {
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..2000 {
        let text = random_text(&mut random);
        let mut out = Vec::new();
        put_json_string(&mut out, &text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}

#[test]
fn every_number_has_its_kind() {
    for number in 0..=255 {
        if let Some(kind) = Kind::of(number) {
            assert_eq!(kind.number(), number);
        }
    }
    assert!(Kind::ALL.iter().all(|kind| Kind::of(kind.number()) == Some(*kind)));
}

#[test]
fn a_frame_that_is_too_long_is_announced_and_what_follows_is_still_read() {
    let mut decoder = Decoder::default();
    let length = u32::try_from(MAX_LENGTH + 1).unwrap();
    decoder.room().extend_from_slice(&head_of(length, Kind::Result, 9));
    let announced = decoder.take().unwrap().unwrap();
    let payload = MAX_LENGTH + 1 - BEHIND_LENGTH;
    assert_eq!((announced.id, announced.payload), (9, Payload::TooLong(payload)));
    let piece = vec![1; 1024 * 1024];
    let mut left = payload;
    while left > 0 {
        let now = left.min(piece.len());
        decoder.room().extend_from_slice(&piece[..now]);
        assert_eq!(decoder.take().unwrap(), None);
        left -= now;
    }
    assert!(decoder.buffer.capacity() < 8 * 1024 * 1024, "it must not be kept");
    let mut next = Vec::new();
    put_plain(&mut next, Kind::Pong, 3, b"").unwrap();
    decoder.room().extend_from_slice(&next);
    assert_eq!(decoder.take().unwrap().unwrap().kind, Kind::Pong);
}

#[test]
fn bytes_that_are_no_frame_are_refused_with_the_number_found() {
    let refused = |bytes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.room().extend_from_slice(bytes);
        decoder.take().unwrap_err().to_string()
    };
    let mut short = head_of(8, Kind::Pong, 1);
    assert_eq!(refused(&short), "frame length 8 is below the 9 of a frame without payload");
    short[0] = 9;
    short[4] = 99;
    assert_eq!(refused(&short), "frame kind 99 is unknown");
    let truncated =
        MetaBody::split(Kind::Result, Bytes::from_static(&[5, 0, 0, 0, b'{'])).unwrap_err();
    assert_eq!(truncated.to_string(), "a Result frame is shorter than its lengths say");
    let meta = ResultMeta::parse(b"{}").unwrap_err().to_string();
    assert_eq!(
        meta,
        "the metadata of a Result frame cannot be read: missing field `status` at line 1 column 2"
    );
    let mut out = Vec::new();
    let long = put_meta_body(&mut out, Kind::Reply, 1, b"{}", MAX_LENGTH).unwrap_err().to_string();
    assert_eq!(long, "frame length 268435471 is above the 268435456 allowed");
    assert!(out.is_empty());
}

#[test]
fn a_results_metadata_is_read_with_repeated_headers_and_with_errors() {
    let meta = ResultMeta::parse(
        br#"{"status":201,"content_type":"a/b","headers":{"X-A":"1","Set-Cookie":["a=1","b=2"]}}"#,
    )
    .unwrap();
    assert_eq!(
        (meta.status, meta.content_type.as_deref(), meta.error.is_none()),
        (201, Some("a/b"), true)
    );
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        meta.headers.0,
        [pair("X-A", "1"), pair("Set-Cookie", "a=1"), pair("Set-Cookie", "b=2")]
    );
    let meta = ResultMeta::parse(
        br#"{"status":400,"headers":{},"error":{"details":["x"],"type":"BadRequest","message":"no"}}"#,
    )
    .unwrap();
    let error = meta.error.unwrap();
    assert_eq!(
        (error.details, error.kind.as_str(), error.message.as_str()),
        (json!(["x"]), "BadRequest", "no")
    );
}

#[test]
fn any_bytes_are_survived() {
    let mut random = StdRng::seed_from_u64(4);
    for round in 0..3000 {
        let mut bytes = random_bytes(&mut random, 400);
        if round % 2 == 0 && bytes.len() > HEAD {
            // A good head makes it further.
            let kind = Kind::ALL[random.random_range(0..Kind::ALL.len())];
            let length = u32::try_from(random.random_range(9..bytes.len())).unwrap();
            bytes[..HEAD].copy_from_slice(&head_of(length, kind, 1));
        }
        fuzz(&bytes);
    }
}
