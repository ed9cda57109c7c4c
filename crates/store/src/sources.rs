//! Sources: git repositories that are deployed from.

use std::time::Duration;

use chrono::{DateTime, Utc};
use picloud_shared::{CommitId, SourceId, SourceName, sdk::SecretValue};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Store, StoreError, sealed::Sealing};

/// Where a source's repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// On this machine.
    Local,
    /// In the data directory, pushed to over HTTP.
    Hosted,
    /// Elsewhere, fetched.
    Remote,
}

impl SourceKind {
    /// The word that stands in the API and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Hosted => "hosted",
            Self::Remote => "remote",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Local, Self::Hosted, Self::Remote]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    /// UUIDv7.
    pub id: SourceId,
    /// Unique.
    pub name: SourceName,
    /// Where it is.
    pub kind: SourceKind,
    /// A path or an address; empty for hosted ones.
    pub url: String,
    /// `None`: the one that is checked out.
    pub branch: Option<String>,
    /// Below the repository's root; empty is the root.
    pub path: String,
    /// How often a remote is fetched without being told.
    pub interval: Option<Duration>,
    /// Signs webhook deliveries.
    pub webhook_secret: Option<SecretValue>,
    /// Where pull requests are.
    pub forge: Option<Forge>,
    /// The commit that is live.
    pub live_commit: Option<CommitId>,
    /// The head that was dealt with, whatever became of it.
    pub settled_head: Option<CommitId>,
    /// The commit that a person let go.
    pub approved_commit: Option<CommitId>,
    /// Whether nothing is deployed until it is resumed.
    pub suspended: bool,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// Where a source's pull requests are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forge {
    /// `github`, `gitlab`, `gitea`, `forgejo` or `bitbucket`.
    pub kind: String,
    /// Its API, where it isn't the public one.
    pub api_url: Option<String>,
    /// What PiCloud proves itself with.
    pub token: Option<SecretValue>,
}

struct Row {
    id: Uuid,
    name: String,
    kind: String,
    url: String,
    branch: Option<String>,
    path: String,
    interval_ms: Option<i64>,
    webhook_secret: Option<Vec<u8>>,
    forge: Option<Value>,
    live_commit: Option<String>,
    settled_head: Option<String>,
    approved_commit: Option<String>,
    suspended: bool,
    created_at: DateTime<Utc>,
}

impl SourceRecord {
    fn read(row: Row, sealing: &Sealing) -> Result<Self, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("sources.{what} of {}", row.name));
        let commit = |what: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(str::parse).transpose();
            parsed.map_err(|_| corrupt(what))
        };
        let secret = row
            .webhook_secret
            .clone()
            .map(String::from_utf8)
            .transpose();
        let secret = secret.map_err(|_| corrupt("webhook_secret"))?;
        Ok(Self {
            id: row.id.into(),
            name: row.name.parse().map_err(|_| corrupt("name"))?,
            kind: SourceKind::parse(&row.kind).ok_or_else(|| corrupt("kind"))?,
            interval: row
                .interval_ms
                .map(|ms| Duration::from_millis(ms.unsigned_abs())),
            webhook_secret: secret.map(|text| sealing.open(&text)).transpose()?,
            forge: match &row.forge {
                Some(forge) => Forge::from_json(forge, sealing)?,
                None => None,
            },
            live_commit: commit("live_commit", &row.live_commit)?,
            settled_head: commit("settled_head", &row.settled_head)?,
            approved_commit: commit("approved_commit", &row.approved_commit)?,
            url: row.url,
            branch: row.branch,
            path: row.path,
            suspended: row.suspended,
            created_at: row.created_at,
        })
    }
}

impl Forge {
    fn from_json(value: &Value, sealing: &Sealing) -> Result<Option<Self>, StoreError> {
        let text = |name: &str| value[name].as_str();
        let Some(kind) = text("kind") else {
            return Ok(None);
        };
        Ok(Some(Self {
            kind: kind.to_owned(),
            api_url: text("api_url").map(str::to_owned),
            token: text("token").map(|token| sealing.open(token)).transpose()?,
        }))
    }

    fn to_json(&self, sealing: &Sealing) -> Result<Value, StoreError> {
        let token = self
            .token
            .as_ref()
            .map(|token| sealing.seal(token))
            .transpose()?;
        Ok(json!({ "kind": self.kind, "api_url": self.api_url, "token": token }))
    }
}

impl Store {
    /// Adds a source, or changes where the one of this name is. What is live of it stays, and its
    /// head is looked at anew.
    pub async fn upsert_source(&self, source: &SourceRecord) -> Result<SourceRecord, StoreError> {
        let secret = source
            .webhook_secret
            .as_ref()
            .map(|secret| self.sealing.seal(secret));
        let secret = secret.transpose()?.map(String::into_bytes);
        let forge = source
            .forge
            .as_ref()
            .map(|forge| forge.to_json(&self.sealing));
        let forge = forge.transpose()?;
        let row = sqlx::query_as!(
            Row,
            r#"INSERT INTO sources (id, name, kind, url, branch, path, interval_ms, webhook_secret, forge, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (name) DO UPDATE SET kind = EXCLUDED.kind, url = EXCLUDED.url,
                 branch = EXCLUDED.branch, path = EXCLUDED.path, interval_ms = EXCLUDED.interval_ms,
                 webhook_secret = EXCLUDED.webhook_secret, forge = EXCLUDED.forge,
                 settled_head = CASE WHEN (sources.kind, sources.url, sources.branch, sources.path)
                     IS NOT DISTINCT FROM (EXCLUDED.kind, EXCLUDED.url, EXCLUDED.branch, EXCLUDED.path)
                     THEN sources.settled_head END
             RETURNING id, name, kind, url, branch, path, interval_ms, webhook_secret, forge AS "forge: Value",
                 live_commit, settled_head, approved_commit, suspended, created_at"#,
            source.id.0,
            source.name.as_str(),
            source.kind.as_str(),
            source.url,
            source.branch,
            source.path,
            source.interval.map(|interval| i64::try_from(interval.as_millis()).unwrap_or(i64::MAX)),
            secret,
            forge,
            source.created_at,
        )
        .fetch_one(self.pool())
        .await?;
        SourceRecord::read(row, &self.sealing)
    }

    /// All sources by name, but for previews.
    pub async fn sources(&self) -> Result<Vec<SourceRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, name, kind, url, branch, path, interval_ms, webhook_secret, forge AS "forge: Value",
                 live_commit, settled_head, approved_commit, suspended, created_at
               FROM sources WHERE preview_of IS NULL ORDER BY name"#,
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|row| SourceRecord::read(row, &self.sealing))
            .collect()
    }

    /// The source of that name.
    pub async fn source(&self, name: &SourceName) -> Result<Option<SourceRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id, name, kind, url, branch, path, interval_ms, webhook_secret, forge AS "forge: Value",
                 live_commit, settled_head, approved_commit, suspended, created_at
               FROM sources WHERE name = $1"#,
            name.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(|row| SourceRecord::read(row, &self.sealing))
            .transpose()
    }

    /// Stops deployments of a source, or lets them go on. Going on looks at the head anew.
    pub async fn suspend_source(&self, id: SourceId, suspended: bool) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sources SET suspended = $2, settled_head = CASE WHEN $2 THEN settled_head END WHERE id = $1",
            id.0,
            suspended,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Has a head that was dealt with looked at anew.
    pub async fn reconsider_head(&self, id: SourceId, head: &CommitId) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sources SET settled_head = NULL WHERE id = $1 AND settled_head = $2 AND NOT suspended",
            id.0,
            head.as_str(),
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Lets a held commit go.
    pub async fn approve_commit(&self, id: SourceId, commit: &CommitId) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sources SET approved_commit = $2, settled_head = NULL WHERE id = $1",
            id.0,
            commit.as_str(),
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// What `picloud.yaml` says at the commit that is live.
    pub async fn source_settings(&self, id: SourceId) -> Result<Option<Value>, StoreError> {
        let settings = sqlx::query_scalar!(
            r#"SELECT settings AS "settings: Value" FROM sources WHERE id = $1"#,
            id.0
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(settings.flatten())
    }
}
