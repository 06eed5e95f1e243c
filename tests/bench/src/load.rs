//! Load by wrk, a program of its own, and what it measured.

use std::process::Command;

/// One run of wrk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests answered per second.
    pub(crate) per_second: f64,
    /// Half were answered within, milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 of 100 were answered within, milliseconds.
    pub(crate) p99_ms: f64,
    /// Answers other than 2xx and 3xx, and broken connections.
    pub(crate) errors: u64,
}

/// Runs wrk with the request of a script in `peers` at 64 connections for `seconds`.
pub(crate) async fn run(script: &'static str, url: &str, seconds: u32) -> Load {
    let url = url.to_owned();
    let running = tokio::task::spawn_blocking(move || wrk(script, &url, seconds));
    running.await.expect("wrk's run does not panic")
}

fn wrk(script: &str, url: &str, seconds: u32) -> Load {
    let wrk = artest::tool("wrk", "wrk");
    let script = artest::repository().join("tests/bench/peers").join(script);
    let run = Command::new(wrk)
        .args(["--threads", "1", "--connections", "64", "--latency", "--timeout", "10s"])
        .arg(format!("--duration={seconds}s"))
        .arg("--script")
        .arg(script)
        .arg(url)
        .output()
        .expect("wrk does not start");
    parse(&String::from_utf8_lossy(&run.stdout)).unwrap_or_else(|| {
        panic!(
            "wrk said something unexpected: {}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        )
    })
}

fn parse(text: &str) -> Option<Load> {
    let after =
        |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    Some(Load {
        per_second: after("Requests/sec:")?.parse().ok()?,
        p50_ms: milliseconds(after("50%")?)?,
        p99_ms: milliseconds(after("99%")?)?,
        errors: after("errors:")?.parse().ok()?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.strip_suffix('s')?, 1000.0)
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_output_of_wrk_is_understood() {
        let text = "  Latency Distribution\n     50%    3.42ms\n     99%  812.00us\n  100 requests in 1s\nRequests/sec:  18234.51\nerrors: 3\n";
        let load = parse(text).unwrap();
        assert_eq!((load.p50_ms, load.errors), (3.42, 3));
        assert!((load.p99_ms - 0.812).abs() < 1e-9);
        assert!(parse("nothing").is_none());
    }
}
