//! What the processes of a node hold: memory, open files, threads.

use std::path::Path;

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its process id.
    pub(crate) pid: u32,
    /// The beginning of its command line.
    pub(crate) name: String,
    /// The unit that it is (`arsrv`, …), `worker`, or empty.
    pub(crate) unit: &'static str,
    /// Resident memory.
    pub(crate) resident_kib: u64,
    /// Open files and sockets.
    pub(crate) descriptors: usize,
    /// Threads.
    pub(crate) threads: usize,
}

/// The units of `arint dev`; the key-value store runs in `arclst`.
const UNITS: [&str; 4] = ["arsrv", "arldb", "arclst", "arwadm"];

/// What some processes hold together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    /// How many they are.
    pub(crate) processes: usize,
    /// Resident memory.
    pub(crate) resident_kib: u64,
    /// Open files and sockets.
    pub(crate) descriptors: usize,
    /// Threads.
    pub(crate) threads: usize,
}

/// A process and all below it.
pub(crate) fn tree(root: u32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut pids = vec![root];
    while let Some(pid) = pids.pop() {
        let dir = Path::new("/proc").join(pid.to_string());
        let status = std::fs::read_to_string(dir.join("status")).unwrap_or_default();
        let line = std::fs::read_to_string(dir.join("cmdline")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident
            .and_then(|text| text.split_whitespace().next())
            .and_then(|kib| kib.parse().ok());
        let words: Vec<&str> = line.split('\0').collect();
        let file = words.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let rest = words.iter().skip(1).take(3).copied().collect::<Vec<_>>().join(" ");
        let unit = if words.contains(&"arint.worker") {
            "worker"
        } else {
            UNITS.into_iter().find(|unit| words.contains(unit)).unwrap_or_default()
        };
        let threads: Vec<_> =
            std::fs::read_dir(dir.join("task")).into_iter().flatten().flatten().collect();
        if let Some(resident_kib) = resident {
            found.push(Process {
                pid,
                name: format!("{file} {rest}").chars().take(42).collect(),
                unit,
                resident_kib,
                descriptors: std::fs::read_dir(dir.join("fd")).map_or(0, Iterator::count),
                threads: threads.len(),
            });
        }
        for thread in threads {
            let children =
                std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}

/// What those of a unit hold; of every process with an empty name.
pub(crate) fn held(processes: &[Process], unit: &str) -> Held {
    processes.iter().filter(|process| unit.is_empty() || process.unit == unit).fold(
        Held::default(),
        |held, process| Held {
            processes: held.processes + 1,
            resident_kib: held.resident_kib + process.resident_kib,
            descriptors: held.descriptors + process.descriptors,
            threads: held.threads + process.threads,
        },
    )
}

/// Files below a folder, and their bytes.
pub(crate) fn files(folder: &Path) -> (usize, u64) {
    let mut found = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => {
                let (count, bytes) = files(&entry.path());
                found = (found.0 + count, found.1 + bytes);
            }
            Ok(meta) => found = (found.0 + 1, found.1 + meta.len()),
            // Gone meanwhile.
            Err(_) => {}
        }
    }
    found
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "figures of processes are far below 2^52")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

/// KiB as MB.
pub(crate) fn megabytes(kib: u64) -> f64 {
    number(kib) * 1024.0 / 1e6
}

/// The slope of the straight line with the least squares through some points.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = number(points.len() as u64);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let square: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    both / square
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_of_a_line_is_found_through_noise() {
        let points: Vec<(f64, f64)> = (0..100)
            .map(|at| (f64::from(at), 5.0 + 2.0 * f64::from(at) + f64::from(at % 2)))
            .collect();
        assert!((slope(&points) - 2.0).abs() < 0.01, "{}", slope(&points));
    }
}
