//! The key-value store alone, with everything in one folder: `cargo run -p arkvd --example serve --
//! /tmp/kv 127.0.0.1:6399 sync`.  The password is in `arkvd.password` in that folder.

use std::path::PathBuf;
use std::process::ExitCode;

use arkvd::{Config, Durability, Server};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "arkvd-data".to_owned()));
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:6399".to_owned());
    let durability = match args.next().as_deref() {
        Some("interval") => Durability::Interval,
        _ => Durability::Sync,
    };
    let service = arbase::ServiceArgs {
        config_dir: dir.clone(),
        check: false,
        log_level: log::LevelFilter::Info,
    };
    let load = |_: &std::path::Path| {
        Ok(Config {
            runtime_dir: dir.clone(),
            state_dir: dir.join("state"),
            listen,
            durability,
            ..Config::default()
        })
    };
    arbase::run_service(
        "arkvd",
        &service,
        load,
        |_| 1,
        async |config, stop| {
            let server = Server::start(config).await?;
            server.run_until(stop).await;
            Ok::<(), arkvd::StartError>(())
        },
    )
}
