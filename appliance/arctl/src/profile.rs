//! `arctl profile`: where the time of services goes, as text, for flame graphs, or for speedscope.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use arapi::arsrv::{Profile, ProfileFrame, ProfileRequest, ProfileStack};
use serde_json::{Value, json};

use crate::cli::{ProfileArgs, ProfileForm};
use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table};

/// Functions of each service that the text shows.
const MOST_ROWS: usize = 15;

/// `arctl profile`.
pub(crate) async fn profile(api: &Api, args: &ProfileArgs, json: bool) -> Result<(), Failure> {
    let request = ProfileRequest {
        service: args.service.clone(),
        worker: args.worker.clone(),
        seconds: args.seconds,
        rate_hz: args.rate,
    };
    if !json {
        eprintln!("looking for {} s …", args.seconds);
    }
    let profile: Profile = api.post("/v1/profiles", &request).await?;
    for worker in &profile.workers {
        if let Some(error) = &worker.error {
            eprintln!("warning: worker {}: {error}", worker.name);
        }
    }
    let text = match (json, args.format) {
        (true, _) => return out::json(&profile),
        (false, ProfileForm::Text) => shown(&profile),
        (false, ProfileForm::Collapsed) => collapsed(&profile),
        (false, ProfileForm::Speedscope) => format!("{}\n", speedscope(&profile, args.rate)),
    };
    match &args.output {
        Some(path) => write(path, &text),
        None => out::bytes(text.as_bytes()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|source| Failure::Write { path: path.to_owned(), source })?;
    out::line(&format!("written to {}", path.display()))
}

/// How often something was seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    working: u64,
    waiting: u64,
}

impl Seen {
    fn add(&mut self, stack: &ProfileStack) {
        if stack.working {
            self.working += stack.count;
        } else {
            self.waiting += stack.count;
        }
    }

    fn all(self) -> u64 {
        self.working + self.waiting
    }
}

fn frame<'a>(profile: &'a Profile, number: &u32) -> Option<&'a ProfileFrame> {
    profile.frames.get(usize::try_from(*number).ok()?)
}

fn titled(frame: &ProfileFrame) -> String {
    format!("{} ({}:{})", frame.name, frame.file, frame.line)
}

/// For people: per service, which functions were at work, and under which most of the time went.
fn shown(profile: &Profile) -> String {
    let mut text = String::new();
    let (mut samples, mut cost, mut seconds) = (0, 0.0, 0.0);
    for worker in profile.workers.iter().filter(|worker| worker.error.is_none()) {
        samples += worker.samples;
        cost += worker.cost_s;
        seconds += worker.seconds;
    }
    // Writing to a String cannot fail.
    writeln!(
        text,
        "{} workers, {samples} looks, which took {:.1} % of a processor each",
        profile.workers.len(),
        if seconds > 0.0 { 100.0 * cost / seconds } else { 0.0 }
    )
    .ok();
    let services: BTreeSet<&str> =
        profile.stacks.iter().map(|stack| stack.service.as_str()).collect();
    if services.is_empty() {
        text.push_str("no service ran meanwhile\n");
    }
    let mut totals: Vec<(&str, Seen)> = services
        .into_iter()
        .map(|service| {
            let mut seen = Seen::default();
            of(profile, service).for_each(|stack| seen.add(stack));
            (service, seen)
        })
        .collect();
    totals.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.all()));
    for (service, seen) in totals {
        writeln!(
            text,
            "\n{service}: seen {} times, {} % at work, {} % waiting",
            seen.all(),
            percent(seen.working, seen.all()),
            percent(seen.waiting, seen.all())
        )
        .ok();
        text.push_str(&functions(profile, service, seen.all()));
    }
    if profile.others > 0 {
        writeln!(text, "\nseen {} times more, in too many different places", profile.others).ok();
    }
    text
}

fn of<'a>(profile: &'a Profile, service: &'a str) -> impl Iterator<Item = &'a ProfileStack> {
    profile.stacks.iter().filter(move |stack| stack.service == service)
}

fn functions(profile: &Profile, service: &str, all: u64) -> String {
    let (mut own, mut total): (BTreeMap<u32, Seen>, BTreeMap<u32, Seen>) = Default::default();
    let mut lines: BTreeMap<u32, BTreeMap<u32, u64>> = BTreeMap::new();
    for stack in of(profile, service) {
        // One that calls itself counts once.
        for number in stack.frames.iter().collect::<BTreeSet<_>>() {
            total.entry(*number).or_default().add(stack);
        }
        if let Some(last) = stack.frames.last() {
            own.entry(*last).or_default().add(stack);
            *lines.entry(*last).or_default().entry(stack.line).or_default() += stack.count;
        }
    }
    let mut rows: Vec<(u32, Seen, Seen)> = total
        .into_iter()
        .map(|(number, total)| (number, own.get(&number).copied().unwrap_or_default(), total))
        .collect();
    rows.sort_by_key(|(number, own, total)| {
        (std::cmp::Reverse(own.all()), std::cmp::Reverse(total.all()), *number)
    });
    let mut table = Table::new(&["OWN", "WAITING", "TOTAL", "LINE", "FUNCTION"]);
    for (number, own, total) in rows.iter().take(MOST_ROWS) {
        let line =
            lines.get(number).and_then(|lines| lines.iter().max_by_key(|(_, count)| **count));
        table.row([
            format!("{} %", percent(own.all(), all)),
            format!("{} %", percent(own.waiting, all)),
            format!("{} %", percent(total.all(), all)),
            line.map(|(line, _)| line.to_string()).unwrap_or_default(),
            frame(profile, number).map(titled).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn percent(part: u64, all: u64) -> u64 {
    (100 * part + all / 2).checked_div(all).unwrap_or(0)
}

/// One stack a line, as the makers of flame graphs take it: `outermost;…;innermost count`.
fn collapsed(profile: &Profile) -> String {
    let mut text = String::new();
    for stack in &profile.stacks {
        text.push_str(&stack.service.replace(';', ","));
        for frame in stack.frames.iter().filter_map(|number| frame(profile, number)) {
            text.push(';');
            text.push_str(&titled(frame).replace(';', ","));
        }
        if !stack.working {
            text.push_str(";(waiting)");
        }
        // Writing to a String cannot fail.
        writeln!(text, " {}", stack.count).ok();
    }
    text
}

/// A file for <https://www.speedscope.app>, by its published schema; one profile for each service.
fn speedscope(profile: &Profile, rate_hz: u32) -> Value {
    let mut frames: Vec<Value> = profile
        .frames
        .iter()
        .map(|frame| json!({"name": frame.name, "file": frame.file, "line": frame.line}))
        .collect();
    let waiting = frames.len();
    frames.push(json!({"name": "(waiting)"}));
    let weight = 1.0 / f64::from(rate_hz);
    let services: BTreeSet<&str> =
        profile.stacks.iter().map(|stack| stack.service.as_str()).collect();
    let profiles: Vec<Value> = services
        .into_iter()
        .map(|service| {
            let (mut samples, mut weights, mut end) = (Vec::new(), Vec::new(), 0.0);
            for stack in of(profile, service) {
                let mut path: Vec<Value> = stack.frames.iter().map(|at| json!(at)).collect();
                if !stack.working {
                    path.push(json!(waiting));
                }
                // A count of looks is far below where a float loses whole numbers.
                #[expect(clippy::cast_precision_loss, reason = "counts are small")]
                let seconds = stack.count as f64 * weight;
                samples.push(path);
                weights.push(seconds);
                end += seconds;
            }
            json!({
                "type": "sampled", "name": service, "unit": "seconds", "startValue": 0.0,
                "endValue": end, "samples": samples, "weights": weights,
            })
        })
        .collect();
    json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": concat!("arctl ", env!("CARGO_PKG_VERSION")),
        "shared": {"frames": frames},
        "profiles": profiles,
    })
}

#[cfg(test)]
mod tests {
    use arapi::arsrv::ProfiledWorker;

    use super::*;

    fn profile() -> Profile {
        let frame = |name: &str, line| ProfileFrame {
            name: name.to_owned(),
            file: "orders.py".to_owned(),
            line,
        };
        let stack = |working, frames: &[u32], line, count| ProfileStack {
            service: "orders.create".to_owned(),
            working,
            frames: frames.to_vec(),
            line,
            count,
        };
        Profile {
            workers: vec![ProfiledWorker {
                name: "default-1".to_owned(),
                seconds: 10.0,
                samples: 1000,
                cost_s: 0.1,
                ..ProfiledWorker::default()
            }],
            frames: vec![frame("Create.handle", 7), frame("total", 2)],
            stacks: vec![
                stack(true, &[0, 1], 4, 50),
                stack(true, &[0, 1, 1], 3, 20),
                stack(false, &[0], 9, 30),
            ],
            others: 0,
        }
    }

    #[test]
    fn the_text_says_which_functions_were_at_work_and_which_waited() {
        assert_eq!(
            shown(&profile()),
            "1 workers, 1000 looks, which took 1.0 % of a processor each\n\n\
             orders.create: seen 100 times, 70 % at work, 30 % waiting\n\
             OWN   WAITING  TOTAL  LINE  FUNCTION\n\
             70 %  0 %      70 %   4     total (orders.py:2)\n\
             30 %  30 %     100 %  9     Create.handle (orders.py:7)\n"
        );
        assert!(shown(&Profile::default()).ends_with("no service ran meanwhile\n"));
    }

    #[test]
    fn stacks_are_one_a_line_for_flame_graphs() {
        assert_eq!(
            collapsed(&profile()).lines().last(),
            Some("orders.create;Create.handle (orders.py:7);(waiting) 30")
        );
    }

    #[test]
    fn speedscope_gets_samples_and_weights_of_the_same_number() {
        let document = speedscope(&profile(), 100);
        let one = &document["profiles"][0];
        assert_eq!(one["samples"], json!([[0, 1], [0, 1, 1], [0, 2]]));
        assert_eq!(one["weights"], json!([0.5, 0.2, 0.3]));
        assert_eq!(one["endValue"], json!(1.0));
        assert_eq!(document["shared"]["frames"][2]["name"], "(waiting)");
    }
}
