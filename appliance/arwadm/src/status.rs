//! How the whole box is: what each part says of itself, and what is wrong, one sentence each.

use std::time::Duration;

use arapi::arwadm::NodeStatus;
use arapi::{ClientError, arclst, arldb, aros, arsrv};
use arbase::Chain;

use crate::server::App;

/// Longest wait for one part.
const LIMIT: Duration = Duration::from_secs(3);

/// Asks every part at once.
pub(crate) async fn status(app: &App) -> NodeStatus {
    let store = arclst::Client(app.arclst().0.with_limit(LIMIT));
    let core = arsrv::Client(app.arsrv().0.with_limit(LIMIT));
    let balancer = arldb::Client(app.arldb().0.with_limit(LIMIT));
    let system = aros::Client(app.aros().0.with_limit(LIMIT));
    if let Some(recovery) = app.recovery() {
        return in_recovery(app.node().await, &recovery.why, system.status().await.ok());
    }
    let (store, core, balancer, system) =
        tokio::join!(store.status(), core.status(), balancer.status(), system.status());
    let absent = system.as_ref().is_err_and(|err| app.has_no_system(err));
    let system = Some(system).filter(|_| !absent);
    merge(app.node().await, store, core, balancer, system)
}

/// In recovery the other parts do not run, and nothing is well.
fn in_recovery(node: String, why: &str, system: Option<aros::Status>) -> NodeStatus {
    let mut problems = vec![format!("this is the recovery system: {why}")];
    let of_system = system.iter().flat_map(|system| &system.problems);
    problems.extend(of_system.filter(|problem| *problem != why).cloned());
    NodeStatus {
        node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        health: "down".to_owned(),
        problems,
        arclst: None,
        arsrv: None,
        arldb: None,
        aros: system,
    }
}

fn merge(
    node: String,
    store: Result<arclst::Status, ClientError>,
    core: Result<arsrv::Status, ClientError>,
    balancer: Result<arldb::Status, ClientError>,
    system: Option<Result<aros::Status, ClientError>>,
) -> NodeStatus {
    let mut problems = Vec::new();
    let of_system = system.as_ref().and_then(|system| system.as_ref().err());
    for error in [store.as_ref().err(), core.as_ref().err(), balancer.as_ref().err(), of_system] {
        problems.extend(error.map(|error| Chain(error).to_string()));
    }
    if let Ok(store) = &store
        && !store.writable
    {
        let reason = store.reason.clone().unwrap_or_else(|| "no reason is given".to_owned());
        problems.push(format!("changes cannot be accepted: {reason}"));
    }
    if let (Ok(store), Ok(core)) = (&store, &core)
        && core.revision < store.revision
    {
        problems.push(format!(
            "the integrator core serves revision {} and the store is at {}",
            core.revision, store.revision
        ));
    }
    if let Ok(core) = &core {
        problems.extend(core.problems.iter().cloned());
    }
    if let Ok(balancer) = &balancer {
        for backend in balancer.backends.iter().filter(|backend| !backend.healthy) {
            let why = backend.last_error.as_deref().unwrap_or("no health check has passed");
            problems.push(format!("the balancer's backend `{}` is down: {why}", backend.name));
        }
    }
    if let Some(Ok(system)) = &system {
        problems.extend(system.boot.fell_back.iter().cloned());
        // The same sentence may stand in both.
        let known = system.boot.fell_back.as_ref();
        problems.extend(system.problems.iter().filter(|one| Some(*one) != known).cloned());
    }
    let health = match (&store, &core) {
        (Err(_), _) | (_, Err(_)) => "down",
        _ if problems.is_empty() => "ok",
        _ => "degraded",
    };
    NodeStatus {
        node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        health: health.to_owned(),
        problems,
        arclst: store.ok(),
        arsrv: core.ok(),
        arldb: balancer.ok(),
        aros: system.and_then(Result::ok),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn away<T>(service: &'static str) -> Result<T, ClientError> {
        let source = std::io::Error::other("no such file");
        Err(ClientError::Connect { service, socket: format!("/run/{service}.sock").into(), source })
    }

    fn store(revision: u64) -> Result<arclst::Status, ClientError> {
        let status = json!({"cluster": "c", "node": "n", "revision": revision, "objects": 1, "writable": true});
        Ok(serde_json::from_value(status).unwrap())
    }

    fn core(revision: u64, problems: &[&str]) -> Result<arsrv::Status, ClientError> {
        let status = json!({"revision": revision, "workers": [], "services": [], "channels": [],
            "outgoing": [], "problems": problems});
        Ok(serde_json::from_value(status).unwrap())
    }

    fn balancer() -> Result<arldb::Status, ClientError> {
        let status = json!({"listen": "0.0.0.0:11223", "connections": 0, "requests": 0, "retried": 0,
            "refused": 0, "backends": []});
        Ok(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_part_that_does_not_answer_is_a_problem_and_no_failure() {
        let status = merge("n".to_owned(), store(3), core(3, &[]), away("arldb"), None);
        assert_eq!(status.health, "degraded");
        assert_eq!(
            status.problems,
            ["cannot reach `arldb` at `/run/arldb.sock`; is it running?: no such file"]
        );
        let status = merge("n".to_owned(), store(3), away("arsrv"), balancer(), None);
        assert_eq!(status.health, "down");
    }

    #[test]
    fn a_box_is_well_when_nobody_complains() {
        let status = merge("n".to_owned(), store(3), core(3, &[]), balancer(), None);
        assert_eq!((status.health.as_str(), status.problems.len()), ("ok", 0));
        let status =
            merge("n".to_owned(), store(4), core(3, &["worker `a` ended"]), balancer(), None);
        assert_eq!(
            status.problems,
            ["the integrator core serves revision 3 and the store is at 4", "worker `a` ended"]
        );
    }

    #[test]
    fn in_recovery_the_reason_is_said_once() {
        let why = "slot a was left: probe `units` failed";
        let problems = vec![why.to_owned(), "the clock is not set".to_owned()];
        let system = aros::Status { problems, ..Default::default() };
        let status = in_recovery("n".to_owned(), why, Some(system));
        let first = format!("this is the recovery system: {why}");
        assert_eq!(status.problems, [first.as_str(), "the clock is not set"]);
    }

    #[test]
    fn what_the_operating_system_complains_of_is_said_once_and_first_why_the_box_fell_back() {
        let why = "update to 1.5.0 was undone: probe `channel` failed: no answer";
        let system = aros::Status {
            boot: aros::BootStatus { fell_back: Some(why.to_owned()), ..Default::default() },
            problems: vec!["`state` is 96 % full".to_owned(), why.to_owned()],
            ..Default::default()
        };
        let status = merge("n".to_owned(), store(3), core(3, &[]), balancer(), Some(Ok(system)));
        assert_eq!(status.health, "degraded");
        assert_eq!(status.problems, [why, "`state` is 96 % full"]);
        assert!(status.aros.is_some());
    }
}
