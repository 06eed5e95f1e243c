//! Any bytes at all at the doors of the core: paths, patterns, `Accept`, credentials, JSON bodies.

use bolero::check;

#[test]
fn paths_against_patterns() {
    check!().for_each(arsrv::channel::fuzz);
}

#[test]
fn basic_credentials() {
    check!().for_each(|bytes: &[u8]| {
        if let Some(basic) = arsrv::security::credentials::Basic::parse(bytes) {
            assert!(!basic.username.contains(':'));
        }
    });
}

#[test]
fn json_bodies() {
    check!().for_each(|bytes: &[u8]| {
        let is_json = serde_json::from_slice::<Box<serde_json::value::RawValue>>(bytes).is_ok();
        if arsrv::http::door::check_json(bytes).is_ok() {
            assert!(is_json);
        }
    });
}

#[test]
fn json_rpc_requests() {
    check!().for_each(arsrv::http::jsonrpc::fuzz);
}

#[test]
fn soap_messages() {
    check!().for_each(arsrv::http::soap::envelope::fuzz);
}

#[test]
fn web_socket_messages() {
    check!().with_type::<String>().for_each(|text| arsrv::http::websocket::message::fuzz(text));
}
