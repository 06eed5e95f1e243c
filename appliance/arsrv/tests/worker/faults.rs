//! A service that does its worst costs its own request, and nothing else fails meanwhile.

use super::*;

const BAD: &str = r#"
import ctypes, os, signal, sys, time
from zato.server.service import Service

class Loop(Service):
    name = "bad.loop"
    def handle(self):
        while True:
            pass

class Crash(Service):
    name = "bad.crash"
    def handle(self):
        ctypes.string_at(0)

class LateCrash(Service):
    name = "bad.late-crash"
    def handle(self):
        time.sleep(0.05)
        ctypes.string_at(0)

class RawExit(Service):
    name = "bad.raw-exit"
    def handle(self):
        # Past every guard of the SDK.
        ctypes.CDLL(None)._exit(7)

class Exit(Service):
    name = "bad.exit"
    def handle(self):
        os._exit(3)

class SysExit(Service):
    name = "bad.sys-exit"
    def handle(self):
        raise SystemExit(4)

class Leak(Service):
    name = "bad.leak"
    def handle(self):
        hoard = []
        for _ in range(100):
            hoard.append(b"x" * (5 * 1024 * 1024))
            time.sleep(0.02)
        time.sleep(5)
        self.response.payload = str(len(hoard))

class Gulp(Service):
    name = "bad.gulp"
    def handle(self):
        self.response.payload = str(len(bytearray(8 * 1024 * 1024 * 1024)))

class Flood(Service):
    name = "bad.flood"
    def handle(self):
        until = time.time() + 2
        while time.time() < until:
            print("y" * 200)
        self.response.payload = "flooded"

class Huge(Service):
    name = "bad.huge"
    def handle(self):
        self.response.payload = b"z" * (300 * 1024 * 1024)

class Hold(Service):
    name = "bad.hold"
    def handle(self):
        # Never lets go of the interpreter lock.
        ctypes.PyDLL(None).sleep(60)

class Kill(Service):
    name = "bad.kill"
    def handle(self):
        ctypes.CDLL(None).kill(os.getppid(), signal.SIGKILL)
        self.response.payload = "done"
"#;

async fn bench() -> Bench {
    let bench = Bench::start(&[("bad", BAD), ("echo", ECHO)]).await;
    bench.until_ready("default", 2).await;
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_loop_costs_its_own_request_a_504() {
    let bench = bench().await;
    let load = Load::start(&bench, 8);
    let failure = bench.call("bad.loop").within(Duration::from_millis(700)).failure().await;
    assert_eq!((failure.status, failure.kind.as_str()), (504, "timeout"));
    assert_eq!(failure.message, "service `bad.loop` did not answer within 700 ms");
    // The worker in which it still runs is replaced, and the service goes where it can hurt only itself.
    bench.until_ready("quarantine-bad.loop", 1).await;
    let quarantined = bench.status().problems;
    assert_eq!(
        quarantined,
        ["service `bad.loop` ended its worker; it runs in a worker of its own for another 10 min"]
    );
    bench.until_ready("default", 2).await;
    let failure = bench.call("bad.loop").within(Duration::from_millis(300)).failure().await;
    assert_eq!(failure.status, 504);
    load.end_all_good().await;
    // What is deployed next may be mended.
    bench.put_module("more", "");
    bench.deployed().await;
    assert_eq!(bench.status().problems, Vec::<String>::new());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_interpreter_costs_its_own_request_a_503() {
    let bench = bench().await;
    let load = Load::start(&bench, 8);
    for (service, how) in [
        ("bad.crash", "signal SIGSEGV"),
        ("bad.late-crash", "signal SIGSEGV"),
        ("bad.raw-exit", "exit code 7"),
        ("bad.crash", "signal SIGSEGV"),
    ] {
        let failure = bench.call(service).failure().await;
        assert_eq!((failure.status, failure.kind.as_str()), (503, "worker-died"), "{failure:?}");
        assert_eq!(failure.message, format!("service `{service}` ended its worker ({how})"));
    }
    load.end_all_good().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_the_process_the_python_way_costs_its_own_request_a_503_and_no_worker() {
    let bench = bench().await;
    let before = bench.until_ready("default", 2).await;
    let load = Load::start(&bench, 8);
    for _ in 0..10 {
        for (service, how) in [("bad.exit", "os._exit(3)"), ("bad.sys-exit", "sys.exit(4)")] {
            let failure = bench.call(service).failure().await;
            assert_eq!(failure.status, 503, "{failure:?}");
            assert_eq!(failure.message, format!("service '{service}' called {how}"));
        }
    }
    load.end_all_good().await;
    let pids =
        |workers: &[WorkerStatus]| workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    assert_eq!(pids(&before), pids(&bench.until_ready("default", 2).await));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_costs_its_own_request_a_503_with_both_numbers() {
    let modules = [("bad", BAD), ("echo", ECHO)];
    let bench = Bench::start_with(&modules, |config| config.worker_memory_mib = 128).await;
    bench.until_ready("default", 2).await;
    let load = Load::start(&bench, 8);
    let failure = bench.call("bad.leak").failure().await;
    assert_eq!((failure.status, failure.kind.as_str()), (503, "worker-died"), "{failure:?}");
    let message = failure.message;
    assert!(message.starts_with("service `bad.leak` ended its worker (memory "), "{message}");
    assert!(message.ends_with(" MiB is above the 128 MiB allowed)"), "{message}");
    // A single step that outruns the core's look at memory meets the hard limit.
    let failure = bench.call("bad.gulp").failure().await;
    assert_eq!(failure.status, 503, "{failure:?}");
    assert_eq!(failure.message, "service 'bad.gulp' ran out of memory");
    load.end_all_good().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_prints_costs_nobody_anything() {
    let bench = bench().await;
    let load = Load::start(&bench, 8);
    assert_eq!(bench.call("bad.flood").text().await, "flooded");
    load.end_all_good().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_300_mb_costs_its_own_request_an_error() {
    let modules = [("bad", BAD), ("echo", ECHO)];
    // Enough memory for the service to make it and the SDK to frame it.
    let bench = Bench::start_with(&modules, |config| config.worker_memory_mib = 2048).await;
    bench.until_ready("default", 2).await;
    let load = Load::start(&bench, 8);
    let failure = bench.call("bad.huge").failure().await;
    assert_eq!(failure.status, 500, "{failure:?}");
    load.end_all_good().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_from_outside_cost_no_request_that_may_be_run_again() {
    let bench = bench().await;
    let load = Load::start(&bench, 8);
    let mut kills = 0;
    for _ in 0..6 {
        for worker in bench.until_ready("default", 2).await.iter().take(1) {
            let pid = nix::unistd::Pid::from_raw(worker.pid.cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            kills += 1;
            let gone =
                |status: &PoolStatus| status.workers.iter().all(|other| other.pid != worker.pid);
            bench.until("the worker is gone", gone).await;
        }
    }
    let result = load.end().await;
    // A POST whose service had begun may have been carried out: it is not run again, and its caller is told so.
    let told =
        "service `echo` may or may not have been carried out: its worker ended (signal SIGKILL)";
    let others: Vec<&String> = result.bad.iter().filter(|bad| !bad.contains(told)).collect();
    assert_eq!(others, Vec::<&String>::new());
    assert!(result.bad.len() <= kills, "{result:?}");
    let quarantined = bench.status().problems;
    assert_eq!(quarantined, Vec::<String>::new(), "nobody is to blame");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_gives_no_sign_of_life_is_replaced() {
    let bench =
        Bench::start_with(&[("bad", BAD), ("echo", ECHO)], |config| config.timeout_ms = 30_000)
            .await;
    bench.until_ready("default", 2).await;
    let failure = bench.call("bad.hold").within(Duration::from_secs(25)).failure().await;
    assert_eq!(failure.message, "service `bad.hold` ended its worker (no sign of life for 10 s)");
    bench.until_ready("default", 2).await;
    assert_eq!(bench.call("echo").body("x").text().await, "x");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_costs_the_service_nothing() {
    let bench = Bench::start_with(&[("doer", DOER)], |config| config.workers = 1).await;
    let before = bench.until_ready("default", 1).await;
    let gone = bench.call("doer").body("/dev/null 4").send();
    // Its caller's future is dropped here.
    tokio::time::timeout(Duration::from_millis(300), gone).await.unwrap_err();
    let status = bench.status();
    assert_eq!(status.workers[0].in_flight, 1, "it goes on");
    bench
        .until("its end", |status| status.workers.iter().all(|worker| worker.in_flight == 0))
        .await;
    let after = bench.until_ready("default", 1).await;
    assert_eq!((before[0].pid, bench.status().problems.len()), (after[0].pid, 0));
    bench.stop().await;
}

const DOER: &str = r#"
import time
from zato.server.service import Service

class Doer(Service):
    name = "doer"
    def handle(self):
        path, _, seconds = self.request.raw_request.partition(" ")
        with open(path, "a") as file:
            file.write("begun\n")
        time.sleep(float(seconds))
        self.response.payload = "done"
"#;

fn times_begun(path: &std::path::Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

async fn kill_the_only_worker(bench: &Bench) {
    let worker = bench.until_ready("default", 1).await.remove(0);
    let pid = nix::unistd::Pid::from_raw(worker.pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_had_begun_when_its_worker_died_is_run_again_once_and_only_if_it_may_be() {
    let shared = artest::temp_dir();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(shared.path(), open).unwrap();
    let bench = Bench::start_with(&[("doer", DOER)], |config| {
        config.workers = 1;
        config.worker_writable = vec![shared.path().to_owned()];
    })
    .await;
    let path = |name: &str| shared.path().join(name);
    let body = |name: &str, seconds: f32| format!("{} {seconds}", path(name).display());
    let begun = |name: &'static str, times: usize| {
        let path = path(name);
        async move {
            artest::wait_for("the service to begin", Duration::from_secs(10), || async {
                let now = times_begun(&path);
                if now >= times { Ok(()) } else { Err(now) }
            })
            .await;
        }
    };
    // Both are running when their worker is killed, and a third one waits for a thread.
    let get = bench.call("doer").get().body(body("get", 1.0)).text();
    let post = bench.call("doer").body(body("post", 1.0)).failure();
    let killing = async {
        tokio::join!(begun("get", 1), begun("post", 1));
        kill_the_only_worker(&bench).await;
    };
    let (get, post, ()) = tokio::join!(get, post, killing);
    assert_eq!((get.as_str(), times_begun(&path("get"))), ("done", 2));
    assert_eq!((post.status, post.kind.as_str()), (503, "worker-died"));
    assert_eq!(
        post.message,
        "service `doer` may or may not have been carried out: its worker ended (signal SIGKILL)"
    );
    assert_eq!(times_begun(&path("post")), 1);
    // Twice is enough.
    let get = bench.call("doer").get().body(body("twice", 2.0)).failure();
    let killing = async {
        begun("twice", 1).await;
        kill_the_only_worker(&bench).await;
        begun("twice", 2).await;
        kill_the_only_worker(&bench).await;
    };
    let (get, ()) = tokio::join!(get, killing);
    assert_eq!(
        get.message,
        "service `doer` was begun twice, and each time its worker ended (signal SIGKILL)"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_had_not_begun_are_run_elsewhere_whatever_their_method() {
    let modules = [("bad", BAD), ("echo", ECHO)];
    let bench = Bench::start_with(&modules, |config| config.workers = 1).await;
    for _ in 0..3 {
        // All frames are written at once: the crash comes first, and the others lie behind it unread.
        let crash = bench.call("bad.crash").failure();
        let others = (0..50).map(|number| bench.call("echo").body(format!("{number}")).text());
        let (crash, others) = tokio::join!(crash, futures_util::future::join_all(others));
        assert_eq!(crash.status, 503);
        let wanted: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        assert_eq!(others, wanted);
        bench.put_module("more", &format!("# {:?}", Instant::now()));
        bench.deployed().await;
    }
    bench.stop().await;
}

/// Not a test of its own: the core that the next one kills.
#[tokio::test]
async fn a_core_that_is_there_to_be_killed() {
    let Some(pids) = std::env::var_os("ARSRV_TEST_PIDS") else {
        return;
    };
    let bench = Bench::start(&[("bad", BAD), ("echo", ECHO)]).await;
    let workers = bench.until_ready("default", 2).await;
    let text: Vec<String> = workers.iter().map(|worker| worker.pid.to_string()).collect();
    std::fs::write(&pids, text.join(" ")).unwrap();
    bench.call("bad.loop").send().await;
}

#[tokio::test]
async fn no_worker_outlives_a_core_that_is_killed() {
    let folder = artest::temp_dir();
    let pids = folder.path().join("pids");
    let mut core = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker::faults::a_core_that_is_there_to_be_killed"])
        .env("ARSRV_TEST_PIDS", &pids)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let workers = artest::wait_for("two workers", Duration::from_secs(20), || async {
        let text = std::fs::read_to_string(&pids).unwrap_or_default();
        let workers: Vec<String> = text.split(' ').map(str::to_owned).collect();
        if workers.len() == 2 { Ok(workers) } else { Err(text) }
    })
    .await;
    core.kill().await.unwrap();
    artest::wait_for("the workers' end", Duration::from_secs(5), || async {
        let alive = |pid: &&String| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        let alive: Vec<&String> = workers.iter().filter(alive).collect();
        if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?}")) }
    })
    .await;
}
