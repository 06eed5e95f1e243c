//! Gateways: REST channels whose requests name the service, by a part of the path.
//!
//! A name that is not on the channel's white list, is not deployed, is switched off, or was not granted to this
//! caller looks like any path that leads nowhere.

use super::steps::Visit;
use crate::channel::{Target, Targets};

/// The service that a request is for; None where it names none that it may reach.
pub fn target<'v>(visit: &Visit<'v>) -> Option<&'v Target> {
    let channel = visit.found.channel;
    let named = match &channel.targets {
        Targets::One(target) => return Some(target),
        Targets::Onward(onward) => return Some(&onward.target),
        Targets::Named(named) => named,
    };
    let part = channel.service_part?;
    let (_, name) = visit.found.params.iter().find(|(known, _)| *known == part)?;
    let target = named.get(name.as_str());
    if target.is_none() {
        log::warn!(
            cid:% = visit.cid, channel:% = channel.name, service:% = name.escape_debug();
            "request names a service that this channel does not lead to"
        );
    }
    target
}
