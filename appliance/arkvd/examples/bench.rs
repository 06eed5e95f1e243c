//! The store beside redis-server on the same disk, measured by redis-benchmark with 50 connections:
//! `cargo run --release -p arkvd --example bench`.  Rounds alternate and the median of the ratios
//! counts, so that a busy moment hits both.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arbase::Stop;
use arkvd::{Config, Durability, Server};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const CONNECTIONS: &str = "50";
const TESTS: &str = "set,get,incr,lpush,hset";

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start_redis(dir: &Path, port: u16, fsync: &str) -> Outcome<Redis> {
    std::fs::create_dir_all(dir)?;
    let port_text = port.to_string();
    let child = Command::new("redis-server")
        .args(["--port", &port_text, "--save", "", "--appendonly", "yes", "--appendfsync", fsync])
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|err| format!("cannot run redis-server ({err}); install redis-server"))?;
    let redis = Redis(child);
    let end = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > end {
            return Err("redis-server does not answer".into());
        }
        std::thread::yield_now();
    }
    Ok(redis)
}

/// Requests per second for each test.
fn measure(port: u16, password: Option<&str>, requests: &str) -> Outcome<BTreeMap<String, f64>> {
    let port = port.to_string();
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &port, "-c", CONNECTIONS, "-n", requests, "-t", TESTS, "-d", "64"]);
    command.args(["-r", "10000", "--csv"]);
    if let Some(password) = password {
        command.args(["-a", password]);
    }
    let output = command
        .stderr(Stdio::null())
        .output()
        .map_err(|err| format!("cannot run redis-benchmark ({err}); install redis-tools"))?;
    let text = String::from_utf8(output.stdout)?;
    let mut found = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split(',').map(|field| field.trim_matches('"'));
        if let (Some(test), Some(rate)) = (fields.next(), fields.next()) {
            found.insert(test.to_owned(), rate.parse()?);
        }
    }
    if found.is_empty() {
        return Err("redis-benchmark gave no figures".into());
    }
    Ok(found)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn compare(
    dir: &Path,
    title: &str,
    durability: Durability,
    fsync: &str,
    requests: &str,
) -> Outcome<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (our_port, their_port) = (free_port()?, free_port()?);
    let config = Config {
        runtime_dir: dir.join("run"),
        state_dir: dir.join("state"),
        listen: format!("127.0.0.1:{our_port}"),
        durability,
        ..Config::default()
    };
    let server = runtime.block_on(Server::start(config))?;
    let password = std::fs::read_to_string(server.password_file())?;
    let (stopper, stop) = Stop::new();
    let running = runtime.spawn(server.run_until(stop));
    let redis = start_redis(&dir.join("redis"), their_port, fsync)?;
    let mut ours: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut theirs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        let our = measure(our_port, Some(password.trim()), requests)?;
        let their = measure(their_port, None, requests)?;
        // The first round warms up.
        if round > 0 {
            for (test, rate) in our {
                ours.entry(test).or_default().push(rate);
            }
            for (test, rate) in their {
                theirs.entry(test).or_default().push(rate);
            }
        }
    }
    drop(redis);
    stopper.stop();
    runtime.block_on(running)?;
    println!("\n{title}");
    println!("{:<28} {:>10} {:>10} {:>7}", "test", "arkvd/s", "redis/s", "ratio");
    for (test, our) in ours {
        let Some(their) = theirs.remove(&test) else { continue };
        let ratio = median(our.iter().zip(&their).map(|(our, their)| our / their).collect());
        println!("{test:<28} {:>10.0} {:>10.0} {ratio:>7.2}", median(our), median(their));
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let dir = std::env::current_dir()?.join("target/arkvd-bench");
    std::fs::create_dir_all(&dir)?;
    let always = "every write on disk before its answer (sync; redis: appendfsync always)";
    compare(&dir.join("sync"), always, Durability::Sync, "always", "20000")?;
    let second = "on disk every second (interval; redis: appendfsync everysec)";
    compare(&dir.join("interval"), second, Durability::Interval, "everysec", "100000")?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
