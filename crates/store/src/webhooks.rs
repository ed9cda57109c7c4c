//! Webhook deliveries: whose secret signs them, and what was answered.

use chrono::{DateTime, Utc};
use picloud_shared::{SourceId, SourceName, sdk::SecretValue};
use serde_json::Value;

use crate::{Store, StoreError};

/// A source, as far as its webhooks need it.
#[derive(Debug, Clone)]
pub struct WebhookSource {
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: SourceName,
    /// The secrets that a delivery may be signed with: the current one, and the one before.
    pub secrets: Vec<SecretValue>,
    /// `github`, `gitlab`, …, where the source says.
    pub forge: Option<String>,
}

impl Store {
    /// The source of that name, with the secrets of its webhooks.
    pub async fn webhook_source(
        &self,
        name: &SourceName,
    ) -> Result<Option<WebhookSource>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT id, webhook_secret, previous_webhook_secret, forge AS "forge: Value"
               FROM sources WHERE name = $1"#,
            name.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let secrets = [row.webhook_secret, row.previous_webhook_secret]
            .into_iter()
            .flatten()
            .map(|bytes| {
                let text = String::from_utf8(bytes).map_err(|_| {
                    StoreError::Corrupt(format!("sources.webhook_secret of {name}"))
                })?;
                self.sealing.open(&text)
            })
            .collect::<Result<_, _>>()?;
        let forge = row.forge.as_ref().and_then(|forge| forge["kind"].as_str());
        Ok(Some(WebhookSource {
            id: row.id.into(),
            name: name.clone(),
            secrets,
            forge: forge.map(str::to_owned),
        }))
    }

    /// Sets the secret that is accepted beside the current one; `None`: no other.
    pub async fn set_previous_webhook_secret(
        &self,
        id: SourceId,
        secret: Option<&SecretValue>,
    ) -> Result<(), StoreError> {
        let secret = secret.map(|secret| self.sealing.seal(secret)).transpose()?;
        sqlx::query!(
            "UPDATE sources SET previous_webhook_secret = $2 WHERE id = $1",
            id.0,
            secret.map(String::into_bytes),
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// What was answered to a delivery that was seen before.
    pub async fn webhook_answer(
        &self,
        id: SourceId,
        delivery: &str,
    ) -> Result<Option<Value>, StoreError> {
        let answer = sqlx::query_scalar!(
            r#"SELECT answer AS "answer: Value" FROM webhook_deliveries WHERE source_id = $1 AND delivery = $2"#,
            id.0,
            delivery,
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(answer)
    }

    /// Remembers what was answered to a delivery. The first answer stays.
    pub async fn remember_webhook(
        &self,
        id: SourceId,
        delivery: &str,
        answer: &Value,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO webhook_deliveries (source_id, delivery, received_at, answer) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            id.0,
            delivery,
            now,
            answer,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Forgets deliveries that came before an instant; gives how many.
    pub async fn forget_webhooks(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM webhook_deliveries WHERE received_at < $1",
            before
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected())
    }
}
