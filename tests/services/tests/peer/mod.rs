//! The other side of credentials: makes tokens, signs with PyJWT, and lets in by NTLM as Samba says; and nginx with TLS.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The other side, in a process of its own.
pub(crate) struct Peer {
    child: Child,
    /// Its address.
    pub(crate) url: String,
}

impl Peer {
    /// Starts it.
    pub(crate) fn start() -> Self {
        artest::tool("ntlm_auth", "winbind");
        let script = artest::repository().join("tests/services/services/credentials_peer.py");
        // The system's own Python, which has Debian's PyJWT.
        let python = artest::tool("python3", "python3");
        let system = Path::new("/usr/bin/python3");
        let python = if system.is_file() { system.to_owned() } else { python };
        let mut child = Command::new(python).arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(
            !line.is_empty(),
            "the peer did not start; install the Debian package `python3-jwt`"
        );
        Self { child, url: format!("http://127.0.0.1:{}", line.trim()) }
    }

    /// Says what it is to do, and what it saw.
    pub(crate) async fn control(&self, wish: Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let sent = client.post(format!("{}/control", self.url)).json(&wish).send().await;
        sent.unwrap().json().await.unwrap()
    }

    /// Signs claims with one of its keys.
    pub(crate) async fn sign(&self, kid: &str, claims: &Value) -> String {
        let signed = self.control(json!({"sign": {"kid": kid, "claims": claims}})).await;
        signed.get("token").and_then(Value::as_str).unwrap().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The other side of pass-through channels, in a process of its own.
pub(crate) struct Passing {
    child: Child,
    /// Its address.
    pub(crate) url: String,
}

impl Passing {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let script = artest::repository().join("tests/services/services/passing_peer.py");
        let python = artest::tool("python3", "python3");
        let mut child = Command::new(python).arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, url: format!("http://127.0.0.1:{}", line.trim()) }
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Makes an authority `ca`, and with it `server` for 127.0.0.1 and `client`, each with `.crt` and `.key`; and
/// `stranger`, which signed itself.
pub(crate) fn make_certificates(dir: &Path) {
    let openssl = artest::tool("openssl", "openssl");
    let run = |args: &str| {
        let mut command = Command::new(&openssl);
        let output = command.args(args.split_whitespace()).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for name in ["ca", "stranger"] {
        run(&format!(
            "req -x509 {key} -keyout {name}.key -out {name}.crt -days 2 -subj /CN=arint-{name}"
        ));
    }
    std::fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let client = "extendedKeyUsage=clientAuth\nsubjectAltName=DNS:crm.example.com\n";
    std::fs::write(dir.join("client.ext"), client).unwrap();
    for name in ["server", "client"] {
        run(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /O=ACME/CN=arint-{name}"));
        run(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"
        ));
    }
}

/// nginx that serves TLS with the certificates of [`make_certificates`].
pub(crate) struct Nginx {
    child: Child,
    /// Its address.
    pub(crate) url: String,
}

impl Nginx {
    /// Starts it; `server` is what else stands in its `server` block.
    pub(crate) fn start(dir: &Path, server: &str) -> Self {
        let addr = artest::free_addr();
        let here = dir.display();
        let config = format!(
            "daemon off; pid {here}/pid; error_log {here}/error.log; events {{}}\n\
             http {{ access_log off; client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
             server {{ listen {addr} ssl; ssl_certificate {here}/server.crt; ssl_certificate_key {here}/server.key;\n\
             ssl_client_certificate {here}/ca.crt; {server} }} }}\n"
        );
        std::fs::write(dir.join("nginx.conf"), config).unwrap();
        let child = Command::new(artest::tool("nginx", "nginx-light"))
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("error.log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < until, "nginx does not listen");
            std::thread::yield_now();
        }
        Self { child, url: format!("https://{addr}") }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
