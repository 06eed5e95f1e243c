//! Golden texts: what networkd reads for what an admin wrote.

use arapi::names::Kind;
use arapi::objects::Spec;
use serde_json::{Value, json};

use super::*;

fn spec(interfaces: Value) -> NetworkSpec {
    match Spec::parse(Kind::Network, "default", json!({"interfaces": interfaces})).unwrap() {
        Spec::Network(spec) => spec,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(interfaces: Value, expected: &[(&str, &str)]) {
    let files = render(&spec(interfaces));
    let texts: Vec<(&str, &str)> = files
        .iter()
        .map(|file| (file.name.as_str(), file.text.strip_prefix(HEAD).unwrap().trim_start()))
        .collect();
    assert_eq!(texts, expected);
}

#[test]
fn without_an_object_the_image_s_own_file_counts() {
    assert_eq!(render(&NetworkSpec::default()), []);
}

#[test]
fn a_static_interface_has_its_addresses_gateways_and_names() {
    check(
        json!([{
            "name": "end0",
            "addresses": ["192.0.2.10/24", "2001:db8::10/64"],
            "gateways": ["192.0.2.1", "fe80::1"],
            "dns": ["192.0.2.53", "2001:db8::53"],
            "search": ["example.org", "plant.example"],
            "mtu": 9000,
            "accept_ra": false,
        }]),
        &[(
            "10-arint-end0.network",
            "[Match]
Name=end0

[Link]
RequiredForOnline=no
MTUBytes=9000

[Network]
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=ipv6
MulticastDNS=yes
Address=192.0.2.10/24
Address=2001:db8::10/64
DNS=192.0.2.53
DNS=2001:db8::53
Domains=example.org plant.example

[Route]
Gateway=192.0.2.1

[Route]
Gateway=fe80::1
GatewayOnLink=yes

[DHCPv4]
UseHostname=no

[DHCPv6]
UseHostname=no
UseDNS=no

[IPv6AcceptRA]
UseDNS=no
",
        )],
    );
}

#[test]
fn an_interface_with_dhcp_falls_back_to_a_link_local_address() {
    check(
        json!([{"name": "en*", "dns": ["192.0.2.53"]}]),
        &[(
            "10-arint-~en+.network",
            "[Match]
Name=en*
Kind=!*

[Link]
RequiredForOnline=no

[Network]
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=yes
MulticastDNS=yes
DNS=192.0.2.53

[DHCPv4]
UseHostname=no
UseDomains=yes
ClientIdentifier=mac
UseDNS=no

[DHCPv6]
UseHostname=no
UseDNS=no

[IPv6AcceptRA]
UseDNS=no
",
        )],
    );
}

#[test]
fn a_vlan_is_made_and_its_parent_carries_it() {
    check(
        json!([{"name": "office", "kind": {"vlan": {"parent": "end0", "id": 20}}, "addresses": ["192.0.2.10/24"]}]),
        &[
            (
                "10-arint-end0.network",
                "[Match]
Name=end0

[Link]
RequiredForOnline=no

[Network]
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=yes
MulticastDNS=yes
VLAN=office

[DHCPv4]
UseHostname=no
UseDomains=yes
ClientIdentifier=mac

[DHCPv6]
UseHostname=no
",
            ),
            (
                "10-arint-office.netdev",
                "[NetDev]
Name=office
Kind=vlan

[VLAN]
Id=20
",
            ),
            (
                "10-arint-office.network",
                "[Match]
Name=office

[Link]
RequiredForOnline=no

[Network]
DHCP=no
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6
MulticastDNS=yes
Address=192.0.2.10/24

[DHCPv4]
UseHostname=no

[DHCPv6]
UseHostname=no
",
            ),
        ],
    );
}

#[test]
fn a_bond_takes_its_members_in_and_they_have_no_addresses() {
    check(
        json!([{"name": "bond0", "kind": {"bond": {"mode": "802.3ad", "members": ["end0", "end1"]}}, "addresses": ["192.0.2.10/24"]}]),
        &[
            (
                "10-arint-bond0.netdev",
                "[NetDev]
Name=bond0
Kind=bond

[Bond]
Mode=802.3ad
MIIMonitorSec=100ms
TransmitHashPolicy=layer3+4
",
            ),
            (
                "10-arint-bond0.network",
                "[Match]
Name=bond0

[Link]
RequiredForOnline=no

[Network]
DHCP=no
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6
MulticastDNS=yes
Address=192.0.2.10/24

[DHCPv4]
UseHostname=no

[DHCPv6]
UseHostname=no
",
            ),
            (
                "10-arint-end0.network",
                "[Match]
Name=end0

[Link]
RequiredForOnline=no

[Network]
Bond=bond0
LinkLocalAddressing=no
IPv6AcceptRA=no
",
            ),
            (
                "10-arint-end1.network",
                "[Match]
Name=end1

[Link]
RequiredForOnline=no

[Network]
Bond=bond0
LinkLocalAddressing=no
IPv6AcceptRA=no
",
            ),
        ],
    );
}

#[test]
fn a_wireless_network_goes_to_wpa_supplicant_with_its_name_in_hexadecimal() {
    let spec = spec(
        json!([{"name": "wlan0", "kind": {"wifi": {"ssid": "Werk \"2\"", "passphrase": {"secret": "s"}}}}]),
    );
    assert_eq!(wifi(&spec), Some(("wlan0", "Werk \"2\"")));
    assert_eq!(
        wpa_supplicant("Werk \"2\"", "pass\"phrase\"")
            .replace(&hex(&psk("Werk \"2\"", "pass\"phrase\"")), "PSK"),
        "# Made by aros from the Network object; changes here are lost.
ctrl_interface=/run/wpa_supplicant
update_config=0

network={
\tssid=5765726b20223222
\tscan_ssid=1
\tkey_mgmt=WPA-PSK SAE
\tieee80211w=1
\tpsk=PSK
\tsae_password=706173732270687261736522
}
"
    );
}

#[test]
fn wpa_supplicant_itself_reads_what_is_handed_to_it() {
    let program = artest::tool("wpa_supplicant", "wpasupplicant");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wpa.conf");
    for (ssid, passphrase) in [("Plant", "pass\"word\\x #1"), ("Werk \"2\" \u{fc}", "12345678")] {
        std::fs::write(&path, wpa_supplicant(ssid, passphrase)).unwrap();
        // There is no such interface: it ends as soon as it has read its config, and says what it read.
        let output = std::process::Command::new(&program)
            .args(["-dd", "-K", "-D", "none", "-i", "none0", "-c"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("Failed to read or parse configuration"), "{said}");
        // The name and the passphrase as it took them, in hexadecimal.
        let read = |what: &str| {
            let mut lines = said.lines().skip_while(|line| !line.starts_with(what));
            let length = lines.next().unwrap().rsplit_once("len=").unwrap().1;
            let hex: String = lines
                .take_while(|line| line.starts_with("     "))
                .flat_map(|line| line.chars().skip(5).take(48).filter(|c| !c.is_whitespace()))
                .collect();
            (length.trim_end_matches("):").parse::<usize>().unwrap(), hex)
        };
        let hex = |text: &str| hex(text.as_bytes());
        assert_eq!(read("ssid - hexdump_ascii"), (ssid.len(), hex(ssid)));
        assert_eq!(read("sae_password - hexdump_ascii"), (passphrase.len(), hex(passphrase)));
        assert!(said.contains("PSK - hexdump(len=32)"), "{said}");
        assert!(said.contains("key_mgmt: 0x402"), "WPA2 and WPA3: {said}");
    }
}

#[test]
fn a_key_is_made_of_a_passphrase_as_the_standard_s_own_example() {
    assert_eq!(
        hex(&psk("IEEE", "password")),
        "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    );
}

#[test]
fn only_hardware_that_is_named_in_full_can_be_missing() {
    let spec = spec(json!([
        {"name": "en*"},
        {"name": "end0"},
        {"name": "bond0", "kind": {"bond": {"mode": "active-backup", "members": ["end1", "end2"]}}},
        {"name": "v1", "kind": {"vlan": {"parent": "bond0", "id": 1}}},
        {"name": "v2", "kind": {"vlan": {"parent": "end0", "id": 2}}},
    ]));
    assert_eq!(hardware(&spec), ["end0", "end1", "end2"]);
}
