//! What a deployment did to scripts: their text before and after it.

use axum::{
    Json,
    extract::{Path, State},
};
use picloud_shared::{BlobId, DeploymentId, plan::ItemKind};
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, DeploymentView},
    answer::{Answer, Problem},
};

/// Scripts whose text is told at once.
const MOST: usize = 50;

/// The texts of the scripts that a deployment changed. A text that is kept no longer is `null`.
pub(super) async fn show(
    State(state): State<AdminState>,
    caller: Authorized<DeploymentView>,
    Path(id): Path<String>,
) -> Answer {
    let id: DeploymentId = id.parse().map_err(|_| Problem::not_found("deployment"))?;
    let found = state.store.deployment(id).await?;
    let deployment = found.ok_or_else(|| Problem::not_found("deployment"))?;
    let scripts = deployment
        .changes
        .iter()
        .filter(|change| change.kind == ItemKind::Script && caller.sees(&change.app));
    let all: Vec<_> = scripts.collect();
    let mut items: Vec<Value> = Vec::new();
    for change in all.iter().take(MOST) {
        let blob = change.fields.iter().find(|field| field.path == "blob");
        let (old, new) = match blob {
            Some(field) => (
                text(&state, &field.old).await?,
                text(&state, &field.new).await?,
            ),
            None => (None, None),
        };
        items.push(json!({
            "app": change.app,
            "path": change.name,
            "change": change.change,
            "old": old,
            "new": new,
        }));
    }
    let left_out = all.len().saturating_sub(MOST);
    Ok(Json(json!({ "items": items, "left_out": left_out })))
}

async fn text(state: &AdminState, blob: &Value) -> Answer<Option<String>> {
    let blob: Option<BlobId> = blob.as_str().and_then(|blob| blob.parse().ok());
    match blob {
        Some(blob) => Ok(state.store.script_text(&blob).await?),
        None => Ok(None),
    }
}
