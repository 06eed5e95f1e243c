//! Clients that break the rules, and those who must not feel it.

use std::time::{Duration, Instant};

use arkvd::Reply;

use crate::support::{Store, bulk, error, wait_for};

#[test]
fn nothing_is_answered_before_the_password() {
    let store = Store::start();
    let mut stranger = store.stranger();
    for line in ["GET a", "PING", "INFO", "NOSUCH", "EVAL return 0", "SUBSCRIBE a", "MULTI"] {
        assert_eq!(stranger.words(line), error("NOAUTH Authentication required."), "{line}");
    }
    let wrong = error("WRONGPASS invalid username-password pair or user is disabled.");
    assert_eq!(stranger.words("AUTH nonsense"), wrong);
    assert_eq!(stranger.words("AUTH default nonsense"), wrong);
    assert_eq!(stranger.call(&["AUTH", "someone", &store.password]), wrong);
    assert!(matches!(stranger.words("HELLO 3"), Reply::Error(text) if text.starts_with("NOAUTH")));
    let hello = stranger.call(&["HELLO", "3", "AUTH", "default", &store.password]);
    assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
    assert_eq!(stranger.words("GET a"), Reply::Null);
    assert_eq!(stranger.words("RESET"), Reply::Status("RESET".into()));
    assert_eq!(stranger.words("GET a"), error("NOAUTH Authentication required."));
}

#[test]
fn the_password_file_is_private_and_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let store = Store::start();
    let path = store.dir.path().join("arkvd.password");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(store.password.len(), 32);
    let password = store.password.clone();
    let store = store.restart_with(|_| {});
    assert_eq!(store.password, password);
}

#[test]
fn every_break_of_the_protocol_ends_with_its_sentence() {
    let store = Store::start();
    let huge_line = vec![b'x'; 70_000];
    for (bytes, wanted) in [
        (&b"*99999999999\r\n"[..], "ERR Protocol error: invalid multibulk length"),
        (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\nGET\r\n", "ERR Protocol error: expected '$', got 'G'"),
        (b"*1\r\n$-5\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$9999999999999999\r\n", "ERR Protocol error: invalid bulk length"),
        (b"GET \"open\r\n", "ERR Protocol error: unbalanced quotes in request"),
        (&huge_line, "ERR Protocol error: too big inline request"),
    ] {
        let mut client = store.client();
        client.send_raw(bytes);
        assert_eq!(client.receive().0, error(wanted));
        assert!(client.try_receive().is_none());
    }
    for (bytes, wanted) in [
        (&b"*11\r\n"[..], "ERR Protocol error: unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$20000\r\n", "ERR Protocol error: unauthenticated bulk length"),
    ] {
        let mut stranger = store.stranger();
        stranger.send_raw(bytes);
        assert_eq!(stranger.receive().0, error(wanted));
    }
}

#[test]
fn lines_typed_by_hand_are_understood() {
    let store = Store::start();
    let mut client = store.client();
    client.send_raw(b"\r\nSET \"a b\" 'it\\'s'\r\nGET \"\\x61 b\"\r\n");
    assert_eq!(client.receive().0, Reply::OK);
    assert_eq!(client.receive().0, bulk("it's"));
}

#[test]
fn half_frames_and_idle_strangers_hold_up_nobody() {
    let store = Store::start();
    let mut half: Vec<_> = (0..100)
        .map(|index| {
            let mut client = if index % 2 == 0 { store.client() } else { store.stranger() };
            client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100");
            client
        })
        .collect();
    let mut client = store.client();
    for _ in 0..100 {
        assert!(!client.words("INCR n").is_error());
    }
    // And a half frame becomes a whole one when the rest comes.
    half[0].send_raw(b"\r\n");
    half[0].send_raw(&[b'v'; 100]);
    half[0].send_raw(b"\r\n");
    assert_eq!(half[0].receive().0, Reply::OK);
    assert_eq!(client.words("STRLEN a"), Reply::Int(100));
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_done() {
    let store = Store::start();
    let mut client = store.client();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n" {
        client.send_raw(&[*byte]);
    }
    assert_eq!(client.receive().0, Reply::OK);
}

#[test]
fn a_client_that_reads_nothing_costs_only_itself() {
    let store = Store::start();
    let mut client = store.client();
    client.call(&["SET", "big", &"x".repeat(1 << 20)]);
    let mut deaf = store.client();
    deaf.stream.set_nonblocking(true).unwrap();
    // Asks for gigabytes and takes none of them: it is read from no further.
    let mut request = bytes::BytesMut::new();
    for _ in 0..1000 {
        arkvd::encode_request(&["GET", "big"], &mut request);
    }
    let mut sent = 0;
    for _ in 0..200 {
        match deaf.try_send_raw(&request) {
            Ok(()) => sent += 1,
            Err(_) => break,
        }
    }
    assert!(sent < 200, "everything was taken");
    let began = Instant::now();
    for _ in 0..100 {
        client.words("INCR n");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_listener_that_reads_nothing_is_cut_off() {
    let store = Store::start();
    let (mut deaf, mut speaker) = (store.client(), store.client());
    deaf.words("SUBSCRIBE flood");
    let message = "m".repeat(1 << 20);
    let mut listeners = 1;
    for _ in 0..200 {
        let Reply::Int(count) = speaker.call(&["PUBLISH", "flood", &message]) else {
            panic!("no number");
        };
        listeners = count;
        if count == 0 {
            break;
        }
    }
    assert_eq!(listeners, 0);
}

#[test]
fn a_long_pipeline_is_answered_in_order() {
    let store = Store::start();
    let mut client = store.client();
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        use std::io::Write as _;
        let mut request = bytes::BytesMut::new();
        for _ in 0..50_000 {
            arkvd::encode_request(&["INCR", "n"], &mut request);
        }
        writer.write_all(&request).unwrap();
    });
    for wanted in 1..=50_000 {
        assert_eq!(client.receive().0, Reply::Int(wanted));
    }
    sending.join().unwrap();
}

#[test]
fn too_many_clients_are_told_so() {
    let store = Store::start_with(|config| config.max_clients = 2);
    let (one, mut two) = (store.client(), store.client());
    let mut three = store.stranger();
    assert_eq!(three.receive().0, error("ERR max number of clients reached"));
    drop(one);
    wait_for("a free place", || {
        let Reply::Bulk(info) = two.words("INFO clients") else { panic!("no text") };
        String::from_utf8_lossy(&info).contains("connected_clients:1").then_some(())
    });
    assert_eq!(store.client().words("PING"), Reply::Status("PONG".into()));
}

#[test]
fn an_address_others_reach_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::support::config_in(dir.path());
    config.listen = "0.0.0.0:0".to_owned();
    assert_eq!(
        Store::refusal(&config),
        "`listen` in the settings of the key-value store: `0.0.0.0:0` can be reached from outside; set `allow_remote = true` if that is meant"
    );
}

#[test]
fn an_empty_password_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("arkvd.password");
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(
        Store::refusal(&crate::support::config_in(dir.path())),
        format!("the password file `{}` is empty; delete it to get a new password", path.display())
    );
}
