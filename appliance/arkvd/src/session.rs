//! One client's conversation: who it is, its database, its transaction, what it listens to.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::channel::{Form, Outbox, Subscriptions};
use crate::command::{self, Effect, Run, Spec, wrong_arity};
use crate::engine::{ClientInfo, Engine};
use crate::journal::Seq;
use crate::keyspace::{DATABASES, OUT_OF_MEMORY, timeout};
use crate::number::parse_int;
use crate::resp::{Reply, Version};
use crate::waiting::Place;

mod server_commands;

/// What a transaction may hold before it is executed, bytes.
const QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// What becomes of a request.
pub(crate) enum Answer {
    /// The reply.
    Now(Reply),
    /// It waits for an element, so long (milliseconds; 0: for ever).
    Later { answered: oneshot::Receiver<(Reply, Seq)>, limit_ms: u64 },
    /// The reply, and then the connection ends.
    Last(Reply),
}

#[derive(Default)]
struct Queue {
    commands: Vec<(&'static Spec, Vec<Bytes>)>,
    bytes: usize,
    broken: bool,
}

/// One client's conversation.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) trusted: bool,
    pub(crate) version: Version,
    pub(crate) outbox: Rc<Outbox>,
    /// The replies so far must not be sent before this group is safe.
    pub(crate) after: Seq,
    db: usize,
    queue: Option<Queue>,
    executing: bool,
    watching: Vec<(Place, bool)>,
    watch_broken: Rc<Cell<bool>>,
    subscriptions: Subscriptions,
    info: Rc<ClientInfo>,
}

impl Session {
    pub(crate) fn open(engine: &mut Engine, addr: String) -> Self {
        let id = engine.new_client();
        let now_ms = engine.now();
        let outbox = Rc::new(Outbox::default());
        let info = Rc::new(ClientInfo {
            addr,
            since_ms: now_ms,
            name: std::cell::RefCell::default(),
            db: Cell::new(0),
            last_command: Cell::new("NULL"),
            last_ms: Cell::new(now_ms),
            version: Cell::new(2),
            subscribed: Cell::new((0, 0)),
            outbox: Rc::clone(&outbox),
        });
        engine.clients.insert(id, Rc::clone(&info));
        Self {
            id,
            trusted: false,
            version: Version::Resp2,
            outbox,
            after: 0,
            db: 0,
            queue: None,
            executing: false,
            watching: Vec::new(),
            watch_broken: Rc::default(),
            subscriptions: Subscriptions::default(),
            info,
        }
    }

    /// Forgets the client everywhere.
    pub(crate) fn close(&mut self, engine: &mut Engine) {
        self.unwatch(engine);
        engine.channels.forget(self.id, &mut self.subscriptions);
        engine.waiting.remove(self.id);
        engine.clients.remove(&self.id);
    }

    pub(crate) fn listens(&self) -> bool {
        self.subscriptions.count() > 0
    }

    /// Does one request.
    pub(crate) fn handle(&mut self, engine: &mut Engine, argv: Vec<Bytes>) -> Answer {
        engine.figures.commands += 1;
        let now_ms = engine.now();
        self.info.last_ms.set(now_ms);
        let spec = match command::find(&argv) {
            Ok(spec) => spec,
            Err(refused) => {
                if !self.trusted {
                    return Answer::Now(Reply::error("NOAUTH Authentication required."));
                }
                if argv.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec")) {
                    return Answer::Now(self.abort(engine, refused));
                }
                return Answer::Now(self.break_queue(refused));
            }
        };
        self.info.last_command.set(spec.name);
        if !self.trusted && !matches!(spec.name, "auth" | "hello" | "quit" | "reset") {
            return Answer::Now(Reply::error("NOAUTH Authentication required."));
        }
        if self.listens() && self.version == Version::Resp2 && !Self::is_for_listeners(spec) {
            return Answer::Now(Reply::Error(
                format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                    spec.name
                )
                .into(),
            ));
        }
        let leaves_queue =
            matches!(spec.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset");
        if self.queue.is_some() && !leaves_queue {
            return Answer::Now(self.enqueue(engine, spec, argv));
        }
        let answer = self.run(engine, spec, argv);
        if let Some(seq) = engine.commit() {
            self.after = self.after.max(seq);
        }
        answer
    }

    fn is_for_listeners(spec: &Spec) -> bool {
        matches!(
            spec.name,
            "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ping" | "quit" | "reset"
        )
    }

    fn break_queue(&mut self, refused: Reply) -> Reply {
        if let Some(queue) = &mut self.queue {
            queue.broken = true;
        }
        refused
    }

    /// An `EXEC` that is refused ends its transaction.
    fn abort(&mut self, engine: &mut Engine, refused: Reply) -> Reply {
        self.queue = None;
        self.unwatch(engine);
        let Reply::Error(text) = refused else { return refused };
        let cause = text.strip_prefix("ERR ").unwrap_or(&text);
        Reply::Error(format!("EXECABORT Transaction discarded because of: {cause}").into())
    }

    fn enqueue(&mut self, engine: &Engine, spec: &'static Spec, argv: Vec<Bytes>) -> Reply {
        if spec.effect == Effect::Grow && engine.keyspace.is_full() {
            return self.break_queue(Reply::error(OUT_OF_MEMORY));
        }
        if matches!(spec.name, "subscribe" | "psubscribe" | "unsubscribe" | "punsubscribe")
            && self.version == Version::Resp2
        {
            return self.break_queue(Reply::error("ERR Command not allowed inside a transaction"));
        }
        let bytes: usize = argv.iter().map(|arg| arg.len() + 64).sum();
        let Some(queue) = &mut self.queue else { return Reply::OK };
        if queue.bytes + bytes > QUEUED_BYTES {
            queue.broken = true;
            return Reply::error("ERR the transaction is too large");
        }
        queue.bytes += bytes;
        // Copies, so that the queue does not keep whole input buffers.
        let argv = argv.iter().map(|arg| crate::value::own(arg)).collect();
        queue.commands.push((spec, argv));
        Reply::Status("QUEUED".into())
    }

    fn run(&mut self, engine: &mut Engine, spec: &'static Spec, argv: Vec<Bytes>) -> Answer {
        match spec.run {
            Run::Keys(_) => self.run_on_keys(engine, spec, argv),
            Run::Session => self.run_own(engine, spec, &argv),
        }
    }

    fn run_on_keys(
        &mut self,
        engine: &mut Engine,
        spec: &'static Spec,
        argv: Vec<Bytes>,
    ) -> Answer {
        let seen = engine.seen(self.db, spec, &argv);
        self.after = self.after.max(seen);
        let reply = engine.on_keys(self.db, spec, &argv);
        let empty = matches!(reply, Reply::Null | Reply::NullArray);
        if !spec.blocks || !empty || self.executing {
            return Answer::Now(reply);
        }
        let limit = match spec.name {
            "blmpop" | "bzmpop" => argv.get(1),
            _ => argv.last(),
        };
        let limit_ms = limit.and_then(|text| timeout(text).ok()).unwrap_or(0);
        let argv = argv.iter().map(|arg| crate::value::own(arg)).collect();
        let answered = engine.wait(self.id, self.db, spec, argv);
        Answer::Later { answered, limit_ms }
    }

    fn run_own(&mut self, engine: &mut Engine, spec: &'static Spec, argv: &[Bytes]) -> Answer {
        let arg = |index: usize| argv.get(index).map(AsRef::as_ref).unwrap_or_default();
        let rest = argv.get(1..).unwrap_or_default();
        let reply = match spec.name {
            "quit" => return Answer::Last(Reply::OK),
            "auth" => self.auth(engine, argv),
            "hello" => self.hello(engine, argv),
            "reset" => self.reset(engine),
            "ping" => match argv {
                [_] if self.listens() && self.version == Version::Resp2 => {
                    Reply::Array(vec![Reply::fixed("pong"), Reply::fixed("")])
                }
                [_, text] if self.listens() && self.version == Version::Resp2 => {
                    Reply::Array(vec![Reply::fixed("pong"), Reply::Bulk(text.clone())])
                }
                [_] => Reply::Status("PONG".into()),
                [_, text] => Reply::Bulk(text.clone()),
                _ => wrong_arity("ping"),
            },
            "echo" => Reply::Bulk(argv.get(1).cloned().unwrap_or_default()),
            "select" => self.select(arg(1)),
            "multi" => {
                if self.queue.is_some() {
                    Reply::error("ERR MULTI calls can not be nested")
                } else {
                    self.queue = Some(Queue::default());
                    Reply::OK
                }
            }
            "exec" => return self.exec(engine),
            "discard" => {
                if self.queue.take().is_none() {
                    Reply::error("ERR DISCARD without MULTI")
                } else {
                    self.unwatch(engine);
                    Reply::OK
                }
            }
            "watch" => {
                if self.queue.is_some() {
                    Reply::error("ERR WATCH inside MULTI is not allowed")
                } else {
                    for key in rest {
                        self.watch(engine, key);
                    }
                    Reply::OK
                }
            }
            "unwatch" => {
                self.unwatch(engine);
                Reply::OK
            }
            "subscribe" => self.listen(engine, Form::Exact, rest),
            "psubscribe" => self.listen(engine, Form::Pattern, rest),
            "unsubscribe" => self.unlisten(engine, Form::Exact, rest),
            "punsubscribe" => self.unlisten(engine, Form::Pattern, rest),
            "publish" => {
                let (channel, message) = (crate::value::own(arg(1)), crate::value::own(arg(2)));
                Reply::count(engine.channels.publish(&channel, &message, self.after))
            }
            "eval" | "evalsha" | "eval_ro" | "evalsha_ro" => self.eval(engine, spec.name, argv),
            name => server_commands::run(self, engine, name, argv),
        };
        Answer::Now(reply)
    }

    fn is_password(&mut self, engine: &Engine, user: &[u8], password: &[u8]) -> Reply {
        use subtle::ConstantTimeEq as _;
        let right: bool = password.ct_eq(engine.password.as_bytes()).into();
        if right && user == b"default" {
            self.trusted = true;
            return Reply::OK;
        }
        log::warn!(addr:% = self.info.addr; "wrong password for the key-value store");
        Reply::error("WRONGPASS invalid username-password pair or user is disabled.")
    }

    fn auth(&mut self, engine: &Engine, argv: &[Bytes]) -> Reply {
        match argv {
            [_, password] => self.is_password(engine, b"default", password),
            [_, user, password] => self.is_password(engine, user, password),
            _ => Reply::error("ERR syntax error"),
        }
    }

    fn hello(&mut self, engine: &Engine, argv: &[Bytes]) -> Reply {
        let mut version = self.version;
        let mut rest = argv.get(1..).unwrap_or_default();
        if let [wanted, after @ ..] = rest {
            version = match parse_int(wanted) {
                Some(2) => Version::Resp2,
                Some(3) => Version::Resp3,
                Some(_) => return Reply::error("NOPROTO unsupported protocol version"),
                None => {
                    return Reply::error("ERR Protocol version is not an integer or out of range");
                }
            };
            rest = after;
        }
        let mut name = None;
        loop {
            rest = match rest {
                [] => break,
                [word, user, password, after @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                    let reply = self.is_password(engine, user, password);
                    if reply.is_error() {
                        return reply;
                    }
                    after
                }
                [word, given, after @ ..] if word.eq_ignore_ascii_case(b"setname") => {
                    name = Some(given);
                    after
                }
                [word, ..] => {
                    let word = String::from_utf8_lossy(word);
                    return Reply::Error(
                        format!("ERR Syntax error in HELLO option '{word}'").into(),
                    );
                }
            };
        }
        if !self.trusted {
            return Reply::error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
            );
        }
        if let Some(name) = name {
            let reply = self.set_name(name);
            if reply.is_error() {
                return reply;
            }
        }
        self.version = version;
        let number = if version == Version::Resp3 { 3 } else { 2 };
        self.info.version.set(number);
        Reply::Map(vec![
            (Reply::fixed("server"), Reply::fixed("redis")),
            (Reply::fixed("version"), Reply::fixed(server_commands::VERSION)),
            (Reply::fixed("proto"), Reply::Int(number)),
            (Reply::fixed("id"), Reply::Int(i64::try_from(self.id).unwrap_or(i64::MAX))),
            (Reply::fixed("mode"), Reply::fixed("standalone")),
            (Reply::fixed("role"), Reply::fixed("master")),
            (Reply::fixed("modules"), Reply::Array(Vec::new())),
        ])
    }

    fn set_name(&self, name: &[u8]) -> Reply {
        if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
            return Reply::error(
                "ERR Client names cannot contain spaces, newlines or special characters.",
            );
        }
        self.info.name.replace(crate::value::own(name));
        Reply::OK
    }

    fn reset(&mut self, engine: &mut Engine) -> Reply {
        self.queue = None;
        self.unwatch(engine);
        engine.channels.forget(self.id, &mut self.subscriptions);
        self.info.subscribed.set((0, 0));
        self.info.name.replace(Bytes::new());
        self.trusted = false;
        self.version = Version::Resp2;
        self.info.version.set(2);
        self.db = 0;
        self.info.db.set(0);
        Reply::Status("RESET".into())
    }

    fn select(&mut self, text: &[u8]) -> Reply {
        let Some(number) = parse_int(text) else {
            return Reply::error("ERR value is not an integer or out of range");
        };
        match usize::try_from(number).ok().filter(|db| *db < DATABASES) {
            Some(db) => {
                self.db = db;
                self.info.db.set(db);
                Reply::OK
            }
            None => Reply::error("ERR DB index is out of range"),
        }
    }

    fn watch(&mut self, engine: &mut Engine, key: &Bytes) {
        let place = (self.db, crate::value::own(key));
        if self.watching.iter().any(|(watched, _)| *watched == place) {
            return;
        }
        let exists = engine.keyspace.exists(engine.same_now(), self.db, key);
        engine.watch(place.clone(), exists, &self.watch_broken);
        self.watching.push((place, exists));
    }

    fn unwatch(&mut self, engine: &mut Engine) {
        let places: Vec<Place> =
            std::mem::take(&mut self.watching).into_iter().map(|(place, _)| place).collect();
        engine.unwatch(&places, &self.watch_broken);
        self.watch_broken = Rc::default();
    }

    fn exec(&mut self, engine: &mut Engine) -> Answer {
        let Some(queue) = self.queue.take() else {
            return Answer::Now(Reply::error("ERR EXEC without MULTI"));
        };
        let now_ms = engine.same_now();
        let over = |((db, key), existed): &(Place, bool)| {
            *existed && !engine.keyspace.exists(now_ms, *db, key)
        };
        let changed = self.watch_broken.get() || self.watching.iter().any(over);
        self.unwatch(engine);
        if queue.broken {
            return Answer::Now(Reply::error(
                "EXECABORT Transaction discarded because of previous errors.",
            ));
        }
        if changed {
            return Answer::Now(Reply::NullArray);
        }
        let grows = queue.commands.iter().any(|(spec, _)| spec.effect == Effect::Grow);
        if grows && engine.keyspace.is_full() {
            return Answer::Now(Reply::error(
                "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.",
            ));
        }
        self.executing = true;
        let mut replies = Vec::with_capacity(queue.commands.len());
        let mut last = false;
        for (spec, argv) in queue.commands {
            match self.run(engine, spec, argv) {
                Answer::Now(reply) => replies.push(reply),
                Answer::Last(reply) => {
                    replies.push(reply);
                    last = true;
                }
                // Nothing waits inside of a transaction.
                Answer::Later { .. } => replies.push(Reply::Null),
            }
        }
        self.executing = false;
        let reply = Reply::Array(replies);
        if last { Answer::Last(reply) } else { Answer::Now(reply) }
    }

    fn listen(&mut self, engine: &mut Engine, form: Form, names: &[Bytes]) -> Reply {
        let reply =
            engine.channels.subscribe(form, names, self.id, &self.outbox, &mut self.subscriptions);
        self.info.subscribed.set(self.subscriptions.counts());
        reply
    }

    fn unlisten(&mut self, engine: &mut Engine, form: Form, names: &[Bytes]) -> Reply {
        let reply = engine.channels.unsubscribe(form, names, self.id, &mut self.subscriptions);
        self.info.subscribed.set(self.subscriptions.counts());
        reply
    }

    /// Runs a script; its writes belong to the group at hand.
    fn eval(&mut self, engine: &mut Engine, name: &str, argv: &[Bytes]) -> Reply {
        let source = argv.get(1).cloned().unwrap_or_default();
        let Some(count) = argv.get(2).and_then(|text| parse_int(text)) else {
            return Reply::error("ERR value is not an integer or out of range");
        };
        let Ok(count) = usize::try_from(count) else {
            return Reply::error("ERR Number of keys can't be negative");
        };
        let args = argv.get(3..).unwrap_or_default();
        let Some((keys, args)) = args.split_at_checked(count) else {
            return Reply::error("ERR Number of keys can't be greater than number of args");
        };
        let mut scripts = match engine.scripts.take() {
            Some(scripts) => scripts,
            None => match crate::script::Scripts::new(&engine.config) {
                Ok(scripts) => scripts,
                Err(err) => return Reply::Error(format!("ERR {err}").into()),
            },
        };
        let read_only = name.ends_with("_ro");
        let mut db = self.db;
        let mut seen = self.after;
        let reply = {
            let mut call = |argv: &[Bytes]| {
                let spec = match command::find(argv) {
                    Ok(spec) => spec,
                    Err(Reply::Error(text)) if text.starts_with("ERR unknown command") => {
                        return Reply::error("ERR Unknown Redis command called from script");
                    }
                    Err(_) => {
                        return Reply::error(
                            "ERR Wrong number of args calling Redis command from script",
                        );
                    }
                };
                if !spec.in_scripts {
                    return Reply::error("ERR This Redis command is not allowed from script");
                }
                if read_only && spec.writes() {
                    return Reply::error(
                        "ERR Write commands are not allowed from read-only scripts.",
                    );
                }
                match spec.run {
                    Run::Keys(_) => {
                        seen = seen.max(engine.seen(db, spec, argv));
                        engine.on_keys(db, spec, argv)
                    }
                    Run::Session => server_commands::in_script(engine, spec.name, argv, &mut db),
                }
            };
            let by_sum = name.starts_with("evalsha");
            scripts.run(&source, by_sum, keys, args, &mut call)
        };
        self.after = seen;
        engine.scripts = Some(scripts);
        reply
    }
}
