//! `/metrics`: Prometheus text, version 0.0.4.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderValue, Response, StatusCode, header};
use picloud_shared::deployment::DeploymentStatus;
use picloud_store::PoolStatus;

use crate::{ingress::Ingress, problem::Whole, stats::bucket_end};

/// The least status that HTTP knows, and how many there can be from there on.
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 900;

/// What is counted of a node as a whole.
pub(crate) struct Counters {
    answers: Box<[AtomicU64; STATUSES]>,
    deployments: [AtomicU64; DeploymentStatus::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            answers: Box::new([const { AtomicU64::new(0) }; STATUSES]),
            deployments: [const { AtomicU64::new(0) }; DeploymentStatus::ALL.len()],
        }
    }
}

impl Counters {
    pub(crate) fn answered(&self, status: StatusCode) {
        let at = usize::from(status.as_u16() - FIRST_STATUS);
        if let Some(count) = self.answers.get(at) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn deployed(&self, status: DeploymentStatus) {
        self.deployments[status as usize].fetch_add(1, Relaxed);
    }

    fn write(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "# HELP picloud_http_requests_total Requests, by the status of their answer.\n# TYPE picloud_http_requests_total counter"
        );
        for (at, count) in self.answers.iter().enumerate() {
            let (code, count) = (at + usize::from(FIRST_STATUS), count.load(Relaxed));
            if count > 0 {
                let _ = writeln!(
                    out,
                    "picloud_http_requests_total{{code=\"{code}\"}} {count}"
                );
            }
        }
        let _ = writeln!(
            out,
            "# HELP picloud_deployments_total Deployments of this process, by what became of them.\n# TYPE picloud_deployments_total counter"
        );
        for status in DeploymentStatus::ALL {
            let (word, count) = (
                status.as_str(),
                self.deployments[status as usize].load(Relaxed),
            );
            let _ = writeln!(
                out,
                "picloud_deployments_total{{status=\"{word}\"}} {count}"
            );
        }
    }
}

/// Tells what became of the outgoing requests of scripts, by category.
pub type OutgoingCounts = Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// What is known outside of the data plane.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    /// Connections to the database.
    pub pool: PoolStatus,
    /// Records of runs that found no room.
    pub shed: u64,
    /// Lines of running runs that were not told to who listens.
    pub passed_over: u64,
    /// Events that wait, and events that run.
    pub outbox: Option<(i64, i64)>,
}

pub(crate) fn response(ingress: &Ingress, gauges: &Gauges) -> Response<Whole> {
    let mut response = Response::new(Whole::new(text(ingress, gauges).into()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(ingress: &Ingress, gauges: &Gauges) -> String {
    let mut out = String::new();
    let served = ingress.options.holder.served();
    let version = served.version.unwrap_or_default();
    let one =
        |out: &mut String, name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        };
    let _ = writeln!(
        out,
        "# HELP picloud_build_info The version that runs.\n# TYPE picloud_build_info gauge"
    );
    let _ = writeln!(
        out,
        "picloud_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    one(
        &mut out,
        "picloud_snapshot_generation",
        "gauge",
        "Deployments applied, as served.",
        &version.generation,
    );
    one(
        &mut out,
        "picloud_apps",
        "gauge",
        "Apps that are served.",
        &served.app_count(),
    );
    one(
        &mut out,
        "picloud_runs_in_flight",
        "gauge",
        "Runs that are going on.",
        &ingress.running.load(Relaxed),
    );
    one(
        &mut out,
        "picloud_connections",
        "gauge",
        "Open client connections.",
        &ingress.connections.load(Relaxed),
    );
    one(
        &mut out,
        "picloud_run_records_shed_total",
        "counter",
        "Records of runs that found no room; their runs are counted.",
        &gauges.shed,
    );
    one(
        &mut out,
        "picloud_live_log_lines_passed_over_total",
        "counter",
        "Lines of running runs that were not shown live, for want of room; their records have them.",
        &gauges.passed_over,
    );
    one(
        &mut out,
        "picloud_database_connections",
        "gauge",
        "Open connections to the database.",
        &gauges.pool.size,
    );
    one(
        &mut out,
        "picloud_database_connections_idle",
        "gauge",
        "Those that nobody uses.",
        &gauges.pool.idle,
    );
    one(
        &mut out,
        "picloud_snapshot_age_seconds",
        "gauge",
        "How long the present snapshot is served.",
        &served.since.elapsed().as_secs_f64(),
    );
    if let Some((waiting, running)) = gauges.outbox {
        let name = "picloud_outbox_events";
        let _ = writeln!(
            out,
            "# HELP {name} Events of the outbox.\n# TYPE {name} gauge\n{name}{{state=\"waiting\"}} {waiting}\n{name}{{state=\"running\"}} {running}"
        );
    }
    ingress.counters.write(&mut out);
    let name = "picloud_script_http_requests_total";
    let _ = writeln!(
        out,
        "# HELP {name} Requests that scripts sent, by what became of them.\n# TYPE {name} counter"
    );
    for (outcome, count) in (ingress.options.outgoing)() {
        let _ = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {count}");
    }
    runs(&mut out, ingress);
    out
}

fn runs(out: &mut String, ingress: &Ingress) {
    let apps = ingress.options.holder.stats.all();
    let _ = writeln!(
        out,
        "# HELP picloud_runs_total Runs, by how they ended.\n# TYPE picloud_runs_total counter"
    );
    for app in &apps {
        for (kind, status, total) in app.totals() {
            let (kind, status) = (kind.as_str(), status.as_str());
            let count = total.count;
            let _ = writeln!(
                out,
                "picloud_runs_total{{app=\"{}\",kind=\"{kind}\",status=\"{status}\"}} {count}",
                app.name
            );
        }
    }
    let name = "picloud_run_duration_seconds";
    let _ = writeln!(
        out,
        "# HELP {name} How long runs took.\n# TYPE {name} histogram"
    );
    for app in &apps {
        for (kind, status, total) in app.totals() {
            let labels = format!(
                "app=\"{}\",kind=\"{}\",status=\"{}\"",
                app.name,
                kind.as_str(),
                status.as_str()
            );
            let mut sum = 0;
            let last = total.histogram.len() - 1;
            for (bucket, count) in total.histogram.iter().enumerate() {
                sum += count;
                if bucket < last {
                    let _ = writeln!(
                        out,
                        "{name}_bucket{{{labels},le=\"{}\"}} {sum}",
                        bucket_end(bucket)
                    );
                }
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {sum}");
            let seconds = std::time::Duration::from_micros(total.duration_us).as_secs_f64();
            let _ = writeln!(
                out,
                "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {sum}"
            );
        }
    }
}
