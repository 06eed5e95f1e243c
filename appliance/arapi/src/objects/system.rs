//! The operating system of a box: its name, its clock, its network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Broken, Rules, SecretField};

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

impl Rules for SystemSpec {}

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

impl Rules for NetworkSpec {
    fn check(&self) -> Result<(), Broken> {
        Ok(())
    }
}
