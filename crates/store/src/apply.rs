//! Carrying out a plan: one transaction, guarded by the live version that the plan was made from.

pub(crate) mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use picloud_shared::{
    AppId, AppName, AppSpec, BlobId, Clock, CommitId, Plan, SourceId,
    deployment::Deployment,
    plan::{AppAction, LiveVersion},
};
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::{Store, StoreError, deployments, listen::GENERATION, live};

/// A plan and what goes with it.
pub struct Apply<'a> {
    /// Whose commit.
    pub source: SourceId,
    /// Which commit.
    pub commit: &'a CommitId,
    /// The branch's head that is dealt with by this: the commit itself, but for a rollback.
    pub head: Option<&'a CommitId>,
    /// What is to be done.
    pub plan: &'a Plan,
    /// Contents that the database may lack.
    pub blobs: &'a [Blob],
    /// Written in the same transaction, with the new generation in it.
    pub deployment: &'a Deployment,
    /// For ids and times.
    pub clock: &'a dyn Clock,
    /// The ids of apps that are known to have one, whatever name the database has for it.
    pub ids: &'a BTreeMap<AppName, AppId>,
    /// What is desired from now on, as far as it changes.
    pub desired: &'a DesiredChange,
    /// `picloud.yaml`; absent where the commit stays the same.
    pub settings: Option<&'a Value>,
}

/// How what is kept as desired changes.
#[derive(Debug, Clone, Default)]
pub struct DesiredChange {
    /// Declared anew, or differently.
    pub put: Vec<Declared>,
    /// Not declared any more.
    pub removed: Vec<AppName>,
}

/// An app as it is declared.
#[derive(Debug, Clone)]
pub struct Declared {
    /// What is declared.
    pub spec: Arc<AppSpec>,
    /// Where the app is kept back, if it is.
    pub pinned_commit: Option<CommitId>,
}

/// A content, by the id that git gives it.
#[derive(Debug, Clone)]
pub enum Blob {
    /// Of a script.
    Script {
        /// Its id.
        id: BlobId,
        /// UTF-8.
        text: String,
    },
    /// Of a static file.
    Static {
        /// Its id.
        id: BlobId,
        /// As it is.
        bytes: Bytes,
    },
}

/// What carrying out a plan made.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What is live now.
    pub version: LiveVersion,
    /// The ids of the apps of the plan.
    pub ids: BTreeMap<AppName, AppId>,
}

/// Why a plan was not carried out. Nothing of it is live then.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The live state is another than the one that was planned against: plan again.
    #[error("the live state changed while the plan was made")]
    ParentChanged,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Those of the blobs that the database lacks.
    pub async fn missing_blobs(
        &self,
        scripts: &[BlobId],
        files: &[BlobId],
    ) -> Result<Vec<BlobId>, StoreError> {
        let text = |ids: &[BlobId]| {
            ids.iter()
                .map(|id| id.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        let missing = sqlx::query_scalar!(
            r#"SELECT id AS "id!" FROM unnest($1::text[]) AS id
                 WHERE NOT EXISTS (SELECT FROM script_blobs b WHERE b.blob_id = id)
               UNION
               SELECT id AS "id!" FROM unnest($2::text[]) AS id
                 WHERE NOT EXISTS (SELECT FROM static_blobs b WHERE b.blob_id = id)"#,
            &text(scripts),
            &text(files),
        )
        .fetch_all(self.pool())
        .await?;
        let parsed = missing.iter().map(|id| id.parse());
        parsed
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::Corrupt("blob_id".to_owned()))
    }

    /// Carries out a plan, whole or not at all.
    pub async fn apply(&self, apply: Apply<'_>) -> Result<Applied, ApplyError> {
        let mut transaction: Transaction<'_, Postgres> = self.pool().begin().await?;
        sqlx::query("SET LOCAL picloud.applying = 'on'")
            .execute(&mut *transaction)
            .await?;
        if live::lock_version(&mut transaction).await? != apply.plan.parent {
            return Err(ApplyError::ParentChanged);
        }
        let version = LiveVersion {
            generation: apply.plan.parent.generation + 1,
            edits: apply.plan.parent.edits,
        };
        insert_blobs(&mut transaction, apply.blobs).await?;
        let writer = Writer {
            source: apply.source,
            touched: version.generation + version.edits,
            now: apply.clock.now(),
            ids: app_ids(&mut transaction, &apply).await?,
        };
        writer.remove(&mut transaction, apply.plan).await?;
        writer
            .write(&mut transaction, apply.plan, apply.clock)
            .await?;
        writer.pin(&mut transaction, apply.plan).await?;
        writer.desire(&mut transaction, &apply).await?;
        sqlx::query!(
            "UPDATE sources SET live_commit = $2, settled_head = $3, settings = coalesce($4::jsonb::json, settings),
                 approved_commit = CASE WHEN $4::jsonb IS NULL THEN approved_commit END
             WHERE id = $1",
            apply.source.0,
            apply.commit.as_str(),
            apply.head.map(CommitId::as_str),
            apply.settings,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!("UPDATE live_state SET generation = $1", version.generation)
            .execute(&mut *transaction)
            .await?;
        let deployment = Deployment {
            generation: Some(version.generation),
            ..apply.deployment.clone()
        };
        deployments::write(&mut transaction, apply.source, &deployment).await?;
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(GENERATION)
            .bind(version.generation.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let ids = writer
            .ids
            .into_iter()
            .map(|(name, id)| (name, id.into()))
            .collect();
        Ok(Applied { version, ids })
    }
}

impl Store {
    /// Forgets a source. Its apps stop at once; their data is kept like that of any pruned app.
    pub async fn delete_source(&self, id: SourceId, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SET LOCAL picloud.applying = 'on'")
            .execute(&mut *transaction)
            .await?;
        let version = live::lock_version(&mut transaction).await?;
        let generation = version.generation + 1;
        let apps = sqlx::query_scalar!(
            "SELECT id FROM apps WHERE pruned_at IS NULL
                 AND (source_id = $1 OR source_id IN (SELECT id FROM sources WHERE preview_of = $1))",
            id.0
        )
        .fetch_all(&mut *transaction)
        .await?;
        prune(&mut transaction, &apps, now, generation + version.edits).await?;
        sqlx::query!("DELETE FROM sources WHERE id = $1", id.0)
            .execute(&mut *transaction)
            .await?;
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

/// Stops apps: what they declared goes, their data stays.
async fn prune(
    connection: &mut PgConnection,
    apps: &[Uuid],
    now: DateTime<Utc>,
    touched: i64,
) -> Result<(), StoreError> {
    if apps.is_empty() {
        return Ok(());
    }
    rows::delete_children(connection, apps).await?;
    rows::delete_triggers(connection, apps, &[]).await?;
    sqlx::query!(
        "UPDATE apps SET pruned_at = $2, pinned_commit = NULL, touched = $3 WHERE id = ANY($1)",
        apps,
        now,
        touched,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes rows for the apps of one plan.
struct Writer {
    source: SourceId,
    touched: i64,
    now: DateTime<Utc>,
    /// The id of each app of the plan.
    ids: BTreeMap<AppName, Uuid>,
}

/// The ids of the plan's apps: those that the database knows (also of pruned apps, which so find
/// their data again), and new ones.
async fn app_ids(
    connection: &mut PgConnection,
    apply: &Apply<'_>,
) -> Result<BTreeMap<AppName, Uuid>, StoreError> {
    let names: Vec<String> = apply
        .plan
        .apps
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect();
    let given: Vec<Uuid> = apply.ids.values().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "SELECT id, name FROM apps WHERE name = ANY($1) OR id = ANY($2)",
        &names,
        &given,
    )
    .fetch_all(connection)
    .await?;
    let present: BTreeSet<Uuid> = rows.iter().map(|row| row.id).collect();
    let known: BTreeMap<String, Uuid> = rows.into_iter().map(|row| (row.name, row.id)).collect();
    let ids = apply.plan.apps.keys().map(|name| {
        let given = apply.ids.get(name).map(|id| id.0);
        let id = given
            .filter(|id| present.contains(id))
            .or_else(|| known.get(name.as_str()).copied())
            .or(given)
            .unwrap_or_else(|| apply.clock.new_id());
        (name.clone(), id)
    });
    Ok(ids.collect())
}

async fn insert_blobs(connection: &mut PgConnection, blobs: &[Blob]) -> Result<(), StoreError> {
    let (mut ids, mut texts) = (Vec::new(), Vec::new());
    for blob in blobs {
        match blob {
            Blob::Script { id, text } => {
                ids.push(id.as_str().to_owned());
                texts.push(text.clone());
            }
            // One by one: together they could exceed what one message may hold.
            Blob::Static { id, bytes } => {
                sqlx::query!(
                    "INSERT INTO static_blobs AS old (blob_id, content) VALUES ($1, $2)
                     ON CONFLICT (blob_id) DO UPDATE SET content = EXCLUDED.content
                       WHERE old.content <> EXCLUDED.content",
                    id.as_str(),
                    bytes.as_ref(),
                )
                .execute(&mut *connection)
                .await?;
            }
        }
    }
    if !ids.is_empty() {
        sqlx::query!(
            "INSERT INTO script_blobs AS old (blob_id, content)
             SELECT DISTINCT ON (id) id, content FROM unnest($1::text[], $2::text[]) AS new (id, content)
             ON CONFLICT (blob_id) DO UPDATE SET content = EXCLUDED.content WHERE old.content <> EXCLUDED.content",
            &ids,
            &texts,
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

impl Writer {
    /// Prunes the apps that git has no longer: they stop at once, their data stays.
    async fn remove(&self, connection: &mut PgConnection, plan: &Plan) -> Result<(), StoreError> {
        let removed: Vec<Uuid> = plan
            .apps
            .iter()
            .filter(|(_, app)| app.action == AppAction::Remove)
            .filter_map(|(name, _)| self.ids.get(name).copied())
            .collect();
        prune(connection, &removed, self.now, self.touched).await
    }

    /// Keeps back the apps that are invalid in this commit, and releases those that are valid again.
    async fn pin(&self, connection: &mut PgConnection, plan: &Plan) -> Result<(), StoreError> {
        let names = |apps: &[AppName]| {
            apps.iter()
                .map(|name| name.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        if !plan.kept.is_empty() {
            sqlx::query!(
                "UPDATE apps SET touched = $3, pinned_commit = (SELECT live_commit FROM sources WHERE id = $2)
                 WHERE name = ANY($1) AND source_id = $2 AND pinned_commit IS NULL",
                &names(&plan.kept),
                self.source.0,
                self.touched,
            )
            .execute(&mut *connection)
            .await?;
        }
        if !plan.released.is_empty() {
            sqlx::query!(
                "UPDATE apps SET touched = $3, pinned_commit = NULL WHERE name = ANY($1) AND source_id = $2",
                &names(&plan.released),
                self.source.0,
                self.touched,
            )
            .execute(connection)
            .await?;
        }
        Ok(())
    }

    /// Keeps what is desired from now on, and puts back where apps of it are kept back.
    async fn desire(
        &self,
        connection: &mut PgConnection,
        apply: &Apply<'_>,
    ) -> Result<(), StoreError> {
        let texts = |names: &[AppName]| {
            names
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        if !apply.desired.removed.is_empty() {
            sqlx::query!(
                "DELETE FROM desired_apps WHERE source_id = $1 AND name = ANY($2)",
                self.source.0,
                &texts(&apply.desired.removed),
            )
            .execute(&mut *connection)
            .await?;
        }
        if !apply.desired.put.is_empty() {
            let rows: Value = apply
                .desired
                .put
                .iter()
                .map(|app| json!({ "name": app.spec.name, "spec": app.spec, "pinned": app.pinned_commit }))
                .collect();
            sqlx::query!(
                "INSERT INTO desired_apps (source_id, name, app_id, pinned_commit, spec)
                 SELECT $1, new.name, a.id, new.pinned, new.spec::json
                 FROM jsonb_to_recordset($2) AS new (name text, spec jsonb, pinned text)
                 JOIN apps a ON a.name = new.name
                 ON CONFLICT (source_id, name) DO UPDATE SET app_id = EXCLUDED.app_id,
                     pinned_commit = EXCLUDED.pinned_commit, spec = EXCLUDED.spec",
                self.source.0,
                rows,
            )
            .execute(&mut *connection)
            .await?;
        }
        let moved: Vec<AppName> = apply
            .plan
            .kept
            .iter()
            .chain(&apply.plan.released)
            .cloned()
            .collect();
        if !moved.is_empty() {
            sqlx::query!(
                "UPDATE desired_apps d SET pinned_commit = a.pinned_commit FROM apps a
                 WHERE d.source_id = $1 AND d.name = ANY($2) AND a.name = d.name",
                self.source.0,
                &texts(&moved),
            )
            .execute(&mut *connection)
            .await?;
        }
        // An app that is written anew is no longer kept back, unless it is desired so.
        let written: Vec<AppName> = apply.plan.apps.keys().cloned().collect();
        if written.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "UPDATE apps a SET pinned_commit = d.pinned_commit FROM desired_apps d
             WHERE d.source_id = $1 AND d.name = ANY($2) AND a.name = d.name
               AND a.pinned_commit IS DISTINCT FROM d.pinned_commit",
            self.source.0,
            &texts(&written),
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}
