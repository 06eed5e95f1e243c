//! What this release has no component for: why it is not taken, and what to do until then.

use super::document::Entry;
use super::fields::Refused;
use super::plan::{Draft, Outcome};

/// Sections, what they are about, and what to do until a later release.
const LATER: &[(&[&str], &str, &str)] = &[
    (
        &["scheduler"],
        "jobs",
        "let another machine's cron call a channel of the service, at the times the job has",
    ),
    (
        &[
            "pubsub_topic",
            "pubsub_endpoint",
            "pubsub_subscription",
            "pubsub_sub",
            "pubsub_permission",
        ],
        "topics and subscriptions",
        "`self.invoke_async` for one receiver, `self.patterns.parallel` for several",
    ),
    (
        &["email_smtp"],
        "mail",
        "`smtplib` in the service, with server and password in a user config",
    ),
    (
        &["email_imap"],
        "mail",
        "`imaplib` in the service, with server and password in a user config",
    ),
    (
        &["channel_amqp", "outconn_amqp", "outgoing_amqp", "def_amqp"],
        "AMQP",
        "a REST channel or connection where the other side has one",
    ),
    (
        &["channel_jms_wmq", "outconn_jms_wmq", "def_jms_wmq", "channel_ibm_mq", "outgoing_ibm_mq"],
        "IBM MQ",
        "the REST interface of the queue manager by `self.rest`",
    ),
    (
        &["channel_kafka", "outgoing_kafka", "def_kafka"],
        "Kafka",
        "a REST proxy of the broker by `self.rest`",
    ),
    (
        &["channel_zmq", "outconn_zmq"],
        "ZeroMQ",
        "a REST channel or connection where the other side has one",
    ),
    (
        &[
            "outconn_ftp",
            "outconn_sftp",
            "ftp",
            "sftp",
            "smb",
            "channel_file_transfer",
            "file_transfer",
        ],
        "file servers",
        "`ftplib` in the service, or let the other side send the file to a channel",
    ),
    (
        &["outconn_redis", "redis"],
        "Redis servers",
        "`self.kvdb`, the key-value store of the box itself",
    ),
    (&["outconn_ldap", "outgoing_ldap", "ldap"], "LDAP", "a REST gateway of the directory"),
    (&["outconn_odoo", "odoo"], "Odoo", "`xmlrpc.client` in the service"),
    (&["outconn_sap", "sap", "odata"], "SAP", "its OData services by `self.rest`"),
    (
        &[
            "def_cassandra",
            "query_cassandra",
            "search_es",
            "search_solr",
            "elastic_search",
            "mongodb",
        ],
        "this store",
        "its REST interface by `self.rest`",
    ),
    (
        &[
            "sms_twilio",
            "slack",
            "confluence",
            "jira",
            "salesforce",
            "microsoft_365",
            "def_cloud_aws_s3",
            "llm",
        ],
        "connections to this service of the cloud",
        "its REST interface by `self.rest`, with a Security of type `oauth`, `bearer` or `basic`",
    ),
    (
        &["outgoing_grpc", "outgoing_as2", "outgoing_as4", "channel_as4", "channel_mllp"],
        "this protocol",
        "a REST connection where the other side has one",
    ),
    (&["outgoing_fhir", "outconn_hl7_fhir"], "FHIR", "its REST interface by `self.rest`"),
    (
        &["notif_sql", "notif_cloud_openstack_swift"],
        "notifiers",
        "a service that asks, called from outside",
    ),
    (&["outgoing_wsx"], "WebSocket connections", "a Python library in the service"),
    (&["vault_connection", "vault_conn"], "Vault", "its REST interface by `self.rest`"),
    (&["mcp_gateway"], "this gateway", "a REST channel"),
];

/// Tells of everything that is left.
pub(super) fn rest(draft: &mut Draft<'_>) {
    for (index, entry) in draft.open() {
        if entry.section == "channel_openapi" {
            let note = "channels describe themselves here: the box answers `/openapi.json`";
            draft.tell(index, Outcome::Changed, Vec::new(), vec![note.to_owned()], None);
            continue;
        }
        let refused = why(entry);
        draft.refuse(index, refused);
    }
}

fn why(entry: &Entry) -> Refused {
    let section = entry.section.as_str();
    if section.starts_with("zato_generic_connection") || section == "zato_generic_rest_wrapper" {
        let kind =
            ["type_", "wrapper_type"].iter().find_map(|field| entry.fields.get(*field)?.as_str());
        let kind =
            kind.or_else(|| section.strip_prefix("zato_generic_connection_")).unwrap_or("unknown");
        return Refused::new(
            format!("connections of type `{kind}` are not in this release"),
            "the other side's REST interface by `self.rest`, or a Python library in the service",
        );
    }
    let known = LATER.iter().find(|(sections, _, _)| sections.contains(&section));
    match known {
        Some((_, about, instead)) => {
            Refused::new(format!("this release has no component for {about}"), *instead)
        }
        None => Refused::new(
            format!("no section of Zato that is known here is called `{section}`"),
            "see whether it is spelt right; if Zato reads it, tell us",
        ),
    }
}
