//! Security definitions and security groups.
//!
//! Exports have no secrets, or have them by name; a secret that is not there is made new where callers present it, and
//! switches the definition off where we present it: a wrong password again and again would lock somebody's account.

use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::fields::{Fields, Refused, Secret};
use super::limits;
use super::plan::{Draft, Made, Missing, Outcome};

/// Definitions that Zato makes for itself.
const BUILT_IN: &[&str] = &[
    "admin.invoke",
    "pubapi",
    "internal.invoke",
    "apispec.invoke",
    "zato.default.admin",
    "zato.pubsub.default",
    "pubsub.demo.secdef",
    "pubsub.test.secdef",
    "sso_test",
];

/// The type of definition that a section is for; None: the items say it themselves.
fn section_type(section: &str) -> Option<Option<&str>> {
    Some(match section {
        "def_sec" | "security" => None,
        "basic_auth" | "apikey" | "api_key" | "jwt" | "ntlm" | "oauth" | "bearer_token" | "wss"
        | "aws" | "tls_channel_sec" | "tls_key_cert" | "vault_conn_sec" | "xpath_sec"
        | "tech_acc" | "openstack_security" | "mtls" | "spnego" => Some(section),
        _ => return None,
    })
}

/// Security definitions.
pub(super) fn securities(draft: &mut Draft<'_>) {
    for (index, entry) in draft.open() {
        let Some(of_section) = section_type(&entry.section) else { continue };
        if BUILT_IN.contains(&entry.name.as_str()) {
            draft.tell(index, Outcome::NotNeeded, Vec::new(), Vec::new(), None);
            continue;
        }
        draft.each(index, entry, |draft, fields| {
            let own = fields.text(&["type", "sec_type"])?;
            let kind = own.or(of_section.map(ToOwned::to_owned));
            let kind = kind.ok_or_else(|| Refused::fault("field `type` is missing"))?;
            security(draft, &entry.name, &kind, fields)
        });
    }
}

/// A definition on the way to a spec.
struct Security<'a, 'b> {
    draft: &'b Draft<'a>,
    name: &'b str,
    spec: Map<String, Value>,
    missing: Vec<Missing>,
}

impl Security<'_, '_> {
    fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.spec.insert(field.to_owned(), value.into());
    }

    fn set_some(&mut self, field: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(field, value);
        }
    }

    /// Whether the box has this definition already, with the same type: then it keeps what the export lacks.
    fn kept(&self) -> Option<&Value> {
        let there = self.draft.present.get(&(Kind::Security, self.name.to_owned()))?;
        (there.get("type") == self.spec.get("type")).then_some(there)
    }

    fn lacks(&mut self, field: &str, why: &str, means: &str) {
        let object = format!("{}/{}", Kind::Security, self.name);
        let why = format!("{why}; {means}");
        self.missing.push(Missing { object, field: field.to_owned(), why });
    }

    /// A secret that callers present.
    fn inbound(&mut self, field: &str, secret: Secret) {
        match secret {
            Secret::Given(value) => self.set(field, json!({"value": value})),
            Secret::Missing(why) if self.kept().is_some() => {
                self.lacks(field, &why, "the box keeps the one it has");
            }
            Secret::Missing(why) => {
                self.lacks(field, &why, "a new one is made, which callers have to be given");
            }
        }
    }

    /// A secret that we present.
    fn outbound(&mut self, field: &str, secret: Secret) {
        match secret {
            Secret::Given(value) => self.set(field, json!({"value": value})),
            Secret::Missing(why) => {
                if let Some(kept) = self.kept() {
                    let is_active = kept.get("is_active").and_then(Value::as_bool);
                    let means = if is_active == Some(false) {
                        "the box keeps the one it has, and the definition stays switched off"
                    } else {
                        "the box keeps the one it has"
                    };
                    self.set_some("is_active", is_active);
                    self.lacks(field, &why, means);
                } else {
                    self.set(field, json!({"generate": "uuid4"}));
                    self.set("is_active", false);
                    self.lacks(
                        field,
                        &why,
                        "the definition is switched off until the right one is set",
                    );
                }
            }
        }
    }

    fn done(self) -> Made {
        Made { kind: Kind::Security, spec: self.spec.into(), missing: self.missing }
    }
}

fn security(
    draft: &Draft<'_>,
    name: &str,
    kind: &str,
    fields: &mut Fields<'_>,
) -> Result<Made, Refused> {
    let is_active = fields.flag(&["is_active"])?;
    let mut made = Security { draft, name, spec: Map::new(), missing: Vec::new() };
    let of_type = match kind {
        "basic_auth" => "basic",
        "apikey" | "api_key" => "api_key",
        "jwt" => "jwt",
        "wss" => "wss",
        "ntlm" => "ntlm",
        "oauth" | "bearer_token" => "oauth",
        "tls_key_cert" => "tls_key_cert",
        other => return Err(not_here(other)),
    };
    made.set("type", of_type);
    made.set_some("is_active", is_active);
    if matches!(of_type, "basic" | "api_key" | "jwt" | "wss") {
        made.set_some("rate_limit", limits::limit(draft, fields)?);
    } else {
        fields.pass_over(&[
            "is_rate_limit_active",
            "rate_limit_type",
            "rate_limit_def",
            "rate_limit_check_parent_def",
        ]);
    }
    match of_type {
        "basic" => {
            made.set("username", username(fields, name)?);
            made.set_some("realm", fields.text(&["realm", "domain"])?);
            let secret = fields.secret(&["password", "secret"])?;
            made.inbound("password", secret);
        }
        "api_key" => {
            made.set_some("header", fields.text(&["header", "header_name"])?);
            // Zato looks at the key alone as well.
            fields.pass_over(&["username"]);
            let secret = fields.secret(&["password", "key", "secret"])?;
            made.inbound("key", secret);
        }
        "jwt" => {
            made.set("username", username(fields, name)?);
            if let Some(ttl) = fields.number(&["ttl", "token_ttl"])? {
                let most = 86_400;
                if ttl > most {
                    fields.note(format!(
                        "a token holds {most} s after its last use at most, not {ttl} s"
                    ));
                }
                made.set("ttl_s", ttl.clamp(1, most));
            }
            let secret = fields.secret(&["password", "secret"])?;
            made.inbound("password", secret);
        }
        "wss" => wss(&mut made, fields, name)?,
        "ntlm" => {
            let username = username(fields, name)?;
            // Exports that passed through JSON twice have the backslash twice.
            made.set("username", username.replace("\\\\", "\\"));
            let secret = fields.secret(&["password", "secret"])?;
            made.outbound("password", secret);
        }
        "oauth" => oauth(&mut made, fields)?,
        _ => key_cert(&mut made, fields)?,
    }
    Ok(made.done())
}

fn username(fields: &mut Fields<'_>, name: &str) -> Result<String, Refused> {
    match fields.text(&["username", "user"])? {
        Some(username) => Ok(username),
        None => {
            fields.note("it has no username, so its name stands for one");
            Ok(name.to_owned())
        }
    }
}

fn wss(made: &mut Security<'_, '_>, fields: &mut Fields<'_>, name: &str) -> Result<(), Refused> {
    made.set("username", username(fields, name)?);
    let way = fields.text(&["password_type"])?.unwrap_or_default().to_ascii_lowercase();
    made.set("password_type", if way.contains("digest") { "digest" } else { "text" });
    made.set_some("reject_empty_nonce_creat", fields.flag(&["reject_empty_nonce_creat"])?);
    let stale = fields.flag(&["reject_stale_tokens"])?;
    if let Some(age) = fields.number(&["reject_expiry_limit"])? {
        made.set("max_age_s", age.clamp(1, 86_400));
    }
    if stale == Some(false) {
        fields.note("tokens that are too old are refused here in any case");
    }
    // How long a nonce is remembered follows from the age that is allowed.
    fields.pass_over(&["nonce_freshness_time"]);
    let secret = fields.secret(&["password", "secret"])?;
    made.inbound("password", secret);
    Ok(())
}

fn oauth(made: &mut Security<'_, '_>, fields: &mut Fields<'_>) -> Result<(), Refused> {
    if let Some(way) = fields.text(&["client_auth_method"])?
        && way != "client_secret_post"
    {
        if way != "client_secret_basic" {
            return Err(Refused::new(
                format!("tokens that are asked for by `{way}` are not in this release"),
                "ask the other side for a client secret, or make the token in the service",
            ));
        }
        made.set("use_basic_auth", true);
    }
    if fields.has(&["issuer", "audience"]) && !fields.has(&["auth_endpoint", "auth_server_url"]) {
        return Err(Refused::new(
            "it checks tokens of an issuer, and the export does not say where that keeps its keys",
            "make a Security of type `jwt_issuer` with `issuer`, `audience` and `jwks_url`, and name it in the channel",
        ));
    }
    let endpoint = fields.needed(&["auth_endpoint", "auth_server_url", "address"])?;
    if endpoint.contains("://") {
        made.set("auth_endpoint", endpoint);
    } else {
        fields.note("the address of its tokens has no scheme, so `https://` is meant");
        made.set("auth_endpoint", format!("https://{endpoint}"));
    }
    made.set("client_id", fields.needed(&["client_id", "username"])?);
    made.set_some("client_id_field", fields.text(&["client_id_field"])?);
    made.set_some("client_secret_field", fields.text(&["client_secret_field"])?);
    made.set_some("grant_type", fields.text(&["grant_type"])?);
    match fields.text(&["data_format"])?.as_deref() {
        None => {}
        Some(format @ ("form" | "json")) => made.set("data_format", format),
        Some(other) => fields.note(format!("tokens are asked for with a form, not with `{other}`")),
    }
    let scopes = fields.texts(&["scopes"])?;
    if !scopes.is_empty() {
        made.set("scopes", scopes);
    }
    let extra = match fields.raw(&["extra_fields"]) {
        None => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => {
            let each = fields.texts(&["extra_fields"])?.into_iter().map(|text| {
                let pair = text
                    .split_once('=')
                    .map(|(key, value)| (key.trim().to_owned(), value.trim().into()));
                pair.ok_or_else(|| Refused::fault(format!("extra field `{text}` has no `=`")))
            });
            each.collect::<Result<_, _>>()?
        }
    };
    if !extra.is_empty() {
        made.set("extra_fields", extra);
    }
    let secret = fields.secret(&["client_secret", "password", "secret"])?;
    made.outbound("client_secret", secret);
    Ok(())
}

/// 3.2 keeps key and certificate in one text.
fn key_cert(made: &mut Security<'_, '_>, fields: &mut Fields<'_>) -> Result<(), Refused> {
    fields.pass_over(&["info", "auth_data"]);
    match fields.secret(&["value", "auth_data"])? {
        Secret::Given(text) => {
            let text = text.replace("\\n", "\n");
            let (key, certificate): (Vec<String>, Vec<String>) =
                blocks(&text).into_iter().partition(|block| block.contains("PRIVATE KEY-----"));
            if key.len() != 1 || certificate.is_empty() {
                return Err(Refused::fault(
                    "field `value` has to hold one private key and its certificate, in PEM",
                ));
            }
            made.set("key", json!({"value": key.concat()}));
            made.set("certificate", json!({"value": certificate.concat()}));
        }
        Secret::Missing(why) if made.kept().is_some() => {
            made.lacks("key", &why, "the box keeps certificate and key that it has");
        }
        Secret::Missing(why) => {
            return Err(Refused::new(
                format!("its certificate and key are missing: {why}"),
                "make a Security of type `tls_key_cert` with `certificate` and `key`",
            ));
        }
    }
    Ok(())
}

/// The blocks of a text in PEM.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            block = Some(String::new());
        }
        if let Some(block) = &mut block {
            block.push_str(line);
            block.push('\n');
        }
        if line.starts_with("-----END ") {
            blocks.extend(block.take());
        }
    }
    blocks
}

/// Types that are not here.
fn not_here(kind: &str) -> Refused {
    let instead = match kind {
        "tls_channel_sec" | "mtls" => {
            return Refused::new(
                "the export does not say which authority signs the certificates of callers",
                "make a Security of type `tls_channel` with `ca_pem` and `subject`",
            );
        }
        "aws" => "sign the requests in the service, with the secret in a user config",
        "vault_conn_sec" => "make a Security with the token itself, of type `api_key` or `bearer`",
        "spnego" => "use type `ntlm` or a token, as far as the other side allows",
        "xpath_sec" => "use type `wss`, `basic` or `api_key`",
        _ => {
            "use one of the types `basic`, `api_key`, `bearer`, `jwt`, `wss`, `oauth`, `ntlm`, `tls_key_cert`"
        }
    };
    Refused::new(format!("securities of type `{kind}` are not in this release"), instead)
}

/// Security groups.
pub(super) fn groups(draft: &mut Draft<'_>) {
    for (index, entry) in draft.open() {
        if !matches!(entry.section.as_str(), "groups" | "security_groups" | "group") {
            continue;
        }
        draft.each(index, entry, |draft, fields| {
            fields.pass_over(&["type", "group_type", "description"]);
            let named = fields.texts(&["members"])?;
            let mut members = Vec::new();
            for member in named {
                if draft.is_there(Kind::Security, &member) {
                    members.push(member);
                } else {
                    fields.note(format!(
                        "member `{member}` was not taken and is not on the box, so it is left out"
                    ));
                }
            }
            Ok(Made::new(Kind::SecurityGroup, json!({"members": members})))
        });
    }
}
