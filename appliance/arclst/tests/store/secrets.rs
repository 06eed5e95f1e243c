//! Secrets: kept encrypted, shown to nobody who does not ask for them.

use arapi::Kind;
use arapi::arclst::{Change, WatchEvent};
use arclst::Server;

use crate::support::{Store, answer_of, config_in, counter, delete, put_secret, security};

/// A text that is nowhere unless it leaks.
const VALUE: &str = "Kah9-veiP-2quu";

fn value_of(answer: Result<arapi::objects::SecretText, arapi::ClientError>) -> String {
    answer.unwrap().0
}

#[tokio::test]
async fn a_secret_is_kept_read_replaced_and_removed() {
    let store = Store::new().await;
    store.commit(vec![put_secret("shared one/ü", VALUE), put_secret("b", "x")]).await.unwrap();
    assert_eq!(store.client.secret_names().await.unwrap(), ["b", "shared one/ü"]);
    assert_eq!(value_of(store.client.secret("shared one/ü").await), VALUE);
    store.commit(vec![put_secret("b", "y")]).await.unwrap();
    let store = store.restart().await;
    assert_eq!(value_of(store.client.secret("b").await), "y");
    let gone = || vec![Change::DeleteSecret { name: "b".to_owned() }];
    store.commit(gone()).await.unwrap();
    let sentence = ("not_found".to_owned(), "secret `b` does not exist".to_owned());
    assert_eq!(answer_of(store.client.secret("b").await), sentence);
    assert_eq!(store.refusal(gone()).await, sentence);
    assert_eq!(
        store.refusal(vec![put_secret("a\nb", "x")]).await.1,
        "a secret's name has 1 to 300 bytes and no control characters, unlike `a\\nb`"
    );
}

#[tokio::test]
async fn an_objects_own_secrets_go_with_it_and_others_stay() {
    let store = Store::new().await;
    store
        .commit(vec![
            security("crm"),
            put_secret("Security/crm/password", VALUE),
            put_secret("Security/crm/eu/password", "of Security `crm/eu`"),
            put_secret("Channel/crm/password", "of a Channel"),
            put_secret("crm", "shared"),
        ])
        .await
        .unwrap();
    let last = store.commit(vec![delete(Kind::Security, "crm")]).await.unwrap();
    assert_eq!(last.changes.len(), 1);
    assert_eq!(
        store.client.secret_names().await.unwrap(),
        ["Channel/crm/password", "Security/crm/eu/password", "crm"]
    );
    // What is made in the same transaction as its object is removed goes as well; what is made after stays.
    store
        .commit(vec![
            security("crm"),
            put_secret("Security/crm/password", VALUE),
            delete(Kind::Security, "crm"),
            security("crm"),
            put_secret("Security/crm/token", VALUE),
        ])
        .await
        .unwrap();
    let names = store.client.secret_names().await.unwrap();
    assert!(!names.contains(&"Security/crm/password".to_owned()), "{names:?}");
    assert!(names.contains(&"Security/crm/token".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_watcher_is_told_the_names_of_the_secrets_that_changed() {
    let store = Store::new().await;
    let mut watch = store.client.watch(&[Kind::Channel]).await.unwrap();
    watch.next().await.unwrap().unwrap();
    store.commit(vec![security("crm"), put_secret("Security/crm/password", VALUE)]).await.unwrap();
    store.commit(vec![delete(Kind::Security, "crm")]).await.unwrap();
    for revision in [2, 3] {
        let event = watch.next().await.unwrap().unwrap();
        let secrets = vec!["Security/crm/password".to_owned()];
        assert_eq!(event, WatchEvent::Commit { revision, changes: vec![], secrets });
    }
}

#[tokio::test]
async fn a_secrets_value_is_in_no_file_history_event_log_or_error() {
    // The log is one for a process: this test has a process of its own, and a quiet one.
    const OWN_PROCESS: &str = "ARCLST_TEST_OWN_PROCESS";
    if std::env::var_os(OWN_PROCESS).is_none() {
        let name = "secrets::a_secrets_value_is_in_no_file_history_event_log_or_error";
        let mut program = std::process::Command::new(std::env::current_exe().unwrap());
        let ran = program.args(["--exact", name]).env(OWN_PROCESS, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    arbase::logging::install("arclst", log::LevelFilter::Trace);
    let store = Store::new().await;
    let state = store.dir.path().join("state");
    let mut watch = store.client.watch(&[]).await.unwrap();
    // Before the commit: a snapshot that is taken after it holds it already, and no event follows.
    let mut told = format!("{:?}", watch.next().await.unwrap().unwrap());
    let changes = vec![security("crm"), put_secret("Security/crm/password", VALUE)];
    told += &format!("{changes:?}");
    told += &format!("{:?}", store.commit(changes).await.unwrap());
    told += &format!("{:?}", watch.next().await.unwrap().unwrap());
    told += &format!("{:?}", store.client.history(Kind::Security, "crm", 10).await.unwrap());
    told += &format!("{:?}", store.client.list(None).await.unwrap());
    told += &format!("{:?}", store.client.secret("Security/crm/password").await.unwrap());
    let refused = vec![put_secret("s", VALUE), counter("a", 1), delete(Kind::Channel, "nobody")];
    told += &format!("{:?}", store.refusal(refused).await);
    let path = "/v1/logs?tail=4000&level=trace";
    let mut log = store.client.0.stream::<serde_json::Value>(path).await.unwrap();
    let mut lines = 0;
    while let Some(line) = log.next().await.unwrap() {
        told += &line.to_string();
        lines += 1;
    }
    assert!(lines > 0, "the log is empty");
    assert!(told.contains("objects changed") && told.contains("Security/crm"));
    assert!(!told.contains(VALUE));

    let no_file_tells = |when: &str| {
        for entry in std::fs::read_dir(&state).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(VALUE.len()).any(|part| part == VALUE.as_bytes());
            assert!(!found, "{} holds the value ({when})", path.display());
        }
    };
    no_file_tells("running");
    let _dir = store.stop().await;
    no_file_tells("stopped");
}

#[tokio::test]
async fn the_start_is_refused_without_the_key_that_made_the_secrets() {
    let store = Store::new().await;
    store.commit(vec![put_secret("crm", VALUE)]).await.unwrap();
    let dir = store.stop().await;
    let key = dir.path().join("state/secrets.key");
    let kept = std::fs::read(&key).unwrap();
    let refusal = async || Server::start(config_in(dir.path())).await.unwrap_err().to_string();

    std::fs::remove_file(&key).unwrap();
    assert_eq!(
        refusal().await,
        format!(
            "the key `{}` is missing, and the store has secrets (1) that only it opens; put it back from a backup, or delete the store to start empty",
            key.display()
        )
    );
    assert!(!key.try_exists().unwrap(), "no other key was made");
    std::fs::write(&key, [1u8; 32]).unwrap();
    assert_eq!(
        refusal().await,
        format!(
            "the key `{}` does not open the secret `crm`: it is not the key it was made with; put that back from a backup",
            key.display()
        )
    );
    std::fs::write(&key, kept).unwrap();
    let store = Store::start_in(dir, |_| {}).await.unwrap();
    assert_eq!(value_of(store.client.secret("crm").await), VALUE);
}
