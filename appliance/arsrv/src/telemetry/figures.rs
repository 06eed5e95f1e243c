//! The core's page for Prometheus: channels, services, connections out, workers, queues.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use arbase::metrics::{Page, Seen, Type, within};

use super::outside::OutsideFigures;
use crate::channel::Table;
use crate::outgoing::Outgoing;
use crate::pool::PoolFigures;

/// The words for the classes of a status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Default)]
struct OfChannel {
    classes: [u64; 5],
    limited: u64,
    times: Seen,
}

/// Channels: requests by class of status, those above a limit, durations.
pub fn channels(page: &mut Page, table: &Table) {
    let all = table.all().map(|channel| {
        let counts = &channel.counts;
        let mut classes = [0; 5];
        for (to, from) in classes.iter_mut().zip(&counts.classes) {
            *to = from.load(Ordering::Relaxed);
        }
        let limited = counts.limited.load(Ordering::Relaxed);
        (channel.name.to_string(), OfChannel { classes, limited, times: counts.times.seen() })
    });
    let all = within(all.collect(), |sum: &mut OfChannel, more| {
        sum.classes.iter_mut().zip(more.classes).for_each(|(to, from)| *to += from);
        sum.limited += more.limited;
        sum.times.add(&more.times);
    });
    let name = "arsrv_channel_requests_total";
    page.family(
        name,
        Type::Counter,
        "Requests of a channel by the class of their answer's status.",
    );
    for (channel, figures) in &all {
        for (class, count) in CLASSES.iter().zip(figures.classes) {
            // Classes that never come are left out: most channels have two.
            if count > 0 || *class == "2xx" || *class == "5xx" {
                page.sample(name, &[("channel", channel), ("status", class)], count);
            }
        }
    }
    let name = "arsrv_channel_limited_total";
    page.family(name, Type::Counter, "Requests of a channel above a rate limit.");
    for (channel, figures) in &all {
        page.sample(name, &[("channel", channel)], figures.limited);
    }
    let name = "arsrv_channel_duration_seconds";
    page.family(name, Type::Histogram, "From the request's head to the answer's head.");
    for (channel, figures) in &all {
        page.histogram(name, &[("channel", channel)], &figures.times);
    }
}

/// Services, workers and queues.
pub fn pool(page: &mut Page, figures: PoolFigures) {
    page.single("arsrv_calls_active", Type::Gauge, "Calls of services under way.", figures.active);
    page.single("arsrv_queue_waiting", Type::Gauge, "Calls that wait.", figures.waiting);
    page.single("arsrv_queue_limit", Type::Gauge, "Calls that may wait.", figures.queue);
    let lost = "Workers that died of a fault, or were ended for one.";
    page.single("arsrv_workers_lost_total", Type::Counter, lost, figures.lost);
    let mut states: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut groups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for worker in &figures.workers {
        *states.entry((&worker.group, &worker.state)).or_default() += 1;
        let group = groups.entry(&worker.group).or_default();
        group.0 += worker.memory_bytes;
        group.1 += u64::from(worker.in_flight);
    }
    page.family("arsrv_workers", Type::Gauge, "Workers by group and state.");
    for ((group, state), count) in states {
        page.sample("arsrv_workers", &[("group", group), ("state", state)], count);
    }
    let name = "arsrv_workers_resident_memory_bytes";
    page.family(name, Type::Gauge, "Resident memory of a group's workers together.");
    for (group, (memory, _)) in &groups {
        page.sample(name, &[("group", group)], memory);
    }
    let name = "arsrv_workers_in_flight";
    page.family(name, Type::Gauge, "Calls that a group's workers have now.");
    for (group, (_, in_flight)) in &groups {
        page.sample(name, &[("group", group)], in_flight);
    }
    let services = within(figures.services, |sum: &mut (u64, Seen), more| {
        sum.0 += more.0;
        sum.1.add(&more.1);
    });
    let name = "arsrv_service_errors_total";
    page.family(name, Type::Counter, "Calls of a service that failed (500 and above).");
    for (service, (errors, _)) in &services {
        page.sample(name, &[("service", service)], errors);
    }
    let name = "arsrv_service_duration_seconds";
    page.family(name, Type::Histogram, "Calls of a service, waiting for a worker included.");
    for (service, (_, times)) in &services {
        page.histogram(name, &[("service", service)], times);
    }
}

/// Connections out.
pub fn outgoing(page: &mut Page, outgoing: &Outgoing, figures: &OutsideFigures) {
    let status = outgoing.status();
    let name = "arsrv_outgoing_up";
    page.family(
        name,
        Type::Gauge,
        "1: the last health check passed, 0: it failed; never checked: none.",
    );
    for connection in &status {
        let up = match connection.health.as_str() {
            "up" => 1,
            "down" => 0,
            _ => continue,
        };
        page.sample(name, &[("connection", &connection.name)], up);
    }
    let name = "arsrv_outgoing_circuit_open";
    page.family(name, Type::Gauge, "Whether calls are refused because too many failed.");
    for connection in &status {
        let open = u8::from(connection.circuit == "open");
        page.sample(name, &[("connection", &connection.name)], open);
    }
    let name = "arsrv_outgoing_retries_total";
    page.family(name, Type::Counter, "Attempts beyond the first.");
    for connection in &status {
        page.sample(name, &[("connection", &connection.name)], connection.retries);
    }
    // What is not configured any more goes from the page, so that it stays as small as the configuration.
    figures.keep(|name| status.iter().any(|connection| connection.name == name));
    let all = figures.all().into_iter().map(|(name, figures)| {
        (name, (figures.errors.load(Ordering::Relaxed), figures.times.seen()))
    });
    let all = within(all.collect(), |sum: &mut (u64, Seen), more| {
        sum.0 += more.0;
        sum.1.add(&more.1);
    });
    let name = "arsrv_outgoing_errors_total";
    page.family(name, Type::Counter, "Calls that got no answer, or one of 500 and above.");
    for (connection, (errors, _)) in &all {
        page.sample(name, &[("connection", connection)], errors);
    }
    let name = "arsrv_outgoing_duration_seconds";
    page.family(name, Type::Histogram, "Calls of services on a connection, retries included.");
    for (connection, (_, times)) in &all {
        page.histogram(name, &[("connection", connection)], times);
    }
}
