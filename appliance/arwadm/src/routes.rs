//! Every route of the admin API.  The router, the OpenAPI document and the coverage test are made from this table.

use arapi::objects::{HttpMethod, Permission};
use arapi::{aros, arwadm as wire};
use axum::routing::{MethodRouter, delete, get, post, put};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::server::App;
use crate::{api, metrics, packages, session, system, traces};

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Public,
    /// Anyone who is logged in.
    LoggedIn,
    /// Who has the permission.
    Needs(Permission),
    /// Who has one of `develop`, `configure` and `access`; which one depends on the kinds that are changed.
    ByKind,
    /// A service of the same box, on the socket.
    Service,
}

/// One row.
#[derive(Clone, Copy)]
pub struct Route {
    /// The method.
    pub method: HttpMethod,
    /// The path.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Its name: the operation's id and the action in the audit log.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Largest body, bytes.
    pub(crate) limit: usize,
    /// The forms of what goes in and out.
    pub(crate) form: Form,
    pub(crate) handler: fn() -> MethodRouter<App>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.method.as_str(), self.path, self.name)
    }
}

impl Route {
    /// Whether it changes anything; every attempt at that is in the audit log.
    pub fn is_change(&self) -> bool {
        self.method != HttpMethod::Get
    }

    /// Whether it is answered before the box is claimed.
    pub(crate) fn before_claim(&self) -> bool {
        self.path == "/v1/claim"
    }

    /// Whether its body is passed on as it comes, instead of being read first.
    pub(crate) fn is_streamed(&self) -> bool {
        self.form.is_upload
    }
}

type Make = fn(&mut SchemaGenerator) -> Schema;

/// The forms of what goes in and out of a call.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) query: Option<Make>,
    pub(crate) body: Option<Make>,
    /// Whether the body is a file.
    pub(crate) is_upload: bool,
    pub(crate) answer: Out,
}

/// The form of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Out {
    /// One JSON document.
    Json(Make),
    /// JSON documents, one a line.
    Lines(Make),
    /// A page of figures.
    Figures,
    /// A file.
    File,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn out<T: JsonSchema>() -> Form {
    Form { query: None, body: None, is_upload: false, answer: Out::Json(schema::<T>) }
}

const fn lines<T: JsonSchema>() -> Form {
    Form { query: None, body: None, is_upload: false, answer: Out::Lines(schema::<T>) }
}

const fn figures() -> Form {
    Form { query: None, body: None, is_upload: false, answer: Out::Figures }
}

const fn file() -> Form {
    Form { query: None, body: None, is_upload: false, answer: Out::File }
}

impl Form {
    const fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(schema::<T>);
        self
    }

    const fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(schema::<T>);
        self
    }

    const fn upload(mut self) -> Self {
        self.is_upload = true;
        self
    }
}

/// For calls that carry names and passwords.
const SMALL: usize = 64 * 1024;
/// For objects and payloads.
const LARGE: usize = 16 * 1024 * 1024;
/// For sources.
const SOURCES: usize = 64 * 1024 * 1024;
/// For a wheel: the largest there are, with libraries inside, are half of that.
const WHEEL: usize = 512 * 1024 * 1024;
/// For an update bundle: both slots' images fit in.
const BUNDLE: usize = 2 * 1024 * 1024 * 1024 - 1;

/// The table.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    Route { method: HttpMethod::Get, path: "/openapi.json", access: Access::Public, name: "openapi",
        summary: "This document.",
        limit: SMALL, form: out::<serde_json::Value>(), handler: || get(api::openapi) },
    Route { method: HttpMethod::Get, path: "/v1/claim", access: Access::Public, name: "claim_info",
        summary: "Says whether the box is claimed, and who it is.",
        limit: SMALL, form: out::<wire::ClaimInfo>(), handler: || get(api::claim_info) },
    Route { method: HttpMethod::Post, path: "/v1/claim", access: Access::Public, name: "claim",
        summary: "Makes the first admin, once, with the code that the box shows.",
        limit: SMALL, form: out::<wire::TokenAnswer>().body::<wire::ClaimRequest>(), handler: || post(api::claim) },
    Route { method: HttpMethod::Post, path: "/v1/login", access: Access::Public, name: "login",
        summary: "Gives a token for a user's password.",
        limit: SMALL, form: out::<wire::TokenAnswer>().body::<wire::LoginRequest>(), handler: || post(api::login) },
    Route { method: HttpMethod::Post, path: "/v1/logout", access: Access::LoggedIn, name: "logout",
        summary: "Ends the token this call is made with.",
        limit: SMALL, form: out::<wire::Done>(), handler: || post(api::logout) },
    Route { method: HttpMethod::Get, path: "/v1/session", access: Access::Public, name: "session",
        summary: "Says who is logged in with this browser's cookie, and what changes need; `null` where nobody is.",
        limit: SMALL, form: out::<Option<wire::SessionAnswer>>(), handler: || get(session::show) },
    Route { method: HttpMethod::Post, path: "/v1/session", access: Access::Public, name: "session_open",
        summary: "Logs a browser in: like `/v1/login`, with the token in a cookie that scripts cannot read.",
        limit: SMALL, form: out::<wire::SessionAnswer>().body::<wire::LoginRequest>(), handler: || post(session::open) },
    Route { method: HttpMethod::Delete, path: "/v1/session", access: Access::LoggedIn, name: "session_close",
        summary: "Logs a browser out.",
        limit: SMALL, form: out::<wire::Done>(), handler: || delete(session::close) },
    Route { method: HttpMethod::Get, path: "/v1/whoami", access: Access::LoggedIn, name: "whoami",
        summary: "Says who the caller is and what he may do.",
        limit: SMALL, form: out::<wire::WhoAmI>(), handler: || get(api::whoami) },
    Route { method: HttpMethod::Get, path: "/v1/tokens", access: Access::LoggedIn, name: "token_list",
        summary: "Lists the caller's tokens; with permission `access`, everybody's.",
        limit: SMALL, form: out::<Vec<wire::TokenInfo>>(), handler: || get(api::token_list) },
    Route { method: HttpMethod::Post, path: "/v1/tokens", access: Access::LoggedIn, name: "token_create",
        summary: "Makes a long-lived token for the caller.",
        limit: SMALL, form: out::<wire::TokenAnswer>().body::<wire::TokenRequest>(), handler: || post(api::token_create) },
    Route { method: HttpMethod::Delete, path: "/v1/tokens/{name}", access: Access::LoggedIn, name: "token_revoke",
        summary: "Ends one of the caller's tokens; with permission `access`, anybody's.",
        limit: SMALL, form: out::<wire::Done>(), handler: || delete(api::token_revoke) },
    Route { method: HttpMethod::Post, path: "/v1/password", access: Access::LoggedIn, name: "password_change",
        summary: "Changes the caller's own password; his other tokens end.",
        limit: SMALL, form: out::<wire::Done>().body::<wire::OwnPasswordRequest>(), handler: || post(api::password_change) },
    Route { method: HttpMethod::Post, path: "/v1/users/{name}/password", access: Access::Needs(Permission::Access), name: "password_set",
        summary: "Sets a user's password; his tokens end.",
        limit: SMALL, form: out::<wire::Done>().body::<wire::PasswordRequest>(), handler: || post(api::password_set) },
    Route { method: HttpMethod::Get, path: "/v1/objects", access: Access::Needs(Permission::Read), name: "object_list_all",
        summary: "Lists every object; sources of modules are left out.",
        limit: SMALL, form: out::<wire::ObjectList>(), handler: || get(api::object_list_all) },
    Route { method: HttpMethod::Get, path: "/v1/objects/{kind}", access: Access::Needs(Permission::Read), name: "object_list",
        summary: "Lists the objects of one kind; sources of modules are left out.",
        limit: SMALL, form: out::<wire::ObjectList>(), handler: || get(api::object_list) },
    Route { method: HttpMethod::Get, path: "/v1/objects/{kind}/{name}", access: Access::Needs(Permission::Read), name: "object_get",
        summary: "Gives one object; its revision is the `ETag`.",
        limit: SMALL, form: out::<wire::ObjectView>(), handler: || get(api::object_get) },
    Route { method: HttpMethod::Put, path: "/v1/objects/{kind}/{name}", access: Access::ByKind, name: "object_put",
        summary: "Makes or replaces one object.",
        limit: LARGE, form: out::<wire::TransactionAnswer>().body::<wire::PutRequest>(), handler: || put(api::object_put) },
    Route { method: HttpMethod::Delete, path: "/v1/objects/{kind}/{name}", access: Access::ByKind, name: "object_delete",
        summary: "Removes one object.",
        limit: SMALL, form: out::<wire::TransactionAnswer>(), handler: || delete(api::object_delete) },
    Route { method: HttpMethod::Post, path: "/v1/transactions", access: Access::ByKind, name: "transaction",
        summary: "Makes many changes, accepted only whole.",
        limit: LARGE, form: out::<wire::TransactionAnswer>().body::<wire::TransactionRequest>(), handler: || post(api::transaction) },
    Route { method: HttpMethod::Get, path: "/v1/history/{kind}/{name}", access: Access::Needs(Permission::Read), name: "object_history",
        summary: "Lists what became of one object, newest first; at most `most` entries (default 50).",
        limit: SMALL, form: out::<Vec<wire::HistoryView>>().query::<api::HistoryQuery>(), handler: || get(api::object_history) },
    Route { method: HttpMethod::Get, path: "/v1/secrets", access: Access::Needs(Permission::Configure), name: "secret_list",
        summary: "Lists the names of the secrets; values are never shown.",
        limit: SMALL, form: out::<Vec<String>>(), handler: || get(api::secret_list) },
    Route { method: HttpMethod::Post, path: "/v1/secrets/{name}", access: Access::Needs(Permission::Configure), name: "secret_put",
        summary: "Keeps a shared secret.",
        limit: SMALL, form: out::<wire::Done>().body::<wire::SecretRequest>(), handler: || post(api::secret_put) },
    Route { method: HttpMethod::Delete, path: "/v1/secrets/{name}", access: Access::Needs(Permission::Configure), name: "secret_delete",
        summary: "Removes a shared secret that nothing refers to.",
        limit: SMALL, form: out::<wire::Done>(), handler: || delete(api::secret_delete) },
    Route { method: HttpMethod::Post, path: "/v1/securities/{name}/reset", access: Access::Needs(Permission::Configure), name: "security_reset",
        summary: "Makes a new secret for a Security and shows it once.",
        limit: SMALL, form: out::<wire::ResetAnswer>(), handler: || post(api::security_reset) },
    Route { method: HttpMethod::Get, path: "/v1/deployments", access: Access::Needs(Permission::Read), name: "deployment_list",
        summary: "Lists the deployed modules with their services.",
        limit: SMALL, form: out::<Vec<wire::ModuleInfo>>(), handler: || get(api::deployment_list) },
    Route { method: HttpMethod::Post, path: "/v1/deployments", access: Access::Needs(Permission::Develop), name: "deploy",
        summary: "Deploys files together; answers once they are live, or 422 with file, line and reason.",
        limit: SOURCES, form: out::<wire::DeployAnswer>().body::<wire::DeployRequest>(), handler: || post(api::deploy) },
    Route { method: HttpMethod::Get, path: "/v1/deployments/{module}", access: Access::Needs(Permission::Read), name: "deployment_versions",
        summary: "Lists the versions of a module, newest first.",
        limit: SMALL, form: out::<Vec<wire::ModuleVersion>>(), handler: || get(api::deployment_versions) },
    Route { method: HttpMethod::Delete, path: "/v1/deployments/{module}", access: Access::Needs(Permission::Develop), name: "undeploy",
        summary: "Removes a module with its services.",
        limit: SMALL, form: out::<wire::DeployAnswer>(), handler: || delete(api::undeploy) },
    Route { method: HttpMethod::Post, path: "/v1/deployments/{module}/rollback", access: Access::Needs(Permission::Develop), name: "rollback",
        summary: "Deploys an earlier version of a module again.",
        limit: SMALL, form: out::<wire::DeployAnswer>().body::<wire::RollbackRequest>(), handler: || post(api::rollback) },
    Route { method: HttpMethod::Get, path: "/v1/packages", access: Access::Needs(Permission::Read), name: "package_list",
        summary: "Lists the uploaded wheels and the environments that are built.",
        limit: SMALL, form: out::<arapi::arsrv::PackagesView>(), handler: || get(packages::list) },
    Route { method: HttpMethod::Put, path: "/v1/packages/wheels/{file}", access: Access::Needs(Permission::Develop), name: "wheel_upload",
        summary: "Takes a wheel, from which deployments with a `requirements.txt` are served.",
        limit: WHEEL, form: out::<arapi::arsrv::WheelInfo>().upload(), handler: || put(packages::upload) },
    Route { method: HttpMethod::Delete, path: "/v1/packages/wheels/{file}", access: Access::Needs(Permission::Develop), name: "wheel_remove",
        summary: "Removes an uploaded wheel; what was deployed with it goes on.",
        limit: SMALL, form: out::<()>(), handler: || delete(packages::remove) },
    Route { method: HttpMethod::Post, path: "/v1/ide-deploy", access: Access::Service, name: "ide_deploy",
        summary: "Deploys what an editor sent to the channel port.",
        limit: SOURCES, form: out::<wire::DeployAnswer>().body::<wire::IdeDeployRequest>(), handler: || post(api::ide_deploy) },
    Route { method: HttpMethod::Get, path: "/v1/status", access: Access::Needs(Permission::Read), name: "status",
        summary: "Says how the whole box is.",
        limit: SMALL, form: out::<wire::NodeStatus>(), handler: || get(api::status) },
    Route { method: HttpMethod::Get, path: "/metrics", access: Access::Needs(Permission::Read), name: "metrics",
        summary: "Gives the figures of every unit in the text format of Prometheus.",
        limit: SMALL, form: figures(), handler: || get(metrics::show) },
    Route { method: HttpMethod::Post, path: "/v1/services/{name}/invoke", access: Access::Needs(Permission::Operate), name: "service_invoke",
        summary: "Invokes a service by hand.",
        limit: LARGE, form: out::<arapi::arsrv::InvokeResponse>().body::<wire::InvokeBody>(), handler: || post(api::service_invoke) },
    Route { method: HttpMethod::Post, path: "/v1/profiles", access: Access::Needs(Permission::Develop), name: "profile_take",
        summary: "Looks for some seconds at what services are doing, and says where their time goes.",
        limit: SMALL, form: out::<arapi::arsrv::Profile>().body::<arapi::arsrv::ProfileRequest>(), handler: || post(api::profile_take) },
    Route { method: HttpMethod::Get, path: "/v1/access", access: Access::Needs(Permission::Read), name: "access_check",
        summary: "Says whether a caller may invoke a service or a channel, and why.",
        limit: SMALL, form: out::<arapi::arsrv::AccessAnswer>().query::<arapi::arsrv::AccessQuestion>(), handler: || get(api::access_check) },
    Route { method: HttpMethod::Get, path: "/v1/channels/{name}/messages", access: Access::Needs(Permission::Audit), name: "channel_messages",
        summary: "Gives a page of the requests and answers that a channel has kept, newest first.",
        limit: SMALL, form: out::<arapi::messages::MessagePage>().query::<arapi::messages::MessageQuery>(), handler: || get(api::channel_messages) },
    Route { method: HttpMethod::Post, path: "/v1/outgoing/{name}/ping", access: Access::Needs(Permission::Operate), name: "outgoing_ping",
        summary: "Pings what an outgoing connection leads to.",
        limit: SMALL, form: out::<arapi::arsrv::PingResult>(), handler: || post(api::outgoing_ping) },
    Route { method: HttpMethod::Get, path: "/v1/logs", access: Access::Needs(Permission::Logs), name: "log_list",
        summary: "Gives log lines of every part of the box, and goes on with new ones if asked to.",
        limit: SMALL, form: lines::<arapi::logs::LogLine>().query::<arapi::logs::LogQuery>(), handler: || get(api::log_list) },
    Route { method: HttpMethod::Get, path: "/v1/traces", access: Access::Needs(Permission::Logs), name: "trace_list",
        summary: "Lists the last requests, newest first.",
        limit: SMALL, form: out::<Vec<arapi::trace::TraceSummary>>().query::<arapi::trace::TraceQuery>(), handler: || get(traces::list) },
    Route { method: HttpMethod::Get, path: "/v1/traces/{cid}", access: Access::Needs(Permission::Logs), name: "trace_show",
        summary: "Gives one request step by step: balancer, gate, queue, service, calls out.",
        limit: SMALL, form: out::<arapi::trace::TraceView>(), handler: || get(traces::show) },
    Route { method: HttpMethod::Get, path: "/v1/audit", access: Access::Needs(Permission::Audit), name: "audit_list",
        summary: "Gives a page of the audit log, newest first.",
        limit: SMALL, form: out::<wire::AuditPage>().query::<wire::AuditQuery>(), handler: || get(api::audit_list) },
    Route { method: HttpMethod::Get, path: "/v1/audit/export", access: Access::Needs(Permission::Audit), name: "audit_export",
        summary: "Gives every entry of the audit log that fits, newest first.",
        limit: SMALL, form: lines::<wire::AuditEntry>().query::<wire::AuditQuery>(), handler: || get(api::audit_export) },
    Route { method: HttpMethod::Get, path: "/v1/system/status", access: Access::Needs(Permission::Read), name: "system_status",
        summary: "Says how the operating system is: slot, memory, disks, clock, problems.",
        limit: SMALL, form: out::<aros::Status>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/units", access: Access::Needs(Permission::Read), name: "unit_list",
        summary: "Lists the units of the service manager.",
        limit: SMALL, form: out::<Vec<aros::Unit>>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/journal", access: Access::Needs(Permission::Logs), name: "journal",
        summary: "Gives lines of the journal, and goes on with new ones if asked to.",
        limit: SMALL, form: lines::<aros::JournalLine>().query::<aros::JournalQuery>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/network", access: Access::Needs(Permission::Read), name: "network",
        summary: "Says what the network is configured as, what is there, and what is on trial.",
        limit: SMALL, form: out::<aros::NetworkStatus>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Post, path: "/v1/system/network/confirm", access: Access::Needs(Permission::System), name: "network_confirm",
        summary: "Keeps the change of the network that is on trial.",
        limit: SMALL, form: out::<aros::Done>(), handler: || post(system::pass) },
    Route { method: HttpMethod::Post, path: "/v1/system/power", access: Access::Needs(Permission::System), name: "power",
        summary: "Restarts the box, restarts it into the recovery system, or switches it off.",
        limit: SMALL, form: out::<aros::Done>().body::<aros::PowerRequest>(), handler: || post(system::pass) },
    Route { method: HttpMethod::Post, path: "/v1/system/identify", access: Access::Needs(Permission::System), name: "identify",
        summary: "Blinks and rings, so that someone finds the box.",
        limit: SMALL, form: out::<aros::Identifying>().body::<aros::IdentifyRequest>(), handler: || post(system::pass) },
    Route { method: HttpMethod::Post, path: "/v1/system/factory-reset", access: Access::Needs(Permission::System), name: "factory_reset",
        summary: "Destroys the keys of `state` and `data`, and with them everything that is not in the image.",
        limit: SMALL, form: out::<aros::ResetAnswer>().body::<aros::ResetRequest>(), handler: || post(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/support", access: Access::Needs(Permission::Read), name: "support",
        summary: "Says whether a support session is open; `null` where none is.",
        limit: SMALL, form: out::<Option<aros::SupportSession>>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Post, path: "/v1/system/support", access: Access::Needs(Permission::System), name: "support_open",
        summary: "Opens a log-in on the box's own screen and serial console for a time; its password is shown once.",
        limit: SMALL, form: out::<aros::SupportSession>().body::<aros::SupportRequest>(), handler: || post(system::pass) },
    Route { method: HttpMethod::Delete, path: "/v1/system/support", access: Access::Needs(Permission::System), name: "support_close",
        summary: "Ends the support session.",
        limit: SMALL, form: out::<aros::Done>(), handler: || delete(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/support/bundle", access: Access::Needs(Permission::Logs), name: "support_bundle",
        summary: "Gives a support bundle: an archive of status, journal and black box, without secrets.",
        limit: SMALL, form: file(), handler: || get(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/blackbox", access: Access::Needs(Permission::Read), name: "blackbox",
        summary: "Gives the black box, and why the box is not in the slot that was chosen last.",
        limit: SMALL, form: out::<aros::BlackBoxView>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/probes", access: Access::Needs(Permission::Read), name: "probe_list",
        summary: "Gives the functional probes by which a slot is confirmed.",
        limit: SMALL, form: out::<Vec<aros::Probe>>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/identity", access: Access::Needs(Permission::Read), name: "identity",
        summary: "Says who the box is: its key's fingerprint.",
        limit: SMALL, form: out::<aros::Identity>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/update", access: Access::Needs(Permission::Read), name: "update",
        summary: "Says what lies in the slots, and what an installation is doing.",
        limit: SMALL, form: out::<aros::UpdateStatus>(), handler: || get(system::pass) },
    Route { method: HttpMethod::Put, path: "/v1/system/update/bundle", access: Access::Needs(Permission::System), name: "update_upload",
        summary: "Takes an update bundle, to be installed by the next call.",
        limit: BUNDLE, form: out::<aros::BundleInfo>().upload(), handler: || put(system::pass) },
    Route { method: HttpMethod::Get, path: "/v1/system/update/bundle", access: Access::Public, name: "update_bundle",
        summary: "Gives the bundle uploaded last to neighbours, whole or in ranges; it is signed and holds no secret.",
        limit: SMALL, form: file(), handler: || get(system::download) },
    Route { method: HttpMethod::Post, path: "/v1/system/update/install", access: Access::Needs(Permission::System), name: "update_install",
        summary: "Installs a bundle into the slot that does not run; `GET /v1/system/update` says how it goes.",
        limit: SMALL, form: out::<aros::InstallStatus>().body::<aros::InstallRequest>(), handler: || post(system::pass) },
    Route { method: HttpMethod::Post, path: "/v1/system/update/rollback", access: Access::Needs(Permission::System), name: "update_rollback",
        summary: "Makes the other slot start next, if what it holds can be started.",
        limit: SMALL, form: out::<aros::Done>(), handler: || post(system::pass) },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_has_a_name_and_a_place_of_its_own() {
        let names: BTreeSet<&str> = ROUTES.iter().map(|route| route.name).collect();
        assert_eq!(names.len(), ROUTES.len());
        let places: BTreeSet<(&str, &str)> =
            ROUTES.iter().map(|route| (route.method.as_str(), route.path)).collect();
        assert_eq!(places.len(), ROUTES.len());
    }

    #[test]
    fn only_these_calls_are_open_to_strangers() {
        let public = ROUTES.iter().filter(|route| route.access == Access::Public);
        let names: Vec<&str> = public.map(|route| route.name).collect();
        let expected =
            ["openapi", "claim_info", "claim", "login", "session", "session_open", "update_bundle"];
        assert_eq!(names, expected);
    }
}
