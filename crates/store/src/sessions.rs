//! Sessions of the dashboard: each stands for a key, and ends with it.

use chrono::{DateTime, Utc};
use picloud_shared::KeyId;

use crate::{Store, StoreError, keys::KeyRecord};

/// A session that is open, with the key it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The key.
    pub key: KeyRecord,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
}

impl Store {
    /// Opens a session. Those whose time is over are forgotten.
    pub async fn insert_session(
        &self,
        hash: &[u8; 32],
        key: KeyId,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM sessions WHERE expires_at <= $1", now)
            .execute(self.pool())
            .await?;
        sqlx::query!(
            "INSERT INTO sessions (hash, key_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
            hash.as_slice(),
            key.0,
            now,
            expires_at,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The session with this hash, while it and its key are good; notes that the key was used.
    pub async fn use_session(
        &self,
        hash: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT k.hash, s.expires_at FROM sessions s JOIN api_keys k ON k.id = s.key_id
               WHERE s.hash = $1 AND s.expires_at > $2"#,
            hash.as_slice(),
            now,
        )
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let key: [u8; 32] = row
            .hash
            .as_slice()
            .try_into()
            .map_err(|_| StoreError::Corrupt("api_keys.hash".to_owned()))?;
        let key = self.use_key(&key, now).await?;
        Ok(key.map(|key| SessionRecord {
            key,
            expires_at: row.expires_at,
        }))
    }

    /// Ends a session; whether there was one.
    pub async fn delete_session(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let done = sqlx::query!("DELETE FROM sessions WHERE hash = $1", hash.as_slice())
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
