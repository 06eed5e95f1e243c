//! Carries out what is configured about connections out.
//!
//! The plan says what each connection is to be made from, without I/O; only those whose basis differs are
//! made anew, the others go on with their pools, breakers and health.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arapi::names::{Kind, ObjectName};
use arapi::objects::{OutgoingRest, OutgoingSpec, SecretField, SecretText, SecuritySpec, Spec};
use arbase::Stop;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::{Basis, Counts, Presents, Rest};
use super::health::keep_checking;
use super::sql::Sql;
use super::{Connection, Connections};
use crate::security::Secrets;
use crate::world::{Progress, World};

/// The name under which it reports to [`Progress`].
pub const RECONCILER: &str = "outgoing";

/// How long to wait before secrets that could not be read are tried again.
const SECRETS_AGAIN: Duration = Duration::from_secs(1);

/// What a connection is to be.
#[derive(Debug, PartialEq)]
pub enum Wanted {
    /// HTTP.
    Rest(Box<Basis>),
    /// A database.
    Sql(Box<Sql>),
}

/// Follows the worlds until told to stop.
pub async fn run(
    mut worlds: watch::Receiver<Arc<World>>,
    mut secrets: Secrets,
    connections: watch::Sender<Arc<Connections>>,
    progress: Progress,
    stop: Stop,
) {
    let mut checks: BTreeMap<ObjectName, Checking> = BTreeMap::new();
    loop {
        let world = Arc::clone(&worlds.borrow_and_update());
        let missing = secrets.refresh(&world, &needed(&world)).await;
        let wanted = plan(&world, |name| secrets.get(name).cloned());
        let before = Arc::clone(&connections.borrow());
        let (after, made) = execute(wanted, &before);
        checks.retain(|name, _| after.by_name.contains_key(name));
        for name in &made {
            checks.remove(name);
            if let Some(Connection::Rest(rest)) = after.by_name.get(name) {
                checks
                    .insert(name.clone(), Checking(tokio::spawn(keep_checking(Arc::clone(rest)))));
            }
            log::info!(connection:% = name; "outgoing connection set up");
        }
        for name in before.by_name.keys().filter(|name| !after.by_name.contains_key(*name)) {
            log::info!(connection:% = name; "outgoing connection removed");
        }
        connections.send_replace(Arc::new(after));
        progress.report(RECONCILER, world.revision);
        tokio::select! {
            () = stop.wait() => return,
            changed = worlds.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(SECRETS_AGAIN), if missing > 0 => {}
        }
    }
}

/// The regular check of one connection; ends with this.
struct Checking(JoinHandle<()>);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The secrets that connections present.
fn needed(world: &World) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for object in world.of_kind(Kind::Outgoing) {
        let field = match &object.spec {
            Spec::Outgoing(OutgoingSpec::Sql(sql)) => sql.password.as_ref(),
            Spec::Outgoing(OutgoingSpec::Rest(rest)) => {
                security(rest, world).and_then(|spec| match spec {
                    SecuritySpec::Basic { password: field, .. }
                    | SecuritySpec::ApiKey { key: field, .. }
                    | SecuritySpec::Bearer { token: field, .. } => Some(field),
                    _ => None,
                })
            }
            _ => None,
        };
        if let Some(SecretField::Secret(name)) = field {
            names.insert(name.clone());
        }
    }
    names
}

fn security<'w>(rest: &OutgoingRest, world: &'w World) -> Option<&'w SecuritySpec> {
    match &world.object(Kind::Security, rest.security.as_ref()?)?.spec {
        Spec::Security(spec) => Some(spec),
        _ => None,
    }
}

/// What each connection is to be.
pub fn plan(
    world: &World,
    secret: impl Fn(&str) -> Option<SecretText>,
) -> BTreeMap<ObjectName, Wanted> {
    let value = |field: &SecretField| match field {
        SecretField::Secret(name) => secret(name),
        SecretField::Value(_) | SecretField::Generate(_) => None,
    };
    let mut wanted = BTreeMap::new();
    for object in world.of_kind(Kind::Outgoing) {
        let one = match &object.spec {
            Spec::Outgoing(OutgoingSpec::Rest(spec)) => Wanted::Rest(Box::new(Basis {
                presents: presents(spec, world, value),
                spec: spec.clone(),
            })),
            Spec::Outgoing(OutgoingSpec::Sql(spec)) => Wanted::Sql(Box::new(Sql {
                name: object.name.to_string(),
                password: spec.password.as_ref().map(value),
                spec: spec.clone(),
            })),
            _ => continue,
        };
        wanted.insert(object.name.clone(), one);
    }
    wanted
}

fn presents(
    spec: &OutgoingRest,
    world: &World,
    value: impl Fn(&SecretField) -> Option<SecretText>,
) -> Presents {
    let Some(name) = &spec.security else { return Presents::Nothing };
    let found = match security(spec, world) {
        Some(found) if found.is_active() => found,
        Some(_) | None => return Presents::Inactive { security: name.to_string() },
    };
    let presents = match found {
        SecuritySpec::Basic { username, password, .. } => {
            value(password).map(|password| Presents::Basic { username: username.clone(), password })
        }
        SecuritySpec::ApiKey { header, key, .. } => {
            value(key).map(|key| Presents::ApiKey { header: header.clone(), key })
        }
        SecuritySpec::Bearer { token, .. } => value(token).map(|token| Presents::Bearer { token }),
        _ => None,
    };
    presents.unwrap_or(Presents::Unknown)
}

/// Makes what is new or different; the rest stays as it is.  Gives the names of what was made.
fn execute(
    wanted: BTreeMap<ObjectName, Wanted>,
    before: &Connections,
) -> (Connections, Vec<ObjectName>) {
    let mut after = Connections::default();
    let mut made = Vec::new();
    for (name, wanted) in wanted {
        let known = before.by_name.get(&name);
        let connection = match (wanted, known) {
            (Wanted::Rest(basis), Some(Connection::Rest(rest))) if rest.basis == *basis => {
                Connection::Rest(Arc::clone(rest))
            }
            (Wanted::Sql(sql), Some(Connection::Sql(known))) if **known == *sql => {
                Connection::Sql(Arc::clone(known))
            }
            (Wanted::Rest(basis), known) => {
                let counts = match known {
                    Some(Connection::Rest(rest)) => Arc::clone(&rest.counts),
                    _ => Arc::<Counts>::default(),
                };
                made.push(name.clone());
                Connection::Rest(Arc::new(Rest::new(name.to_string(), *basis, counts)))
            }
            (Wanted::Sql(sql), _) => {
                made.push(name.clone());
                Connection::Sql(Arc::from(sql))
            }
        };
        after.by_name.insert(name, connection);
    }
    (after, made)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn world(timeout_ms: u64, is_active: bool) -> World {
        World::of(
            3,
            &[
                (
                    Kind::Security,
                    "crm",
                    json!({"type": "bearer", "token": {"secret": "t"}, "is_active": is_active}),
                ),
                (
                    Kind::Outgoing,
                    "a",
                    json!({"type": "rest", "host": "http://a", "timeout_ms": timeout_ms}),
                ),
                (
                    Kind::Outgoing,
                    "b",
                    json!({"type": "rest", "host": "http://b", "security": "crm"}),
                ),
                (
                    Kind::Outgoing,
                    "db",
                    json!({"type": "sql", "engine": "sqlite", "db_name": "/x.db"}),
                ),
            ],
        )
    }

    fn token(value: &str) -> impl Fn(&str) -> Option<SecretText> {
        let value = SecretText(value.to_owned());
        move |name| (name == "t").then(|| value.clone())
    }

    fn made(before: &Connections, world: &World, secret: &str) -> (Connections, Vec<String>) {
        let (after, made) = execute(plan(world, token(secret)), before);
        (after, made.into_iter().map(|name| name.to_string()).collect())
    }

    #[tokio::test]
    async fn only_what_changed_is_made_anew() {
        let (first, all) = made(&Connections::default(), &world(1000, true), "1");
        assert_eq!(all, ["a", "b", "db"]);
        let (second, none) = made(&first, &world(1000, true), "1");
        assert!(none.is_empty());
        let (third, changed) = made(&second, &world(2000, true), "1");
        assert_eq!(changed, ["a"]);
        let (_, rotated) = made(&third, &world(2000, true), "2");
        assert_eq!(rotated, ["b"]);
        let (gone, _) = made(&third, &World::of(4, &[]), "2");
        assert!(gone.by_name.is_empty());
    }

    fn presented(world: &World, secret: impl Fn(&str) -> Option<SecretText>) -> Presents {
        match plan(world, secret).remove("b") {
            Some(Wanted::Rest(basis)) => basis.presents,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connection_without_its_credentials_is_not_used() {
        let token_1 = Presents::Bearer { token: SecretText("1".to_owned()) };
        assert_eq!(presented(&world(1, true), token("1")), token_1);
        assert_eq!(presented(&world(1, true), |_| None), Presents::Unknown);
        let inactive = Presents::Inactive { security: "crm".to_owned() };
        assert_eq!(presented(&world(1, false), token("1")), inactive);
    }
}
