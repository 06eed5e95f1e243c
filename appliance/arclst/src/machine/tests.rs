use std::path::Path;

use arapi::arclst::Expect;
use arapi::{Kind, ObjectName};
use arstore::Database;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::*;
use crate::command::{Edit, Sealed};
use crate::state::State;

fn open(dir: &Path, name: &str) -> Database {
    Database::open(&dir.join(name), &SCHEMA).unwrap()
}

/// Applies as a replicated engine does: a rejected command takes its index as well.
async fn apply(db: &Database, index: u64, command: Command) -> Result<Applied, Rejection> {
    let applied: Result<_, StateError> =
        db.transaction(move |tx| StateMachine::apply(tx, index, &command)).await;
    applied.unwrap()
}

async fn dump(db: &Database) -> Vec<String> {
    State::new(db.clone()).dump().await.unwrap()
}

/// A command of a few edits among few names, so that they meet: some are refused.
fn some_command(random: &mut StdRng, time_ms: u64) -> Command {
    let count = random.random_range(0..4);
    let edits = (0..count).map(|_| some_edit(random)).collect();
    Command {
        time_ms,
        who: ["user:anna", "system", "pickup"][random.random_range(0..3)].to_owned(),
        cid: random.random_bool(0.5).then(|| format!("cid-{time_ms}")),
        founds: random.random_bool(0.1).then(|| format!("cluster-{time_ms}")),
        history_keep: random.random_range(20..60),
        edits,
    }
}

fn some_edit(random: &mut StdRng) -> Edit {
    let short = |random: &mut StdRng| ["a", "b", "b/c", "ARx"][random.random_range(0..4)];
    let name = ObjectName::parse(short(random)).unwrap();
    let other = short(random);
    let expect = match random.random_range(0..6) {
        0 => Expect::Absent,
        1 => Expect::Revision(random.random_range(0..40)),
        _ => Expect::Any,
    };
    let n = random.random_range(0..3);
    let secret = format!("Security/{other}/password");
    let (kind, spec) = match random.random_range(0..4) {
        0 => (
            Kind::Channel,
            json!({"url_path": format!("/{n}"), "service": "s", "security": [other]}),
        ),
        1 => (
            Kind::Security,
            json!({"type": "basic", "username": n.to_string(), "password": {"secret": secret}}),
        ),
        2 => (Kind::SecurityGroup, json!({"members": [other, other]})),
        _ => (Kind::UserConfig, json!({"sections": {"n": {"n": n.to_string()}}})),
    };
    match random.random_range(0..10) {
        0..6 => Edit::Put { kind, name, spec, expect },
        6..8 => Edit::Delete { kind, name, expect },
        8 => Edit::PutSecret { name: secret, sealed: Sealed(vec![7; n]) },
        _ => Edit::DeleteSecret { name: secret },
    }
}

#[tokio::test]
async fn the_same_commands_make_the_same_state_on_every_box() {
    for seed in 0..6u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let commands: Vec<Command> =
            (1..=250).map(|at| some_command(&mut random, at * 10)).collect();

        let one = open(dir.path(), "one");
        let mut outcomes = Vec::new();
        for (index, command) in (1..).zip(&commands) {
            outcomes.push(apply(&one, index, command.clone()).await);
        }

        // The other reads the commands from a log, restarts now and then, and checks each before.
        let mut two = open(dir.path(), "two");
        for (index, command) in (1..).zip(&commands) {
            if index % 60 == 0 {
                two.close();
                two = open(dir.path(), "two");
            }
            let logged = serde_json::to_vec(command).unwrap();
            let command: Command = serde_json::from_slice(&logged).unwrap();
            let checked = {
                let command = command.clone();
                let checked: Result<_, StateError> =
                    two.read(move |view| StateMachine::check(view, &command)).await;
                checked.unwrap()
            };
            let outcome = apply(&two, index, command).await;
            let place = usize::try_from(index).unwrap() - 1;
            assert_eq!(outcome, outcomes[place], "seed {seed}, command {index}");
            let told = |outcome: Result<Applied, Rejection>| {
                outcome.map(|done| (done.changes, done.secrets))
            };
            assert_eq!(told(checked), told(outcome), "seed {seed}, command {index}");
        }
        assert_eq!(dump(&one).await, dump(&two).await, "seed {seed}");

        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!((30..220).contains(&refused), "seed {seed}: {refused} of 250 were refused");
        let lines = dump(&one).await;
        assert!(lines.iter().any(|line| line == "fact: 'applied' '250'"), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("fact: 'cluster'")));
        assert!(lines.iter().any(|line| line.starts_with("secret: ")), "{lines:?}");
    }
}

#[tokio::test]
async fn a_rejected_command_changes_nothing_but_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), "db");
    let name = ObjectName::parse("a").unwrap();
    let put = |expect| Edit::Put { kind: Kind::Node, name: name.clone(), spec: json!({}), expect };
    let command = |edits| Command {
        time_ms: 1,
        who: "system".to_owned(),
        cid: None,
        founds: Some("c".to_owned()),
        history_keep: 10,
        edits,
    };
    let missing = Edit::DeleteSecret { name: "none".to_owned() };
    let refused = apply(&db, 1, command(vec![put(Expect::Any), missing])).await;
    assert_eq!(refused.unwrap_err().to_string(), "secret `none` does not exist");
    assert_eq!(dump(&db).await, ["fact: 'applied' '1'"]);
    apply(&db, 2, command(vec![put(Expect::Absent)])).await.unwrap();
    let founded = apply(&db, 3, Command { founds: Some("d".into()), ..command(vec![]) }).await;
    assert_eq!(founded.unwrap().revision, 1);
    let facts: Vec<String> =
        dump(&db).await.into_iter().filter(|line| line.starts_with("fact")).collect();
    assert_eq!(facts, ["fact: 'applied' '3'", "fact: 'cluster' 'c'", "fact: 'revision' '1'"]);
}

#[tokio::test]
async fn what_is_referred_to_follows_from_the_objects() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), "db");
    let mut random = StdRng::seed_from_u64(99);
    let mut seen = 0;
    for index in 1..300 {
        let command = some_command(&mut random, index);
        apply(&db, index, command).await.ok();
        if index % 10 == 0 {
            let (stored, wanted) = references(&db).await;
            assert_eq!(stored, wanted, "after command {index}");
            seen += wanted.len();
        }
    }
    assert!(seen > 10, "{seen} references are too few to show anything");
}

/// The references as they are stored, and as they follow from the objects.
async fn references(db: &Database) -> (Vec<[String; 4]>, Vec<[String; 4]>) {
    let (stored, objects) = db
        .read(|view| {
            let stored = view.query_rows(
                "SELECT kind, name, to_kind, to_name FROM reference ORDER BY 1, 2, 3, 4",
                &[],
                |row| Ok([row.get::<String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?]),
            )?;
            let all = std::collections::BTreeSet::new();
            Ok::<_, StateError>((stored, crate::state::listing(view, &all)?.objects))
        })
        .await
        .unwrap();
    let mut wanted = Vec::new();
    for object in objects {
        for (kind, name) in object.spec.references() {
            let from = (object.kind.to_string(), object.name.to_string());
            wanted.push([from.0, from.1, kind.to_string(), name.to_string()]);
        }
    }
    wanted.sort();
    wanted.dedup();
    (stored, wanted)
}
