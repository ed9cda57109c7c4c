//! Apps, and what they are made of.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use picloud_shared::{
    app::to_value,
    plan::{LiveApp, LiveState},
};
use picloud_store::SourceRecord;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{AppView, Authorized},
    answer::{Answer, ListQuery, Problem},
};

/// The live app of that name or id.
pub(super) async fn find(state: &AdminState, asked: &str) -> Answer<LiveApp> {
    let live = state.store.load_live().await?;
    pick(&live, asked)
        .cloned()
        .ok_or_else(|| Problem::not_found("app"))
}

fn pick<'l>(live: &'l LiveState, asked: &str) -> Option<&'l LiveApp> {
    live.apps
        .get(asked)
        .or_else(|| live.apps.values().find(|app| app.id.to_string() == asked))
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<AppView>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let query = query.page()?;
    let live = state.store.load_live().await?;
    let sources = state.store.sources().await?;
    let after = query.cursor.as_deref().unwrap_or_default();
    let mut apps = live
        .apps
        .values()
        .filter(|app| caller.sees(&app.spec.name) && app.spec.name.as_str() > after);
    let mut items = Vec::new();
    for app in apps.by_ref().take(query.limit as usize) {
        items.push(show_value(&state, app, &sources).await?);
    }
    let last = items.last().map(|app| app["name"].clone());
    let next = apps.next().and(last);
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

pub(super) async fn show(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
) -> Answer {
    let app = find(&state, &app).await?;
    let sources = state.store.sources().await?;
    Ok(Json(show_value(&state, &app, &sources).await?))
}

async fn show_value(state: &AdminState, app: &LiveApp, sources: &[SourceRecord]) -> Answer<Value> {
    let source = sources.iter().find(|source| source.id == app.source);
    let since = state.clock.now() - chrono::TimeDelta::minutes(15);
    let counts = state.store.count_runs(app.id, since).await?;
    let total: i64 = counts.iter().map(|(_, count)| count).sum();
    let good: i64 = counts
        .iter()
        .filter(|(status, _)| status == "ok")
        .map(|(_, count)| count)
        .sum();
    let health = match (total, total - good) {
        (0, _) => "idle",
        (total, bad) if bad * 20 > total => "degraded",
        _ => "healthy",
    };
    let suspended = source.is_some_and(|source| source.suspended);
    let sync = match (&app.pinned_commit, suspended) {
        _ if state.drift.is_drifted(app.id) => "drifted",
        (_, true) => "suspended",
        (Some(_), _) => "failed",
        (None, _) => "synced",
    };
    let commit = app
        .pinned_commit
        .clone()
        .or_else(|| source.and_then(|source| source.live_commit.clone()));
    let spec = &app.spec;
    Ok(json!({
        "id": app.id,
        "name": spec.name,
        "description": spec.description,
        "source": source.map(|source| &source.name),
        "dir": spec.dir,
        "commit": commit,
        "sync": sync,
        "health": health,
        "domains": spec.domains,
        "limits": spec.effective_limits(),
        "permissions": { "http": { "allow": spec.http_allow } },
        "static": spec.static_dir,
        "routes": spec.routes.len(),
        "scripts": spec.scripts.len(),
        "triggers": spec.triggers.len(),
    }))
}

fn items(items: impl Iterator<Item = Value>) -> Json<Value> {
    Json(json!({ "items": items.collect::<Vec<_>>(), "next_cursor": null }))
}

pub(super) async fn scripts(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
) -> Answer {
    let app = find(&state, &app).await?;
    Ok(items(app.spec.scripts.iter().map(
        |(path, script)| json!({ "path": path, "kind": script.kind, "blob": script.blob }),
    )))
}

pub(super) async fn script(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path((app, path)): Path<(String, String)>,
) -> Answer {
    let app = find(&state, &app).await?;
    let found = app
        .spec
        .scripts
        .get(path.as_str())
        .ok_or_else(|| Problem::not_found("script"))?;
    let text = state.store.script_text(&found.blob).await?;
    let text = text.ok_or_else(|| Problem::not_found("script"))?;
    Ok(Json(
        json!({ "path": path, "kind": found.kind, "blob": found.blob, "source": text }),
    ))
}

pub(super) async fn routes(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
) -> Answer {
    let app = find(&state, &app).await?;
    Ok(items(app.spec.routes.iter().map(to_value)))
}

pub(super) async fn env(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
) -> Answer {
    let app = find(&state, &app).await?;
    let spec = Arc::clone(&app.spec);
    Ok(items(spec.env.iter().map(
        |(name, value)| json!({ "name": name, "value": value }),
    )))
}
