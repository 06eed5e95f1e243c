//! `arctl dev`: deploys what is saved, to a node of one's own, and makes one test call each time.
//!
//! **Invariant:** what the node serves is what was saved last and could be deployed; a refusal changes nothing and is
//! told with file and line.

mod folder;
mod node;
mod trial;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use arapi::arwadm::{DeployAnswer, DeployRequest, TransactionAnswer};
use arapi::logs::LogLine;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{DevArgs, Files as Objects};
use crate::client::{Api, Stream};
use crate::commands::{self, Context};
use crate::config::Profile;
use crate::failure::Failure;
use crate::{out, services, watch};
use folder::{Changes, Files, Places};
use node::Node;
use trial::{Outcome, Trial};

/// The profile under which other terminals reach the node.
const PROFILE: &str = "dev";

/// What happened, for programs; one document a line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Ready { admin: &'a str, channels: Option<&'a str>, profile: Option<&'a str> },
    Deployed { answer: &'a DeployAnswer },
    Applied { answer: &'a TransactionAnswer },
    Refused { reason: &'a str },
    Gone { file: String },
    Called { call: &'a str, outcome: &'a Outcome },
    NotCalled { call: &'a str, reason: &'a str },
    Log { line: &'a LogLine },
}

/// `arctl dev`.
pub(crate) async fn dev(context: &mut Context, args: &DevArgs) -> Result<(), Failure> {
    let trial = Trial::of(args)?;
    let data = trial.as_ref().and_then(Trial::file);
    let places = Places { sources: args.paths.clone(), objects: args.file.clone(), data };
    for path in places.sources.iter().chain(&places.objects) {
        std::fs::metadata(path).map_err(|source| Failure::Read { path: path.clone(), source })?;
    }
    if args.on_box || context.common.server.is_some() {
        let api = context.api()?;
        let bench = Bench { api, channels: None, places, trial, json: context.common.json };
        bench.tell(&Event::Ready { admin: bench.api.server(), channels: None, profile: None })?;
        return bench.work(None).await;
    }
    if !context.common.json {
        out::line("a node of your own is starting …")?;
    }
    let (mut node, api) = Node::start(args.data_dir.as_deref()).await?;
    let profile = Profile {
        server: node.admin.clone(),
        user: Some(node::USER.to_owned()),
        token: Some(node.token.clone()),
        ..Profile::default()
    };
    context.remember_as(PROFILE, &profile)?;
    let channels = Some(node.channels.clone());
    let bench = Bench { api, channels, places, trial, json: context.common.json };
    let ended = match bench.ready(&node) {
        Ok(()) => bench.work(Some(&mut node)).await,
        Err(failure) => Err(failure),
    };
    node.stop().await;
    // Another `arctl dev` may have taken the name since.
    context.forget(PROFILE, &profile)?;
    ended
}

/// Where the work is done.
struct Bench {
    api: Api,
    channels: Option<String>,
    places: Places,
    trial: Option<Trial>,
    json: bool,
}

impl Bench {
    fn ready(&self, node: &Node) -> Result<(), Failure> {
        let (admin, channels) = (node.admin.as_str(), node.channels.as_str());
        self.tell(&Event::Ready { admin, channels: Some(channels), profile: Some(PROFILE) })?;
        if self.json {
            return Ok(());
        }
        out::line(&format!("  channels        {channels}"))?;
        out::line(&format!("  interface page  {channels}/openapi"))?;
        out::line(&format!("  admin API       {admin}"))?;
        out::line(&format!("  its log         {}", node.log.display()))?;
        out::line(&format!("  other commands  arctl --profile {PROFILE} …"))?;
        out::line("saving a file deploys it; Ctrl-C ends the node\n")
    }

    /// Deploys and calls whenever something is saved, until told to stop.
    async fn work(&self, mut node: Option<&mut Node>) -> Result<(), Failure> {
        let mut watch = self.places.watch()?;
        let mut terminated = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
        let mut log = Some(self.api.stream("/v1/logs?follow=true&tail=0").await?);
        // What the node said while it started is of no use to anybody.
        let start = now_ms();
        // The first time everything is new.
        let mut before = Files::default();
        let mut is_due = true;
        loop {
            if is_due {
                let now = self.places.look();
                let changes = now.since(&before);
                if !changes.is_empty() || before == Files::default() {
                    tokio::select! {
                        done = self.carry_out(&now, &changes) => done?,
                        _ = terminated.recv() => return Ok(()),
                        _ = interrupted.recv() => return Ok(()),
                    }
                }
                before = now;
            }
            let died = async {
                match &mut node {
                    Some(node) => node.ended().await,
                    None => std::future::pending().await,
                }
            };
            is_due = tokio::select! {
                () = watch.changed() => true,
                line = next(&mut log) => {
                    match line {
                        Some(line) if line.time_ms < start => {}
                        Some(line) => self.show(&line)?,
                        None => log = None,
                    }
                    false
                }
                failure = died => return Err(failure),
                _ = terminated.recv() => return Ok(()),
                _ = interrupted.recv() => return Ok(()),
            };
        }
    }

    /// One save: what changed is deployed, and if all went well the test call is made.
    async fn carry_out(&self, now: &Files, changes: &Changes) -> Result<(), Failure> {
        for file in &changes.gone {
            let file = file.display().to_string();
            self.tell(&Event::Gone { file: file.clone() })?;
            if !self.json {
                out::line(&format!(
                    "{file} is gone; what was deployed of it goes on (`arctl delete module NAME` ends it)"
                ))?;
            }
        }
        let is_new = if changes.requirements { now.sources() } else { changes.sources.clone() };
        if !is_new.is_empty() && !self.survives(self.deploy(now, &is_new).await)? {
            return Ok(());
        }
        if changes.objects && now.has_objects() && !self.survives(self.apply().await)? {
            return Ok(());
        }
        self.call().await
    }

    async fn deploy(&self, now: &Files, paths: &[PathBuf]) -> Result<(), Failure> {
        let files = services::read_all(paths)?;
        let requirements = match now.requirements() {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|source| Failure::Read { path: path.to_owned(), source })?,
            ),
            None => None,
        };
        let request =
            DeployRequest { files, dry_run: false, requirements, upgrade: false, group: None };
        let answer: DeployAnswer = self
            .api
            .post("/v1/deployments", &request)
            .await
            .map_err(|err| services::refusal(err, false, false))?;
        if self.json {
            return self.tell(&Event::Deployed { answer: &answer });
        }
        services::told(&answer, false, false)
    }

    async fn apply(&self) -> Result<(), Failure> {
        let files = Objects { file: self.places.objects.clone() };
        let (documents, answer) = commands::put_all(&self.api, &files, false).await?;
        if self.json {
            return self.tell(&Event::Applied { answer: &answer });
        }
        commands::tell_applied(&documents, &answer, false)
    }

    async fn call(&self) -> Result<(), Failure> {
        let Some(trial) = &self.trial else { return Ok(()) };
        let call = trial.title();
        match trial.make(&self.api, self.channels.as_deref()).await {
            Ok(outcome) if self.json => {
                self.tell(&Event::Called { call: &call, outcome: &outcome })
            }
            Ok(outcome) => {
                let Outcome { status, elapsed_ms, cid, body, left_out } = outcome;
                out::line(&format!("{call} -> {status} in {elapsed_ms} ms, cid {cid}"))?;
                if !body.is_empty() {
                    out::line(body.trim_end())?;
                }
                if left_out > 0 {
                    out::line(&format!("… and {left_out} bytes more"))
                } else {
                    Ok(())
                }
            }
            Err(failure) => {
                let reason = failure.text().unwrap_or_default();
                if self.json {
                    return self.tell(&Event::NotCalled { call: &call, reason: &reason });
                }
                out::line(&format!("{call} -> {reason}"))
            }
        }
    }

    /// Tells of a refusal and goes on; a node that cannot be reached ends the work.  Whether all went well.
    fn survives(&self, ended: Result<(), Failure>) -> Result<bool, Failure> {
        let failure = match ended {
            Ok(()) => return Ok(true),
            Err(failure) => failure,
        };
        if matches!(
            failure,
            Failure::Unreachable { .. } | Failure::NobodyReads | Failure::NotLoggedIn { .. }
        ) {
            return Err(failure);
        }
        let reason = failure.text().unwrap_or_default();
        if self.json {
            self.tell(&Event::Refused { reason: &reason })?;
        } else {
            out::line(&reason)?;
        }
        Ok(false)
    }

    /// A line of the node's log: those of requests, and what is wrong.
    fn show(&self, line: &LogLine) -> Result<(), Failure> {
        let is_wrong = matches!(line.level.as_str(), "error" | "warn");
        let is_of_a_request = line.unit == "arsrv" && line.cid.is_some() && line.level == "info";
        if !is_wrong && !is_of_a_request {
            return Ok(());
        }
        if self.json {
            return self.tell(&Event::Log { line });
        }
        out::line(&format!("  {}", watch::human(line)))
    }

    /// For programs only.
    fn tell(&self, event: &Event<'_>) -> Result<(), Failure> {
        if self.json {
            // What is made of texts and numbers can be written as JSON: this cannot fail.
            out::line(&serde_json::to_string(event).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Now, Unix milliseconds.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The next line of the log that can be read; `None` when it has ended.
async fn next(log: &mut Option<Stream>) -> Option<LogLine> {
    let Some(stream) = log else { return std::future::pending().await };
    loop {
        let line = stream.next().await.ok().flatten()?;
        if let Ok(line) = serde_json::from_slice(&line) {
            return Some(line);
        }
    }
}
