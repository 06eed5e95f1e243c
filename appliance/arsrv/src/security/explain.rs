//! May this caller invoke that?  The same rules as for a request, answered in a sentence.

use arapi::arsrv::{AccessAnswer, AccessQuestion};
use arapi::names::ObjectName;
use arapi::objects::HttpMethod;

use crate::channel::{Channel, Standing, Table, Target};

/// Answers a question; fails with a sentence where it names what does not exist.
pub fn answer(table: &Table, question: &AccessQuestion) -> Result<AccessAnswer, String> {
    let AccessQuestion { caller, service, channel, method } = question;
    if let Some(name) = channel {
        let found = table.channel(name).ok_or(format!("there is no channel `{name}`"))?;
        let target = match service {
            Some(service) => found.targets.find(service.as_str()),
            None => found.targets.one(),
        };
        return match target {
            Some(target) => Ok(by(found, target, caller, *method)),
            None if service.is_some() => {
                Err(format!("channel `{name}` invokes service `{}`", found.service))
            }
            None => Err(format!(
                "channel `{name}` invokes what its requests name; `service` was expected beside `channel`"
            )),
        };
    }
    let Some(service) = service else {
        return Err("`service` or `channel` was expected".to_owned());
    };
    let channels =
        table.all().filter_map(|channel| Some((channel, channel.targets.find(service.as_str())?)));
    let mut answers =
        channels.map(|(channel, target)| by(channel, target, caller, *method)).peekable();
    let refused = |reason| AccessAnswer { allowed: false, channel: None, grant: None, reason };
    if answers.peek().is_none() {
        return Ok(refused(format!("no channel invokes service `{service}`")));
    }
    Ok(answers.find(|answer| answer.allowed).unwrap_or_else(|| {
        refused(format!(
            "no channel that invokes service `{service}` lets security `{caller}` do so"
        ))
    }))
}

fn by(
    channel: &Channel,
    target: &Target,
    caller: &ObjectName,
    method: Option<HttpMethod>,
) -> AccessAnswer {
    let name = &channel.name;
    let only = channel.spec.only_method();
    let method = method.or(only).unwrap_or(HttpMethod::Get);
    let answer = |allowed, grant: Option<&ObjectName>, reason| AccessAnswer {
        allowed,
        channel: Some(name.clone()),
        grant: grant.cloned(),
        reason,
    };
    if channel.standing == Standing::Inactive {
        return answer(false, None, format!("channel `{name}` is inactive"));
    }
    if only.is_some_and(|only| only != method) {
        return answer(false, None, format!("channel `{name}` does not take {}", method.as_str()));
    }
    if channel.gate.is_open() {
        return answer(true, None, format!("channel `{name}` is open to all"));
    }
    if !channel.gate.knows(caller) {
        let reason = format!("channel `{name}` does not ask for security `{caller}`");
        return answer(false, None, reason);
    }
    let Some(granted) = &target.granted else {
        return answer(true, None, format!("by channel `{name}`, which needs no grant"));
    };
    match granted.find(caller, method) {
        Some(grant) => {
            let reason = format!("by channel `{name}`, granted by `{grant}`");
            answer(true, Some(grant), reason)
        }
        None => answer(
            false,
            None,
            format!(
                "no grant lets security `{caller}` invoke service `{}` by channel `{name}` with {}",
                target.service,
                method.as_str()
            ),
        ),
    }
}
