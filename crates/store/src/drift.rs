//! What is needed to see that live differs from what git declares: the desired apps as they are
//! kept, and which live apps changed since somebody last looked, whoever changed them and however.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picloud_shared::{
    AppId, AppName, AppSpec, SourceId,
    drift::DesiredApp,
    plan::{LiveApp, LiveVersion},
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{Store, StoreError, listen::EDITED, live, live_rows};

/// Where each live app and each desired one stood when somebody looked.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// Rows of the app, and a sum over them that any change makes another.
    live: BTreeMap<Uuid, (i64, i64)>,
    desired: BTreeMap<(Uuid, String), i64>,
    settings: BTreeMap<Uuid, i64>,
}

/// What changed since the marks were taken.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Which live state was looked at.
    pub version: LiveVersion,
    /// To be given back with the next look.
    pub marks: Marks,
    /// Live apps that changed, whole, each with the version at which it says it last changed.
    pub live: Vec<(LiveApp, i64)>,
    /// Apps that are not live any more.
    pub gone: Vec<AppId>,
    /// Desired apps that changed; `None`: not desired any more.
    pub desired: Vec<(SourceId, AppName, Option<DesiredApp>)>,
    /// What `picloud.yaml` says at the commit that is live, of sources where that changed; an
    /// absent source was never applied.
    pub settings: BTreeMap<SourceId, Option<Value>>,
}

impl Store {
    /// Tells two instants of the database apart that may differ in anything at all: one round trip,
    /// whatever is in it, and nothing written. While nobody writes, it stays the same.
    pub async fn instant(&self) -> Result<String, StoreError> {
        let text = sqlx::query_scalar!(r#"SELECT pg_current_snapshot()::text AS "text!""#)
            .fetch_one(self.pool())
            .await?;
        Ok(text)
    }

    /// What changed since `before`, as of one instant.
    pub async fn look(&self, before: &Marks) -> Result<Look, StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let version = live::version(&mut transaction).await?;
        let marks = marks(&mut transaction).await?;
        let changed: Vec<Uuid> = marks
            .live
            .iter()
            .filter(|(id, mark)| before.live.get(*id) != Some(*mark))
            .map(|(id, _)| *id)
            .collect();
        let mut loaded = BTreeMap::new();
        if !changed.is_empty() {
            loaded = live_rows::load(&mut transaction, Some(&changed)).await?;
            self.check_contents(&mut transaction, &mut loaded).await?;
        }
        let desired = changed_desired(&mut transaction, before, &marks).await?;
        let settings = changed_settings(&mut transaction, before, &marks).await?;
        transaction.commit().await?;
        let gone = before.live.keys().filter(|id| !marks.live.contains_key(id));
        Ok(Look {
            version,
            live: loaded
                .into_values()
                .map(|app| {
                    let touched = app.row.touched;
                    (live::live_app(app), touched)
                })
                .collect(),
            gone: gone.map(|id| (*id).into()).collect(),
            desired,
            settings,
            marks,
        })
    }

    /// Tells everybody of changes that left no trace: somebody had the triggers switched off.
    pub async fn note_edits(&self, apps: &[AppId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = apps.iter().map(|id| id.0).collect();
        let mut transaction = self.pool().begin().await?;
        sqlx::query!(
            "WITH edit AS (UPDATE live_state SET edits = edits + 1 RETURNING generation + edits AS seq)
             UPDATE apps SET touched = seq FROM edit WHERE id = ANY($1)",
            &ids,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query("SELECT pg_notify($1, '')")
            .bind(EDITED)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// What the last applied commit of a source declares; `None`: that isn't kept yet.
    pub async fn desired_apps(
        &self,
        source: SourceId,
    ) -> Result<BTreeMap<AppName, DesiredApp>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT name, app_id, pinned_commit, spec AS "spec: Json<AppSpec>"
               FROM desired_apps WHERE source_id = $1"#,
            source.0,
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|row| {
                desired(
                    &row.name,
                    row.app_id,
                    row.pinned_commit.as_deref(),
                    row.spec,
                )
            })
            .collect()
    }
}

fn desired(
    name: &str,
    app_id: Uuid,
    pinned_commit: Option<&str>,
    spec: Json<AppSpec>,
) -> Result<(AppName, DesiredApp), StoreError> {
    let corrupt = || StoreError::Corrupt(format!("desired_apps of {name}"));
    let pinned = pinned_commit.map(str::parse).transpose();
    let app = DesiredApp {
        id: app_id.into(),
        pinned_commit: pinned.map_err(|_| corrupt())?,
        spec: Arc::new(spec.0),
    };
    Ok((name.parse().map_err(|_| corrupt())?, app))
}

/// `xmin` is the transaction that wrote a row: with as many rows as before, any change makes the
/// sum greater. The times of cron triggers change by themselves, and don't count.
async fn marks(connection: &mut PgConnection) -> Result<Marks, StoreError> {
    let live = sqlx::query!(
        r#"SELECT app_id AS "app_id!", count(*) AS "rows!", sum(mark)::bigint AS "mark!"
           FROM (
             SELECT id AS app_id, xmin::text::bigint AS mark FROM apps WHERE pruned_at IS NULL
             UNION ALL SELECT app_id, xmin::text::bigint FROM app_domains
             UNION ALL SELECT app_id, xmin::text::bigint FROM app_env
             UNION ALL SELECT app_id, xmin::text::bigint FROM app_secrets
             UNION ALL SELECT app_id, xmin::text::bigint FROM app_checks
             UNION ALL SELECT app_id, xmin::text::bigint FROM routes
             UNION ALL SELECT app_id, xmin::text::bigint FROM triggers
             UNION ALL SELECT app_id, xmin::text::bigint FROM kv_trigger_details
             UNION ALL SELECT app_id, xmin::text::bigint FROM docs_trigger_details
             UNION ALL SELECT app_id, xmin::text::bigint FROM dead_letter_trigger_details
             UNION ALL SELECT app_id, hashtext(ROW(trigger_id, kind, schedule, timezone, overlap, catch_up)::text)
               FROM cron_trigger_details
             UNION ALL SELECT s.app_id, s.xmin::text::bigint + coalesce(b.xmin::text::bigint, 0)
               FROM app_scripts s LEFT JOIN script_blobs b USING (blob_id)
             UNION ALL SELECT f.app_id, f.xmin::text::bigint + coalesce(b.xmin::text::bigint, 0)
               FROM app_static_files f LEFT JOIN static_blobs b USING (blob_id)
           ) AS marked
           WHERE EXISTS (SELECT FROM apps a WHERE a.id = app_id AND a.pruned_at IS NULL)
           GROUP BY app_id"#
    )
    .fetch_all(&mut *connection)
    .await?;
    let desired =
        sqlx::query!(r#"SELECT source_id, name, xmin::text::bigint AS "mark!" FROM desired_apps"#)
            .fetch_all(&mut *connection)
            .await?;
    let settings = sqlx::query!(
        r#"SELECT id, hashtext(settings::text)::bigint AS "mark!" FROM sources WHERE settings IS NOT NULL"#
    )
    .fetch_all(connection)
    .await?;
    Ok(Marks {
        live: live
            .into_iter()
            .map(|row| (row.app_id, (row.rows, row.mark)))
            .collect(),
        desired: desired
            .into_iter()
            .map(|row| ((row.source_id, row.name), row.mark))
            .collect(),
        settings: settings.into_iter().map(|row| (row.id, row.mark)).collect(),
    })
}

async fn changed_desired(
    connection: &mut PgConnection,
    before: &Marks,
    now: &Marks,
) -> Result<Vec<(SourceId, AppName, Option<DesiredApp>)>, StoreError> {
    let mut changed = Vec::new();
    for (source, name) in before.desired.keys() {
        if !now.desired.contains_key(&(*source, name.clone())) {
            let name = name.parse();
            let name = name.map_err(|_| StoreError::Corrupt("desired_apps.name".to_owned()))?;
            changed.push(((*source).into(), name, None));
        }
    }
    let (mut sources, mut names) = (Vec::new(), Vec::new());
    for (key, mark) in &now.desired {
        if before.desired.get(key) != Some(mark) {
            sources.push(key.0);
            names.push(key.1.clone());
        }
    }
    if sources.is_empty() {
        return Ok(changed);
    }
    let rows = sqlx::query!(
        r#"SELECT source_id, name, app_id, pinned_commit, spec AS "spec: Json<AppSpec>"
           FROM desired_apps
           WHERE (source_id, name) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))"#,
        &sources,
        &names,
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let source = row.source_id.into();
        let (name, app) = desired(
            &row.name,
            row.app_id,
            row.pinned_commit.as_deref(),
            row.spec,
        )?;
        changed.push((source, name, Some(app)));
    }
    Ok(changed)
}

async fn changed_settings(
    connection: &mut PgConnection,
    before: &Marks,
    now: &Marks,
) -> Result<BTreeMap<SourceId, Option<Value>>, StoreError> {
    let mut changed: BTreeMap<SourceId, Option<Value>> = before
        .settings
        .keys()
        .filter(|id| !now.settings.contains_key(id))
        .map(|id| ((*id).into(), None))
        .collect();
    let ids: BTreeSet<Uuid> = now
        .settings
        .iter()
        .filter(|(id, mark)| before.settings.get(*id) != Some(*mark))
        .map(|(id, _)| *id)
        .collect();
    if !ids.is_empty() {
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let rows = sqlx::query!(
            r#"SELECT id, settings AS "settings: Value" FROM sources WHERE id = ANY($1)"#,
            &ids
        );
        for row in rows.fetch_all(connection).await? {
            changed.insert(row.id.into(), row.settings);
        }
    }
    Ok(changed)
}
