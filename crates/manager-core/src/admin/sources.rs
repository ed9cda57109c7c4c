//! Sources.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use picloud_store::SourceRecord;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, SourceSync, SourceView},
    answer::{Answer, ListQuery, Problem},
    keys::audit,
};
use crate::reconcile::DeployError;

pub(super) async fn list(
    State(state): State<AdminState>,
    _: Authorized<SourceView>,
    Query(query): Query<ListQuery>,
) -> Answer {
    query.page()?;
    let items: Vec<Value> = state
        .store
        .sources()
        .await?
        .iter()
        .map(show_value)
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": null })))
}

pub(super) async fn find(state: &AdminState, name: &str) -> Answer<SourceRecord> {
    let name = name.parse().map_err(|_| Problem::not_found("source"))?;
    state
        .store
        .source(&name)
        .await?
        .ok_or_else(|| Problem::not_found("source"))
}

pub(super) async fn show(
    State(state): State<AdminState>,
    _: Authorized<SourceView>,
    Path(name): Path<String>,
) -> Answer {
    Ok(Json(show_value(&find(&state, &name).await?)))
}

#[derive(Deserialize)]
pub(super) struct Sync {
    #[serde(default)]
    wait: bool,
}

pub(super) async fn sync(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(name): Path<String>,
    Query(query): Query<Sync>,
) -> Answer<(StatusCode, Json<Value>)> {
    let source = find(&state, &name).await?;
    let deployer = state
        .deployers
        .iter()
        .find(|deployer| *deployer.source_name() == source.name);
    let deployer = deployer
        .cloned()
        .ok_or_else(|| Problem::unavailable("this process does not deploy the source"))?;
    audit(
        &state,
        &caller,
        "source.sync",
        source.name.as_str(),
        json!({}),
    )
    .await?;
    if !query.wait {
        tokio::spawn(async move {
            if let Err(error) = deployer.sync().await {
                tracing::error!(%error, "the sync that was asked for failed");
            }
        });
        return Ok((StatusCode::ACCEPTED, Json(json!({ "source": source.name }))));
    }
    let made = deployer.sync().await.map_err(|error| match error {
        DeployError::Waiting(_) => Problem::unavailable(error.to_string()),
        error => Problem::new(StatusCode::CONFLICT, "stalled", error.to_string()),
    })?;
    let deployment = match made {
        Some(deployment) => Some(deployment.as_ref().clone()),
        None => state.store.last_deployment(&source.name).await?,
    };
    match deployment {
        Some(deployment) => Ok((
            StatusCode::OK,
            Json(super::deployments::show_value(&deployment)),
        )),
        None => Err(Problem::not_found("commit: the branch has none yet")),
    }
}

fn show_value(source: &SourceRecord) -> Value {
    json!({
        "id": source.id,
        "name": source.name,
        "kind": source.kind.as_str(),
        "url": source.url,
        "branch": source.branch,
        "path": source.path,
        "commit": source.live_commit,
        "suspended": source.suspended,
    })
}
