//! Carries out what is configured about connections out.
//!
//! The plan says what each connection is to be made from, without I/O; only those whose basis differs are
//! made anew, the others go on with their pools, breakers and health.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arapi::names::{Kind, ObjectName};
use arapi::objects::{
    OutgoingRest, OutgoingSoap, OutgoingSpec, SecretField, SecretText, SecuritySpec, Spec,
    WssPassword,
};
use arbase::Stop;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::{Basis, Counts, Presents, Rest};
use super::files::Files;
use super::health::keep_checking;
use super::index::Index;
use super::ntlm::Credentials;
use super::oauth::TokenSource;
use super::soap::{About, Soap, UsernameToken};
use super::sql::Sql;
use super::tls::Identity;
use super::{Connection, Connections, Tokens};
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
    /// SOAP over HTTP.
    Soap(Box<Basis>, Box<About>),
    /// A database.
    Sql(Box<Sql>),
    /// A folder.
    Files(Box<Files>),
    /// An index of Python packages.
    Index(Arc<Index>),
}

/// Follows the worlds until told to stop.
pub async fn run(
    mut worlds: watch::Receiver<Arc<World>>,
    mut secrets: Secrets,
    connections: watch::Sender<Arc<Connections>>,
    files_dir: PathBuf,
    progress: Progress,
    stop: Stop,
) {
    let mut checks: BTreeMap<ObjectName, Checking> = BTreeMap::new();
    loop {
        let world = Arc::clone(&worlds.borrow_and_update());
        let missing = secrets.refresh(&world, &needed(&world)).await;
        let before = Arc::clone(&connections.borrow());
        let known = |name: &str| secrets.get(name).cloned();
        let tokens = tokens(&world, known, &before.tokens);
        let wanted = plan(&world, known, &tokens, &files_dir);
        let (mut after, made) = execute(wanted, &before);
        after.tokens = tokens;
        checks.retain(|name, _| after.by_name.contains_key(name));
        for name in &made {
            log::info!(connection:% = name; "outgoing connection set up");
            checks.remove(name);
            let rest = match after.by_name.get(name) {
                Some(Connection::Rest(rest)) => rest,
                Some(Connection::Soap(soap)) => &soap.rest,
                _ => continue,
            };
            checks.insert(name.clone(), Checking(tokio::spawn(keep_checking(Arc::clone(rest)))));
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
    let mut need = |field: &SecretField| {
        if let SecretField::Secret(name) = field {
            names.insert(name.clone());
        }
    };
    for object in world.of_kind(Kind::Outgoing) {
        match &object.spec {
            Spec::Outgoing(OutgoingSpec::Sql(sql)) => sql.password.iter().for_each(&mut need),
            Spec::Outgoing(OutgoingSpec::PackageIndex(index)) => {
                index.password.iter().for_each(&mut need);
            }
            Spec::Outgoing(OutgoingSpec::Rest(rest)) => {
                for name in rest.security.iter().chain(&rest.tls_client) {
                    let spec = security(name, world);
                    spec.map(SecuritySpec::secrets).into_iter().flatten().for_each(&mut need);
                }
            }
            Spec::Outgoing(OutgoingSpec::Soap(soap)) => {
                for name in soap.security.iter().chain(&soap.tls_client) {
                    let spec = security(name, world);
                    spec.map(SecuritySpec::secrets).into_iter().flatten().for_each(&mut need);
                }
            }
            _ => {}
        }
    }
    // Services may ask for the tokens of any.
    for object in world.of_kind(Kind::Security) {
        if let Spec::Security(spec @ (SecuritySpec::Oauth(_) | SecuritySpec::Bearer { .. })) =
            &object.spec
        {
            spec.secrets().into_iter().for_each(&mut need);
        }
    }
    names
}

fn security<'w>(name: &ObjectName, world: &'w World) -> Option<&'w SecuritySpec> {
    match &world.object(Kind::Security, name)?.spec {
        Spec::Security(spec) => Some(spec),
        _ => None,
    }
}

fn value(field: &SecretField, secret: impl Fn(&str) -> Option<SecretText>) -> Option<SecretText> {
    match field {
        SecretField::Secret(name) => secret(name),
        SecretField::Value(_) | SecretField::Generate(_) => None,
    }
}

/// Where tokens come from; sources whose security did not change go on with what they have.
fn tokens(
    world: &World,
    secret: impl Fn(&str) -> Option<SecretText>,
    before: &BTreeMap<ObjectName, Tokens>,
) -> BTreeMap<ObjectName, Tokens> {
    let mut tokens = BTreeMap::new();
    for object in world.of_kind(Kind::Security) {
        let name = &object.name;
        let one = match &object.spec {
            Spec::Security(SecuritySpec::Oauth(spec)) => {
                let secret = value(&spec.client_secret, &secret);
                match before.get(name) {
                    Some(Tokens::Made(source)) if source.is_made_from(spec, secret.as_ref()) => {
                        Tokens::Made(Arc::clone(source))
                    }
                    _ => Tokens::Made(Arc::new(TokenSource::new(name.as_str(), spec, secret))),
                }
            }
            Spec::Security(SecuritySpec::Bearer { token, is_active, .. }) => {
                Tokens::Fixed(if *is_active { value(token, &secret) } else { None })
            }
            _ => continue,
        };
        tokens.insert(name.clone(), one);
    }
    tokens
}

/// What each connection is to be.
pub fn plan(
    world: &World,
    secret: impl Fn(&str) -> Option<SecretText>,
    tokens: &BTreeMap<ObjectName, Tokens>,
    files_dir: &Path,
) -> BTreeMap<ObjectName, Wanted> {
    let value = |field: &SecretField| value(field, &secret);
    let mut wanted = BTreeMap::new();
    for object in world.of_kind(Kind::Outgoing) {
        let one = match &object.spec {
            Spec::Outgoing(OutgoingSpec::Rest(spec)) => Wanted::Rest(Box::new(Basis {
                presents: presents(spec, world, value, tokens),
                identity: identity(spec, world, value),
                spec: spec.clone(),
            })),
            Spec::Outgoing(OutgoingSpec::Soap(spec)) => {
                let (basis, about) = soap(spec, world, value, tokens);
                Wanted::Soap(Box::new(basis), Box::new(about))
            }
            Spec::Outgoing(OutgoingSpec::Sql(spec)) => Wanted::Sql(Box::new(Sql {
                name: object.name.to_string(),
                password: spec.password.as_ref().map(value),
                spec: spec.clone(),
                told: Arc::default(),
            })),
            Spec::Outgoing(OutgoingSpec::Files(spec)) => Wanted::Files(Box::new(Files {
                name: object.name.to_string(),
                root: files_dir.join(spec.folder(object.name.as_str())),
                spec: spec.clone(),
                counts: Arc::default(),
            })),
            Spec::Outgoing(OutgoingSpec::PackageIndex(spec)) => Wanted::Index(Index::new(
                object.name.to_string(),
                spec.clone(),
                spec.password.as_ref().map(value),
            )),
            _ => continue,
        };
        wanted.insert(object.name.clone(), one);
    }
    wanted
}

/// A SOAP connection: HTTP, and what goes into the envelopes.
fn soap(
    spec: &OutgoingSoap,
    world: &World,
    value: impl Fn(&SecretField) -> Option<SecretText> + Copy,
    tokens: &BTreeMap<ObjectName, Tokens>,
) -> (Basis, About) {
    let mut rest = spec.as_rest();
    let mut token = None;
    let wss = spec.security.as_ref().and_then(|name| security(name, world));
    if let Some(SecuritySpec::Wss(wss)) = wss
        && wss.is_active
    {
        // It is in the envelope, not in HTTP's headers.
        rest.security = None;
        token = Some(UsernameToken {
            username: wss.username.clone(),
            password: value(&wss.password),
            use_digest: wss.password_type == WssPassword::Digest,
        });
    }
    let about = About { wsdl: spec.wsdl.clone(), wsdl_path: spec.wsdl_path(), token };
    let basis = Basis {
        presents: presents(&rest, world, value, tokens),
        identity: identity(&rest, world, value),
        spec: rest,
    };
    (basis, about)
}

fn presents(
    spec: &OutgoingRest,
    world: &World,
    value: impl Fn(&SecretField) -> Option<SecretText>,
    tokens: &BTreeMap<ObjectName, Tokens>,
) -> Presents {
    let Some(name) = &spec.security else { return Presents::Nothing };
    let inactive = || Presents::Inactive { security: name.to_string() };
    let found = match security(name, world) {
        Some(found) if found.is_active() => found,
        Some(_) | None => return inactive(),
    };
    let presents = match found {
        SecuritySpec::Basic { username, password, .. } => {
            value(password).map(|password| Presents::Basic { username: username.clone(), password })
        }
        SecuritySpec::ApiKey { header, key, .. } => {
            value(key).map(|key| Presents::ApiKey { header: header.clone(), key })
        }
        SecuritySpec::Bearer { token, .. } => value(token).map(|token| Presents::Bearer { token }),
        SecuritySpec::Oauth(_) => match tokens.get(name) {
            Some(Tokens::Made(source)) => Some(Presents::Oauth { source: Arc::clone(source) }),
            Some(Tokens::Fixed(_)) | None => None,
        },
        SecuritySpec::Ntlm(spec) => value(&spec.password)
            .map(|password| Presents::Ntlm(Credentials::new(&spec.username, &password.0))),
        // In the handshake, see `identity`.
        SecuritySpec::TlsKeyCert(_) => Some(Presents::Nothing),
        SecuritySpec::Jwt(_)
        | SecuritySpec::JwtIssuer(_)
        | SecuritySpec::Wss(_)
        | SecuritySpec::TlsChannel(_) => return Presents::Foreign { security: name.to_string() },
    };
    presents.unwrap_or(Presents::Unknown)
}

/// The certificate a connection presents, if it is to present one.
fn identity(
    spec: &OutgoingRest,
    world: &World,
    value: impl Fn(&SecretField) -> Option<SecretText>,
) -> Option<Option<Identity>> {
    let is_one =
        |name: &&ObjectName| matches!(security(name, world), Some(SecuritySpec::TlsKeyCert(_)));
    let name = spec.tls_client.as_ref().or(spec.security.as_ref().filter(is_one))?;
    let own = match security(name, world) {
        Some(SecuritySpec::TlsKeyCert(own)) if own.is_active => own,
        // One that is to be shown and cannot be is not left out.
        _ => return Some(None),
    };
    let (certificate, key) = (value(&own.certificate), value(&own.key));
    Some(certificate.zip(key).map(|(certificate, key)| Identity { certificate, key }))
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
            (Wanted::Soap(basis, about), Some(Connection::Soap(soap)))
                if soap.rest.basis == *basis && soap.about == *about =>
            {
                Connection::Soap(Arc::clone(soap))
            }
            (Wanted::Soap(basis, about), known) => {
                let counts = match known {
                    Some(Connection::Soap(soap)) => Arc::clone(&soap.rest.counts),
                    _ => Arc::<Counts>::default(),
                };
                made.push(name.clone());
                let rest = Arc::new(Rest::new(name.to_string(), *basis, counts));
                Connection::Soap(Arc::new(Soap { rest, about: *about }))
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
            (Wanted::Files(files), Some(Connection::Files(known))) if **known == *files => {
                Connection::Files(Arc::clone(known))
            }
            (Wanted::Files(mut files), known) => {
                if let Some(Connection::Files(known)) = known
                    && known.root == files.root
                {
                    files.counts = Arc::clone(&known.counts);
                }
                made.push(name.clone());
                Connection::Files(Arc::from(files))
            }
            (Wanted::Index(index), Some(Connection::Index(known))) if *known == index => {
                Connection::Index(Arc::clone(known))
            }
            (Wanted::Index(index), _) => {
                made.push(name.clone());
                Connection::Index(index)
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
        let (after, made) =
            execute(plan(world, token(secret), &BTreeMap::new(), Path::new("/files")), before);
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
        match plan(world, secret, &BTreeMap::new(), Path::new("/files")).remove("b") {
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
