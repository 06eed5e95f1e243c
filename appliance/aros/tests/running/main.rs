//! The operating system unit on a box: the real bus, networkd, hostnamed, timedated and journald around it, in name
//! spaces of its own.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of the tests end a test that cannot be set up"
)]

mod support;

use std::time::Duration;

use arapi::arclst::Change;
use arapi::aros::{
    BlackBoxView, Done, Identifying, Identity, JournalLine, NetworkStatus, Status, SupportSession,
    Unit,
};
use arapi::names::Kind;
use arapi::objects::{NetworkSpec, SecretText};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{NODE, Running, SOON};

/// A network with one static address on the box's cable.
fn network(address: &str) -> Value {
    json!({"interfaces": [{"name": "end0", "addresses": [address], "dns": ["192.0.2.53"], "gateways": ["192.0.2.1"]}]})
}

async fn network_status(running: &Running) -> NetworkStatus {
    running.aros.get("/v1/network").await.unwrap()
}

/// Waits until the box's cable has an address, or has it no longer.
async fn has_address(running: &Running, address: &str, wanted: bool) -> NetworkStatus {
    let what = format!("`{address}` to be {}", if wanted { "there" } else { "gone" });
    artest::wait_for(&what, SOON, async || {
        let status = network_status(running).await;
        let end0 = status.links.iter().find(|link| link.name == "end0");
        let there = end0.is_some_and(|link| link.addresses.iter().any(|found| found == address));
        if there == wanted { Ok(status) } else { Err(status) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_network_rolls_back_unless_it_is_confirmed() {
    let mut running = Running::start(4).await;

    // Nobody confirms: the address goes, and the object with it.
    running.put(Kind::Network, "default", network("192.0.2.10/24")).await;
    let status = has_address(&running, "192.0.2.10/24", true).await;
    let trial = status.trial.expect("the change is on trial");
    assert!((1..=4).contains(&trial.seconds_left), "{trial:?}");
    assert_eq!(status.confirmed, NetworkSpec::default());
    has_address(&running, "192.0.2.10/24", false).await;
    let status = network_status(&running).await;
    assert_eq!(
        status.last_rollback.as_deref(),
        Some("the change of Network `default` was not confirmed within 4 s")
    );
    assert_eq!(status.trial, None);
    artest::wait_for("the object to be set back", SOON, async || {
        match running.store.object(Kind::Network, "default").await {
            Err(err) if err.code() == Some(arapi::error::ErrorCode::NotFound) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let late = running.aros.post::<_, Done>("/v1/network/confirm", &()).await.unwrap_err();
    assert_eq!(
        late.to_string(),
        "no change of the network is on trial; it has been rolled back or was confirmed already"
    );

    // Confirmed: it stays, and the box comes up with it where the store does not answer.
    running.put(Kind::Network, "default", network("192.0.2.10/24")).await;
    has_address(&running, "192.0.2.10/24", true).await;
    running.aros.post::<_, Done>("/v1/network/confirm", &()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = has_address(&running, "192.0.2.10/24", true).await;
    assert_eq!((status.trial, status.last_rollback), (None, None));
    let end0 = status.links.iter().find(|link| link.name == "end0").unwrap();
    assert_eq!(end0.gateways, ["192.0.2.1"]);
    assert_eq!(end0.dns, ["192.0.2.53"]);
    assert_eq!(end0.state, "up");
    running.end_unit("aros", Signal::SIGKILL);
    running.end_unit("arclst", Signal::SIGKILL);
    running.inside(&["sh", "-c", "rm /run/systemd/network/10-*; networkctl reload"]);
    running.inside(&["ip", "address", "flush", "dev", "end0"]);
    running.run_unit("aros").await;
    has_address(&running, "192.0.2.10/24", true).await;
    running.run_unit("arclst").await;

    // A restart in the middle of a trial comes up with what was confirmed, and the store is set back to it.
    running.put(Kind::Network, NODE, network("192.0.2.20/24")).await;
    has_address(&running, "192.0.2.20/24", true).await;
    running.end_unit("aros", Signal::SIGKILL);
    running.run_unit("aros").await;
    has_address(&running, "192.0.2.20/24", false).await;
    let status = has_address(&running, "192.0.2.10/24", true).await;
    assert_eq!(
        status.last_rollback.as_deref(),
        Some("the change of Network `box-1` was not confirmed before the box restarted")
    );
    artest::wait_for("the object of the box to be gone", SOON, async || {
        match running.store.object(Kind::Network, NODE).await {
            Err(err) if err.code() == Some(arapi::error::ErrorCode::NotFound) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let kept = running.store.object(Kind::Network, "default").await.unwrap();
    assert_eq!(kept.changed_by, "user:admin");
    let written_back = running.store.history(Kind::Network, NODE, 1).await.unwrap();
    assert_eq!(written_back.first().map(|entry| entry.who.as_str()), Some("aros"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_has_a_name_and_a_zone_and_shows_where_it_is() {
    let mut running = Running::start(60).await;
    let identity: Identity = running.aros.get("/v1/identity").await.unwrap();
    let hostname = |running: &Running| running.inside(&["hostname"]);

    // Its own name, set by hostnamed; and a link-local address, because nobody answers on the cable.
    artest::wait_for("the box's own name", SOON, async || {
        let name = hostname(&running);
        if name == identity.default_hostname { Ok(()) } else { Err(name) }
    })
    .await;
    assert_eq!(running.inside(&["cat", "/etc/hostname"]), identity.default_hostname);
    artest::wait_for("a link-local address", SOON, async || {
        let status = network_status(&running).await;
        let found = status.links.iter().flat_map(|link| &link.addresses);
        if found.clone().any(|addr| addr.starts_with("169.254.")) {
            Ok(())
        } else {
            Err(status.clone())
        }
    })
    .await;

    // The screen says so, with the code while the box is unclaimed.
    std::fs::write(running.path("run/first-run-code"), "H7KD-93PA\n").unwrap();
    let screen = || std::fs::read_to_string(running.path("screen")).unwrap();
    let shows = async |what: &[&str]| {
        artest::wait_for("the screen", SOON, async || {
            let text = screen();
            let last = text.rsplit("ARINT ").next().unwrap_or_default().to_owned();
            if what.iter().all(|part| last.contains(part)) { Ok(last) } else { Err(last) }
        })
        .await
    };
    shows(&["https://169.254.", &identity.default_hostname, &identity.words, "H7KD-93PA"]).await;
    std::fs::write(running.path("screen"), "").unwrap();
    std::fs::remove_file(running.path("run/first-run-code")).unwrap();
    let claimed = shows(&[&identity.words]).await;
    assert!(!claimed.contains("Claim code"), "{claimed}");

    // The object changes name, zone and time servers at once.
    let spec = json!({"hostname": "plant-7", "timezone": "Europe/Berlin", "ntp": ["192.0.2.1"]});
    running.put(Kind::System, "default", spec).await;
    artest::wait_for("the new name", SOON, async || {
        let name = hostname(&running);
        if name == "plant-7" { Ok(()) } else { Err(name) }
    })
    .await;
    artest::wait_for("the time synchronisation to be told", SOON, async || {
        let told = running.played.told();
        if told.iter().any(|told| told == "try-restart systemd-timesyncd.service") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    let conf = running.inside(&["cat", "/run/systemd/timesyncd.conf.d/50-arint.conf"]);
    assert!(conf.ends_with("[Time]\nNTP=192.0.2.1"), "{conf}");
    let status: Status = running.aros.get("/v1/status").await.unwrap();
    assert_eq!(status.hostname, "plant-7");
    assert_eq!(status.clock.timezone, "Europe/Berlin");
    assert_eq!(status.fingerprint, identity.fingerprint);
    assert_eq!(status.failed_units, ["efi.mount"]);
    assert!(
        status.problems.contains(&"unit `efi.mount` failed".to_owned()),
        "{:?}",
        status.problems
    );
    assert!(status.memory.total > status.memory.available && status.memory.available > 0);
    assert!(!status.kernel.is_empty() && status.uptime_s > 0);

    // A zone that is not there is a problem, not a failure.
    running
        .put(Kind::System, "default", json!({"hostname": "plant-7", "timezone": "Mars/Olympus"}))
        .await;
    let problem =
        "time zone `Mars/Olympus` is not in this image's database; the clock shows the one before";
    artest::wait_for("the problem", SOON, async || {
        let status: Status = running.aros.get("/v1/status").await.unwrap();
        if status.problems.iter().any(|found| found == problem) {
            Ok(())
        } else {
            Err(status.problems)
        }
    })
    .await;

    // Key and settings outlive a start and need no store; what the image's /etc says at first is not the box's name.
    running.end_unit("arclst", Signal::SIGKILL);
    running.end_unit("aros", Signal::SIGTERM);
    running.inside(&["hostname", "localhost"]);
    running.inside(&["sh", "-c", "echo localhost >/etc/hostname"]);
    running.run_unit("aros").await;
    artest::wait_for("the name from the file", SOON, async || {
        let name = hostname(&running);
        if name == "plant-7" { Ok(()) } else { Err(name) }
    })
    .await;
    assert_eq!(running.aros.get::<Identity>("/v1/identity").await.unwrap(), identity);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_support_session_is_open_for_its_time_only() {
    let mut running = Running::start(60).await;
    let shadow = |running: &Running| {
        let text = running.inside(&["cat", "/etc/shadow"]);
        text.lines().find(|line| line.starts_with("support:")).unwrap_or_default().to_owned()
    };
    let refused =
        running.aros.post::<_, SupportSession>("/v1/support", &json!({"minutes": 481})).await;
    assert_eq!(refused.unwrap_err().to_string(), "481 minutes are not between 1 and 480");
    assert_eq!(running.aros.get::<Option<SupportSession>>("/v1/support").await.unwrap(), None);

    let session: SupportSession =
        running.aros.post("/v1/support", &json!({"minutes": 5})).await.unwrap();
    let password = session.password.clone().expect("the password is told once");
    assert_eq!(session.user, "support");
    assert!(shadow(&running).starts_with("support:$6$"), "{}", shadow(&running));
    assert!(running.played.told().contains(&"start arint-support@screen.service".to_owned()));
    let shown: Option<SupportSession> = running.aros.get("/v1/support").await.unwrap();
    assert_eq!(shown, Some(SupportSession { password: None, ..session }));
    let twice = running.aros.post::<_, SupportSession>("/v1/support", &json!({"minutes": 5})).await;
    assert_eq!(
        twice.unwrap_err().to_string(),
        "a support session is open already; close it first (`DELETE /v1/support`)"
    );

    let close = async || running.aros.call::<(), Done>(Method::DELETE, "/v1/support", None).await;
    close().await.unwrap();
    assert_eq!(shadow(&running), "support:!*:19000::::::");
    let told = running.played.told();
    assert!(told.contains(&"stop arint-support@screen.service".to_owned()), "{told:?}");
    assert!(told.contains(&"terminate 64700".to_owned()), "{told:?}");
    assert_eq!(close().await.unwrap_err().to_string(), "no support session is open");

    // The end of the unit is the end of the session, orderly or not.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let request = json!({"minutes": 5});
        running.aros.post::<_, SupportSession>("/v1/support", &request).await.unwrap();
        assert!(shadow(&running).starts_with("support:$6$"));
        running.end_unit("aros", signal);
        if signal == Signal::SIGTERM {
            assert_eq!(shadow(&running), "support:!*:19000::::::");
        }
        running.run_unit("aros").await;
        artest::wait_for("the user to be locked", SOON, async || {
            let line = shadow(&running);
            if line == "support:!*:19000::::::" { Ok(()) } else { Err(line) }
        })
        .await;
    }
    assert!(!running.log("aros").contains(&password), "a password is never logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn power_units_and_the_journal_are_a_call_away() {
    let running = Running::start(60).await;

    let units: Vec<Unit> = running.aros.get("/v1/units").await.unwrap();
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["arsrv.service", "efi.mount"]);
    assert_eq!(
        units[0],
        Unit {
            name: "arsrv.service".into(),
            active: "active".into(),
            sub: "running".into(),
            memory: Some(42_000_000),
            restarts: 2,
            active_after_us: Some(7_000_000),
        }
    );

    // A line that is logged while someone listens arrives; who goes leaves no journalctl behind.
    running.inside(&[
        "logger",
        "--socket",
        "/run/systemd/journal/dev-log",
        "--tag",
        "plant",
        "--priority",
        "user.warning",
        "first",
    ]);
    let mut lines = running
        .aros
        .stream::<JournalLine>("/v1/journal?follow=true&priority=4&lines=100")
        .await
        .unwrap();
    let next = async |lines: &mut arapi::client::Lines<JournalLine>, text: &str| {
        let found = async {
            loop {
                let line = lines.next().await.unwrap().expect("a journal that is followed goes on");
                if line.message == text {
                    return line;
                }
            }
        };
        tokio::time::timeout(SOON, found).await.unwrap_or_else(|_| panic!("`{text}` does not come"))
    };
    let line = next(&mut lines, "first").await;
    assert_eq!((line.unit.as_str(), line.priority), ("plant", 4));
    running.inside(&[
        "logger",
        "--socket",
        "/run/systemd/journal/dev-log",
        "--tag",
        "plant",
        "--priority",
        "user.err",
        "second",
    ]);
    assert_eq!(next(&mut lines, "second").await.priority, 3);
    assert_eq!(running.children("aros"), ["journalctl"]);
    drop(lines);
    artest::wait_for("journalctl to end", SOON, async || {
        let left = running.children("aros");
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;

    let identify: Identifying =
        running.aros.post("/v1/identify", &json!({"seconds": 1})).await.unwrap();
    assert_eq!(identify, Identifying { by: vec!["bell".into()], seconds: 1 });
    assert!(std::fs::read_to_string(running.path("screen")).unwrap().contains('\u{7}'));
    let refused =
        running.aros.post::<_, Identifying>("/v1/identify", &json!({"seconds": 601})).await;
    assert_eq!(refused.unwrap_err().to_string(), "601 seconds are not between 1 and 600");

    let power = async |action: &str| {
        running.aros.post::<_, Done>("/v1/power", &json!({"action": action})).await.unwrap().message
    };
    assert_eq!(power("recovery").await, "the box restarts into the recovery system");
    assert_eq!(power("power_off").await, "the box switches off");
    assert_eq!(running.played.told(), ["next entry arint-1-recovery.conf", "reboot", "power off"]);
    let kept: BlackBoxView = running.aros.get("/v1/blackbox").await.unwrap();
    let events: Vec<&str> = kept.entries.iter().map(|entry| entry.event.as_str()).collect();
    assert!(events.ends_with(&["stopping", "stopping"]), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_support_bundle_has_what_is_needed_and_no_secret() {
    let running = Running::start(60).await;
    let secret = "correct-horse-battery";
    running
        .commit(vec![
            Change::PutSecret { name: "Security/crm/password".into(), value: SecretText(secret.into()) },
            Change::Put {
                kind: Kind::Security,
                name: "crm".parse().unwrap(),
                spec: json!({"type": "basic", "username": "crm", "password": {"secret": "Security/crm/password"}}),
                expect: arapi::arclst::Expect::Any,
            },
        ])
        .await;
    std::fs::write(running.path("run/first-run-code"), "H7KD-93PA\n").unwrap();
    // Someone logs what must not be logged.
    let careless = format!("password={secret} code=H7KD-93PA end");
    running.inside(&[
        "logger",
        "--socket",
        "/run/systemd/journal/dev-log",
        "--tag",
        "careless",
        &careless,
    ]);

    let archive = running.path("bundle.tar.gz");
    let token = std::fs::read_to_string(running.path("run/peer.token")).unwrap();
    let curl = std::process::Command::new(artest::tool("curl", "curl"))
        .args(["--silent", "--show-error", "--fail", "--unix-socket"])
        .arg(running.path("run/aros.sock"))
        .args(["--header", &format!("X-ARINT-Peer: {}", token.trim())])
        .arg("--output")
        .arg(&archive)
        .arg("http://aros/v1/support/bundle")
        .status()
        .unwrap();
    assert!(curl.success());
    let out = running.path("bundle");
    std::fs::create_dir(&out).unwrap();
    let tar = std::process::Command::new(artest::tool("tar", "tar"))
        .args(["--extract", "--gzip", "--strip-components=1", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&out)
        .status()
        .unwrap();
    assert!(tar.success());
    let read = |name: &str| {
        std::fs::read_to_string(out.join(name)).unwrap_or_else(|err| panic!("{name}: {err}"))
    };
    let status: Status = serde_json::from_str(&read("status.json")).unwrap();
    assert!(!status.fingerprint.is_empty());
    for name in [
        "network.json",
        "identity.json",
        "units.json",
        "blackbox.json",
        "kernel.txt",
        "journal-last-boot.txt",
        "mounts",
    ] {
        read(name);
    }
    let journal = read("journal.txt");
    assert!(journal.contains("password=(secret removed) code=(secret removed) end"), "{journal}");
    for file in std::fs::read_dir(&out).unwrap().flatten() {
        let text = String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned();
        for hidden in [secret, "H7KD-93PA", token.trim()] {
            assert!(!text.contains(hidden), "{} shows `{hidden}`", file.path().display());
        }
    }
}
