//! The audit log: who did what, and when. Entries are added and read, never changed.

use chrono::{DateTime, Utc};
use picloud_shared::{AppName, KeyId};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{Page, Store, StoreError, page::PageQuery};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// UUIDv7.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// With which key.
    pub key: Option<KeyId>,
    /// The key's name then.
    pub actor: String,
    /// `key.create`, `source.sync`, …
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// The app that it concerns, where it is one.
    pub app: Option<AppName>,
    /// What more there is to say, `before` and `after` among it; never a secret.
    pub detail: Value,
}

/// An entry as it was noted, with whose key it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedEntry {
    /// What was noted.
    pub entry: AuditEntry,
    /// Whose key it was, where an identity provider said so.
    pub person: Option<Uuid>,
    /// By which the provider knew them.
    pub subject: Option<String>,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this app.
    pub app: Option<AppName>,
    /// Of this action, or of all that begin with it and a dot: `key`, `key.create`.
    pub action: Option<String>,
    /// By keys of this name.
    pub actor: Option<String>,
    /// Done to this.
    pub target: Option<String>,
    /// At this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
}

struct Row {
    id: Uuid,
    at: DateTime<Utc>,
    key_id: Option<Uuid>,
    person_id: Option<Uuid>,
    subject: Option<String>,
    actor: String,
    action: String,
    target: String,
    app: Option<String>,
    detail: Value,
}

impl TryFrom<Row> for NotedEntry {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let app = row.app.as_deref().map(str::parse).transpose();
        let entry = AuditEntry {
            app: app.map_err(|_| StoreError::Corrupt(format!("audit_log.app of {}", row.id)))?,
            id: row.id,
            at: row.at,
            key: row.key_id.map(Into::into),
            actor: row.actor,
            action: row.action,
            target: row.target,
            detail: row.detail,
        };
        Ok(Self {
            entry,
            person: row.person_id,
            subject: row.subject,
        })
    }
}

impl Store {
    /// Notes who did what.
    pub async fn append_audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO audit_log (id, at, key_id, actor, action, target, app, detail, person_id, subject)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, p.id, p.subject
             FROM (SELECT $3::uuid AS id) key LEFT JOIN api_keys k ON k.id = key.id
                 LEFT JOIN people p ON p.id = k.person_id",
            entry.id,
            entry.at,
            entry.key.map(|key| key.0),
            entry.actor,
            entry.action,
            entry.target,
            entry.app.as_ref().map(AppName::as_str),
            Json(&entry.detail) as _,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Entries, newest first.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        query: &PageQuery,
    ) -> Result<Page<NotedEntry>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, at, key_id, person_id, subject, actor, action, target, app, detail AS "detail: Value" FROM audit_log
               WHERE ($1::text IS NULL OR app = $1)
                 AND ($2::text IS NULL OR action = $2 OR starts_with(action, $2 || '.'))
                 AND ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR target = $4)
                 AND ($5::timestamptz IS NULL OR at >= $5) AND ($6::timestamptz IS NULL OR at < $6)
                 AND ($7::uuid IS NULL OR id < $7)
               ORDER BY id DESC LIMIT $8"#,
            filter.app.as_ref().map(AppName::as_str),
            filter.action,
            filter.actor,
            filter.target,
            filter.since,
            filter.until,
            query.after()?,
            query.rows(),
        )
        .fetch_all(self.pool())
        .await?;
        let items = rows
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<Vec<NotedEntry>, _>>()?;
        Ok(query.page(items, |noted| noted.entry.id))
    }
}
