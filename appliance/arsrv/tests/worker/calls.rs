//! Calls and their answers, limits and queues.

use arapi::objects::Priority;

use super::*;

const SERVICES: &str = r#"
import asyncio, time
from zato.server.service import Service

class Answer(Service):
    name = "my.answer"
    def handle(self):
        self.response.status_code = 201
        self.response.headers["X-A"] = "1"
        self.response.headers["Set-Cookie"] = ["a=1", "b=2"]
        self.response.content_type = "text/x-test"
        self.response.payload = "made by " + self.cid

class Sleep(Service):
    name = "my.sleep"
    def handle(self):
        time.sleep(float(self.request.raw_request or 1))
        self.response.payload = "slept"

class AsyncSleep(Service):
    name = "my.async-sleep"
    async def handle(self):
        await asyncio.sleep(float(self.request.raw_request or 1))
        self.response.payload = "slept"

class Raise(Service):
    name = "my.raise"
    def handle(self):
        raise ValueError("no such thing")

class Length(Service):
    name = "my.length"
    def handle(self):
        self.response.payload = self.request.raw_request

class Settings(Service):
    name = "my.settings"
    def handle(self):
        self.response.payload = str(self.user_config.shop.prices.euro)
"#;

async fn bench() -> Bench {
    Bench::start(&[("echo", ECHO), ("my", SERVICES)]).await
}

#[tokio::test]
async fn an_echo_service_answers_through_the_pool() {
    let bench = bench().await;
    assert_eq!(bench.call("echo").body("hello").text().await, "hello");
    assert_eq!(bench.call("echo").get().text().await, "nothing");
    bench.stop().await;
}

#[tokio::test]
async fn status_headers_and_content_type_of_the_service_arrive() {
    let bench = bench().await;
    let reply = bench.call("my.answer").reply().await;
    assert_eq!((reply.status, reply.content_type.as_deref()), (201, Some("text/x-test")));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = reply.headers;
    headers.sort();
    assert_eq!(headers, [pair("Set-Cookie", "a=1"), pair("Set-Cookie", "b=2"), pair("X-A", "1")]);
    bench.stop().await;
}

#[tokio::test]
async fn an_exception_is_a_failure_with_its_class_and_message() {
    let bench = bench().await;
    let failure = bench.call("my.raise").failure().await;
    assert_eq!((failure.status, failure.kind.as_str()), (500, "ValueError"));
    assert_eq!(failure.details, json!(["no such thing"]));
    bench.stop().await;
}

#[tokio::test]
async fn bodies_of_any_size_go_through_unchanged() {
    let bench = bench().await;
    for length in [0, 1, 8 * 1024, 8 * 1024 + 1, 16 * 1024, 70_000, 1_000_000, 20_000_000] {
        let body: Vec<u8> = (0..length).map(|at| b'a' + u8::try_from(at % 23).unwrap()).collect();
        let reply = bench.call("my.length").body(body.clone()).reply().await;
        assert!(reply.body == body, "{length} bytes came back as {}", reply.body.len());
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_waiting_calls_are_in_flight_at_once() {
    let bench = bench().await;
    bench.until_ready("default", 2).await;
    for service in ["my.sleep", "my.async-sleep"] {
        let started = Instant::now();
        let calls = (0..300).map(|_| bench.call(service).body("0.3").text());
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().all(|answer| answer == "slept"));
        artest::say(&format!("300 calls of {service} of 0.3 s: {:?}", started.elapsed()));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    bench.stop().await;
}

#[tokio::test]
async fn unknown_and_inactive_services_are_404() {
    let bench = bench().await;
    let failure = bench.call("no.such").failure().await;
    assert_eq!((failure.status, failure.kind.as_str()), (404, "not-found"));
    assert_eq!(failure.message, "service `no.such` is not deployed");
    bench.put(
        Kind::Service,
        "echo",
        json!({"module": "echo", "class": "Echo", "is_active": false}),
    );
    bench.deployed().await;
    let failure = bench.call("echo").failure().await;
    assert_eq!((failure.status, failure.kind.as_str()), (404, "inactive"));
    assert_eq!(failure.message, "service `echo` is inactive");
    bench.stop().await;
}

#[tokio::test]
async fn the_services_own_time_limit_counts_and_changes_without_new_workers() {
    let bench = bench().await;
    let before = bench.until_ready("default", 2).await;
    bench.put(
        Kind::Service,
        "my.sleep",
        json!({"module": "my", "class": "Sleep", "timeout_ms": 150}),
    );
    bench.deployed().await;
    let failure = bench.call("my.sleep").body("1").failure().await;
    assert_eq!((failure.status, failure.kind.as_str()), (504, "timeout"));
    assert_eq!(failure.message, "service `my.sleep` did not answer within 150 ms");
    // It ends within the grace: the worker stays.
    bench
        .until("the call is over", |status| {
            status.workers.iter().all(|worker| worker.in_flight == 0)
        })
        .await;
    let after = bench.until_ready("default", 2).await;
    assert_eq!(before[0].pid, after[0].pid);
    bench.stop().await;
}

#[tokio::test]
async fn calls_above_a_services_concurrency_wait_and_those_that_wait_too_long_are_503() {
    let bench = bench().await;
    let spec = json!({"module": "my", "class": "Sleep", "max_concurrency": 1});
    bench.put(Kind::Service, "my.sleep", spec);
    bench.deployed().await;
    let started = Instant::now();
    let calls = (0..3).map(|_| bench.call("my.sleep").body("0.2").text());
    futures_util::future::join_all(calls).await;
    assert!(started.elapsed() >= Duration::from_millis(600), "{:?}", started.elapsed());
    let long = bench.call("my.sleep").body("1").text();
    let short = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.call("my.sleep").body("1").within(Duration::from_millis(200)).failure().await
    };
    let (_, failure) = tokio::join!(long, short);
    assert_eq!((failure.status, failure.kind.as_str()), (503, "busy"));
    assert_eq!(failure.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(
        failure.message,
        "service `my.sleep` is called 1 times already, which is as many as may be at one time"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_given_up_counts_for_its_services_concurrency_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    // Workers may have a user of their own.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), everybody).unwrap();
    let source = format!(
        r#"
import os, time
from zato.server.service import Service

class Gate(Service):
    name = "my.gate"
    def handle(self):
        open("{dir}/begun-" + self.cid, "w").close()
        while not os.path.exists("{dir}/open"):
            time.sleep(0.005)
        self.response.payload = "through"
"#,
        dir = dir.path().display()
    );
    let writable = dir.path().to_owned();
    let bench =
        Bench::start_with(&[("gate", &source)], |config| config.worker_writable.push(writable))
            .await;
    let spec = json!({"module": "gate", "class": "Gate", "max_concurrency": 2});
    bench.put(Kind::Service, "my.gate", spec);
    bench.deployed().await;
    let begun = || {
        let names = std::fs::read_dir(dir.path()).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with("begun-")).count()
    };
    let both_begun = async {
        let limit = Instant::now() + Duration::from_secs(30);
        while begun() < 2 {
            assert!(Instant::now() < limit, "only {} have begun", begun());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Their callers go away once they have begun, in both workers.
    tokio::select! {
        _ = bench.call("my.gate").send() => panic!("the gate is closed"),
        _ = bench.call("my.gate").send() => panic!("the gate is closed"),
        () = both_begun => (),
    }
    let failure = bench.call("my.gate").within(Duration::from_millis(200)).failure().await;
    assert_eq!((failure.status, failure.kind.as_str()), (503, "busy"), "{}", failure.message);
    assert_eq!(begun(), 2);
    std::fs::write(dir.path().join("open"), "").unwrap();
    assert_eq!(bench.call("my.gate").text().await, "through");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_and_a_wait_in_it_that_is_too_long_are_503_with_retry_after() {
    let bench = Bench::start_with(&[("my", SERVICES)], |config| {
        config.workers = 1;
        config.worker_threads = 2;
        config.worker_in_flight = 2;
        config.queue = 3;
    })
    .await;
    let long = (0..2).map(|_| bench.call("my.sleep").body("1.2").text());
    let waiting = async {
        bench
            .until("a full worker", |status| {
                status.workers.iter().any(|worker| worker.in_flight == 2)
            })
            .await;
        let waiting =
            (0..3).map(|_| bench.call("my.sleep").within(Duration::from_millis(300)).failure());
        let one_more = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            bench.call("my.sleep").failure().await
        };
        tokio::join!(futures_util::future::join_all(waiting), one_more)
    };
    let (done, (waited, turned_away)) = tokio::join!(futures_util::future::join_all(long), waiting);
    assert_eq!(done, ["slept", "slept"]);
    for failure in waited {
        assert_eq!((failure.status, failure.kind.as_str()), (503, "busy"));
        assert_eq!(failure.retry_after, Some(Duration::from_secs(1)));
        assert_eq!(failure.message, "service `my.sleep` found no free worker within 300 ms");
    }
    assert_eq!((turned_away.status, turned_away.retry_after), (503, Some(Duration::from_secs(1))));
    assert_eq!(
        turned_away.message,
        "service `my.sleep` cannot be called now: 3 calls wait for a worker already, which is as many as may"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interactive_calls_go_before_batch_calls_which_get_on_all_the_same() {
    let bench = Bench::start_with(&[("my", SERVICES)], |config| {
        config.workers = 1;
        config.worker_threads = 1;
        config.worker_in_flight = 1;
    })
    .await;
    let order = Mutex::new(String::new());
    let run = async |priority: Priority, letter: char| {
        let call = bench.call("my.sleep").body("0.01").priority(priority);
        assert_eq!(call.text().await, "slept");
        order.lock().unwrap().push(letter);
    };
    let behind = async {
        let is_full =
            |status: &PoolStatus| status.workers.iter().any(|worker| worker.in_flight == 1);
        bench.until("a full worker", is_full).await;
        let batch = (0..2).map(|_| run(Priority::Batch, 'b'));
        let interactive = (0..12).map(|_| run(Priority::Interactive, 'i'));
        // In this order they are begun, and so wait.
        let (batch, interactive) =
            (futures_util::future::join_all(batch), futures_util::future::join_all(interactive));
        tokio::join!(batch, interactive)
    };
    tokio::join!(bench.call("my.sleep").body("0.7").text(), behind);
    assert_eq!(*order.lock().unwrap(), "iiiiiiiibiiiib");
    bench.stop().await;
}

#[tokio::test]
async fn batch_calls_leave_room_for_interactive_ones_in_workers_and_in_the_queue() {
    let bench = Bench::start_with(&[("my", SERVICES)], |config| {
        config.workers = 1;
        config.worker_threads = 4;
        config.worker_in_flight = 4;
        config.queue = 4;
    })
    .await;
    let batch = |body: &str| bench.call("my.sleep").body(body.to_owned()).priority(Priority::Batch);
    let long = futures_util::future::join_all((0..4).map(|_| batch("1.0").text()));
    let behind = async {
        let is_busy =
            |status: &PoolStatus| status.workers.iter().any(|worker| worker.in_flight == 2);
        bench.until("a busy worker", is_busy).await;
        // Two wait, which is half of the queue.
        let refused = batch("0").failure().await;
        let started = Instant::now();
        assert_eq!(bench.call("my.sleep").body("0").text().await, "slept");
        (refused, started.elapsed())
    };
    let (done, (refused, took)) = tokio::join!(long, behind);
    assert_eq!((done.len(), took < Duration::from_millis(700)), (4, true), "{took:?}");
    assert_eq!((refused.status, refused.kind.as_str()), (503, "busy"));
    bench.stop().await;
}

#[tokio::test]
async fn calls_wait_for_the_first_workers() {
    let bench = Bench::start_empty(|_| {});
    let early = bench.call("echo").within(Duration::from_secs(20)).body("early").text();
    let deployed = async {
        tokio::task::yield_now().await;
        bench.put_module("echo", ECHO);
        bench.deployed().await;
    };
    let (answer, ()) = tokio::join!(early, deployed);
    assert_eq!(answer, "early");
    bench.stop().await;
}

#[tokio::test]
async fn user_config_is_there_and_changes_without_new_workers() {
    let bench = Bench::start_empty(|_| {});
    bench.put_module("my", SERVICES);
    bench.put(Kind::UserConfig, "shop", json!({"sections": {"prices": {"euro": "12"}}}));
    bench.deployed().await;
    assert_eq!(bench.call("my.settings").text().await, "12");
    let before = bench.until_ready("default", 2).await;
    bench.put(Kind::UserConfig, "shop", json!({"sections": {"prices": {"euro": "13"}}}));
    bench.deployed().await;
    // CONFIG goes before every call that is sent after the revision is served.
    for _ in 0..4 {
        assert_eq!(bench.call("my.settings").text().await, "13");
    }
    assert_eq!(before[0].pid, bench.until_ready("default", 2).await[0].pid);
    bench.stop().await;
}

#[tokio::test]
async fn statistics_are_kept_for_each_service() {
    let bench = bench().await;
    for _ in 0..3 {
        bench.call("echo").body("x").text().await;
        bench.call("my.raise").failure().await;
    }
    let status = bench.status();
    let figures = |name: &str| {
        let service = status.services.iter().find(|service| service.name == name).unwrap();
        (service.calls, service.failures, service.is_active)
    };
    assert_eq!((figures("echo"), figures("my.raise")), ((3, 0, true), (3, 3, true)));
    let names: Vec<String> =
        bench.pool.services().into_iter().map(|service| service.name).collect();
    assert_eq!(
        names,
        ["echo", "my.answer", "my.async-sleep", "my.length", "my.raise", "my.settings", "my.sleep"]
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_has_answered_its_number_of_calls_is_replaced_and_no_call_fails() {
    let modules = [("echo", ECHO)];
    let bench = Bench::start_with(&modules, |config| config.worker_max_requests = 100).await;
    let before = bench.until_ready("default", 2).await;
    let load = Load::start(&bench, 4);
    let fresh = |status: &PoolStatus| {
        status.workers.iter().all(|now| before.iter().all(|old| old.pid != now.pid))
    };
    bench.until("all workers are new", fresh).await;
    load.end_all_good().await;
    bench.stop().await;
}
