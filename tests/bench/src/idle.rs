//! Resident memory of the whole idle node.

use std::time::Duration;

use artest::Node;

pub(crate) async fn run() {
    println!("the whole node idle, two workers");
    let node = Node::builder().arg("--workers").arg("2").start().await;
    node.deploy("bench_services.py", include_str!("../peers/services.py")).await;
    node.settled().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut processes = tree(node.pid());
    processes.sort_by_key(|process| std::cmp::Reverse(process.resident_kib));
    for process in &processes {
        println!("  {:<42} {:>6.1} MB", process.name, megabytes(process.resident_kib));
    }
    let total: u64 = processes.iter().map(|process| process.resident_kib).sum();
    println!(
        "  {:<42} {:>6.1} MB resident ({} processes)\n",
        "all",
        megabytes(total),
        processes.len()
    );
}

struct Process {
    name: String,
    resident_kib: u64,
}

fn megabytes(kib: u64) -> f64 {
    // A process of 2^52 KiB is not to be met.
    #[expect(clippy::cast_precision_loss, reason = "sizes of processes are far below 2^52 KiB")]
    let kib = kib as f64;
    kib * 1024.0 / 1e6
}

/// A process and all below it.
fn tree(root: u32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut pids = vec![root];
    while let Some(pid) = pids.pop() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident
            .and_then(|text| text.split_whitespace().next())
            .and_then(|kib| kib.parse().ok());
        let words: Vec<&str> = line.split('\0').collect();
        let file = words.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let name = format!(
            "{file} {}",
            words.iter().skip(1).take(3).copied().collect::<Vec<_>>().join(" ")
        );
        if let Some(resident_kib) = resident {
            found.push(Process { name: name.chars().take(42).collect(), resident_kib });
        }
        let threads =
            std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children =
                std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}
