//! Drift, and its end.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use picloud_shared::AppName;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, DriftHeal, DriftView, SourceSync},
    answer::{Answer, ListQuery, Problem},
    keys::audit,
    sources::{find, stalled},
};
use crate::{drift::AppDrift, reconcile::Deployer};

async fn of(state: &AdminState, app: &str) -> Answer<AppDrift> {
    let found = state.drift.app(app).await?;
    found.ok_or_else(|| Problem::not_found("app"))
}

pub(super) async fn show(
    State(state): State<AdminState>,
    _: Authorized<DriftView>,
    Path(app): Path<String>,
) -> Answer {
    let drift = of(&state, &app).await?;
    Ok(Json(
        json!({ "items": drift.items, "app": drift.name, "drifted": !drift.items.is_empty() }),
    ))
}

/// All apps that drift, by name.
pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<DriftView>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let drifted = state.drift.all().await?;
    let seen = drifted.iter().filter(|app| caller.sees(&app.name));
    let (found, next) = query.slice(seen.map(|app| (app.name.to_string(), app)))?;
    let items: Vec<Value> = found
        .into_iter()
        .map(|app| json!({ "app": app.name, "items": app.items }))
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// Undoes the drift of one app.
pub(super) async fn heal(
    State(state): State<AdminState>,
    caller: Authorized<DriftHeal>,
    Path(app): Path<String>,
) -> Answer {
    let drift = of(&state, &app).await?;
    let deployer = state.sources.by_id(drift.source);
    let deployer =
        deployer.ok_or_else(|| Problem::unavailable("this process does not deploy the source"))?;
    let only = BTreeSet::from([drift.name.clone()]);
    let healed = carry_out(&deployer, Some(&only)).await?;
    let detail = json!({ "deployment": healed["deployment"]["id"] });
    audit(&state, &caller, "app.heal", drift.name.as_str(), detail).await?;
    Ok(Json(healed))
}

/// Undoes the drift of all apps of a source.
pub(super) async fn heal_source(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(name): Path<String>,
) -> Answer {
    let source = find(&state, &name).await?;
    let deployer = super::sources::deployer(&state, &source)?;
    let healed = carry_out(&deployer, None).await?;
    let detail = json!({ "deployment": healed["deployment"]["id"] });
    audit(&state, &caller, "source.heal", source.name.as_str(), detail).await?;
    Ok(Json(healed))
}

async fn carry_out(deployer: &Deployer, only: Option<&BTreeSet<AppName>>) -> Answer<Value> {
    let done = deployer.heal(only).await.map_err(stalled)?;
    Ok(json!({ "healed": done.is_some(), "deployment": done }))
}
