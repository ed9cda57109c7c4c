//! What the exact counts of runs say of each of several apps, asked for at once.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use picloud_shared::{AppId, RunStatus};

use crate::{Store, StoreError, runs::BUCKETS};

/// Runs of one app since a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppStats {
    /// Those of each time bucket that has any: its beginning, all, and those that failed.
    pub cells: Vec<(DateTime<Utc>, u64, u64)>,
    /// How long all of them took together.
    pub duration_us: u64,
    /// By duration.
    pub histogram: [u64; BUCKETS],
}

impl Store {
    /// Counts of these apps since a time, in buckets of so many minutes. Apps that ran nothing are
    /// absent.
    pub async fn stats_by_app(
        &self,
        apps: &[AppId],
        since: DateTime<Utc>,
        bucket_minutes: i32,
    ) -> Result<HashMap<AppId, AppStats>, StoreError> {
        let ids: Vec<uuid::Uuid> = apps.iter().map(|app| app.0).collect();
        let failed: Vec<String> = RunStatus::ALL
            .iter()
            .filter(|status| !matches!(status, RunStatus::Ok | RunStatus::Skipped))
            .map(|status| status.as_str().to_owned())
            .collect();
        let mut found: HashMap<AppId, AppStats> = HashMap::new();
        let cells = sqlx::query!(
            r#"SELECT app_id, date_bin(make_interval(mins => $3), minute, 'epoch'::timestamptz) AS "at!",
                 sum(count)::bigint AS "count!",
                 coalesce(sum(count) FILTER (WHERE status = ANY ($4)), 0)::bigint AS "failed!"
               FROM run_counts WHERE app_id = ANY ($1) AND minute >= $2
               GROUP BY 1, 2 ORDER BY 1, 2"#,
            &ids,
            since,
            bucket_minutes,
            &failed,
        )
        .fetch_all(self.pool())
        .await?;
        for row in cells {
            let of = found.entry(row.app_id.into()).or_default();
            of.cells
                .push((row.at, row.count.unsigned_abs(), row.failed.unsigned_abs()));
        }
        let sums = sqlx::query!(
            r#"SELECT app_id, sum(duration_us)::bigint AS "duration_us!",
                 ARRAY[sum(histogram[1])::bigint, sum(histogram[2])::bigint, sum(histogram[3])::bigint,
                     sum(histogram[4])::bigint, sum(histogram[5])::bigint, sum(histogram[6])::bigint,
                     sum(histogram[7])::bigint, sum(histogram[8])::bigint, sum(histogram[9])::bigint,
                     sum(histogram[10])::bigint, sum(histogram[11])::bigint, sum(histogram[12])::bigint,
                     sum(histogram[13])::bigint, sum(histogram[14])::bigint, sum(histogram[15])::bigint,
                     sum(histogram[16])::bigint, sum(histogram[17])::bigint, sum(histogram[18])::bigint,
                     sum(histogram[19])::bigint, sum(histogram[20])::bigint, sum(histogram[21])::bigint,
                     sum(histogram[22])::bigint, sum(histogram[23])::bigint, sum(histogram[24])::bigint] AS "histogram!: Vec<Option<i64>>"
               FROM run_counts WHERE app_id = ANY ($1) AND minute >= $2 GROUP BY 1"#,
            &ids,
            since,
        )
        .fetch_all(self.pool())
        .await?;
        for row in sums {
            let of = found.entry(row.app_id.into()).or_default();
            of.duration_us = row.duration_us.unsigned_abs();
            of.histogram = std::array::from_fn(|bucket| {
                let count = row.histogram.get(bucket).copied().flatten();
                count.unwrap_or_default().unsigned_abs()
            });
        }
        Ok(found)
    }
}
