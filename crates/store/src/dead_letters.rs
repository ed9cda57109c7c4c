//! Events that were given up: kept with all that is known of them, until somebody decides.

use chrono::{DateTime, Utc};
use picloud_shared::{AppName, EventId};
use serde_json::Value;
use uuid::Uuid;

use crate::{Page, Store, StoreError, page::PageQuery};

/// A dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The event's id.
    pub id: Uuid,
    /// The app's name.
    pub app: String,
    /// What kind of event.
    pub source_kind: String,
    /// The trigger behind it.
    pub trigger: Option<String>,
    /// The handler.
    pub script: String,
    /// How many attempts were made.
    pub attempts: i32,
    /// The last attempt's error.
    pub last_error: Option<Value>,
    /// Those of all attempts.
    pub errors: Value,
    /// The kind's own fields.
    pub event: Value,
    /// The runs that led to it.
    pub chain: Value,
    /// When it was given up.
    pub created_at: DateTime<Utc>,
}

/// Which dead letters are wanted.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Of this app.
    pub app: Option<AppName>,
    /// Of this trigger.
    pub trigger: Option<String>,
    /// Of this kind of event.
    pub source_kind: Option<String>,
    /// That were given up at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// That were given up before this time.
    pub until: Option<DateTime<Utc>>,
}

impl Store {
    /// Dead letters, newest first.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        query: &PageQuery,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let rows = sqlx::query_as!(
            DeadLetter,
            r#"SELECT d.id, a.name AS app, d.source_kind, d.trigger, d.script, d.attempts,
                 d.last_error AS "last_error: Value", d.errors AS "errors: Value", d.event AS "event: Value",
                 d.chain AS "chain: Value", d.created_at
               FROM dead_letters d JOIN apps a ON a.id = d.app_id
               WHERE ($1::text IS NULL OR a.name = $1) AND ($2::uuid IS NULL OR d.id < $2)
                 AND ($4::text IS NULL OR d.trigger = $4) AND ($5::text IS NULL OR d.source_kind = $5)
                 AND ($6::timestamptz IS NULL OR d.created_at >= $6) AND ($7::timestamptz IS NULL OR d.created_at < $7)
               ORDER BY d.id DESC LIMIT $3"#,
            filter.app.as_ref().map(AppName::as_str),
            query.after()?,
            query.rows(),
            filter.trigger,
            filter.source_kind,
            filter.since,
            filter.until,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(query.page(rows, |letter| letter.id))
    }

    /// How many dead letters there are of an app or of all; counted up to `most`.
    pub async fn count_dead_letters(
        &self,
        app: Option<&AppName>,
        most: i64,
    ) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (
                 SELECT 1 AS one FROM dead_letters d
                 WHERE $1::text IS NULL OR d.app_id = (SELECT a.id FROM apps a WHERE a.name = $1) LIMIT $2) AS counted"#,
            app.map(AppName::as_str),
            most,
        )
        .fetch_one(self.pool())
        .await?;
        Ok(count.unsigned_abs())
    }

    /// The dead letter of that id.
    pub async fn dead_letter(&self, id: EventId) -> Result<Option<DeadLetter>, StoreError> {
        let row = sqlx::query_as!(
            DeadLetter,
            r#"SELECT d.id, a.name AS app, d.source_kind, d.trigger, d.script, d.attempts,
                 d.last_error AS "last_error: Value", d.errors AS "errors: Value", d.event AS "event: Value",
                 d.chain AS "chain: Value", d.created_at
               FROM dead_letters d JOIN apps a ON a.id = d.app_id WHERE d.id = $1"#,
            id.0,
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row)
    }

    /// Puts dead letters back into the outbox, as events of the trigger of that name where there is
    /// one. Each begins anew, with all its attempts before it; the errors of the earlier ones stay. Gives those that were still there.
    pub async fn redrive(&self, ids: &[Uuid], now: DateTime<Utc>) -> Result<Vec<Uuid>, StoreError> {
        let moved = sqlx::query_scalar!(
            "WITH gone AS (DELETE FROM dead_letters WHERE id = ANY($1) RETURNING *)
             INSERT INTO outbox (id, app_id, source_kind, trigger_id, trigger, script, payload, cause, chain, errors,
                 attempts, backoff_ms, max_backoff_ms, max_concurrency, ordered, held, due_at, created_at)
             SELECT g.id, g.app_id, g.source_kind, t.id, g.trigger, g.script, g.event, g.cause, '[]', g.errors,
                 coalesce(t.attempts, 5), coalesce(t.backoff_ms, 10000), coalesce(t.max_backoff_ms, 600000),
                 t.max_concurrency, c.overlap IS NOT DISTINCT FROM 'queue',
                 t.max_concurrency IS NOT NULL OR c.overlap IS NOT DISTINCT FROM 'queue', $2, $2
             FROM gone g LEFT JOIN triggers t ON t.app_id = g.app_id AND t.name = g.trigger AND t.kind = g.source_kind
               LEFT JOIN cron_trigger_details c ON c.trigger_id = t.id
             ORDER BY g.id
             ON CONFLICT (id) DO NOTHING RETURNING id",
            ids,
            now,
        )
        .fetch_all(self.pool())
        .await?;
        self.outbox_written();
        Ok(moved)
    }

    /// The ids of at most `limit` dead letters, oldest first.
    pub async fn dead_letter_ids(
        &self,
        filter: &DeadLetterFilter,
        limit: i64,
    ) -> Result<Vec<Uuid>, StoreError> {
        let ids = sqlx::query_scalar!(
            "SELECT d.id FROM dead_letters d JOIN apps a ON a.id = d.app_id
             WHERE ($1::text IS NULL OR a.name = $1) AND ($2::text IS NULL OR d.trigger = $2)
               AND ($3::text IS NULL OR d.source_kind = $3)
               AND ($4::timestamptz IS NULL OR d.created_at >= $4) AND ($5::timestamptz IS NULL OR d.created_at < $5)
             ORDER BY d.id LIMIT $6",
            filter.app.as_ref().map(AppName::as_str),
            filter.trigger,
            filter.source_kind,
            filter.since,
            filter.until,
            limit,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(ids)
    }

    /// Discards a dead letter. `false`: it is not there any more.
    pub async fn discard(&self, id: EventId) -> Result<bool, StoreError> {
        let deleted = sqlx::query!("DELETE FROM dead_letters WHERE id = $1", id.0)
            .execute(self.pool())
            .await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// Discards dead letters; gives how many there were.
    pub async fn discard_many(&self, ids: &[Uuid]) -> Result<u64, StoreError> {
        let deleted = sqlx::query!("DELETE FROM dead_letters WHERE id = ANY($1)", ids)
            .execute(self.pool())
            .await?;
        Ok(deleted.rows_affected())
    }
}
