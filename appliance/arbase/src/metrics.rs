//! Figures in the Prometheus text format (version 0.0.4): the page, histograms, and what every process says of itself.
//!
//! Each unit gives its page at `GET /v1/metrics` of its control interface; the admin API puts the pages one behind the
//! other.  That is sound because a family belongs to one component: its name begins with the component's.
//!
//! It keeps no figures but histograms: counters live where things are counted.
//!
//! **Invariant:** a label's value is a name that somebody configured, or one of a few words of ours; never something
//! that came with a request.  [`within`] holds the number of names.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::IntoResponse;

/// The content type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper bounds of the buckets of every histogram, seconds.
pub const BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// [`BOUNDS`] in microseconds.
const BOUNDS_US: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];
/// Most names that one label gets; the rest is added up under [`OTHERS`].
pub const MOST_NAMES: usize = 1000;
/// The name under which what is above [`MOST_NAMES`] is added up.  No object can have it: it ends with a blank.
pub const OTHERS: &str = "others ";

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A page of figures, as it is written.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins a family; its samples follow at once.
    pub fn family(&mut self, name: &str, of: Type, help: &str) {
        // Writing to a String cannot fail.
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {}\n", of.as_str()).ok();
    }

    /// One sample of the family begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        writeln!(self.0, " {value}").ok();
    }

    /// A family with one sample.
    pub fn single(&mut self, name: &str, of: Type, help: &str, value: impl Display) {
        self.family(name, of, help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram in the family begun last.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], seen: &Seen) {
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(seen.buckets) {
            below += count;
            write!(self.0, "{name}_bucket").ok();
            self.labels(labels, Some(&bound.to_string()));
            writeln!(self.0, " {below}").ok();
        }
        write!(self.0, "{name}_bucket").ok();
        self.labels(labels, Some("+Inf"));
        writeln!(self.0, " {}", seen.count()).ok();
        write!(self.0, "{name}_sum").ok();
        self.labels(labels, None);
        writeln!(self.0, " {}", seen.seconds()).ok();
        write!(self.0, "{name}_count").ok();
        self.labels(labels, None);
        writeln!(self.0, " {}", seen.count()).ok();
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<&str>) {
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            write!(self.0, "{before}{name}=\"").ok();
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
            before = ',';
        }
        if before == ',' {
            self.0.push('}');
        }
    }

    /// Puts another page behind this one.
    pub fn append(&mut self, other: &str) {
        self.0.push_str(other);
        if !other.is_empty() && !other.ends_with('\n') {
            self.0.push('\n');
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> axum::response::Response {
        ([(http::header::CONTENT_TYPE, CONTENT_TYPE)], self.0).into_response()
    }
}

/// Durations, counted in buckets.  Noting one costs three additions.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    above: AtomicU64,
    sum_us: AtomicU64,
}

/// What a [`Histogram`] says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Those up to each bound and above the one before.
    pub buckets: [u64; BOUNDS.len()],
    /// Those above the last bound.
    pub above: u64,
    /// All of them together, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Notes one.
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets.get(at).unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What it says now.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen {
            above: self.above.load(Ordering::Relaxed),
            sum_us: self.sum_us.load(Ordering::Relaxed),
            ..Seen::default()
        };
        for (to, from) in seen.buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        seen
    }
}

impl Seen {
    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum::<u64>() + self.above
    }

    /// All of them together, seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_micros(self.sum_us).as_secs_f64()
    }

    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(other.buckets) {
            *to += from;
        }
        self.above += other.above;
        self.sum_us += other.sum_us;
    }
}

/// The first [`MOST_NAMES`] of the figures, by name, and the rest added up under [`OTHERS`].
pub fn within<T>(all: Vec<(String, T)>, add: impl Fn(&mut T, T)) -> Vec<(String, T)> {
    let mut kept: Vec<(String, T)> = Vec::with_capacity(all.len().min(MOST_NAMES + 1));
    for (name, figures) in all {
        if kept.len() < MOST_NAMES {
            kept.push((name, figures));
        } else if let Some((_, others)) = kept.get_mut(MOST_NAMES) {
            add(others, figures);
        } else {
            kept.push((OTHERS.to_owned(), figures));
        }
    }
    kept
}

type Writer = Arc<dyn Fn(&mut Page) + Send + Sync>;

/// Components that live in the process of a unit without a control interface of their own.
static GUESTS: Mutex<BTreeMap<&str, Writer>> = Mutex::new(BTreeMap::new());

/// Adds the figures of a component to the page of this process.
pub fn add_component(name: &'static str, write: impl Fn(&mut Page) + Send + Sync + 'static) {
    GUESTS.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(write));
}

/// `GET /v1/metrics`: what `write` says, and what the process of `unit` says of itself.
pub fn router<S, F, W>(unit: &'static str, write: W) -> axum::Router<S>
where
    S: Clone + Send + Sync + 'static,
    F: Future<Output = Page> + Send,
    W: Fn() -> F + Clone + Send + Sync + 'static,
{
    let show = async move || {
        let mut page = write().await;
        whole(unit, &mut page);
        page
    };
    axum::Router::new().route("/v1/metrics", axum::routing::get(show))
}

/// Adds what the process of `unit` says of itself, and its guests.
pub fn whole(unit: &str, page: &mut Page) {
    process(unit, page);
    let guests: Vec<Writer> =
        GUESTS.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    for guest in guests {
        guest(page);
    }
}

/// What `/proc/self` says.  What cannot be read is left out.
fn process(unit: &str, page: &mut Page) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok();
    if let Some(kib) = read("status").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    }) {
        let name = format!("{unit}_process_resident_memory_bytes");
        page.single(&name, Type::Gauge, "Resident memory of the process.", kib * 1024);
    }
    let stat = read("stat");
    // The name in parentheses may have blanks; what follows begins with field 3.
    let fields: Vec<&str> = stat
        .as_deref()
        .and_then(|text| text.rsplit_once(')'))
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u32>().ok());
    // The kernel counts processor time and starts in hundredths of a second (`USER_HZ`) on every Linux.
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let seconds = (f64::from(user) + f64::from(system)) / 100.0;
        let name = format!("{unit}_process_cpu_seconds_total");
        page.single(&name, Type::Counter, "Processor time of the process.", seconds);
    }
    if let Some(threads) = field(20) {
        let name = format!("{unit}_process_threads");
        page.single(&name, Type::Gauge, "Threads of the process.", threads);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let name = format!("{unit}_process_open_fds");
        page.single(&name, Type::Gauge, "Open file descriptors of the process.", open.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_duration_once_and_in_its_bucket() {
        let histogram = Histogram::default();
        for us in [0, 1000, 1001, 40_000, 30_000_000, 30_000_001, u64::MAX / 1_000_000] {
            histogram.note(Duration::from_micros(us));
        }
        let seen = histogram.seen();
        assert_eq!(seen.count(), 7);
        assert_eq!((seen.buckets[0], seen.buckets[1], seen.buckets[5]), (2, 1, 1));
        assert_eq!((seen.buckets[13], seen.above), (1, 2));
        let mut page = Page::default();
        page.histogram("t_seconds", &[("channel", "a")], &seen);
        let text = page.into_text();
        assert!(text.contains("t_seconds_bucket{channel=\"a\",le=\"0.001\"} 2\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{channel=\"a\",le=\"+Inf\"} 7\n"), "{text}");
        assert!(text.contains("t_seconds_count{channel=\"a\"} 7\n"), "{text}");
        assert_eq!(text.lines().count(), BOUNDS.len() + 3);
    }

    #[test]
    fn the_bounds_are_the_same_in_both_units() {
        for (seconds, us) in BOUNDS.iter().zip(BOUNDS_US) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_micros(us));
        }
    }

    #[test]
    fn names_keep_to_the_form_of_the_format() {
        let mut page = Page::default();
        page.sample("m", &[("name", "a\"b\\c\nd"), ("x", "y")], 1);
        assert_eq!(page.into_text(), "m{name=\"a\\\"b\\\\c\\nd\",x=\"y\"} 1\n");
    }

    #[test]
    fn names_above_the_limit_are_added_up() {
        let all = (0..MOST_NAMES + 5).map(|at| (at.to_string(), 1)).collect();
        let kept = within(all, |sum: &mut i32, more| *sum += more);
        assert_eq!(kept.len(), MOST_NAMES + 1);
        assert_eq!(kept.last().unwrap(), &(OTHERS.to_owned(), 5));
        assert!(arapi::ObjectName::parse(OTHERS).is_err());
    }

    #[test]
    fn a_process_knows_its_memory_its_time_and_its_files() {
        let mut page = Page::default();
        whole("artest", &mut page);
        let text = page.into_text();
        for name in ["resident_memory_bytes", "cpu_seconds_total", "threads", "open_fds"] {
            assert!(text.contains(&format!("\nartest_process_{name} ")), "{name}: {text}");
        }
    }
}
