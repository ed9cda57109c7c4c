//! Events that were given up: kept with all that is known of them, until somebody decides.

use chrono::{DateTime, Utc};
use picloud_shared::{AppName, EventId};
use serde_json::Value;
use uuid::Uuid;

use crate::{Page, Store, StoreError, listen::OUTBOX, page::PageQuery};

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

impl Store {
    /// Dead letters, newest first.
    pub async fn dead_letters(
        &self,
        app: Option<&AppName>,
        query: &PageQuery,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let rows = sqlx::query_as!(
            DeadLetter,
            r#"SELECT d.id, a.name AS app, d.source_kind, d.trigger, d.script, d.attempts,
                 d.last_error AS "last_error: Value", d.errors AS "errors: Value", d.event AS "event: Value",
                 d.chain AS "chain: Value", d.created_at
               FROM dead_letters d JOIN apps a ON a.id = d.app_id
               WHERE ($1::text IS NULL OR a.name = $1) AND ($2::uuid IS NULL OR d.id < $2)
               ORDER BY d.id DESC LIMIT $3"#,
            app.map(AppName::as_str),
            query.after()?,
            query.rows(),
        )
        .fetch_all(self.pool())
        .await?;
        Ok(query.page(rows, |letter| letter.id))
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

    /// Puts a dead letter back into the outbox, with all its attempts before it. `false`: it is
    /// not there any more.
    pub async fn redrive(&self, id: EventId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let moved = sqlx::query!(
            "WITH gone AS (DELETE FROM dead_letters WHERE id = $1 RETURNING *)
             INSERT INTO outbox (id, app_id, source_kind, trigger_id, trigger, script, payload, chain, attempts,
                 backoff_ms, max_backoff_ms, max_concurrency, due_at, created_at)
             SELECT g.id, g.app_id, g.source_kind, t.id, g.trigger, g.script, g.event, '[]', coalesce(t.attempts, 5),
                 coalesce(t.backoff_ms, 10000), coalesce(t.max_backoff_ms, 600000), t.max_concurrency, $2, $2
             FROM gone g LEFT JOIN triggers t ON t.app_id = g.app_id AND t.name = g.trigger
             ON CONFLICT (id) DO NOTHING",
            id.0,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query("SELECT pg_notify($1, '')")
            .bind(OUTBOX)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(moved.rows_affected() > 0)
    }

    /// Discards a dead letter. `false`: it is not there any more.
    pub async fn discard(&self, id: EventId) -> Result<bool, StoreError> {
        let deleted = sqlx::query!("DELETE FROM dead_letters WHERE id = $1", id.0)
            .execute(self.pool())
            .await?;
        Ok(deleted.rows_affected() > 0)
    }
}
