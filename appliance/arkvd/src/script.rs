//! Scripts in Lua 5.1, with the interface Redis gives them.
//!
//! A script sees its keys and arguments, the commands, and the harmless part of Lua's library; no
//! files, no clock, no loading of code.  Nothing it does to globals or libraries outlives it.  Its
//! time and memory are limited; its writes up to then are kept, as a script is done as a whole and
//! is never undone.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mlua::{
    Function, HookTriggers, Lua, LuaOptions, LuaString, MultiValue, StdLib, Table, Value, VmState,
};
use sha1::{Digest as _, Sha1};

use crate::config::Config;
use crate::number::{format_float, truncate};
use crate::resp::Reply;

mod json;
mod pattern;

/// Instructions between two looks at the clock.
const STEP: u32 = 10_000;
/// Most scripts that are kept.
const KEPT: usize = 10_000;
/// Deepest nesting of a script's reply.
const DEPTH: usize = 32;

/// The part of the interface that is easier said in Lua.
const PRELUDE: &str = include_str!("script/prelude.lua");

/// Why a script did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stopped {
    #[default]
    Not,
    Time,
}

/// The scripts that are known, and the interpreter.
pub(crate) struct Scripts {
    lua: Lua,
    /// `run(function, call, keys, argv)` of the prelude.
    run: Function,
    known: HashMap<String, Script>,
    /// The sources, to be compiled again when the interpreter had to be replaced.
    sources: HashMap<String, Bytes>,
    limit: Duration,
    memory: usize,
    clock: Rc<Clock>,
}

/// How long the script at hand may still run.
#[derive(Debug, Default)]
struct Clock {
    end: Cell<Option<Instant>>,
    stopped: Cell<Stopped>,
}

impl Clock {
    fn is_over(&self) -> bool {
        let over = self.end.get().is_some_and(|end| Instant::now() >= end);
        if over {
            self.stopped.set(Stopped::Time);
        }
        over
    }
}

/// A compiled script.
#[derive(Debug, Clone)]
struct Script {
    function: Function,
    /// An error at a call that is the last thing a function does has no line any more; in a script
    /// of one line it is known all the same.
    only_line: Option<i64>,
}

/// What a script calls commands with.
pub(crate) type Caller<'a> = dyn FnMut(&[Bytes]) -> Reply + 'a;

pub(crate) fn sum_of(source: &[u8]) -> String {
    Sha1::digest(source).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Scripts {
    pub(crate) fn new(config: &Config) -> mlua::Result<Self> {
        let memory = config.script_memory_bytes;
        let clock = Rc::new(Clock::default());
        let (lua, run) = interpreter(memory, &clock)?;
        Ok(Self {
            lua,
            run,
            known: HashMap::new(),
            sources: HashMap::new(),
            limit: Duration::from_millis(config.script_limit_ms),
            memory,
            clock,
        })
    }

    /// Keeps a script and gives its name.
    pub(crate) fn load(&mut self, source: &Bytes) -> Result<String, Reply> {
        let sum = sum_of(source);
        self.function(&sum, Some(source))?;
        Ok(sum)
    }

    pub(crate) fn knows(&self, sum: &[u8]) -> bool {
        let sum = String::from_utf8_lossy(sum).to_ascii_lowercase();
        self.sources.contains_key(&sum)
    }

    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.sources.clear();
    }

    fn function(&mut self, sum: &str, source: Option<&Bytes>) -> Result<Script, Reply> {
        if let Some(script) = self.known.get(sum) {
            return Ok(script.clone());
        }
        let Some(source) = source.or_else(|| self.sources.get(sum)).cloned() else {
            return Err(Reply::error("NOSCRIPT No matching script. Please use EVAL."));
        };
        let chunk = self.lua.load(source.as_ref()).set_name("@user_script");
        // Compiled code could break the interpreter; only text is accepted.
        let function =
            chunk.set_mode(mlua::chunk::ChunkMode::Text).into_function().map_err(|err| {
                let fault = message_of(&err);
                Reply::Error(format!("ERR Error compiling script (new function): {fault}").into())
            })?;
        if self.known.len() >= KEPT {
            self.forget();
        }
        let only_line = (!source.contains(&b'\n')).then_some(1);
        let script = Script { function, only_line };
        self.known.insert(sum.to_owned(), script.clone());
        self.sources.insert(sum.to_owned(), crate::value::own(&source));
        Ok(script)
    }

    /// Runs a script, given by its source or its name.
    pub(crate) fn run(
        &mut self,
        source: &Bytes,
        by_sum: bool,
        keys: &[Bytes],
        args: &[Bytes],
        call: &mut Caller<'_>,
    ) -> Reply {
        let sum = if by_sum {
            String::from_utf8_lossy(source).to_ascii_lowercase()
        } else {
            sum_of(source)
        };
        let script = match self.function(&sum, (!by_sum).then_some(source)) {
            Ok(script) => script,
            Err(refused) => return refused,
        };
        self.clock.stopped.set(Stopped::Not);
        let ran = self.run_function(&script, &sum, keys, args, call);
        self.lua.remove_global_hook();
        self.lua.remove_hook();
        if self.clock.stopped.get() == Stopped::Time {
            let limit = self.limit.as_millis();
            self.replace_interpreter();
            return Reply::Error(
                format!("ERR the script was stopped because it ran longer than {limit} ms; what it had written until then is kept").into(),
            );
        }
        match ran {
            Ok(reply) => reply,
            Err(err) => {
                let fault = message_of(&err);
                if matches!(err, mlua::Error::MemoryError(_)) {
                    let memory = self.memory;
                    self.replace_interpreter();
                    return Reply::Error(
                        format!("ERR the script was stopped because it needed more than {memory} bytes of memory; what it had written until then is kept").into(),
                    );
                }
                Reply::Error(format!("ERR {fault}").into())
            }
        }
    }

    /// After it was stopped in the middle nobody knows what state the interpreter is in.
    fn replace_interpreter(&mut self) {
        match interpreter(self.memory, &self.clock) {
            Ok((lua, run)) => {
                self.known.clear();
                self.lua = lua;
                self.run = run;
            }
            Err(err) => log::error!(error:% = message_of(&err); "cannot replace the interpreter"),
        }
    }

    fn run_function(
        &self,
        script: &Script,
        sum: &str,
        keys: &[Bytes],
        args: &[Bytes],
        call: &mut Caller<'_>,
    ) -> mlua::Result<Reply> {
        let lua = &self.lua;
        let strings = |texts: &[Bytes]| -> mlua::Result<Table> {
            let table = lua.create_table_with_capacity(texts.len(), 0)?;
            for text in texts {
                table.raw_push(lua.create_string(text)?)?;
            }
            Ok(table)
        };
        let (keys, args) = (strings(keys)?, strings(args)?);
        self.clock.end.set(Some(Instant::now() + self.limit));
        set_time_limit(lua, &self.clock)?;
        lua.scope(|scope| {
            let call = scope.create_function_mut(|lua, args: MultiValue| {
                let reply = match arguments(&args) {
                    Ok(argv) => call(&argv),
                    Err(refused) => refused,
                };
                let line = lua.inspect_stack(2, |debug| debug.current_line()).flatten();
                to_lua(lua, &reply, line)
            })?;
            let (done, value): (bool, Value) =
                self.run.call((script.function.clone(), call, keys, args))?;
            if done {
                return from_lua(&value, DEPTH);
            }
            if is_memory_fault(&value) {
                return Err(mlua::Error::MemoryError("not enough memory".to_owned()));
            }
            Ok(failure(&value, sum, script.only_line))
        })
    }
}

/// The reply of a script that ended with an error.
fn failure(value: &Value, sum: &str, only_line: Option<i64>) -> Reply {
    let (text, line) = match value {
        Value::Table(table) => {
            let text: Option<LuaString> = table.raw_get("err").ok();
            let line: Option<i64> = table.raw_get("line").ok();
            let text = text.map(|text| text.to_string_lossy()).unwrap_or_default();
            (text, line)
        }
        Value::String(text) => {
            let text = text.to_string_lossy();
            let line = text
                .strip_prefix("user_script:")
                .and_then(|rest| rest.split(':').next())
                .and_then(|line| line.parse().ok());
            (format!("ERR {text}"), line)
        }
        other => (format!("ERR {}", error_text(other)), None),
    };
    let place =
        line.or(only_line).map(|line| format!(", on @user_script:{line}.")).unwrap_or_default();
    Reply::Error(format!("{text} script: {sum}{place}").into())
}

/// The interpreter has run out of memory; a script cannot pretend that in a way that matters.
fn is_memory_fault(value: &Value) -> bool {
    match value {
        Value::String(text) => *text.as_bytes() == b"not enough memory"[..],
        Value::Error(err) => matches!(**err, mlua::Error::MemoryError(_)),
        _ => false,
    }
}

fn error_text(value: &Value) -> String {
    match value {
        Value::Error(err) => message_of(err),
        other => other.to_string().unwrap_or_else(|_| other.type_name().to_owned()),
    }
}

/// An error of the interpreter in one line, without the trace.
fn message_of(err: &mlua::Error) -> String {
    let text = match err {
        mlua::Error::RuntimeError(text)
        | mlua::Error::MemoryError(text)
        | mlua::Error::SyntaxError { message: text, .. } => text.clone(),
        mlua::Error::CallbackError { cause, .. } => return message_of(cause),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

fn interpreter(memory: usize, clock: &Rc<Clock>) -> mlua::Result<(Lua, Function)> {
    let lua = Lua::new_with(StdLib::STRING | StdLib::TABLE | StdLib::MATH, LuaOptions::default())?;
    let host = lua.create_table()?;
    host.set("sha1hex", lua.create_function(|_, text: LuaString| Ok(sum_of(&text.as_bytes())))?)?;
    host.set(
        "log",
        lua.create_function(|_, (level, text): (i64, String)| {
            let level = match level {
                0 => log::Level::Trace,
                1 => log::Level::Debug,
                2 => log::Level::Info,
                _ => log::Level::Warn,
            };
            log::log!(level, text:% = text; "a script says");
            Ok(())
        })?,
    )?;
    host.set("json_encode", lua.create_function(|_, value: Value| json::encode(&value))?)?;
    host.set(
        "json_decode",
        lua.create_function(|lua, text: LuaString| json::decode(lua, &text.as_bytes()))?,
    )?;
    add_patterns(&lua, &host, clock)?;
    let prelude = lua.load(PRELUDE).set_name("@prelude").into_function()?;
    let run: Function = prelude.call(host)?;
    lua.set_memory_limit(memory)?;
    Ok((lua, run))
}

/// What the text functions of the prelude stand on.
fn add_patterns(lua: &Lua, host: &Table, clock: &Rc<Clock>) -> mlua::Result<()> {
    type Args = (LuaString, LuaString, f64);
    let search = {
        let clock = Rc::clone(clock);
        move |lua: &Lua, (text, pattern, from): Args, anchors: bool, plain: bool| {
            let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
            let from = usize::try_from(truncate(from)).unwrap_or(1).saturating_sub(1);
            if from > text.len() {
                return Ok(MultiValue::from_iter([Value::Nil]));
            }
            let special = |byte: &u8| b"^$*+?.([%-".contains(byte);
            if plain || !pattern.iter().any(special) {
                let rest = text.get(from..).unwrap_or_default();
                let found = memchr::memmem::find(rest, &pattern).map(|at| from + at);
                return Ok(match found {
                    Some(at) => MultiValue::from_iter([place(at + 1), place(at + pattern.len())]),
                    None => MultiValue::from_iter([Value::Nil]),
                });
            }
            let (anchored, inner) = match pattern.strip_prefix(b"^") {
                Some(inner) if anchors => (true, inner),
                _ => (false, &pattern[..]),
            };
            let goes_on = || !clock.is_over();
            let found = pattern::find(&text, inner, from, anchored, &goes_on)
                .map_err(|err| mlua::Error::RuntimeError(err.to_string()))?;
            let Some((first, last, captures)) = found else {
                return Ok(MultiValue::from_iter([Value::Nil]));
            };
            let mut values = vec![place(first + 1), place(last)];
            for capture in captures {
                values.push(match capture {
                    pattern::Capture::Text(from, to) => {
                        let caught = text.get(from..to).unwrap_or_default();
                        Value::String(lua.create_string(caught)?)
                    }
                    pattern::Capture::Position(at) | pattern::Capture::Open(at) => place(at + 1),
                });
            }
            Ok(MultiValue::from_iter(values))
        }
    };
    let once = search.clone();
    host.set(
        "find",
        lua.create_function(
            move |lua, (text, pattern, from, plain): (LuaString, LuaString, f64, bool)| {
                once(lua, (text, pattern, from), true, plain)
            },
        )?,
    )?;
    host.set(
        "find_next",
        lua.create_function(move |lua, args: Args| search(lua, args, false, false))?,
    )?;
    host.set("fill", lua.create_function(fill)?)
}

fn place(at: usize) -> Value {
    Value::Number(crate::number::float(crate::number::int(at)))
}

/// Puts what was caught into the replacement text of `gsub`.
fn fill(
    lua: &Lua,
    (replacement, whole, caught): (LuaString, LuaString, Table),
) -> mlua::Result<LuaString> {
    let mut text = Vec::new();
    let replacement = replacement.as_bytes();
    let mut rest = &replacement[..];
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            text.push(*byte);
            continue;
        }
        let Some((escaped, after)) = rest.split_first() else { break };
        rest = after;
        if !escaped.is_ascii_digit() {
            text.push(*escaped);
            continue;
        }
        let index = usize::from(*escaped - b'0');
        let value: Option<LuaString> = if index == 0 { None } else { caught.raw_get(index)? };
        match value {
            Some(value) => text.extend_from_slice(&value.as_bytes()),
            None if index == 0 || (index == 1 && caught.raw_len() == 0) => {
                text.extend_from_slice(&whole.as_bytes());
            }
            None => return Err(mlua::Error::RuntimeError("invalid capture index".to_owned())),
        }
    }
    lua.create_string(text)
}

fn set_time_limit(lua: &Lua, clock: &Rc<Clock>) -> mlua::Result<()> {
    let clock = Rc::clone(clock);
    let each = |count| HookTriggers::new().every_nth_instruction(count);
    lua.set_global_hook(each(STEP), move |lua, _| {
        if clock.stopped.get() == Stopped::Not && !clock.is_over() {
            return Ok(VmState::Continue);
        }
        // From now on every instruction fails, so that no `pcall` can go on.
        lua.set_global_hook(each(1), |_, _| Err(out_of_time()))?;
        Err(out_of_time())
    })
}

fn out_of_time() -> mlua::Error {
    mlua::Error::RuntimeError("the script ran too long".to_owned())
}

/// The arguments of a command a script calls.
fn arguments(args: &MultiValue) -> Result<Vec<Bytes>, Reply> {
    if args.is_empty() {
        return Err(Reply::error(
            "ERR Please specify at least one argument for this redis lib call",
        ));
    }
    args.iter()
        .map(|arg| match arg {
            Value::String(text) => Ok(Bytes::copy_from_slice(&text.as_bytes())),
            Value::Integer(number) => Ok(Bytes::from(number.to_string())),
            Value::Number(number) => Ok(Bytes::from(format_float(*number))),
            _ => {
                Err(Reply::error("ERR Lua redis lib command arguments must be strings or integers"))
            }
        })
        .collect()
}

/// A reply as scripts see it: always in the older form.
fn to_lua(lua: &Lua, reply: &Reply, line: Option<usize>) -> mlua::Result<Value> {
    let text = |bytes: &[u8]| lua.create_string(bytes).map(Value::String);
    let list = |items: &mut dyn Iterator<Item = &Reply>| -> mlua::Result<Value> {
        let table = lua.create_table()?;
        for (index, item) in items.enumerate() {
            table.raw_set(index + 1, to_lua(lua, item, line)?)?;
        }
        Ok(Value::Table(table))
    };
    match reply {
        Reply::Status(status) => {
            let table = lua.create_table()?;
            table.raw_set("ok", status.as_ref())?;
            Ok(Value::Table(table))
        }
        Reply::Error(fault) => {
            let table = lua.create_table()?;
            table.raw_set("err", fault.as_ref())?;
            if let Some(line) = line {
                table.raw_set("line", line)?;
            }
            Ok(Value::Table(table))
        }
        Reply::Int(number) => Ok(Value::Number(crate::number::float(*number))),
        Reply::Bulk(bytes) => text(bytes),
        Reply::Null | Reply::NullArray => Ok(Value::Boolean(false)),
        Reply::Double(number) => text(format_float(*number).as_bytes()),
        Reply::Verbatim(words) => text(words.as_bytes()),
        Reply::Bool(value) => Ok(Value::Number(if *value { 1.0 } else { 0.0 })),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) | Reply::Several(items) => {
            list(&mut items.iter())
        }
        Reply::Map(pairs) | Reply::Pairs(pairs) => {
            list(&mut pairs.iter().flat_map(|(name, value)| [name, value]))
        }
    }
}

/// What a script returns as a reply.
fn from_lua(value: &Value, depth: usize) -> mlua::Result<Reply> {
    if depth == 0 {
        return Ok(Reply::error("ERR reached lua stack limit"));
    }
    Ok(match value {
        Value::String(text) => Reply::Bulk(Bytes::copy_from_slice(&text.as_bytes())),
        Value::Integer(number) => Reply::Int(*number),
        Value::Number(number) => Reply::Int(truncate(*number)),
        Value::Boolean(true) => Reply::Int(1),
        Value::Table(table) => {
            if let Value::String(text) = table.raw_get("err")? {
                return Ok(Reply::Error(text.to_string_lossy().into()));
            }
            if let Value::String(text) = table.raw_get("ok")? {
                return Ok(Reply::Status(text.to_string_lossy().into()));
            }
            if let Value::Number(number) = table.raw_get("double")? {
                return Ok(Reply::Double(number));
            }
            let mut items = Vec::new();
            loop {
                let item: Value = table.raw_get(items.len() + 1)?;
                if item.is_nil() {
                    break;
                }
                items.push(from_lua(&item, depth - 1)?);
            }
            Reply::Array(items)
        }
        _ => Reply::Null,
    })
}
