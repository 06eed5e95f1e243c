//! Transactions, channels and waiting, between several clients.

use arkvd::Reply;

use crate::support::{Store, bulk, wait_for};

#[test]
fn a_watched_key_changed_by_another_client_ends_the_transaction() {
    let store = Store::start();
    let (mut one, mut other) = (store.client(), store.client());
    one.words("SET a 1");
    one.words("WATCH a b");
    one.words("MULTI");
    one.words("INCR a");
    other.words("SET b 1");
    assert_eq!(one.words("EXEC"), Reply::NullArray);
    assert_eq!(one.words("GET a"), bulk("1"));
    // Watching ended with it.
    one.words("MULTI");
    one.words("INCR a");
    assert_eq!(one.words("EXEC"), Reply::Array(vec![Reply::Int(2)]));
}

#[test]
fn a_watched_key_that_expires_ends_the_transaction() {
    let store = Store::start();
    let mut client = store.client();
    client.words("SET a 1 PX 60");
    client.words("WATCH a");
    let mut other = store.client();
    wait_for("the end of a key", || (other.words("EXISTS a") == Reply::Int(0)).then_some(()));
    client.words("MULTI");
    client.words("SET b 1");
    assert_eq!(client.words("EXEC"), Reply::NullArray);
}

#[test]
fn those_who_wait_are_served_in_the_order_they_came() {
    let store = Store::start();
    let mut waiting: Vec<_> = (0..3).map(|_| store.client()).collect();
    let mut pusher = store.client();
    for (index, client) in waiting.iter_mut().enumerate() {
        client.send(&["BLPOP", "other", "queue", "0"]);
        let wanted = format!("blocked_clients:{}", index + 1);
        wait_for("a waiting client", || {
            let Reply::Bulk(info) = pusher.words("INFO clients") else { panic!("no text") };
            String::from_utf8_lossy(&info).contains(&wanted).then_some(())
        });
    }
    assert_eq!(pusher.words("RPUSH queue a b"), Reply::Int(2));
    let got = |item: &str| Reply::Array(vec![bulk("queue"), bulk(item)]);
    assert_eq!(waiting[0].receive().0, got("a"));
    assert_eq!(waiting[1].receive().0, got("b"));
    // A value of another type serves nobody.
    pusher.words("SET queue text");
    pusher.words("DEL queue");
    // Pushed in a transaction it is seen after its end.
    pusher.words("MULTI");
    pusher.words("RPUSH queue c");
    pusher.words("RPUSH queue d");
    pusher.words("EXEC");
    assert_eq!(waiting[2].receive().0, got("c"));
    assert_eq!(pusher.words("LRANGE queue 0 -1"), Reply::Array(vec![bulk("d")]));
}

#[test]
fn one_waiting_client_feeds_the_next() {
    let store = Store::start();
    let (mut mover, mut popper, mut pusher) = (store.client(), store.client(), store.client());
    mover.send(&["BLMOVE", "from", "to", "LEFT", "RIGHT", "0"]);
    popper.send(&["BRPOP", "to", "0"]);
    wait_for("two waiting clients", || {
        let Reply::Bulk(info) = pusher.words("INFO clients") else { panic!("no text") };
        String::from_utf8_lossy(&info).contains("blocked_clients:2").then_some(())
    });
    pusher.words("RPUSH from x");
    assert_eq!(mover.receive().0, bulk("x"));
    assert_eq!(popper.receive().0, Reply::Array(vec![bulk("to"), bulk("x")]));
    assert_eq!(pusher.words("EXISTS from to"), Reply::Int(0));
}

#[test]
fn a_client_that_goes_while_it_waits_takes_nothing() {
    let store = Store::start();
    let mut pusher = store.client();
    let mut gone = store.client();
    gone.send(&["BLPOP", "queue", "0"]);
    let blocked = |pusher: &mut crate::support::Client, count: u32| {
        let wanted = format!("blocked_clients:{count}");
        wait_for("the waiting client", || {
            let Reply::Bulk(info) = pusher.words("INFO clients") else { panic!("no text") };
            String::from_utf8_lossy(&info).contains(&wanted).then_some(())
        });
    };
    blocked(&mut pusher, 1);
    drop(gone);
    blocked(&mut pusher, 0);
    pusher.words("RPUSH queue x");
    assert_eq!(pusher.words("LLEN queue"), Reply::Int(1));
}

#[test]
fn messages_reach_those_who_listen() {
    let store = Store::start();
    let (mut listener, mut speaker) = (store.client(), store.client());
    listener.words("HELLO 3");
    assert_eq!(
        listener.words("SUBSCRIBE news"),
        Reply::Push(vec![bulk("subscribe"), bulk("news"), Reply::Int(1)])
    );
    listener.words("PSUBSCRIBE n*");
    assert_eq!(speaker.words("PUBLISH news hello"), Reply::Int(2));
    assert_eq!(
        listener.receive().0,
        Reply::Push(vec![bulk("message"), bulk("news"), bulk("hello")])
    );
    assert_eq!(
        listener.receive().0,
        Reply::Push(vec![bulk("pmessage"), bulk("n*"), bulk("news"), bulk("hello")])
    );
    // With RESP3 a listener may do everything else as well.
    assert_eq!(listener.words("SET a 1"), Reply::OK);
    drop(listener);
    wait_for("the end of the listener", || {
        (speaker.words("PUBLISH news again") == Reply::Int(0)).then_some(())
    });
}

#[test]
fn a_listener_of_the_older_protocol_can_only_listen() {
    let store = Store::start();
    let mut listener = store.client();
    listener.words("SUBSCRIBE news");
    assert_eq!(
        listener.words("GET a"),
        crate::support::error(
            "ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        )
    );
    assert_eq!(listener.words("PING"), Reply::Array(vec![bulk("pong"), bulk("")]));
}
