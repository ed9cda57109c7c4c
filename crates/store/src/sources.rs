//! Sources: git repositories that are deployed from.

use chrono::{DateTime, Utc};
use picloud_shared::{CommitId, SourceId, SourceName};

use crate::{Store, StoreError};

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

    fn parse(word: &str) -> Option<Self> {
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
    /// A path or an address.
    pub url: String,
    /// `None`: the one that is checked out.
    pub branch: Option<String>,
    /// Below the repository's root; empty is the root.
    pub path: String,
    /// The commit that is live.
    pub live_commit: Option<CommitId>,
    /// Whether nothing is deployed until it is resumed.
    pub suspended: bool,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

struct Row {
    id: uuid::Uuid,
    name: String,
    kind: String,
    url: String,
    branch: Option<String>,
    path: String,
    live_commit: Option<String>,
    suspended: bool,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for SourceRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("sources.{what} of {}", row.name));
        Ok(Self {
            id: row.id.into(),
            name: row.name.parse().map_err(|_| corrupt("name"))?,
            kind: SourceKind::parse(&row.kind).ok_or_else(|| corrupt("kind"))?,
            live_commit: row
                .live_commit
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|_| corrupt("live_commit"))?,
            url: row.url,
            branch: row.branch,
            path: row.path,
            suspended: row.suspended,
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// Adds a source, or changes where the one of this name is. What is live of it stays.
    pub async fn upsert_source(&self, source: &SourceRecord) -> Result<SourceRecord, StoreError> {
        sqlx::query_as!(
            Row,
            "INSERT INTO sources (id, name, kind, url, branch, path, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (name) DO UPDATE SET kind = EXCLUDED.kind, url = EXCLUDED.url,
                 branch = EXCLUDED.branch, path = EXCLUDED.path
             RETURNING id, name, kind, url, branch, path, live_commit, suspended, created_at",
            source.id.0,
            source.name.as_str(),
            source.kind.as_str(),
            source.url,
            source.branch,
            source.path,
            source.created_at,
        )
        .fetch_one(self.pool())
        .await?
        .try_into()
    }

    /// All sources by name.
    pub async fn sources(&self) -> Result<Vec<SourceRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, name, kind, url, branch, path, live_commit, suspended, created_at
             FROM sources ORDER BY name",
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The source of that name.
    pub async fn source(&self, name: &SourceName) -> Result<Option<SourceRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, name, kind, url, branch, path, live_commit, suspended, created_at
             FROM sources WHERE name = $1",
            name.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(TryInto::try_into).transpose()
    }
}
