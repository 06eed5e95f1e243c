use super::*;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const LIMITS: Limits = Limits { args: 1000, bulk: 1 << 20, total: 1 << 21, trusted: true };

fn random_bytes(rng: &mut StdRng) -> Vec<u8> {
    let len = rng.random_range(0..40);
    (0..len).map(|_| rng.random()).collect()
}

fn arguments(buf: &[u8], request: Request) -> (Vec<Vec<u8>>, usize) {
    match request {
        Request::Frame { args, used } => {
            (args.into_iter().map(|range| buf[range].to_vec()).collect(), used)
        }
        Request::Inline { args, used } => (args.iter().map(|arg| arg.to_vec()).collect(), used),
    }
}

#[test]
fn requests_are_read_as_they_were_written_however_they_arrive() {
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..300 {
        let sent: Vec<Vec<Vec<u8>>> = (0..rng.random_range(1..5))
            .map(|_| (0..rng.random_range(1..6)).map(|_| random_bytes(&mut rng)).collect())
            .collect();
        let mut wire = BytesMut::new();
        for args in &sent {
            encode_request(args, &mut wire);
        }
        let (mut parser, mut buf, mut got) = (RequestParser::default(), Vec::new(), Vec::new());
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let part = rng.random_range(1..=rest.len().min(9));
            let (now, later) = rest.split_at(part);
            buf.extend_from_slice(now);
            rest = later;
            while let Some(request) = parser.next(&buf, &LIMITS).unwrap() {
                let (args, used) = arguments(&buf, request);
                buf.drain(..used);
                got.push(args);
            }
        }
        assert_eq!(got, sent);
    }
}

#[test]
fn random_bytes_are_refused_or_read_but_never_break_the_parser() {
    let mut rng = StdRng::seed_from_u64(12);
    let pieces: &[&[u8]] = &[
        b"*",
        b"$",
        b"\r\n",
        b"1",
        b"3",
        b"-1",
        b"99999999999999999999",
        b"GET",
        b"\"",
        b"'",
        b"\\x4",
        b"\n",
        b" ",
        b"\0",
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        b":",
        b"%",
        b"~",
        b">",
        b"_",
        b",",
    ];
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..rng.random_range(0..12) {
            bytes.extend_from_slice(pieces[rng.random_range(0..pieces.len())]);
        }
        if let Ok(Some(request)) = parse_request(&bytes, &LIMITS) {
            let (_, used) = arguments(&bytes, request);
            assert!(used <= bytes.len() && used > 0);
        }
        drop(decode_reply(&bytes));
    }
}

fn random_reply(rng: &mut StdRng, depth: usize) -> Reply {
    let items = |rng: &mut StdRng| -> Vec<Reply> {
        (0..rng.random_range(0..4)).map(|_| random_reply(rng, depth - 1)).collect()
    };
    match rng.random_range(0..if depth == 0 { 8 } else { 12 }) {
        0 => Reply::Status("FINE".into()),
        1 => Reply::Error("ERR no".into()),
        2 => Reply::Int(rng.random()),
        3 => Reply::Bulk(Bytes::from(random_bytes(rng))),
        4 => Reply::Null,
        5 => Reply::Double(f64::from(rng.random_range(-1000..1000)) / 8.0),
        6 => Reply::Bool(rng.random()),
        7 => Reply::Verbatim("some words".to_owned()),
        8 => Reply::Array(items(rng)),
        9 => Reply::Set(items(rng)),
        10 => Reply::Push(items(rng)),
        _ => {
            let (names, values) = (items(rng), items(rng));
            Reply::Map(names.into_iter().zip(values).collect())
        }
    }
}

#[test]
fn a_zero_byte_ends_a_line() {
    let (args, used) = arguments(b"", parse_request(b"GET \0 a\r\n", &LIMITS).unwrap().unwrap());
    assert_eq!((args, used), (vec![b"GET".to_vec()], 9));
}

#[test]
fn replies_are_read_as_they_were_written() {
    let mut rng = StdRng::seed_from_u64(13);
    for _ in 0..3000 {
        let reply = random_reply(&mut rng, 4);
        let mut wire = BytesMut::new();
        reply.encode(Version::Resp3, &mut wire);
        assert_eq!(decode_reply(&wire).unwrap(), Some((reply, wire.len())));
        for end in [wire.len() / 3, wire.len() / 2, wire.len() - 1] {
            assert_eq!(decode_reply(&wire[..end]).unwrap(), None);
        }
    }
}

#[test]
fn the_older_protocol_knows_only_flat_forms() {
    let encoded = |reply: Reply| {
        let mut wire = BytesMut::new();
        reply.encode(Version::Resp2, &mut wire);
        String::from_utf8(wire.to_vec()).unwrap()
    };
    let pair = (Reply::fixed("a"), Reply::Double(1.5));
    assert_eq!(encoded(Reply::Map(vec![pair.clone()])), "*2\r\n$1\r\na\r\n$3\r\n1.5\r\n");
    assert_eq!(encoded(Reply::Pairs(vec![pair])), "*2\r\n$1\r\na\r\n$3\r\n1.5\r\n");
    assert_eq!(encoded(Reply::Null), "$-1\r\n");
    assert_eq!(encoded(Reply::NullArray), "*-1\r\n");
    assert_eq!(encoded(Reply::Bool(true)), ":1\r\n");
    assert_eq!(encoded(Reply::Int(i64::MIN)), ":-9223372036854775808\r\n");
    assert_eq!(encoded(Reply::Error("ERR two\r\nlines".into())), "-ERR two  lines\r\n");
}

#[test]
fn a_reply_nested_too_deep_is_refused() {
    let bytes = b"*1\r\n".repeat(100_000);
    assert_eq!(decode_reply(&bytes), Err(ProtocolError::Total));
}

#[test]
fn an_announced_length_sets_no_memory_aside() {
    let limits = Limits { bulk: 512 << 20, total: 1 << 30, ..LIMITS };
    let mut parser = RequestParser::default();
    let buf = b"*1000\r\n$536870912\r\nabc";
    assert_eq!(parser.next(buf, &limits), Ok(None));
    assert!(parser.args.capacity() <= TRUSTED_ARGS);
    assert!(parser.wanted() > 536_870_912);
}
