//! Rows of the live configuration, and how they become an `AppSpec`. A row that says nothing
//! PiCloud could act on (somebody changed it by hand) is told as damaged and counts as absent: one
//! such row must not keep all the rest from being served, planned and mended.

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{
    AppSpec, LimitsPatch,
    app::{CheckSpec, RouteSpec, ScriptSpec, StaticFile, TriggerSpec, to_value},
    drift::DamagedItem,
    plan::ItemKind,
};
use serde::Serialize;
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
    http_allow: Option<Vec<Option<String>>>,
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
        spec.http_allow = self.http_allow.clone().map(texts);
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
    pub(crate) damaged: Vec<DamagedItem>,
}

impl LoadedApp {
    /// Notes a row that can't be read.
    pub(crate) fn damage(&mut self, kind: ItemKind, name: String, fields: Value) {
        tracing::debug!(app = %self.spec.name, ?kind, name, "a row of the live configuration cannot be read");
        self.damaged.push(DamagedItem { kind, name, fields });
    }
}

/// An element that is NULL is no word of anything; it differs from all that git declares.
fn texts(elements: Vec<Option<String>>) -> Vec<String> {
    elements
        .into_iter()
        .map(Option::unwrap_or_default)
        .collect()
}

/// Loads the apps of these ids, or all, that are live.
pub(crate) async fn load(
    connection: &mut PgConnection,
    ids: Option<&[Uuid]>,
) -> Result<BTreeMap<Uuid, LoadedApp>, StoreError> {
    let rows = sqlx::query_as!(
        AppRow,
        r#"SELECT id, source_id AS "source_id!", pinned_commit, touched, name, dir, description, static_dir, http_allow AS "http_allow: Vec<Option<String>>", timeout_ms,
           memory, operations, concurrency, request_body, response_body
         FROM apps WHERE pruned_at IS NULL AND ($1::uuid[] IS NULL OR id = ANY($1))"#,
        ids as _,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut apps = BTreeMap::new();
    for row in rows {
        let spec = row.spec()?;
        apps.insert(
            row.id,
            LoadedApp {
                row,
                spec,
                damaged: Vec::new(),
            },
        );
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
            let position = app.spec.checks.len() + 1;
            let fields =
                json!({ "path": row.path, "status": row.status, "within_ms": row.within_ms });
            match serde_json::from_value::<CheckSpec>(fields.clone()) {
                Ok(check) => app.spec.checks.push(check),
                Err(_) => {
                    app.damage(ItemKind::Check, format!("{position} {}", row.path), fields);
                }
            }
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
            let fields = json!({ "kind": row.kind, "blob": row.blob_id });
            let spec = serde_json::from_value::<ScriptSpec>(fields.clone());
            match (row.path.parse(), spec) {
                (Ok(path), Ok(spec)) => {
                    app.spec.scripts.insert(path, spec);
                }
                _ => app.damage(ItemKind::Script, row.path, fields),
            }
        }
    }
    let files = sqlx::query!(
        "SELECT app_id, path, blob_id, size FROM app_static_files WHERE $1::uuid[] IS NULL OR app_id = ANY($1)",
        ids as _,
    );
    for row in files.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            let fields = json!({ "blob": row.blob_id, "size": row.size });
            if let Ok(file) = serde_json::from_value::<StaticFile>(fields.clone()) {
                app.spec.static_files.insert(row.path, file);
            } else {
                let dir = app.spec.static_dir.clone().unwrap_or_default();
                app.damage(ItemKind::Static, format!("{dir}/{}", row.path), fields);
            }
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
        r#"SELECT app_id, path, methods AS "methods: Vec<Option<String>>", script, mode, auth AS "auth: Value", cors AS "cors: Value",
             rate_limit AS "rate_limit: Value", limits AS "limits: Value"
           FROM routes WHERE $1::uuid[] IS NULL OR app_id = ANY($1)
           ORDER BY app_id, path COLLATE "C", methods COLLATE "C""#,
        ids as _,
    );
    for row in routes.fetch_all(&mut *connection).await? {
        if let Some(app) = apps.get_mut(&row.app_id) {
            // A set: the order says nothing.
            let methods: BTreeSet<String> = texts(row.methods).into_iter().collect();
            let fields = json!({
                "path": row.path, "methods": methods, "script": row.script, "mode": row.mode,
                "auth": row.auth, "cors": row.cors, "rate_limit": row.rate_limit, "limits": row.limits,
            });
            match serde_json::from_value::<RouteSpec>(fields.clone()) {
                // What is read differently than it is written isn't what it says.
                Ok(route) if is_whole(&route, &fields) => app.spec.routes.push(route),
                _ => {
                    let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
                    let name = format!("{} {}", methods.join(","), row.path);
                    app.damage(ItemKind::Route, name, fields);
                }
            }
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
           LEFT JOIN cron_trigger_details c ON (c.trigger_id, c.app_id, c.kind) = (t.id, t.app_id, t.kind)
           LEFT JOIN kv_trigger_details k ON (k.trigger_id, k.app_id, k.kind) = (t.id, t.app_id, t.kind)
           LEFT JOIN docs_trigger_details d ON (d.trigger_id, d.app_id, d.kind) = (t.id, t.app_id, t.kind)
           LEFT JOIN dead_letter_trigger_details l ON (l.trigger_id, l.app_id, l.kind) = (t.id, t.app_id, t.kind)
           WHERE $1::uuid[] IS NULL OR t.app_id = ANY($1)"#,
        ids as _,
    );
    for row in triggers.fetch_all(&mut *connection).await? {
        let Some(app) = apps.get_mut(&row.app_id) else {
            continue;
        };
        // The kind's own columns under their names: what the vocabulary's tagged enum reads.
        let kind = json!({
            "kind": row.kind, "schedule": row.schedule, "timezone": row.timezone, "overlap": row.overlap,
            "catch_up": row.catch_up, "collection": row.collection, "events": row.events,
            "source_kind": row.source_kind,
        });
        let mut fields = json!({
            "kind": kind, "script": row.script, "enabled": row.enabled, "max_concurrency": row.max_concurrency,
            "limits": row.limits,
            "retry": {
                "attempts": row.attempts, "backoff_ms": row.backoff_ms, "max_backoff_ms": row.max_backoff_ms,
            },
        });
        let spec = serde_json::from_value::<TriggerSpec>(fields.clone());
        let limits = fields["limits"].clone();
        match (row.name.parse(), spec) {
            (Ok(name), Ok(spec)) if is_whole(&spec.limits, &limits) => {
                app.spec.triggers.insert(name, spec);
            }
            _ => {
                // As a sound one is compared: the kind's own fields beside the others.
                if let Value::Object(kind) = fields["kind"].take() {
                    for (key, value) in kind {
                        fields[key] = value;
                    }
                }
                app.damage(ItemKind::Trigger, row.name, fields);
            }
        }
    }
    Ok(())
}

/// Whether nothing of a row is lost on the way into its type, as an unknown key would be.
fn is_whole<T: Serialize>(read: &T, written: &Value) -> bool {
    covers(&to_value(read), written)
}

fn covers(read: &Value, written: &Value) -> bool {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => written
            .iter()
            .filter(|(_, value)| !value.is_null())
            .all(|(key, value)| read.get(key).is_some_and(|read| covers(read, value))),
        _ => read == written,
    }
}

fn corrupt(column: &str, value: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{column} = {value}"))
}
