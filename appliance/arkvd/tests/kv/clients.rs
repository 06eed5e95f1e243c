//! Real clients: redis-py and redis-cli.

use std::process::Command;

use crate::support::Store;

fn run(program: &str, package: &str, command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|err| panic!("cannot run {program} ({err}); install {package}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program}: {text}{faults}\n(needs the Debian package {package})"
    );
    text
}

#[test]
fn redis_py_works_with_pipelines_locks_waiting_and_channels() {
    let store = Store::start_with(|config| config.listen = "127.0.0.1:0".to_owned());
    let port = store.tcp.unwrap().port().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kv/redis_py.py");
    let text = run(
        "/usr/bin/python3",
        "python3-redis",
        Command::new("/usr/bin/python3").args([script, &port, &store.password]),
    );
    assert_eq!(text.trim(), "all well");
}

#[test]
fn redis_cli_works() {
    let store = Store::start();
    let cli = |args: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(&store.socket).args(args).env("REDISCLI_AUTH", &store.password);
        run("redis-cli", "redis-tools", &mut command).trim().to_owned()
    };
    assert_eq!(cli(&["SET", "a", "1"]), "OK");
    assert_eq!(cli(&["-3", "HSET", "h", "f", "v"]), "1");
    assert_eq!(cli(&["-3", "HGETALL", "h"]), "f v");
    assert_eq!(cli(&["--scan"]).lines().count(), 2);
    assert!(cli(&["INFO"]).contains("redis_version:7.0.15"));
}
