//! What was answered is there after the process died, whenever that was.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arkvd::{Durability, Reply};
use bytes::Bytes;

use crate::support::{Client, Store, bulk, wait_for};

/// The store in a process of its own, to be killed.
struct Victim {
    child: Child,
    password: String,
    socket: std::path::PathBuf,
}

impl Victim {
    fn start(dir: &Path) -> Self {
        // The test program runs itself: see `a_process_that_serves_when_asked_to`.
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::a_process_that_serves_when_asked_to", "--nocapture"])
            .env("ARKVD_SERVE_IN", dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains("serving"));
        assert!(ready, "the store did not start");
        let password = std::fs::read_to_string(dir.join("arkvd.password")).unwrap();
        Self { child, password: password.trim().to_owned(), socket: dir.join("arkvd.sock") }
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(&self.socket);
        assert_eq!(client.call(&["AUTH", &self.password]), Reply::OK);
        client
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_process_that_serves_when_asked_to() {
    let Some(dir) = std::env::var_os("ARKVD_SERVE_IN") else { return };
    let store = Store::start_for_good(Path::new(&dir), |config| {
        // Small, so that snapshots and cuts of the log happen while it is killed.
        config.snapshot_after_bytes = 65_536;
    });
    println!("serving");
    while store.socket.try_exists().unwrap() {
        std::thread::park();
    }
}

/// Writes counters, lists and texts until the store dies; gives what was acknowledged last.
fn write_until_death(mut client: Client, name: &str, from: i64) -> i64 {
    let mut acknowledged = from;
    let padding = "x".repeat(200);
    loop {
        let next = acknowledged + 1;
        let mut request = bytes::BytesMut::new();
        let counter = format!("counter-{name}");
        let list = format!("list-{name}");
        let item = format!("{next}-{padding}");
        for command in [
            vec!["MULTI"],
            vec!["INCR", counter.as_str()],
            vec!["RPUSH", list.as_str(), item.as_str()],
            vec!["LTRIM", list.as_str(), "-50", "-1"],
            vec!["EXEC"],
        ] {
            arkvd::encode_request(&command, &mut request);
        }
        if client.try_send_raw(&request).is_err() {
            return acknowledged;
        }
        for _ in 0..4 {
            if client.try_receive().is_none() {
                return acknowledged;
            }
        }
        match client.try_receive() {
            Some((Reply::Array(replies), _)) => {
                assert_eq!(replies.first(), Some(&Reply::Int(next)), "a write was done twice");
                acknowledged = next;
            }
            Some((other, _)) => panic!("{other:?}"),
            None => return acknowledged,
        }
    }
}

#[test]
fn acknowledged_writes_survive_twenty_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut counts = [0_i64; 4];
    for round in 0..20_u64 {
        let victim = Victim::start(dir.path());
        let mut client = victim.client();
        for (writer, count) in counts.iter_mut().enumerate() {
            let found = match client.call(&["GET", &format!("counter-{writer}")]) {
                Reply::Bulk(text) => String::from_utf8_lossy(&text).parse().unwrap(),
                _ => 0,
            };
            // One write may have been on its way when it died.
            assert!(found == *count || found == *count + 1, "{found} instead of {count}");
            let last = client.call(&["LINDEX", &format!("list-{writer}"), "-1"]);
            match last {
                Reply::Bulk(item) => assert!(item.starts_with(format!("{found}-").as_bytes())),
                _ => assert_eq!(found, 0, "a transaction was kept in part"),
            }
            *count = found;
        }
        let writers: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(writer, count)| {
                let (client, from) = (victim.client(), *count);
                std::thread::spawn(move || write_until_death(client, &writer.to_string(), from))
            })
            .collect();
        // Any moment will do; each round takes another one.
        let enough = 20 + i64::try_from(round).unwrap() * 7;
        wait_for("some writes", || match client.call(&["GET", "counter-0"]) {
            Reply::Bulk(text) => {
                let now: i64 = String::from_utf8_lossy(&text).parse().unwrap();
                (now >= counts[0] + enough).then_some(())
            }
            _ => None,
        });
        victim.kill();
        for (writer, count) in writers.into_iter().zip(&mut counts) {
            *count = writer.join().unwrap();
        }
    }
    assert!(counts.iter().sum::<i64>() > 1000, "{counts:?}");
}

#[test]
fn what_one_client_reads_is_not_undone_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let victim = Victim::start(dir.path());
        let (writer, mut reader) = (victim.client(), victim.client());
        let writing = std::thread::spawn(move || write_until_any_end(writer));
        let seen = Arc::new(AtomicBool::new(false));
        let mut last = 0_i64;
        for _ in 0..500 {
            if let Reply::Bulk(text) = reader.call(&["GET", "seen"]) {
                last = String::from_utf8_lossy(&text).parse().unwrap();
                seen.store(true, Ordering::Relaxed);
            }
        }
        victim.kill();
        writing.join().unwrap();
        let victim = Victim::start(dir.path());
        let Reply::Bulk(text) = victim.client().call(&["GET", "seen"]) else { panic!("gone") };
        let found: i64 = String::from_utf8_lossy(&text).parse().unwrap();
        assert!(found >= last, "a reader saw {last}, and now it is {found}");
        assert!(seen.load(Ordering::Relaxed));
        victim.kill();
    }
}

fn write_until_any_end(mut client: Client) {
    let mut request = bytes::BytesMut::new();
    for _ in 0..20 {
        arkvd::encode_request(&["INCR", "seen"], &mut request);
    }
    while client.try_send_raw(&request).is_ok() {
        for _ in 0..20 {
            if client.try_receive().is_none() {
                return;
            }
        }
    }
}

#[test]
fn ends_of_keys_survive_a_restart_and_go_on() {
    let store = Store::start();
    let mut client = store.client();
    client.words("SET long 1 EX 1000");
    client.words("SET absolute 1 PXAT 4102444800123");
    client.words("SET short 1 PX 300");
    client.words("SET none 1");
    let store = store.restart_with(|_| {});
    let mut client = store.client();
    let Reply::Int(left) = client.words("TTL long") else { panic!("no number") };
    assert!((980..=1000).contains(&left), "{left}");
    assert_eq!(client.words("PEXPIRETIME absolute"), Reply::Int(4_102_444_800_123));
    assert_eq!(client.words("TTL none"), Reply::Int(-1));
    wait_for("the end of a key", || (client.words("EXISTS short") == Reply::Int(0)).then_some(()));
    wait_for("the sweep", || (client.words("DBSIZE") == Reply::Int(3)).then_some(()));
    // The sweep is in the log: the key does not come back.
    let store = store.restart_with(|_| {});
    assert_eq!(store.client().words("DBSIZE"), Reply::Int(3));
}

#[test]
fn every_type_survives_a_snapshot_and_a_restart() {
    let small = |config: &mut arkvd::Config| config.snapshot_after_bytes = 65_536;
    let store = Store::start_with(small);
    let mut client = store.client();
    client.words("RPUSH list a b c");
    client.words("HSET hash f 1 g 2");
    client.words("SADD set x y");
    client.words("ZADD sorted 1.5 m -inf low inf high");
    client.words("SET text hello");
    client.words("SELECT 5");
    client.words("SET other 1 EXAT 4102444800");
    client.words("SELECT 0");
    let padding = "p".repeat(1000);
    for _ in 0..200 {
        client.call(&["SET", "padding", &padding]);
    }
    wait_for("a snapshot", || {
        let Reply::Bulk(info) = client.words("INFO persistence") else { panic!("no text") };
        let text = String::from_utf8_lossy(&info).into_owned();
        (!text.contains("arkvd_snapshots:0")).then_some(())
    });
    client.words("RPUSH list d");
    let store = store.restart_with(small);
    let mut client = store.client();
    let texts = |texts: &[&str]| Reply::Array(texts.iter().map(|text| bulk(text)).collect());
    assert_eq!(client.words("LRANGE list 0 -1"), texts(&["a", "b", "c", "d"]));
    assert_eq!(client.words("HMGET hash f g"), texts(&["1", "2"]));
    assert_eq!(client.words("SCARD set"), Reply::Int(2));
    let sorted = texts(&["low", "-inf", "m", "1.5", "high", "inf"]);
    assert_eq!(client.words("ZRANGE sorted 0 -1 WITHSCORES"), sorted);
    assert_eq!(client.words("GET text"), bulk("hello"));
    client.words("SELECT 5");
    assert_eq!(client.words("EXPIRETIME other"), Reply::Int(4_102_444_800));
}

#[test]
fn random_commands_lead_to_the_same_keys_after_a_restart() {
    let store = Store::start_with(|config| config.snapshot_after_bytes = 65_536);
    let mut client = store.client();
    for round in 0..3000 {
        let (key, member) = (round % 13, round * 7 % 40);
        client.call(&["SADD", &format!("set{key}"), &format!("m{member}")]);
        if round % 3 == 0 {
            client.call(&["SPOP", &format!("set{key}")]);
        }
        if round % 5 == 0 {
            client.call(&["SPOP", &format!("set{key}"), "2"]);
        }
        client.call(&["HINCRBYFLOAT", "hash", &format!("f{key}"), "0.1"]);
    }
    let contents = |client: &mut Client| {
        let sets = (0..13).map(|key| match client.call(&["SMEMBERS", &format!("set{key}")]) {
            Reply::Array(mut members) => {
                members.sort_by_key(|member| format!("{member:?}"));
                members
            }
            other => panic!("{other:?}"),
        });
        let sets: Vec<_> = sets.collect();
        (sets, client.call(&["HGETALL", "hash"]))
    };
    let before = contents(&mut client);
    let store = store.restart_with(|_| {});
    assert_eq!(contents(&mut store.client()), before);
}

#[test]
fn a_lower_memory_limit_loses_nothing_at_the_restart() {
    let store = Store::start();
    let mut client = store.client();
    let part = "p".repeat(100_000);
    for _ in 0..30 {
        client.call(&["APPEND", "text", &part]);
    }
    client.words("COPY text copy");
    let store = store.restart_with(|config| config.max_memory_bytes = 1 << 20);
    let mut client = store.client();
    assert_eq!(client.words("STRLEN text"), Reply::Int(3_000_000));
    assert_eq!(client.words("STRLEN copy"), Reply::Int(3_000_000));
    assert!(client.words("SET more 1").is_error());
}

#[test]
fn writes_at_intervals_are_on_disk_after_a_stop() {
    let store = Store::start_with(|config| {
        config.durability = Durability::Interval;
        config.interval_ms = 60_000;
    });
    store.client().words("SET a 1");
    let store = store.restart_with(|_| {});
    assert_eq!(store.client().words("GET a"), bulk("1"));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("state")).unwrap();
    std::fs::write(dir.path().join("state/snapshot.arkvd"), b"ARKVD\x00\x001 nonsense").unwrap();
    let refused = Store::refusal(&crate::support::config_in(dir.path()));
    let path = dir.path().join("state/snapshot.arkvd");
    assert_eq!(
        refused,
        format!(
            "cannot load the keys: the snapshot `{}` is damaged; restore a backup of the folder",
            path.display()
        )
    );
}

#[test]
fn a_full_store_refuses_writes_and_keeps_what_it_has() {
    let store = Store::start_with(|config| config.max_memory_bytes = 1 << 20);
    let mut client = store.client();
    let value = Bytes::from(vec![b'v'; 10_000]);
    let mut kept = 0;
    let refused = loop {
        let key = format!("key{kept}");
        match client.call(&[b"SET", key.as_bytes(), &value]) {
            Reply::Status(_) => kept += 1,
            other => break other,
        }
        assert!(kept < 1000);
    };
    let oom = "OOM command not allowed when used memory > 'maxmemory'.";
    assert_eq!(refused, crate::support::error(oom));
    assert_eq!(client.words("SETBIT bits 4000000000 1"), crate::support::error(oom));
    assert_eq!(client.words("DBSIZE"), Reply::Int(kept));
    client.words("MULTI");
    assert_eq!(client.words("SET x 1"), crate::support::error(oom));
    assert!(client.words("EXEC").is_error());
    assert_eq!(client.words("DEL key0 key1 key2"), Reply::Int(3));
    assert_eq!(client.words("SET small 1"), Reply::OK);
}
