//! Many who change the same at one time.

use arapi::arclst::{Client, Expect};
use arapi::{ClientError, ErrorCode, Kind};

use crate::support::{Store, counter, counter_if, transaction};

const TASKS: u64 = 16;
const STEPS: u64 = 20;

/// Adds one, based on what was read, until nobody was faster.  Returns how often somebody was.
async fn add_one(client: &Client) -> u64 {
    for lost in 0.. {
        let object = client.object(Kind::UserConfig, "shared").await.unwrap();
        let spec = object.spec.to_json();
        let value: u64 = spec["sections"]["n"]["n"].as_str().unwrap().parse().unwrap();
        let change = counter_if("shared", value + 1, Expect::Revision(object.revision));
        match client.commit(&transaction("user:anna", vec![change])).await {
            Ok(_) => return lost,
            Err(ClientError::Answer { body, .. }) if body.code == ErrorCode::Conflict => {}
            Err(err) => panic!("{err}"),
        }
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_who_count_together_lose_no_step() {
    let store = Store::new().await;
    store.commit(vec![counter("shared", 0)]).await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let client = store.client.clone();
            tokio::spawn(async move {
                let mut lost = 0;
                for _ in 0..STEPS {
                    lost += add_one(&client).await;
                }
                lost
            })
        })
        .collect();
    let mut lost = 0;
    for task in tasks {
        lost += task.await.unwrap();
    }
    let object = store.client.object(Kind::UserConfig, "shared").await.unwrap();
    let spec = object.spec.to_json();
    assert_eq!(spec["sections"]["n"]["n"], (TASKS * STEPS).to_string());
    assert_eq!(object.revision, 2 + TASKS * STEPS);
    assert!(lost > 0, "nobody was ever in another's way, so that nothing was shown");
}
