//! The data of apps that git has had no longer for a long time.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{Store, StoreError};

/// Rows that are removed at once: nobody waits long for the locks.
const BATCH: i64 = 2_000;

impl Store {
    /// Removes apps that were pruned before that time, with all their data, in small steps. Gives
    /// how many there were. One that comes back in between stays.
    pub async fn purge_pruned(&self, before: DateTime<Utc>) -> Result<usize, StoreError> {
        let apps = sqlx::query_scalar!("SELECT id FROM apps WHERE pruned_at < $1", before)
            .fetch_all(self.pool())
            .await?;
        for app in &apps {
            while self.purge_data(*app, before).await? > 0 {}
            let mut transaction = self.pool().begin().await?;
            // Nothing live changes.
            sqlx::query("SET LOCAL picloud.applying = 'on'")
                .execute(&mut *transaction)
                .await?;
            sqlx::query!(
                "DELETE FROM apps WHERE id = $1 AND pruned_at < $2",
                app,
                before
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
        }
        Ok(apps.len())
    }

    /// Removes some of an app's data; gives how much.
    async fn purge_data(&self, app: Uuid, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let kv = sqlx::query!(
            "DELETE FROM kv WHERE ctid = ANY (ARRAY(
               SELECT k.ctid FROM kv k JOIN apps a ON a.id = k.app_id
               WHERE k.app_id = $1 AND a.pruned_at < $2 LIMIT $3))",
            app,
            before,
            BATCH,
        )
        .execute(self.pool())
        .await?;
        let docs = sqlx::query!(
            "DELETE FROM docs WHERE ctid = ANY (ARRAY(
               SELECT d.ctid FROM docs d JOIN apps a ON a.id = d.app_id
               WHERE d.app_id = $1 AND a.pruned_at < $2 LIMIT $3))",
            app,
            before,
            BATCH,
        )
        .execute(self.pool())
        .await?;
        Ok(kv.rows_affected() + docs.rows_affected())
    }
}
