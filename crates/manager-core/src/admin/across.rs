//! What there is over all apps, each list in one answer: however many apps, a page asks once.

use axum::{
    Json,
    extract::{Query, State},
};
use picloud_shared::{
    AppName, Scope,
    plan::{LiveApp, LiveState},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    AdminState,
    access::{AppView, Authorized},
    answer::{Answer, ListQuery},
    apps::{self, Around, Words},
    triggers,
};

/// Apps that the overview names as being in need of a look.
const MAX_NAMED: usize = 50;
/// Up to where dead letters are counted.
const MAX_COUNTED: i64 = 10_000;

/// How many there are of each word.
fn counted(known: &[&str], words: impl Iterator<Item = &'static str>) -> Value {
    let mut counts: Map<String, Value> = Map::new();
    let mut of: Vec<(&str, u64)> = known.iter().map(|word| (*word, 0)).collect();
    for word in words {
        if let Some((_, count)) = of.iter_mut().find(|(known, _)| *known == word) {
            *count += 1;
        }
    }
    for (word, count) in of {
        counts.insert(word.to_owned(), count.into());
    }
    counts.into()
}

/// How all apps stand, and which of them need a look.
pub(super) async fn overview(
    State(state): State<AdminState>,
    caller: Authorized<AppView>,
) -> Answer {
    let live = state.kept.live.get(&state.store).await?;
    let around = Around::load(&state).await?;
    let seen: Vec<_> = live
        .apps
        .iter()
        .filter(|(name, _)| caller.sees(name))
        .map(|(name, app)| (name, around.sync(app), around.health(app.id)))
        .collect();
    let named = seen
        .iter()
        .filter(|(_, sync, health)| matches!(*sync, "drifted" | "failed") || *health == "degraded")
        .take(MAX_NAMED)
        .map(|(name, sync, health)| json!({ "app": name, "sync": sync, "health": health }));
    let named: Vec<Value> = named.collect();
    let sees_runs = [Scope::RunRead, Scope::InstanceAdmin];
    let sees_runs = caller
        .grant
        .scopes
        .iter()
        .any(|scope| sees_runs.contains(scope));
    let (mut letters, mut queue) = (None, None);
    if sees_runs {
        let only = caller.only();
        letters = Some(state.store.count_dead_letters(only, MAX_COUNTED).await?);
        if only.is_none() {
            let (waiting, running) = state.store.outbox_depth().await?;
            queue = Some(json!({ "waiting": waiting, "running": running }));
        }
    }
    Ok(Json(json!({
        "apps": seen.len(),
        "sync": counted(&apps::SYNC, seen.iter().map(|(_, sync, _)| *sync)),
        "health": counted(&apps::HEALTH, seen.iter().map(|(.., health)| *health)),
        "attention": named,
        "dead_letters": letters,
        "queue": queue,
    })))
}

#[derive(Deserialize)]
pub(super) struct Filter {
    app: Option<String>,
    q: Option<String>,
}

/// What the filter lets of the things that apps have, in the order of apps and keys.
fn select<'l, T>(
    live: &'l LiveState,
    app: Option<&AppName>,
    of: impl Fn(&'l LiveApp) -> Vec<(String, T)>,
) -> Vec<(String, (&'l LiveApp, T))> {
    let wanted = live
        .apps
        .iter()
        .filter(|(name, _)| app.is_none_or(|app| app == *name));
    wanted
        .flat_map(|(name, app)| {
            let mut things = of(app);
            things.sort_by(|(one, _), (other, _)| one.cmp(other));
            things
                .into_iter()
                .map(move |(key, thing)| (format!("{name}\0{key}"), (app, thing)))
        })
        .collect()
}

pub(super) async fn routes(
    State(state): State<AdminState>,
    caller: Authorized<AppView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let Some(only) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(super::answer::none());
    };
    let words = Words::of(filter.q.as_deref());
    let live = state.kept.live.get(&state.store).await?;
    let all = select(&live, only.as_ref(), |app| {
        let keyed = app
            .spec
            .routes
            .iter()
            .map(|route| (apps::route_key(route), route));
        let wanted = keyed.filter(|(key, route)| {
            words.stand_in(&[app.spec.name.as_str(), key, route.script.as_str()])
        });
        wanted.collect()
    });
    let (found, next) = query.slice(all)?;
    let items: Vec<Value> = found
        .into_iter()
        .map(|(app, route)| apps::show_route(app, route))
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

pub(super) async fn scripts(
    State(state): State<AdminState>,
    caller: Authorized<AppView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let Some(only) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(super::answer::none());
    };
    let words = Words::of(filter.q.as_deref());
    let live = state.kept.live.get(&state.store).await?;
    let all = select(&live, only.as_ref(), |app| {
        let scripts = app.spec.scripts.iter();
        let wanted =
            scripts.filter(|(path, _)| words.stand_in(&[app.spec.name.as_str(), path.as_str()]));
        wanted.map(|pair| (pair.0.to_string(), pair)).collect()
    });
    let (found, next) = query.slice(all)?;
    let items: Vec<Value> = found
        .into_iter()
        .map(|(app, (path, script))| apps::show_script(app, path, script))
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

pub(super) async fn triggers(
    State(state): State<AdminState>,
    caller: Authorized<AppView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let Some(only) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(super::answer::none());
    };
    let words = Words::of(filter.q.as_deref());
    let live = state.kept.live.get(&state.store).await?;
    let all = select(&live, only.as_ref(), |app| {
        let triggers = app.spec.triggers.iter();
        let wanted = triggers.filter(|(name, spec)| {
            let parts = [
                app.spec.name.as_str(),
                name.as_str(),
                spec.kind.name(),
                spec.script.as_str(),
            ];
            words.stand_in(&parts)
        });
        wanted.map(|pair| (pair.0.to_string(), pair)).collect()
    });
    let (found, next) = query.slice(all)?;
    let mut asked: Vec<_> = found.iter().map(|(app, _)| app.id).collect();
    asked.dedup();
    let known = state.store.next_fires_of(&asked).await?;
    let items: Vec<Value> = found
        .into_iter()
        .map(|(app, trigger)| triggers::show_known(&state, app, trigger, &known))
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}
