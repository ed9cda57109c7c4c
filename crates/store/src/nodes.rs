//! The processes that share the database, and the database itself, as operators see them.

use chrono::{DateTime, Utc};
use picloud_shared::NodeId;

use crate::{Store, StoreError};

/// A process that was seen lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Kept over restarts.
    pub id: NodeId,
    /// `manager`, `orchestrator`, `executor`.
    pub roles: Vec<String>,
    /// Its version.
    pub version: String,
    /// The generation that it serves.
    pub generation: i64,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it last said so.
    pub seen_at: DateTime<Utc>,
}

/// What PostgreSQL says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseInfo {
    /// `17.2 (Debian …)`
    pub version: String,
    /// Bytes of this database.
    pub size: i64,
}

impl Store {
    /// Says that a process is there; those that were not seen for a day are forgotten. Gives how
    /// many others were seen since a time.
    pub async fn note_node(
        &self,
        node: &NodeRecord,
        alive_since: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        sqlx::query!(
            "INSERT INTO nodes (id, roles, version, generation, started_at, seen_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET roles = EXCLUDED.roles, version = EXCLUDED.version,
                 generation = EXCLUDED.generation, started_at = EXCLUDED.started_at, seen_at = EXCLUDED.seen_at",
            node.id.0,
            &node.roles,
            node.version,
            node.generation,
            node.started_at,
            node.seen_at,
        )
        .execute(self.pool())
        .await?;
        sqlx::query!(
            "DELETE FROM nodes WHERE seen_at < $1::timestamptz - interval '1 day'",
            node.seen_at
        )
        .execute(self.pool())
        .await?;
        let others = sqlx::query_scalar!(
            r#"SELECT count(*) AS "others!" FROM nodes WHERE id <> $1 AND seen_at >= $2"#,
            node.id.0,
            alive_since,
        );
        Ok(others.fetch_one(self.pool()).await?.unsigned_abs())
    }

    /// A process that ends says so.
    pub async fn forget_node(&self, id: NodeId) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM nodes WHERE id = $1", id.0)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// The processes that were seen since a time, the oldest first.
    pub async fn nodes(&self, since: DateTime<Utc>) -> Result<Vec<NodeRecord>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, roles, version, generation, started_at, seen_at FROM nodes
             WHERE seen_at >= $1 ORDER BY started_at, id",
            since,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| NodeRecord {
                id: row.id.into(),
                roles: row.roles,
                version: row.version,
                generation: row.generation,
                started_at: row.started_at,
                seen_at: row.seen_at,
            })
            .collect())
    }

    /// What PostgreSQL says of itself.
    pub async fn database_info(&self) -> Result<DatabaseInfo, StoreError> {
        let row = sqlx::query!(
            r#"SELECT current_setting('server_version') AS "version!",
                 pg_database_size(current_database()) AS "size!""#
        )
        .fetch_one(self.pool())
        .await?;
        Ok(DatabaseInfo {
            version: row.version,
            size: row.size,
        })
    }
}
