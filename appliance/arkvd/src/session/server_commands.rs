//! Commands about the server itself and the clients: as many as client libraries and tools use.

use std::fmt::Write as _;

use bytes::Bytes;

use super::Session;
use crate::command::{self, Effect, Keys, Spec, TABLE, wrong_arity};
use crate::config::Durability;
use crate::engine::{ClientInfo, Engine};
use crate::glob;
use crate::keyspace::DATABASES;
use crate::number::{int, parse_int};
use crate::resp::Reply;

/// The version of Redis whose commands and replies these are.
pub(crate) const VERSION: &str = "7.0.15";

fn unknown_subcommand(command: &str, given: &[u8]) -> Reply {
    let given = String::from_utf8_lossy(given);
    let upper = command.to_ascii_uppercase();
    Reply::Error(format!("ERR unknown subcommand '{given}'. Try {upper} HELP.").into())
}

fn int_of(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn run(session: &mut Session, engine: &mut Engine, name: &str, argv: &[Bytes]) -> Reply {
    match name {
        "client" => client(session, engine, argv),
        "command" => command(argv),
        "config" => config(engine, argv),
        "info" => Reply::Verbatim(info(engine, argv.get(1..).unwrap_or_default())),
        "time" => time(engine),
        "debug" => Reply::error("ERR DEBUG command not allowed."),
        "wait" => wait(argv),
        "lastsave" => int_of(engine.figures.last_snapshot_ms / 1000),
        // What was answered is on disk already.
        "save" => Reply::OK,
        "bgsave" => Reply::Status("Background saving started".into()),
        "pubsub" => pubsub(engine, argv),
        "script" => script(engine, argv),
        "shutdown" => Reply::error("ERR SHUTDOWN is not allowed; stop the service instead"),
        "role" => {
            Reply::Array(vec![Reply::fixed("master"), Reply::Int(0), Reply::Array(Vec::new())])
        }
        other => Reply::Error(format!("ERR the command '{other}' is not served").into()),
    }
}

/// The commands of this kind that scripts may call.
pub(super) fn in_script(engine: &mut Engine, name: &str, argv: &[Bytes], db: &mut usize) -> Reply {
    match (name, argv) {
        ("ping", [_]) => Reply::Status("PONG".into()),
        ("ping" | "echo", [_, text]) => Reply::Bulk(text.clone()),
        ("select", [_, number]) => {
            match parse_int(number).and_then(|n| usize::try_from(n).ok()).filter(|n| *n < DATABASES)
            {
                Some(number) => {
                    *db = number;
                    Reply::OK
                }
                None => Reply::error("ERR DB index is out of range"),
            }
        }
        ("publish", [_, channel, message]) => {
            let after = engine.log.last() + 1;
            let (channel, message) = (crate::value::own(channel), crate::value::own(message));
            // The script's own changes get the next number; without any nobody has to wait.
            let after = if engine.has_open_group() { after } else { after - 1 };
            Reply::count(engine.channels.publish(&channel, &message, after))
        }
        ("time", _) => time(engine),
        ("info", _) => Reply::Verbatim(info(engine, argv.get(1..).unwrap_or_default())),
        ("lastsave", _) => int_of(engine.figures.last_snapshot_ms / 1000),
        ("command", _) => command(argv),
        _ => Reply::error("ERR This Redis command is not allowed from script"),
    }
}

fn time(engine: &Engine) -> Reply {
    let now_ms = engine.same_now();
    Reply::Array(vec![
        Reply::text((now_ms / 1000).to_string()),
        Reply::text((now_ms % 1000 * 1000).to_string()),
    ])
}

fn wait(argv: &[Bytes]) -> Reply {
    let number = |index: usize| argv.get(index).and_then(|text| parse_int(text));
    if number(1).is_none() {
        return Reply::error("ERR value is not an integer or out of range");
    }
    match number(2) {
        None => Reply::error("ERR timeout is not an integer or out of range"),
        Some(limit) if limit < 0 => Reply::error("ERR timeout is negative"),
        // This box has the only copy.
        Some(_) => Reply::Int(0),
    }
}

fn describe(id: u64, client: &ClientInfo, now_ms: u64) -> String {
    let (channels, patterns) = client.subscribed.get();
    format!(
        "id={id} addr={} laddr= fd=0 name={} age={} idle={} flags={} db={} sub={channels} psub={patterns} ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} user=default redir=-1 resp={}",
        client.addr,
        String::from_utf8_lossy(&client.name.borrow()),
        now_ms.saturating_sub(client.since_ms) / 1000,
        now_ms.saturating_sub(client.last_ms.get()) / 1000,
        if channels + patterns > 0 { "P" } else { "N" },
        client.db.get(),
        client.last_command.get(),
        client.version.get(),
    )
}

fn client(session: &mut Session, engine: &mut Engine, argv: &[Bytes]) -> Reply {
    let given = argv.get(1).cloned().unwrap_or_default();
    let word = String::from_utf8_lossy(&given).to_ascii_uppercase();
    let now_ms = engine.same_now();
    match (word.as_str(), argv.get(2..).unwrap_or_default()) {
        ("ID", []) => int_of(session.id),
        ("GETNAME", []) => {
            let name = session.info.name.borrow();
            if name.is_empty() { Reply::Null } else { Reply::Bulk(name.clone()) }
        }
        ("SETNAME", [name]) => session.set_name(name),
        ("SETINFO", [field, _]) => {
            if field.eq_ignore_ascii_case(b"lib-name") || field.eq_ignore_ascii_case(b"lib-ver") {
                Reply::OK
            } else {
                let field = String::from_utf8_lossy(field);
                Reply::Error(format!("ERR Unrecognized option '{field}'").into())
            }
        }
        ("INFO", []) => Reply::Verbatim(describe(session.id, &session.info, now_ms) + "\n"),
        ("LIST", _) => {
            let mut text = String::new();
            for (id, client) in &engine.clients {
                text.push_str(&describe(*id, client, now_ms));
                text.push('\n');
            }
            Reply::Verbatim(text)
        }
        ("NO-EVICT" | "NO-TOUCH", [mode]) => {
            if mode.eq_ignore_ascii_case(b"on") || mode.eq_ignore_ascii_case(b"off") {
                Reply::OK
            } else {
                Reply::error("ERR syntax error")
            }
        }
        ("KILL", [by, id]) if by.eq_ignore_ascii_case(b"id") => {
            let id = parse_int(id).and_then(|id| u64::try_from(id).ok());
            match id.and_then(|id| engine.clients.get(&id)) {
                Some(client) => {
                    client.outbox.close();
                    Reply::Int(1)
                }
                None => Reply::Int(0),
            }
        }
        ("UNBLOCK", [id]) => {
            let id = parse_int(id).and_then(|id| u64::try_from(id).ok());
            match id.and_then(|id| engine.waiting.remove(id)) {
                Some(ticket) => {
                    ticket.answer.send((Reply::NullArray, 0)).ok();
                    Reply::Int(1)
                }
                None => Reply::Int(0),
            }
        }
        ("ID" | "GETNAME" | "SETNAME" | "SETINFO" | "INFO" | "NO-EVICT" | "NO-TOUCH", _) => {
            wrong_arity(&format!("client|{}", word.to_ascii_lowercase()))
        }
        _ => unknown_subcommand("client", &given),
    }
}

fn describe_command(spec: &Spec) -> Reply {
    let (first, last, step) = match spec.keys {
        Keys::None | Keys::All | Keys::Counted(_) => (0, 0, 0),
        Keys::At(first, last, step) => (int(first), i64::from(last), int(step)),
    };
    let mut flags = vec![Reply::Status(
        match spec.effect {
            Effect::Read => "readonly",
            Effect::Write | Effect::Grow => "write",
            Effect::Other => "fast",
        }
        .into(),
    )];
    if spec.effect == Effect::Grow {
        flags.push(Reply::Status("denyoom".into()));
    }
    if !spec.in_scripts {
        flags.push(Reply::Status("noscript".into()));
    }
    if spec.blocks {
        flags.push(Reply::Status("blocking".into()));
    }
    if matches!(spec.keys, Keys::Counted(_)) {
        flags.push(Reply::Status("movablekeys".into()));
    }
    Reply::Array(vec![
        Reply::fixed(spec.name),
        Reply::Int(i64::from(spec.arity)),
        Reply::Set(flags),
        Reply::Int(first),
        Reply::Int(last),
        Reply::Int(step),
        Reply::Set(Vec::new()),
        Reply::Set(Vec::new()),
        Reply::Set(Vec::new()),
        Reply::Set(Vec::new()),
    ])
}

fn command(argv: &[Bytes]) -> Reply {
    let Some(given) = argv.get(1) else {
        return Reply::Array(TABLE.iter().map(describe_command).collect());
    };
    let names = argv.get(2..).unwrap_or_default();
    match String::from_utf8_lossy(given).to_ascii_uppercase().as_str() {
        "COUNT" if !names.is_empty() => wrong_arity("command|count"),
        "COUNT" => Reply::count(TABLE.len()),
        "LIST" => Reply::Array(TABLE.iter().map(|spec| Reply::fixed(spec.name)).collect()),
        "DOCS" => Reply::Map(Vec::new()),
        "INFO" if names.is_empty() => Reply::Array(TABLE.iter().map(describe_command).collect()),
        "INFO" => {
            let known = names
                .iter()
                .map(|name| command::named(name).map_or(Reply::NullArray, describe_command));
            Reply::Array(known.collect())
        }
        "GETKEYS" => match command::find(names) {
            Ok(spec) => {
                let keys = spec.keys_of(names);
                if keys.is_empty() {
                    return Reply::error("ERR The command has no key arguments");
                }
                Reply::Array(keys.into_iter().cloned().map(Reply::Bulk).collect())
            }
            Err(_) => Reply::error("ERR Invalid command specified"),
        },
        _ => unknown_subcommand("command", given),
    }
}

/// The settings clients ask for, under the names Redis has for them.
fn settings(engine: &Engine) -> Vec<(&'static str, String)> {
    let sync = engine.config.durability == Durability::Sync;
    vec![
        ("maxmemory", engine.keyspace.limit().to_string()),
        ("maxmemory-policy", "noeviction".into()),
        ("maxclients", engine.config.max_clients.to_string()),
        ("databases", DATABASES.to_string()),
        ("appendonly", "yes".into()),
        ("appendfsync", if sync { "always".into() } else { "everysec".into() }),
        ("save", String::new()),
        ("timeout", "0".into()),
        ("tcp-keepalive", "60".into()),
        ("proto-max-bulk-len", engine.config.max_value_bytes.to_string()),
        ("notify-keyspace-events", String::new()),
        ("busy-reply-threshold", engine.config.script_limit_ms.to_string()),
        ("lua-time-limit", engine.config.script_limit_ms.to_string()),
    ]
}

fn config(engine: &mut Engine, argv: &[Bytes]) -> Reply {
    let given = argv.get(1).cloned().unwrap_or_default();
    let rest = argv.get(2..).unwrap_or_default();
    match (String::from_utf8_lossy(&given).to_ascii_uppercase().as_str(), rest) {
        ("GET", [_, ..]) => {
            let wanted = |name: &str| {
                rest.iter()
                    .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
            };
            let found = settings(engine)
                .into_iter()
                .filter(|(name, _)| wanted(name))
                .map(|(name, value)| (Reply::fixed(name), Reply::text(value)));
            Reply::Map(found.collect())
        }
        ("SET", [_, _, ..]) if rest.len().is_multiple_of(2) => set_config(engine, rest),
        ("RESETSTAT", []) => Reply::OK,
        ("REWRITE", []) => Reply::error("ERR The server is running without a config file"),
        ("GET" | "SET" | "RESETSTAT" | "REWRITE", _) => {
            let word = String::from_utf8_lossy(&given).to_ascii_lowercase();
            wrong_arity(&format!("config|{word}"))
        }
        _ => unknown_subcommand("config", &given),
    }
}

/// Only the memory limit can be changed, and not beyond what the config file allows; a setting to
/// what it is already is accepted.
fn set_config(engine: &mut Engine, mut rest: &[Bytes]) -> Reply {
    let known = settings(engine);
    while let [name, value, after @ ..] = rest {
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        let Some((name, now)) = known.iter().find(|(known, _)| *known == lower) else {
            return Reply::Error(
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{lower}'")
                    .into(),
            );
        };
        if *name == "maxmemory" {
            let limit = parse_int(value).and_then(|limit| usize::try_from(limit).ok());
            match limit {
                Some(limit) if limit > 0 && limit <= engine.config.max_memory_bytes => {
                    engine.keyspace.set_limit(limit);
                }
                _ => {
                    let most = engine.config.max_memory_bytes;
                    return Reply::Error(
                        format!("ERR CONFIG SET failed (possibly related to argument 'maxmemory') - the config file allows up to {most} bytes").into(),
                    );
                }
            }
        } else if value.as_ref() != now.as_bytes() {
            return Reply::Error(
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config").into(),
            );
        }
        rest = after;
    }
    Reply::OK
}

fn info(engine: &Engine, wanted: &[Bytes]) -> String {
    let now_ms = engine.same_now();
    let config = &engine.config;
    let figures = &engine.figures;
    let progress = engine.log.progress();
    let progress = progress.borrow();
    let listening: usize =
        engine.clients.values().filter(|client| client.subscribed.get() != (0, 0)).count();
    let mut keys = String::new();
    for db in 0..DATABASES {
        let (count, ending) = engine.keyspace.counts(db);
        if count > 0 {
            write!(keys, "db{db}:keys={count},expires={ending},avg_ttl=0\r\n").ok();
        }
    }
    let sections = [
        (
            "Server",
            format!(
                "redis_version:{VERSION}\r\nredis_mode:standalone\r\nserver_name:arkvd\r\narkvd_version:{}\r\nos:Linux\r\narch_bits:64\r\nprocess_id:{}\r\nrun_id:{}\r\nuptime_in_seconds:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                std::process::id(),
                engine.run_id,
                now_ms.saturating_sub(engine.started_ms) / 1000,
            ),
        ),
        (
            "Clients",
            format!(
                "connected_clients:{}\r\nmaxclients:{}\r\nblocked_clients:{}\r\npubsub_clients:{listening}\r\n",
                engine.clients.len(),
                config.max_clients,
                engine.waiting.count(),
            ),
        ),
        (
            "Memory",
            format!(
                "used_memory:{}\r\nmaxmemory:{}\r\nmaxmemory_policy:noeviction\r\n",
                engine.keyspace.used(),
                engine.keyspace.limit(),
            ),
        ),
        (
            "Persistence",
            format!(
                "loading:0\r\naof_enabled:1\r\naof_last_write_status:{}\r\naof_current_size:{}\r\nrdb_last_save_time:{}\r\narkvd_durability:{}\r\narkvd_changes_on_their_way:{}\r\narkvd_snapshots:{}\r\n",
                if progress.fault.is_some() { "err" } else { "ok" },
                engine.log.grown(),
                figures.last_snapshot_ms / 1000,
                if config.durability == Durability::Sync { "sync" } else { "interval" },
                engine.log.last().saturating_sub(progress.safe),
                figures.snapshots,
            ),
        ),
        (
            "Stats",
            format!(
                "total_connections_received:{}\r\ntotal_commands_processed:{}\r\nrejected_connections:{}\r\nexpired_keys:{}\r\nevicted_keys:0\r\npubsub_channels:{}\r\npubsub_patterns:{}\r\n",
                figures.connections,
                figures.commands,
                figures.refused,
                figures.expired,
                engine.channels.channel_count(),
                engine.channels.pattern_count(),
            ),
        ),
        ("Replication", "role:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n".to_owned()),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
        ("Keyspace", keys),
    ];
    let every = wanted.is_empty()
        || wanted.iter().any(|name| {
            [&b"all"[..], b"everything", b"default"]
                .iter()
                .any(|word| name.eq_ignore_ascii_case(word))
        });
    let mut text = String::new();
    for (name, content) in sections {
        if every || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name.as_bytes())) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            write!(text, "# {name}\r\n{content}").ok();
        }
    }
    text
}

fn pubsub(engine: &Engine, argv: &[Bytes]) -> Reply {
    let given = argv.get(1).cloned().unwrap_or_default();
    let rest = argv.get(2..).unwrap_or_default();
    match (String::from_utf8_lossy(&given).to_ascii_uppercase().as_str(), rest) {
        ("CHANNELS", [] | [_]) => {
            let pattern = rest.first().map(AsRef::as_ref);
            let names = engine.channels.names(pattern).into_iter().map(Reply::Bulk);
            Reply::Array(names.collect())
        }
        ("NUMSUB", names) => {
            let counts = names.iter().flat_map(|name| {
                [Reply::Bulk(name.clone()), Reply::count(engine.channels.listeners(name))]
            });
            Reply::Array(counts.collect())
        }
        ("NUMPAT", []) => Reply::count(engine.channels.pattern_count()),
        ("SHARDCHANNELS", _) => Reply::Array(Vec::new()),
        _ => unknown_subcommand("pubsub", &given),
    }
}

fn script(engine: &mut Engine, argv: &[Bytes]) -> Reply {
    let given = argv.get(1).cloned().unwrap_or_default();
    let rest = argv.get(2..).unwrap_or_default();
    if engine.scripts.is_none() {
        match crate::script::Scripts::new(&engine.config) {
            Ok(scripts) => engine.scripts = Some(scripts),
            Err(err) => return Reply::Error(format!("ERR {err}").into()),
        }
    }
    let Some(scripts) = &mut engine.scripts else { return Reply::error("ERR no scripts") };
    match (String::from_utf8_lossy(&given).to_ascii_uppercase().as_str(), rest) {
        ("LOAD", [source]) => match scripts.load(source) {
            Ok(sum) => Reply::text(sum),
            Err(refused) => refused,
        },
        ("EXISTS", sums @ [_, ..]) => {
            let known = sums.iter().map(|sum| Reply::Int(i64::from(scripts.knows(sum))));
            Reply::Array(known.collect())
        }
        ("FLUSH", mode) => {
            let fits = match mode {
                [] => true,
                [mode] => mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async"),
                _ => false,
            };
            if !fits {
                return Reply::error("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
            }
            scripts.forget();
            Reply::OK
        }
        ("KILL", []) => Reply::error("NOTBUSY No scripts in execution right now."),
        ("LOAD" | "EXISTS" | "KILL", _) => {
            let word = String::from_utf8_lossy(&given).to_ascii_lowercase();
            wrong_arity(&format!("script|{word}"))
        }
        _ => unknown_subcommand("script", &given),
    }
}
