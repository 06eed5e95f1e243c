//! Commands about people and their keys: claim, login, users, tokens, secrets.

use arapi::arclst::Expect;
use arapi::arwadm::{
    ChangeRequest, ClaimInfo, ClaimRequest, Done, LoginRequest, ObjectList, ObjectView,
    OwnPasswordRequest, PasswordRequest, ResetAnswer, SecretRequest, TokenAnswer, TokenInfo,
    TokenRequest, TransactionAnswer, TransactionRequest, WhoAmI,
};
use arapi::client::path_part;
use arapi::error::ErrorCode;
use arapi::names::Kind;
use arapi::objects::{Permission, SecretText};
use serde_json::{Value, json};

use crate::cli::{Password, SecretCommand, SecurityCommand, TokenCommand, UserCommand};
use crate::client::Api;
use crate::commands::{Context, object_path, parse_name};
use crate::config::Profile;
use crate::failure::Failure;
use crate::out::{self, Table, moment};
use crate::pin::{Pinned, Seen, Trust};
use crate::prompt::{self, From};

fn source(password: Password) -> From {
    if password.password_stdin { From::Stdin } else { From::Terminal }
}

/// The box at the first look: its certificate is shown where it is not known yet, and is the only one
/// accepted from here on.
async fn first_look(context: &Context) -> Result<(Api, ClaimInfo, Option<Seen>), Failure> {
    let pinned = context.pinned()?;
    let trust = pinned.clone().map_or(Trust::FirstUse, Trust::Pinned);
    let looking = Api::new(context.server.clone(), None, trust)?;
    let info: ClaimInfo = looking.get("/v1/claim").await?;
    let seen = looking.fingerprint();
    if let (Some(seen), None) = (&seen, &pinned) {
        eprintln!(
            "the certificate of {} has the SHA-256\n  {}\nit is kept, and no other is accepted from now on; compare it with the one the box shows in its log",
            looking.server(),
            seen.fingerprint
        );
    }
    // A new connection, which accepts this certificate only: nothing secret goes to another.
    let trust = seen.clone().map_or(Trust::Nothing, |Seen { fingerprint, key }| {
        Trust::Pinned(Pinned { fingerprint, key })
    });
    Ok((Api::new(context.server.clone(), None, trust)?, info, seen))
}

fn keep(
    context: &mut Context,
    user: &str,
    answer: &TokenAnswer,
    seen: Option<Seen>,
) -> Result<(), Failure> {
    let (fingerprint, key) = seen.map_or((None, None), |seen| (Some(seen.fingerprint), seen.key));
    let profile = Profile {
        server: context.server.clone(),
        fingerprint,
        key,
        user: Some(user.to_owned()),
        token: Some(answer.token.clone()),
    };
    context.remember(profile)?;
    if context.common.json {
        return out::json(answer);
    }
    let until = answer.expires_ms.map(|ends| format!(" until {} UTC", moment(ends)));
    out::line(&format!("logged in to {} as {user}{}", context.server, until.unwrap_or_default()))
}

/// `arctl claim`.
pub(crate) async fn claim(
    context: &mut Context,
    code: Option<String>,
    user: String,
    password: Password,
) -> Result<(), Failure> {
    let (api, info, fingerprint) = first_look(context).await?;
    if info.claimed {
        return Err(Failure::Failed(format!(
            "box `{}` is claimed already; log in with `arctl login --server {}`",
            info.node,
            api.server()
        )));
    }
    let code = match code {
        Some(code) => code,
        None => prompt::visible("code that the box shows")?,
    };
    let name = parse_name(&user)?;
    let title = format!("new password for {user} (12 characters or more)");
    let password = prompt::new_secret(&title, source(password))?;
    let request = ClaimRequest { code, user: name, password };
    let answer: TokenAnswer = api.post("/v1/claim", &request).await?;
    if !context.common.json {
        out::line(&format!("box {} is claimed", info.node))?;
    }
    keep(context, &user, &answer, fingerprint)
}

/// `arctl login`.
pub(crate) async fn login(
    context: &mut Context,
    user: Option<String>,
    password: Password,
) -> Result<(), Failure> {
    let (api, info, fingerprint) = first_look(context).await?;
    if !info.claimed {
        return Err(Failure::Failed(format!(
            "box `{}` is not claimed yet; claim it with `arctl claim --server {}`",
            info.node,
            api.server()
        )));
    }
    let remembered = context.profile().and_then(|profile| profile.user.clone());
    let user = match user.or(remembered) {
        _ if info.recovery.is_some() => "recovery".to_owned(),
        Some(user) => user,
        None => prompt::visible("user")?,
    };
    let title = match &info.recovery {
        Some(why) => {
            eprintln!("the box runs its recovery system: {why}");
            "code that the box shows".to_owned()
        }
        None => format!("password of {user}"),
    };
    let password = prompt::secret(&title, source(password))?;
    let request = LoginRequest { user: user.clone(), password };
    let answer: TokenAnswer = api.post("/v1/login", &request).await?;
    keep(context, &user, &answer, fingerprint)
}

/// `arctl logout`.
pub(crate) async fn logout(context: &mut Context) -> Result<(), Failure> {
    let Some(profile) = context.profile().cloned() else {
        return Err(Failure::NotLoggedIn { server: context.server.clone() });
    };
    if profile.token.is_none() {
        return Err(Failure::NotLoggedIn { server: context.server.clone() });
    }
    let ended = context.api()?.post::<(), Done>("/v1/logout", &()).await;
    match ended {
        // It had ended already.
        Err(Failure::Refused { body, .. }) if body.code == ErrorCode::Unauthorized => {}
        Err(err) => return Err(err),
        Ok(_) => {}
    }
    context.remember(Profile { token: None, ..profile })?;
    out::line(&format!("logged out of {}", context.server))
}

fn words(permissions: &[Permission]) -> String {
    let word = |permission: &Permission| {
        serde_json::to_value(permission).ok().and_then(|word| word.as_str().map(ToOwned::to_owned))
    };
    permissions.iter().filter_map(word).collect::<Vec<_>>().join(", ")
}

/// `arctl whoami`.
pub(crate) async fn whoami(api: &Api, json: bool) -> Result<(), Failure> {
    let me: WhoAmI = api.get("/v1/whoami").await?;
    if json {
        return out::json(&me);
    }
    out::line(&format!("user:        {}", me.user))?;
    out::line(&format!("roles:       {}", me.roles.join(", ")))?;
    out::line(&format!("permissions: {}", words(&me.permissions)))?;
    out::line(&format!("box:         {}", api.server()))
}

async fn put(
    api: &Api,
    kind: Kind,
    name: &str,
    spec: Value,
    expect: Expect,
) -> Result<TransactionAnswer, Failure> {
    let change = ChangeRequest::Put { kind, name: parse_name(name)?, spec, expect };
    let request = TransactionRequest { changes: vec![change], dry_run: false };
    api.post("/v1/transactions", &request).await
}

/// `arctl user …`.
pub(crate) async fn user(api: &Api, command: UserCommand, json: bool) -> Result<(), Failure> {
    match command {
        UserCommand::List => {
            let list: ObjectList = api.get("/v1/objects/User").await?;
            if json {
                return out::json(&list.objects);
            }
            let mut table = Table::new(&["NAME", "ROLES", "ACTIVE", "CHANGED", "BY"]);
            for user in &list.objects {
                let roles = user.spec.get("roles").and_then(Value::as_array);
                let roles: Vec<&str> =
                    roles.into_iter().flatten().filter_map(Value::as_str).collect();
                let active = user.spec.get("is_active") != Some(&Value::Bool(false));
                table.row([
                    user.name.to_string(),
                    roles.join(", "),
                    if active { "yes" } else { "no" }.to_owned(),
                    moment(user.changed_ms),
                    user.changed_by.clone(),
                ]);
            }
            table.print("there is no user")
        }
        UserCommand::Add { name, roles, password } => {
            let title = format!("password for {name} (12 characters or more)");
            let password = prompt::new_secret(&title, source(password))?;
            put(api, Kind::User, &name, json!({ "roles": roles }), Expect::Absent).await?;
            let path = format!("/v1/users/{}/password", path_part(&name));
            let set: Result<Done, Failure> = api.post(&path, &PasswordRequest { password }).await;
            match set {
                Ok(done) => told(json, &done, &format!("User {name} created")),
                Err(err) => {
                    // A user without a password would be half a user.
                    api.delete::<TransactionAnswer>(&object_path(Kind::User, &name)).await?;
                    Err(err)
                }
            }
        }
        UserCommand::Passwd { name, password_stdin } => {
            let from = source(Password { password_stdin });
            passwd(api, name, from, json).await
        }
        UserCommand::Roles { name, roles } => {
            change_user(api, &name, json, |fields| {
                drop(fields.insert("roles".to_owned(), json!(roles)));
            })
            .await
        }
        UserCommand::Enable { name } => {
            change_user(api, &name, json, |fields| {
                drop(fields.insert("is_active".to_owned(), true.into()));
            })
            .await
        }
        UserCommand::Disable { name } => {
            change_user(api, &name, json, |fields| {
                drop(fields.insert("is_active".to_owned(), false.into()));
            })
            .await
        }
        UserCommand::Delete { name } => {
            let answer: TransactionAnswer = api.delete(&object_path(Kind::User, &name)).await?;
            told(json, &answer, &format!("User {name} deleted"))
        }
    }
}

async fn change_user(
    api: &Api,
    name: &str,
    json: bool,
    change: impl FnOnce(&mut serde_json::Map<String, Value>),
) -> Result<(), Failure> {
    let ObjectView { mut spec, revision, .. } = api.get(&object_path(Kind::User, name)).await?;
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("password_hash");
        change(fields);
    }
    let answer = put(api, Kind::User, name, spec, Expect::Revision(revision)).await?;
    let what = if answer.changed.is_empty() { "unchanged" } else { "changed" };
    told(json, &answer, &format!("User {name} {what}"))
}

async fn passwd(api: &Api, name: Option<String>, from: From, json: bool) -> Result<(), Failure> {
    let me: WhoAmI = api.get("/v1/whoami").await?;
    let name = name.unwrap_or_else(|| me.user.clone());
    let title = format!("new password for {name} (12 characters or more)");
    let done: Done = if name == me.user {
        let old = prompt::secret("present password", from)?;
        let password = prompt::new_secret(&title, from)?;
        api.post("/v1/password", &OwnPasswordRequest { old, password }).await?
    } else {
        let password = prompt::new_secret(&title, from)?;
        let path = format!("/v1/users/{}/password", path_part(&name));
        api.post(&path, &PasswordRequest { password }).await?
    };
    told(json, &done, &format!("User {name} has a new password; other logins have ended"))
}

fn told<T: serde::Serialize>(json: bool, answer: &T, text: &str) -> Result<(), Failure> {
    if json { out::json(answer) } else { out::line(text) }
}

/// `arctl token …`.
pub(crate) async fn token(api: &Api, command: TokenCommand, json: bool) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { description, days } => {
            let ttl_s = days.map(|days| days.saturating_mul(24 * 3600));
            let request = TokenRequest { description, ttl_s };
            let answer: TokenAnswer = api.post("/v1/tokens", &request).await?;
            if json {
                return out::json(&answer);
            }
            let ends = answer.expires_ms.map(|ends| format!("ends {} UTC", moment(ends)));
            let ends = ends.unwrap_or_else(|| "never ends".to_owned());
            eprintln!("token {} ({ends}); it is shown only this time:", answer.name);
            out::line(&answer.token)
        }
        TokenCommand::List => {
            let tokens: Vec<TokenInfo> = api.get("/v1/tokens").await?;
            if json {
                return out::json(&tokens);
            }
            let mut table = Table::new(&["NAME", "USER", "DESCRIPTION", "MADE", "ENDS", "CURRENT"]);
            for token in tokens {
                table.row([
                    token.name,
                    token.user,
                    token.description,
                    moment(token.created_ms),
                    token.expires_ms.map_or_else(|| "never".to_owned(), moment),
                    if token.current { "yes" } else { "" }.to_owned(),
                ]);
            }
            table.print("there is no token")
        }
        TokenCommand::Revoke { name } => {
            let path = format!("/v1/tokens/{}", path_part(&name));
            let done: Done = api.delete(&path).await?;
            told(json, &done, &format!("Token {name} has ended"))
        }
    }
}

/// `arctl secret …`.
pub(crate) async fn secret(api: &Api, command: SecretCommand, json: bool) -> Result<(), Failure> {
    let path = |name: &str| format!("/v1/secrets/{}", path_part(name));
    match command {
        SecretCommand::Set { name, stdin } => {
            let from = if stdin { From::Stdin } else { From::Terminal };
            let value = SecretText(prompt::new_secret(&format!("value of {name}"), from)?);
            let done: Done = api.post(&path(&name), &SecretRequest { value }).await?;
            told(json, &done, &format!("Secret {name} is kept"))
        }
        SecretCommand::List => {
            let names: Vec<String> = api.get("/v1/secrets").await?;
            if json {
                return out::json(&names);
            }
            let mut table = Table::new(&["NAME"]);
            names.into_iter().for_each(|name| table.row([name]));
            table.print("there is no secret")
        }
        SecretCommand::Delete { name } => {
            let done: Done = api.delete(&path(&name)).await?;
            told(json, &done, &format!("Secret {name} deleted"))
        }
    }
}

/// `arctl security …`.
pub(crate) async fn security(
    api: &Api,
    command: SecurityCommand,
    json: bool,
) -> Result<(), Failure> {
    let SecurityCommand::Reset { name } = command;
    let path = format!("/v1/securities/{}/reset", path_part(&name));
    let answer: ResetAnswer = api.post(&path, &()).await?;
    if json {
        return out::json(&answer);
    }
    eprintln!("new {} of Security {}; it is shown only this time:", answer.field, answer.name);
    out::line(&answer.value)
}
