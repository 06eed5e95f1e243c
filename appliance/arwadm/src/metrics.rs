//! `GET /metrics`: the figures of every unit on one page, for Prometheus.
//!
//! On the admin API it needs permission `read`, so a scraper has a token.  With `metrics_listen` it is also given on a
//! loopback address to whoever asks there, and nothing else is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arapi::UnixClient;
use arbase::Chain;
use arbase::metrics::{Page, Type};
use axum::extract::State;

use crate::server::App;

/// The parts that give figures, besides this one.
const UNITS: &[&str] = &["arclst", "arsrv", "arldb", "aros"];
/// The part that only images have.
const ON_IMAGES: &str = "aros";
/// Longest wait for a part: scrapers give up after ten seconds.
const LIMIT: Duration = Duration::from_secs(5);
/// The words for the classes of a status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Answers of this unit by the class of their status.
#[derive(Debug, Default)]
pub(crate) struct Answers([AtomicU64; 5]);

impl Answers {
    /// Counts one.
    pub(crate) fn count(&self, status: u16) {
        if let Some(class) = self.0.get(usize::from(status / 100).saturating_sub(1)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The page.
pub(crate) async fn show(State(app): State<App>) -> Page {
    page(&app).await
}

/// What is served on the loopback address.
pub(crate) fn loopback_router(app: App) -> axum::Router {
    axum::Router::new().route("/metrics", axum::routing::get(show)).with_state(app)
}

async fn page(app: &App) -> Page {
    let parts = UNITS.iter().map(|unit| of_unit(app, unit));
    let parts = futures_util::future::join_all(parts).await;
    let mut page = Page::default();
    page.family("arint_unit_up", Type::Gauge, "Whether the unit gives its figures.");
    page.sample("arint_unit_up", &[("unit", "arwadm")], 1);
    for (unit, part) in UNITS.iter().zip(&parts) {
        match part {
            // Outside of an image it is not there, and nobody misses it.
            Err(arapi::ClientError::Connect { .. }) if *unit == ON_IMAGES => {}
            part => page.sample("arint_unit_up", &[("unit", unit)], u8::from(part.is_ok())),
        }
    }
    let help = "Version of the software, as a label.";
    page.family("arint_info", Type::Gauge, help);
    page.sample("arint_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let name = "arwadm_answers_total";
    page.family(name, Type::Counter, "Answers of the admin API by the class of their status.");
    for (class, count) in CLASSES.iter().zip(&app.answers.0) {
        page.sample(name, &[("status", class)], count.load(Ordering::Relaxed));
    }
    arbase::metrics::whole("arwadm", &mut page);
    for part in parts.into_iter().flatten() {
        page.append(&part);
    }
    page
}

async fn of_unit(app: &App, unit: &'static str) -> Result<String, arapi::ClientError> {
    let socket = app.config.runtime_dir.join(format!("{unit}.sock"));
    let text = UnixClient::new(unit, socket).with_limit(LIMIT).text("/v1/metrics").await;
    if let Err(err) = &text {
        log::debug!(unit, error:% = Chain(err); "a part gives no figures");
    }
    text
}
