//! Pass-through: a channel that leads to an outgoing connection instead of a service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Broken, Priority};
use crate::names::ObjectName;
use crate::objects::ChannelSpec;
use crate::objects::channel::ChannelType;

/// How requests of a channel are passed on to an outgoing REST connection, without a service in between.
///
/// The method, the query and the body go as they are; the path is that of the connection, in which `{name}` stands for
/// the same `{name}` of the channel's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassThrough {
    /// The outgoing connection, of type `rest`.
    pub outgoing: ObjectName,
    /// The headers of requests that go along, by name or as patterns in which `*` stands for any text; default `*`: all.
    /// Credentials that open the channel go along only where they are named in full.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub request_headers: Vec<String>,
    /// The headers of answers that come back, in the same way; default `*`: all.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub response_headers: Vec<String>,
    /// How the other side learns who the client is; default `x_forwarded`.
    #[serde(default, skip_serializing_if = "is_x_forwarded")]
    pub forwarded: ForwardedHeaders,
    /// Whether the other side sees the `Host` that the client asked for instead of its own; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preserve_host: bool,
}

/// How the other side learns who the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedHeaders {
    /// By `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// By `Forwarded` (RFC 7239).
    Forwarded,
    /// By both.
    Both,
    /// Not at all.
    None,
}

impl ForwardedHeaders {
    /// Whether there are `X-Forwarded-…`.
    pub fn has_x(self) -> bool {
        matches!(self, Self::XForwarded | Self::Both)
    }

    /// Whether there is `Forwarded`.
    pub fn has_standard(self) -> bool {
        matches!(self, Self::Forwarded | Self::Both)
    }
}

impl PassThrough {
    /// Checks what belongs to it in a channel.
    pub(super) fn check(spec: &ChannelSpec) -> Result<(), Broken> {
        let Some(pass) = &spec.pass_through else { return Ok(()) };
        if spec.channel_type != ChannelType::Rest {
            let kind = spec.channel_type.as_str();
            let rule = format!("only channels of type `rest` have it, and this is `{kind}`");
            return Err(("pass_through", rule));
        }
        if spec.service.is_some() || spec.is_gateway() {
            let rule = "a channel leads to an outgoing connection or to services, not to both; \
                        leave out `service` and `service_whitelist`";
            return Err(("pass_through", rule.to_owned()));
        }
        if spec.priority != Priority::Interactive {
            let rule = "requests that are passed through wait for no worker; leave it out";
            return Err(("priority", rule.to_owned()));
        }
        for (field, names) in [
            ("pass_through.request_headers", &pass.request_headers),
            ("pass_through.response_headers", &pass.response_headers),
        ] {
            for name in names {
                let plain = name.replace('*', "");
                let fits = if plain.is_empty() {
                    !name.is_empty()
                } else {
                    http::HeaderName::from_bytes(plain.as_bytes()).is_ok()
                };
                if !fits {
                    let rule = format!(
                        "`{}` is neither the name of a header nor a pattern such as `X-Acme-*`",
                        name.escape_debug()
                    );
                    return Err((field, rule));
                }
            }
        }
        Ok(())
    }
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn is_all(names: &[String]) -> bool {
    matches!(names, [one] if one == "*")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it may skip by reference")]
fn is_x_forwarded(value: &ForwardedHeaders) -> bool {
    *value == ForwardedHeaders::XForwarded
}
