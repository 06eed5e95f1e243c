use super::*;

fn apply(keyspace: &mut Keyspace, now_ms: u64, line: &str) -> Reply {
    let argv: Vec<Bytes> =
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
    keyspace.apply(now_ms, &Command { db: 0, seed: 42, argv: &argv })
}

#[test]
fn a_key_is_there_until_its_moment_and_not_at_it() {
    let mut keyspace = Keyspace::new(1 << 20);
    apply(&mut keyspace, 1000, "SET a 1 PX 500");
    assert_eq!(apply(&mut keyspace, 1499, "GET a"), Reply::fixed("1"));
    assert_eq!(apply(&mut keyspace, 1500, "GET a"), Reply::Null);
    assert_eq!(apply(&mut keyspace, 1500, "EXISTS a"), Reply::Int(0));
    assert_eq!(apply(&mut keyspace, 1500, "APPEND a x"), Reply::Int(1));
    assert_eq!(apply(&mut keyspace, 9000, "TTL a"), Reply::Int(-1));
}

#[test]
fn overdue_keys_are_named_and_nothing_else() {
    let mut keyspace = Keyspace::new(1 << 20);
    apply(&mut keyspace, 0, "SET a 1 PX 10");
    apply(&mut keyspace, 0, "SET b 1 PX 20");
    apply(&mut keyspace, 0, "SET c 1");
    assert!(keyspace.overdue(9, 10).is_empty());
    assert_eq!(keyspace.overdue(10, 10), [(0, Bytes::from_static(b"a"))]);
    assert_eq!(keyspace.overdue(20, 10).len(), 2);
    assert_eq!(keyspace.overdue(20, 1).len(), 1);
}

#[test]
fn memory_is_counted_back_to_nothing() {
    let mut keyspace = Keyspace::new(1 << 30);
    for line in [
        "SET text hello",
        "APPEND text world",
        "SETRANGE text 100 x",
        "SET text short PX 100000",
        "RPUSH list a b c d",
        "LTRIM list 1 2",
        "LSET list 0 longer",
        "LREM list 0 c",
        "HSET hash f value g value",
        "HSET hash f v",
        "HDEL hash g",
        "SADD set a b c",
        "SPOP set",
        "ZADD sorted 1 a 2 b",
        "ZADD sorted 5 a",
        "ZREMRANGEBYRANK sorted 0 0",
        "RENAME list other",
        "COPY other third",
        "MOVE third 1",
        "SUNIONSTORE set2 set",
    ] {
        assert!(!apply(&mut keyspace, 1, line).is_error(), "{line}");
    }
    assert!(keyspace.used() > 0);
    let argv = [Bytes::from_static(b"FLUSHALL")];
    keyspace.apply(1, &Command { db: 0, seed: 0, argv: &argv });
    assert_eq!(keyspace.used(), 0);
}

#[test]
fn the_same_commands_lead_to_the_same_picks() {
    let run = || {
        let mut keyspace = Keyspace::new(1 << 20);
        for number in 0..100 {
            apply(&mut keyspace, 1, &format!("SADD set {number}"));
        }
        (0..50).map(|_| apply(&mut keyspace, 1, "SPOP set")).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_scan_misses_nothing_that_is_there_all_the_time() {
    let mut keyspace = Keyspace::new(1 << 24);
    for number in 0..1000 {
        apply(&mut keyspace, 1, &format!("SET key{number} 1"));
    }
    let mut seen = std::collections::HashSet::new();
    let (mut cursor, mut round) = ("0".to_owned(), 0);
    loop {
        let Reply::Array(answer) = apply(&mut keyspace, 1, &format!("SCAN {cursor} COUNT 7"))
        else {
            panic!("no array");
        };
        let [Reply::Bulk(next), Reply::Array(keys)] = &answer[..] else { panic!("no pair") };
        seen.extend(keys.iter().map(|key| format!("{key:?}")));
        cursor = String::from_utf8(next.to_vec()).unwrap();
        if cursor == "0" {
            break;
        }
        // Others come and go meanwhile.
        round += 1;
        apply(&mut keyspace, 1, &format!("DEL key{}", 500 + round * 3));
        apply(&mut keyspace, 1, &format!("SET new{round} 1"));
        apply(&mut keyspace, 1, &format!("DEL new{}", round / 2));
    }
    for number in 0..500 {
        let key = Reply::text(format!("key{number}"));
        assert!(seen.contains(&format!("{key:?}")), "key{number}");
    }
}

#[test]
fn what_changed_is_told_and_what_did_not_is_not() {
    let mut keyspace = Keyspace::new(1 << 20);
    let mut changed = |line: &str| {
        apply(&mut keyspace, 1, line);
        !keyspace.take_changes().is_empty()
    };
    assert!(changed("SET a 1"));
    for line in ["GET a", "SETNX a 2", "DEL b", "EXPIRE b 5", "SADD a x", "HDEL h f", "PERSIST a"] {
        assert!(!changed(line), "{line}");
    }
    assert!(changed("SADD s x"));
    assert!(!changed("SADD s x"));
    assert!(changed("EXPIRE a 100"));
    assert!(!changed("ZADD z XX 1 a"));
}

#[test]
fn every_command_of_the_table_answers_to_too_few_arguments() {
    let mut keyspace = Keyspace::new(1 << 20);
    for spec in command::TABLE {
        let few = usize::try_from(spec.arity.unsigned_abs()).unwrap();
        for len in 1..few + 3 {
            let mut argv = vec![Bytes::from_static(spec.name.as_bytes())];
            argv.resize(len, Bytes::from_static(b"0"));
            let reply = keyspace.apply(1, &Command { db: 0, seed: 0, argv: &argv });
            assert!(len >= few || reply.is_error(), "{} {len}", spec.name);
        }
    }
}
