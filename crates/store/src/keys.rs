//! API keys and the audit log.

use chrono::{DateTime, Utc};
use picloud_shared::{AppId, AppName, KeyGrant, KeyId, Scope};
use uuid::Uuid;

use crate::{Page, Store, StoreError, page::PageQuery};

/// A key, without what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// What it may do.
    pub grant: KeyGrant,
    /// The first characters, by which a person knows it.
    pub prefix: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Whose it is, where an identity provider said so.
    pub person: Option<KeyPerson>,
}

/// Whose a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPerson {
    /// Ours.
    pub id: Uuid,
    /// The identity provider.
    pub issuer: String,
    /// By which the provider knows them.
    pub subject: String,
    /// Where the provider tells it.
    pub email: Option<String>,
    /// What they were when they last signed in.
    pub role: String,
}

/// A key to be written.
#[derive(Debug)]
pub struct NewKey<'a> {
    /// Its id.
    pub id: KeyId,
    /// For people.
    pub name: &'a str,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// The first characters.
    pub prefix: &'a str,
    /// What it may do.
    pub scopes: &'a [Scope],
    /// The only app that it may touch.
    pub app: Option<AppId>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

struct Row {
    id: Uuid,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    app_id: Option<Uuid>,
    app: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    person: Option<Uuid>,
    issuer: Option<String>,
    subject: Option<String>,
    email: Option<String>,
    role: Option<String>,
}

impl TryFrom<Row> for KeyRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt(format!("api_keys of {}", row.id));
        let app = match (row.app_id, row.app.as_deref()) {
            (Some(id), Some(name)) => {
                Some((id.into(), name.parse::<AppName>().map_err(|_| corrupt())?))
            }
            (None, None) => None,
            _ => return Err(corrupt()),
        };
        let person = match (row.person, row.issuer, row.subject, row.role) {
            (Some(id), Some(issuer), Some(subject), Some(role)) => Some(KeyPerson {
                id,
                issuer,
                subject,
                email: row.email,
                role,
            }),
            _ => None,
        };
        let scopes: Option<Vec<Scope>> = row.scopes.iter().map(|word| Scope::parse(word)).collect();
        Ok(Self {
            grant: KeyGrant {
                id: row.id.into(),
                name: row.name.clone(),
                scopes: scopes.ok_or_else(corrupt)?,
                app,
            },
            prefix: row.prefix,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
            person,
        })
    }
}

impl Store {
    /// The key with this hash, unless it is revoked or has ended; notes that it was used.
    pub async fn use_key(
        &self,
        hash: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<KeyRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT k.id, k.name, k.prefix, k.scopes, k.app_id AS "app_id?", a.name AS "app?", k.created_at,
                 k.expires_at, k.last_used_at, k.revoked_at, k.person_id AS person, p.issuer AS "issuer?",
                 p.subject AS "subject?", p.email, p.role AS "role?"
               FROM api_keys k LEFT JOIN apps a ON a.id = k.app_id LEFT JOIN people p ON p.id = k.person_id
               WHERE k.hash = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)"#,
            hash.as_slice(),
            now,
        )
        .fetch_optional(self.pool())
        .await?;
        let record: Option<KeyRecord> = row.map(TryInto::try_into).transpose()?;
        if let Some(record) = &record {
            let stale = record
                .last_used_at
                .is_none_or(|used| (now - used).num_seconds() >= 60);
            if stale {
                sqlx::query!(
                    "UPDATE api_keys SET last_used_at = $2 WHERE id = $1",
                    record.grant.id.0,
                    now
                )
                .execute(self.pool())
                .await?;
            }
        }
        Ok(record)
    }

    /// What a key may do, unless it is revoked or has ended.
    pub async fn key_grant(
        &self,
        id: KeyId,
        now: DateTime<Utc>,
    ) -> Result<Option<KeyGrant>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT k.id, k.name, k.prefix, k.scopes, k.app_id AS "app_id?", a.name AS "app?", k.created_at,
                 k.expires_at, k.last_used_at, k.revoked_at, k.person_id AS person, p.issuer AS "issuer?",
                 p.subject AS "subject?", p.email, p.role AS "role?"
               FROM api_keys k LEFT JOIN apps a ON a.id = k.app_id LEFT JOIN people p ON p.id = k.person_id
               WHERE k.id = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)"#,
            id.0,
            now,
        )
        .fetch_optional(self.pool())
        .await?;
        let record: Option<KeyRecord> = row.map(TryInto::try_into).transpose()?;
        Ok(record.map(|record| record.grant))
    }

    /// Writes a key; where one with this hash is there already, that one is left as it is.
    pub async fn insert_key(&self, key: &NewKey<'_>, now: DateTime<Utc>) -> Result<(), StoreError> {
        let scopes: Vec<String> = key
            .scopes
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect();
        sqlx::query!(
            "INSERT INTO api_keys (id, name, hash, prefix, scopes, app_id, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (hash) DO NOTHING",
            key.id.0,
            key.name,
            key.hash.as_slice(),
            key.prefix,
            &scopes,
            key.app.map(|app| app.0),
            now,
            key.expires_at,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Keys that are not revoked, newest first, those that have ended among them; of one app where
    /// one is named.
    pub async fn keys(
        &self,
        app: Option<AppId>,
        query: &PageQuery,
    ) -> Result<Page<KeyRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT k.id, k.name, k.prefix, k.scopes, k.app_id AS "app_id?", a.name AS "app?", k.created_at,
                 k.expires_at, k.last_used_at, k.revoked_at, k.person_id AS person, p.issuer AS "issuer?",
                 p.subject AS "subject?", p.email, p.role AS "role?"
               FROM api_keys k LEFT JOIN apps a ON a.id = k.app_id LEFT JOIN people p ON p.id = k.person_id
               WHERE k.revoked_at IS NULL AND (k.person_id IS NULL OR k.parent_id IS NOT NULL) AND ($3::uuid IS NULL OR k.app_id = $3)
                 AND ($1::uuid IS NULL OR k.id < $1)
               ORDER BY k.id DESC LIMIT $2"#,
            query.after()?,
            query.rows(),
            app.map(|app| app.0),
        )
        .fetch_all(self.pool())
        .await?;
        let items = rows
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<Vec<KeyRecord>, _>>()?;
        Ok(query.page(items, |key| key.grant.id.0))
    }

    /// The key of that id, unless it is revoked.
    pub async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT k.id, k.name, k.prefix, k.scopes, k.app_id AS "app_id?", a.name AS "app?", k.created_at,
                 k.expires_at, k.last_used_at, k.revoked_at, k.person_id AS person, p.issuer AS "issuer?",
                 p.subject AS "subject?", p.email, p.role AS "role?"
               FROM api_keys k LEFT JOIN apps a ON a.id = k.app_id LEFT JOIN people p ON p.id = k.person_id
               WHERE k.id = $1 AND k.revoked_at IS NULL"#,
            id.0,
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Writes a key whose name no other good key of the same reach has; `false` where one has.
    pub async fn insert_named_key(
        &self,
        key: &NewKey<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let scopes: Vec<String> = key
            .scopes
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect();
        let mut transaction = self.pool().begin().await?;
        // Two of the same name at the same time: one after the other.
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('api_keys.name'))")
            .execute(&mut *transaction)
            .await?;
        let done = sqlx::query!(
            "INSERT INTO api_keys (id, name, hash, prefix, scopes, app_id, created_at, expires_at)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE NOT EXISTS (
                 SELECT 1 FROM api_keys WHERE name = $2 AND app_id IS NOT DISTINCT FROM $6
                     AND revoked_at IS NULL AND person_id IS NULL AND (expires_at IS NULL OR expires_at > $7))",
            key.id.0,
            key.name,
            key.hash.as_slice(),
            key.prefix,
            &scopes,
            key.app.map(|app| app.0),
            now,
            key.expires_at,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Revokes a key, those of programs that its holder let in, and the sessions of all of them;
    /// whether there was one to revoke.
    pub async fn revoke_key(&self, id: KeyId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let done = sqlx::query!(
            "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
            id.0,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "WITH RECURSIVE family AS (
                 SELECT $1::uuid AS id
                 UNION SELECT k.id FROM api_keys k JOIN family f ON k.parent_id = f.id
             ), ended AS (
                 UPDATE api_keys SET revoked_at = $2
                 WHERE id IN (SELECT f.id FROM family f) AND revoked_at IS NULL
             )
             DELETE FROM sessions WHERE key_id IN (SELECT f.id FROM family f)",
            id.0,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Whether a key is good still.
    pub async fn key_is_good(&self, id: KeyId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = $1 AND revoked_at IS NULL
                 AND (expires_at IS NULL OR expires_at > $2)) AS "good!""#,
            id.0,
            now,
        );
        Ok(found.fetch_one(self.pool()).await?)
    }
}
