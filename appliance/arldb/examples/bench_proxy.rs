//! What the balancer costs: requests a second and processor time per request, beside nginx as a proxy for the
//! same backend.
//!
//! `cargo run --release -p arldb --example bench_proxy`; needs `wrk` and `nginx` (Debian packages
//! of these names).  It starts itself twice more: as a trivial backend on a Unix socket and as the balancer,
//! so that the processor time of each is its own.  About a minute.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench prints its figures, ends at the first fault, and waits"
)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

const ROUND: u32 = 4;
const ROUNDS: usize = 3;
const CONNECTIONS: u32 = 64;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["backend", socket] => backend(Path::new(socket)),
        ["balancer", dir, addr] => balancer(Path::new(dir), addr),
        _ => compare(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn backend(socket: &Path) {
    runtime().block_on(async {
        let listener = arbase::http::listen_unix(socket, 0o600).unwrap();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let answer = |request: Request<Incoming>| async {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let body =
                        if body.is_empty() { Bytes::from_static(b"{\"ok\":true}") } else { body };
                    Ok::<_, Infallible>(
                        Response::builder()
                            .header("content-type", "application/json")
                            .body(Full::new(body))
                            .unwrap(),
                    )
                };
                let service = hyper::service::service_fn(answer);
                let http = hyper::server::conn::http1::Builder::new();
                http.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
}

fn balancer(dir: &Path, addr: &str) {
    runtime().block_on(async {
        let config = arldb::Config {
            listen: addr.parse().unwrap(),
            runtime_dir: dir.to_owned(),
            ..arldb::Config::default()
        };
        let (_stopper, stop) = arbase::Stop::new();
        arldb::Server::start(config).unwrap().run_until(stop).await;
    });
}

fn compare() {
    for tool in ["wrk", "nginx"] {
        let found = Command::new(tool).arg("-v").output().is_ok();
        assert!(found, "`{tool}` is missing: install the Debian package `{tool}`");
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("arsrv-http.sock");
    let own = std::env::current_exe().unwrap();
    let _backend = Running::start(Command::new(&own).arg("backend").arg(&socket));
    let ours = free_addr();
    let balancer = Running::start(Command::new(&own).arg("balancer").arg(dir.path()).arg(&ours));
    let theirs = free_addr();
    let conf = nginx_conf(dir.path(), &socket, &theirs);
    let nginx =
        Running::start(Command::new("nginx").arg("-c").arg(&conf).arg("-p").arg(dir.path()));
    for addr in [&ours, &theirs] {
        wait_until_it_answers(addr);
    }
    let post = dir.path().join("post.lua");
    let script = "wrk.method = 'POST'\nwrk.body = string.rep('x', 1024)\n\
                  wrk.headers['Content-Type'] = 'application/json'\n";
    std::fs::write(&post, script).unwrap();
    println!("{CONNECTIONS} connections, {ROUNDS} rounds of {ROUND} s each, one thread each");
    for (name, script) in
        [("GET, 11 bytes back", None), ("POST, 1 KiB there and back", Some(&post))]
    {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for ((addr, process), figures) in
                [(&ours, &balancer), (&theirs, &nginx)].into_iter().zip(&mut figures)
            {
                figures.push(measure(addr, process, script.map(PathBuf::as_path)));
            }
        }
        println!("{name}:");
        for (who, mut figures) in ["arldb", "nginx"].into_iter().zip(figures) {
            figures.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            let median = figures.get(figures.len() / 2).unwrap();
            println!(
                "  {who}: {:7.0} requests/s  {:5.1} µs of processor per request  p99 {}",
                median.rate, median.cpu_us, median.p99
            );
        }
    }
}

struct Figure {
    rate: f64,
    cpu_us: f64,
    p99: String,
}

fn measure(addr: &str, process: &Running, script: Option<&Path>) -> Figure {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "--latency"]);
    wrk.arg(format!("-c{CONNECTIONS}")).arg(format!("-d{ROUND}s"));
    if let Some(script) = script {
        wrk.arg("-s").arg(script);
    }
    let before = process.cpu();
    let output = wrk.arg(format!("http://{addr}/echo")).output().unwrap();
    let cpu = process.cpu() - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx"), "{text}");
    assert!(!text.contains("Socket errors"), "{text}");
    let word =
        |after: &str| text.split(after).nth(1).and_then(|rest| rest.split_whitespace().next());
    let rate: f64 = word("Requests/sec:").unwrap().parse().unwrap();
    let total: f64 = text
        .lines()
        .find(|line| line.contains("requests in"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    Figure { rate, cpu_us: cpu.as_secs_f64() * 1e6 / total, p99: word("99%").unwrap().to_owned() }
}

fn nginx_conf(dir: &Path, socket: &Path, addr: &str) -> PathBuf {
    let path = dir.join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
           fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
           keepalive_requests 100000000; client_body_buffer_size 64k;\n\
           upstream core {{ server unix:{socket}; keepalive 256; keepalive_requests 100000000; }}\n\
           server {{ listen {addr}; location / {{\n\
             proxy_pass http://core; proxy_http_version 1.1; proxy_set_header Connection '';\n\
             proxy_set_header Host $host; proxy_set_header X-Zato-CID $request_id;\n\
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;\n\
             proxy_set_header X-Forwarded-Host $host;\n\
           }} }}\n\
         }}\n",
        dir = dir.display(),
        socket = socket.display(),
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn free_addr() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn wait_until_it_answers(addr: &str) {
    use std::io::{Read as _, Write as _};
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < end, "nobody answers at {addr}");
        if let Ok(mut stream) = std::net::TcpStream::connect(addr) {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            if text.contains(" 200 ") {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process of the bench, ended with it.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Its processor time so far, of all its threads.
    fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name before the last `)` may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).unwrap().parse::<u32>().unwrap();
        // utime and stime, in hundredths of a second.
        Duration::from_millis(10) * (ticks(11) + ticks(12))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
