//! Previews: sources that show a branch or a pull request of another.

use chrono::{DateTime, Utc};
use picloud_shared::{CommitId, SourceId, SourceName};
use serde_json::Value;

use crate::{SourceRecord, Store, StoreError, listen::GENERATION, live};

/// A preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewRecord {
    /// The source that it is.
    pub source: SourceId,
    /// That source's name.
    pub name: SourceName,
    /// The source that it shows a branch of.
    pub parent: SourceId,
    /// That source's name.
    pub parent_name: SourceName,
    /// `refs/heads/…` or `refs/pull/N`.
    pub reference: String,
    /// What its apps' names end in.
    pub slug: String,
    /// Its newest commit.
    pub head: CommitId,
    /// When that was seen.
    pub head_at: DateTime<Utc>,
    /// Whether that is too long ago.
    pub expired: bool,
    /// The commit that is live.
    pub live_commit: Option<CommitId>,
}

/// A source, as far as its previews need it.
#[derive(Debug, Clone)]
pub struct PreviewSettings {
    /// Whose.
    pub source: SourceId,
    /// picloud.yaml of the commit that is live.
    pub settings: Option<Value>,
    /// Whether nothing is deployed of it.
    pub suspended: bool,
    /// When its previews were switched on.
    pub since: Option<DateTime<Utc>>,
}

impl Store {
    /// All sources that could have previews.
    pub async fn preview_settings(&self) -> Result<Vec<PreviewSettings>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, settings -> 'previews' AS "settings: Value", suspended, previews_since
               FROM sources WHERE preview_of IS NULL ORDER BY name"#
        )
        .fetch_all(self.pool())
        .await?;
        let settings = rows.into_iter().map(|row| PreviewSettings {
            source: row.id.into(),
            settings: row.settings,
            suspended: row.suspended,
            since: row.previews_since,
        });
        Ok(settings.collect())
    }

    /// Keeps when the previews of a source were switched on, or that they are off.
    pub async fn set_previews_since(
        &self,
        id: SourceId,
        since: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sources SET previews_since = $2 WHERE id = $1",
            id.0,
            since,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The previews of all sources, by source and reference.
    pub async fn previews(&self) -> Result<Vec<PreviewRecord>, StoreError> {
        let rows = sqlx::query!(
            "SELECT p.source_id, s.name, p.parent_id, o.name AS parent_name, p.reference, p.slug, p.head, p.head_at,
                 p.expired, s.live_commit
             FROM previews p JOIN sources s ON s.id = p.source_id JOIN sources o ON o.id = p.parent_id
             ORDER BY o.name, p.reference"
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|row| {
                let corrupt = |what: &str| StoreError::Corrupt(format!("previews.{what}"));
                let live = row.live_commit.as_deref().map(str::parse).transpose();
                Ok(PreviewRecord {
                    source: row.source_id.into(),
                    name: row.name.parse().map_err(|_| corrupt("name"))?,
                    parent: row.parent_id.into(),
                    parent_name: row.parent_name.parse().map_err(|_| corrupt("parent"))?,
                    reference: row.reference,
                    slug: row.slug,
                    head: row.head.parse().map_err(|_| corrupt("head"))?,
                    head_at: row.head_at,
                    expired: row.expired,
                    live_commit: live.map_err(|_| corrupt("live_commit"))?,
                })
            })
            .collect()
    }

    /// Adds a preview, with the source that it is.
    pub async fn add_preview(
        &self,
        source: &SourceRecord,
        preview: &PreviewRecord,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query!(
            "INSERT INTO sources (id, name, kind, url, path, preview_of, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            source.id.0,
            source.name.as_str(),
            source.kind.as_str(),
            source.url,
            source.path,
            preview.parent.0,
            source.created_at,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "INSERT INTO previews (source_id, parent_id, reference, slug, head, head_at) VALUES ($1, $2, $3, $4, $5, $6)",
            source.id.0,
            preview.parent.0,
            preview.reference,
            preview.slug,
            preview.head.as_str(),
            preview.head_at,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Keeps a preview's newest commit, when it was seen, and whether that is too long ago.
    pub async fn set_preview_head(&self, preview: &PreviewRecord) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE previews SET head = $2, head_at = $3, expired = $4 WHERE source_id = $1",
            preview.source.0,
            preview.head.as_str(),
            preview.head_at,
            preview.expired,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Removes the apps of a preview with their data; `whole`: and the preview itself.
    pub async fn clear_preview(&self, id: SourceId, whole: bool) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SET LOCAL picloud.applying = 'on'")
            .execute(&mut *transaction)
            .await?;
        let version = live::lock_version(&mut transaction).await?;
        let generation = version.generation + 1;
        sqlx::query!(
            "DELETE FROM apps WHERE source_id = $1 AND EXISTS (SELECT FROM previews WHERE source_id = $1)",
            id.0
        )
        .execute(&mut *transaction)
        .await?;
        if whole {
            sqlx::query!(
                "DELETE FROM sources WHERE id = $1 AND preview_of IS NOT NULL",
                id.0
            )
            .execute(&mut *transaction)
            .await?;
        } else {
            sqlx::query!("DELETE FROM desired_apps WHERE source_id = $1", id.0)
                .execute(&mut *transaction)
                .await?;
            sqlx::query!(
                "UPDATE sources SET live_commit = NULL, settled_head = NULL, settings = NULL WHERE id = $1",
                id.0
            )
            .execute(&mut *transaction)
            .await?;
            sqlx::query!(
                "UPDATE previews SET expired = true WHERE source_id = $1",
                id.0
            )
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query!("UPDATE live_state SET generation = $1", generation)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(GENERATION)
            .bind(generation.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}
