//! The doors with real workers between them: a request in, Python, a call out.

use std::time::Duration;

use arapi::names::Kind;
use serde_json::{Value, json};

use super::peer::{Act, Peer, response};
use super::{Setting, Stage};

const MODULE: &str = r#"
from zato.server.service import Service
from zato.common.exception import BadRequest

class GetPhoto(Service):
    name = 'photos.get'
    def handle(self):
        crm = self.rest['crm']
        answer = crm.get({'id': self.request.http.params.id, 'size': self.request.http.GET.size})
        self.response.headers['X-Photo'] = self.request.http.params.id
        self.response.payload = {'status': answer.status_code, 'data': answer.data}

class Sum(Service):
    name = 'photos.sum'
    def handle_POST(self):
        self.response.status_code = 201
        self.response.payload = {'sum': sum(self.request.payload)}

class Fail(Service):
    name = 'photos.fail'
    def handle(self):
        self.response.headers['X-Step'] = '1'
        raise ValueError('no', 7)

class Refuse(Service):
    name = 'photos.refuse'
    def handle(self):
        raise BadRequest(self.cid, 'the size is missing', needs_msg=True)

class Wait(Service):
    name = 'photos.wait'
    def handle(self):
        self.response.payload = self.rest['crm'].get({'id': 'slow', 'size': '1'}).text
"#;

async fn stage(host: &str) -> Stage {
    let module = json!({
        "file_name": "photos.py", "source": MODULE, "sha256": "", "version": 1, "origin": "api",
    });
    let mut setting = Setting::new().object(Kind::Module, "photos", module).object(
        Kind::Outgoing,
        "crm",
        json!({"type": "rest", "host": host, "url_path": "/p/{id}", "ping_interval_s": 0}),
    );
    for (name, class, path) in [
        ("get", "GetPhoto", "/photos/{id}"),
        ("sum", "Sum", "/sum"),
        ("fail", "Fail", "/fail"),
        ("refuse", "Refuse", "/refuse"),
        ("wait", "Wait", "/wait"),
    ] {
        let service = format!("photos.{name}");
        setting = setting
            .object(Kind::Service, &service, json!({"module": "photos", "class": class}))
            .channel(name, path, &service, json!({"data_format": "json"}));
    }
    setting.start_real().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_service_answers_through_a_channel_and_calls_another_system() {
    let peer = Peer::start(|_, _| {
        Act::Say(response("200 OK", "content-type: application/json\r\n", "{\"big\": true}"))
    })
    .await;
    let stage = stage(&peer.url()).await;
    let got = stage.get("/photos/a%2Fb?size=2").await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.json(), json!({"status": 200, "data": {"big": true}}));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header("x-photo"), Some("a/b"));
    let seen = peer.seen().remove(0).to_ascii_lowercase();
    assert!(seen.starts_with("get /p/a/b?size=2 http/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("x-zato-cid: {}\r\n", got.cid())), "{seen}");
    let got = stage.post("/sum", "[1, 2, 3]").await;
    assert_eq!((got.status.as_u16(), got.json()), (201, json!({"sum": 6})));
    stage.core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_python_service_raises_becomes_the_answer_of_3_2() {
    let stage = stage("http://127.0.0.1:1").await;
    let check = async |path: &str, status: u16, details: Value| {
        let got = stage.get(path).await;
        let mut expected = json!({"result": "Error", "cid": got.cid(), "details": details});
        if details.is_null() {
            expected.as_object_mut().unwrap().remove("details");
        }
        assert_eq!((got.status.as_u16(), got.json()), (status, expected), "{path}");
        got
    };
    let got = check("/fail", 500, json!(["no", 7])).await;
    assert_eq!(got.header("x-step"), Some("1"));
    check("/refuse", 400, json!("the size is missing")).await;
    // `Sum` has no `handle_GET`.
    assert_eq!(stage.get("/sum").await.status, 405);
    // A call out that fails is an exception of the service like any other.
    let got = stage.get("/photos/7?size=1").await;
    assert_eq!(got.status, 500);
    assert!(got.text().contains("Connection refused"), "{}", got.text());
    stage.core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_python_services_wait_for_a_slow_system_at_once() {
    let peer = Peer::start(|_, _| {
        Act::SayAfter(Duration::from_millis(200), response("200 OK", "", "slow"))
    })
    .await;
    let stage = stage(&peer.url()).await;
    stage.get("/wait").await;
    let started = std::time::Instant::now();
    for got in futures_util::future::join_all((0..500).map(|_| stage.get("/wait"))).await {
        assert_eq!((got.status.as_u16(), got.text()), (200, "slow"));
    }
    // The figure is asserted by the bench, on a machine that does nothing else.
    artest::say(&format!("500 Python services that wait 200 ms each: {:?}", started.elapsed()));
    stage.core.stop().await;
}
