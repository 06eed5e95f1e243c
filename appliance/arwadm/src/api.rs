//! The handlers of [`crate::ROUTES`]: extract, call, map.

use arapi::arclst::{Change, Expect, Transaction};
use arapi::arsrv::InvokeRequest;
use arapi::arsrv::{
    AccessAnswer, AccessQuestion, InvokeResponse, ModuleSource, PingResult, Profile, ProfileRequest,
};
use arapi::arwadm::{
    AuditEntry, AuditPage, AuditQuery, ChangeRequest, ClaimInfo, ClaimRequest, DeployAnswer,
    DeployRequest, Done, HistoryView, IdeDeployRequest, InvokeBody, LoginRequest, ModuleInfo,
    ModuleVersion, NodeStatus, ObjectList, OwnPasswordRequest, PasswordRequest, PutRequest,
    ResetAnswer, RollbackRequest, SecretRequest, TokenAnswer, TokenInfo, TokenRequest,
    TransactionAnswer, TransactionRequest, WhoAmI,
};
use arapi::error::ErrorCode;
use arapi::logs::LogQuery;
use arapi::messages::{MessagePage, MessageQuery};
use arapi::objects::Permission;
use arapi::{Kind, ObjectName, Spec};
use arbase::Chain;
use arbase::http::{Answer, ApiError, Body, current_cid};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deploy::{Wanted, WantedPackages};
use crate::gate::Caller;
use crate::remote::passed_on;
use crate::server::App;
use crate::{
    deploy, guard, logs, objects, openapi as document, people, plan, status as node_status,
};

/// Entries of a history where the query names no number.
const HISTORY: u32 = 50;
/// Entries fetched at one time for an export.
const EXPORT_PAGE: u32 = 500;

/// The query of a history.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryQuery {
    /// At most this many entries.
    #[serde(default)]
    most: Option<u32>,
}

type Caught = Extension<Caller>;

pub(crate) async fn openapi() -> Json<serde_json::Value> {
    Json(document::document())
}

pub(crate) async fn claim_info(State(app): State<App>) -> Json<ClaimInfo> {
    Json(app.claim_info().await)
}

pub(crate) async fn claim(
    State(app): State<App>,
    Extension(caller): Caught,
    Body(request): Body<ClaimRequest>,
) -> Answer<TokenAnswer> {
    app.claim(&caller, request).await.map(Json)
}

pub(crate) async fn login(
    State(app): State<App>,
    Extension(caller): Caught,
    Body(request): Body<LoginRequest>,
) -> Answer<TokenAnswer> {
    app.login(&caller, request).await.map(Json)
}

pub(crate) async fn logout(State(app): State<App>, Extension(caller): Caught) -> Answer<Done> {
    caller.person()?;
    app.log_out(&caller).await.map(Json)
}

pub(crate) async fn whoami(State(app): State<App>, Extension(caller): Caught) -> Answer<WhoAmI> {
    let people = app.mirror.now();
    let user =
        people.as_ref().zip(caller.user.as_ref()).and_then(|(people, user)| people.users.get(user));
    let roles = user.map(|user| user.roles.iter().map(ToString::to_string).collect());
    Ok(Json(WhoAmI {
        user: caller.user.as_ref().map_or(caller.who, ToString::to_string),
        roles: roles.unwrap_or_default(),
        permissions: caller.permissions.into_iter().collect(),
    }))
}

pub(crate) async fn token_list(
    State(app): State<App>,
    Extension(caller): Caught,
) -> Answer<Vec<TokenInfo>> {
    let people = app.mirror.first().await;
    let all = caller.permissions.contains(&Permission::Access);
    let visible = people
        .tokens()
        .iter()
        .filter(|(_, kept)| all || Some(&kept.spec.user) == caller.user.as_ref());
    let info = |(name, kept): (&ObjectName, &people::Kept)| TokenInfo {
        name: name.to_string(),
        user: kept.spec.user.to_string(),
        description: kept.spec.description.clone(),
        created_ms: kept.created_ms,
        expires_ms: kept.spec.expires_ms,
        current: caller.token.as_ref() == Some(name),
    };
    Ok(Json(visible.map(info).collect()))
}

pub(crate) async fn token_create(
    State(app): State<App>,
    Extension(caller): Caught,
    Body(request): Body<Option<TokenRequest>>,
) -> Answer<TokenAnswer> {
    let user = caller.person()?.clone();
    let request = request.unwrap_or_default();
    let ttl_s = match request.ttl_s {
        None => Some(app.config.token_ttl_s),
        given => given,
    };
    app.give_token(&caller, user, &request.description, ttl_s.filter(|ttl| *ttl > 0))
        .await
        .map(Json)
}

pub(crate) async fn token_revoke(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(name): Path<String>,
) -> Answer<Done> {
    let people = app.mirror.first().await;
    let all = caller.permissions.contains(&Permission::Access);
    let name = object_name(&name)?;
    let found = people.tokens().get(&name);
    found
        .filter(|kept| all || Some(&kept.spec.user) == caller.user.as_ref())
        .ok_or_else(|| ApiError::not_found(format!("there is no token `{name}` of yours")))?;
    app.end_tokens(&caller, vec![name]).await.map(Json)
}

pub(crate) async fn password_change(
    State(app): State<App>,
    Extension(caller): Caught,
    Body(request): Body<OwnPasswordRequest>,
) -> Answer<Done> {
    let user = caller.person()?.clone();
    app.check_password(&caller, &user, request.old).await?;
    app.set_password(&caller, &user, request.password).await.map(Json)
}

pub(crate) async fn password_set(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(name): Path<String>,
    Body(request): Body<PasswordRequest>,
) -> Answer<Done> {
    let user = object_name(&name)?;
    let people = app.mirror.first().await;
    if !guard::covers(&people, user.as_str(), &caller.permissions) {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            format!(
                "user `{user}` may do more than you; only someone who may as much sets his password"
            ),
        ));
    }
    app.set_password(&caller, &user, request.password).await.map(Json)
}

pub(crate) async fn object_list_all(State(app): State<App>) -> Answer<ObjectList> {
    list(&app, None).await
}

pub(crate) async fn object_list(
    State(app): State<App>,
    Path(kind): Path<String>,
) -> Answer<ObjectList> {
    list(&app, Some(parse_kind(&kind)?)).await
}

async fn list(app: &App, kind: Option<Kind>) -> Answer<ObjectList> {
    let listing = app.arclst().list(kind).await.map_err(|err| passed_on("list objects", &err))?;
    let objects = listing.objects.iter().map(objects::view_in_list).collect();
    Ok(Json(ObjectList { revision: listing.revision, objects }))
}

pub(crate) async fn object_get(
    State(app): State<App>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let kind = parse_kind(&kind)?;
    let object = app.arclst().object(kind, &name).await;
    let object = object.map_err(|err| passed_on("get an object", &err))?;
    let mut answer = Json(objects::view(&object)).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", object.revision)) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    Ok(answer)
}

pub(crate) async fn object_put(
    State(app): State<App>,
    Extension(caller): Caught,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(request): Body<PutRequest>,
) -> Answer<TransactionAnswer> {
    let (kind, name) = (parse_kind(&kind)?, object_name(&name)?);
    let put = ChangeRequest::Put { kind, name, spec: request.spec, expect: expect(&headers)? };
    objects::transact(&app, &caller, &[put], request.dry_run).await.map(Json)
}

pub(crate) async fn object_delete(
    State(app): State<App>,
    Extension(caller): Caught,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer<TransactionAnswer> {
    let (kind, name) = (parse_kind(&kind)?, object_name(&name)?);
    let delete = ChangeRequest::Delete { kind, name, expect: expect(&headers)? };
    objects::transact(&app, &caller, &[delete], false).await.map(Json)
}

pub(crate) async fn transaction(
    State(app): State<App>,
    Extension(caller): Caught,
    Body(request): Body<TransactionRequest>,
) -> Answer<TransactionAnswer> {
    objects::transact(&app, &caller, &request.changes, request.dry_run).await.map(Json)
}

pub(crate) async fn object_history(
    State(app): State<App>,
    Path((kind, name)): Path<(String, String)>,
    query: Result<Query<HistoryQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<Vec<HistoryView>> {
    let kind = parse_kind(&kind)?;
    let most = parse_query(query)?.most.unwrap_or(HISTORY);
    let history = app.arclst().history(kind, &name, most).await;
    let history = history.map_err(|err| passed_on("read an object's history", &err))?;
    let view = |entry: arapi::arclst::HistoryEntry| HistoryView {
        revision: entry.revision,
        time_ms: entry.time_ms,
        who: entry.who,
        cid: entry.cid,
        object: entry.object.as_ref().map(objects::view_in_list),
    };
    Ok(Json(history.into_iter().map(view).collect()))
}

pub(crate) async fn secret_list(State(app): State<App>) -> Answer<Vec<String>> {
    let names = app.arclst().secret_names().await;
    names.map(Json).map_err(|err| passed_on("list secrets", &err))
}

pub(crate) async fn secret_put(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(name): Path<String>,
    Body(request): Body<SecretRequest>,
) -> Answer<Done> {
    let name = shared_secret(&name)?;
    let change = Change::PutSecret { name: name.clone(), value: request.value };
    app.change_secret(&caller, &name, change).await.map(Json)
}

pub(crate) async fn secret_delete(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(name): Path<String>,
) -> Answer<Done> {
    let name = shared_secret(&name)?;
    let listing = app.arclst().list(None).await.map_err(|err| passed_on("list objects", &err))?;
    let user = listing.objects.iter().find(|object| object.spec.secret_names().contains(&name));
    if let Some(user) = user {
        let holder = format!("{} `{}`", user.kind, user.name);
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!("secret `{name}` is used by {holder}; give that another one first"),
        ));
    }
    let change = Change::DeleteSecret { name: name.clone() };
    app.change_secret(&caller, &name, change).await.map(Json)
}

pub(crate) async fn security_reset(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(name): Path<String>,
) -> Answer<ResetAnswer> {
    objects::reset(&app, &caller, &name).await.map(Json)
}

pub(crate) async fn deployment_list(State(app): State<App>) -> Answer<Vec<ModuleInfo>> {
    deploy::list(&app).await.map(Json)
}

pub(crate) async fn deploy(
    State(app): State<App>,
    Extension(caller): Caught,
    Body(request): Body<DeployRequest>,
) -> Answer<DeployAnswer> {
    let DeployRequest { files, dry_run, requirements, upgrade, group } = request;
    let packages = match requirements {
        Some(text) => WantedPackages::Text { text, upgrade },
        None => WantedPackages::Keep,
    };
    let origin = "api".to_owned();
    let wanted = Wanted { files, gone: Vec::new(), origin, dry_run, packages, group };
    Ok(Json(deploy::deploy(&app, &caller, wanted).await?))
}

pub(crate) async fn deployment_versions(
    State(app): State<App>,
    Path(module): Path<String>,
) -> Answer<Vec<ModuleVersion>> {
    deploy::versions(&app, stem(&module)).await.map(Json)
}

pub(crate) async fn undeploy(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(module): Path<String>,
) -> Answer<DeployAnswer> {
    let gone = vec![stem(&module).to_owned()];
    let wanted = Wanted { gone, origin: "api".to_owned(), ..Wanted::default() };
    Ok(Json(deploy::deploy(&app, &caller, wanted).await?))
}

pub(crate) async fn rollback(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(module): Path<String>,
    Body(request): Body<Option<RollbackRequest>>,
) -> Answer<DeployAnswer> {
    let to = request.unwrap_or_default().to;
    let (file, requirements, version) = deploy::rollback_source(&app, stem(&module), to).await?;
    let origin = format!("rollback to {version}");
    let packages = WantedPackages::Recorded(requirements);
    let wanted = Wanted { files: vec![file], origin, packages, ..Wanted::default() };
    Ok(Json(deploy::deploy(&app, &caller, wanted).await?))
}

pub(crate) async fn ide_deploy(
    State(app): State<App>,
    Extension(mut caller): Caught,
    Body(request): Body<IdeDeployRequest>,
) -> Answer<DeployAnswer> {
    caller.who = format!("ide:{}", request.user);
    let file_name = request.payload_name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    let engine = base64::engine::general_purpose::STANDARD;
    let plain: String = request.payload.split_ascii_whitespace().collect();
    let bytes = engine
        .decode(plain)
        .map_err(|err| ApiError::invalid(format!("field `payload` is not base64: {err}")))?;
    let source = String::from_utf8(bytes)
        .map_err(|_| ApiError::invalid(format!("`{file_name}` is not UTF-8")))?;
    let files = vec![ModuleSource { file_name, source }];
    let wanted = Wanted { files, origin: "ide".to_owned(), ..Wanted::default() };
    Ok(Json(deploy::deploy(&app, &caller, wanted).await?))
}

pub(crate) async fn status(State(app): State<App>) -> Answer<NodeStatus> {
    Ok(Json(node_status::status(&app).await))
}

pub(crate) async fn service_invoke(
    State(app): State<App>,
    Extension(caller): Caught,
    Path(name): Path<String>,
    Body(request): Body<Option<InvokeBody>>,
) -> Answer<InvokeResponse> {
    if let Some(user) = &caller.user {
        let people = app.mirror.first().await;
        if !people.may_invoke(user.as_str(), &name) {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                format!("the roles of user `{user}` do not let it invoke service `{name}`"),
            ));
        }
    }
    let InvokeBody { payload, timeout_ms } = request.unwrap_or_default();
    let call = InvokeRequest { service: name.clone(), payload, timeout_ms };
    let limit = timeout_ms.map_or(90_000, |ms| ms.saturating_add(5000));
    let client = app.arsrv().0.with_limit(std::time::Duration::from_millis(limit));
    let answered = arapi::arsrv::Client(client).invoke(&call).await;
    let answered = answered.map_err(|err| passed_on("invoke a service", &err))?;
    app.note(vec![app.entry(&caller, format!("Service/{name}"))]).await?;
    Ok(Json(answered))
}

/// Where does the time of services go?
pub(crate) async fn profile_take(
    State(app): State<App>,
    Extension(caller): Caught,
    Body(request): Body<ProfileRequest>,
) -> Answer<Profile> {
    request.check().map_err(ApiError::invalid)?;
    let limit = std::time::Duration::from_secs(u64::from(request.seconds) + 30);
    let client = arapi::arsrv::Client(app.arsrv().0.with_limit(limit));
    let target =
        request.service.as_ref().map_or("Service".to_owned(), |it| format!("Service/{it}"));
    let mut noting = Noting { app: app.clone(), caller, target, is_due: true };
    let taken = client.profile(&request).await;
    // From here on it is written down before it is answered; what was refused, at the gate.
    noting.is_due = false;
    let profile = taken.map_err(|err| passed_on("take a profile", &err))?;
    app.note(vec![app.entry(&noting.caller, noting.target.clone())]).await?;
    Ok(Json(profile))
}

/// Writes down what was done until its client left.
struct Noting {
    app: App,
    caller: Caller,
    target: String,
    is_due: bool,
}

impl Drop for Noting {
    fn drop(&mut self) {
        if !self.is_due {
            return;
        }
        let app = self.app.clone();
        let entry = app.entry(&self.caller, std::mem::take(&mut self.target));
        tokio::spawn(async move {
            if let Err(err) = app.audit.append(vec![entry]).await {
                log::error!(error:% = Chain(&err); "cannot write the audit log");
            }
        });
    }
}

/// May a caller invoke something?
pub(crate) async fn access_check(
    State(app): State<App>,
    query: Result<Query<AccessQuestion>, axum::extract::rejection::QueryRejection>,
) -> Answer<AccessAnswer> {
    let answered = app.arsrv().access(&parse_query(query)?).await;
    answered.map(Json).map_err(|err| passed_on("look who may invoke what", &err))
}

pub(crate) async fn channel_messages(
    State(app): State<App>,
    Path(name): Path<String>,
    query: Result<Query<MessageQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<MessagePage> {
    let answered = app.arsrv().messages(&name, &parse_query(query)?).await;
    answered.map(Json).map_err(|err| passed_on("read what a channel has kept", &err))
}

pub(crate) async fn outgoing_ping(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Answer<PingResult> {
    let answered = app.arsrv().ping(&name).await;
    answered.map(Json).map_err(|err| passed_on("ping an outgoing connection", &err))
}

pub(crate) async fn log_list(
    State(app): State<App>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    Ok(logs::merged(&app, parse_query(query)?).await)
}

pub(crate) async fn audit_list(
    State(app): State<App>,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<AuditPage> {
    let page = app.audit.page(parse_query(query)?).await;
    page.map(Json).map_err(|err| ApiError::internal("read the audit log", &err))
}

pub(crate) async fn audit_export(
    State(app): State<App>,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let query = AuditQuery { most: Some(EXPORT_PAGE), ..parse_query(query)? };
    let pages = futures_util::stream::unfold(Some(query), move |query| {
        let app = app.clone();
        async move {
            let query = query?;
            let page = match app.audit.page(query.clone()).await {
                Ok(page) => page,
                Err(err) => return Some((Err(std::io::Error::other(err)), None)),
            };
            let text: String = page.entries.iter().map(line).collect();
            let next = page.next.map(|before| AuditQuery { before: Some(before), ..query });
            Some((Ok(text), next))
        }
    });
    Ok(logs::lines(axum::body::Body::from_stream(pages)))
}

fn line(entry: &AuditEntry) -> String {
    // An entry is texts, numbers and JSON: this cannot fail.
    let mut text = serde_json::to_string(entry).unwrap_or_default();
    text.push('\n');
    text
}

fn parse_kind(text: &str) -> Result<Kind, ApiError> {
    text.parse().map_err(|err: arapi::names::NameError| ApiError::not_found(err.to_string()))
}

fn object_name(text: &str) -> Result<ObjectName, ApiError> {
    ObjectName::parse(text).map_err(|err| ApiError::invalid(err.to_string()))
}

fn stem(module: &str) -> &str {
    module.strip_suffix(".py").unwrap_or(module)
}

fn shared_secret(text: &str) -> Result<String, ApiError> {
    let name = object_name(text)?.to_string();
    if plan::is_owned(&name) {
        return Err(ApiError::invalid(format!(
            "secret `{name}` belongs to an object; change it there"
        )));
    }
    Ok(name)
}

pub(crate) fn parse_query<T>(
    query: Result<Query<T>, axum::extract::rejection::QueryRejection>,
) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|err| {
        let text = err.body_text();
        let fault = text.rsplit(": ").next().unwrap_or_default().to_owned();
        ApiError::invalid(format!("query: {fault}"))
    })
}

/// What a change is based on, from `If-Match` and `If-None-Match`.
fn expect(headers: &HeaderMap) -> Result<Expect, ApiError> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    if let Some(given) = text(header::IF_NONE_MATCH) {
        return match given.trim() {
            "*" => Ok(Expect::Absent),
            _ => Err(ApiError::invalid("`If-None-Match` can only be `*` here")),
        };
    }
    match text(header::IF_MATCH).map(str::trim) {
        None | Some("*") => Ok(Expect::Any),
        Some(given) => given.trim_matches('"').parse().map(Expect::Revision).map_err(|_| {
            ApiError::invalid(format!(
                "`If-Match` has `{}`; a revision such as `\"12\"` was expected",
                given.escape_debug()
            ))
        }),
    }
}

impl App {
    /// Keeps or removes a shared secret.
    async fn change_secret(
        &self,
        caller: &Caller,
        name: &str,
        change: Change,
    ) -> Result<Done, ApiError> {
        let transaction = Transaction {
            changes: vec![change],
            who: caller.who.clone(),
            cid: Some(current_cid().to_string()),
            dry_run: false,
        };
        let committed = self.arclst().commit(&transaction).await;
        let committed = committed.map_err(|err| passed_on("change a secret", &err))?;
        self.note(vec![self.entry(caller, format!("Secret/{name}"))]).await?;
        Ok(Done { revision: committed.revision })
    }

    /// The spec of a user as it is stored.
    pub(crate) async fn stored_user(
        &self,
        user: &ObjectName,
    ) -> Result<(u64, arapi::objects::UserSpec), ApiError> {
        let object = self.arclst().object(Kind::User, user.as_str()).await;
        let object = object.map_err(|err| passed_on("get a user", &err))?;
        match object.spec {
            Spec::User(spec) => Ok((object.revision, spec)),
            _ => Err(ApiError::not_found(format!("there is no user `{user}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_is_based_on_is_read_from_its_headers() {
        let of = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            expect(&headers).map_err(|err| err.message().to_owned())
        };
        assert_eq!(of("if-match", "\"12\""), Ok(Expect::Revision(12)));
        assert_eq!(of("if-match", "12"), Ok(Expect::Revision(12)));
        assert_eq!(of("if-match", "*"), Ok(Expect::Any));
        assert_eq!(of("if-none-match", "*"), Ok(Expect::Absent));
        assert_eq!(
            of("if-match", "\"x\""),
            Err("`If-Match` has `\\\"x\\\"`; a revision such as `\"12\"` was expected".to_owned())
        );
    }
}
