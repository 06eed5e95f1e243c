//! A stand-in for the operating system unit: the real one needs a system bus and a disk with slots.  It keeps to the
//! contract in `arapi::aros`, remembers who asked for what, and restarts in a blink.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arapi::aros::{
    BlackBoxEntry, BlackBoxView, BootStatus, BundleInfo, Clock, Disk, Done, InstallRequest,
    InstallStatus, JournalLine, Link, Memory, NetworkStatus, NetworkTrial, PowerAction,
    PowerRequest, Probe, ResetAnswer, ResetRequest, SlotStatus, Status, SupportRequest,
    SupportSession, Unit, UpdateStatus,
};
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;

/// What the stand-in is and has been asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) status: Status,
    pub(crate) update: UpdateStatus,
    pub(crate) network: NetworkStatus,
    pub(crate) support: Option<SupportSession>,
    /// Method, path and for whom, in order.
    pub(crate) asked: Vec<String>,
    /// Bytes of the bundle uploaded last, and the largest piece they came in.
    pub(crate) uploaded: u64,
    /// The version that an upload brings.
    pub(crate) brings: String,
    /// Why the next update is undone.
    pub(crate) undone: Option<String>,
    /// Why uploads are refused.
    pub(crate) full: Option<String>,
    /// Why the next installation fails.
    pub(crate) fails: Option<String>,
}

/// A running stand-in.  Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StandIn(Arc<Mutex<World>>);

impl StandIn {
    /// Serves `aros.sock` of a runtime folder.
    pub(crate) fn start(runtime_dir: &Path) -> Self {
        Self::start_in(runtime_dir, "a")
    }

    /// The same in another slot.
    pub(crate) fn start_in(runtime_dir: &Path, slot: &str) -> Self {
        let world = Self(Arc::new(Mutex::new(fresh(slot))));
        let listener = tokio::net::UnixListener::bind(runtime_dir.join("aros.sock")).unwrap();
        let router = router(world.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        world
    }

    /// Looks at or changes the world.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// Whether a call has come, for example `POST /v1/power user:admin`.
    pub(crate) fn was_asked(&self, call: &str) -> bool {
        self.with(|world| world.asked.iter().any(|asked| asked == call))
    }

    fn restart(&self) {
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.with(|world| {
                let undone = world.undone.take();
                let chosen = world.update.slots.iter().find(|slot| slot.primary).cloned();
                let chosen = chosen.unwrap_or_default();
                world.status.boot.boot_id.push('x');
                world.status.uptime_s = 5;
                match undone {
                    None => {
                        world.status.boot.slot.clone_from(&chosen.slot);
                        world.status.version = chosen.version.unwrap_or_default();
                        world.status.boot.confirmed = false;
                        world.status.boot.tries_left = Some(2);
                    }
                    Some(why) => world.status.boot.fell_back = Some(why),
                }
            });
            tokio::time::sleep(Duration::from_millis(900)).await;
            world.with(|world| {
                world.status.boot.confirmed = true;
                world.status.boot.tries_left = None;
                let slot = world.status.boot.slot.clone();
                for one in &mut world.update.slots {
                    one.booted = one.slot == slot;
                    one.state = if one.booted { "good".to_owned() } else { one.state.clone() };
                }
            });
        });
    }
}

fn fresh(slot: &str) -> World {
    let of = |name: &str, version: &str| SlotStatus {
        slot: name.to_owned(),
        booted: name == slot,
        primary: name == slot,
        state: "good".to_owned(),
        version: Some(version.to_owned()),
        installed_ms: Some(1_795_219_669_001),
        ..Default::default()
    };
    World {
        status: Status {
            hostname: "arsrv-k7qf2mxd".to_owned(),
            fingerprint: "5f2a".repeat(16),
            board: "generic/x86_64".to_owned(),
            version: "1.4.0".to_owned(),
            kernel: "6.12.48".to_owned(),
            uptime_s: 273_125,
            boot: BootStatus {
                boot_id: "one".to_owned(),
                slot: slot.to_owned(),
                confirmed: slot != "recovery",
                ..Default::default()
            },
            memory: Memory { total: 2_012_000_000, available: 1_894_000_000 },
            load: [0.08, 0.03, 0.01],
            disks: ["state", "data"]
                .map(|label| Disk {
                    mount: if label == "state" { "/var" } else { "/data" }.to_owned(),
                    label: label.to_owned(),
                    total: if label == "state" { 1_060_000_000 } else { 27_400_000_000 },
                    free: if label == "state" { 912_000_000 } else { 27_100_000_000 },
                    device: "/dev/nvme0n1".to_owned(),
                    health: Some("ok".to_owned()),
                    ..Default::default()
                })
                .into(),
            clock: Clock {
                now_ms: 1_795_219_669_001,
                synchronized: true,
                source: Some("192.0.2.1".to_owned()),
                timezone: "Europe/Berlin".to_owned(),
            },
            encrypted: true,
            ..Default::default()
        },
        update: UpdateStatus {
            slots: vec![of("a", "1.4.0"), of("b", "1.3.2"), of("recovery", "1.3.2")],
            install: None,
            floor: "1.4.0".to_owned(),
        },
        network: NetworkStatus {
            links: vec![Link {
                name: "end0".to_owned(),
                mac: Some("02:00:00:00:00:07".to_owned()),
                state: "up".to_owned(),
                addresses: vec!["192.0.2.7/24".to_owned(), "2001:db8::7/64".to_owned()],
                gateways: vec!["192.0.2.1".to_owned()],
                dns: vec!["192.0.2.1".to_owned()],
            }],
            ..Default::default()
        },
        brings: "1.5.0".to_owned(),
        ..Default::default()
    }
}

type Asked = State<StandIn>;

fn done(message: &str) -> Json<Done> {
    Json(Done { message: message.to_owned() })
}

fn router(world: StandIn) -> Router {
    let remember = world.clone();
    Router::new()
        .route("/v1/status", get(async |State(w): Asked| Json(w.with(|w| w.status.clone()))))
        .route("/v1/units", get(async || Json(units())))
        .route("/v1/journal", get(journal))
        .route("/v1/network", get(async |State(w): Asked| Json(w.with(|w| w.network.clone()))))
        .route(
            "/v1/network/confirm",
            post(async |State(w): Asked| {
                w.with(|w| {
                    let trial = w.network.trial.take();
                    w.network.confirmed = trial.map(|trial| trial.spec).unwrap_or_default();
                });
                done("the new network is kept")
            }),
        )
        .route("/v1/power", post(power))
        .route(
            "/v1/identify",
            post(async || Json(serde_json::json!({"by": ["status:green", "bell"], "seconds": 30}))),
        )
        .route("/v1/factory-reset", post(reset))
        .route(
            "/v1/support",
            get(async |State(w): Asked| {
                Json(w.with(|w| {
                    w.support.clone().map(|one| SupportSession { password: None, ..one })
                }))
            })
            .post(async |State(w): Asked, Json(request): Json<SupportRequest>| {
                let session = SupportSession {
                    user: "support".to_owned(),
                    password: Some("seven small words".to_owned()),
                    until_ms: 1_795_219_669_001 + u64::from(request.minutes) * 60_000,
                };
                w.with(|w| w.support = Some(session.clone()));
                Json(session)
            })
            .delete(async |State(w): Asked| {
                w.with(|w| w.support = None);
                done("the support session has ended")
            }),
        )
        .route(
            "/v1/support/bundle",
            get(async || ([(header::CONTENT_TYPE, "application/zstd")], vec![7u8; 3_000_000])),
        )
        .route("/v1/blackbox", get(black_box))
        .route("/v1/probes", get(async || Json(probes())))
        .route("/v1/identity", get(async || Json(arapi::aros::Identity::default())))
        .route("/v1/update", get(async |State(w): Asked| Json(w.with(|w| w.update.clone()))))
        .route("/v1/update/bundle", get(bundle).put(upload))
        .route("/v1/update/install", post(install))
        .route(
            "/v1/update/rollback",
            post(async |State(w): Asked| {
                w.with(|w| {
                    for slot in &mut w.update.slots {
                        slot.primary = slot.slot == "b";
                    }
                });
                done("slot b (version 1.3.2) starts next; restart the box")
            }),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn(move |request: Request, next: axum::middleware::Next| {
            let world = remember.clone();
            async move {
                let who = request.headers().get("x-arint-who").map(|who| who.to_str().unwrap());
                let line =
                    format!("{} {} {}", request.method(), request.uri().path(), who.unwrap_or("-"));
                // Without it the real unit refuses.
                assert!(request.headers().contains_key("x-arint-peer"), "{line}");
                if *request.method() != Method::GET {
                    world.with(|world| world.asked.push(line));
                }
                next.run(request).await
            }
        }))
        .with_state(world)
}

fn units() -> Vec<Unit> {
    ["arclst", "arldb", "aros", "arsrv", "arwadm"]
        .map(|name| Unit {
            name: format!("{name}.service"),
            active: "active".to_owned(),
            sub: "running".to_owned(),
            memory: Some(21_000_000),
            restarts: 0,
            active_after_us: Some(4_200_000),
        })
        .into()
}

fn probes() -> Vec<Probe> {
    let probe = |name: &str, passed, message: &str| Probe {
        name: name.to_owned(),
        passed,
        message: message.to_owned(),
        elapsed_ms: 12,
    };
    vec![probe("units", true, "all units are up"), probe("channel", false, "no answer within 5s")]
}

async fn journal(Query(query): Query<std::collections::HashMap<String, String>>) -> Response {
    let line = |message: String| JournalLine {
        time_ms: 1_795_219_669_001,
        priority: 6,
        unit: query.get("unit").cloned().unwrap_or_else(|| "arsrv.service".to_owned()),
        message,
    };
    let text = |message: String| format!("{}\n", serde_json::to_string(&line(message)).unwrap());
    let boot = query.get("boot").cloned().unwrap_or_else(|| "0".to_owned());
    let first = text(format!("of boot {boot}"));
    if query.get("follow").is_none_or(|follow| follow != "true") {
        return first.into_response();
    }
    let more = text("one more".to_owned());
    let stream = futures_util::stream::unfold(0, move |count| {
        let chunk = if count == 0 { first.clone() } else { more.clone() };
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, std::io::Error>(chunk), count + 1))
        }
    });
    Body::from_stream(stream).into_response()
}

async fn power(State(w): Asked, Json(request): Json<PowerRequest>) -> Json<Done> {
    match request.action {
        PowerAction::Reboot => {
            w.restart();
            done("the box restarts")
        }
        PowerAction::Recovery => done("the box restarts into its recovery system"),
        PowerAction::PowerOff => done("the box switches itself off"),
    }
}

async fn reset(State(w): Asked, Json(request): Json<ResetRequest>) -> Response {
    let (name, fingerprint) = w.with(|w| (w.status.hostname.clone(), w.status.fingerprint.clone()));
    if request.hostname != name {
        let error = serde_json::json!({"code": "invalid", "request_id": "x",
            "message": format!("the host name is `{name}`, not `{}`; nothing was reset", request.hostname)});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    Json(ResetAnswer {
        fingerprint,
        message: "the keys are destroyed; the box restarts".to_owned(),
    })
    .into_response()
}

async fn black_box(State(w): Asked) -> Json<BlackBoxView> {
    let entry = |seq, event: &str, text: &str| BlackBoxEntry {
        seq,
        time_ms: 1_795_219_669_001,
        boot_id: "one".to_owned(),
        event: event.to_owned(),
        text: text.to_owned(),
    };
    let entries = vec![
        entry(2, "confirmed", "slot a with 1.4.0 was confirmed"),
        entry(1, "started", "slot a with 1.4.0 was started after power came on"),
    ];
    Json(BlackBoxView { why: w.with(|w| w.status.boot.fell_back.clone()), entries })
}

async fn upload(State(w): Asked, request: Request) -> Response {
    // Like the real unit: refused before the body is read.
    if let Some(why) = w.with(|w| w.full.clone()) {
        let error = serde_json::json!({"code": "no_room", "message": why, "request_id": "x"});
        return (StatusCode::INSUFFICIENT_STORAGE, Json(error)).into_response();
    }
    let mut chunks = request.into_body().into_data_stream();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        bytes += chunk.unwrap().len() as u64;
        w.with(|w| w.uploaded = bytes);
    }
    let version = w.with(|w| w.brings.clone());
    Json(BundleInfo {
        compatible: "arint-generic-x86_64".to_owned(),
        version,
        bytes,
        sha256: "c0de".repeat(16),
    })
    .into_response()
}

/// Twenty bytes, whole or one range of them.
async fn bundle(headers: HeaderMap) -> Response {
    let whole = "abcdefghijklmnopqrst";
    let range = headers.get(header::RANGE).map(|range| range.to_str().unwrap().to_owned());
    let Some(range) = range else {
        return ([(header::ACCEPT_RANGES, "bytes")], whole).into_response();
    };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    if last >= whole.len() {
        let size = format!("bytes */{}", whole.len());
        return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, size)])
            .into_response();
    }
    let range = format!("bytes {first}-{last}/{}", whole.len());
    let part = whole[first..=last].to_owned();
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], part).into_response()
}

async fn install(State(w): Asked, Json(request): Json<InstallRequest>) -> Json<InstallStatus> {
    let source = request.url.clone().unwrap_or_else(|| "upload".to_owned());
    let begun = InstallStatus {
        source,
        version: Some(w.with(|w| w.brings.clone())),
        state: "running".to_owned(),
        percent: 0,
        message: "checking the bundle".to_owned(),
        ..InstallStatus::default()
    };
    w.with(|w| w.update.install = Some(begun.clone()));
    tokio::spawn(async move {
        for percent in [20, 40, 60, 80, 100] {
            tokio::time::sleep(Duration::from_millis(250)).await;
            w.with(|w| {
                let install = w.update.install.as_mut().unwrap();
                install.percent = percent;
                install.message = "writing `rootfs` to slot b".to_owned();
            });
        }
        let installed = w.with(|w| {
            let fails = w.fails.take();
            let install = w.update.install.as_mut().unwrap();
            if let Some(why) = fails {
                install.state = "failed".to_owned();
                install.error = Some(why);
                return false;
            }
            install.state = "installed".to_owned();
            install.message = "done".to_owned();
            let version = install.version.clone();
            for slot in &mut w.update.slots {
                slot.primary = slot.slot == "b";
                if slot.slot == "b" {
                    slot.version.clone_from(&version);
                    slot.state = "new".to_owned();
                    slot.tries_left = Some(3);
                }
            }
            true
        });
        if installed && request.reboot {
            tokio::time::sleep(Duration::from_millis(800)).await;
            w.restart();
        }
    });
    Json(begun)
}

/// Puts a change of the network on trial.
pub(crate) fn trial(world: &StandIn, seconds_left: u64) {
    world.with(|world| {
        let spec = arapi::objects::NetworkSpec::default();
        world.network.trial = Some(NetworkTrial { spec, seconds_left, ..Default::default() });
    });
}
