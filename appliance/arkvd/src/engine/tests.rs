use super::*;

use crate::journal::Progress;
use crate::session::{Answer, Session};
use tokio::sync::watch;

/// A log whose disk goes as far as the test says.
struct Paper {
    last: Seq,
    progress: watch::Sender<Progress>,
}

impl Log for Paper {
    fn append(&mut self, _group: &[Record]) -> Seq {
        self.last += 1;
        self.last
    }
    fn last(&self) -> Seq {
        self.last
    }
    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
    fn grown(&self) -> u64 {
        0
    }
    fn truncate(&mut self, _seq: Seq) {}
}

struct Fixture {
    engine: Engine,
    progress: watch::Sender<Progress>,
}

impl Fixture {
    fn new() -> Self {
        let (progress, _) = watch::channel(Progress::default());
        let log = Paper { last: 0, progress: progress.clone() };
        let config = Rc::new(Config::default());
        let engine =
            Engine::new(Keyspace::new(1 << 20), Box::new(log), config, "secret".to_owned());
        Self { engine, progress }
    }

    fn session(&mut self) -> Session {
        let mut session = Session::open(&mut self.engine, "test".to_owned());
        assert_eq!(self.call(&mut session, "AUTH secret"), Reply::OK);
        session
    }

    fn call(&mut self, session: &mut Session, line: &str) -> Reply {
        let argv = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        match session.handle(&mut self.engine, argv) {
            Answer::Now(reply) | Answer::Last(reply) => reply,
            Answer::Later { .. } => panic!("it waits"),
        }
    }
}

#[test]
fn a_write_waits_for_its_own_group() {
    let mut fx = Fixture::new();
    let mut client = fx.session();
    fx.call(&mut client, "SET a 1");
    assert_eq!(client.after, 1);
    // What changes nothing waits for nothing.
    let mut other = fx.session();
    fx.call(&mut other, "DEL nothing");
    assert_eq!(other.after, 0);
}

#[test]
fn a_read_waits_only_for_a_change_of_what_it_looks_at() {
    let mut fx = Fixture::new();
    let mut writer = fx.session();
    fx.call(&mut writer, "SET a 1");
    fx.call(&mut writer, "SET b 1");
    for (line, wanted) in [
        ("GET c", 0),
        ("PING", 0),
        ("GET a", 1),
        ("MGET c a", 1),
        ("MGET a b", 2),
        ("EXISTS b", 2),
        ("DBSIZE", 2),
        ("KEYS *", 2),
    ] {
        let mut reader = fx.session();
        fx.call(&mut reader, line);
        assert_eq!(reader.after, wanted, "{line}");
    }
}

#[test]
fn a_transaction_and_a_script_are_one_group() {
    let mut fx = Fixture::new();
    let mut client = fx.session();
    for line in ["MULTI", "SET a 1", "SET b 1", "INCR b", "EXEC"] {
        fx.call(&mut client, line);
    }
    assert_eq!(client.after, 1);
    fx.call(&mut client, "EVAL redis.call('set','a','1')redis.call('set','c','1') 0");
    assert_eq!(client.after, 2);
    let mut reader = fx.session();
    fx.call(&mut reader, "EVAL return(redis.call('get','c')) 0");
    assert_eq!(reader.after, 2);
}

#[test]
fn a_message_is_not_heard_before_the_change_it_may_tell_of_is_safe() {
    let mut fx = Fixture::new();
    let (mut listener, mut speaker) = (fx.session(), fx.session());
    fx.call(&mut listener, "SUBSCRIBE news");
    fx.call(&mut speaker, "SET a 1");
    fx.call(&mut speaker, "PUBLISH news changed");
    let waiting = listener.outbox.take();
    assert_eq!(waiting.iter().map(|(_, after)| *after).collect::<Vec<_>>(), [1]);
}

#[test]
fn writes_are_refused_while_the_disk_does_not_take_them() {
    let mut fx = Fixture::new();
    let mut client = fx.session();
    fx.call(&mut client, "SET a 1");
    let fault = Some("no room left".to_owned());
    fx.progress.send_replace(Progress { safe: 1, fault, given_up: false });
    let refused =
        Reply::Error("MISCONF Errors writing to the log on disk: no room left".to_owned().into());
    assert_eq!(fx.call(&mut client, "SET a 2"), refused);
    assert_eq!(fx.call(&mut client, "GET a"), Reply::fixed("1"));
    assert!(!fx.engine.sweep());
    fx.progress.send_replace(Progress { safe: 1, ..Progress::default() });
    assert_eq!(fx.call(&mut client, "SET a 2"), Reply::OK);
}
