//! From what an admin wrote to the files that systemd-networkd reads.
//!
//! Pure: it reads no link and writes no file.  What a spec does not name falls to the image's own file
//! (`60-arint-wired.network`), which asks for everything a network may offer.
//!
//! **Invariant:** the same spec makes the same files, so that a comparison of texts says what changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use arapi::objects::{InterfaceKind, InterfaceSpec, NetworkSpec};

/// What our files start with, so that stale ones are found.
pub(crate) const PREFIX: &str = "10-arint-";

/// A file for networkd: its name and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Its name in networkd's folder.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

/// What hangs on an interface.
#[derive(Debug, Default)]
struct Lower<'a> {
    vlans: Vec<&'a str>,
    bond: Option<&'a str>,
}

/// The files of a spec, by name.
pub(crate) fn render(spec: &NetworkSpec) -> Vec<File> {
    let mut lower: BTreeMap<&str, Lower<'_>> = BTreeMap::new();
    for interface in &spec.interfaces {
        match &interface.kind {
            InterfaceKind::Vlan { parent, .. } => {
                lower.entry(parent).or_default().vlans.push(&interface.name);
            }
            InterfaceKind::Bond { members, .. } => {
                for member in members {
                    lower.entry(member).or_default().bond = Some(&interface.name);
                }
            }
            InterfaceKind::Ethernet | InterfaceKind::Wifi { .. } => {}
        }
    }
    let none = Lower::default();
    let mut files = Vec::new();
    for interface in &spec.interfaces {
        files.extend(netdev(interface));
        let below = lower.get(interface.name.as_str()).unwrap_or(&none);
        files.push(network(interface, below));
    }
    // Hardware that is only a parent or a member: it has what an unnamed one has, or what its bond leaves it.
    for (name, below) in &lower {
        if !spec.interfaces.iter().any(|interface| interface.name == *name) {
            files.push(network(&InterfaceSpec::named(*name), below));
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files
}

const HEAD: &str = "# Made by aros from the Network object; changes here are lost.\n";

/// A name as part of a file's name; patterns have characters that a file's name should not have.
fn file_name(interface: &str, suffix: &str) -> String {
    let clean: String = interface
        .chars()
        .map(|c| match c {
            '*' => '+',
            '?' => '=',
            '[' | ']' => '_',
            c => c,
        })
        .collect();
    // Patterns come after names: networkd takes the first file that fits.
    let order = if clean == interface { "10-arint-" } else { "10-arint-~" };
    format!("{order}{clean}.{suffix}")
}

fn netdev(interface: &InterfaceSpec) -> Option<File> {
    let name = &interface.name;
    let (kind, more) = match &interface.kind {
        InterfaceKind::Ethernet | InterfaceKind::Wifi { .. } => return None,
        InterfaceKind::Vlan { id, .. } => ("vlan", format!("[VLAN]\nId={id}\n")),
        InterfaceKind::Bond { mode, .. } => {
            let lacp = if mode == "802.3ad" { "TransmitHashPolicy=layer3+4\n" } else { "" };
            ("bond", format!("[Bond]\nMode={mode}\nMIIMonitorSec=100ms\n{lacp}"))
        }
    };
    Some(File {
        name: file_name(name, "netdev"),
        text: format!("{HEAD}\n[NetDev]\nName={name}\nKind={kind}\n\n{more}"),
    })
}

fn network(interface: &InterfaceSpec, below: &Lower<'_>) -> File {
    let mut text = format!("{HEAD}\n[Match]\nName={}\n", interface.name);
    if interface.is_pattern() {
        // A pattern means hardware: it must not take a VLAN or a bond in, whose names may fit as well.
        text.push_str("Kind=!*\n");
    }
    text.push_str("\n[Link]\nRequiredForOnline=no\n");
    if let Some(mtu) = interface.mtu {
        line(&mut text, "MTUBytes", mtu);
    }
    text.push_str("\n[Network]\n");
    if let Some(bond) = below.bond {
        line(&mut text, "Bond", bond);
        text.push_str("LinkLocalAddressing=no\nIPv6AcceptRA=no\n");
        return File { name: file_name(&interface.name, "network"), text };
    }
    let dhcp = interface.wants_dhcp();
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    line(&mut text, "DHCP", yes_no(dhcp));
    line(&mut text, "IPv6AcceptRA", yes_no(interface.accept_ra.unwrap_or(true)));
    // A static address of IPv4 needs no fallback; with neither, the link-local one is how the box is found.
    let has_v4 = interface.addresses.iter().any(|address| !address.contains(':'));
    line(&mut text, "LinkLocalAddressing", if has_v4 { "ipv6" } else { "yes" });
    text.push_str("MulticastDNS=yes\n");
    for address in &interface.addresses {
        line(&mut text, "Address", address);
    }
    for server in &interface.dns {
        line(&mut text, "DNS", server);
    }
    if !interface.search.is_empty() {
        line(&mut text, "Domains", interface.search.join(" "));
    }
    for vlan in &below.vlans {
        line(&mut text, "VLAN", vlan);
    }
    for gateway in &interface.gateways {
        text.push_str("\n[Route]\n");
        line(&mut text, "Gateway", gateway);
        // A link-local gateway is on the link whatever the addresses say.
        if gateway.parse().is_ok_and(|addr: IpAddr| addr.is_ipv6()) {
            text.push_str("GatewayOnLink=yes\n");
        }
    }
    // Said without DHCP too: networkd would give back the name of a lease that it had before.
    text.push_str("\n[DHCPv4]\nUseHostname=no\n");
    if dhcp {
        text.push_str("UseDomains=yes\nClientIdentifier=mac\n");
        if !interface.dns.is_empty() {
            text.push_str("UseDNS=no\n");
        }
    }
    text.push_str("\n[DHCPv6]\nUseHostname=no\n");
    if !interface.dns.is_empty() {
        text.push_str("UseDNS=no\n\n[IPv6AcceptRA]\nUseDNS=no\n");
    }
    File { name: file_name(&interface.name, "network"), text }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a text cannot fail.
    writeln!(text, "{key}={value}").ok();
}

/// The config of wpa_supplicant for one wireless network.
pub(crate) fn wpa_supplicant(ssid: &str, passphrase: &str) -> String {
    // In hexadecimal nothing needs quoting; wpa_supplicant takes a `#` after a quoted `"` for a comment.
    let (name, password) = (hex(ssid.as_bytes()), hex(passphrase.as_bytes()));
    let psk = hex(&psk(ssid, passphrase));
    format!(
        "# Made by aros from the Network object; changes here are lost.\nctrl_interface=/run/wpa_supplicant\nupdate_config=0\n\nnetwork={{\n\tssid={name}\n\tscan_ssid=1\n\tkey_mgmt=WPA-PSK SAE\n\tieee80211w=1\n\tpsk={psk}\n\tsae_password={password}\n}}\n"
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key of WPA2 that a passphrase stands for (IEEE 802.11, annex J.4).
fn psk(ssid: &str, passphrase: &str) -> [u8; 32] {
    let mut key = [0; 32];
    let rounds = std::num::NonZeroU32::MIN.saturating_add(4095);
    let salt = ssid.as_bytes();
    ring::pbkdf2::derive(
        ring::pbkdf2::PBKDF2_HMAC_SHA1,
        rounds,
        salt,
        passphrase.as_bytes(),
        &mut key,
    );
    key
}

/// The wireless interface of a spec and its network's name.
pub(crate) fn wifi(spec: &NetworkSpec) -> Option<(&str, &str)> {
    spec.interfaces.iter().find_map(|interface| match &interface.kind {
        InterfaceKind::Wifi { ssid, .. } => Some((interface.name.as_str(), ssid.as_str())),
        _ => None,
    })
}

/// The hardware a spec names in full: what should be there.
pub(crate) fn hardware(spec: &NetworkSpec) -> Vec<&str> {
    let virtual_ones: Vec<&str> = spec
        .interfaces
        .iter()
        .filter(|i| matches!(i.kind, InterfaceKind::Vlan { .. } | InterfaceKind::Bond { .. }))
        .map(|interface| interface.name.as_str())
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for interface in &spec.interfaces {
        match &interface.kind {
            InterfaceKind::Ethernet if interface.is_pattern() => {}
            InterfaceKind::Ethernet | InterfaceKind::Wifi { .. } => names.push(&interface.name),
            InterfaceKind::Vlan { parent, .. } => names.push(parent),
            InterfaceKind::Bond { members, .. } => names.extend(members.iter().map(String::as_str)),
        }
    }
    names.retain(|name| !virtual_ones.contains(name));
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
