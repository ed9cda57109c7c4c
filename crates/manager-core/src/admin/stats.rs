//! What the exact counts of runs say, in time buckets.

use axum::{
    Json,
    extract::{Query, State},
};
use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{AppId, RunStatus, duration, run::RunKind};
use picloud_store::{app_stats::AppStats, runs::BUCKETS, stats::StatCell};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    AdminState,
    access::{Authorized, StatsView},
    answer::{Answer, ListQuery, Problem},
    keys::time,
};

/// Minutes of windows, and those of one bucket of windows up to that.
const BUCKET_MINUTES: [(i32, i32); 5] = [
    (60, 1),
    (360, 5),
    (1_440, 15),
    (10_080, 120),
    (LONGEST, 360),
];
/// Minutes of the longest window: 30 days.
const LONGEST: i32 = 43_200;

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
    let window = Window::of(filter.window.as_deref(), state.clock.now())?;
    let app = caller.app_filter(&state, filter.app.as_deref()).await?;
    let app = match app {
        None => return Err(Problem::not_found("app")),
        Some(None) => None,
        Some(Some(name)) => {
            let id = state.store.app_id(&name).await?;
            Some((id.ok_or_else(|| Problem::not_found("app"))?, name))
        }
    };
    let id = app.as_ref().map(|(id, _)| *id);
    let cells = state
        .store
        .run_stats(id, window.from, window.bucket)
        .await?;
    let buckets: Vec<Value> = window
        .beginnings()
        .map(|at| {
            let mut shown = Sum::of(cells.iter().filter(|cell| cell.at == at)).show();
            shown.insert("at".to_owned(), json!(time(at)));
            Value::Object(shown)
        })
        .collect();
    let mut answer = Sum::of(cells.iter()).show();
    answer.extend(window.show());
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
    answer.insert("histogram".to_owned(), Sum::of(cells.iter()).histogram());
    answer.insert("buckets".to_owned(), buckets.into());
    Ok(Json(Value::Object(answer)))
}

/// A stretch of time up to now, in buckets.
struct Window {
    /// As it was asked for.
    name: String,
    /// Minutes of a bucket.
    bucket: i32,
    buckets: i32,
    from: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl Window {
    fn of(asked: Option<&str>, now: DateTime<Utc>) -> Answer<Self> {
        let asked = asked.unwrap_or("1h");
        let minutes = duration::milliseconds(asked)
            .map(|ms| ms.div_ceil(60_000))
            .and_then(|minutes| i32::try_from(minutes).ok())
            .filter(|minutes| *minutes > 0);
        let found = minutes.and_then(|minutes| {
            let mut known = BUCKET_MINUTES.iter();
            let (_, bucket) = known.find(|(most, _)| minutes <= *most)?;
            // Whole buckets.
            Some(((minutes + bucket - 1) / bucket * bucket, *bucket))
        });
        let Some((minutes, bucket)) = found else {
            let detail = "window must be a duration of at most 30d, like 15m, 1h or 7d";
            return Err(Problem::invalid(detail).at("window"));
        };
        let seconds = i64::from(bucket) * 60;
        let last = now.timestamp() - now.timestamp().rem_euclid(seconds);
        let first = last + seconds - i64::from(minutes) * 60;
        Ok(Self {
            name: asked.to_owned(),
            bucket,
            buckets: minutes / bucket,
            from: DateTime::from_timestamp(first, 0).unwrap_or(now),
            now,
        })
    }

    fn seconds(&self) -> i64 {
        i64::from(self.bucket) * 60
    }

    /// When each bucket begins.
    fn beginnings(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let (from, seconds) = (self.from, self.seconds());
        (0..i64::from(self.buckets))
            .filter_map(move |step| from.checked_add_signed(TimeDelta::seconds(step * seconds)))
    }

    fn show(&self) -> Map<String, Value> {
        let fields = json!({
            "window": self.name,
            "bucket_seconds": self.seconds(),
            "from": time(self.from),
            "until": time(self.now),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// How a window is written.
pub(super) fn window_schema() -> Value {
    json!({
        "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$", "default": "1h",
        "examples": ["15m", "1h", "6h", "24h", "7d", "30d"],
    })
}

/// What each app did: a page of apps, asked for at once.
pub(super) async fn by_app(
    State(state): State<AdminState>,
    caller: Authorized<StatsView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let window = Window::of(filter.window.as_deref(), state.clock.now())?;
    let Some(only) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(super::answer::none());
    };
    let live = state.kept.live.get(&state.store).await?;
    let wanted = live
        .apps
        .iter()
        .filter(|(name, _)| only.as_ref().is_none_or(|only| only == *name));
    let (apps, next) = query.slice(wanted.map(|(name, app)| (name.to_string(), app)))?;
    let ids: Vec<AppId> = apps.iter().map(|app| app.id).collect();
    let mut stats = state
        .store
        .stats_by_app(&ids, window.from, window.bucket)
        .await?;
    let items: Vec<Value> = apps
        .iter()
        .map(|app| {
            let of = stats.remove(&app.id).unwrap_or_default();
            let mut shown = Sum::of_app(&of).show();
            shown.insert("app".to_owned(), json!(app.spec.name));
            shown.extend(window.show());
            let buckets: Vec<Value> = window
                .beginnings()
                .map(|at| {
                    let cell = of.cells.iter().find(|(known, ..)| *known == at);
                    let (count, errors) =
                        cell.map_or((0, 0), |(_, count, errors)| (*count, *errors));
                    json!([count, errors])
                })
                .collect();
            shown.insert("buckets".to_owned(), buckets.into());
            Value::Object(shown)
        })
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
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

    fn of_app(stats: &AppStats) -> Self {
        Self {
            count: stats.cells.iter().map(|(_, count, _)| count).sum(),
            errors: stats.cells.iter().map(|(.., errors)| errors).sum(),
            duration_us: stats.duration_us,
            histogram: stats.histogram,
        }
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

    /// How many runs were how fast.
    fn histogram(&self) -> Value {
        let ends = (0..BUCKETS).map(|bucket| {
            let last = bucket == BUCKETS - 1;
            (!last).then(|| end_ms(bucket))
        });
        let shown = ends
            .zip(self.histogram)
            .map(|(below, count)| json!({ "below_ms": below, "count": count }));
        shown.collect()
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
                let end = end_ms(bucket);
                let start = if bucket == 0 { 0.0 } else { end / 2.0 };
                let ms = start + (end - start) * ((wanted - before) / here);
                return Some((ms * 1000.0).round() / 1000.0);
            }
            before += here;
        }
        None
    }
}

/// Where a bucket of the histogram ends: 16 µs × 2^i.
fn end_ms(bucket: usize) -> f64 {
    0.016 * 2_f64.powi(i32::try_from(bucket).unwrap_or(i32::MAX))
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
