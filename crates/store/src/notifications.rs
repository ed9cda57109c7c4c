//! Notifications on their way: written when something happened, gone when they are delivered or
//! given up.

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{AppName, SourceName};
use serde_json::Value;
use uuid::Uuid;

use crate::{Store, StoreError};

/// A notification to be delivered.
#[derive(Debug, Clone)]
pub struct DueNotification {
    /// Its id: the same on every attempt.
    pub id: Uuid,
    /// Whose.
    pub source: String,
    /// `failed`, `synced`, `drifted`, `healed`.
    pub event: String,
    /// Where to, sealed or plain.
    pub url: String,
    /// `json`, `slack`, `discord`.
    pub format: String,
    /// What happened.
    pub payload: Value,
    /// From 1.
    pub attempt: i32,
}

impl Store {
    /// Keeps whom a source wants to be told.
    pub async fn set_notifications(
        &self,
        source: &SourceName,
        wanted: &Value,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sources SET notifications = $2 WHERE name = $1 AND notifications <> $2",
            source.as_str(),
            wanted,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Whose app that is.
    pub async fn source_of_app(&self, app: &AppName) -> Result<Option<SourceName>, StoreError> {
        let name = sqlx::query_scalar!(
            "SELECT s.name FROM sources s JOIN apps a ON a.source_id = s.id WHERE a.name = $1",
            app.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        let parsed = name.map(|name| name.parse()).transpose();
        parsed.map_err(|_| StoreError::Corrupt("sources.name".to_owned()))
    }

    /// Writes a notification for each entry of the source that is about this; gives how many.
    pub async fn add_notifications(
        &self,
        source: &SourceName,
        event: &str,
        payload: &Value,
        new_id: &(dyn Fn() -> Uuid + Sync),
        now: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        let wanted = sqlx::query!(
            r#"SELECT s.id, w ->> 'url' AS "url!", w ->> 'format' AS "format!"
               FROM sources s, jsonb_array_elements(s.notifications) w
               WHERE s.name = $1 AND w -> 'on' ? $2"#,
            source.as_str(),
            event,
        )
        .fetch_all(self.pool())
        .await?;
        for row in &wanted {
            sqlx::query!(
                "INSERT INTO notifications (id, source_id, event, url, format, payload, due_at, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
                new_id(),
                row.id,
                event,
                row.url,
                row.format,
                sqlx::types::Json(payload) as _,
                now,
            )
            .execute(self.pool())
            .await?;
        }
        Ok(wanted.len())
    }

    /// Takes what is due: nobody else takes it before `hold` is over.
    pub async fn take_notifications(
        &self,
        now: DateTime<Utc>,
        hold: TimeDelta,
    ) -> Result<Vec<DueNotification>, StoreError> {
        let rows = sqlx::query_as!(
            DueNotification,
            r#"UPDATE notifications n SET due_at = $2 FROM sources s
               WHERE s.id = n.source_id AND n.id IN (
                 SELECT id FROM notifications WHERE due_at <= $1 ORDER BY due_at LIMIT 20 FOR UPDATE SKIP LOCKED)
               RETURNING n.id, s.name AS source, n.event, n.url, n.format, n.payload AS "payload: Value", n.attempt"#,
            now,
            now + hold,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows)
    }

    /// A notification is delivered, or given up.
    pub async fn end_notification(&self, id: Uuid) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM notifications WHERE id = $1", id)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// A notification is to be tried again, then.
    pub async fn retry_notification(
        &self,
        id: Uuid,
        due_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE notifications SET attempt = attempt + 1, due_at = $2 WHERE id = $1",
            id,
            due_at,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// When the next notification is due.
    pub async fn next_notification(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let next = sqlx::query_scalar!("SELECT min(due_at) FROM notifications")
            .fetch_one(self.pool())
            .await?;
        Ok(next)
    }
}
