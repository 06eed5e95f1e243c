//! Any bytes at all: a parser answers or refuses, and never panics; what it accepts it can write again.

use arapi::names::{Cid, Kind, ObjectName};
use arapi::objects::Spec;
use bolero::check;

const LIMITS: arkvd::Limits =
    arkvd::Limits { args: 1 << 20, bulk: 1 << 20, total: 1 << 21, trusted: true };

#[test]
fn resp_requests() {
    check!().for_each(|bytes: &[u8]| {
        arkvd::parse_request(bytes, &LIMITS).ok();
    });
}

#[test]
fn resp_requests_survive_being_written() {
    check!().with_type::<Vec<Vec<u8>>>().for_each(|args| {
        if args.is_empty() {
            return;
        }
        let mut written = bytes::BytesMut::new();
        arkvd::encode_request(args, &mut written);
        let request = arkvd::parse_request(&written, &LIMITS).unwrap().unwrap();
        let arkvd::Request::Frame { args: found, used } = request else {
            panic!("no frame: {request:?}")
        };
        assert_eq!(used, written.len());
        assert!(found.into_iter().map(|place| &written[place]).eq(args.iter().map(Vec::as_slice)));
    });
}

#[test]
fn resp_replies() {
    check!().for_each(|bytes: &[u8]| {
        arkvd::decode_reply(bytes).ok();
    });
}

#[test]
fn journal_groups() {
    check!().for_each(|bytes: &[u8]| {
        arkvd::decode_groups(bytes).ok();
    });
}

#[test]
fn worker_frames() {
    check!().for_each(arsrv::worker::frame::fuzz);
}

#[test]
fn worker_texts_are_valid_json() {
    check!().with_type::<String>().for_each(|text| {
        let mut written = Vec::new();
        arsrv::worker::frame::put_json_string(&mut written, text);
        assert_eq!(&serde_json::from_slice::<String>(&written).unwrap(), text);
    });
}

#[test]
fn trace_headers() {
    check!().for_each(|bytes: &[u8]| {
        arproxy::trace::is_traceparent(bytes);
        arproxy::trace::is_cid(bytes);
    });
}

#[test]
fn names_and_ids() {
    check!().with_type::<String>().for_each(|text| {
        if let Ok(name) = ObjectName::parse(text) {
            assert_eq!(name.as_str(), text);
        }
        Cid::parse(text).ok();
        text.parse::<Kind>().ok();
    });
}

#[test]
fn specs_of_every_kind() {
    check!().for_each(|bytes: &[u8]| {
        let Ok(written) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
        for kind in Kind::ALL {
            if let Ok(spec) = Spec::parse(*kind, "x", written.clone()) {
                assert_eq!(Spec::parse(*kind, "x", spec.to_json()).unwrap(), spec);
            }
        }
    });
}

#[test]
fn ini_files() {
    check!().with_type::<String>().for_each(|text| {
        arapi::ini::parse(text.as_bytes()).ok();
    });
}

#[test]
fn yaml_documents() {
    check!().with_type::<String>().for_each(|text| {
        arctl::read_yaml("fuzz.yaml", text).ok();
    });
}

#[test]
fn rate_limits() {
    check!().with_type::<String>().for_each(|text| arapi::limits::fuzz(text));
}

#[test]
fn tokens() {
    check!().with_type::<String>().for_each(|text| arsrv::security::jwt::fuzz(text));
}

#[test]
fn key_sets() {
    check!().for_each(arsrv::security::issuer::fuzz);
}

#[test]
fn client_certificates() {
    check!().for_each(arsrv::security::certificate::fuzz);
}

#[test]
fn username_tokens() {
    check!().with_type::<String>().for_each(|text| arsrv::security::wss::fuzz(text));
}

#[test]
fn ntlm_challenges() {
    check!().for_each(arsrv::outgoing::ntlm::fuzz);
}

#[test]
fn exports_of_zato() {
    check!().for_each(|bytes: &[u8]| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            arctl::enmasse::fuzz(text);
        }
    });
}

#[test]
fn openapi_documents() {
    check!().for_each(|bytes: &[u8]| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            arctl::openapi::fuzz(text);
            // With what every document has in front, the rest is looked at.
            arctl::openapi::fuzz(&format!("openapi: 3.1.0\n{text}"));
        }
    });
}
