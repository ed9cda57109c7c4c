//! Pull requests of sources.

use chrono::{DateTime, Utc};
use picloud_shared::SourceId;

use crate::{Store, StoreError};

/// A pull request, as far as it was dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRecord {
    /// Whose.
    pub source: SourceId,
    /// In its repository.
    pub number: i64,
    /// As the forge names it.
    pub repository: String,
    /// For people.
    pub title: String,
    /// The branch it comes from.
    pub head_branch: String,
    /// The repository it comes from, where that is another.
    pub fork: Option<String>,
    /// Where that is cloned from.
    pub fork_url: Option<String>,
    /// Whether it is open.
    pub open: bool,
    /// Its newest commit, as far as known.
    pub head: String,
    /// The head that the forge was told the plan of.
    pub reported_head: Option<String>,
    /// The head that a person lets have a preview.
    pub approved_head: Option<String>,
    /// Where the plan was written.
    pub comment_id: Option<String>,
    /// What was written there.
    pub comment_digest: Option<String>,
    /// Whether what its plan was held against is another by now.
    pub stale: bool,
}

struct Row {
    source_id: uuid::Uuid,
    number: i64,
    repository: String,
    title: String,
    head_branch: String,
    fork: Option<String>,
    fork_url: Option<String>,
    open: bool,
    head: String,
    reported_head: Option<String>,
    approved_head: Option<String>,
    comment_id: Option<String>,
    comment_digest: Option<String>,
    stale: bool,
}

impl From<Row> for PullRecord {
    fn from(row: Row) -> Self {
        Self {
            source: row.source_id.into(),
            number: row.number,
            repository: row.repository,
            title: row.title,
            head_branch: row.head_branch,
            fork: row.fork,
            fork_url: row.fork_url,
            open: row.open,
            head: row.head,
            reported_head: row.reported_head,
            approved_head: row.approved_head,
            comment_id: row.comment_id,
            comment_digest: row.comment_digest,
            stale: row.stale,
        }
    }
}

impl Store {
    /// Keeps what an event says of a pull request; what was told of it stays known.
    pub async fn put_pull(&self, pull: &PullRecord, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO pull_requests (source_id, number, repository, title, head_branch, fork, fork_url, open, head, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (source_id, number) DO UPDATE SET repository = EXCLUDED.repository, title = EXCLUDED.title,
                 head_branch = EXCLUDED.head_branch, fork = EXCLUDED.fork, fork_url = EXCLUDED.fork_url,
                 open = EXCLUDED.open, head = EXCLUDED.head, updated_at = EXCLUDED.updated_at",
            pull.source.0,
            pull.number,
            pull.repository,
            pull.title,
            pull.head_branch,
            pull.fork,
            pull.fork_url,
            pull.open,
            pull.head,
            now,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The pull request of that number.
    pub async fn pull(
        &self,
        source: SourceId,
        number: i64,
    ) -> Result<Option<PullRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT source_id, number, repository, title, head_branch, fork, fork_url, open, head, reported_head,
                 approved_head, comment_id, comment_digest, stale
             FROM pull_requests WHERE source_id = $1 AND number = $2",
            source.0,
            number,
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(Into::into))
    }

    /// The open pull requests of a source.
    pub async fn open_pulls(&self, source: SourceId) -> Result<Vec<PullRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT source_id, number, repository, title, head_branch, fork, fork_url, open, head, reported_head,
                 approved_head, comment_id, comment_digest, stale
             FROM pull_requests WHERE source_id = $1 AND open ORDER BY number",
            source.0,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Keeps the full id of a pull request's newest commit.
    pub async fn set_pull_head(&self, pull: &PullRecord, head: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE pull_requests SET head = $3 WHERE source_id = $1 AND number = $2",
            pull.source.0,
            pull.number,
            head,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Keeps where the plan was written, and what.
    pub async fn set_pull_comment(
        &self,
        pull: &PullRecord,
        id: &str,
        digest: &str,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE pull_requests SET comment_id = $3, comment_digest = $4 WHERE source_id = $1 AND number = $2",
            pull.source.0,
            pull.number,
            id,
            digest,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Keeps that the forge was told the plan of this head, and which it is; `None`: an invalid one.
    pub async fn set_pull_reported(
        &self,
        pull: &PullRecord,
        head: &str,
        plan_hash: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE pull_requests SET reported_head = $3, plan_hash = $4, stale = false WHERE source_id = $1 AND number = $2",
            pull.source.0,
            pull.number,
            head,
            plan_hash,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The plans of open pull requests are to be made anew: what they were held against is another.
    /// Gives their numbers.
    pub async fn renew_pulls(&self, source: SourceId) -> Result<Vec<i64>, StoreError> {
        let numbers = sqlx::query_scalar!(
            "UPDATE pull_requests SET stale = true WHERE source_id = $1 AND open RETURNING number",
            source.0,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(numbers)
    }

    /// Lets a fork's head have a preview. Its comment is to say so: it counts as not told.
    pub async fn approve_pull(&self, pull: &PullRecord) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE pull_requests SET approved_head = head, reported_head = NULL WHERE source_id = $1 AND number = $2",
            pull.source.0,
            pull.number,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Keeps how the forge names the repository, and how it reaches this server.
    pub async fn set_forge_names(
        &self,
        id: SourceId,
        repository: Option<&str>,
        public_url: &str,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sources SET forge_repository = coalesce($2, forge_repository), public_url = $3
             WHERE id = $1 AND (forge_repository, public_url) IS DISTINCT FROM (coalesce($2, forge_repository), $3)",
            id.0,
            repository,
            public_url,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// How the forge names the repository and how it reaches this server; what it was told last.
    pub async fn forge_names(&self, id: SourceId) -> Result<ForgeNames, StoreError> {
        let found = sqlx::query_as!(
            ForgeNames,
            "SELECT forge_repository AS repository, public_url, deploy_reported FROM sources WHERE id = $1",
            id.0,
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(found.unwrap_or_default())
    }

    /// Keeps which deployment the forge was told of, and how it ended.
    pub async fn set_deploy_reported(&self, id: SourceId, what: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sources SET deploy_reported = $2 WHERE id = $1",
            id.0,
            what,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}

/// What a forge said and was told of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgeNames {
    /// How it names the repository.
    pub repository: Option<String>,
    /// How it reaches this server.
    pub public_url: Option<String>,
    /// The deployment that it was told of last.
    pub deploy_reported: Option<String>,
}
