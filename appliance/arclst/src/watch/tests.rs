use arstore::Database;

use super::*;
use crate::engine::LocalEngine;
use crate::machine::SCHEMA;

#[tokio::test(start_paused = true)]
async fn a_silent_stream_shows_every_ten_seconds_that_it_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(&dir.path().join("db"), &SCHEMA).unwrap();
    let (_stopper, stop) = Stop::new();
    let mut watch = Watch::new(Arc::new(LocalEngine::new(db)), BTreeSet::new(), stop);
    let snapshot = watch.next_line().await.unwrap();
    assert_eq!(snapshot, "{\"event\":\"snapshot\",\"revision\":0,\"objects\":[]}\n");
    for _ in 0..3 {
        let before = tokio::time::Instant::now();
        assert_eq!(watch.next_line().await.as_deref(), Some("\n"));
        assert_eq!(before.elapsed().as_secs(), 10);
    }
}

#[tokio::test]
async fn a_stream_ends_when_the_store_stops_or_fails() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(&dir.path().join("db"), &SCHEMA).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(LocalEngine::new(db.clone()));
    let (stopper, stop) = Stop::new();
    let mut watch = Watch::new(Arc::clone(&engine), BTreeSet::new(), stop.clone());
    watch.next_line().await.unwrap();
    stopper.stop();
    assert_eq!(watch.next_line().await, None);
    db.close();
    assert_eq!(Watch::new(engine, BTreeSet::new(), stop).next_line().await, None);
}
