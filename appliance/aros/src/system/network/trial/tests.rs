//! The rules of commit-confirm, without a clock and without a network.

use arapi::objects::InterfaceSpec;

use super::*;

const LENGTH: Duration = Duration::from_secs(60);

fn network(address: &str, object: &str) -> Network {
    let mut interface = InterfaceSpec::named("end0");
    interface.addresses = vec![address.to_owned()];
    Network {
        spec: NetworkSpec { interfaces: vec![interface] },
        passphrase: None,
        object: Some(object.to_owned()),
    }
}

fn object(network: &Network, revision: u64) -> Object {
    Object {
        kind: Kind::Network,
        name: ObjectName::parse(network.object.as_deref().unwrap()).unwrap(),
        spec: Spec::Network(network.spec.clone()),
        revision,
        created_ms: 0,
        changed_ms: 0,
        changed_by: "user:admin".to_owned(),
    }
}

struct Fixture {
    machine: Machine,
    start: Instant,
    old: Network,
    new: Network,
}

impl Fixture {
    /// `192.0.2.10` is confirmed, `192.0.2.20` was just written at revision 8.
    fn on_trial() -> Self {
        let old = network("192.0.2.10/24", "default");
        let new = network("192.0.2.20/24", "default");
        let kept = Kept { confirmed: old.clone(), ..Kept::default() };
        let mut fx =
            Self { machine: Machine::starting_from(kept), start: Instant::now(), old, new };
        assert_eq!(fx.see(fx.new.clone(), 8), Step::Apply);
        assert_eq!(fx.machine.in_effect(), &fx.new);
        fx
    }

    fn see(&mut self, network: Network, revision: u64) -> Step {
        self.machine.see(network, revision, "user:admin", self.start, LENGTH)
    }

    fn changes_back(&self, own: Option<Object>, default: Option<Object>) -> Vec<Change> {
        self.machine.changes_back(&Seen { own, default }, &ObjectName::parse("box-1").unwrap())
    }
}

#[test]
fn a_change_is_tried_and_kept_once_it_is_confirmed() {
    let mut fx = Fixture::on_trial();
    assert_eq!(fx.machine.deadline(), Some(fx.start + LENGTH));
    assert_eq!(fx.machine.kept.confirmed, fx.old);
    assert!(fx.machine.confirm());
    assert_eq!(fx.machine.kept, Kept { confirmed: fx.new.clone(), ..Kept::default() });
    assert!(!fx.machine.confirm(), "there is nothing to confirm twice");
}

#[test]
fn seeing_the_same_change_again_does_not_lengthen_its_trial() {
    let mut fx = Fixture::on_trial();
    fx.start += Duration::from_secs(30);
    assert_eq!(fx.see(fx.new.clone(), 8), Step::Nothing);
    assert_eq!(fx.machine.trial(fx.start).unwrap().1, Duration::from_secs(30));
}

#[test]
fn a_change_that_is_not_confirmed_rolls_back_and_is_written_back() {
    let mut fx = Fixture::on_trial();
    assert_eq!(fx.machine.roll_back("late".to_owned()), Step::Apply);
    assert_eq!(fx.machine.in_effect(), &fx.old);
    assert_eq!(fx.machine.kept.last_rollback.as_deref(), Some("late"));
    // The store still has it, and it is not tried again.
    assert_eq!(fx.see(fx.new.clone(), 8), Step::WriteBack);
    let changes = fx.changes_back(None, Some(object(&fx.new, 8)));
    let [Change::Put { name, spec, expect, .. }] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!((name.as_str(), *expect), ("default", Expect::Revision(8)));
    assert_eq!(*spec, serde_json::to_value(&fx.old.spec).unwrap());
    // Then the store has the confirmed one, and a new attempt is a new trial.
    assert_eq!(fx.see(fx.old.clone(), 9), Step::Nothing);
    assert_eq!(fx.machine.kept.refused, None);
    assert_eq!(fx.see(fx.new.clone(), 10), Step::Apply);
}

#[test]
fn a_restart_during_a_trial_comes_up_with_the_confirmed_network() {
    let fx = Fixture::on_trial();
    let stored = serde_json::to_string(&fx.machine.kept).unwrap();
    let mut fx =
        Fixture { machine: Machine::starting_from(serde_json::from_str(&stored).unwrap()), ..fx };
    assert_eq!(fx.machine.in_effect(), &fx.old);
    assert_eq!(
        fx.machine.kept.last_rollback.as_deref(),
        Some("the change of Network `default` was not confirmed before the box restarted")
    );
    assert_eq!(fx.see(fx.new.clone(), 8), Step::WriteBack);
}

#[test]
fn setting_the_object_back_ends_the_trial() {
    let mut fx = Fixture::on_trial();
    assert_eq!(fx.see(fx.old.clone(), 9), Step::Apply);
    assert_eq!(fx.machine.in_effect(), &fx.old);
    assert_eq!(fx.machine.deadline(), None);
}

#[test]
fn a_second_change_during_a_trial_has_the_whole_time_and_rolls_back_to_the_first_confirmed() {
    let mut fx = Fixture::on_trial();
    fx.start += Duration::from_secs(59);
    let third = network("192.0.2.30/24", "default");
    assert_eq!(fx.see(third, 9), Step::Apply);
    assert_eq!(fx.machine.deadline(), Some(fx.start + LENGTH));
    fx.machine.roll_back("late".to_owned());
    assert_eq!(fx.machine.in_effect(), &fx.old);
}

#[test]
fn what_a_seed_brings_needs_nobody_to_confirm_it() {
    let mut machine = Machine::starting_from(Kept::default());
    let network = network("192.0.2.10/24", "default");
    let step = machine.see(network.clone(), 3, "seed", Instant::now(), LENGTH);
    assert_eq!((step, machine.deadline()), (Step::Apply, None));
    assert_eq!(machine.kept.confirmed, network);
}

#[test]
fn the_objects_are_set_back_whichever_of_them_was_changed() {
    // Confirmed from `default`, and an object of the box's own was tried.
    let mut fx = Fixture::on_trial();
    fx.machine.roll_back("late".to_owned());
    let own = network("192.0.2.20/24", "box-1");
    let changes = fx.changes_back(Some(object(&own, 8)), Some(object(&fx.old, 4)));
    let [Change::Delete { name, expect: Expect::Revision(8), .. }] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(name.as_str(), "box-1");
    // The object was removed.
    let changes = fx.changes_back(None, None);
    let [Change::Put { expect: Expect::Absent, .. }] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    // There was none before.
    fx.machine.kept.confirmed = Network::default();
    let changes = fx.changes_back(None, Some(object(&fx.new, 8)));
    let [Change::Delete { expect: Expect::Revision(8), .. }] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    // The box's own was confirmed.
    fx.machine.kept.confirmed = network("192.0.2.10/24", "box-1");
    let changes = fx.changes_back(Some(object(&own, 8)), Some(object(&fx.old, 4)));
    let [Change::Put { name, expect: Expect::Revision(8), .. }] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(name.as_str(), "box-1");
}

#[test]
fn a_passphrase_that_was_changed_is_set_back_with_the_object() {
    let mut fx = Fixture::on_trial();
    let mut interface = InterfaceSpec::named("wlan0");
    interface.kind = arapi::objects::InterfaceKind::Wifi {
        ssid: "x".to_owned(),
        passphrase: SecretField::Secret("Network/default/passphrase".to_owned()),
    };
    let confirmed = Network {
        spec: NetworkSpec { interfaces: vec![interface] },
        passphrase: Some(SecretText("old old old".to_owned())),
        object: Some("default".to_owned()),
    };
    fx.machine.confirm();
    fx.machine.kept.confirmed = confirmed.clone();
    let changed =
        Network { passphrase: Some(SecretText("new new new".to_owned())), ..confirmed.clone() };
    assert_eq!(fx.see(changed, 9), Step::Apply);
    fx.machine.roll_back("late".to_owned());
    let changes = fx.changes_back(None, Some(object(&confirmed, 9)));
    let secret = Change::PutSecret {
        name: "Network/default/passphrase".to_owned(),
        value: SecretText("old old old".to_owned()),
    };
    assert_eq!(changes, [secret]);
}
