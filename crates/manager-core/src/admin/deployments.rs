//! Deployments.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use picloud_shared::{AppName, DeploymentId, deployment::Deployment};
use serde::Deserialize;
use serde_json::Value;

use super::{
    AdminState,
    access::{Authorized, DeploymentView},
    answer::{Answer, ListQuery, Problem, page},
};

#[derive(Deserialize)]
pub(super) struct Filter {
    source: Option<String>,
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<DeploymentView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let source = filter.source.as_deref().map(str::parse).transpose();
    let source = source.map_err(|_| Problem::invalid("source must be a source's name"))?;
    let mut found = state
        .store
        .deployments(source.as_ref(), &query.page()?)
        .await?;
    for deployment in &mut found.items {
        confine(deployment, caller.only());
    }
    Ok(page(&found, show_value))
}

pub(super) async fn show(
    State(state): State<AdminState>,
    caller: Authorized<DeploymentView>,
    Path(id): Path<String>,
) -> Answer {
    let id: DeploymentId = id.parse().map_err(|_| Problem::not_found("deployment"))?;
    let found = state.store.deployment(id).await?;
    let mut deployment = found.ok_or_else(|| Problem::not_found("deployment"))?;
    confine(&mut deployment, caller.only());
    Ok(Json(show_value(&deployment)))
}

/// The key of one app sees what concerns that app.
fn confine(deployment: &mut Deployment, only: Option<&AppName>) {
    if let Some(only) = only {
        deployment.changes.retain(|change| change.app == *only);
        deployment
            .errors
            .retain(|error| error.app.as_ref() == Some(only));
    }
}

pub(super) fn show_value(deployment: &Deployment) -> Value {
    serde_json::to_value(deployment).unwrap_or_default()
}
