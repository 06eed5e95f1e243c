//! `/openapi.json` and the page that shows it: what channels tell of themselves, and to whom.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SERVICES: &str = r#"
from zato.server.service import Int, List, Model, Service, dataclass
from zato.common.typing_ import list_, optional

class CreateOrder(Service):
    """Hands an order on.

    The answer has the number under which it is kept.
    """
    name = 'orders.create'

    class SimpleIO:
        input_required = 'customer_id', 'sku'
        input_optional = Int('count'),
        output_required = 'order_id',

    def handle(self):
        self.response.payload.order_id = 1

@dataclass(init=False)
class Line(Model):
    sku: str
    count: optional[int]

@dataclass(init=False)
class Order(Model):
    order_id: int
    lines: list_[Line]

class GetOrder(Service):
    """One order."""
    name = 'orders.get'
    input = 'order_id', '-with_lines'
    output = Order

    def handle(self):
        order = Order()
        order.order_id = self.request.input.order_id
        order.lines = []
        self.response.payload = order

class Verbs(Service):
    """By method."""
    name = 'orders.verbs'

    def handle_GET(self):
        self.response.payload = 'get'

    def handle_DELETE(self):
        self.response.payload = 'deleted'
"#;

/// Checks a document against the OpenAPI 3.1 meta-schema and the rules beyond it.
fn validate(document: &Value) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/validator-env.sh");
    let made = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(made.status.success(), "scripts/validator-env.sh failed");
    let python = String::from_utf8(made.stdout).unwrap();
    let check = "import json, sys; from openapi_spec_validator import OpenAPIV31SpecValidator, validate; \
                 validate(json.load(sys.stdin), cls=OpenAPIV31SpecValidator)";
    let mut child = Command::new(python.trim())
        .args(["-c", check])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{document:#}");
}

async fn set_up(node: &Node) {
    node.deploy("orders.py", SERVICES).await;
    for (name, password) in [("shop", "shop-pw"), ("other", "other-pw")] {
        let spec = json!({"type": "basic", "username": name, "password": {"value": password}});
        node.put("Security", name, spec).await;
    }
    let key = json!({"type": "api_key", "header": "X-Key", "key": {"value": "k"}});
    node.put("Security", "key of the shop", key).await;
    for (name, spec) in [
        (
            "create",
            json!({"url_path": "/orders", "service": "orders.create", "method": "POST", "data_format": "json",
                          "security": ["shop", "key of the shop"], "rate_limit": {"definition": "*=100/m"}}),
        ),
        (
            "get",
            json!({"url_path": "/orders/{order_id}", "service": "orders.get", "data_format": "json",
                       "security": ["shop"]}),
        ),
        (
            "verbs",
            json!({"url_path": "/orders/{id}/state", "service": "orders.verbs", "security": ["other"]}),
        ),
        (
            "ping",
            json!({"url_path": "/hello", "service": "orders.verbs", "method": "GET", "data_format": "xml"}),
        ),
        ("gone", json!({"url_path": "/gone", "service": "not.deployed"})),
        ("off", json!({"url_path": "/off", "service": "orders.get", "is_active": false})),
    ] {
        node.put("Channel", name, spec).await;
    }
    node.settled().await;
}

fn paths(document: &Value) -> Vec<&str> {
    document["paths"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn callers_read_of_the_channels_that_they_may_use_and_strangers_of_none() {
    let node = Node::start().await;
    set_up(&node).await;
    let answer = node.request(Method::GET, "/openapi.json", "").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers()["www-authenticate"], "Basic realm=\"ARINT\", charset=\"UTF-8\"");
    let told = answer.text().await.unwrap();
    assert!(!told.contains("orders") && !told.contains("shop"), "{told}");
    let url = format!("{}/openapi.json", node.channels);
    let wrong = node.http().get(&url).basic_auth("shop", Some("x")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let answer = node.http().get(&url).basic_auth("shop", Some("shop-pw")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let document: Value = answer.json().await.unwrap();
    validate(&document);
    assert_eq!(paths(&document), ["/hello", "/orders", "/orders/{order_id}"]);
    let create = &document["paths"]["/orders"]["post"];
    assert_eq!(create["operationId"], "create");
    assert_eq!(create["summary"], "Hands an order on.");
    assert_eq!(create["description"], "The answer has the number under which it is kept.");
    assert_eq!(create["security"], json!([{"shop": []}, {"key_of_the_shop": []}]));
    assert_eq!(
        create["requestBody"],
        json!({"required": true, "content": {"application/json": {"schema": {
            "type": "object", "required": ["customer_id", "sku"],
            "properties": {"customer_id": {"type": "integer"}, "sku": {"type": "string"}, "count": {"type": "integer"}},
        }}}})
    );
    assert_eq!(
        create["responses"]["200"]["content"]["application/json"]["schema"],
        json!({"type": "object", "properties": {"response": {
            "type": "object", "properties": {"order_id": {"type": "integer"}}, "required": ["order_id"]}}})
    );
    assert!(create["responses"]["429"].is_object() && create["responses"]["401"].is_object());
    assert_eq!(
        document["components"]["securitySchemes"],
        json!({"shop": {"type": "http", "scheme": "basic"},
               "key_of_the_shop": {"type": "apiKey", "in": "header", "name": "x-key"}})
    );
    // A Model, a parameter of the path, and one of the query (the name says what it is).
    let get = &document["paths"]["/orders/{order_id}"];
    let operation = &get.as_object().unwrap().values().next().unwrap();
    let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(
        schema["properties"]["lines"]["items"]["properties"]["sku"],
        json!({"type": "string"})
    );
    assert_eq!(
        operation["parameters"][0],
        json!({"name": "order_id", "in": "path", "required": true, "schema": {"type": "integer"}})
    );
    // Another caller, by its methods.
    let answer = node.http().get(&url).basic_auth("other", Some("other-pw")).send().await.unwrap();
    let document: Value = answer.json().await.unwrap();
    validate(&document);
    assert_eq!(paths(&document), ["/hello", "/orders/{id}/state"]);
    let verbs: Vec<&String> =
        document["paths"]["/orders/{id}/state"].as_object().unwrap().keys().collect();
    assert_eq!(verbs, ["delete", "get"]);
    // The page is for everybody, and holds nothing of the box.
    let page = node.request(Method::GET, "/openapi", "").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(
        page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'")
    );
    let text = page.text().await.unwrap();
    assert!(text.contains("/openapi/page.js") && !text.contains("orders"), "{text}");
    for file in ["/openapi/page.js", "/openapi/page.css"] {
        assert_eq!(node.request(Method::GET, file, "").await.status(), StatusCode::OK);
    }
    // A channel of this path takes it over.
    let spec = json!({"url_path": "/openapi", "service": "orders.verbs", "method": "GET"});
    node.put("Channel", "mine", spec).await;
    node.settled().await;
    assert_eq!(node.request(Method::GET, "/openapi", "").await.text().await.unwrap(), "get");
}

#[tokio::test]
async fn the_admin_may_let_everybody_read_or_nobody() {
    let node = Node::builder().config("[arsrv]\nopenapi = \"public\"\n").start().await;
    set_up(&node).await;
    let document: Value =
        node.request(Method::GET, "/openapi.json", "").await.json().await.unwrap();
    validate(&document);
    assert_eq!(paths(&document), ["/hello", "/orders", "/orders/{id}/state", "/orders/{order_id}"]);
    drop(node);
    let node = Node::builder().config("[arsrv]\nopenapi = \"off\"\n").start().await;
    for path in ["/openapi.json", "/openapi"] {
        assert_eq!(node.request(Method::GET, path, "").await.status(), StatusCode::NOT_FOUND);
    }
}
