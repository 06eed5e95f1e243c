//! The operating system of a box: its name, its clock, its network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Broken, Rules, SecretField};

/// Most NTP servers, DNS servers or search domains of one list.
const MOST: usize = 8;

/// What a box is called and how it keeps time.  The object's name is the node's, or `default` for every box that has
/// none of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemSpec {
    /// Host name (RFC 1123 label); default: `arsrv-` and eight characters made from the box's own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Time zone of the tz database, for example `Europe/Berlin`; default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// NTP servers, host names or addresses; default: those DHCP names, then the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<String>,
}

impl Rules for SystemSpec {
    fn check(&self) -> Result<(), Broken> {
        if let Some(name) = &self.hostname {
            check_label(name).map_err(|rule| ("hostname", rule))?;
        }
        if let Some(zone) = &self.timezone {
            check_timezone(zone).map_err(|rule| ("timezone", rule))?;
        }
        at_most(&self.ntp, "NTP servers").map_err(|rule| ("ntp", rule))?;
        for server in &self.ntp {
            if server.parse::<IpAddr>().is_err() && !is_domain(server) {
                let found = server.escape_debug();
                return Err(("ntp", format!("`{found}` is neither an address nor a host name")));
            }
        }
        no_duplicates(&self.ntp).map_err(|rule| ("ntp", rule))
    }
}

fn check_label(name: &str) -> Result<(), String> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !fits {
        return Err(format!(
            "`{}` is not a host name: 1 to 63 letters, digits or `-`, with no `-` at an end, were expected",
            name.escape_debug()
        ));
    }
    if name.eq_ignore_ascii_case("localhost") {
        return Err("`localhost` is every box's name for itself; choose another".to_owned());
    }
    Ok(())
}

fn check_timezone(zone: &str) -> Result<(), String> {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    if zone.len() <= 64 && zone.split('/').all(part) {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a time zone of the tz database, such as `Europe/Berlin`",
        zone.escape_debug()
    ))
}

fn at_most(list: &[String], what: &str) -> Result<(), String> {
    if list.len() <= MOST {
        return Ok(());
    }
    Err(format!("{} {what} are more than the {MOST} that are allowed", list.len()))
}

fn no_duplicates(list: &[String]) -> Result<(), String> {
    match list.iter().enumerate().find(|(at, item)| list.iter().take(*at).any(|seen| seen == *item))
    {
        None => Ok(()),
        Some((_, item)) => Err(format!("`{}` is there twice", item.escape_debug())),
    }
}

/// Whether a text is a domain or host name (RFC 1123; a dot at the end is allowed).
fn is_domain(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&text.len()) && text.split('.').all(label)
}

/// The network of a box.  The object's name is the node's, or `default`.  A change is tried for 60 s and
/// rolls back unless it is confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The interfaces; one that is not named here has DHCP, IPv6 autoconfiguration and link-local addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceSpec>,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InterfaceSpec {
    /// Its name, for example `end0`, `vlan20`, `bond0`; for hardware a pattern such as `en*` will do.
    pub name: String,
    /// What it is; default: hardware that is there.
    #[serde(default)]
    pub kind: InterfaceKind,
    /// Whether DHCP is asked; default true unless `addresses` are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Static addresses with prefix length, for example `192.0.2.10/24` or `2001:db8::10/64`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Default routes' gateways, at most one of IPv4 and one of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// DNS servers' addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Domains to search.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Whether router advertisements (RFC 4861) are taken; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_ra: Option<bool>,
    /// MTU, bytes, 576 to 9216; default: the link's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What an interface is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InterfaceKind {
    /// Hardware that is there.
    #[default]
    Ethernet,
    /// A VLAN (IEEE 802.1Q) on another interface.
    Vlan {
        /// The interface below it.
        parent: String,
        /// 1 to 4094.
        id: u16,
    },
    /// Several interfaces as one.
    Bond {
        /// `active-backup`, `802.3ad` or `balance-alb`.
        mode: String,
        /// The interfaces in it.
        members: Vec<String>,
    },
    /// A wireless interface.
    Wifi {
        /// The network's name, 1 to 32 bytes.
        ssid: String,
        /// The passphrase (WPA2/WPA3 personal), 8 to 63 characters.
        passphrase: SecretField,
    },
}

/// An address with the length of its subnet's prefix, for example `192.0.2.10/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub addr: IpAddr,
    /// 0 to 32, or to 128.
    pub prefix: u8,
}

impl Cidr {
    /// Whether an address lies in the same subnet.
    pub fn contains(self, other: IpAddr) -> bool {
        match (self.addr, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let host = 32 - u32::from(self.prefix.min(32));
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let host = 128 - u32::from(self.prefix.min(128));
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }

    /// What keeps a box from having this address.
    fn fault(self) -> Option<&'static str> {
        match self.addr {
            addr if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() => {
                Some("is not an address a box can have")
            }
            IpAddr::V4(addr) if addr.is_broadcast() => Some("is not an address a box can have"),
            IpAddr::V4(addr) if (1..=30).contains(&self.prefix) => {
                let hosts = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                match addr.to_bits() & hosts {
                    0 => Some("is the address of the subnet itself"),
                    host if host == hosts => Some("is the broadcast address of its subnet"),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "`{}` is not an address with prefix length, such as `192.0.2.10/24` or `2001:db8::10/64`",
                text.escape_debug()
            )
        };
        let (addr, prefix) = text.split_once('/').ok_or_else(form)?;
        let addr: IpAddr = addr.parse().map_err(|_| form())?;
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        match prefix.parse::<u8>() {
            Ok(prefix @ 1..) if prefix <= longest => Ok(Self { addr, prefix }),
            _ => Err(format!(
                "`{}` has a prefix length that is not 1 to {longest}",
                text.escape_debug()
            )),
        }
    }
}

impl InterfaceSpec {
    /// An interface of which nothing but the name is said.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: InterfaceKind::Ethernet,
            dhcp: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            accept_ra: None,
            mtu: None,
        }
    }

    /// Whether DHCP is asked.
    pub fn wants_dhcp(&self) -> bool {
        self.dhcp.unwrap_or(self.addresses.is_empty())
    }

    /// Whether its name stands for whatever hardware fits.
    pub fn is_pattern(&self) -> bool {
        self.name.contains(['*', '?', '['])
    }

    fn check(&self) -> Result<(), String> {
        let fits = (1..=15).contains(&self.name.len())
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.*?[]".contains(&b))
            && !["lo", ".", "..", "all", "default"].contains(&self.name.as_str());
        if !fits {
            return Err(format!(
                "`{}` is not the name of an interface: 1 to 15 letters, digits, `-`, `_` or `.` were expected",
                self.name.escape_debug()
            ));
        }
        let name = &self.name;
        if self.is_pattern() && self.kind != InterfaceKind::Ethernet {
            return Err(format!("`{name}` is a pattern; only hardware can be named by one"));
        }
        if self.is_pattern() && !self.addresses.is_empty() {
            return Err(format!(
                "`{name}` may stand for several interfaces, which cannot have the same static address; name one"
            ));
        }
        self.check_addresses().map_err(|rule| format!("`{name}`: {rule}"))?;
        self.check_names().map_err(|rule| format!("`{name}`: {rule}"))?;
        if let Some(mtu) = self.mtu {
            if !(576..=9216).contains(&mtu) {
                return Err(format!("`{name}`: MTU {mtu} is not between 576 and 9216"));
            }
            if mtu < 1280 && self.addresses.iter().any(|address| address.contains(':')) {
                return Err(format!("`{name}`: MTU {mtu} is below 1280, which IPv6 needs"));
            }
        }
        self.kind.check().map_err(|rule| format!("`{name}`: {rule}"))
    }

    fn check_addresses(&self) -> Result<(), String> {
        no_duplicates(&self.addresses)?;
        let mut subnets = Vec::new();
        for written in &self.addresses {
            let address: Cidr = written.parse()?;
            if let Some(fault) = address.fault() {
                return Err(format!("`{written}` {fault}"));
            }
            subnets.push(address);
        }
        let mut gateways: Vec<IpAddr> = Vec::new();
        for written in &self.gateways {
            let gateway: IpAddr = written
                .parse()
                .map_err(|_| format!("`{}` is not an address", written.escape_debug()))?;
            if gateways.iter().any(|seen| seen.is_ipv4() == gateway.is_ipv4()) {
                let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
                return Err(format!("there is more than one gateway of {family}"));
            }
            let on_link = match gateway {
                IpAddr::V4(_) => false,
                IpAddr::V6(addr) => addr.is_unicast_link_local(),
            };
            if !on_link && !subnets.iter().any(|subnet| subnet.contains(gateway)) {
                return Err(format!("gateway `{gateway}` is in no subnet of the static addresses"));
            }
            if subnets.iter().any(|subnet| subnet.addr == gateway) {
                return Err(format!("gateway `{gateway}` is the interface's own address"));
            }
            gateways.push(gateway);
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), String> {
        at_most(&self.dns, "DNS servers")?;
        for server in &self.dns {
            if !server.parse::<IpAddr>().is_ok_and(|addr| !addr.is_unspecified()) {
                return Err(format!("DNS server `{}` is not an address", server.escape_debug()));
            }
        }
        at_most(&self.search, "search domains")?;
        match self.search.iter().find(|domain| !is_domain(domain)) {
            Some(domain) => Err(format!("`{}` is not a domain", domain.escape_debug())),
            None => Ok(()),
        }
    }
}

impl InterfaceKind {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Ethernet => Ok(()),
            Self::Vlan { id, .. } if !(1..=4094).contains(id) => {
                Err(format!("VLAN id {id} is not between 1 and 4094"))
            }
            Self::Vlan { .. } => Ok(()),
            Self::Bond { mode, .. } if !BOND_MODES.contains(&mode.as_str()) => Err(format!(
                "bond mode `{}` is unknown; `{}` are known",
                mode.escape_debug(),
                BOND_MODES.join("`, `")
            )),
            Self::Bond { members, .. } if members.is_empty() => {
                Err("a bond needs at least one member".to_owned())
            }
            Self::Bond { members, .. } => no_duplicates(members),
            Self::Wifi { ssid, .. }
                if !(1..=32).contains(&ssid.len()) || ssid.chars().any(char::is_control) =>
            {
                Err(format!(
                    "`{}` is not the name of a wireless network: 1 to 32 bytes without control characters were expected",
                    ssid.escape_debug()
                ))
            }
            Self::Wifi { passphrase: SecretField::Value(value), .. }
                if !(8..=63).contains(&value.0.len())
                    || !value.0.bytes().all(|b| (b' '..=b'~').contains(&b)) =>
            {
                Err("the passphrase is not 8 to 63 ASCII characters".to_owned())
            }
            Self::Wifi { passphrase: SecretField::Generate(_), .. } => Err(
                "a passphrase cannot be generated: the access point has it; give it as `{value: …}`"
                    .to_owned(),
            ),
            Self::Wifi { .. } => Ok(()),
        }
    }
}

/// How several interfaces can act as one.
const BOND_MODES: &[&str] = &["active-backup", "802.3ad", "balance-alb"];

impl NetworkSpec {
    /// How the interfaces hang together: each is there once, and what lies below another can carry it.  Hardware
    /// that is only a parent or a member need not be listed.
    fn check_layers(&self) -> Result<(), String> {
        let mut bond_of: BTreeMap<&str, &str> = BTreeMap::new();
        let mut vlans: BTreeMap<(&str, u16), &str> = BTreeMap::new();
        let mut holder_of: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (at, interface) in self.interfaces.iter().enumerate() {
            let name = interface.name.as_str();
            if self.interfaces.iter().take(at).any(|seen| seen.name == name) {
                return Err(format!("interface `{name}` is there twice"));
            }
            for address in interface.addresses.iter().filter_map(|text| text.parse::<Cidr>().ok()) {
                if let Some(holder) = holder_of.insert(address.addr, name) {
                    return Err(format!(
                        "`{}` is given to `{holder}` and to `{name}`",
                        address.addr
                    ));
                }
            }
            match &interface.kind {
                InterfaceKind::Vlan { parent, id } => {
                    self.check_lower(name, "parent", parent)?;
                    if let Some(other) = vlans.insert((parent, *id), name) {
                        return Err(format!(
                            "VLAN {id} of `{parent}` is both `{other}` and `{name}`"
                        ));
                    }
                }
                InterfaceKind::Bond { members, .. } => {
                    for member in members {
                        self.check_lower(name, "member", member)?;
                        if let Some(other) = bond_of.insert(member, name) {
                            return Err(format!(
                                "`{member}` is a member of `{other}` and of `{name}`"
                            ));
                        }
                    }
                }
                InterfaceKind::Ethernet | InterfaceKind::Wifi { .. } => {}
            }
        }
        for interface in &self.interfaces {
            let name = interface.name.as_str();
            let Some(bond) = bond_of.get(name) else { continue };
            if interface.dhcp == Some(true)
                || !interface.addresses.is_empty()
                || !interface.gateways.is_empty()
                || !interface.dns.is_empty()
            {
                return Err(format!(
                    "`{name}` is a member of `{bond}` and cannot have addresses of its own; give them to `{bond}`"
                ));
            }
        }
        if let Some(((parent, _), vlan)) =
            vlans.iter().find(|((parent, _), _)| bond_of.contains_key(parent))
        {
            return Err(format!(
                "`{vlan}` lies on `{parent}`, which is a member of a bond; put it on the bond"
            ));
        }
        Ok(())
    }

    /// Checks the interface `lower`, which carries `name`.
    fn check_lower(&self, name: &str, role: &str, lower: &str) -> Result<(), String> {
        if lower == name {
            return Err(format!("`{name}` cannot be its own {role}"));
        }
        let Some(listed) = self.interfaces.iter().find(|interface| interface.name == lower) else {
            // Not listed: hardware of which nothing else is said.
            return InterfaceSpec::named(lower)
                .check()
                .and_then(|()| {
                    if InterfaceSpec::named(lower).is_pattern() {
                        return Err(format!("`{lower}` is a pattern; a {role} is named in full"));
                    }
                    Ok(())
                })
                .map_err(|rule| format!("`{name}`: {rule}"));
        };
        match (&listed.kind, role) {
            (InterfaceKind::Ethernet, _) | (InterfaceKind::Bond { .. }, "parent") => Ok(()),
            (InterfaceKind::Bond { .. }, _) => {
                Err(format!("`{lower}` is a bond and cannot be a member of `{name}`"))
            }
            (InterfaceKind::Vlan { .. }, _) => {
                Err(format!("`{lower}` is a VLAN and cannot be a {role} of `{name}`"))
            }
            (InterfaceKind::Wifi { .. }, _) => {
                Err(format!("`{lower}` is wireless and cannot be a {role} of `{name}`"))
            }
        }
    }
}

impl Rules for NetworkSpec {
    fn check(&self) -> Result<(), Broken> {
        let field = |rule| ("interfaces", rule);
        for interface in &self.interfaces {
            interface.check().map_err(field)?;
        }
        let is_wifi =
            |interface: &&InterfaceSpec| matches!(interface.kind, InterfaceKind::Wifi { .. });
        if self.interfaces.iter().filter(is_wifi).count() > 1 {
            return Err(field("more than one interface is wireless; one is allowed".to_owned()));
        }
        self.check_layers().map_err(field)
    }

    fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretField)> {
        self.interfaces
            .iter_mut()
            .filter_map(|interface| match &mut interface.kind {
                InterfaceKind::Wifi { passphrase, .. } => Some(("passphrase", passphrase)),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
