use serde_json::json;

use super::*;
use crate::people::EVERYTHING;

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn put(kind: Kind, of: &str, spec: Value) -> ChangeRequest {
    ChangeRequest::Put { kind, name: name(of), spec, expect: Expect::Any }
}

fn delete(kind: Kind, of: &str) -> ChangeRequest {
    ChangeRequest::Delete { kind, name: name(of), expect: Expect::Any }
}

/// What is there; each object at revision 7.
#[derive(Default)]
struct Fixture {
    present: Present,
    own: BTreeSet<Permission>,
}

impl Fixture {
    fn new() -> Self {
        Self { present: Present::default(), own: EVERYTHING.into() }
    }

    fn with(mut self, kind: Kind, of: &str, spec: Value) -> Self {
        let spec = Spec::parse(kind, of, spec).unwrap();
        for secret in spec.secret_names() {
            self.present.secrets.insert(secret);
        }
        self.present.people.put_spec(name(of), spec.clone(), 0);
        let object = Object {
            kind,
            name: name(of),
            spec,
            revision: 7,
            created_ms: 1,
            changed_ms: 1,
            changed_by: "test".to_owned(),
        };
        self.present.objects.insert((kind, name(of)), object);
        self
    }

    fn plan(&self, requests: &[ChangeRequest]) -> Result<Plan, PlanError> {
        plan(requests, &self.present, &self.own, &mut || "made".to_owned())
    }

    #[track_caller]
    fn refusal(&self, request: ChangeRequest) -> String {
        self.plan(&[request]).unwrap_err().to_string()
    }
}

fn basic() -> Value {
    json!({"type": "basic", "username": "crm", "password": {"secret": "Security/crm/password"}})
}

#[test]
fn a_given_value_is_moved_into_a_secret_of_the_object() {
    let spec = json!({"type": "basic", "username": "crm", "password": {"value": "hush"}});
    let plan = Fixture::new().plan(&[put(Kind::Security, "crm", spec)]).unwrap();
    let expected = json!({"type": "basic", "username": "crm", "realm": "ARINT", "is_active": true,
        "password": {"secret": "Security/crm/password"}});
    assert_eq!(
        plan.changes,
        [
            Change::PutSecret {
                name: "Security/crm/password".to_owned(),
                value: SecretText("hush".to_owned())
            },
            Change::Put {
                kind: Kind::Security,
                name: name("crm"),
                spec: expected,
                expect: Expect::Absent
            },
        ]
    );
    assert_eq!(plan.generated, []);
}

#[test]
fn a_new_object_without_its_secret_gets_one_that_is_shown_once() {
    let spec = json!({"type": "basic", "username": "crm"});
    let plan = Fixture::new().plan(&[put(Kind::Security, "crm", spec)]).unwrap();
    let shown = GeneratedSecret {
        object: "Security/crm".to_owned(),
        field: "password".to_owned(),
        value: "made".to_owned(),
    };
    assert_eq!(plan.generated, [shown]);
}

#[test]
fn a_put_that_leaves_the_secret_out_keeps_it() {
    let fx = Fixture::new().with(Kind::Security, "crm", basic());
    let plan = fx
        .plan(&[put(Kind::Security, "crm", json!({"type": "basic", "username": "new"}))])
        .unwrap();
    assert_eq!(plan.generated, []);
    assert_eq!(plan.changes.len(), 1);
    let Some(Change::Put { spec, expect, .. }) = plan.changes.first() else { panic!("{plan:?}") };
    assert_eq!(spec.pointer("/password/secret"), Some(&json!("Security/crm/password")));
    assert_eq!(*expect, Expect::Revision(7));
}

#[test]
fn only_an_explicit_generate_rotates() {
    let fx = Fixture::new().with(Kind::Security, "crm", basic());
    let spec = json!({"type": "basic", "username": "crm", "password": {"generate": "uuid4"}});
    let plan = fx.plan(&[put(Kind::Security, "crm", spec)]).unwrap();
    assert_eq!(plan.generated.len(), 1);
}

#[test]
fn a_secret_that_no_field_names_any_more_goes() {
    let fx = Fixture::new().with(Kind::Security, "crm", basic());
    let plan = fx.plan(&[put(Kind::Security, "crm", json!({"type": "api_key"}))]).unwrap();
    assert!(
        plan.changes.contains(&Change::DeleteSecret { name: "Security/crm/password".to_owned() })
    );
    assert_eq!(plan.generated.len(), 1);
    let sql = json!({"type": "sql", "engine": "sqlite", "db_name": "x",
        "password": {"secret": "Outgoing/db/password"}});
    let fx = Fixture::new().with(Kind::Outgoing, "db", sql);
    let without = json!({"type": "sql", "engine": "sqlite", "db_name": "x", "password": null});
    let plan = fx.plan(&[put(Kind::Outgoing, "db", without)]).unwrap();
    assert!(
        plan.changes.contains(&Change::DeleteSecret { name: "Outgoing/db/password".to_owned() })
    );
}

#[test]
fn a_secret_that_is_not_there_is_refused() {
    let spec = |secret: &str| json!({"type": "bearer", "token": {"secret": secret}});
    let mut fx = Fixture::new();
    assert_eq!(
        fx.refusal(put(Kind::Security, "x", spec("crm-token"))),
        "Security `x`: field `token`: secret `crm-token` does not exist; set it with \
         `arctl secret set crm-token`, or give `value` or `generate`"
    );
    assert_eq!(
        fx.refusal(put(Kind::Security, "x", spec("Security/x/token"))),
        "Security `x`: field `token`: secret `Security/x/token` has no value here; give `value` or \
         `generate`, or leave the field out to have one made where the kind allows it"
    );
    fx.present.secrets.insert("Security/y/token".to_owned());
    assert_eq!(
        fx.refusal(put(Kind::Security, "x", spec("Security/y/token"))),
        "Security `x`: field `token`: secret `Security/y/token` belongs to another object and goes \
         with it; keep a shared one with `arctl secret set NAME`"
    );
    fx.present.secrets.insert("crm-token".to_owned());
    assert!(fx.plan(&[put(Kind::Security, "x", spec("crm-token"))]).is_ok());
}

#[test]
fn what_belongs_to_deployments_and_logins_is_not_put() {
    let service = json!({"module": "photos", "class": "Get", "summary": "Gets."});
    let fx = Fixture::new().with(Kind::Service, "photos.get", service).with(
        Kind::User,
        "anna",
        json!({"roles": [], "password_hash": "$argon2id$x"}),
    );
    assert_eq!(
        fx.refusal(put(Kind::Module, "photos", json!({}))),
        "Module `photos`: modules are deployed, not put; use `arctl deploy photos.py`"
    );
    assert_eq!(
        fx.refusal(delete(Kind::Module, "photos")),
        "Module `photos`: a module goes with its services; use `arctl delete Module photos` \
         (`DELETE /v1/deployments/photos`)"
    );
    assert_eq!(
        fx.refusal(put(Kind::Service, "photos.put", json!({}))),
        "Service `photos.put` is not deployed; deploy the module with it first"
    );
    assert_eq!(
        fx.refusal(put(Kind::Service, "photos.get", json!({"module": "other"}))),
        "Service `photos.get`: field `module` follows from the deployed source and is `photos`; leave it out"
    );
    assert_eq!(
        fx.refusal(delete(Kind::Service, "photos.get")),
        "Service `photos.get`: a service goes with its module `photos`; deploy the module without it, \
         or delete the module"
    );
    assert_eq!(
        fx.refusal(put(Kind::Token, "t", json!({}))),
        "Token `t`: tokens are made by `arctl token create` (`POST /v1/tokens`), not put"
    );
    assert_eq!(
        fx.refusal(put(Kind::User, "anna", json!({"roles": [], "password_hash": "$argon2id$y"}))),
        "User `anna`: field `password_hash` cannot be set; use `arctl user passwd anna` \
         (`POST /v1/users/anna/password`)"
    );
}

#[test]
fn an_admin_changes_the_limits_of_a_service_and_nothing_else() {
    let service = json!({"module": "photos", "class": "Get", "summary": "Gets."});
    let fx = Fixture::new().with(Kind::Service, "photos.get", service);
    let plan = fx.plan(&[put(Kind::Service, "photos.get", json!({"timeout_ms": 5}))]).unwrap();
    let Some(Change::Put { spec, .. }) = plan.changes.first() else { panic!("{plan:?}") };
    assert_eq!(spec.get("module"), Some(&json!("photos")));
    assert_eq!(spec.get("summary"), Some(&json!("Gets.")));
    assert_eq!(spec.get("timeout_ms"), Some(&json!(5)));
}

#[test]
fn a_users_password_stays_when_his_roles_change() {
    let user = json!({"roles": [], "password_hash": "$argon2id$x"});
    let fx = Fixture::new().with(Kind::User, "anna", user);
    let plan = fx
        .plan(&[put(
            Kind::User,
            "anna",
            json!({"roles": [], "is_active": false, "password_hash": null}),
        )])
        .unwrap();
    let Some(Change::Put { spec, .. }) = plan.changes.first() else { panic!("{plan:?}") };
    assert_eq!(spec.get("password_hash"), Some(&json!("$argon2id$x")));
}

#[test]
fn a_removed_users_tokens_go_first() {
    let fx = Fixture::new().with(Kind::User, "anna", json!({"roles": []})).with(
        Kind::Token,
        "tok-1",
        json!({"user": "anna", "sha256": "00"}),
    );
    let plan = fx.plan(&[delete(Kind::User, "anna")]).unwrap();
    let kinds: Vec<Kind> = plan
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Delete { kind, .. } => Some(*kind),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [Kind::Token, Kind::User]);
}

#[test]
fn objects_are_made_before_what_refers_to_them_and_removed_after() {
    let fx = Fixture::new()
        .with(Kind::Channel, "old", json!({"url_path": "/o", "service": "x", "security": ["olds"]}))
        .with(
            Kind::Security,
            "olds",
            json!({"type": "api_key", "key": {"secret": "Security/olds/key"}}),
        );
    let plan = fx
        .plan(&[
            delete(Kind::Security, "olds"),
            delete(Kind::Channel, "old"),
            put(Kind::Channel, "new", json!({"url_path": "/n", "service": "x", "security": ["s"]})),
            put(Kind::Security, "s", json!({"type": "api_key"})),
        ])
        .unwrap();
    let order: Vec<String> = plan
        .changes
        .iter()
        .map(|change| match change {
            Change::PutSecret { name, .. } => format!("secret {name}"),
            Change::Put { kind, name, .. } => format!("put {kind}/{name}"),
            Change::Delete { kind, name, .. } => format!("delete {kind}/{name}"),
            Change::DeleteSecret { name } => format!("unsecret {name}"),
        })
        .collect();
    assert_eq!(
        order,
        [
            "secret Security/s/key",
            "put Security/s",
            "put Channel/new",
            "delete Channel/old",
            "delete Security/olds"
        ]
    );
}

#[test]
fn a_kind_needs_its_permission() {
    let mut fx = Fixture::new();
    fx.own = [Permission::Read, Permission::Develop].into();
    assert!(fx.plan(&[put(Kind::Channel, "c", json!({"url_path": "/c", "service": "x"}))]).is_ok());
    let refused = fx.plan(&[put(Kind::Security, "s", json!({"type": "api_key"}))]).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Forbidden);
    assert_eq!(
        refused.to_string(),
        "Security `s`: to change a Security the permission `configure` is needed"
    );
    let refused = fx.plan(&[delete(Kind::User, "anna")]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "User `anna`: to change a User the permission `access` is needed"
    );
}

#[test]
fn an_empty_transaction_and_a_double_change_are_refused() {
    let fx = Fixture::new();
    assert_eq!(fx.plan(&[]).unwrap_err().to_string(), "there is no change in the transaction");
    let twice = [delete(Kind::Channel, "c"), delete(Kind::Channel, "c")];
    assert_eq!(fx.plan(&twice).unwrap_err().to_string(), "Channel `c` is in the transaction twice");
}

#[test]
fn names_of_the_producer_are_refused_but_for_boxes() {
    let fx = Fixture::new();
    assert_eq!(
        fx.refusal(put(Kind::Channel, "ARx", json!({"url_path": "/c", "service": "x"}))),
        "Channel `ARx`: name `ARx` is reserved: names that start with `AR` or with the name of an \
         ARINT component are the producer's; choose another"
    );
    assert!(fx.plan(&[put(Kind::Node, "arint", json!({"title": "Cellar"}))]).is_ok());
}

#[test]
fn a_channel_without_its_service_and_two_on_one_path_are_warned_of() {
    let channel = |path: &str| {
        Spec::parse(Kind::Channel, "x", json!({"url_path": path, "service": "photos.get"})).unwrap()
    };
    let mut objects = BTreeMap::from([
        ((Kind::Channel, name("a")), channel("/a")),
        ((Kind::Channel, name("b")), channel("/a")),
        ((Kind::Channel, name("c")), channel("/c")),
    ]);
    let changed = BTreeSet::from([name("b")]);
    assert_eq!(
        warnings(&objects, &changed),
        [
            "Channel `b`: service `photos.get` is not deployed; the channel answers 404 until it is",
            "Channel `b`: Channel `a` has the same path `/a`, method and Accept; only one of them \
             gets the requests",
        ]
    );
    let service =
        Spec::parse(Kind::Service, "photos.get", json!({"module": "photos", "class": "Get"}));
    objects.insert((Kind::Service, name("photos.get")), service.unwrap());
    assert_eq!(warnings(&objects, &BTreeSet::from([name("c")])), Vec::<String>::new());
    assert_eq!(warnings(&objects, &BTreeSet::from([name("a"), name("b")])).len(), 1);
}
