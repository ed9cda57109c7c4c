//! What the exact counts of runs say: over an app or all of them, in time buckets.

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{AppId, RunStatus, run::RunKind};

use crate::{Store, StoreError, runs::BUCKETS};

/// Runs of one kind and status in one time bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatCell {
    /// The bucket's beginning.
    pub at: DateTime<Utc>,
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

impl Store {
    /// Counts since a time, in buckets of so many minutes, oldest first; of one app or of all.
    pub async fn run_stats(
        &self,
        app: Option<AppId>,
        since: DateTime<Utc>,
        bucket_minutes: i32,
    ) -> Result<Vec<StatCell>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT date_bin(make_interval(mins => $3), minute, 'epoch'::timestamptz) AS "at!", kind, status,
                 sum(count)::bigint AS "count!", sum(duration_us)::bigint AS "duration_us!",
                 ARRAY[sum(histogram[1])::bigint, sum(histogram[2])::bigint, sum(histogram[3])::bigint,
                     sum(histogram[4])::bigint, sum(histogram[5])::bigint, sum(histogram[6])::bigint,
                     sum(histogram[7])::bigint, sum(histogram[8])::bigint, sum(histogram[9])::bigint,
                     sum(histogram[10])::bigint, sum(histogram[11])::bigint, sum(histogram[12])::bigint,
                     sum(histogram[13])::bigint, sum(histogram[14])::bigint, sum(histogram[15])::bigint,
                     sum(histogram[16])::bigint, sum(histogram[17])::bigint, sum(histogram[18])::bigint,
                     sum(histogram[19])::bigint, sum(histogram[20])::bigint, sum(histogram[21])::bigint,
                     sum(histogram[22])::bigint, sum(histogram[23])::bigint, sum(histogram[24])::bigint] AS "histogram!: Vec<Option<i64>>"
               FROM run_counts WHERE ($1::uuid IS NULL OR app_id = $1) AND minute >= $2
               GROUP BY 1, kind, status ORDER BY 1, kind, status"#,
            app.map(|app| app.0),
            since,
            bucket_minutes,
        )
        .fetch_all(self.pool())
        .await?;
        let mut cells = Vec::with_capacity(rows.len());
        for row in rows {
            let corrupt = |what: &str| StoreError::Corrupt(format!("run_counts.{what}"));
            cells.push(StatCell {
                at: row.at,
                kind: RunKind::parse(&row.kind).ok_or_else(|| corrupt("kind"))?,
                status: RunStatus::parse(&row.status).ok_or_else(|| corrupt("status"))?,
                count: row.count.unsigned_abs(),
                duration_us: row.duration_us.unsigned_abs(),
                histogram: std::array::from_fn(|bucket| {
                    let count = row.histogram.get(bucket).copied().flatten();
                    count.unwrap_or_default().unsigned_abs()
                }),
            });
        }
        Ok(cells)
    }

    /// How many runs of each app ended how, since a time.
    pub async fn count_runs_by_app(
        &self,
        since: DateTime<Utc>,
    ) -> Result<Vec<(AppId, RunStatus, u64)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT app_id, status, sum(count)::bigint AS "count!" FROM run_counts
               WHERE minute >= $1 GROUP BY app_id, status"#,
            since,
        )
        .fetch_all(self.pool())
        .await?;
        let known = |row: &str| RunStatus::parse(row);
        Ok(rows
            .iter()
            .filter_map(|row| {
                let status = known(&row.status)?;
                Some((row.app_id.into(), status, row.count.unsigned_abs()))
            })
            .collect())
    }

    /// Adds the minutes of before a time up into hours: exact as before, sixty times fewer.
    pub async fn roll_up_run_counts(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let before = before - TimeDelta::seconds(before.timestamp() % 3600);
        let done = sqlx::query!(
            r#"WITH old AS (
                   DELETE FROM run_counts WHERE minute < $1 AND minute <> date_trunc('hour', minute, 'UTC')
                   RETURNING *
               ), hours AS (
                   SELECT app_id, date_trunc('hour', minute, 'UTC') AS hour, kind, status,
                       sum(count)::bigint AS count, sum(duration_us)::bigint AS duration_us,
                       ARRAY[sum(histogram[1])::bigint, sum(histogram[2])::bigint, sum(histogram[3])::bigint,
                           sum(histogram[4])::bigint, sum(histogram[5])::bigint, sum(histogram[6])::bigint,
                           sum(histogram[7])::bigint, sum(histogram[8])::bigint, sum(histogram[9])::bigint,
                           sum(histogram[10])::bigint, sum(histogram[11])::bigint, sum(histogram[12])::bigint,
                           sum(histogram[13])::bigint, sum(histogram[14])::bigint, sum(histogram[15])::bigint,
                           sum(histogram[16])::bigint, sum(histogram[17])::bigint, sum(histogram[18])::bigint,
                           sum(histogram[19])::bigint, sum(histogram[20])::bigint, sum(histogram[21])::bigint,
                           sum(histogram[22])::bigint, sum(histogram[23])::bigint, sum(histogram[24])::bigint] AS histogram
                   FROM old GROUP BY 1, 2, 3, 4
               )
               INSERT INTO run_counts AS kept (app_id, minute, kind, status, count, duration_us, histogram)
               SELECT app_id, hour, kind, status, count, duration_us, histogram FROM hours
               ON CONFLICT (app_id, minute, kind, status) DO UPDATE SET
                   count = kept.count + EXCLUDED.count, duration_us = kept.duration_us + EXCLUDED.duration_us,
                   histogram = ARRAY(SELECT a + b FROM unnest(kept.histogram, EXCLUDED.histogram) AS both_of (a, b))"#,
            before,
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected())
    }
}
