//! The commands there are: names, counts of arguments, which arguments are keys, what they may do.
//!
//! One table for everything that has to know it: dispatch, transactions, scripts, `COMMAND`.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;

use crate::keyspace::{Call, Outcome, bits, hashes, keys, lists, sets, sorted, strings};
use crate::resp::Reply;

/// Who runs a command.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// The keyspace.
    Keys(fn(&mut Call<'_>) -> Outcome),
    /// The session of the client.
    Session,
}

/// Which arguments are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// None.
    None,
    /// From the first to the last (negative: counted from the end), in steps.
    At(usize, i32, usize),
    /// As many as this argument says, after it; and perhaps argument 1 as well.
    Counted(usize),
    /// The whole database.
    All,
}

/// What a command may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Looks.
    Read,
    /// Changes, and never needs more memory.
    Write,
    /// Changes, and may need more memory.
    Grow,
    /// Neither: connection, channels, server.
    Other,
}

/// One command.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Arguments with the name; negative: at least as many.
    pub(crate) arity: i32,
    pub(crate) keys: Keys,
    pub(crate) effect: Effect,
    pub(crate) run: Run,
    /// Whether scripts may call it.
    pub(crate) in_scripts: bool,
    /// Whether it waits when there is nothing.
    pub(crate) blocks: bool,
}

impl Spec {
    pub(crate) fn writes(&self) -> bool {
        matches!(self.effect, Effect::Write | Effect::Grow)
    }

    /// The arguments that are keys.
    pub(crate) fn keys_of<'a>(&self, argv: &'a [Bytes]) -> Vec<&'a Bytes> {
        match self.keys {
            Keys::None | Keys::All => Vec::new(),
            Keys::At(first, last, step) => {
                let last = usize::try_from(last).unwrap_or_else(|_| {
                    let back = usize::try_from(last.unsigned_abs()).unwrap_or(0);
                    argv.len().saturating_sub(back)
                });
                argv.get(first..=last.max(first))
                    .or_else(|| argv.get(first..))
                    .unwrap_or_default()
                    .iter()
                    .step_by(step)
                    .collect()
            }
            Keys::Counted(at) => {
                let count = argv.get(at).and_then(|text| crate::number::parse_int(text));
                let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
                let rest = argv.get(at + 1..).unwrap_or_default();
                rest.iter().take(count).collect()
            }
        }
    }
}

type Function = fn(&mut Call<'_>) -> Outcome;

const fn on_keys(
    name: &'static str,
    arity: i32,
    keys: Keys,
    effect: Effect,
    run: Function,
) -> Spec {
    Spec { name, arity, keys, effect, run: Run::Keys(run), in_scripts: true, blocks: false }
}

const fn read(name: &'static str, arity: i32, keys: Keys, run: Function) -> Spec {
    on_keys(name, arity, keys, Effect::Read, run)
}

const fn write(name: &'static str, arity: i32, keys: Keys, run: Function) -> Spec {
    on_keys(name, arity, keys, Effect::Write, run)
}

const fn grow(name: &'static str, arity: i32, keys: Keys, run: Function) -> Spec {
    on_keys(name, arity, keys, Effect::Grow, run)
}

const fn waits(name: &'static str, arity: i32, keys: Keys, run: Function) -> Spec {
    let mut spec = on_keys(name, arity, keys, Effect::Write, run);
    spec.blocks = true;
    spec
}

const fn other(name: &'static str, arity: i32, in_scripts: bool) -> Spec {
    Spec {
        name,
        arity,
        keys: Keys::None,
        effect: Effect::Other,
        run: Run::Session,
        in_scripts,
        blocks: false,
    }
}

const ONE: Keys = Keys::At(1, 1, 1);
const TWO: Keys = Keys::At(1, 2, 1);
const MANY: Keys = Keys::At(1, -1, 1);

/// All commands.
pub(crate) const TABLE: &[Spec] = &[
    read("get", 2, ONE, strings::get),
    grow("set", -3, ONE, strings::set),
    grow("setnx", 3, ONE, strings::setnx),
    grow("setex", 4, ONE, strings::setex),
    grow("psetex", 4, ONE, strings::psetex),
    grow("getset", 3, ONE, strings::getset),
    write("getdel", 2, ONE, strings::getdel),
    write("getex", -2, ONE, strings::getex),
    read("mget", -2, MANY, strings::mget),
    grow("mset", -3, Keys::At(1, -1, 2), strings::mset),
    grow("msetnx", -3, Keys::At(1, -1, 2), strings::msetnx),
    grow("append", 3, ONE, strings::append),
    read("strlen", 2, ONE, strings::strlen),
    read("getrange", 4, ONE, strings::getrange),
    read("substr", 4, ONE, strings::getrange),
    grow("setrange", 4, ONE, strings::setrange),
    grow("incr", 2, ONE, strings::incr),
    grow("decr", 2, ONE, strings::decr),
    grow("incrby", 3, ONE, strings::incrby),
    grow("decrby", 3, ONE, strings::decrby),
    grow("incrbyfloat", 3, ONE, strings::incrbyfloat),
    read("getbit", 3, ONE, bits::getbit),
    grow("setbit", 4, ONE, bits::setbit),
    read("bitcount", -2, ONE, bits::bitcount),
    read("bitpos", -3, ONE, bits::bitpos),
    grow("bitop", -4, Keys::At(2, -1, 1), bits::bitop),
    grow("hset", -4, ONE, hashes::hset),
    grow("hmset", -4, ONE, hashes::hmset),
    grow("hsetnx", 4, ONE, hashes::hsetnx),
    read("hget", 3, ONE, hashes::hget),
    read("hmget", -3, ONE, hashes::hmget),
    read("hgetall", 2, ONE, hashes::hgetall),
    read("hkeys", 2, ONE, hashes::hkeys),
    read("hvals", 2, ONE, hashes::hvals),
    read("hlen", 2, ONE, hashes::hlen),
    read("hstrlen", 3, ONE, hashes::hstrlen),
    read("hexists", 3, ONE, hashes::hexists),
    write("hdel", -3, ONE, hashes::hdel),
    grow("hincrby", 4, ONE, hashes::hincrby),
    grow("hincrbyfloat", 4, ONE, hashes::hincrbyfloat),
    read("hscan", -3, ONE, hashes::hscan),
    read("hrandfield", -2, ONE, hashes::hrandfield),
    grow("lpush", -3, ONE, lists::lpush),
    grow("rpush", -3, ONE, lists::rpush),
    grow("lpushx", -3, ONE, lists::lpushx),
    grow("rpushx", -3, ONE, lists::rpushx),
    write("lpop", -2, ONE, lists::lpop),
    write("rpop", -2, ONE, lists::rpop),
    read("llen", 2, ONE, lists::llen),
    read("lindex", 3, ONE, lists::lindex),
    grow("lset", 4, ONE, lists::lset),
    read("lrange", 4, ONE, lists::lrange),
    write("ltrim", 4, ONE, lists::ltrim),
    grow("linsert", 5, ONE, lists::linsert),
    write("lrem", 4, ONE, lists::lrem),
    read("lpos", -3, ONE, lists::lpos),
    grow("lmove", 5, TWO, lists::lmove),
    grow("rpoplpush", 3, TWO, lists::rpoplpush),
    write("lmpop", -4, Keys::Counted(1), lists::lmpop),
    waits("blpop", -3, Keys::At(1, -2, 1), lists::blpop),
    waits("brpop", -3, Keys::At(1, -2, 1), lists::brpop),
    waits("blmove", 6, TWO, lists::blmove),
    waits("brpoplpush", 4, TWO, lists::brpoplpush),
    waits("blmpop", -5, Keys::Counted(2), lists::blmpop),
    grow("sadd", -3, ONE, sets::sadd),
    write("srem", -3, ONE, sets::srem),
    read("sismember", 3, ONE, sets::sismember),
    read("smismember", -3, ONE, sets::smismember),
    read("scard", 2, ONE, sets::scard),
    read("smembers", 2, ONE, sets::smembers),
    write("spop", -2, ONE, sets::spop),
    read("srandmember", -2, ONE, sets::srandmember),
    write("smove", 4, TWO, sets::smove),
    read("sinter", -2, MANY, sets::sinter),
    read("sunion", -2, MANY, sets::sunion),
    read("sdiff", -2, MANY, sets::sdiff),
    grow("sinterstore", -3, MANY, sets::sinterstore),
    grow("sunionstore", -3, MANY, sets::sunionstore),
    grow("sdiffstore", -3, MANY, sets::sdiffstore),
    read("sintercard", -3, Keys::Counted(1), sets::sintercard),
    read("sscan", -3, ONE, sets::sscan),
    grow("zadd", -4, ONE, sorted::zadd),
    grow("zincrby", 4, ONE, sorted::zincrby),
    write("zrem", -3, ONE, sorted::zrem),
    read("zscore", 3, ONE, sorted::zscore),
    read("zmscore", -3, ONE, sorted::zmscore),
    read("zcard", 2, ONE, sorted::zcard),
    read("zrank", 3, ONE, sorted::zrank),
    read("zrevrank", 3, ONE, sorted::zrevrank),
    read("zcount", 4, ONE, sorted::zcount),
    read("zlexcount", 4, ONE, sorted::zlexcount),
    read("zrange", -4, ONE, sorted::zrange),
    read("zrevrange", -4, ONE, sorted::zrevrange),
    read("zrangebyscore", -4, ONE, sorted::zrangebyscore),
    read("zrevrangebyscore", -4, ONE, sorted::zrevrangebyscore),
    read("zrangebylex", -4, ONE, sorted::zrangebylex),
    read("zrevrangebylex", -4, ONE, sorted::zrevrangebylex),
    grow("zrangestore", -5, TWO, sorted::zrangestore),
    write("zremrangebyrank", 4, ONE, sorted::zremrangebyrank),
    write("zremrangebyscore", 4, ONE, sorted::zremrangebyscore),
    write("zremrangebylex", 4, ONE, sorted::zremrangebylex),
    write("zpopmin", -2, ONE, sorted::zpopmin),
    write("zpopmax", -2, ONE, sorted::zpopmax),
    write("zmpop", -4, Keys::Counted(1), sorted::zmpop),
    waits("bzpopmin", -3, Keys::At(1, -2, 1), sorted::bzpopmin),
    waits("bzpopmax", -3, Keys::At(1, -2, 1), sorted::bzpopmax),
    waits("bzmpop", -5, Keys::Counted(2), sorted::bzmpop),
    read("zrandmember", -2, ONE, sorted::zrandmember),
    read("zscan", -3, ONE, sorted::zscan),
    read("zunion", -3, Keys::Counted(1), sorted::zunion),
    read("zinter", -3, Keys::Counted(1), sorted::zinter),
    read("zdiff", -3, Keys::Counted(1), sorted::zdiff),
    grow("zunionstore", -4, Keys::Counted(2), sorted::zunionstore),
    grow("zinterstore", -4, Keys::Counted(2), sorted::zinterstore),
    grow("zdiffstore", -4, Keys::Counted(2), sorted::zdiffstore),
    read("zintercard", -3, Keys::Counted(1), sorted::zintercard),
    write("del", -2, MANY, keys::del),
    write("unlink", -2, MANY, keys::del),
    read("exists", -2, MANY, keys::exists),
    read("touch", -2, MANY, keys::exists),
    write("expire", -3, ONE, keys::expire),
    write("pexpire", -3, ONE, keys::pexpire),
    write("expireat", -3, ONE, keys::expireat),
    write("pexpireat", -3, ONE, keys::pexpireat),
    read("ttl", 2, ONE, keys::ttl),
    read("pttl", 2, ONE, keys::pttl),
    read("expiretime", 2, ONE, keys::expiretime),
    read("pexpiretime", 2, ONE, keys::pexpiretime),
    write("persist", 2, ONE, keys::persist),
    read("type", 2, ONE, keys::type_of),
    read("keys", 2, Keys::All, keys::keys),
    read("scan", -2, Keys::All, keys::scan),
    read("randomkey", 1, Keys::All, keys::randomkey),
    write("rename", 3, TWO, keys::rename),
    write("renamenx", 3, TWO, keys::renamenx),
    grow("copy", -3, TWO, keys::copy),
    write("move", 3, ONE, keys::move_to),
    write("swapdb", 3, Keys::All, keys::swapdb),
    write("flushdb", -1, Keys::All, keys::flushdb),
    write("flushall", -1, Keys::All, keys::flushall),
    read("dbsize", 1, Keys::All, keys::dbsize),
    read("object", -2, Keys::At(2, 2, 1), keys::object),
    read("memory", -2, Keys::At(2, 2, 1), keys::memory),
    other("auth", -2, false),
    other("hello", -1, false),
    other("ping", -1, true),
    other("echo", 2, true),
    other("quit", -1, false),
    other("reset", 1, false),
    other("select", 2, true),
    other("client", -2, false),
    other("command", -1, true),
    other("config", -2, false),
    other("info", -1, true),
    other("time", 1, true),
    other("debug", -2, false),
    other("wait", 3, false),
    other("lastsave", 1, true),
    other("save", 1, false),
    other("bgsave", -1, false),
    other("multi", 1, false),
    other("exec", 1, false),
    other("discard", 1, false),
    other("watch", -2, false),
    other("unwatch", 1, false),
    other("subscribe", -2, false),
    other("unsubscribe", -1, false),
    other("psubscribe", -2, false),
    other("punsubscribe", -1, false),
    other("publish", 3, true),
    other("pubsub", -2, false),
    other("eval", -3, false),
    other("evalsha", -3, false),
    other("eval_ro", -3, false),
    other("evalsha_ro", -3, false),
    other("script", -2, false),
    other("shutdown", -1, false),
    other("role", 1, false),
];

static BY_NAME: LazyLock<HashMap<&'static [u8], &'static Spec>> =
    LazyLock::new(|| TABLE.iter().map(|spec| (spec.name.as_bytes(), spec)).collect());

/// Longest name of a command.
const LONGEST: usize = 16;

/// The command of this name, in any case.
pub(crate) fn named(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0_u8; LONGEST];
    let place = lower.get_mut(..name.len())?;
    place.copy_from_slice(name);
    place.make_ascii_lowercase();
    BY_NAME.get(&*place).copied()
}

/// The command of a request, or the refusal in the words of Redis.
pub(crate) fn find(argv: &[Bytes]) -> Result<&'static Spec, Reply> {
    let Some((name, args)) = argv.split_first() else {
        return Err(Reply::error("ERR unknown command"));
    };
    let Some(spec) = named(name) else {
        return Err(unknown(name, args));
    };
    let given = i32::try_from(argv.len()).unwrap_or(i32::MAX);
    if (spec.arity > 0 && given != spec.arity) || given < -spec.arity {
        return Err(wrong_arity(spec.name));
    }
    Ok(spec)
}

pub(crate) fn wrong_arity(name: &str) -> Reply {
    Reply::Error(format!("ERR wrong number of arguments for '{name}' command").into())
}

fn unknown(name: &[u8], args: &[Bytes]) -> Reply {
    let cut = |text: &[u8], most: usize| {
        String::from_utf8_lossy(text.get(..most).unwrap_or(text)).into_owned()
    };
    let mut shown = String::new();
    for arg in args {
        if shown.len() >= 128 {
            break;
        }
        let left = 128 - shown.len();
        shown.push_str(&format!("'{}' ", cut(arg, left)));
    }
    let name = cut(name, 128);
    Reply::Error(format!("ERR unknown command '{name}', with args beginning with: {shown}").into())
}
