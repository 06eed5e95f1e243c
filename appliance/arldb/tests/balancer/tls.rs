//! TLS and HTTP/2 on the port of the channels, with clients that others have written: curl and openssl.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use arldb::tls::{TlsUse, TlsVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::backend::Backend;
use crate::fixture::Fixture;

/// A balancer that speaks TLS with a certificate of its own.
async fn secure(tls: TlsUse, more: impl FnOnce(&mut arldb::Config)) -> (Fixture, Backend) {
    let dir = tempfile::tempdir().unwrap().keep();
    Fixture::with_core(|config| {
        config.tls = tls;
        config.state_dir = dir;
        more(config);
    })
    .await
}

/// Runs a program to its end.
async fn run(program: &str, arguments: &[&str]) -> Output {
    let running = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap();
    output.unwrap_or_else(|err| panic!("{program} (package {program}): {err}"))
}

/// What curl has to say about an answer, and its body.
async fn curl(fixture: &Fixture, scheme: &str, path: &str, arguments: &[&str]) -> (String, String) {
    let url = format!("{scheme}://{}{path}", fixture.addr);
    let wanted = "\n%{http_version} %{response_code}";
    let base = ["-sS", "-k", "--max-time", "20", "-w", wanted, &url];
    let output = run("curl", &[&base, arguments].concat()).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    match text.rsplit_once('\n') {
        Some((body, seen)) if output.status.success() => (seen.to_owned(), body.to_owned()),
        _ => (error, text),
    }
}

/// What openssl says after a handshake with these arguments.
async fn openssl(fixture: &Fixture, arguments: &[&str]) -> String {
    let addr = fixture.addr.to_string();
    let output = run("openssl", &[&["s_client", "-connect", &addr], arguments].concat()).await;
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A certificate made by openssl; its files.
async fn made(dir: &Path, name: &str) -> (String, String) {
    let file = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
    let (certificate, key) = (file("crt"), file("key"));
    let subject = format!("/CN={name}");
    let arguments = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    let output = run("openssl", &arguments).await;
    assert!(output.status.success(), "{output:?}");
    (certificate, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_speaks_http_1_and_2_with_and_without_tls() {
    let (fixture, _backend) = secure(TlsUse::Optional, |_| {}).await;
    for (scheme, option, version) in [
        ("https", "--http2", "2"),
        ("https", "--http1.1", "1.1"),
        ("http", "--http1.1", "1.1"),
        ("http", "--http2-prior-knowledge", "2"),
    ] {
        let body = format!("sent by {scheme} {option}");
        let forged = "X-Forwarded-Proto: gopher";
        let cookies = ["-H", "Cookie: a=1", "-H", "Cookie: b=2"];
        let arguments = [option, "-d", &body, "-H", forged];
        let (seen, text) =
            curl(&fixture, scheme, "/echo?a=b%20c", &[arguments.as_slice(), &cookies].concat())
                .await;
        assert_eq!(seen, format!("{version} 200"), "{text}");
        assert!(text.starts_with("POST /echo?a=b%20c\n"), "{text}");
        assert!(text.ends_with(&format!("\n\n{body}")), "{text}");
        for line in [
            format!("host: {}", fixture.addr),
            format!("x-forwarded-proto: {scheme}"),
            "x-forwarded-for: 127.0.0.1".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!(version == "2", text.lines().any(|found| found == "cookie: a=1; b=2"), "{text}");
    }
    let (seen, text) = curl(&fixture, "https", "/big?3000000", &["--http2"]).await;
    assert_eq!((seen.as_str(), text.len()), ("2 200", 3_000_000));
    let status = fixture.wait_until(|status| status.connections == 0).await;
    assert_eq!((status.requests, status.refused), (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tls_is_required_others_are_told_so() {
    let (fixture, _backend) = secure(TlsUse::Required, |_| {}).await;
    fixture.client().await.get("/x").await.is_error(400, "this port speaks TLS only; use https");
    let (seen, text) = curl(&fixture, "https", "/x", &[]).await;
    assert_eq!((seen.as_str(), text.as_str()), ("2 200", "ok"));
    // What is neither: it ends, and nobody else notices.
    let mut client = fixture.client().await;
    client.send([0x16, 0x03, 0x01, 0x00, 0x02, 0xff, 0xff]).await;
    client.closes().await;
    assert_eq!(curl(&fixture, "https", "/x", &[]).await.0, "2 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_and_1_3_are_spoken_and_no_less_than_the_config_says() {
    let (both, _backend) = secure(TlsUse::Required, |_| {}).await;
    let (new, _backend) =
        secure(TlsUse::Required, |config| config.tls_min_version = TlsVersion::V13).await;
    let works = |said: &str| said.contains("Cipher is TLS_") || said.contains("Cipher is ECDHE");
    for (fixture, option, expected) in [
        (&both, "-tls1_3", true),
        (&both, "-tls1_2", true),
        (&both, "-tls1_1", false),
        (&new, "-tls1_3", true),
        (&new, "-tls1_2", false),
    ] {
        let said = openssl(fixture, &[option]).await;
        assert_eq!(works(&said), expected, "{option}: {said}");
    }
    let said = openssl(&both, &["-alpn", "h2,http/1.1"]).await;
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    let said = openssl(&both, &["-alpn", "http/1.1"]).await;
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    // Its own certificate has the names of the box.
    let said = openssl(&both, &["-verify_hostname", "localhost"]).await;
    assert!(!said.contains("mismatch"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_certificate_is_told_to_the_core_and_cannot_be_forged() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = made(files.path(), "partner").await;
    let ask = |config: &mut arldb::Config| config.tls_client_certificates = true;
    let (fixture, _backend) = secure(TlsUse::Required, ask).await;
    let forged = "X-Forwarded-Client-Cert: Cert=\"forged\"";
    for version in ["--http2", "--http1.1"] {
        let with = ["--cert", &certificate, "--key", &key, "-H", forged, version];
        let (_, text) = curl(&fixture, "https", "/echo", &with).await;
        let told = text.lines().find_map(|line| line.strip_prefix("x-forwarded-client-cert: "));
        let told = told.unwrap_or_else(|| panic!("{text}"));
        let pem = told.strip_prefix("Cert=\"").and_then(|told| told.strip_suffix('"')).unwrap();
        let pem = percent_decoded(pem);
        assert_eq!(pem, std::fs::read_to_string(&certificate).unwrap());
        let (seen, text) = curl(&fixture, "https", "/echo", &["-H", forged, version]).await;
        assert!(seen.ends_with(" 200") && !text.contains("client-cert"), "{seen}: {text}");
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let pair: Vec<u8> = rest.by_ref().take(2).collect();
                u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_taken_anew_and_no_connection_is_dropped_for_it() {
    let files = tempfile::tempdir().unwrap();
    let (first, first_key) = made(files.path(), "first").await;
    let (second, second_key) = made(files.path(), "second").await;
    let [used, used_key] = ["used.crt", "used.key"].map(|name| files.path().join(name));
    let put = |certificate: &str, key: &str| {
        std::fs::copy(certificate, &used).unwrap();
        std::fs::copy(key, &used_key).unwrap();
    };
    put(&first, &first_key);
    let (fixture, _backend) = secure(TlsUse::Required, |config| {
        config.tls_certificate = Some(used.clone());
        config.tls_key = Some(used_key.clone());
    })
    .await;
    let addr = fixture.addr.to_string();
    let mut open = Command::new("openssl")
        .args(["s_client", "-connect", &addr, "-quiet", "-verify_quiet", "-alpn", "http/1.1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut to = open.stdin.take().unwrap();
    let mut from = open.stdout.take().unwrap();
    let mut ask = async || {
        to.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let read = tokio::time::timeout(Duration::from_secs(20), from.read_buf(&mut answer));
            assert!(read.await.unwrap().unwrap() > 0, "the connection ended");
        }
    };
    ask().await;
    let shown = async |name: &str| {
        let subject = format!("subject=CN = {name}");
        until(async || openssl(&fixture, &[]).await.contains(&subject)).await;
    };
    shown("first").await;
    put(&second, &second_key);
    shown("second").await;
    ask().await;
    // What cannot be used changes nothing.
    put(&first, &second_key);
    tokio::time::sleep(Duration::from_secs(3)).await;
    shown("second").await;
    ask().await;
}

async fn until(state: impl AsyncFn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !state().await {
        assert!(std::time::Instant::now() < end, "the state did not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_is_no_certificate_or_no_key_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("empty"), "").unwrap();
    let (certificate, key) = made(dir.path(), "one").await;
    let (_, other) = made(dir.path(), "other").await;
    let told = |certificate: &Path, key: &Path| {
        let config = arldb::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            runtime_dir: dir.path().to_owned(),
            tls: TlsUse::Optional,
            tls_certificate: Some(certificate.to_owned()),
            tls_key: Some(key.to_owned()),
            ..arldb::Config::default()
        };
        let err = arldb::Server::start(config).unwrap_err();
        std::error::Error::source(&err).unwrap().to_string()
    };
    let (certificate, key, other) = (Path::new(&certificate), Path::new(&key), Path::new(&other));
    let none = path("none");
    assert_eq!(told(&none, key), format!("cannot read `{}`", none.display()));
    let empty = path("empty");
    assert_eq!(told(&empty, key), format!("`{}` holds no certificate", empty.display()));
    assert_eq!(
        told(certificate, &empty),
        format!("`{}` holds no private key in PEM", empty.display())
    );
    assert_eq!(
        told(certificate, other),
        format!(
            "the certificate of `{}` cannot be used with the key of `{}`",
            certificate.display(),
            other.display()
        )
    );
}
