//! What was answered is there, whatever happens to the process or its disk.
//!
//! A process that is to be killed is this test program again, told by an environment variable to
//! be the store and its users at once.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arapi::{ErrorCode, Kind};
use arclst::SCHEMA;
use arstore::{Check, Database, Options, params};
use rand::Rng as _;

use crate::support::{Store, answer_of, config_in, counter, put, transaction};

/// Names the folder of the store to the process that is to be killed.
const CHILD_DIR: &str = "ARCLST_TEST_CHILD_DIR";
/// How many write at one time.
const WRITERS: usize = 8;
const KILLS: usize = 20;

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// This test program again, running only `test`.
fn child(test: &str, dir: &Path, before: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{before} exec \"$0\" --exact \"$1\" --nocapture --test-threads 1")])
        .arg(program)
        .arg(test)
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[expect(clippy::print_stdout, reason = "the killed process talks to its killer so")]
fn say(line: &str) {
    println!("\n{line}");
}

/// Counts up as many objects as there are writers for ever, saying each number once it is answered.
async fn write_for_ever(dir: &Path, padding: &str) {
    let server = arclst::Server::start(config_in(dir)).await.unwrap();
    let (_stopper, stop) = arbase::Stop::new();
    tokio::spawn(server.run_until(stop));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = arapi::arclst::Client::in_runtime_dir(dir);
            let padding = padding.to_owned();
            tokio::spawn(async move {
                let name = format!("w{writer}");
                let first = match client.object(Kind::UserConfig, &name).await {
                    Ok(object) => number_in(&object.spec.to_json()) + 1,
                    Err(_) => 1,
                };
                for n in first.. {
                    let spec =
                        serde_json::json!({"sections": {"n": {"n": n.to_string(), "p": padding}}});
                    // Both or neither: the second tells of a transaction that was torn.
                    let twin = format!("twin-{writer}");
                    let both = vec![put(Kind::UserConfig, &name, spec), counter(&twin, n)];
                    match client.commit(&transaction("user:anna", both)).await {
                        Ok(done) => say(&format!("ack {writer} {n} {}", done.revision)),
                        Err(arapi::ClientError::Answer { status, body }) => {
                            say(&format!("refused {status} {}", body.message));
                            return;
                        }
                        Err(err) => panic!("{err}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // A little may still fit where much did not: small changes, until the status says that none does.
    let client = arapi::arclst::Client::in_runtime_dir(dir);
    for n in 0..1000 {
        let status = client.status().await.unwrap();
        if let Some(reason) = status.reason {
            say(&format!("refused {} {reason}", status.writable));
            return;
        }
        client.commit(&transaction("user:anna", vec![counter("small", n)])).await.ok();
    }
}

fn number_in(spec: &serde_json::Value) -> u64 {
    spec["sections"]["n"]["n"].as_str().unwrap().parse().unwrap()
}

/// What each writer was answered last.
#[derive(Debug, Default)]
struct Acknowledged {
    numbers: [u64; WRITERS],
    revision: u64,
    count: u64,
    refusals: Vec<String>,
}

impl Acknowledged {
    /// Takes a line of the child; `true` if it tells of a commit.
    fn hear(&mut self, line: &str) -> bool {
        if let Some(refusal) = line.strip_prefix("refused ") {
            self.refusals.push(refusal.to_owned());
        }
        let Some(ack) = line.strip_prefix("ack ") else { return false };
        let mut numbers = ack.split(' ').map_while(|word| word.parse::<u64>().ok());
        // The last line may have been cut by the kill.
        let (Some(writer), Some(n), Some(revision)) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        self.numbers[usize::try_from(writer).unwrap()] = n;
        self.revision = self.revision.max(revision);
        self.count += 1;
        true
    }
}

/// Opens the store of a dead process and looks whether everything acknowledged is in it, whole.
async fn check(dir: &Path, acknowledged: &Acknowledged) {
    let options = Options { check: Check::Full, ..Options::default() };
    let db = Database::open_with(&dir.join("state/objects.sqlite"), &SCHEMA, &options).unwrap();
    assert_eq!(db.integrity_faults().unwrap(), [""; 0]);
    drop(db);
    let dir = dir.to_owned();
    let server = arclst::Server::start(config_in(&dir)).await.unwrap();
    let state = server.engine();
    let state = state.state(arclst::Freshness::Linearizable).await.unwrap();
    let objects = state.list([Kind::UserConfig].into()).await.unwrap();
    assert!(objects.revision >= acknowledged.revision, "{objects:?} {acknowledged:?}");
    let kept = |name: String| {
        let found = objects.objects.iter().find(|object| object.name.as_str() == name);
        found.map_or(0, |object| number_in(&object.spec.to_json()))
    };
    for (writer, n) in acknowledged.numbers.iter().enumerate() {
        let kept_n = kept(format!("w{writer}"));
        assert!(kept_n >= *n, "writer {writer}: {n} was acknowledged and {kept_n} is kept");
        assert_eq!(kept(format!("twin-{writer}")), kept_n, "half of a transaction is kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_being_killed_twenty_times() {
    if let Some(dir) = child_dir() {
        return write_for_ever(&dir, "").await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for _ in 0..KILLS {
        let name = "durability::what_was_acknowledged_survives_being_killed_twenty_times";
        let mut child = child(name, dir.path(), "");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let before = acknowledged.count;
        let after = Duration::from_micros(rand::rng().random_range(0..40_000));
        let mut kill_at = None;
        let mut line = String::new();
        while kill_at.is_none_or(|at| Instant::now() < at) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the child has ended by itself");
            if acknowledged.hear(line.trim_end()) {
                kill_at.get_or_insert_with(|| Instant::now() + after);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        for line in rest.lines() {
            acknowledged.hear(line);
        }
        assert!(acknowledged.count > before);
        check(dir.path(), &acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stops_writing_is_answered_with_503_and_loses_nothing() {
    let padding = "x".repeat(5000);
    if let Some(dir) = child_dir() {
        return write_for_ever(&dir, &padding).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "durability::a_disk_that_stops_writing_is_answered_with_503_and_loses_nothing";
    // No file may grow beyond 2048 blocks of 512 bytes, as if the device failed from there on.
    let mut child = child(name, dir.path(), "trap '' XFSZ; ulimit -f 2048;");
    let mut acknowledged = Acknowledged::default();
    let lines = BufReader::new(child.stdout.take().unwrap());
    for line in lines.lines() {
        acknowledged.hear(&line.unwrap());
    }
    assert!(child.wait().unwrap().success());
    assert!(acknowledged.count > 10, "{acknowledged:?}");
    let store = dir.path().join("state/objects.sqlite");
    let sentence = format!("the disk of the store `{}` does not serve it", store.display());
    let mut wanted = vec![format!("503 {sentence}"); WRITERS];
    // What the status said in the end.
    wanted.push(format!("false {sentence}"));
    assert_eq!(acknowledged.refusals, wanted);
    check(dir.path(), &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_answered_with_507_and_nothing_is_half_done() {
    let store = Store::with(|config| config.store_max_mib = Some(1)).await;
    let padding = "x".repeat(30_000);
    let spawn = |n: u64| {
        let client = store.client.clone();
        let spec = serde_json::json!({"sections": {"n": {"p": padding, "n": n.to_string()}}});
        tokio::spawn(async move {
            let both = vec![
                counter(&format!("small-{n:02}"), n),
                put(Kind::UserConfig, &format!("large-{n:02}"), spec),
            ];
            (n, client.commit(&transaction("user:anna", both)).await)
        })
    };
    // The first alone: the rest may come as one group, and a group that does not fit is refused whole.
    let (first, committed) = spawn(0).await.unwrap();
    committed.unwrap();
    let tasks: Vec<_> = (1..64).map(spawn).collect();
    let mut kept = vec![first];
    let mut sentences = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (n, Ok(_)) => kept.push(n),
            (_, refused) => sentences.push(answer_of(refused)),
        }
    }
    let full = (
        "no_room".to_owned(),
        format!(
            "no room left for the store `{}`; free some space on its disk",
            store.database().display()
        ),
    );
    assert!(!kept.is_empty() && !sentences.is_empty());
    assert!(sentences.iter().all(|sentence| *sentence == full), "{sentences:?}");
    assert_eq!(ErrorCode::NoRoom.status(), 507);
    kept.sort_unstable();
    let names = |prefix: &'static str| {
        let kept = kept.clone();
        kept.into_iter().map(move |n: u64| format!("{prefix}-{n:02}"))
    };
    let wanted: Vec<String> = names("large").chain(names("small")).collect();
    let there = store.client.list(Some(Kind::UserConfig)).await.unwrap().objects;
    assert_eq!(there.iter().map(|object| object.name.to_string()).collect::<Vec<_>>(), wanted);

    let store = store.restart().await;
    assert_eq!(store.client.list(Some(Kind::UserConfig)).await.unwrap().objects, there);
    store.commit(vec![counter("more", 1)]).await.unwrap();
    assert!(store.client.status().await.unwrap().writable);
    let db = Database::open(&store.database(), &SCHEMA).unwrap();
    assert_eq!(db.integrity_faults().unwrap(), [""; 0]);
    let orphans = db.read_blocking(|view| {
        view.query_row(
            "SELECT count(*) FROM history WHERE (kind, name) NOT IN (SELECT kind, name FROM object)",
            params![],
            |row| row.get::<u64>(0),
        )
    });
    assert_eq!(orphans.unwrap(), Some(0));
}
