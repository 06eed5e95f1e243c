//! Certificates of clients, with nginx as the proxy that ends TLS in front of the balancer and curl as the client.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

mod peer;

use std::path::Path;
use std::process::Command;

use artest::Node;
use peer::{Nginx, make_certificates};
use serde_json::{Value, json};

const SERVICE: &str = "\
from zato.server.service import Service

class Who(Service):
    name = 'gates.who'
    def handle(self):
        security = self.channel.security
        self.response.payload = {'name': security.name, 'type': security.type}
";

/// Asks through nginx, with a certificate or without.
fn ask(dir: &Path, url: &str, certificate: Option<&str>, more: &[&str]) -> (u16, String) {
    let mut command = Command::new(artest::tool("curl", "curl"));
    command.args(["-s", "--noproxy", "*", "--cacert", "ca.crt", "-w", "\n%{http_code}", url]);
    if let Some(name) = certificate {
        command.args(["--cert", &format!("{name}.crt"), "--key", &format!("{name}.key")]);
    }
    let output = command.args(more).current_dir(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_channel_lets_in_the_certificates_that_fit_and_believes_only_its_proxy() {
    let dir = artest::temp_dir();
    let dir = dir.path();
    make_certificates(dir);
    let pem = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let node = Node::builder()
        .config(
            "[arsrv]\nclient_certificates = true\n[arldb]\ntrusted_proxies = [\"127.0.0.0/8\"]\n",
        )
        .start()
        .await;
    node.deploy("gates.py", SERVICE).await;
    let definitions = [
        ("by-authority", json!({"ca_pem": pem("ca.crt")})),
        (
            "by-subject",
            json!({"ca_pem": pem("ca.crt"), "subject": {"CN": "arint-client", "O": "ACME"}}),
        ),
        ("by-other-subject", json!({"ca_pem": pem("ca.crt"), "subject": {"CN": "arint-server"}})),
        ("by-name", json!({"ca_pem": pem("ca.crt"), "san": "crm.example.com"})),
        ("by-other-name", json!({"ca_pem": pem("ca.crt"), "san": "erp.example.com"})),
    ];
    for (name, mut spec) in definitions {
        spec["type"] = json!("tls_channel");
        node.put("Security", name, spec).await;
        let channel = json!({"url_path": format!("/{name}"), "service": "gates.who",
                             "data_format": "json", "security": [name]});
        node.put("Channel", name, channel).await;
    }
    node.settled().await;
    // optional_no_ca: nginx proves that the client has the key, the core says whose it may be.
    let nginx = Nginx::start(
        dir,
        &format!(
            "ssl_verify_client optional_no_ca; location / {{ proxy_pass {}; \
             proxy_set_header X-Forwarded-Client-Cert 'Cert=\"$ssl_client_escaped_cert\"'; }}",
            node.channels
        ),
    );
    let through = |path: &str, certificate, more: &[&str]| {
        ask(dir, &format!("{}/{path}", nginx.url), certificate, more)
    };
    for (path, status) in [
        ("by-authority", 200),
        ("by-subject", 200),
        ("by-other-subject", 401),
        ("by-name", 200),
        ("by-other-name", 401),
    ] {
        let (found, body) = through(path, Some("client"), &[]);
        assert_eq!(found, status, "{path}: {body}");
        if status == 200 {
            let who: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(who, json!({"name": path, "type": "tls_channel_sec"}));
        }
    }
    assert_eq!(through("by-authority", None, &[]).0, 401);
    assert_eq!(through("by-authority", Some("stranger"), &[]).0, 401);
    // What a client says itself, the proxy replaces.
    let escaped = pem("client.crt").replace('\n', "%0A").replace('+', "%2B");
    let forged = format!("X-Forwarded-Client-Cert: Cert=\"{escaped}\"");
    assert_eq!(through("by-authority", None, &["-H", &forged]).0, 401);

    // A fingerprint is enough, also of a certificate that nobody signed.
    let openssl = Command::new("openssl")
        .args(["x509", "-in", "stranger.crt", "-noout", "-fingerprint", "-sha256"])
        .current_dir(dir)
        .output()
        .unwrap();
    let fingerprint = String::from_utf8(openssl.stdout).unwrap();
    let fingerprint = fingerprint.trim().rsplit_once('=').unwrap().1;
    let spec = json!({"type": "tls_channel", "fingerprint": fingerprint});
    node.put("Security", "by-authority", spec).await;
    node.settled().await;
    assert_eq!(through("by-authority", Some("stranger"), &[]).0, 200);
    assert_eq!(through("by-authority", Some("client"), &[]).0, 401);
}

#[tokio::test]
async fn a_certificate_in_a_header_opens_nothing_where_no_proxy_is_trusted() {
    let dir = artest::temp_dir();
    let dir = dir.path();
    make_certificates(dir);
    let pem = std::fs::read_to_string(dir.join("client.crt")).unwrap();
    let authority = std::fs::read_to_string(dir.join("ca.crt")).unwrap();
    let escaped = pem.replace('\n', "%0A").replace('+', "%2B");
    for config in
        ["[arsrv]\nclient_certificates = true\n", "[arldb]\ntrusted_proxies = [\"127.0.0.0/8\"]\n"]
    {
        let node = Node::builder().config(config).start().await;
        node.deploy("gates.py", SERVICE).await;
        node.put("Security", "own", json!({"type": "tls_channel", "ca_pem": authority})).await;
        let channel = json!({"url_path": "/who", "service": "gates.who", "security": ["own"]});
        node.put("Channel", "who", channel).await;
        node.settled().await;
        let request = node.http().get(format!("{}/who", node.channels));
        let request = request.header("X-Forwarded-Client-Cert", format!("Cert=\"{escaped}\""));
        assert_eq!(request.send().await.unwrap().status().as_u16(), 401, "{config}");
    }
}
