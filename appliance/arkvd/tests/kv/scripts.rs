//! Scripts: what stops them, what they cannot touch, what they leave behind.

use std::time::{Duration, Instant};

use arkvd::Reply;

use crate::support::{Store, bulk, error};

fn quick() -> Store {
    Store::start_with(|config| {
        config.script_limit_ms = 200;
        config.script_memory_bytes = 4 << 20;
    })
}

#[test]
fn a_looping_script_is_stopped_and_others_go_on() {
    let store = quick();
    let mut client = store.client();
    for source in [
        "while true do end",
        "redis.call('set', 'kept', '1') while true do pcall(function() while true do end end) end",
        "local function f() while true do end end while true do coroutine.resume(coroutine.create(f)) end",
        "while true do redis.call('ping') end",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) while true do pcall(function() return t[1] end) end",
        "while true do string.rep('x', 100) end",
    ] {
        let began = Instant::now();
        let reply = client.call(&["EVAL", source, "0"]);
        assert_eq!(
            reply,
            error(
                "ERR the script was stopped because it ran longer than 200 ms; what it had written until then is kept"
            ),
            "{source}"
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{source}");
        assert_eq!(store.client().words("PING"), Reply::Status("PONG".into()));
    }
    assert_eq!(client.words("GET kept"), bulk("1"));
    assert_eq!(client.call(&["EVAL", "return 1", "0"]), Reply::Int(1));
}

#[test]
fn a_script_that_takes_too_much_memory_is_stopped() {
    let store = quick();
    let mut client = store.client();
    for source in [
        "local t = {} while true do t[#t + 1] = string.rep('x', 10000) .. #t end",
        "return string.rep('x', 100000000)",
        "local s = 'x' while true do s = s .. s end",
    ] {
        assert_eq!(
            client.call(&["EVAL", source, "0"]),
            error(
                "ERR the script was stopped because it needed more than 4194304 bytes of memory; what it had written until then is kept"
            ),
            "{source}"
        );
        assert_eq!(client.call(&["EVAL", "return {1}", "0"]), Reply::Array(vec![Reply::Int(1)]));
    }
}

#[test]
fn a_costly_text_pattern_is_stopped() {
    let store = quick();
    let began = Instant::now();
    let source = "return string.find(string.rep('a', 50000), string.rep('a-', 20) .. 'b')";
    let reply = store.client().call(&["EVAL", source, "0"]);
    assert!(reply.is_error(), "{reply:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn text_patterns_work_as_in_redis() {
    let (store, redis) = (quick(), crate::support::Redis::start());
    let (mut ours, mut theirs) = (store.client(), redis.client());
    for source in [
        "return {string.find('hello world', 'o w')}",
        "return {string.find('hello', 'l', 1, true)}",
        "return {string.find('a.b', '.', 1, true)}",
        "return {string.find('hello', 'xyz')}",
        "return {string.find('hello', '(l)(l)')}",
        "return {string.find('hello', '()ll()')}",
        "return {string.find('hello', 'l', -2)}",
        "return {string.find('hello', '', 10)}",
        "return {string.find('hello', '', 6)}",
        "return {string.find('hello', '^ell', 2)}",
        "return {string.match('key=value', '(%w+)=(%w+)')}",
        "return string.match('  trim me  ', '^%s*(.-)%s*$')",
        "return ('x'):rep(3):match('x+')",
        "local t = {} for k, v in string.gmatch('a=1, b=2', '(%w+)=(%w+)') do t[#t+1] = k .. v end return t",
        "local t = {} for w in ('one two'):gmatch('%a+') do t[#t+1] = w end return t",
        "local t = {} for w in ('abc'):gmatch('') do t[#t+1] = 'x' end return #t",
        "local t = {} for w in ('^a^a'):gmatch('^a') do t[#t+1] = w end return #t",
        "return {string.gsub('hello world', 'o', '0')}",
        "return {string.gsub('hello world', 'o', '0', 1)}",
        "return {string.gsub('hello world', '(%w+)', '<%1>')}",
        "return {string.gsub('hello', '', '-')}",
        "return {string.gsub('abc', '%w', '%0%0')}",
        "return {string.gsub('abc', '%w', '%1')}",
        "return {string.gsub('$name is $age', '%$(%w+)', {name = 'bob', age = 3})}",
        "return {string.gsub('abc', '%w', function(c) if c == 'b' then return 'B' end end)}",
        "return {string.gsub('aaa', '^a', 'b')}",
        "return {string.gsub('abc', 'b*', 'X')}",
        "return {string.gsub(123, 2, 'x')}",
        "return string.find('a', nil)",
        "return string.gsub('a', 'a')",
        "return string.find('abc', '[a')",
        "return string.find('abc', '%')",
        "return string.gsub('abc', 'a', '%2')",
    ] {
        ours.send(&["EVAL", source, "0"]);
        theirs.send(&["EVAL", source, "0"]);
        let (our, their) = (ours.receive().0, theirs.receive().0);
        // Of errors the words around may differ, as Lua names the line inside its own functions.
        if !(our.is_error() && their.is_error()) {
            assert_eq!(our, their, "{source}");
        }
    }
}

#[test]
fn scripts_reach_nothing_outside() {
    let store = quick();
    let mut client = store.client();
    for name in [
        "io",
        "os",
        "load",
        "loadstring",
        "loadfile",
        "dofile",
        "require",
        "package",
        "debug",
        "print",
        "collectgarbage",
        "setfenv",
        "getfenv",
        "newproxy",
        "module",
    ] {
        let Reply::Error(text) = client.call(&["EVAL", &format!("return {name}"), "0"]) else {
            panic!("{name} is there");
        };
        let wanted = format!("Script attempted to access nonexistent global variable '{name}'");
        assert!(text.contains(&wanted), "{text}");
    }
    assert_eq!(client.call(&["EVAL", "return type(string.dump)", "0"]), bulk("nil"));
    // Compiled code is not read.
    assert!(client.call(&["EVAL", "\x1bLua", "0"]).is_error());
}

#[test]
fn a_script_cannot_change_what_the_next_one_sees() {
    let store = quick();
    let mut client = store.client();
    for source in [
        "x = 1",
        "_G.x = 1",
        "string.format = nil",
        "redis.call = nil",
        "rawset(string, 'format', nil)",
        "rawset(_G, 'x', 1)",
        "getmetatable('').__index = nil",
        "getmetatable(_G).__index = nil",
        "setmetatable(_G, nil)",
        "setmetatable(string, {})",
        "table.insert(string, 1)",
    ] {
        client.call(&["EVAL", source, "0"]);
    }
    assert!(client.call(&["EVAL", "return x", "0"]).is_error());
    let source = "return {string.format('%d', 1), ('a'):upper(), redis.call('ping').ok}";
    assert_eq!(
        client.call(&["EVAL", source, "0"]),
        Reply::Array(vec![bulk("1"), bulk("A"), bulk("PONG")])
    );
}

#[test]
fn a_script_is_done_as_a_whole_and_its_writes_survive() {
    let store = quick();
    let mut client = store.client();
    let source =
        "for i = 1, 100 do redis.call('rpush', KEYS[1], i) end return redis.call('llen', KEYS[1])";
    assert_eq!(client.call(&["EVAL", source, "1", "list"]), Reply::Int(100));
    let store = store.restart_with(|_| {});
    assert_eq!(store.client().words("LLEN list"), Reply::Int(100));
}

#[test]
fn json_comes_and_goes() {
    let store = quick();
    let mut client = store.client();
    let source = "local t = cjson.decode(ARGV[1]) t.n = t.n + 1 return cjson.encode(t)";
    assert_eq!(
        client.call(&["EVAL", source, "0", "{\"n\":1,\"list\":[1,\"a\",null,true]}"]),
        bulk("{\"list\":[1,\"a\",null,true],\"n\":2}")
    );
    assert!(client.call(&["EVAL", "return cjson.decode('{')", "0"]).is_error());
    let deep = "local t = {} for i = 1, 1000 do t = {t} end return cjson.encode(t)";
    assert!(client.call(&["EVAL", deep, "0"]).is_error());
    let cycle = "local t = {} t[1] = t return t";
    let reply = client.call(&["EVAL", cycle, "0"]);
    assert!(!matches!(reply, Reply::Null));
}
