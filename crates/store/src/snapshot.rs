//! What a node loads to serve: all that is live, or what changed since it last looked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use picloud_shared::{
    AppName, AppSnapshot, BlobId, SourceId,
    plan::LiveVersion,
    snapshot::{ScriptSource, SourceSnapshot},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    contents::blob_id_of,
    live,
    live_rows::{self, LoadedApp},
};

/// What changed since a node last looked.
#[derive(Debug, Clone)]
pub struct SnapshotDelta {
    /// What it brings the node to.
    pub version: LiveVersion,
    /// Apps that changed, whole.
    pub changed: Vec<AppSnapshot>,
    /// All apps that are live; others are gone.
    pub live: BTreeSet<AppName>,
    /// All sources that are live.
    pub sources: BTreeMap<SourceId, SourceSnapshot>,
}

impl Store {
    /// What changed since `since`; everything where that is `None`.
    pub async fn load_snapshot(
        &self,
        since: Option<LiveVersion>,
    ) -> Result<SnapshotDelta, StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let version = live::version(&mut transaction).await?;
        let after = since.map_or(-1, |version| version.generation + version.edits);
        let rows = sqlx::query!("SELECT id, name, touched FROM apps WHERE pruned_at IS NULL")
            .fetch_all(&mut *transaction)
            .await?;
        let ids: Vec<Uuid> = rows
            .iter()
            .filter(|row| row.touched > after)
            .map(|row| row.id)
            .collect();
        let names = rows.iter().map(|row| row.name.parse());
        let live = names
            .collect::<Result<BTreeSet<AppName>, _>>()
            .map_err(|_| StoreError::Corrupt("apps.name".to_owned()))?;
        let changed = load_apps(&mut transaction, &ids).await?;
        let sources = load_sources(&mut transaction).await?;
        transaction.commit().await?;
        Ok(SnapshotDelta {
            version,
            changed,
            live,
            sources,
        })
    }

    /// The content of a static file.
    pub async fn static_blob(&self, id: &BlobId) -> Result<Option<Bytes>, StoreError> {
        let content = sqlx::query_scalar!(
            "SELECT content FROM static_blobs WHERE blob_id = $1",
            id.as_str()
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(content.map(Bytes::from))
    }
}

async fn load_apps(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<AppSnapshot>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let loaded = live_rows::load(connection, Some(ids)).await?;
    let blobs: BTreeSet<String> = loaded
        .values()
        .flat_map(|app| app.spec.scripts.values())
        .map(|script| script.blob.as_str().to_owned())
        .collect();
    let blobs: Vec<String> = blobs.into_iter().collect();
    let rows = sqlx::query!(
        "SELECT blob_id, content FROM script_blobs WHERE blob_id = ANY($1)",
        &blobs
    )
    .fetch_all(connection)
    .await?;
    let texts: BTreeMap<String, Arc<str>> = rows
        .into_iter()
        .map(|row| (row.blob_id, Arc::from(row.content)))
        .collect();
    Ok(loaded
        .into_values()
        .map(|app| snapshot(app, &texts))
        .collect())
}

/// The id that git gives to this content: that of the row, unless somebody changed it by hand.
/// What is compiled is kept by this id, so it has to be the right one.
pub(crate) fn actual_id(stored: &BlobId, text: &str) -> BlobId {
    blob_id_of(text.as_bytes()).unwrap_or_else(|| stored.clone())
}

fn snapshot(app: LoadedApp, texts: &BTreeMap<String, Arc<str>>) -> AppSnapshot {
    let mut scripts = BTreeMap::new();
    for (path, script) in &app.spec.scripts {
        // A content that somebody removed: the script is as good as absent, the rest is served.
        let Some(text) = texts.get(script.blob.as_str()) else {
            tracing::error!(app = %app.spec.name, script = %path, "the script's content is gone from the database");
            continue;
        };
        let source = ScriptSource {
            path: path.clone(),
            kind: script.kind,
            blob: actual_id(&script.blob, text),
            text: Arc::clone(text),
        };
        scripts.insert(path.clone(), Arc::new(source));
    }
    let generation = app.row.touched;
    for row in &app.damaged {
        tracing::error!(app = %app.spec.name, kind = ?row.kind, name = row.name, "a row was changed so that it cannot be read; it is not served");
    }
    let live = live::live_app(app);
    AppSnapshot {
        id: live.id,
        source: live.source,
        generation,
        pinned_commit: live.pinned_commit,
        spec: live.spec,
        scripts,
    }
}

async fn load_sources(
    connection: &mut PgConnection,
) -> Result<BTreeMap<SourceId, SourceSnapshot>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, name, live_commit AS "commit!" FROM sources WHERE live_commit IS NOT NULL"#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let corrupt = || StoreError::Corrupt(format!("sources of {}", row.name));
            let source = SourceSnapshot {
                name: row.name.parse().map_err(|_| corrupt())?,
                commit: row.commit.parse().map_err(|_| corrupt())?,
            };
            Ok((row.id.into(), source))
        })
        .collect()
}

impl Store {
    /// The text of a script.
    pub async fn script_text(&self, id: &BlobId) -> Result<Option<String>, StoreError> {
        let text = sqlx::query_scalar!(
            "SELECT content FROM script_blobs WHERE blob_id = $1",
            id.as_str()
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(text)
    }
}
