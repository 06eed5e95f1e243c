//! Starting again: on an older store, a newer one, a foreign one, with another name or a shorter
//! memory.

use arapi::Kind;
use arbase::Chain;
use arclst::{SCHEMA, Server};
use arstore::{Database, Schema, params};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Store, channel, config_in, counter, name};

/// Writes a channel into the database of a stopped store, as some release may have written it.
async fn write(dir: TempDir, name: &'static str, document: &'static str) -> TempDir {
    let db = Database::open(&dir.path().join("state/objects.sqlite"), &SCHEMA).unwrap();
    db.transaction(move |tx| {
        tx.execute(
            "INSERT INTO object (kind, name, revision, document) VALUES ('Channel', ?, 1, ?)",
            params![name, document],
        )
    })
    .await
    .unwrap();
    db.close();
    dir
}

async fn refusal(dir: &TempDir) -> String {
    let err = Server::start(config_in(dir.path())).await.unwrap_err();
    Chain(&err).to_string()
}

#[tokio::test]
async fn an_object_stored_before_fields_were_added_is_read_with_their_defaults() {
    let dir = Store::new().await.stop().await;
    // A channel as it was stored when it had two fields.
    let document = r#"{"v":1,"d":{"kind":"Channel","name":"old","spec":{"url_path":"/old","service":"s"},"created_ms":5,"changed_ms":6,"changed_by":"user:anna"}}"#;
    let dir = write(dir, "old", document).await;
    let store = Store::start_in(dir, |_| {}).await.unwrap();
    let read = store.client.object(Kind::Channel, "old").await.unwrap();
    let spec = read.spec.to_json();
    assert_eq!(spec["match_slash"], json!(true));
    assert_eq!(spec["params_pri"], json!("channel-params-over-msg"));
    assert_eq!((read.created_ms, read.changed_ms), (5, 6));
    // The same in today's form changes nothing.
    let again = store.commit(vec![crate::support::put(Kind::Channel, "old", spec)]).await;
    assert_eq!(again.unwrap().changes, []);
}

#[tokio::test]
async fn a_store_with_an_unreadable_object_is_refused_with_its_name() {
    for (document, sentence) in [
        (
            r#"{"v":9,"d":{}}"#,
            "the stored Channel `x` cannot be read: the document has version 9 and this release knows up to 1: a newer release has written it",
        ),
        (
            r#"{"v":1,"d":{"kind":"Channel","name":"x","spec":{"url_path":"x","service":"s"},"created_ms":5,"changed_ms":6,"changed_by":"a"}}"#,
            "a stored object breaks the rules of this release: Channel `x`: field `url_path`: `x` does not start with `/`",
        ),
    ] {
        let dir = Store::new().await.stop().await;
        let dir = write(dir, "x", document).await;
        assert_eq!(refusal(&dir).await, sentence);
    }
}

#[tokio::test]
async fn a_store_of_a_newer_release_is_refused() {
    const NEWER: Schema =
        Schema { name: "arclst", migrations: &["", "", "", "", "", "", "", "", ""] };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/objects.sqlite");
    Database::open(&path, &NEWER).unwrap().close();
    assert_eq!(
        refusal(&dir).await,
        format!(
            "the store `{}` has schema 9 and this release knows up to 1: a newer release has written it; install that one again, or restore a backup made before it",
            path.display()
        )
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_socket_is_refused() {
    let store = Store::new().await;
    assert_eq!(
        refusal(&store.dir).await,
        format!(
            "another process serves `{}` already; stop it first",
            store.dir.path().join("arclst.sock").display()
        )
    );
}

#[tokio::test]
async fn a_box_keeps_its_name_until_the_config_gives_it_another() {
    let store = Store::new().await;
    let start = async |dir, name| {
        let started = Store::start_in(dir, |config| config.node_name = name).await;
        started.map_err(|err| err.to_string())
    };
    let store = start(store.stop().await, None).await.unwrap();
    assert_eq!(store.client.status().await.unwrap().node, "box-1");
    let store = start(store.stop().await, Some(name("box-2"))).await.unwrap();
    assert_eq!(store.client.status().await.unwrap().node, "box-2");
    let made = store.client.object(Kind::Node, "box-2").await.unwrap();
    assert_eq!(made.changed_by, "system:start");
    let store = start(store.stop().await, None).await.unwrap();
    assert_eq!(store.client.status().await.unwrap().node, "box-2");
    let dir = store.stop().await;
    std::fs::write(dir.path().join("state/node"), b" \n").unwrap();
    let shown = dir.path().join("state/node").display().to_string();
    assert_eq!(
        start(dir, None).await.err(),
        Some(format!(
            "the file `{shown}` does not hold the name of this box; set `node_name` in arclst.toml"
        ))
    );
}

#[tokio::test]
async fn the_history_keeps_as_many_commits_as_the_config_says() {
    let store = Store::with(|config| config.history_keep = 3).await;
    store.commit(vec![channel("a", &[])]).await.unwrap();
    for n in 0..5 {
        store.commit(vec![counter("x", n)]).await.unwrap();
    }
    let revisions = async |kind, of: &str| {
        let history = store.client.history(kind, of, 100).await.unwrap();
        history.iter().map(|entry| entry.revision).collect::<Vec<_>>()
    };
    assert_eq!(revisions(Kind::UserConfig, "x").await, [7, 6, 5]);
    assert_eq!(revisions(Kind::Channel, "a").await, [0; 0]);
    assert_eq!(store.client.object(Kind::Channel, "a").await.unwrap().revision, 2);
    assert_eq!(store.client.status().await.unwrap().revision, 7);
}

#[tokio::test]
async fn what_fails_inside_does_not_leave_the_box() {
    let store = Store::new().await;
    let db = Database::open(&store.database(), &SCHEMA).unwrap();
    let broken = db.transaction(|tx| tx.execute("UPDATE object SET document = 'x'", &[])).await;
    assert_eq!(broken.unwrap(), 5);
    let (code, sentence) = crate::support::answer_of(store.client.list(None).await);
    assert_eq!(code, "internal");
    assert!(sentence.starts_with("the request failed inside; the log has the cause under `"));
}
