use serde_json::{Value, json};

use super::*;
use crate::names::Kind;
use crate::objects::{Spec, SpecError};

fn parse(kind: Kind, written: Value) -> Result<Spec, SpecError> {
    Spec::parse(kind, "default", written)
}

#[track_caller]
fn system_refused(written: Value, sentence: &str) {
    let refused = parse(Kind::System, written).unwrap_err();
    assert_eq!(refused.to_string(), format!("System `default`: {sentence}"));
}

#[track_caller]
fn network_refused(interfaces: Value, rule: &str) {
    let refused = parse(Kind::Network, json!({"interfaces": interfaces})).unwrap_err();
    assert_eq!(refused.to_string(), format!("Network `default`: field `interfaces`: {rule}"));
}

#[track_caller]
fn network_taken(interfaces: Value) -> Spec {
    parse(Kind::Network, json!({"interfaces": interfaces})).unwrap()
}

#[test]
fn a_host_name_is_one_label() {
    for fits in ["arsrv-7k2p9x4m", "a", "Box7", &"a".repeat(63)] {
        parse(Kind::System, json!({"hostname": fits})).unwrap();
    }
    for bad in ["", "-a", "a-", "a.b", "a b", "ä", &"a".repeat(64)] {
        system_refused(
            json!({"hostname": bad}),
            &format!(
                "field `hostname`: `{bad}` is not a host name: 1 to 63 letters, digits or `-`, with no `-` at an end, were expected"
            ),
        );
    }
    system_refused(
        json!({"hostname": "Localhost"}),
        "field `hostname`: `localhost` is every box's name for itself; choose another",
    );
}

#[test]
fn a_time_zone_has_the_form_of_the_tz_database_and_leads_nowhere_else() {
    for fits in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
        parse(Kind::System, json!({"timezone": fits})).unwrap();
    }
    for bad in ["", "../../etc/shadow", "/etc", "Europe/", "Europe//Berlin", "a b", "+5"] {
        system_refused(
            json!({"timezone": bad}),
            &format!(
                "field `timezone`: `{bad}` is not a time zone of the tz database, such as `Europe/Berlin`"
            ),
        );
    }
}

#[test]
fn ntp_servers_are_addresses_or_host_names() {
    parse(Kind::System, json!({"ntp": ["192.0.2.1", "2001:db8::1", "ntp.example.org"]})).unwrap();
    system_refused(
        json!({"ntp": ["a b"]}),
        "field `ntp`: `a b` is neither an address nor a host name",
    );
    system_refused(json!({"ntp": ["a", "a"]}), "field `ntp`: `a` is there twice");
    let nine: Vec<String> = (0..9).map(|n| format!("ntp{n}")).collect();
    system_refused(
        json!({"ntp": nine}),
        "field `ntp`: 9 NTP servers are more than the 8 that are allowed",
    );
}

#[test]
fn an_interface_has_a_name_the_kernel_takes() {
    for bad in ["", "lo", "a b", "a/b", "interface-name-x", "..", "all"] {
        network_refused(
            json!([{"name": bad}]),
            &format!(
                "`{bad}` is not the name of an interface: 1 to 15 letters, digits, `-`, `_` or `.` were expected"
            ),
        );
    }
    network_taken(json!([{"name": "end0"}, {"name": "en*"}]));
    network_refused(
        json!([{"name": "v*", "kind": {"vlan": {"parent": "end0", "id": 1}}}]),
        "`v*` is a pattern; only hardware can be named by one",
    );
    network_refused(
        json!([{"name": "en*", "addresses": ["192.0.2.10/24"]}]),
        "`en*` may stand for several interfaces, which cannot have the same static address; name one",
    );
    network_refused(json!([{"name": "a"}, {"name": "a"}]), "interface `a` is there twice");
}

#[test]
fn addresses_are_ones_a_box_can_have() {
    for bad in ["192.0.2.10", "192.0.2/24", "x/24", "", "192.0.2.10 /24"] {
        network_refused(
            json!([{"name": "a", "addresses": [bad]}]),
            &format!(
                "`a`: `{bad}` is not an address with prefix length, such as `192.0.2.10/24` or `2001:db8::10/64`"
            ),
        );
    }
    for (bad, longest) in
        [("192.0.2.10/33", 32), ("192.0.2.10/0", 32), ("192.0.2.10/", 32), ("2001:db8::1/129", 128)]
    {
        network_refused(
            json!([{"name": "a", "addresses": [bad]}]),
            &format!("`a`: `{bad}` has a prefix length that is not 1 to {longest}"),
        );
    }
    for bad in ["0.0.0.0/8", "224.0.0.1/24", "127.0.0.1/8", "::1/128", "ff02::1/64"] {
        network_refused(
            json!([{"name": "a", "addresses": [bad]}]),
            &format!("`a`: `{bad}` is not an address a box can have"),
        );
    }
    network_refused(
        json!([{"name": "a", "addresses": ["192.0.2.0/24"]}]),
        "`a`: `192.0.2.0/24` is the address of the subnet itself",
    );
    network_refused(
        json!([{"name": "a", "addresses": ["192.0.2.255/24"]}]),
        "`a`: `192.0.2.255/24` is the broadcast address of its subnet",
    );
    network_refused(
        json!([{"name": "a", "addresses": ["192.0.2.1/24", "192.0.2.1/24"]}]),
        "`a`: `192.0.2.1/24` is there twice",
    );
    network_refused(
        json!([{"name": "a", "addresses": ["192.0.2.1/24"]}, {"name": "b", "addresses": ["192.0.2.1/25"]}]),
        "`192.0.2.1` is given to `a` and to `b`",
    );
    network_taken(json!([{"name": "a", "addresses": ["192.0.2.0/31", "192.0.3.1/32"]}]));
}

#[test]
fn a_gateway_is_in_a_subnet_and_not_the_box_itself() {
    let with = |gateways: Value| json!([{"name": "a", "addresses": ["192.0.2.10/24", "2001:db8::10/64"], "gateways": gateways}]);
    network_taken(with(json!(["192.0.2.1", "2001:db8::1"])));
    network_taken(with(json!(["fe80::1"])));
    network_refused(with(json!(["gw"])), "`a`: `gw` is not an address");
    network_refused(
        with(json!(["198.51.100.1"])),
        "`a`: gateway `198.51.100.1` is in no subnet of the static addresses",
    );
    network_refused(
        with(json!(["2001:db9::1"])),
        "`a`: gateway `2001:db9::1` is in no subnet of the static addresses",
    );
    network_refused(
        with(json!(["192.0.2.10"])),
        "`a`: gateway `192.0.2.10` is the interface's own address",
    );
    network_refused(
        with(json!(["192.0.2.1", "192.0.2.2"])),
        "`a`: there is more than one gateway of IPv4",
    );
    network_refused(
        with(json!(["2001:db8::1", "2001:db8::2"])),
        "`a`: there is more than one gateway of IPv6",
    );
}

#[test]
fn names_and_sizes_are_in_their_bounds() {
    network_refused(
        json!([{"name": "a", "dns": ["dns.example"]}]),
        "`a`: DNS server `dns.example` is not an address",
    );
    network_refused(json!([{"name": "a", "search": ["a b"]}]), "`a`: `a b` is not a domain");
    let nine: Vec<String> = (0..9).map(|n| format!("192.0.2.{n}")).collect();
    network_refused(
        json!([{"name": "a", "dns": nine}]),
        "`a`: 9 DNS servers are more than the 8 that are allowed",
    );
    network_refused(
        json!([{"name": "a", "search": nine}]),
        "`a`: 9 search domains are more than the 8 that are allowed",
    );
    network_refused(json!([{"name": "a", "mtu": 575}]), "`a`: MTU 575 is not between 576 and 9216");
    network_refused(
        json!([{"name": "a", "mtu": 9217}]),
        "`a`: MTU 9217 is not between 576 and 9216",
    );
    network_refused(
        json!([{"name": "a", "mtu": 1279, "addresses": ["2001:db8::1/64"]}]),
        "`a`: MTU 1279 is below 1280, which IPv6 needs",
    );
}

#[test]
fn a_vlan_lies_on_hardware_or_a_bond() {
    let vlan = |name: &str, parent: &str, id: u32| json!({"name": name, "kind": {"vlan": {"parent": parent, "id": id}}});
    network_taken(json!([vlan("v1", "end0", 1), vlan("v2", "end0", 4094)]));
    for id in [0, 4095] {
        network_refused(
            json!([vlan("v", "end0", id)]),
            &format!("`v`: VLAN id {id} is not between 1 and 4094"),
        );
    }
    network_refused(json!([vlan("v", "v", 1)]), "`v` cannot be its own parent");
    network_refused(
        json!([vlan("v", "en*", 1)]),
        "`v`: `en*` is a pattern; a parent is named in full",
    );
    network_refused(
        json!([vlan("v", "", 1)]),
        "`v`: `` is not the name of an interface: 1 to 15 letters, digits, `-`, `_` or `.` were expected",
    );
    network_refused(
        json!([vlan("v", "end0", 1), vlan("w", "v", 2)]),
        "`v` is a VLAN and cannot be a parent of `w`",
    );
    network_refused(
        json!([vlan("v", "end0", 1), vlan("w", "end0", 1)]),
        "VLAN 1 of `end0` is both `v` and `w`",
    );
    let bond = json!({"name": "bond0", "kind": {"bond": {"mode": "802.3ad", "members": ["end0", "end1"]}}});
    network_taken(json!([bond, vlan("v", "bond0", 1)]));
    network_refused(
        json!([bond, vlan("v", "end0", 1)]),
        "`v` lies on `end0`, which is a member of a bond; put it on the bond",
    );
    let wifi =
        json!({"name": "wlan0", "kind": {"wifi": {"ssid": "x", "passphrase": {"secret": "s"}}}});
    network_refused(
        json!([wifi, vlan("v", "wlan0", 1)]),
        "`wlan0` is wireless and cannot be a parent of `v`",
    );
}

#[test]
fn a_bond_has_a_known_mode_and_members_of_its_own() {
    let bond = |name: &str, mode: &str, members: &[&str]| json!({"name": name, "kind": {"bond": {"mode": mode, "members": members}}});
    network_refused(
        json!([bond("b", "fast", &["end0"])]),
        "`b`: bond mode `fast` is unknown; `active-backup`, `802.3ad`, `balance-alb` are known",
    );
    network_refused(json!([bond("b", "802.3ad", &[])]), "`b`: a bond needs at least one member");
    network_refused(json!([bond("b", "802.3ad", &["end0", "end0"])]), "`b`: `end0` is there twice");
    network_refused(
        json!([bond("b", "802.3ad", &["end0"]), bond("c", "802.3ad", &["end0"])]),
        "`end0` is a member of `b` and of `c`",
    );
    network_refused(
        json!([bond("b", "802.3ad", &["end0"]), bond("c", "802.3ad", &["b"])]),
        "`b` is a bond and cannot be a member of `c`",
    );
    network_refused(
        json!([bond("b", "802.3ad", &["end0"]), {"name": "end0", "addresses": ["192.0.2.1/24"]}]),
        "`end0` is a member of `b` and cannot have addresses of its own; give them to `b`",
    );
    network_taken(json!([bond("b", "802.3ad", &["end0"]), {"name": "end0", "mtu": 9000}]));
}

#[test]
fn a_wireless_network_has_a_name_and_one_passphrase_that_is_a_secret() {
    let wifi = |name: &str, ssid: &str, passphrase: Value| json!({"name": name, "kind": {"wifi": {"ssid": ssid, "passphrase": passphrase}}});
    let long = "x".repeat(33);
    for bad in ["", &long] {
        network_refused(
            json!([wifi("wlan0", bad, json!({"secret": "s"}))]),
            &format!(
                "`wlan0`: `{bad}` is not the name of a wireless network: 1 to 32 bytes without control characters were expected"
            ),
        );
    }
    for bad in ["1234567", "ümlaut--", &"x".repeat(64)] {
        network_refused(
            json!([wifi("wlan0", "x", json!({"value": bad}))]),
            "`wlan0`: the passphrase is not 8 to 63 ASCII characters",
        );
    }
    network_refused(
        json!([wifi("wlan0", "x", json!({"generate": "uuid4"}))]),
        "`wlan0`: a passphrase cannot be generated: the access point has it; give it as `{value: …}`",
    );
    network_refused(
        json!([
            wifi("wlan0", "x", json!({"secret": "s"})),
            wifi("wlan1", "x", json!({"secret": "s"}))
        ]),
        "more than one interface is wireless; one is allowed",
    );
    let mut spec = network_taken(
        json!([{"name": "end0"}, wifi("wlan0", "Werk 2", json!({"value": "12345678"}))]),
    );
    let mut secrets = spec.secrets_mut();
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0].0, "passphrase");
    *secrets[0].1 = SecretField::Secret("Network/default/passphrase".to_owned());
    assert_eq!(spec.secret_names(), ["Network/default/passphrase"]);
}

#[test]
fn a_network_written_and_read_again_is_the_same() {
    let spec = network_taken(json!([
        {"name": "end0", "addresses": ["192.0.2.10/24"], "gateways": ["192.0.2.1"], "dns": ["192.0.2.1"]},
        {"name": "v", "kind": {"vlan": {"parent": "end0", "id": 7}}, "dhcp": true, "accept_ra": false},
        {"name": "b", "kind": {"bond": {"mode": "active-backup", "members": ["end1", "end2"]}}, "mtu": 9000},
    ]));
    assert_eq!(parse(Kind::Network, spec.to_json()).unwrap(), spec);
}
