//! Ways in that are under way: to an identity provider and back, and of programs that wait for a
//! person's word.

use chrono::{DateTime, Utc};
use picloud_shared::{AppId, KeyId, Scope};

use crate::{Store, StoreError, keys::NewKey, people::words};

/// Logins of one sort that may be under way at once.
const MAX_UNDER_WAY: i64 = 10_000;

/// What is kept while somebody is at the identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderLogin {
    /// Must come back in the ID token.
    pub nonce: String,
    /// Proves that who began it ends it (RFC 7636).
    pub verifier: String,
    /// Where they wanted to go.
    pub next: String,
}

/// A program that waits for a person's word (RFC 8628).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceLogin {
    /// What the program calls itself.
    pub name: String,
    /// Where it asked from.
    pub address: Option<String>,
    /// What it asked to be let do; empty: whatever the person may.
    pub scopes: Vec<Scope>,
    /// When it asked.
    pub created_at: DateTime<Utc>,
    /// When it is too late.
    pub expires_at: DateTime<Utc>,
}

/// What a person lets a program have.
#[derive(Debug, Clone)]
pub struct DeviceGrant<'a> {
    /// What its key may do.
    pub scopes: &'a [Scope],
    /// The only app that the key may touch.
    pub app: Option<AppId>,
    /// With what the person came: the key ends with it.
    pub parent: KeyId,
    /// When the key ends.
    pub expires_at: DateTime<Utc>,
}

/// What a program hears that asks for its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceAnswer {
    /// Nobody said anything yet.
    Pending,
    /// It asks more often than it was told to.
    TooFast,
    /// A person said no.
    Denied,
    /// There is no such login, or its time is over.
    Gone,
    /// A person said yes: this is what the key that was written may do.
    Granted {
        /// What its key may do.
        scopes: Vec<Scope>,
        /// The only app's name.
        app: Option<String>,
        /// When it ends.
        expires_at: DateTime<Utc>,
        /// The key's name.
        name: String,
    },
}

impl Store {
    /// Notes that somebody goes to the identity provider; `false` where too many are on their way.
    pub async fn begin_provider_login(
        &self,
        state: &[u8; 32],
        login: &ProviderLogin,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        sqlx::query!("DELETE FROM provider_logins WHERE expires_at <= $1", now)
            .execute(self.pool())
            .await?;
        let done = sqlx::query!(
            "INSERT INTO provider_logins (state_hash, nonce, verifier, next, expires_at)
             SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM provider_logins) < $6",
            state.as_slice(),
            login.nonce,
            login.verifier,
            login.next,
            expires_at,
            MAX_UNDER_WAY,
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes what was kept of a login, once.
    pub async fn end_provider_login(
        &self,
        state: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<ProviderLogin>, StoreError> {
        let row = sqlx::query!(
            "DELETE FROM provider_logins WHERE state_hash = $1 RETURNING nonce, verifier, next, expires_at",
            state.as_slice(),
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row
            .filter(|row| row.expires_at > now)
            .map(|row| ProviderLogin {
                nonce: row.nonce,
                verifier: row.verifier,
                next: row.next,
            }))
    }

    /// Notes that a program waits for a person's word; `false` where too many do, or the code is
    /// another's.
    pub async fn begin_device_login(
        &self,
        device: &[u8; 32],
        code: &str,
        login: &DeviceLogin,
    ) -> Result<bool, StoreError> {
        sqlx::query!(
            "DELETE FROM device_logins WHERE expires_at <= $1",
            login.created_at
        )
        .execute(self.pool())
        .await?;
        let done = sqlx::query!(
            "INSERT INTO device_logins (device_hash, user_code, name, address, wanted, created_at, expires_at)
             SELECT $1, $2, $3, $4, $5, $6, $7 WHERE (SELECT count(*) FROM device_logins) < $8
             ON CONFLICT DO NOTHING",
            device.as_slice(),
            code,
            login.name,
            login.address,
            &words(&login.scopes),
            login.created_at,
            login.expires_at,
            MAX_UNDER_WAY,
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// What waits under a code, while nobody decided.
    pub async fn device_login(
        &self,
        code: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<DeviceLogin>, StoreError> {
        let row = sqlx::query!(
            "SELECT name, address, wanted, created_at, expires_at FROM device_logins
             WHERE user_code = $1 AND expires_at > $2 AND decided IS NULL",
            code,
            now,
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| DeviceLogin {
            name: row.name,
            address: row.address,
            scopes: row
                .wanted
                .iter()
                .filter_map(|word| Scope::parse(word))
                .collect(),
            created_at: row.created_at,
            expires_at: row.expires_at,
        }))
    }

    /// A person's word, yes with what is granted or no; whether somebody waited for it.
    pub async fn decide_device_login(
        &self,
        code: &str,
        grant: Option<&DeviceGrant<'_>>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let scopes = grant.map(|grant| words(grant.scopes));
        let done = sqlx::query!(
            "UPDATE device_logins SET decided = $2, scopes = $3, app_id = $4, parent_id = $5, key_expires_at = $6
             WHERE user_code = $1 AND expires_at > $7 AND decided IS NULL",
            code,
            grant.is_some(),
            scopes.as_deref(),
            grant.and_then(|grant| grant.app).map(|app| app.0),
            grant.map(|grant| grant.parent.0),
            grant.map(|grant| grant.expires_at),
            now,
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// What a waiting program hears. Where a person said yes, the key is written and the login is
    /// over; `key` is what is to be written: its id, hash and prefix.
    pub async fn ask_device_login(
        &self,
        device: &[u8; 32],
        key: &NewKey<'_>,
        now: DateTime<Utc>,
        fastest: chrono::TimeDelta,
    ) -> Result<DeviceAnswer, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let row = sqlx::query!(
            r#"SELECT l.user_code, l.name, l.decided, l.scopes, l.app_id, a.name AS "app?", l.parent_id,
                 l.key_expires_at, l.expires_at, l.asked_at
               FROM device_logins l LEFT JOIN apps a ON a.id = l.app_id
               WHERE l.device_hash = $1 FOR UPDATE OF l"#,
            device.as_slice(),
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row.filter(|row| row.expires_at > now) else {
            return Ok(DeviceAnswer::Gone);
        };
        let too_fast = row.asked_at.is_some_and(|asked| now - asked < fastest);
        let Some(yes) = row.decided else {
            sqlx::query!(
                "UPDATE device_logins SET asked_at = $2 WHERE device_hash = $1",
                device.as_slice(),
                now,
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            let answer = if too_fast {
                DeviceAnswer::TooFast
            } else {
                DeviceAnswer::Pending
            };
            return Ok(answer);
        };
        sqlx::query!(
            "DELETE FROM device_logins WHERE device_hash = $1",
            device.as_slice()
        )
        .execute(&mut *transaction)
        .await?;
        let (true, Some(scopes), Some(expires_at)) = (yes, row.scopes, row.key_expires_at) else {
            transaction.commit().await?;
            return Ok(DeviceAnswer::Denied);
        };
        // The parent may have been revoked since the person said yes.
        let name = format!("{} ({})", row.name, key.prefix);
        let done = sqlx::query!(
            "INSERT INTO api_keys (id, name, hash, prefix, scopes, app_id, created_at, expires_at, parent_id, person_id)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, p.id, p.person_id FROM api_keys p
             WHERE p.id = $9 AND p.revoked_at IS NULL AND (p.expires_at IS NULL OR p.expires_at > $7)",
            key.id.0,
            name,
            key.hash.as_slice(),
            key.prefix,
            &scopes,
            row.app_id,
            now,
            expires_at,
            row.parent_id,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if done.rows_affected() == 0 {
            return Ok(DeviceAnswer::Denied);
        }
        Ok(DeviceAnswer::Granted {
            scopes: scopes
                .iter()
                .filter_map(|word| Scope::parse(word))
                .collect(),
            app: row.app,
            expires_at,
            name,
        })
    }
}
