//! Rows of the live configuration, and how they become an `AppSpec`.

use std::collections::BTreeMap;

use picloud_shared::{
    AppSpec, LimitsPatch,
    app::{CheckSpec, RetryPolicy, RouteSpec, ScriptSpec, StaticFile, TriggerKind, TriggerSpec},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::StoreError;

/// An app's own row.
pub(crate) struct AppRow {
    pub(crate) id: Uuid,
    pub(crate) source_id: Uuid,
    pub(crate) pinned_commit: Option<String>,
    pub(crate) touched: i64,
    name: String,
    dir: String,
    description: Option<String>,
    static_dir: Option<String>,
    http_allow: Option<Vec<String>>,
    timeout_ms: Option<i64>,
    memory: Option<i64>,
    operations: Option<i64>,
    concurrency: Option<i32>,
    request_body: Option<i64>,
    response_body: Option<i64>,
}

impl AppRow {
    fn spec(&self) -> Result<AppSpec, StoreError> {
        let name = self
            .name
            .parse()
            .map_err(|_| corrupt("apps.name", &self.name))?;
        let mut spec = AppSpec::empty(name, self.dir.clone());
        spec.description.clone_from(&self.description);
        spec.static_dir.clone_from(&self.static_dir);
        spec.http_allow.clone_from(&self.http_allow);
        spec.limits = LimitsPatch {
            timeout_ms: self.timeout_ms.map(i64::unsigned_abs),
            memory: self.memory.map(i64::unsigned_abs),
            operations: self.operations.map(i64::unsigned_abs),
            concurrency: self.concurrency.map(i32::unsigned_abs),
            request_body: self.request_body.map(i64::unsigned_abs),
            response_body: self.response_body.map(i64::unsigned_abs),
        };
        Ok(spec)
    }
}

/// An app's row with all that belongs to it.
pub(crate) struct LoadedApp {
    pub(crate) row: AppRow,
    pub(crate) spec: AppSpec,
}

/// Loads the apps of these ids, or all, that are live.
pub(crate) async fn load(
    connection: &mut PgConnection,
    ids: Option<&[Uuid]>,
) -> Result<BTreeMap<Uuid, LoadedApp>, StoreError> {
    let rows = sqlx::query_as!(
        AppRow,
        r#"SELECT id, source_id AS "source_id!", pinned_commit, touched, name, dir, description, static_dir, http_allow, timeout_ms,
           memory, operations, concurrency, request_body, response_body
         FROM apps WHERE pruned_at IS NULL AND ($1::uuid[] IS NULL OR id = ANY($1))"#,
        ids as _,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut apps = BTreeMap::new();
    for row in rows {
        let spec = row.spec()?;
        apps.insert(row.id, LoadedApp { row, spec });
    }
    load_settings(connection, ids, &mut apps).await?;
    load_files(connection, ids, &mut apps).await?;
    load_routes(connection, ids, &mut apps).await?;
    load_triggers(connection, ids, &mut apps).await?;
    Ok(apps)
}

type Apps = BTreeMap<Uuid, LoadedApp>;

async fn load_settings(
    connection: &mut PgConnection,
    ids: Option<&[Uuid]>,
    apps: &mut Apps,
) -> Result<(), StoreError> {
    let domains = sqlx::query!(
        "SELECT app_id, domain FROM app_domains WHERE $1::uuid[] IS NULL OR app_id = ANY($1)",
        ids as _,
    );
    for row in domains.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            app.spec.domains.insert(row.domain);
        }
    }
    let env = sqlx::query!(
        "SELECT app_id, name, value FROM app_env WHERE $1::uuid[] IS NULL OR app_id = ANY($1)",
        ids as _,
    );
    for row in env.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            app.spec.env.insert(row.name, row.value);
        }
    }
    let secrets = sqlx::query!(
        "SELECT app_id, name, ciphertext FROM app_secrets WHERE $1::uuid[] IS NULL OR app_id = ANY($1)",
        ids as _,
    );
    for row in secrets.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            app.spec.secrets.insert(row.name, row.ciphertext);
        }
    }
    let checks = sqlx::query!(
        "SELECT app_id, path, status, within_ms FROM app_checks
         WHERE $1::uuid[] IS NULL OR app_id = ANY($1) ORDER BY app_id, position",
        ids as _,
    );
    for row in checks.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            app.spec.checks.push(CheckSpec {
                path: row.path,
                status: u16::try_from(row.status)
                    .map_err(|_| corrupt("app_checks.status", &row.status))?,
                within_ms: row.within_ms.unsigned_abs(),
            });
        }
    }
    Ok(())
}

async fn load_files(
    connection: &mut PgConnection,
    ids: Option<&[Uuid]>,
    apps: &mut Apps,
) -> Result<(), StoreError> {
    let scripts = sqlx::query!(
        "SELECT app_id, path, kind, blob_id FROM app_scripts WHERE $1::uuid[] IS NULL OR app_id = ANY($1)",
        ids as _,
    );
    for row in scripts.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            let path = row
                .path
                .parse()
                .map_err(|_| corrupt("app_scripts.path", &row.path))?;
            let spec = ScriptSpec {
                kind: word("app_scripts.kind", &row.kind)?,
                blob: row
                    .blob_id
                    .parse()
                    .map_err(|_| corrupt("app_scripts.blob_id", &row.blob_id))?,
            };
            app.spec.scripts.insert(path, spec);
        }
    }
    let files = sqlx::query!(
        "SELECT app_id, path, blob_id, size FROM app_static_files WHERE $1::uuid[] IS NULL OR app_id = ANY($1)",
        ids as _,
    );
    for row in files.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            let file = StaticFile {
                blob: row
                    .blob_id
                    .parse()
                    .map_err(|_| corrupt("app_static_files.blob_id", &row.blob_id))?,
                size: row.size.unsigned_abs(),
            };
            app.spec.static_files.insert(row.path, file);
        }
    }
    Ok(())
}

async fn load_routes(
    connection: &mut PgConnection,
    ids: Option<&[Uuid]>,
    apps: &mut Apps,
) -> Result<(), StoreError> {
    let routes = sqlx::query!(
        r#"SELECT app_id, path, methods, script, mode, auth AS "auth: Value", cors AS "cors: Value",
             rate_limit AS "rate_limit: Value", limits AS "limits: Value"
           FROM routes WHERE $1::uuid[] IS NULL OR app_id = ANY($1)
           ORDER BY app_id, path COLLATE "C", methods COLLATE "C""#,
        ids as _,
    );
    for row in routes.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            app.spec.routes.push(RouteSpec {
                script: row
                    .script
                    .parse()
                    .map_err(|_| corrupt("routes.script", &row.script))?,
                path: row.path,
                methods: row.methods.into_iter().collect(),
                mode: word("routes.mode", &row.mode)?,
                auth: value("routes.auth", row.auth)?,
                cors: row
                    .cors
                    .map(|cors| value("routes.cors", cors))
                    .transpose()?,
                rate_limit: row
                    .rate_limit
                    .map(|limit| value("routes.rate_limit", limit))
                    .transpose()?,
                limits: value("routes.limits", row.limits)?,
            });
        }
    }
    Ok(())
}

async fn load_triggers(
    connection: &mut PgConnection,
    ids: Option<&[Uuid]>,
    apps: &mut Apps,
) -> Result<(), StoreError> {
    let triggers = sqlx::query!(
        r#"SELECT t.app_id AS "app_id!", t.name AS "name!", t.kind AS "kind!", t.script AS "script!",
             t.enabled AS "enabled!", t.attempts AS "attempts!", t.backoff_ms AS "backoff_ms!",
             t.max_backoff_ms AS "max_backoff_ms!", t.max_concurrency, t.limits AS "limits!: Value",
             c.schedule AS "schedule?", c.timezone AS "timezone?", c.overlap AS "overlap?", c.catch_up AS "catch_up?",
             coalesce(k.collection, d.collection) AS collection, coalesce(k.events, d.events) AS events,
             l.source_kind
           FROM triggers t
           LEFT JOIN cron_trigger_details c ON c.trigger_id = t.id
           LEFT JOIN kv_trigger_details k ON k.trigger_id = t.id
           LEFT JOIN docs_trigger_details d ON d.trigger_id = t.id
           LEFT JOIN dead_letter_trigger_details l ON l.trigger_id = t.id
           WHERE $1::uuid[] IS NULL OR t.app_id = ANY($1)"#,
        ids as _,
    );
    for row in triggers.fetch_all(&mut *connection).await? {
        let Some(app) = apps.get_mut(&row.app_id) else {
            continue;
        };
        // The kind's own columns under their names: what the vocabulary's tagged enum reads.
        let detail = json!({
            "kind": row.kind, "schedule": row.schedule, "timezone": row.timezone, "overlap": row.overlap,
            "catch_up": row.catch_up, "collection": row.collection, "events": row.events,
            "source_kind": row.source_kind,
        });
        let kind: TriggerKind = value("triggers.kind", detail)?;
        let spec = TriggerSpec {
            kind,
            script: row
                .script
                .parse()
                .map_err(|_| corrupt("triggers.script", &row.script))?,
            enabled: row.enabled,
            retry: RetryPolicy {
                attempts: row.attempts.unsigned_abs(),
                backoff_ms: row.backoff_ms.unsigned_abs(),
                max_backoff_ms: row.max_backoff_ms.unsigned_abs(),
            },
            max_concurrency: row.max_concurrency.map(i32::unsigned_abs),
            limits: value("triggers.limits", row.limits)?,
        };
        let name = row
            .name
            .parse()
            .map_err(|_| corrupt("triggers.name", &row.name))?;
        app.spec.triggers.insert(name, spec);
    }
    Ok(())
}

fn word<T: DeserializeOwned>(column: &str, word: &str) -> Result<T, StoreError> {
    value(column, Value::String(word.to_owned()))
}

fn value<T: DeserializeOwned>(column: &str, value: Value) -> Result<T, StoreError> {
    let shown = value.to_string();
    serde_json::from_value(value).map_err(|_| corrupt(column, &shown))
}

fn corrupt(column: &str, value: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{column} = {value}"))
}
