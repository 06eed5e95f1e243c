//! Resident memory of the whole idle node.

use std::time::Duration;

use artest::Node;

use crate::processes::{held, megabytes, tree};

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
    let all = held(&processes, "");
    println!(
        "  {:<42} {:>6.1} MB resident ({} processes)\n",
        "all",
        megabytes(all.resident_kib),
        all.processes
    );
}
