//! Whether contents are what their ids say. An id is git's hash of a content, so that a change by
//! hand shows even where the id was left as it was. Each row is hashed once: PostgreSQL's `xmin`
//! is another after any change of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use picloud_shared::{BlobId, plan::ItemKind};
use serde_json::json;
use sha1::{Digest, Sha1};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Store, StoreError, live_rows::LoadedApp};

/// Contents that are read at once.
const CHUNK: usize = 64;
/// Rows that are remembered; above it, all are hashed again.
const MAX_REMEMBERED: usize = 500_000;

/// What rows held when they were last looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked(Arc<Mutex<HashMap<(Table, BlobId), Row>>>);

#[derive(Debug, Clone)]
struct Row {
    xmin: i64,
    actual: BlobId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Table {
    Scripts,
    Files,
}

/// The id that git gives to a content.
pub(crate) fn blob_id_of(content: &[u8]) -> Option<BlobId> {
    let digest = Sha1::new()
        .chain_update(format!("blob {}\0", content.len()))
        .chain_update(content)
        .finalize();
    let id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    id.parse().ok()
}

impl Store {
    /// Gives scripts and files the ids of what the database holds for them now, and tells the ids
    /// under which it holds something else, or nothing.
    pub(crate) async fn check_contents(
        &self,
        connection: &mut PgConnection,
        apps: &mut BTreeMap<Uuid, LoadedApp>,
    ) -> Result<BTreeSet<BlobId>, StoreError> {
        let scripts: BTreeSet<BlobId> = apps
            .values()
            .flat_map(|app| app.spec.scripts.values())
            .map(|script| script.blob.clone())
            .collect();
        let files: BTreeSet<BlobId> = apps
            .values()
            .flat_map(|app| app.spec.static_files.values())
            .map(|file| file.blob.clone())
            .collect();
        let scripts = self.actual(connection, Table::Scripts, scripts).await?;
        let files = self.actual(connection, Table::Files, files).await?;
        let edited = scripts
            .iter()
            .chain(&files)
            .filter(|(id, actual)| actual.as_ref() != Some(*id))
            .map(|(id, _)| id.clone())
            .collect::<BTreeSet<_>>();
        if edited.is_empty() {
            return Ok(edited);
        }
        for app in apps.values_mut() {
            replace(app, &scripts, &files);
        }
        Ok(edited)
    }

    /// The contents of these ids, as far as they are held: under their own ids, or under another's
    /// that was seen to hold them.
    pub async fn held_contents(
        &self,
        wanted: &BTreeSet<BlobId>,
    ) -> Result<BTreeMap<BlobId, Vec<u8>>, StoreError> {
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        let mut rows: BTreeSet<String> = wanted.iter().map(|id| id.as_str().to_owned()).collect();
        {
            let checked = self.checked.0.lock();
            let strayed = checked
                .iter()
                .filter(|(_, row)| wanted.contains(&row.actual));
            rows.extend(strayed.map(|((_, id), _)| id.as_str().to_owned()));
        }
        let rows: Vec<String> = rows.into_iter().collect();
        let mut connection = self.pool().acquire().await?;
        let scripts = sqlx::query_scalar!(
            "SELECT content FROM script_blobs WHERE blob_id = ANY($1)",
            &rows
        )
        .fetch_all(&mut *connection)
        .await?;
        let files = sqlx::query_scalar!(
            "SELECT content FROM static_blobs WHERE blob_id = ANY($1)",
            &rows
        )
        .fetch_all(&mut *connection)
        .await?;
        let all = scripts.into_iter().map(String::into_bytes).chain(files);
        for content in all {
            if let Some(id) = blob_id_of(&content).filter(|id| wanted.contains(id)) {
                found.insert(id, content);
            }
        }
        Ok(found)
    }

    /// What is held under each id; `None`: nothing.
    async fn actual(
        &self,
        connection: &mut PgConnection,
        table: Table,
        ids: BTreeSet<BlobId>,
    ) -> Result<BTreeMap<BlobId, Option<BlobId>>, StoreError> {
        let mut found: BTreeMap<BlobId, Option<BlobId>> =
            ids.into_iter().map(|id| (id, None)).collect();
        if found.is_empty() {
            return Ok(found);
        }
        let ids: Vec<String> = found.keys().map(|id| id.as_str().to_owned()).collect();
        let mut unknown = Vec::new();
        for (id, xmin) in marks(connection, table, &ids).await? {
            let known = self.checked.0.lock().get(&(table, id.clone())).cloned();
            match known.filter(|known| known.xmin == xmin) {
                Some(known) => {
                    found.insert(id, Some(known.actual));
                }
                None => unknown.push((id, xmin)),
            }
        }
        let chunk = if table == Table::Files { 1 } else { CHUNK };
        for rows in unknown.chunks(chunk) {
            let ids: Vec<String> = rows.iter().map(|(id, _)| id.as_str().to_owned()).collect();
            let contents = contents(connection, table, &ids).await?;
            let mut checked = self.checked.0.lock();
            if checked.len() > MAX_REMEMBERED {
                checked.clear();
            }
            for (id, xmin) in rows {
                let Some(actual) = contents.get(id.as_str()).cloned().flatten() else {
                    continue;
                };
                let row = Row {
                    xmin: *xmin,
                    actual: actual.clone(),
                };
                checked.insert((table, id.clone()), row);
                found.insert(id.clone(), Some(actual));
            }
        }
        Ok(found)
    }
}

fn replace(
    app: &mut LoadedApp,
    scripts: &BTreeMap<BlobId, Option<BlobId>>,
    files: &BTreeMap<BlobId, Option<BlobId>>,
) {
    let mut gone = Vec::new();
    for (path, script) in &mut app.spec.scripts {
        match scripts.get(&script.blob) {
            Some(Some(actual)) => script.blob = actual.clone(),
            _ => gone.push(path.clone()),
        }
    }
    for path in gone {
        if let Some(script) = app.spec.scripts.remove(&path) {
            let fields = json!({ "kind": script.kind, "blob": null });
            app.damage(ItemKind::Script, path.to_string(), fields);
        }
    }
    let mut gone = Vec::new();
    for (path, file) in &mut app.spec.static_files {
        match files.get(&file.blob) {
            Some(Some(actual)) => file.blob = actual.clone(),
            _ => gone.push(path.clone()),
        }
    }
    for path in gone {
        if let Some(file) = app.spec.static_files.remove(&path) {
            let dir = app.spec.static_dir.clone().unwrap_or_default();
            let fields = json!({ "blob": null, "size": file.size });
            app.damage(ItemKind::Static, format!("{dir}/{path}"), fields);
        }
    }
}

async fn marks(
    connection: &mut PgConnection,
    table: Table,
    ids: &[String],
) -> Result<Vec<(BlobId, i64)>, StoreError> {
    let rows: Vec<(String, i64)> = match table {
        Table::Scripts => sqlx::query!(
            r#"SELECT blob_id, xmin::text::bigint AS "xmin!" FROM script_blobs WHERE blob_id = ANY($1)"#,
            ids
        )
        .fetch_all(connection)
        .await?
        .into_iter()
        .map(|row| (row.blob_id, row.xmin))
        .collect(),
        Table::Files => sqlx::query!(
            r#"SELECT blob_id, xmin::text::bigint AS "xmin!" FROM static_blobs WHERE blob_id = ANY($1)"#,
            ids
        )
        .fetch_all(connection)
        .await?
        .into_iter()
        .map(|row| (row.blob_id, row.xmin))
        .collect(),
    };
    rows.into_iter()
        .map(|(id, xmin)| {
            let id = id.parse();
            id.map(|id| (id, xmin))
                .map_err(|_| StoreError::Corrupt("blob_id".to_owned()))
        })
        .collect()
}

/// The actual id of what each of these ids holds.
async fn contents(
    connection: &mut PgConnection,
    table: Table,
    ids: &[String],
) -> Result<HashMap<String, Option<BlobId>>, StoreError> {
    Ok(match table {
        Table::Scripts => sqlx::query!(
            "SELECT blob_id, content FROM script_blobs WHERE blob_id = ANY($1)",
            ids
        )
        .fetch_all(connection)
        .await?
        .into_iter()
        .map(|row| (row.blob_id, blob_id_of(row.content.as_bytes())))
        .collect(),
        Table::Files => sqlx::query!(
            "SELECT blob_id, content FROM static_blobs WHERE blob_id = ANY($1)",
            ids
        )
        .fetch_all(connection)
        .await?
        .into_iter()
        .map(|row| (row.blob_id, blob_id_of(&row.content)))
        .collect(),
    })
}
