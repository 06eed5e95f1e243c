//! `arctl update`, `system`, `network`, `support`, `factory-reset` as a person or script uses them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use artest::Node;
use serde_json::Value;

use crate::stand_in::{StandIn, trial};

/// A node with an operating system, and a person logged in to it.
struct Fixture {
    node: Node,
    aros: StandIn,
    home: PathBuf,
    _home: Box<dyn std::any::Any>,
}

impl Fixture {
    async fn start() -> Self {
        let node = Node::start().await;
        let aros = StandIn::start(&node.runtime_dir);
        let home = artest::temp_dir();
        Self { node, aros, home: home.path().to_owned(), _home: Box::new(home) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(artest::arint());
        command.arg("arctl").args(args).env("XDG_CONFIG_HOME", &self.home).current_dir(&self.home);
        command.env("ARCTL_SERVER", &self.node.admin).env("ARCTL_TOKEN", &self.node.token);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The stand-in lives in this process: the command must not block it.
    async fn run(&self, args: &[&str]) -> (i32, String, String) {
        let child = self.command(args).spawn().unwrap();
        let wait = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let Output { status, stdout, stderr } = wait.await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }

    async fn done(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args).await;
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    }

    fn bundle(&self) -> String {
        let path = self.home.join("arint-1.5.0.raucb");
        std::fs::write(&path, vec![1u8; 5_000_000]).unwrap();
        path.display().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_uploaded_installed_and_awaited_until_it_is_confirmed() {
    let fx = Fixture::start().await;
    let bundle = fx.bundle();
    let (code, out, err) = fx.run(&["update", "install", &bundle, "--wait"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let sha256 = "c0de".repeat(16);
    assert_eq!(
        out,
        format!(
            "{bundle}: version 1.5.0 for arint-generic-x86_64, SHA-256 {sha256}\n1.5.0 is installed; waiting until the box is confirmed\narsrv-k7qf2mxd runs 1.5.0 (slot b, confirmed)\n"
        )
    );
    assert!(err.starts_with("uploading to arsrv-k7qf2mxd: 0 %\n"), "{err}");
    assert!(err.contains("writing `rootfs` to slot b: "), "{err}");
    assert_eq!(fx.aros.with(|world| world.uploaded), 5_000_000);
    let table = fx.done(&["update", "status"]).await;
    assert!(table.starts_with("SLOT      VERSION  STATE"), "{table}");
    assert!(table.contains("installation of 1.5.0 from upload is done\n"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_falls_back_is_told_with_its_reason() {
    let fx = Fixture::start().await;
    let why = "1.5.0 was undone: probe `channel` failed: no answer within 5s";
    fx.aros.with(|world| world.undone = Some(why.to_owned()));
    let url = "https://192.0.2.8:8183/v1/system/update/bundle";
    let (code, out, err) = fx.run(&["update", "install", url, "--wait"]).await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.ends_with(&format!("error: the box fell back to 1.4.0: {why}\n")), "{err}");
    assert_eq!(fx.done(&["system", "why"]).await, format!("{why}\n"));
    fx.aros.with(|world| world.fails = Some("the signature is of an unknown key".to_owned()));
    let (code, _, err) = fx.run(&["update", "install", url, "--no-reboot"]).await;
    assert_eq!(code, 1);
    assert!(
        err.ends_with("error: the installation failed: the signature is of an unknown key\n"),
        "{err}"
    );
    // A refusal that comes before the file has gone is told as well, over TCP and the socket behind it.
    let full = "`data` has 3 MB free, and the bundle needs 200 MB; remove what is not needed";
    fx.aros.with(|world| world.full = Some(full.to_owned()));
    let large = fx.home.join("large.raucb");
    std::fs::File::create(&large).unwrap().set_len(200_000_000).unwrap();
    for _ in 0..5 {
        let (code, _, err) = fx.run(&["update", "install", &large.display().to_string()]).await;
        assert_eq!(code, 1);
        assert!(err.contains(&format!("error: {full} (see `arctl logs --cid ")), "{err}");
    }
    let said = fx.done(&["update", "rollback"]).await;
    assert_eq!(said, "the box restarts\n");
    let (code, _, err) = fx.run(&["update", "install", "nothing.raucb"]).await;
    assert_eq!(
        (code, err.as_str()),
        (1, "error: cannot read `nothing.raucb`: No such file or directory (os error 2)\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_is_shown_in_tables_and_as_json() {
    let fx = Fixture::start().await;
    let status = fx.done(&["system", "status"]).await;
    assert!(
        status.starts_with("arsrv-k7qf2mxd: ARINT 1.4.0 on generic/x86_64 (slot a, confirmed)\n"),
        "{status}"
    );
    let json: Value =
        serde_json::from_str(&fx.done(&["system", "status", "--json"]).await).unwrap();
    assert_eq!(json["boot"]["slot"], "a");
    fx.aros.with(|world| world.status.problems.push("`data` is full".to_owned()));
    let (code, out, _) = fx.run(&["system", "status"]).await;
    assert_eq!(code, 3);
    assert!(out.contains("  problem: `data` is full\n"), "{out}");
    let units = fx.done(&["system", "units"]).await;
    assert!(units.contains("arsrv.service   active  running  21 MB   0"), "{units}");
    let (code, out, _) = fx.run(&["system", "probes"]).await;
    assert_eq!(code, 3);
    assert!(out.contains("channel  no      12 ms  no answer within 5s"), "{out}");
    let out = fx.done(&["system", "journal", "--boot", "-1", "--unit", "aros.service"]).await;
    assert_eq!(out, "2026-11-21 00:07:49.001 INFO  aros: of boot -1\n");
    let out = fx.done(&["system", "blackbox", "--most", "1"]).await;
    assert!(
        out.ends_with("2    2026-11-21 00:07:49  confirmed  slot a with 1.4.0 was confirmed\n")
    );
    assert_eq!(fx.done(&["system", "why"]).await, "the box is in the slot that was chosen last\n");
    assert_eq!(
        fx.done(&["system", "identify"]).await,
        "the box shows itself for 30 s: status:green, bell\n"
    );
    assert_eq!(fx.done(&["system", "reboot"]).await, "the box restarts\n");
    let (code, _, err) = fx.run(&["system", "journal", "--priority", "9"]).await;
    assert!(code == 2 && err.contains("9 is not in 0..=7"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_followed_as_it_comes() {
    let fx = Fixture::start().await;
    let mut child = fx.command(&["system", "journal", "-f"]).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(out));
        lines.take(3).map(Result::unwrap).collect::<Vec<_>>()
    });
    let lines = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[0].ends_with("arsrv: of boot 0"), "{lines:?}");
    assert!(lines[2].ends_with("arsrv: one more"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_set_on_trial_and_kept_if_the_box_is_reached() {
    let fx = Fixture::start().await;
    let text = |address: &str| {
        format!(
            "kind: Network\nname: default\nspec:\n  interfaces:\n    - name: end0\n      addresses: [{address}]\n"
        )
    };
    let file = fx.home.join("network.yaml");
    std::fs::write(&file, text("192.0.2.10/24")).unwrap();
    let file = file.display().to_string();
    // The real unit sees the object change; here somebody has to say so.
    let watched = fx.aros.clone();
    let store = fx.node.runtime_dir.clone();
    let watching = tokio::spawn(async move {
        let client = arapi::arclst::Client::in_runtime_dir(&store);
        let mut seen = None;
        loop {
            let listed = client.list(Some(arapi::Kind::Network)).await.unwrap();
            let now = listed.objects.first().map(|object| object.revision);
            if now != seen {
                seen = now;
                trial(&watched, 20);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let out = fx.done(&["network", "set", "-f", &file]).await;
    assert_eq!(
        out,
        "Network default changed\na change is on trial: the box goes back in 20 s unless `arctl network confirm` keeps it\n"
    );
    let (code, _, err) = fx.run(&["network", "set", "-f", &file]).await;
    assert_eq!(code, 1);
    assert!(err.starts_with("error: a change is on trial: "), "{err}");
    assert_eq!(fx.done(&["network", "confirm"]).await, "the new network is kept\n");
    assert_eq!(fx.done(&["network", "set", "-f", &file]).await, "Network default unchanged\n");
    std::fs::write(fx.home.join("network.yaml"), text("192.0.2.11/24")).unwrap();
    let out = fx.done(&["network", "set", "-f", &file, "--confirm-after-check"]).await;
    assert_eq!(out, "Network default changed\nthe new network is kept\n");
    watching.abort();
    let shown = fx.done(&["network", "show"]).await;
    assert!(shown.contains("end0  up     192.0.2.7/24, 2001:db8::7/64"), "{shown}");
    let other = fx.home.join("other.yaml");
    std::fs::write(&other, "kind: Node\nname: a\n").unwrap();
    let other = other.display().to_string();
    let (code, _, err) = fx.run(&["network", "set", "-f", &other]).await;
    assert_eq!(code, 2);
    assert_eq!(
        err,
        format!(
            "error: `{other}` holds something else than one Network; apply other objects with `arctl apply`\n"
        )
    );
    // What describes this one box does not travel unless it is asked for.
    assert!(!fx.done(&["export"]).await.contains("kind: Network"));
    let exported = fx.done(&["export", "network"]).await;
    assert!(exported.contains("192.0.2.11/24"), "{exported}");
    assert!(fx.done(&["get", "networks"]).await.contains("default  end0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn support_and_reset_need_what_they_need() {
    let fx = Fixture::start().await;
    let said = fx.done(&["support", "bundle", "-o", "support.tar.zst"]).await;
    assert_eq!(said, "support.tar.zst: 3000000 bytes; look into it before you pass it on\n");
    let loaded = std::fs::metadata(fx.home.join("support.tar.zst")).unwrap();
    assert_eq!(loaded.len(), 3_000_000);
    let (code, out, err) = fx.run(&["support", "open", "--minutes", "30"]).await;
    assert_eq!((code, out.as_str()), (0, "seven small words\n"), "{err}");
    assert!(err.contains("until 2026-11-21 00:37:49 UTC; the password is shown only this time:"));
    let status = fx.done(&["support", "status"]).await;
    assert_eq!(status, "user support may log in until 2026-11-21 00:37:49 UTC\n");
    assert_eq!(fx.done(&["support", "close"]).await, "the support session has ended\n");
    assert_eq!(fx.done(&["support", "status"]).await, "there is no support session\n");
    let (code, _, err) = fx.run(&["factory-reset", "--hostname", "other"]).await;
    assert_eq!(
        (code, err.as_str()),
        (1, "error: the host name is `arsrv-k7qf2mxd`, not `other`; nothing was reset\n")
    );
    let out = fx.done(&["factory-reset", "--hostname", "arsrv-k7qf2mxd"]).await;
    assert!(
        out.starts_with("the keys are destroyed; the box restarts; destroyed key: 5f2a"),
        "{out}"
    );
}
