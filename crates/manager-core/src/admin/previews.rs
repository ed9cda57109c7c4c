//! Previews of a source: what there is to see of its branches and pull requests.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use picloud_gitops_core::preview;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, SourceSync, SourceView},
    answer::{Answer, ListQuery, Problem},
    keys::audit,
    sources::find,
};
use crate::previews::is_waiting;

pub(super) async fn list(
    State(state): State<AdminState>,
    _: Authorized<SourceView>,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let source = find(&state, &name).await?;
    let live = state.kept.live.get(&state.store).await?;
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for preview in state.store.previews().await? {
        if preview.parent != source.id {
            continue;
        }
        let apps = live
            .apps
            .iter()
            .filter(|(_, app)| app.source == preview.source);
        let deployment = state.store.last_deployment(&preview.name).await?;
        let shown = json!({
            "slug": preview.slug,
            "reference": preview.reference,
            "state": if preview.expired { "expired" } else { "active" },
            "head": preview.head,
            "head_at": preview.head_at,
            "commit": preview.live_commit,
            "apps": apps.map(|(name, _)| name).collect::<Vec<_>>(),
            "status": deployment.as_ref().map(|deployment| deployment.status),
            "errors": deployment.map(|deployment| deployment.errors).unwrap_or_default(),
        });
        found.insert(preview.slug, shown);
    }
    for pull in state.store.open_pulls(source.id).await? {
        if is_waiting(&pull) {
            let reference = format!("refs/pull/{}", pull.number);
            let slug = preview::slug(&reference);
            let shown = json!({
                "slug": slug,
                "reference": reference,
                "state": "waiting",
                "head": pull.head,
                "fork": pull.fork,
                "title": pull.title,
            });
            found.insert(slug, shown);
        }
    }
    let (items, next) = query.slice(found)?;
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// Lets the head of a fork's pull request have a preview. A newer head waits again: a person lets
/// what they saw.
pub(super) async fn approve(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path((name, slug)): Path<(String, String)>,
) -> Answer {
    let source = find(&state, &name).await?;
    let pulls = state.store.open_pulls(source.id).await?;
    let pull = pulls
        .iter()
        .find(|pull| preview::slug(&format!("refs/pull/{}", pull.number)) == slug);
    let pull = pull.ok_or_else(|| Problem::not_found("preview that waits for an approval"))?;
    state.store.approve_pull(pull).await?;
    let detail = json!({ "slug": slug, "head": pull.head, "fork": pull.fork });
    audit(
        &state,
        &caller,
        "preview.approve",
        source.name.as_str(),
        detail,
    )
    .await?;
    state.previews.wake();
    state.pulls.report_later(&source.name, pull.number);
    Ok(Json(
        json!({ "source": source.name, "slug": slug, "head": pull.head }),
    ))
}
