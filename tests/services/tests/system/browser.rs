//! The box's own page in a real browser: claiming, log-in, status, an update, recovery; at the width of a phone and of
//! a desk.  With `ARINT_SCREENSHOTS=<folder>` pictures of the pages are written there (`scripts/screenshots.sh`).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use artest::Node;
use base64::Engine as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stand_in::{StandIn, trial};

/// An element, as the WebDriver protocol names it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const PHONE: (u32, u32) = (390, 844);
const NARROW: (u32, u32) = (360, 740);
const DESK: (u32, u32) = (1280, 800);
const LIMIT: Duration = Duration::from_secs(30);

/// Chromium, driven through chromedriver by the W3C WebDriver protocol.
struct Browser {
    http: reqwest::Client,
    session: String,
    driver: Child,
    address: SocketAddr,
    _profile: Box<dyn std::any::Any>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A driver that is only killed leaves its browser running.
        ask_to_end(self.address).ok();
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}

/// Has the driver end its browser and then itself; returns when it has closed the connection.
fn ask_to_end(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

impl Browser {
    async fn start() -> Self {
        let driver = artest::tool("chromedriver", "chromium-driver");
        let chromium = artest::tool("chromium", "chromium");
        let address = artest::free_addr();
        let driver = Command::new(driver)
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let profile = artest::temp_dir();
        let http = reqwest::Client::builder().no_proxy().timeout(LIMIT * 2).build().unwrap();
        let base = format!("http://{address}");
        artest::wait_for("chromedriver", LIMIT, async || {
            http.get(format!("{base}/status")).send().await.map(drop)
        })
        .await;
        let data_dir = format!("--user-data-dir={}", profile.path().display());
        let args = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            data_dir
        ]);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": args},
        }}});
        let answer = http.post(format!("{base}/session")).json(&wanted).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let id = answer["value"]["sessionId"].as_str();
        let id = id.unwrap_or_else(|| panic!("chromium does not start: {answer}"));
        let session = format!("{base}/session/{id}");
        Self { http, session, driver, address, _profile: Box::new(profile) }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Result<Value, Value> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.session));
        if method == Method::POST {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let is_done = answer.status().is_success();
        let value = answer.json::<Value>().await.unwrap()["value"].take();
        if is_done { Ok(value) } else { Err(value) }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, body).await.unwrap()
    }

    async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    async fn sized(&self, (width, height): (u32, u32)) {
        // The window's own size has a least width; this is what a phone's screen is to the page.
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.post("/goog/cdp/execute", command).await;
    }

    async fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    async fn find(&self, css: &str) -> String {
        let found = self.post("/element", json!({"using": "css selector", "value": css})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn click(&self, css: &str) {
        let element = self.find(css).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    async fn write(&self, css: &str, text: &str) {
        let element = self.find(css).await;
        self.post(&format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// Types into whatever has the focus.
    async fn keys(&self, text: &str) {
        let presses: Vec<Value> = text
            .chars()
            .flat_map(|key| {
                [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": presses}]});
        self.post("/actions", actions).await;
    }

    async fn text(&self, css: &str) -> String {
        let element = self.find(css).await;
        let text = self.call(Method::GET, &format!("/element/{element}/text"), Value::Null).await;
        text.unwrap_or_default().as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element that is shown has this text in it.
    async fn wait_text(&self, css: &str, expected: &str) {
        artest::wait_for(&format!("`{expected}` in `{css}`"), LIMIT, async || {
            let seen = self.text(css).await;
            if seen.contains(expected) { Ok(()) } else { Err(seen) }
        })
        .await;
    }

    async fn wait_shown(&self, css: &str) {
        artest::wait_for(&format!("`{css}` to be shown"), LIMIT, async || {
            let script = format!(
                "const e = document.querySelector({css:?}); return e !== null && e.getClientRects().length > 0"
            );
            if self.script(&script).await == true { Ok(()) } else { Err(self.text("main").await) }
        })
        .await;
    }

    /// At each width nothing is wider than the screen and nothing that can be pressed is too small for a thumb.
    async fn check_layout(&self) {
        for size in [NARROW, PHONE, DESK] {
            self.sized(size).await;
            let wide = self.script("return document.documentElement.scrollWidth").await;
            assert!(
                wide.as_u64().unwrap() <= u64::from(size.0),
                "{size:?}: the page is {wide} wide"
            );
            let small = self
                .script(
                    "return [...document.querySelectorAll('button:not(.plain), input:not([type=checkbox])')]
                     .filter(e => e.getClientRects().length && e.getBoundingClientRect().height < 43)
                     .map(e => e.id || e.textContent)",
                )
                .await;
            assert_eq!(small, json!([]), "{size:?}: too small for a thumb");
        }
    }

    /// Every text stands out from its ground (WCAG AA: 4.5 to 1), light and dark.
    async fn check_contrast(&self) {
        for scheme in ["light", "dark"] {
            let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            self.post(
                "/goog/cdp/execute",
                json!({"cmd": "Emulation.setEmulatedMedia", "params": feature}),
            )
            .await;
            let faint = self.script(CONTRAST).await;
            assert_eq!(faint, json!([]), "{scheme}");
        }
        let none = json!({"features": []});
        self.post(
            "/goog/cdp/execute",
            json!({"cmd": "Emulation.setEmulatedMedia", "params": none}),
        )
        .await;
    }

    /// Whatever the browser complains of, a breach of the page's policy above all.
    async fn check_console(&self) {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let bad: Vec<&Value> = log
            .as_array()
            .unwrap()
            .iter()
            // Answers that refuse are told by the page itself.
            .filter(|entry| entry["source"] != "network")
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }

    async fn picture(&self, name: &str) {
        self.picture_of("body", name).await;
    }

    /// A picture with the top of an element at its top.
    async fn picture_of(&self, css: &str, name: &str) {
        let Some(folder) = std::env::var_os("ARINT_SCREENSHOTS").map(PathBuf::from) else { return };
        for (size, at) in [(PHONE, "phone"), (DESK, "desk")] {
            self.sized(size).await;
            let script = format!(
                "document.activeElement.blur(); document.querySelector({css:?}).scrollIntoView()"
            );
            self.script(&script).await;
            let picture = self.call(Method::GET, "/screenshot", Value::Null).await.unwrap();
            let engine = base64::engine::general_purpose::STANDARD;
            let bytes = engine.decode(picture.as_str().unwrap()).unwrap();
            std::fs::write(folder.join(format!("{name}-{at}.png")), bytes).unwrap();
        }
    }
}

const CONTRAST: &str = "
  const light = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const of = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number); return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b); };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255,255,255)'; };
  return [...document.querySelectorAll('body *')]
    .filter((e) => e.getClientRects().length && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => !e.closest('.hidden-text, .skip, script, button:disabled'))
    .map((e) => { const a = of(getComputedStyle(e).color), b = of(ground(e)); return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.slice(0, 40)]; })
    .filter(([ratio]) => ratio < 4.5);
";

/// A node over TLS, as a box has it.
async fn tls_node() -> (Node, String) {
    let node =
        Node::builder().unclaimed().config("[arwadm]\ntls = \"self-signed\"\n").start().await;
    let url = node.admin.replace("http://", "https://");
    (node, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_claimed_watched_and_updated_in_a_browser() {
    let (node, url) = tls_node().await;
    let aros = StandIn::start(&node.runtime_dir);
    let browser = Browser::start().await;
    browser.sized(PHONE).await;
    browser.open(&url).await;
    browser.wait_shown("#claim").await;
    let shown = browser.text("#fingerprint").await.replace([' ', '\n'], "");
    let kept = std::fs::read_to_string(node.runtime_dir.join("certificate-fingerprint")).unwrap();
    assert_eq!(shown, kept.trim());
    browser.check_layout().await;
    browser.check_contrast().await;
    browser.picture("claim").await;
    // The first field has the focus; the rest goes by keyboard alone.
    browser.sized(PHONE).await;
    browser.script("document.getElementById('claim-code').focus()").await;
    browser.keys("aaaa-aaaa\u{e004}").await;
    browser.keys("\u{e004}short\u{e004}short\u{e007}").await;
    browser.wait_text("#notice", "The password needs 12 characters or more.").await;
    assert_eq!(browser.text("#claim-password-hint").await, "5 of at least 12 characters.");
    browser.keys(" but long enough\u{e004} and different\u{e007}").await;
    browser.wait_text("#notice", "The two passwords differ.").await;
    browser.script("document.getElementById('claim-again').value = ''").await;
    browser.keys("short but long enough\u{e007}").await;
    browser.wait_text("#notice", "The code is wrong; the box shows it on its screen").await;
    browser.script("document.getElementById('claim-code').value = ''").await;
    browser.write("#claim-code", node.code.as_ref().unwrap()).await;
    browser.click("#claim-form button").await;
    browser.wait_text("#notice", "The box is yours.").await;
    browser.wait_text("#health", "All is well").await;
    assert_eq!(browser.text("#who").await, "admin");
    let seen = browser.text("#system").await;
    assert!(seen.contains("a, confirmed by function") && seen.contains("1.4.0"), "{seen}");
    assert!(browser.text("#network").await.contains("2001:db8::7/64"));
    browser.check_layout().await;
    browser.check_contrast().await;
    // No script can read the cookie, and nothing is kept where one could.
    let kept =
        browser.script("return [document.cookie, localStorage.length, sessionStorage.length]");
    assert_eq!(kept.await, json!(["", 0, 0]));
    browser.script("document.getElementById('notice').hidden = true").await;
    browser.picture("status").await;

    // A change of the network on trial is kept.
    trial(&aros, 42);
    browser.wait_text("#trial-text", "is undone in 42 s unless it is kept").await;
    browser.click("#trial-keep").await;
    browser.wait_text("#notice", "The new network is kept.").await;

    // A bundle goes up, in, and is confirmed after the restart.
    let bundle = node.data_dir.join("arint-1.5.0.raucb");
    std::fs::write(&bundle, vec![5u8; 30_000_000]).unwrap();
    browser.write("#bundle", &bundle.display().to_string()).await;
    browser.click("#upload-form button").await;
    browser.wait_shown("#install-form").await;
    assert_eq!(aros.with(|world| world.uploaded), 30_000_000);
    let info = browser.text("#bundle-info").await;
    assert!(info.contains("1.5.0") && info.contains("30 MB"), "{info}");
    browser.check_layout().await;
    browser.click("#install-form button[type=submit]").await;
    browser.wait_text("#progress-text", "Installing: writing `rootfs` to slot b").await;
    browser.picture_of("#update-card", "installing").await;
    browser.wait_text("#installed", "Version 1.5.0 is installed.").await;
    browser.wait_text("#system", "b, confirmed by function").await;

    // A restart is asked for twice, and the dialog can be left with Escape.
    browser.click("[data-ask=reboot]").await;
    browser.wait_text("#ask-title", "Restart arsrv-k7qf2mxd?").await;
    browser.keys("\u{e00c}").await;
    assert_eq!(browser.script("return document.getElementById('ask').open").await, json!(false));
    assert!(!aros.was_asked("POST /v1/power user:admin"));
    let why = "update to 1.6.0 was undone: probe `channel` failed: no answer within 5s";
    aros.with(|world| world.undone = Some(why.to_owned()));
    artest::wait_for("the button to be free again", LIMIT, async || {
        let busy =
            browser.script("return document.querySelector('[data-ask=reboot]').disabled").await;
        if busy == false { Ok(()) } else { Err(busy) }
    })
    .await;
    browser.click("[data-ask=reboot]").await;
    browser.wait_text("#ask-title", "Restart").await;
    // Enter alone cancels: the button that does no harm has the focus.
    browser.keys("\u{e004}\u{e007}").await;
    artest::wait_for("the restart", LIMIT, async || {
        if aros.was_asked("POST /v1/power user:admin") { Ok(()) } else { Err("not asked") }
    })
    .await;
    browser.wait_text("#problems", "Update to 1.6.0 was undone: probe `channel` failed").await;
    browser.wait_text("#health", "Needs attention").await;
    browser.check_contrast().await;
    browser.picture("fell-back").await;

    // The log-in outlives a reload and ends with the log-out.
    browser.open(&url).await;
    browser.wait_shown("#status").await;
    browser.click("#log-out").await;
    browser.wait_shown("#log-in").await;
    browser.write("#log-in-user", "admin").await;
    browser.write("#log-in-password", "wrong password").await;
    browser.click("#log-in-form button").await;
    browser.wait_text("#notice", "User or password is wrong.").await;
    browser.check_layout().await;
    browser.check_console().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recovery_page_says_why_and_resets_the_box_after_its_name_is_typed() {
    let (node, url) = tls_node().await;
    let aros = StandIn::start_in(&node.runtime_dir, "recovery");
    let why =
        "slot b: probe `channel` failed: no answer within 5s; slot a: the root could not be opened";
    aros.with(|world| world.status.boot.fell_back = Some(why.to_owned()));
    let browser = Browser::start().await;
    browser.sized(PHONE).await;
    artest::wait_for("the page of the recovery system", LIMIT, async || {
        browser.open(&url).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let title = browser.text("#log-in-title").await;
        if title == "Recovery system" { Ok(()) } else { Err(title) }
    })
    .await;
    browser.wait_text("#log-in-why", why).await;
    browser.check_layout().await;
    browser.check_contrast().await;
    browser.picture("recovery").await;
    let code = std::fs::read_to_string(node.runtime_dir.join("first-run-code")).unwrap();
    browser.write("#log-in-password", code.trim()).await;
    browser.click("#log-in-form button").await;
    browser.wait_shown("#status").await;
    browser.wait_text("#problems", "This is the recovery system").await;
    browser.wait_shown("#upload-form").await;
    browser.click("#reset").await;
    browser.wait_text("#ask-title", "Reset arsrv-k7qf2mxd to factory state?").await;
    browser.write("#ask-name", "other").await;
    browser.click("#ask-yes").await;
    browser
        .wait_text("#notice", "The host name is `arsrv-k7qf2mxd`, not `other`; nothing was reset.")
        .await;
    browser.click("#reset").await;
    browser.wait_shown("#ask").await;
    browser.write("#ask-name", "arsrv-k7qf2mxd").await;
    browser.click("#ask-yes").await;
    browser.wait_text("#notice", "The keys are destroyed; the box restarts.").await;
    assert!(aros.was_asked("POST /v1/factory-reset user:recovery"));
    browser.check_console().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operating_system_unit_the_page_shows_the_work_and_says_what_is_missing() {
    let node = Node::start().await;
    let browser = Browser::start().await;
    browser.sized(DESK).await;
    browser.open(&node.admin).await;
    browser.wait_shown("#log-in").await;
    browser.write("#log-in-user", "admin").await;
    browser.write("#log-in-password", artest::node::ADMIN_PASSWORD).await;
    browser.click("#log-in-form button").await;
    browser.wait_text("#no-system", "This installation has no operating system unit").await;
    assert!(browser.text("#work").await.contains("Channels"));
    assert_eq!(browser.text("#system").await, "");
    browser.check_console().await;
}

#[test]
fn the_pictures_in_the_guide_are_small() {
    let folder = artest::repository().join("docs/user/admin/pictures");
    let pictures: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(pictures.len() >= 8, "{pictures:?}");
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    for picture in &pictures {
        assert!(size(picture) < 120_000, "{}: {} bytes", picture.display(), size(picture));
    }
}
