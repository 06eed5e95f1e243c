//! What a new store begins with: a cluster, this box, the four roles.

use arapi::arclst::Expect;
use arapi::objects::Permission;
use arapi::{Kind, ObjectName};
use rand::RngCore as _;
use serde_json::json;

use crate::command::{Command, Edit};

/// The author of the first objects.
const WHO: &str = "system:first-run";

/// The roles that exist from the start, with what each may do.
fn roles() -> [(&'static str, Vec<Permission>, &'static str); 4] {
    use Permission::{Access, Audit, Configure, Develop, Logs, Operate, Read, System};
    let viewer = vec![Read, Logs];
    let operator = [viewer.clone(), vec![Operate]].concat();
    let developer = [operator.clone(), vec![Develop]].concat();
    let admin = [developer.clone(), vec![Configure, Access, Audit, System]].concat();
    [
        ("viewer", viewer, "Reads objects, status, figures and logs"),
        ("operator", operator, "Also invokes services by hand and pings connections"),
        ("developer", developer, "Also deploys services and changes channels and connections"),
        ("admin", admin, "May do everything"),
    ]
}

/// The command that founds a cluster of the box `node`.
pub(crate) fn founding(node: &ObjectName, time_ms: u64, history_keep: u64) -> Command {
    let mut id = [0u8; 16];
    rand::rng().fill_bytes(&mut id);
    let mut edits = Vec::new();
    for (name, permissions, description) in roles() {
        if let Ok(name) = ObjectName::parse(name) {
            let spec = json!({"permissions": permissions, "description": description});
            edits.push(Edit::Put { kind: Kind::Role, name, spec, expect: Expect::Absent });
        }
    }
    edits.push(own_node(node));
    Command {
        time_ms,
        who: WHO.to_owned(),
        cid: None,
        founds: Some(hex::encode(id)),
        history_keep,
        edits,
    }
}

/// The command that makes the object of a box that has none yet.
pub(crate) fn joining(node: &ObjectName, time_ms: u64, history_keep: u64) -> Command {
    Command {
        time_ms,
        who: "system:start".to_owned(),
        cid: None,
        founds: None,
        history_keep,
        edits: vec![own_node(node)],
    }
}

fn own_node(node: &ObjectName) -> Edit {
    Edit::Put { kind: Kind::Node, name: node.clone(), spec: json!({}), expect: Expect::Absent }
}
