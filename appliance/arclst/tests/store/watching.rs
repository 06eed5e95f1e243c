//! Watching: no change is missed, none is told twice, and nobody is held up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arapi::Kind;
use arapi::arclst::WatchEvent;
use arapi::client::Lines;
use arapi::objects::Object;

use crate::support::{Store, channel, counter, delete, put_secret, security};

/// What a watcher knows.
#[derive(Default)]
struct Seen {
    revision: u64,
    objects: BTreeMap<(Kind, String), Object>,
    snapshots: usize,
}

impl Seen {
    /// Takes the next event; every revision has to be there, once.
    async fn next(&mut self, watch: &mut Lines<WatchEvent>) {
        match watch.next().await.unwrap().expect("the stream goes on") {
            WatchEvent::Snapshot(listing) => {
                assert!(self.snapshots == 0 || listing.revision > self.revision);
                self.snapshots += 1;
                self.revision = listing.revision;
                let keyed = |object: Object| ((object.kind, object.name.to_string()), object);
                self.objects = listing.objects.into_iter().map(keyed).collect();
            }
            WatchEvent::Commit { revision, changes, .. } => {
                assert!(self.snapshots > 0, "a commit came before the snapshot");
                assert_eq!(revision, self.revision + 1, "a revision was skipped or came twice");
                self.revision = revision;
                for change in changes {
                    let key = (change.kind, change.name.to_string());
                    match change.object {
                        Some(object) => self.objects.insert(key, object),
                        None => self.objects.remove(&key),
                    };
                }
            }
        }
    }

    fn values(&self) -> Vec<Object> {
        self.objects.values().cloned().collect()
    }
}

#[tokio::test]
async fn a_watcher_gets_what_is_there_and_then_every_commit() {
    let store = Store::new().await;
    store.commit(vec![channel("a", &[])]).await.unwrap();
    let mut watch = store.client.watch(&[Kind::Channel, Kind::Security]).await.unwrap();
    let WatchEvent::Snapshot(listing) = watch.next().await.unwrap().unwrap() else {
        panic!("the first event is a snapshot");
    };
    assert_eq!((listing.revision, listing.objects.len()), (2, 1));
    store.commit(vec![channel("b", &["s"]), counter("x", 1), security("s")]).await.unwrap();
    store.commit(vec![counter("x", 2), put_secret("k", "v")]).await.unwrap();
    store.commit(vec![delete(Kind::Channel, "b")]).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Commit { revision, changes, secrets } => {
                let changes: Vec<_> = changes
                    .iter()
                    .map(|change| {
                        let to = change.object.as_ref().map(|object| object.revision);
                        (format!("{}/{}", change.kind, change.name), to)
                    })
                    .collect();
                told.push((revision, changes, secrets));
            }
            WatchEvent::Snapshot(_) => panic!("one snapshot is enough"),
        }
    }
    let none: Vec<String> = Vec::new();
    assert_eq!(
        told,
        [
            (
                3,
                vec![("Channel/b".to_owned(), Some(3)), ("Security/s".to_owned(), Some(3))],
                none.clone()
            ),
            (4, vec![], vec!["k".to_owned()]),
            (5, vec![("Channel/b".to_owned(), None)], none),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_watcher_misses_a_change_however_it_meets_the_writers() {
    const WRITERS: u64 = 4;
    const COMMITS: u64 = 40;
    let store = Store::new().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = store.client.clone();
            tokio::spawn(async move {
                for n in 0..COMMITS {
                    let name = format!("w{writer}-{}", n % 5);
                    let change = match n % 10 {
                        7 => vec![delete(Kind::UserConfig, &name)],
                        _ => vec![counter(&name, n)],
                    };
                    client.commit(&crate::support::transaction("user:anna", change)).await.unwrap();
                }
            })
        })
        .collect();
    let last = 1 + WRITERS * COMMITS;
    let mut watchers = Vec::new();
    // Each begins when the last has seen something: at ever other moments among the commits.
    for _ in 0..20 {
        let mut watch = store.client.watch(&[Kind::UserConfig]).await.unwrap();
        let mut seen = Seen::default();
        seen.next(&mut watch).await;
        watchers.push(tokio::spawn(async move {
            while seen.revision < last {
                seen.next(&mut watch).await;
            }
            seen
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let there = store.client.list(Some(Kind::UserConfig)).await.unwrap();
    assert_eq!(there.revision, last);
    for watcher in watchers {
        let seen = watcher.await.unwrap();
        assert_eq!(seen.snapshots, 1);
        assert_eq!(seen.values(), there.objects);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_holds_up_nobody_and_gets_a_new_snapshot() {
    let store = Store::new().await;
    let mut lazy = store.client.watch(&[Kind::UserConfig]).await.unwrap();
    let mut seen = Seen::default();
    seen.next(&mut lazy).await;
    // More than sockets take, and more commits than are kept for those who lag.
    let long = "x".repeat(20_000);
    let spec = |n: u32| serde_json::json!({"sections": {"n": {"n": n.to_string(), "long": long}}});
    let started = Instant::now();
    for n in 0..600 {
        store.commit(vec![crate::support::put(Kind::UserConfig, "a", spec(n))]).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(60));
    while seen.revision < 601 {
        seen.next(&mut lazy).await;
    }
    assert_eq!(seen.snapshots, 2);
    assert_eq!(seen.values(), store.client.list(Some(Kind::UserConfig)).await.unwrap().objects);
    // And it goes on from there.
    store.commit(vec![counter("b", 1)]).await.unwrap();
    seen.next(&mut lazy).await;
    assert_eq!((seen.revision, seen.snapshots, seen.objects.len()), (602, 2, 2));
}

#[tokio::test]
async fn the_stream_ends_when_the_store_stops_and_the_stop_does_not_wait_for_it() {
    let store = Store::new().await;
    let mut watch = store.client.watch(&[]).await.unwrap();
    watch.next().await.unwrap();
    let started = Instant::now();
    let _dir = store.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(watch.next().await.unwrap(), None);
}
