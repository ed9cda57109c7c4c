//! Triggers that are changed live: every change leaves its trace as an edit, and shows as drift.

use picloud_shared::{
    AppId, TriggerId, TriggerName,
    app::{TriggerSpec, to_value},
};
use serde_json::json;
use uuid::Uuid;

use crate::{Store, StoreError, apply::rows};

impl Store {
    /// The id of an app's trigger.
    pub async fn trigger_id(
        &self,
        app: AppId,
        name: &TriggerName,
    ) -> Result<Option<TriggerId>, StoreError> {
        let id = sqlx::query_scalar!(
            "SELECT id FROM triggers WHERE app_id = $1 AND name = $2",
            app.0,
            name.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(id.map(Into::into))
    }

    /// Writes a trigger; `None` where there is one of that name and it isn't to be replaced.
    pub async fn put_trigger(
        &self,
        app: AppId,
        name: &TriggerName,
        spec: &TriggerSpec,
        new_id: Uuid,
        replace: bool,
    ) -> Result<Option<TriggerId>, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let id = sqlx::query_scalar!(
            "INSERT INTO triggers (id, app_id, name, kind, script, enabled, attempts, backoff_ms, max_backoff_ms,
                 max_concurrency, limits)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (app_id, name) DO UPDATE SET script = EXCLUDED.script, enabled = EXCLUDED.enabled,
                 attempts = EXCLUDED.attempts, backoff_ms = EXCLUDED.backoff_ms,
                 max_backoff_ms = EXCLUDED.max_backoff_ms, max_concurrency = EXCLUDED.max_concurrency,
                 limits = EXCLUDED.limits
               WHERE $12 AND triggers.kind = EXCLUDED.kind
             RETURNING id",
            new_id,
            app.0,
            name.as_str(),
            spec.kind.name(),
            spec.script.as_str(),
            spec.enabled,
            i32::try_from(spec.retry.attempts).unwrap_or(i32::MAX),
            i64::try_from(spec.retry.backoff_ms).unwrap_or(i64::MAX),
            i64::try_from(spec.retry.max_backoff_ms).unwrap_or(i64::MAX),
            spec.max_concurrency.map(|most| i32::try_from(most).unwrap_or(i32::MAX)),
            to_value(&spec.limits),
            replace,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(id) = id else { return Ok(None) };
        let mut detail = to_value(&spec.kind);
        detail["app_id"] = json!(app);
        detail["name"] = json!(name);
        rows::write_details(&mut transaction, &json!([detail])).await?;
        transaction.commit().await?;
        Ok(Some(id.into()))
    }

    /// Removes a trigger.
    pub async fn delete_trigger(&self, id: TriggerId) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM triggers WHERE id = $1", id.0)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
