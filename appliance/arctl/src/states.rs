//! How channels and connections are, beside what is configured of them.

use std::collections::BTreeMap;

use arapi::names::Kind;
use serde_json::Value;

use crate::client::Api;
use crate::out::moment;

/// What the core says of objects of a kind, by name; empty for kinds that have no state.
#[derive(Debug, Default)]
pub(crate) struct States(BTreeMap<String, Value>);

impl States {
    /// Asks the box.  A box that cannot say how it is can still say what is configured.
    pub(crate) async fn of(api: &Api, kind: Kind) -> Self {
        let list = match kind {
            Kind::Channel => "/arsrv/channels",
            Kind::Outgoing => "/arsrv/outgoing",
            _ => return Self::default(),
        };
        let status: Value = api.get("/v1/status").await.unwrap_or_default();
        Self::within(status.pointer(list))
    }

    fn within(list: Option<&Value>) -> Self {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        let named =
            list.filter_map(|one| Some((one.get("name")?.as_str()?.to_owned(), one.clone())));
        Self(named.collect())
    }

    /// Everything that is known of one.
    pub(crate) fn whole(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The columns of a kind.
    pub(crate) fn titles(kind: Kind) -> &'static [&'static str] {
        match kind {
            Kind::Channel => &["STATE"],
            Kind::Outgoing => &["STATE", "CHECKED", "CALLS", "FAILURES", "LAST ERROR"],
            _ => &[],
        }
    }

    /// The cells of one.
    pub(crate) fn cells(&self, kind: Kind, name: &str) -> Vec<String> {
        let of = self.0.get(name);
        let text = |field: &str| match of.and_then(|of| of.get(field)) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let checked = of.and_then(|of| of.get("checked_ms")).and_then(Value::as_u64);
        match kind {
            Kind::Channel => vec![text("state")],
            Kind::Outgoing => vec![
                text("health"),
                checked.map(moment).unwrap_or_default(),
                text("calls"),
                text("failures"),
                text("last_error"),
            ],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_core_says_stands_beside_the_object() {
        let states = States::within(Some(&json!([
            {"name": "crm", "health": "down", "checked_ms": 1_700_000_000_000_u64, "calls": 7, "failures": 2,
             "last_error": "cannot reach it"},
            {"name": "new", "health": "unknown", "checked_ms": null, "calls": 0, "failures": 0, "last_error": null},
        ])));
        assert_eq!(
            states.cells(Kind::Outgoing, "crm"),
            ["down", "2023-11-14 22:13:20", "7", "2", "cannot reach it"]
        );
        assert_eq!(states.cells(Kind::Outgoing, "new"), ["unknown", "", "0", "0", ""]);
        assert_eq!(states.cells(Kind::Outgoing, "none"), ["", "", "", "", ""]);
        for kind in [Kind::Channel, Kind::Outgoing, Kind::User] {
            assert_eq!(states.cells(kind, "crm").len(), States::titles(kind).len());
        }
    }
}
