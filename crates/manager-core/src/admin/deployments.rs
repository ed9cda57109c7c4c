//! Deployments.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use picloud_shared::{
    AppName, DeploymentId, Severity, SourceName,
    deployment::{Deployment, DeploymentStatus},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, DeploymentView, SourceSync},
    answer::{Answer, ListQuery, Problem, page},
    keys::audit,
};

#[derive(Deserialize)]
pub(super) struct Filter {
    source: Option<String>,
    app: Option<String>,
    brief: Option<bool>,
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<DeploymentView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let query = query.page()?;
    let source = match filter.source.as_deref() {
        None => None,
        Some(asked) => {
            if let Ok(found) = super::sources::find(&state, asked).await {
                Some(found.name)
            } else {
                let name: Result<SourceName, _> = asked.parse();
                Some(name.map_err(|_| Problem::invalid("source must be a source's name or id"))?)
            }
        }
    };
    let Some(app) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(super::answer::none());
    };
    // Who may see one app alone sees all deployments, of that app what they did.
    let asked = filter.app.and(app);
    // What a key of one app sees is counted after the rest is left out.
    if filter.brief.unwrap_or(false) && caller.only().is_none() {
        let found = state
            .store
            .brief_deployments(source.as_ref(), asked.as_ref(), &query)
            .await?;
        return Ok(page(&found, |(deployment, [changes, errors, warnings])| {
            let mut shown = show_value(deployment);
            shown["counts"] = json!({ "changes": changes, "errors": errors, "warnings": warnings });
            shown
        }));
    }
    let mut found = state
        .store
        .deployments(source.as_ref(), asked.as_ref(), &query)
        .await?;
    for deployment in &mut found.items {
        confine(deployment, caller.only());
    }
    let brief = filter.brief.unwrap_or(false);
    Ok(page(&found, |deployment| {
        let mut shown = show_value(deployment);
        if brief {
            shorten(&mut shown);
        }
        shown
    }))
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

/// Lets a deployment go that is held, or waits.
pub(super) async fn approve(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(id): Path<String>,
) -> Answer {
    let id: DeploymentId = id.parse().map_err(|_| Problem::not_found("deployment"))?;
    let found = state.store.deployment(id).await?;
    let deployment = found.ok_or_else(|| Problem::not_found("deployment"))?;
    let pending = matches!(
        deployment.status,
        DeploymentStatus::Held | DeploymentStatus::Waiting
    );
    if !pending {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "not_held",
            format!(
                "the deployment is {}: it neither is held nor waits",
                deployment.status.as_str()
            ),
        ));
    }
    let source = super::sources::find(&state, deployment.source.as_str()).await?;
    state
        .store
        .approve_commit(source.id, &deployment.commit)
        .await?;
    let detail = json!({ "before": { "status": deployment.status }, "after": { "approved": deployment.commit } });
    audit(
        &state,
        &caller,
        "deployment.approve",
        &id.to_string(),
        detail,
    )
    .await?;
    let deployer = state.sources.get(&source.name);
    let deployer =
        deployer.ok_or_else(|| Problem::unavailable("this process does not deploy the source"))?;
    let done = deployer.sync().await;
    done.map_err(|error| Problem::unavailable(error.to_string()))?;
    let after = state.store.deployment(id).await?.unwrap_or(deployment);
    Ok(Json(show_value(&after)))
}

/// The key of one app sees what concerns that app.
fn confine(deployment: &mut Deployment, only: Option<&AppName>) {
    if let Some(only) = only {
        deployment.changes.retain(|change| change.app == *only);
        deployment
            .errors
            .retain(|error| error.app.as_ref() == Some(only));
        deployment.apps.retain(|app| app.name == *only);
        // Of what other apps change, too.
        deployment.plan_hash = None;
    }
}

/// With how many changes and findings there are, for lists that leave them out.
pub(super) fn show_value(deployment: &Deployment) -> Value {
    let mut shown = serde_json::to_value(deployment).unwrap_or_default();
    let errors = deployment
        .errors
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    shown["counts"] = json!({
        "changes": deployment.changes.len(),
        "errors": errors,
        "warnings": deployment.errors.len() - errors,
    });
    shown
}

/// Leaves out what a list doesn't show.
fn shorten(shown: &mut Value) {
    for name in ["changes", "errors", "apps", "steps"] {
        shown[name] = json!([]);
    }
}
