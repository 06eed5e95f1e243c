//! Transactions over the socket: what is kept, what is refused and with which sentence.

use crate::support::{
    Store, answer_of, channel, counter, counter_if, delete, name, put, put_if, put_secret,
    security, transaction,
};
use arapi::Kind;
use arapi::arclst::{Change, Expect};
use serde_json::json;

fn said(code: &str, sentence: &str) -> (String, String) {
    (code.to_owned(), sentence.to_owned())
}

#[tokio::test]
async fn a_new_store_has_a_cluster_its_box_and_the_four_roles() {
    let store = Store::new().await;
    let all = store.client.list(None).await.unwrap();
    let names: Vec<String> =
        all.objects.iter().map(|object| format!("{}/{}", object.kind, object.name)).collect();
    assert_eq!(
        names,
        ["Node/box-1", "Role/admin", "Role/developer", "Role/operator", "Role/viewer"]
    );
    assert!(all.objects.iter().all(|object| object.changed_by == "system:first-run"));
    let permissions = |role: &str| {
        let found = all.objects.iter().find(|object| object.name.as_str() == role).unwrap();
        found.spec.to_json()["permissions"].clone()
    };
    assert_eq!(permissions("viewer"), json!(["read", "logs"]));
    assert_eq!(permissions("operator"), json!(["read", "logs", "operate"]));
    assert_eq!(permissions("developer"), json!(["read", "logs", "operate", "develop"]));
    assert_eq!(
        permissions("admin"),
        json!(["read", "logs", "operate", "develop", "configure", "access", "audit", "system"])
    );
    let status = store.client.status().await.unwrap();
    assert_eq!((status.node.as_str(), status.revision, status.objects), ("box-1", 1, 5));
    assert_eq!((status.writable, status.reason), (true, None));
    assert_eq!(status.cluster.len(), 32);

    let store = store.restart().await;
    assert_eq!(store.client.status().await.unwrap().cluster, status.cluster);
    assert_eq!(store.client.list(None).await.unwrap(), all);
}

#[tokio::test]
async fn an_object_is_made_changed_read_and_removed() {
    let store = Store::new().await;
    let made = store.commit(vec![counter("a/b c", 1)]).await.unwrap();
    assert_eq!(made.revision, 2);
    assert_eq!(made.changes.len(), 1);
    assert_eq!(made.changes[0].before, None);
    let first = made.changes[0].after.clone().unwrap();
    assert_eq!((first.revision, first.changed_by.as_str()), (2, "user:anna"));
    assert_eq!(store.client.object(Kind::UserConfig, "a/b c").await.unwrap(), first);

    let changed = store.commit(vec![counter_if("a/b c", 2, Expect::Revision(2))]).await.unwrap();
    let second = changed.changes[0].after.clone().unwrap();
    assert_eq!(changed.changes[0].before, Some(first.clone()));
    assert_eq!((second.revision, second.created_ms), (3, first.created_ms));

    let removed = store.commit(vec![delete(Kind::UserConfig, "a/b c")]).await.unwrap();
    assert_eq!(removed.changes[0].after, None);
    assert_eq!(
        answer_of(store.client.object(Kind::UserConfig, "a/b c").await),
        said("not_found", "UserConfig `a/b c` does not exist")
    );
    let history = store.client.history(Kind::UserConfig, "a/b c", 10).await.unwrap();
    let entries: Vec<_> = history.iter().map(|entry| (entry.revision, &entry.object)).collect();
    assert_eq!(entries, [(4, &None), (3, &Some(second)), (2, &Some(first))]);
    assert!(history.iter().all(|entry| entry.who == "user:anna" && entry.time_ms > 0));
    assert_eq!(store.client.history(Kind::UserConfig, "a/b c", 1).await.unwrap(), history[..1]);
}

#[tokio::test]
async fn a_transaction_is_kept_whole_or_not_at_all() {
    let store = Store::new().await;
    let refused = store
        .refusal(vec![counter("one", 1), put_secret("s", "v"), channel("x", &["nobody"])])
        .await;
    assert_eq!(
        refused,
        said(
            "invalid",
            "Channel `x` refers to Security `nobody`, which does not exist; make that first or in the same transaction"
        )
    );
    assert_eq!(store.client.status().await.unwrap().revision, 1);
    assert_eq!(store.client.list(Some(Kind::UserConfig)).await.unwrap().objects, []);
    assert_eq!(store.client.secret_names().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_change_based_on_an_old_revision_is_refused_with_who_was_first() {
    let store = Store::new().await;
    store.commit(vec![counter("a", 1)]).await.unwrap();
    store.commit(vec![counter("a", 2)]).await.unwrap();
    assert_eq!(
        store.refusal(vec![counter_if("a", 3, Expect::Revision(2))]).await,
        said(
            "conflict",
            "UserConfig `a` is at revision 3, changed by `user:anna`, and not at 2 any more; read it again and repeat the change"
        )
    );
    assert_eq!(
        store.refusal(vec![counter_if("a", 3, Expect::Absent)]).await,
        said("conflict", "UserConfig `a` exists already, at revision 3")
    );
    assert_eq!(
        store.refusal(vec![counter_if("b", 3, Expect::Revision(2))]).await,
        said("conflict", "UserConfig `b` is not there any more; it was expected at revision 2")
    );
    let removal = |expect| Change::Delete { kind: Kind::UserConfig, name: name("a"), expect };
    assert_eq!(
        store.refusal(vec![removal(Expect::Absent)]).await,
        said("invalid", "UserConfig `a`: a removal cannot expect that it is absent")
    );
    assert_eq!(
        store.refusal(vec![delete(Kind::UserConfig, "b")]).await,
        said("not_found", "UserConfig `b` does not exist")
    );
    store.commit(vec![removal(Expect::Revision(3))]).await.unwrap();
}

#[tokio::test]
async fn references_are_looked_at_from_the_end_of_the_transaction() {
    let store = Store::new().await;
    store.commit(vec![channel("orders", &["crm"]), security("crm")]).await.unwrap();
    assert_eq!(
        store.refusal(vec![delete(Kind::Security, "crm")]).await,
        said(
            "conflict",
            "Security `crm` cannot be removed: Channel `orders` refers to it; change that first"
        )
    );
    let more = (1..=6).map(|n| channel(&format!("more-{n}"), &["crm"])).collect();
    store.commit(more).await.unwrap();
    assert_eq!(
        store.refusal(vec![delete(Kind::Security, "crm")]).await.1,
        "Security `crm` cannot be removed: Channel `more-1`, Channel `more-2`, Channel `more-3`, \
         Channel `more-4`, Channel `more-5` and 2 more refer to it; change that first"
    );
    let mut all: Vec<Change> =
        (1..=6).map(|n| delete(Kind::Channel, &format!("more-{n}"))).collect();
    all.insert(0, delete(Kind::Security, "crm"));
    all.push(channel("orders", &[]));
    store.commit(all).await.unwrap();
    assert_eq!(store.client.list(Some(Kind::Security)).await.unwrap().objects, []);
}

#[tokio::test]
async fn a_put_that_changes_nothing_leaves_the_revision_alone() {
    let store = Store::new().await;
    store.commit(vec![channel("a", &[])]).await.unwrap();
    let before = store.client.object(Kind::Channel, "a").await.unwrap();
    // Written in full it is the same.
    let again = store.commit(vec![put(Kind::Channel, "a", before.spec.to_json())]).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (2, 0));
    let there_and_back = vec![counter("x", 1), delete(Kind::UserConfig, "x"), channel("a", &[])];
    assert_eq!(store.commit(there_and_back).await.unwrap().revision, 2);
    assert_eq!(store.commit(vec![]).await.unwrap().revision, 2);
    assert_eq!(store.client.object(Kind::Channel, "a").await.unwrap(), before);
    assert_eq!(store.client.history(Kind::Channel, "a", 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn changes_of_one_object_in_one_transaction_are_applied_in_order() {
    let store = Store::new().await;
    let done = store
        .commit(vec![
            counter_if("a", 1, Expect::Absent),
            counter("b", 1),
            counter_if("a", 2, Expect::Revision(2)),
            delete(Kind::UserConfig, "b"),
            counter_if("b", 3, Expect::Absent),
        ])
        .await
        .unwrap();
    let changed: Vec<_> = done
        .changes
        .iter()
        .map(|change| (change.name.to_string(), change.after.clone().unwrap().spec.to_json()))
        .collect();
    let sections = |n: &str| json!({"sections": {"n": {"n": n}}});
    assert_eq!(changed, [("a".to_owned(), sections("2")), ("b".to_owned(), sections("3"))]);
    assert_eq!(store.client.history(Kind::UserConfig, "a", 10).await.unwrap().len(), 1);
    assert_eq!(
        store
            .refusal(vec![delete(Kind::UserConfig, "a"), counter_if("a", 1, Expect::Revision(2))])
            .await
            .1,
        "UserConfig `a` is not there any more; it was expected at revision 2"
    );
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_changes_nothing() {
    let store = Store::new().await;
    let mut dry = transaction("user:anna", vec![counter("a", 1), put_secret("s", "v")]);
    dry.dry_run = true;
    let would = store.client.commit(&dry).await.unwrap();
    assert_eq!((would.revision, would.changes.len()), (1, 1));
    assert_eq!(store.client.list(Some(Kind::UserConfig)).await.unwrap().objects, []);
    assert_eq!(store.client.secret_names().await.unwrap(), [""; 0]);
    dry.changes.push(channel("x", &["nobody"]));
    assert_eq!(answer_of(store.client.commit(&dry).await).0, "invalid");
}

#[tokio::test]
async fn a_bad_spec_is_refused_with_its_field() {
    let store = Store::new().await;
    assert_eq!(
        store
            .refusal(vec![put(Kind::Channel, "x", json!({"url_path": "orders", "service": "s"}))])
            .await,
        said("invalid", "Channel `x`: field `url_path`: `orders` does not start with `/`")
    );
    for value in [json!({"value": "hunter2"}), json!({"generate": "uuid4"})] {
        let spec = json!({"type": "basic", "username": "crm", "password": value});
        let sentence = "Security `crm`: field `password`: the store takes only the name of a secret, as `{\"secret\": name}`; put the value with `put_secret`";
        assert_eq!(
            store.refusal(vec![put(Kind::Security, "crm", spec)]).await,
            said("invalid", sentence)
        );
    }
}

#[tokio::test]
async fn names_of_the_producer_are_refused_to_users() {
    let store = Store::new().await;
    let role = |of: &str| put(Kind::Role, of, json!({"permissions": ["read"]}));
    assert_eq!(
        store.refusal(vec![role("ARole")]).await,
        said(
            "invalid",
            "Role `ARole`: names that start with `AR` or with the name of an ARINT component are the producer's; choose another"
        )
    );
    for who in ["system", "system:first-run"] {
        store.client.commit(&transaction(who, vec![role(&format!("AR.{who}"))])).await.unwrap();
    }
    for who in ["systemd", "pickup", "user:system"] {
        let made = store.client.commit(&transaction(who, vec![role("arsrv.x")])).await;
        assert_eq!(answer_of(made).0, "invalid", "{who}");
    }
    assert_eq!(store.refusal(vec![delete(Kind::Role, "AR.system")]).await.0, "invalid");
    // A box may be called what its host is called.
    store.commit(vec![put_if(Kind::Node, "ARX", json!({}), Expect::Absent)]).await.unwrap();
}

#[tokio::test]
async fn a_malformed_request_is_answered_with_one_sentence() {
    let store = Store::new().await;
    let get = |path: &'static str| store.client.raw(http::Method::GET, path);
    let unknown = "kind `Chanel` is unknown; known kinds are Node, Role, User, Token, QuotaTier, Security, SecurityGroup, Grant, Module, Service, Channel, Outgoing, UserConfig, System, Network";
    assert_eq!(answer_of(get("/v1/objects?kind=Chanel").await), said("invalid", unknown));
    assert_eq!(answer_of(get("/v1/objects/Chanel/x").await), said("invalid", unknown));
    assert_eq!(answer_of(get("/v1/watch?kinds=Channel,Chanel").await), said("invalid", unknown));
    assert_eq!(
        answer_of(get("/v1/objects?knd=x").await),
        said("invalid", "query: knd: unknown field `knd`, expected `kind`")
    );
    assert_eq!(
        answer_of(get("/v1/history/Channel/x?most=-1").await),
        said("invalid", "query: most: invalid digit found in string")
    );
    assert_eq!(
        answer_of(get("/v1/objects/Channel/%20x").await),
        said("invalid", "name ` x` has a control character or a blank at an end")
    );
    assert_eq!(answer_of(get("/v1/object").await).0, "not_found");
    assert_eq!(
        answer_of(store.client.raw(http::Method::DELETE, "/v1/objects").await).0,
        "method_not_allowed"
    );
    let bad = json!({"changes": [{"do": "put", "kind": "Channel"}], "who": "x"});
    let refused = store.client.0.post::<_, serde_json::Value>("/v1/transactions", &bad).await;
    assert_eq!(
        answer_of(refused),
        said(
            "invalid",
            "request body: field `changes[0]`: missing field `name` at line 1 column 42"
        )
    );
    assert_eq!(
        answer_of(store.client.commit(&transaction("", vec![])).await),
        said("invalid", "`who` has 1 to 300 bytes and no control characters, unlike ``")
    );
}

#[tokio::test]
async fn the_socket_is_for_this_user_and_the_group_of_the_services() {
    use std::os::unix::fs::PermissionsExt as _;
    let store = Store::new().await;
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.dir.path().join("arclst.sock")), 0o660);
    assert_eq!(mode(&store.database()), 0o600);
    assert_eq!(mode(&store.dir.path().join("state/objects.sqlite-wal")), 0o600);
}
