//! Run history: partitioned by day, written in batches; and the exact counts of runs.

use chrono::{DateTime, Days, NaiveDate, Utc};
use picloud_shared::{AppId, AppName, RunId, RunRecord, RunStatus, TriggerName, run::RunKind};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::{Page, Store, StoreError, page::PageQuery};

/// How many buckets the histogram of durations has: bucket `i` counts runs of less than
/// 16 µs × 2^i, the last one all others.
pub const BUCKETS: usize = 24;

/// Runs of one app, kind and status in one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCount {
    /// Whose.
    pub app: AppId,
    /// The minute's beginning.
    pub minute: DateTime<Utc>,
    /// What started them.
    pub kind: RunKind,
    /// How they ended.
    pub status: RunStatus,
    /// How many.
    pub count: u64,
    /// How long all of them took together.
    pub duration_us: u64,
    /// By duration.
    pub histogram: [u64; BUCKETS],
}

/// Which runs are wanted.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this app.
    pub app: Option<AppName>,
    /// That ended so.
    pub status: Option<RunStatus>,
    /// That were started so.
    pub kind: Option<RunKind>,
    /// By this trigger.
    pub trigger: Option<String>,
    /// That this run caused.
    pub cause: Option<RunId>,
    /// That began at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// That began before this time.
    pub until: Option<DateTime<Utc>>,
}

struct Row {
    id: Uuid,
    app_id: Uuid,
    app: String,
    script: String,
    kind: String,
    trigger: Option<String>,
    route: Option<String>,
    commit: String,
    attempt: i32,
    status: String,
    started_at: DateTime<Utc>,
    duration_ms: f64,
    queue_ms: f64,
    operations: i64,
    peak_memory: i64,
    error: Option<Value>,
    logs: Value,
    dropped_logs: i64,
    cause: Option<Uuid>,
    input: Value,
}

impl TryFrom<Row> for RunRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        // The record's own serde form, so that names of fields stand in one place.
        let value = json!({
            "id": row.id, "app_id": row.app_id, "app": row.app, "script": row.script, "kind": row.kind,
            "trigger": row.trigger, "route": row.route, "commit": row.commit, "attempt": row.attempt,
            "status": row.status, "started_at": row.started_at, "duration_ms": row.duration_ms,
            "queue_ms": row.queue_ms, "operations": row.operations, "peak_memory": row.peak_memory,
            "error": row.error, "logs": row.logs, "dropped_logs": row.dropped_logs, "cause": row.cause,
            "input": row.input,
        });
        serde_json::from_value(value)
            .map_err(|error| StoreError::Corrupt(format!("runs of {}: {error}", row.id)))
    }
}

impl Store {
    /// Writes records, all in one statement.
    pub async fn insert_runs(&self, records: &[RunRecord]) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await?;
        insert(&mut connection, &records.iter().collect::<Vec<_>>()).await
    }

    /// Adds to the counts.
    pub async fn add_run_counts(&self, counts: &[RunCount]) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await?;
        add_counts(&mut connection, counts).await
    }

    /// How many runs of an app ended how, since a time.
    pub async fn count_runs(
        &self,
        app: AppId,
        since: DateTime<Utc>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT status, sum(count)::bigint AS "count!" FROM run_counts
               WHERE app_id = $1 AND minute >= $2 GROUP BY status ORDER BY status"#,
            app.0,
            since,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.status, row.count))
            .collect())
    }

    /// The record of a run.
    pub async fn run(&self, id: RunId) -> Result<Option<RunRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id, app_id, app, script, kind, trigger, route, commit, attempt, status, started_at, duration_ms,
                 queue_ms, operations, peak_memory, error AS "error: Value", logs AS "logs: Value", dropped_logs, cause,
                 input AS "input: Value" FROM runs WHERE id = $1"#,
            id.0,
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Records of runs, newest first.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        query: &PageQuery,
    ) -> Result<Page<RunRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, app_id, app, script, kind, trigger, route, commit, attempt, status, started_at, duration_ms,
                 queue_ms, operations, peak_memory, error AS "error: Value", logs AS "logs: Value", dropped_logs, cause,
                 input AS "input: Value" FROM runs
               WHERE ($1::text IS NULL OR app_id = (SELECT a.id FROM apps a WHERE a.name = $1))
                 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR kind = $3)
                 AND ($4::text IS NULL OR trigger = $4)
                 AND ($5::timestamptz IS NULL OR started_at >= $5) AND ($6::timestamptz IS NULL OR started_at < $6)
                 AND ($7::uuid IS NULL OR id < $7) AND ($9::uuid IS NULL OR cause = $9)
               ORDER BY id DESC LIMIT $8"#,
            filter.app.as_ref().map(AppName::as_str),
            filter.status.map(RunStatus::as_str),
            filter.kind.map(RunKind::as_str),
            filter.trigger,
            filter.since,
            filter.until,
            query.after()?,
            query.rows(),
            filter.cause.map(|cause| cause.0),
        )
        .fetch(self.pool());
        query.gather(rows, |record: &RunRecord| record.id.0).await
    }

    /// Makes the partitions of today and the next days, and drops those before `oldest`, whole.
    pub async fn keep_run_partitions(
        &self,
        today: NaiveDate,
        oldest: NaiveDate,
    ) -> Result<(), StoreError> {
        for ahead in 0..3 {
            let Some(day) = today.checked_add_days(Days::new(ahead)) else {
                continue;
            };
            let Some(next) = day.checked_add_days(Days::new(1)) else {
                continue;
            };
            let name = day.format("runs_%Y%m%d");
            // Names and dates come from the calendar alone.
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {name} PARTITION OF runs FOR VALUES FROM ('{day}') TO ('{next}')"
            );
            sqlx::query(AssertSqlSafe(sql)).execute(self.pool()).await?;
        }
        let limit = oldest.format("runs_%Y%m%d").to_string();
        let old = sqlx::query_scalar!(
            r#"SELECT c.relname::text AS "name!" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'runs'::regclass AND c.relname ~ '^runs_[0-9]{8}$' AND c.relname::text < $1"#,
            limit,
        )
        .fetch_all(self.pool())
        .await?;
        for name in old {
            sqlx::query(AssertSqlSafe(format!("DROP TABLE {name}")))
                .execute(self.pool())
                .await?;
        }
        let start = oldest.and_hms_opt(0, 0, 0).unwrap_or_default().and_utc();
        sqlx::query!("DELETE FROM run_counts WHERE minute < $1", start)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}

/// The bucket of a duration.
pub fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - (micros >> 4).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

/// Adds to the counts, in the order of their keys: two that add to the same don't wait for each
/// other.
pub(crate) async fn add_counts(
    connection: &mut PgConnection,
    counts: &[RunCount],
) -> Result<(), StoreError> {
    if counts.is_empty() {
        return Ok(());
    }
    let rows: Value = counts
        .iter()
        .map(|count| {
            json!({"app_id": count.app, "minute": count.minute, "kind": count.kind.as_str(),
                   "status": count.status.as_str(), "count": count.count, "duration_us": count.duration_us,
                   "histogram": count.histogram.as_slice()})
        })
        .collect();
    sqlx::query!(
        "INSERT INTO run_counts AS old
         SELECT * FROM jsonb_populate_recordset(NULL::run_counts, $1) ORDER BY app_id, minute, kind, status
         ON CONFLICT (app_id, minute, kind, status) DO UPDATE SET
             count = old.count + EXCLUDED.count, duration_us = old.duration_us + EXCLUDED.duration_us,
             histogram = ARRAY(SELECT a + b FROM unnest(old.histogram, EXCLUDED.histogram) AS both_of (a, b))",
        rows,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes records; those that are there already stay as they are.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    records: &[&RunRecord],
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let of = records;
    sqlx::query!(
        "INSERT INTO runs (id, app_id, app, script, kind, trigger, route, commit, attempt, status, started_at,
             duration_ms, queue_ms, operations, peak_memory, error, logs, dropped_logs, cause, input)
         SELECT id, app_id, app, script, kind, trigger, route, commit, attempt, status, started_at, duration_ms,
             queue_ms, operations, peak_memory, error::json, logs::json, dropped_logs, cause, input::json
         FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
             $9::integer[], $10::text[], $11::timestamptz[], $12::double precision[], $13::double precision[],
             $14::bigint[], $15::bigint[], $16::text[], $17::text[], $18::bigint[], $19::uuid[], $20::text[])
           AS r (id, app_id, app, script, kind, trigger, route, commit, attempt, status, started_at, duration_ms,
             queue_ms, operations, peak_memory, error, logs, dropped_logs, cause, input)
         ON CONFLICT DO NOTHING",
        &column(of, |run| run.id.0),
        &column(of, |run| run.app_id.0),
        &column(of, |run| run.app.as_str()) as _,
        &column(of, |run| run.script.as_str()) as _,
        &column(of, |run| run.kind.as_str()) as _,
        &column(of, |run| run.trigger.as_ref().map(TriggerName::as_str)) as _,
        &column(of, |run| run.route.as_deref()) as _,
        &column(of, |run| run.commit.as_str()) as _,
        &column(of, |run| i32::try_from(run.attempt).unwrap_or(i32::MAX)),
        &column(of, |run| run.status.as_str()) as _,
        &column(of, |run| run.started_at),
        &column(of, |run| run.duration_ms),
        &column(of, |run| run.queue_ms),
        &column(of, |run| number(run.operations)),
        &column(of, |run| number(run.peak_memory)),
        &column(of, |run| run.error.as_ref().map(text)) as _,
        &column(of, |run| text(&run.logs)),
        &column(of, |run| number(run.dropped_logs)),
        &column(of, |run| run.cause.map(|cause| cause.0)) as _,
        &column(of, |run| text(&run.input)),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// JSON as PostgreSQL's text can hold it: without U+0000, which a script may log.
fn text<T: Serialize + ?Sized>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    if text.contains("\\u0000") {
        return text.replace("\\u0000", "\\ufffd");
    }
    text
}

fn column<'a, T>(records: &[&'a RunRecord], of: impl Fn(&'a RunRecord) -> T) -> Vec<T> {
    records.iter().map(|record| of(record)).collect()
}
