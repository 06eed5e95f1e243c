//! Modules change while requests are served.

use arapi::arsrv::{CheckRequest, CheckVerdict, LoadFault, ModuleSource};

use super::*;

fn version(number: u32) -> String {
    format!(
        r#"
from zato.server.service import Service

class Version(Service):
    name = "version"
    def handle(self):
        self.response.payload = "{number}"
"#
    )
}

fn changed(name: &str, source: &str) -> CheckRequest {
    let module = ModuleSource { file_name: format!("{name}.py"), source: source.to_owned() };
    CheckRequest { modules: vec![module], ..CheckRequest::default() }
}

async fn refused(bench: &Bench, source: &str) -> LoadFault {
    match bench.pool.check(changed("photos", source)).await {
        CheckVerdict::Refused(fault) => fault,
        CheckVerdict::Loads { services } => panic!("it loads: {services:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_under_load_drops_no_request_and_changes_over_at_once() {
    let bench = Bench::start(&[("echo", ECHO), ("version", &version(0))]).await;
    bench.until_ready("default", 2).await;
    let load = Load::start(&bench, 8);
    for number in 1..=8 {
        bench.put_module("version", &version(number));
        bench.deployed().await;
        // Not one answer of the old version after the revision is served.
        for _ in 0..20 {
            assert_eq!(bench.call("version").text().await, number.to_string());
        }
    }
    load.end_all_good().await;
    bench.until("old workers are gone", |status| status.workers.len() == 2).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checked_deployment_is_live_within_300_ms_of_its_request() {
    let bench = Bench::start(&[("echo", ECHO), ("version", &version(0))]).await;
    bench.until_ready("default", 2).await;
    let mut took = Vec::new();
    for number in 1..=7 {
        bench.until_ready("default", 2).await;
        let started = Instant::now();
        let verdict = bench.pool.check(changed("version", &version(number))).await;
        assert!(matches!(verdict, CheckVerdict::Loads { .. }), "{verdict:?}");
        let checked = started.elapsed();
        bench.put_module("version", &version(number));
        bench.deployed().await;
        assert_eq!(bench.call("version").text().await, number.to_string());
        took.push(started.elapsed());
        artest::say(&format!(
            "checked after {checked:?}, live and answered after {:?}",
            started.elapsed()
        ));
    }
    took.sort();
    artest::say(&format!("median from request to first answer: {:?}", took[took.len() / 2]));
    bench.stop().await;
}

#[tokio::test]
async fn the_checked_worker_is_the_one_that_serves() {
    let bench = Bench::start(&[("version", &version(0))]).await;
    bench.until_ready("default", 2).await;
    bench.pool.check(changed("version", &version(1))).await;
    let pids = |status: PoolStatus| status.workers.into_iter().map(|worker| worker.pid);
    let checked: Vec<u32> = pids(bench.status()).collect();
    assert_eq!(checked.len(), 3);
    bench.put_module("version", &version(1));
    bench.deployed().await;
    let ready = bench.until_ready("default", 2).await;
    assert!(ready.iter().any(|worker| checked.contains(&worker.pid)), "{ready:?} {checked:?}");
    bench.stop().await;
}

#[tokio::test]
async fn sources_that_do_not_load_are_refused_with_reason_file_line_and_exit_code() {
    let bench = Bench::start(&[("echo", ECHO)]).await;
    let fault = refused(&bench, "import os\n\nclass X(\n").await;
    assert_eq!(
        (fault.file.as_str(), fault.line, fault.exit_code),
        ("photos.py", 3, Some(3)),
        "{fault:?}"
    );
    assert_eq!(fault.reason, "SyntaxError: '(' was never closed");
    let fault = refused(&bench, "import no_such_module\n").await;
    assert_eq!((fault.file.as_str(), fault.line), ("photos.py", 1), "{fault:?}");
    assert!(fault.reason.contains("No module named 'no_such_module'"), "{fault:?}");
    assert!(fault.traceback.contains("ModuleNotFoundError"), "{fault:?}");
    // What serves is not touched.
    assert_eq!(bench.call("echo").body("x").text().await, "x");
    bench.stop().await;
}

#[tokio::test]
async fn sources_that_kill_or_hang_the_worker_are_refused() {
    let modules = [("echo", ECHO)];
    let bench = Bench::start_with(&modules, |config| config.load_timeout_ms = 2000).await;
    let fault = refused(&bench, "import ctypes\nctypes.string_at(0)\n").await;
    assert_eq!(fault.reason, "the worker ended while it loaded the modules (signal SIGSEGV)");
    assert_eq!((fault.file.as_str(), fault.exit_code), ("photos.py", Some(-11)));
    assert!(fault.traceback.contains("Segmentation fault"), "{fault:?}");
    let fault = refused(&bench, "import os\nos._exit(9)\n").await;
    assert_eq!(fault.reason, "the worker ended while it loaded the modules (exit code 9)");
    let fault = refused(&bench, "while True:\n    pass\n").await;
    assert_eq!(fault.reason, "the modules are not loaded after 2000 ms");
    assert_eq!(bench.call("echo").body("x").text().await, "x");
    bench.stop().await;
}

#[tokio::test]
async fn a_set_that_does_not_load_here_leaves_the_old_one_serving_and_is_a_problem() {
    let bench = Bench::start(&[("echo", ECHO), ("version", &version(1))]).await;
    bench.put_module("version", "import no_such_module\n");
    let revision = bench.publish();
    let status = bench.until("a problem", |status| !status.problems.is_empty()).await;
    assert_eq!(
        status.problems,
        [
            "the deployed modules do not load here, and the ones before go on serving: ModuleNotFoundError: No module \
          named 'no_such_module' (version.py:1)"
        ]
    );
    assert_eq!(bench.call("version").text().await, "1");
    assert!(bench.progress.revision() < revision, "the revision is not served");
    // Mended.
    bench.put_module("version", &version(2));
    bench.deployed().await;
    assert_eq!(bench.call("version").text().await, "2");
    assert_eq!(bench.status().problems, Vec::<String>::new());
    bench.stop().await;
}

#[tokio::test]
async fn modules_that_go_take_their_services_along() {
    let bench = Bench::start(&[("echo", ECHO), ("version", &version(1))]).await;
    bench.remove_module("version");
    bench.deployed().await;
    assert_eq!(bench.call("version").failure().await.status, 404);
    assert_eq!(bench.call("echo").body("x").text().await, "x");
    bench.remove_module("echo");
    bench.deployed().await;
    assert_eq!(bench.call("echo").failure().await.status, 404);
    bench.until("no worker is left", |status| status.workers.is_empty()).await;
    let sets = std::fs::read_dir(bench.config.state_dir.join("modules")).unwrap().count();
    assert!(sets <= 2, "{sets} sets are kept");
    bench.stop().await;
}

#[tokio::test]
async fn services_of_another_group_have_workers_of_their_own() {
    let bench = Bench::start(&[("echo", ECHO), ("version", &version(1))]).await;
    let spec = json!({"module": "version", "class": "Version", "group": "apart"});
    bench.put(Kind::Service, "version", spec);
    bench.deployed().await;
    assert_eq!(bench.call("version").text().await, "1");
    bench.until_ready("apart", 2).await;
    bench.until_ready("default", 2).await;
    let spec = json!({"module": "version", "class": "Version", "group": "default"});
    bench.put(Kind::Service, "version", spec);
    bench.deployed().await;
    bench
        .until("the group is gone", |status| {
            status.workers.iter().all(|worker| worker.group == "default")
        })
        .await;
    assert_eq!(bench.call("version").text().await, "1");
    bench.stop().await;
}

#[tokio::test]
async fn a_python_that_lacks_packages_or_is_none_is_a_problem_in_one_sentence() {
    let bench = Bench::start_empty(|config| config.python = "/nonexistent/python3".into());
    bench.put_module("echo", ECHO);
    bench.publish();
    let status = bench.until("a problem", |status| !status.problems.is_empty()).await;
    assert_eq!(
        status.problems,
        [
            "Python `/nonexistent/python3` does not answer as Python does: cannot run `/nonexistent/python3`: No such file \
          or directory (os error 2)"
        ]
    );
    bench.stop().await;
}
