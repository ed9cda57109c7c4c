//! What the exact counts of runs say, in time buckets.

use axum::{
    Json,
    extract::{Query, State},
};
use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{RunStatus, run::RunKind};
use picloud_store::{runs::BUCKETS, stats::StatCell};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    AdminState,
    access::{Authorized, StatsView},
    answer::{Answer, Problem},
    keys::time,
};

/// Windows, with the minutes that they have and those of one bucket.
const WINDOWS: [(&str, i32, i32); 6] = [
    ("15m", 15, 1),
    ("1h", 60, 1),
    ("6h", 360, 5),
    ("24h", 1_440, 15),
    ("7d", 10_080, 120),
    ("30d", 43_200, 360),
];

#[derive(Deserialize)]
pub(super) struct Filter {
    app: Option<String>,
    window: Option<String>,
}

pub(super) async fn show(
    State(state): State<AdminState>,
    caller: Authorized<StatsView>,
    Query(filter): Query<Filter>,
) -> Answer {
    let asked = filter.window.as_deref().unwrap_or("1h");
    let window = WINDOWS.iter().find(|(name, ..)| *name == asked);
    let Some(&(name, minutes, bucket)) = window else {
        let known: Vec<&str> = WINDOWS.iter().map(|(name, ..)| *name).collect();
        let detail = format!("window must be one of {}", known.join(", "));
        return Err(Problem::invalid(detail));
    };
    let app = caller.app_filter(&state, filter.app.as_deref()).await?;
    let app = match app {
        None => return Err(Problem::not_found("app")),
        Some(None) => None,
        Some(Some(name)) => {
            let id = state.store.app_id(&name).await?;
            Some((id.ok_or_else(|| Problem::not_found("app"))?, name))
        }
    };
    let now = state.clock.now();
    let seconds = i64::from(bucket) * 60;
    let last = now.timestamp() - now.timestamp().rem_euclid(seconds);
    let first = last + seconds - i64::from(minutes) * 60;
    let from = DateTime::from_timestamp(first, 0).unwrap_or(now);
    let id = app.as_ref().map(|(id, _)| *id);
    let cells = state.store.run_stats(id, from, bucket).await?;
    let steps = i64::from(minutes / bucket);
    let buckets: Vec<Value> = (0..steps)
        .filter_map(|step| from.checked_add_signed(TimeDelta::seconds(step * seconds)))
        .map(|at| {
            let mut shown = Sum::of(cells.iter().filter(|cell| cell.at == at)).show();
            shown.insert("at".to_owned(), json!(time(at)));
            Value::Object(shown)
        })
        .collect();
    let mut answer = Sum::of(cells.iter()).show();
    answer.extend(head(name, seconds, from, now));
    let words = |word: &'static str, cells: &mut dyn Iterator<Item = &StatCell>| {
        let count: u64 = cells.map(|cell| cell.count).sum();
        (word.to_owned(), json!(count))
    };
    let by_status: Map<String, Value> = RunStatus::ALL
        .iter()
        .map(|status| {
            words(
                status.as_str(),
                &mut cells.iter().filter(|cell| cell.status == *status),
            )
        })
        .collect();
    let by_kind: Map<String, Value> = RunKind::ALL
        .iter()
        .map(|kind| {
            words(
                kind.as_str(),
                &mut cells.iter().filter(|cell| cell.kind == *kind),
            )
        })
        .collect();
    answer.insert("app".to_owned(), json!(app.map(|(_, name)| name)));
    answer.insert("by_status".to_owned(), by_status.into());
    answer.insert("by_kind".to_owned(), by_kind.into());
    answer.insert("buckets".to_owned(), buckets.into());
    Ok(Json(Value::Object(answer)))
}

fn head(window: &str, seconds: i64, from: DateTime<Utc>, now: DateTime<Utc>) -> Map<String, Value> {
    let fields = json!({
        "window": window,
        "bucket_seconds": seconds,
        "from": time(from),
        "until": time(now),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Runs, added up.
#[derive(Default)]
struct Sum {
    count: u64,
    errors: u64,
    duration_us: u64,
    histogram: [u64; BUCKETS],
}

impl Sum {
    fn of<'c>(cells: impl Iterator<Item = &'c StatCell>) -> Self {
        let mut sum = Self::default();
        for cell in cells {
            sum.count += cell.count;
            // A firing that was passed over is no failure.
            if !matches!(cell.status, RunStatus::Ok | RunStatus::Skipped) {
                sum.errors += cell.count;
            }
            sum.duration_us += cell.duration_us;
            for (all, one) in sum.histogram.iter_mut().zip(cell.histogram) {
                *all += one;
            }
        }
        sum
    }

    fn show(&self) -> Map<String, Value> {
        let count = self.count as f64;
        let rate = (self.count > 0).then(|| self.errors as f64 / count);
        let mean = (self.count > 0).then(|| self.duration_us as f64 / count / 1000.0);
        let fields = json!({
            "count": self.count,
            "errors": self.errors,
            "error_rate": rate,
            "mean_ms": mean,
            "p50_ms": self.quantile(0.50),
            "p95_ms": self.quantile(0.95),
            "p99_ms": self.quantile(0.99),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// Milliseconds below which this part of the runs lie; taken as evenly spread over the bucket
    /// of the histogram in which that falls. `None` where nothing ran.
    fn quantile(&self, part: f64) -> Option<f64> {
        let total: u64 = self.histogram.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = part * total as f64;
        let mut before = 0.0;
        for (bucket, count) in self.histogram.iter().enumerate() {
            let here = *count as f64;
            if here > 0.0 && before + here >= wanted {
                // Bucket `i` ends at 16 µs × 2^i.
                let end = 0.016 * 2_f64.powi(i32::try_from(bucket).unwrap_or(i32::MAX));
                let start = if bucket == 0 { 0.0 } else { end / 2.0 };
                let ms = start + (end - start) * ((wanted - before) / here);
                return Some((ms * 1000.0).round() / 1000.0);
            }
            before += here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_where_the_runs_do() {
        let mut sum = Sum::default();
        assert_eq!(sum.quantile(0.5), None);
        // 90 runs of 1 to 2 ms (bucket 7 is 1.024 to 2.048 ms), 10 of 16 to 33 ms.
        sum.histogram[7] = 90;
        sum.histogram[11] = 10;
        sum.count = 100;
        let (p50, p95) = (sum.quantile(0.5), sum.quantile(0.95));
        assert!(
            p50.is_some_and(|ms| (1.024..=2.048).contains(&ms)),
            "{p50:?}"
        );
        assert!(
            p95.is_some_and(|ms| (16.384..=32.768).contains(&ms)),
            "{p95:?}"
        );
        assert_eq!(sum.quantile(0.95), Some(24.576));
    }

    #[test]
    fn what_was_passed_over_is_no_error() {
        let cell = |status, count| StatCell {
            at: DateTime::UNIX_EPOCH,
            kind: RunKind::Cron,
            status,
            count,
            duration_us: 0,
            histogram: [0; BUCKETS],
        };
        let cells = [
            cell(RunStatus::Ok, 5),
            cell(RunStatus::Skipped, 3),
            cell(RunStatus::Rejected, 2),
        ];
        let sum = Sum::of(cells.iter());
        assert_eq!((sum.count, sum.errors), (10, 2));
        assert_eq!(sum.show()["error_rate"], json!(0.2));
    }
}
