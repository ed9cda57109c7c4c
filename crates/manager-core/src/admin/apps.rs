//! Apps, and what they are made of.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use picloud_shared::{
    AppId, RunStatus, ScriptPath,
    app::{RouteSpec, ScriptSpec, to_value},
    plan::{LiveApp, LiveState},
};
use picloud_store::{SourceRecord, previews::PreviewRecord};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{AppView, Authorized},
    answer::{Answer, ListQuery, Problem},
};
use crate::drift::DriftWatch;

/// The live app of that name or id.
pub(super) async fn find(state: &AdminState, asked: &str) -> Answer<LiveApp> {
    let live = state.kept.live.get(&state.store).await?;
    pick(&live, asked)
        .cloned()
        .ok_or_else(|| Problem::not_found("app"))
}

fn pick<'l>(live: &'l LiveState, asked: &str) -> Option<&'l LiveApp> {
    live.apps
        .get(asked)
        .or_else(|| live.apps.values().find(|app| app.id.to_string() == asked))
}

/// Words for how an app stands to git.
pub(super) const SYNC: [&str; 4] = ["synced", "drifted", "failed", "suspended"];
/// Words for how an app's runs go.
pub(super) const HEALTH: [&str; 3] = ["healthy", "degraded", "idle"];

/// Which apps are wanted.
#[derive(Deserialize)]
pub(super) struct Filter {
    q: Option<String>,
    sync: Option<String>,
    health: Option<String>,
}

/// The same, read.
struct Wanted {
    words: Words,
    sync: Option<&'static str>,
    health: Option<&'static str>,
}

impl Filter {
    fn parse(&self) -> Answer<Wanted> {
        let one = |name: &'static str, given: Option<&str>, known: &[&'static str]| match given {
            None => Ok(None),
            Some(given) => known
                .iter()
                .copied()
                .find(|word| *word == given)
                .map(Some)
                .ok_or_else(|| {
                    let detail = format!("{name} must be one of {}", known.join(", "));
                    Problem::invalid(detail).at(name)
                }),
        };
        Ok(Wanted {
            words: Words::of(self.q.as_deref()),
            sync: one("sync", self.sync.as_deref(), &SYNC)?,
            health: one("health", self.health.as_deref(), &HEALTH)?,
        })
    }
}

impl Wanted {
    fn lets(&self, app: &LiveApp, around: &Around) -> bool {
        let spec = &app.spec;
        self.words.stand_in(&[
            spec.name.as_str(),
            spec.description.as_deref().unwrap_or(""),
        ]) && self.sync.is_none_or(|sync| sync == around.sync(app))
            && self
                .health
                .is_none_or(|health| health == around.health(app.id))
    }
}

/// What a person looks for: words, each of which stands somewhere, in any case.
pub(super) struct Words(Vec<String>);

impl Words {
    pub(super) fn of(text: Option<&str>) -> Self {
        let words = text.unwrap_or_default().split_whitespace();
        Self(words.map(str::to_lowercase).collect())
    }

    pub(super) fn stand_in(&self, parts: &[&str]) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let text = parts.join(" ").to_lowercase();
        self.0.iter().all(|word| text.contains(word))
    }
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<AppView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let live = state.kept.live.get(&state.store).await?;
    let around = Around::load(&state).await?;
    let wanted = filter.parse()?;
    let seen = live
        .apps
        .iter()
        .filter(|(name, app)| caller.sees(name) && wanted.lets(app, &around));
    let (apps, next) = query.slice(seen.map(|(name, app)| (name.to_string(), app)))?;
    let items: Vec<Value> = apps.into_iter().map(|app| around.show(app)).collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

pub(super) async fn show(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
) -> Answer {
    let app = find(&state, &app).await?;
    Ok(Json(Around::load(&state).await?.show(&app)))
}

/// What is shown of apps beside their configuration: asked for once, however many they are.
pub(super) struct Around {
    sources: Vec<SourceRecord>,
    previews: Vec<PreviewRecord>,
    /// Runs of the last minutes, and those of them that went well.
    runs: HashMap<AppId, (u64, u64)>,
    drift: Arc<DriftWatch>,
}

impl Around {
    pub(super) async fn load(state: &AdminState) -> Answer<Self> {
        let since = state.clock.now() - chrono::TimeDelta::minutes(15);
        let mut runs: HashMap<AppId, (u64, u64)> = HashMap::new();
        for (app, status, count) in state.store.count_runs_by_app(since).await? {
            let (total, good) = runs.entry(app).or_default();
            *total += count;
            if matches!(status, RunStatus::Ok | RunStatus::Skipped) {
                *good += count;
            }
        }
        Ok(Self {
            sources: state.store.sources().await?,
            previews: state.store.previews().await?,
            runs,
            drift: Arc::clone(&state.drift),
        })
    }

    pub(super) fn health(&self, app: AppId) -> &'static str {
        let (total, good) = self.runs.get(&app).copied().unwrap_or_default();
        match (total, total - good) {
            (0, _) => "idle",
            (total, bad) if bad * 20 > total => "degraded",
            _ => "healthy",
        }
    }

    fn preview(&self, app: &LiveApp) -> Option<&PreviewRecord> {
        let mut previews = self.previews.iter();
        previews.find(|preview| preview.source == app.source)
    }

    /// The source that a person deploys the app from.
    fn source(&self, app: &LiveApp) -> Option<&SourceRecord> {
        let owner = self
            .preview(app)
            .map_or(app.source, |preview| preview.parent);
        self.sources.iter().find(|source| source.id == owner)
    }

    pub(super) fn sync(&self, app: &LiveApp) -> &'static str {
        let suspended = self.source(app).is_some_and(|source| source.suspended);
        match (&app.pinned_commit, suspended) {
            _ if self.drift.is_drifted(app.id) => "drifted",
            (_, true) => "suspended",
            (Some(_), _) => "failed",
            (None, _) => "synced",
        }
    }

    fn show(&self, app: &LiveApp) -> Value {
        show_value(self, app)
    }
}

fn show_value(around: &Around, app: &LiveApp) -> Value {
    let (preview, source) = (around.preview(app), around.source(app));
    let commit = app.pinned_commit.clone().or_else(|| match preview {
        Some(preview) => preview.live_commit.clone(),
        None => source.and_then(|source| source.live_commit.clone()),
    });
    let spec = &app.spec;
    json!({
        "id": app.id,
        "name": spec.name,
        "description": spec.description,
        "source": source.map(|source| &source.name),
        "preview": preview.map(|preview| json!({
            "slug": preview.slug, "reference": preview.reference, "head_at": preview.head_at,
        })),
        "dir": spec.dir,
        "commit": commit,
        "sync": around.sync(app),
        "health": around.health(app.id),
        "domains": spec.domains,
        "limits": spec.effective_limits(),
        "permissions": { "http": { "allow": spec.http_allow } },
        "static": spec.static_dir,
        "routes": spec.routes.len(),
        "scripts": spec.scripts.len(),
        "triggers": spec.triggers.len(),
    })
}

/// A part of a list of the app's things, in the order of their keys.
fn listed(query: &ListQuery, items: impl Iterator<Item = (String, Value)>) -> Answer {
    let (items, next) = query.slice(items)?;
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

pub(super) async fn scripts(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let app = find(&state, &app).await?;
    let scripts = app
        .spec
        .scripts
        .iter()
        .map(|(path, script)| (path.to_string(), show_script(&app, path, script)));
    listed(&query, scripts)
}

pub(super) fn show_script(app: &LiveApp, path: &ScriptPath, script: &ScriptSpec) -> Value {
    json!({ "app": app.spec.name, "path": path, "kind": script.kind, "blob": script.blob })
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
    Query(query): Query<ListQuery>,
) -> Answer {
    let app = find(&state, &app).await?;
    let mut routes: Vec<(String, Value)> = app
        .spec
        .routes
        .iter()
        .map(|route| (route_key(route), show_route(&app, route)))
        .collect();
    routes.sort_by(|(one, _), (other, _)| one.cmp(other));
    listed(&query, routes.into_iter())
}

/// By which an app's routes are in order.
pub(super) fn route_key(route: &RouteSpec) -> String {
    let methods: Vec<&str> = route.methods.iter().map(String::as_str).collect();
    format!("{} {}", route.path, methods.join(","))
}

pub(super) fn show_route(app: &LiveApp, route: &RouteSpec) -> Value {
    let mut shown = to_value(route);
    shown["app"] = json!(app.spec.name);
    shown
}

pub(super) async fn env(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let app = find(&state, &app).await?;
    let plain = app.spec.env.iter().map(|(name, value)| {
        let shown = json!({ "name": name, "value": value, "secret": false });
        (name.clone(), shown)
    });
    let secrets = app.spec.secrets.keys().map(|name| {
        let shown = json!({ "name": name, "value": null, "secret": true });
        (name.clone(), shown)
    });
    let all: BTreeMap<(String, bool), Value> = plain
        .map(|(name, shown)| ((name, false), shown))
        .chain(secrets.map(|(name, shown)| ((name, true), shown)))
        .collect();
    // A variable and a secret may have one name.
    let keyed = all
        .into_iter()
        .map(|((name, secret), shown)| (format!("{name}\0{}", u8::from(secret)), shown));
    listed(&query, keyed)
}
