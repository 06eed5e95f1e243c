//! Prints how many transactions a second the store takes through its socket, one after the other
//! and from 64 at one time.  Run it with `--release`, and with `TMPDIR` on the disk of interest.

#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use arapi::arclst::{Change, Client, Expect, Transaction};
use arapi::{Kind, ObjectName};
use arclst::{Config, Server};

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(4);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let config = Config {
        runtime_dir: dir.path().to_owned(),
        state_dir: dir.path().join("state"),
        ..Config::default()
    };
    let server = Server::start(config).await?;
    let (stopper, stop) = arbase::Stop::new();
    let running = tokio::spawn(server.run_until(stop));
    for at_once in [1, 64, 1, 64] {
        let (commits, took) = measure(dir.path(), at_once).await?;
        let rate = f64::from(commits) / took.as_secs_f64();
        println!("{at_once:>3} at once: {rate:>7.0} commits/s");
    }
    stopper.stop();
    running.await?;
    Ok(())
}

async fn measure(dir: &Path, at_once: u32) -> Result<(u32, Duration), Box<dyn Error>> {
    let started = Instant::now();
    let tasks: Vec<_> = (0..at_once)
        .map(|task| {
            let client = Client::in_runtime_dir(dir);
            tokio::spawn(async move {
                let mut commits = 0u32;
                while started.elapsed() < MEASURED {
                    let spec = serde_json::json!({"sections": {"n": {"n": commits.to_string()}}});
                    let name =
                        ObjectName::parse(&format!("t{task}")).map_err(|err| err.to_string())?;
                    let put =
                        Change::Put { kind: Kind::UserConfig, name, spec, expect: Expect::Any };
                    let transaction = Transaction {
                        changes: vec![put],
                        who: "user:bench".to_owned(),
                        cid: None,
                        dry_run: false,
                    };
                    client.commit(&transaction).await.map_err(|err| err.to_string())?;
                    commits += 1;
                }
                Ok::<u32, String>(commits)
            })
        })
        .collect();
    let mut commits = 0;
    for task in tasks {
        commits += task.await??;
    }
    Ok((commits, started.elapsed()))
}
