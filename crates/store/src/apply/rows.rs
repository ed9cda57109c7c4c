//! The rows of the apps that a plan creates or updates: a fixed number of statements, whatever
//! the number of apps. What belongs to a changed app is written anew, except triggers, which keep
//! their ids and their next times.

use picloud_shared::{
    AppSpec, Clock, Plan,
    app::{TriggerKind, to_value},
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Writer;
use crate::StoreError;

impl Writer {
    /// Writes created and updated apps with all that belongs to them.
    pub(crate) async fn write(
        &self,
        connection: &mut PgConnection,
        plan: &Plan,
        clock: &dyn Clock,
    ) -> Result<(), StoreError> {
        let specs: Vec<(Uuid, &AppSpec)> = plan
            .apps
            .iter()
            .filter_map(|(name, app)| Some((*self.ids.get(name)?, app.desired.as_deref()?)))
            .collect();
        if specs.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = specs.iter().map(|(id, _)| *id).collect();
        self.upsert_apps(connection, &specs).await?;
        delete_children(connection, &ids).await?;
        insert_settings(connection, &specs).await?;
        insert_files(connection, &specs).await?;
        insert_routes(connection, &specs).await?;
        write_triggers(connection, &ids, &specs, clock).await
    }

    async fn upsert_apps(
        &self,
        connection: &mut PgConnection,
        specs: &[(Uuid, &AppSpec)],
    ) -> Result<(), StoreError> {
        let rows = rows(specs, |id, spec| {
            [json!({
                "id": id, "name": spec.name, "dir": spec.dir, "description": spec.description,
                "static_dir": spec.static_dir, "http_allow": spec.http_allow,
                "timeout_ms": spec.limits.timeout_ms, "memory": spec.limits.memory,
                "operations": spec.limits.operations, "concurrency": spec.limits.concurrency,
                "request_body": spec.limits.request_body, "response_body": spec.limits.response_body,
            })]
        });
        sqlx::query!(
            "INSERT INTO apps (id, source_id, name, dir, description, static_dir, http_allow, timeout_ms, memory,
                 operations, concurrency, request_body, response_body, touched, created_at)
             SELECT id, $2, name, dir, description, static_dir, http_allow, timeout_ms, memory, operations,
                 concurrency, request_body, response_body, $3, $4
             FROM jsonb_to_recordset($1) AS new (id uuid, name text, dir text, description text, static_dir text,
                 http_allow text[], timeout_ms bigint, memory bigint, operations bigint, concurrency integer,
                 request_body bigint, response_body bigint)
             ON CONFLICT (id) DO UPDATE SET source_id = EXCLUDED.source_id, name = EXCLUDED.name, dir = EXCLUDED.dir,
                 description = EXCLUDED.description, static_dir = EXCLUDED.static_dir,
                 http_allow = EXCLUDED.http_allow, timeout_ms = EXCLUDED.timeout_ms, memory = EXCLUDED.memory,
                 operations = EXCLUDED.operations, concurrency = EXCLUDED.concurrency,
                 request_body = EXCLUDED.request_body, response_body = EXCLUDED.response_body,
                 touched = EXCLUDED.touched, pinned_commit = NULL, pruned_at = NULL",
            rows,
            self.source.0,
            self.touched,
            self.now,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Makes one JSON array of what each app contributes.
fn rows<I: IntoIterator<Item = Value>>(
    specs: &[(Uuid, &AppSpec)],
    each: impl Fn(Uuid, &AppSpec) -> I,
) -> Value {
    specs
        .iter()
        .flat_map(|(id, spec)| each(*id, spec))
        .collect()
}

/// Removes what belongs to these apps, but for their triggers.
pub(crate) async fn delete_children(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH a AS (DELETE FROM app_domains WHERE app_id = ANY($1)),
              b AS (DELETE FROM app_env WHERE app_id = ANY($1)),
              c AS (DELETE FROM app_secrets WHERE app_id = ANY($1)),
              d AS (DELETE FROM app_scripts WHERE app_id = ANY($1)),
              e AS (DELETE FROM app_static_files WHERE app_id = ANY($1)),
              f AS (DELETE FROM app_checks WHERE app_id = ANY($1))
         DELETE FROM routes WHERE app_id = ANY($1)",
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes the triggers of these apps, but for those named `app_id/name`.
pub(crate) async fn delete_triggers(
    connection: &mut PgConnection,
    ids: &[Uuid],
    keep: &[String],
) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM triggers WHERE app_id = ANY($1) AND app_id::text || '/' || name <> ALL($2)",
        ids,
        keep,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_settings(
    connection: &mut PgConnection,
    specs: &[(Uuid, &AppSpec)],
) -> Result<(), StoreError> {
    let domains = rows(specs, |id, spec| {
        let domains = spec.domains.iter();
        domains
            .map(|domain| json!({"app_id": id, "domain": domain}))
            .collect::<Vec<_>>()
    });
    let env = rows(specs, |id, spec| {
        let env = spec.env.iter();
        env.map(|(name, value)| json!({"app_id": id, "name": name, "value": value}))
            .collect::<Vec<_>>()
    });
    let secrets = rows(specs, |id, spec| {
        let secrets = spec.secrets.iter();
        secrets
            .map(|(name, text)| json!({"app_id": id, "name": name, "ciphertext": text}))
            .collect::<Vec<_>>()
    });
    let checks = rows(specs, |id, spec| {
        let checks = spec.checks.iter().enumerate();
        let row = |(position, check): (usize, &picloud_shared::app::CheckSpec)| {
            json!({"app_id": id, "position": position, "path": check.path, "status": check.status,
                   "within_ms": check.within_ms})
        };
        checks.map(row).collect::<Vec<_>>()
    });
    sqlx::query!(
        "WITH a AS (INSERT INTO app_domains SELECT * FROM jsonb_populate_recordset(NULL::app_domains, $1)),
              b AS (INSERT INTO app_env SELECT * FROM jsonb_populate_recordset(NULL::app_env, $2)),
              c AS (INSERT INTO app_secrets SELECT * FROM jsonb_populate_recordset(NULL::app_secrets, $3))
         INSERT INTO app_checks SELECT * FROM jsonb_populate_recordset(NULL::app_checks, $4)",
        domains,
        env,
        secrets,
        checks,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_files(
    connection: &mut PgConnection,
    specs: &[(Uuid, &AppSpec)],
) -> Result<(), StoreError> {
    let scripts = rows(specs, |id, spec| {
        let row = |(path, script): (
            &picloud_shared::ScriptPath,
            &picloud_shared::app::ScriptSpec,
        )| {
            json!({"app_id": id, "path": path, "kind": script.kind, "blob_id": script.blob})
        };
        spec.scripts.iter().map(row).collect::<Vec<_>>()
    });
    let files = rows(specs, |id, spec| {
        let row = |(path, file): (&String, &picloud_shared::app::StaticFile)| json!({"app_id": id, "path": path, "blob_id": file.blob, "size": file.size});
        spec.static_files.iter().map(row).collect::<Vec<_>>()
    });
    sqlx::query!(
        "WITH a AS (INSERT INTO app_scripts SELECT * FROM jsonb_populate_recordset(NULL::app_scripts, $1))
         INSERT INTO app_static_files SELECT * FROM jsonb_populate_recordset(NULL::app_static_files, $2)",
        scripts,
        files,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_routes(
    connection: &mut PgConnection,
    specs: &[(Uuid, &AppSpec)],
) -> Result<(), StoreError> {
    let routes = rows(specs, |id, spec| {
        let row = |route: &picloud_shared::app::RouteSpec| {
            let mut row = to_value(route);
            row["app_id"] = json!(id);
            row
        };
        spec.routes.iter().map(row).collect::<Vec<_>>()
    });
    sqlx::query!(
        "INSERT INTO routes SELECT * FROM jsonb_populate_recordset(NULL::routes, $1)",
        routes
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_triggers(
    connection: &mut PgConnection,
    ids: &[Uuid],
    specs: &[(Uuid, &AppSpec)],
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let of_kind = |kind: &'static str| {
        specs
            .iter()
            .flat_map(|(id, spec)| {
                spec.triggers
                    .iter()
                    .map(move |(name, trigger)| (id, name, trigger))
            })
            .filter(move |(_, _, trigger)| trigger.kind.name() == kind || kind.is_empty())
    };
    let keep: Vec<String> = of_kind("")
        .map(|(id, name, _)| format!("{id}/{name}"))
        .collect();
    delete_triggers(connection, ids, &keep).await?;
    delete_strays(connection, ids).await?;
    if keep.is_empty() {
        return Ok(());
    }
    let all: Value = of_kind("")
        .map(|(id, name, trigger)| {
            json!({
                "id": clock.new_id(), "app_id": id, "name": name, "kind": trigger.kind.name(),
                "script": trigger.script, "enabled": trigger.enabled, "attempts": trigger.retry.attempts,
                "backoff_ms": trigger.retry.backoff_ms, "max_backoff_ms": trigger.retry.max_backoff_ms,
                "max_concurrency": trigger.max_concurrency, "limits": to_value(&trigger.limits),
            })
        })
        .collect();
    // A trigger that changes its kind is another trigger: its details belong to the old kind.
    sqlx::query!(
        "DELETE FROM triggers t USING jsonb_populate_recordset(NULL::triggers, $1) new
         WHERE t.app_id = new.app_id AND t.name = new.name AND t.kind <> new.kind",
        all,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "INSERT INTO triggers SELECT * FROM jsonb_populate_recordset(NULL::triggers, $1)
         ON CONFLICT (app_id, name) DO UPDATE SET script = EXCLUDED.script, enabled = EXCLUDED.enabled,
             attempts = EXCLUDED.attempts, backoff_ms = EXCLUDED.backoff_ms,
             max_backoff_ms = EXCLUDED.max_backoff_ms, max_concurrency = EXCLUDED.max_concurrency,
             limits = EXCLUDED.limits",
        all,
    )
    .execute(&mut *connection)
    .await?;
    let details: Value = of_kind("")
        .map(|(id, name, trigger)| {
            let mut row = detail(&trigger.kind);
            row["app_id"] = json!(id);
            row["name"] = json!(name);
            row
        })
        .collect();
    write_details(connection, &details).await
}

/// Removes what was changed by hand so that it belongs to no trigger of these apps any more, or
/// to one of another kind.
async fn delete_strays(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH own AS (SELECT id, app_id, kind FROM triggers WHERE app_id = ANY($1)),
              a AS (DELETE FROM cron_trigger_details d
                    WHERE (app_id = ANY($1) OR trigger_id IN (SELECT id FROM own))
                      AND (trigger_id, app_id, kind) NOT IN (SELECT id, app_id, kind FROM own)),
              b AS (DELETE FROM kv_trigger_details d
                    WHERE (app_id = ANY($1) OR trigger_id IN (SELECT id FROM own))
                      AND (trigger_id, app_id, kind) NOT IN (SELECT id, app_id, kind FROM own)),
              c AS (DELETE FROM docs_trigger_details d
                    WHERE (app_id = ANY($1) OR trigger_id IN (SELECT id FROM own))
                      AND (trigger_id, app_id, kind) NOT IN (SELECT id, app_id, kind FROM own))
         DELETE FROM dead_letter_trigger_details d
         WHERE (app_id = ANY($1) OR trigger_id IN (SELECT id FROM own))
           AND (trigger_id, app_id, kind) NOT IN (SELECT id, app_id, kind FROM own)",
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn detail(kind: &TriggerKind) -> Value {
    to_value(kind)
}

pub(crate) async fn write_details(
    connection: &mut PgConnection,
    details: &Value,
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH new AS (
           SELECT t.id, d.* FROM jsonb_to_recordset($1) AS d (app_id uuid, name text, kind text, schedule text,
               timezone text, overlap text, catch_up text, collection text, events text[], source_kind text)
           JOIN triggers t ON t.app_id = d.app_id AND t.name = d.name),
         cron AS (
           INSERT INTO cron_trigger_details AS old (trigger_id, app_id, schedule, timezone, overlap, catch_up)
           SELECT id, app_id, schedule, timezone, overlap, catch_up FROM new WHERE kind = 'cron'
           ON CONFLICT (trigger_id) DO UPDATE SET schedule = EXCLUDED.schedule, timezone = EXCLUDED.timezone,
               overlap = EXCLUDED.overlap, catch_up = EXCLUDED.catch_up,
               next_fire_at = CASE WHEN (old.schedule, old.timezone) = (EXCLUDED.schedule, EXCLUDED.timezone)
                                   THEN old.next_fire_at END),
         kv AS (
           INSERT INTO kv_trigger_details (trigger_id, app_id, collection, events)
           SELECT id, app_id, collection, events FROM new WHERE kind = 'kv'
           ON CONFLICT (trigger_id) DO UPDATE SET collection = EXCLUDED.collection, events = EXCLUDED.events),
         docs AS (
           INSERT INTO docs_trigger_details (trigger_id, app_id, collection, events)
           SELECT id, app_id, collection, events FROM new WHERE kind = 'docs'
           ON CONFLICT (trigger_id) DO UPDATE SET collection = EXCLUDED.collection, events = EXCLUDED.events)
         INSERT INTO dead_letter_trigger_details (trigger_id, app_id, source_kind)
         SELECT id, app_id, source_kind FROM new WHERE kind = 'dead_letter'
         ON CONFLICT (trigger_id) DO UPDATE SET source_kind = EXCLUDED.source_kind",
        details,
    )
    .execute(connection)
    .await?;
    Ok(())
}
