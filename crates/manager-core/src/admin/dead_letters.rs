//! Dead letters: seen, put back, discarded.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use chrono::SecondsFormat;
use picloud_shared::{AppName, EventId};
use picloud_store::dead_letters::{DeadLetter, DeadLetterFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, DeadLetterManage, DeadLetterView},
    answer::{Answer, ListQuery, Problem, none, page},
    keys::audit,
};

#[derive(Deserialize)]
pub(super) struct Filter {
    app: Option<String>,
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<DeadLetterView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let query = query.page()?;
    let Some(app) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(none());
    };
    let filter = DeadLetterFilter {
        app,
        ..DeadLetterFilter::default()
    };
    let found = state.store.dead_letters(&filter, &query).await?;
    Ok(page(&found, show))
}

async fn find(state: &AdminState, id: &str, only: Option<&AppName>) -> Answer<DeadLetter> {
    let missing = || Problem::not_found("dead letter");
    let id: EventId = id.parse().map_err(|_| missing())?;
    let found = state.store.dead_letter(id).await?;
    found
        .filter(|letter| only.is_none_or(|only| only.as_str() == letter.app))
        .ok_or_else(missing)
}

pub(super) async fn show_one(
    State(state): State<AdminState>,
    caller: Authorized<DeadLetterView>,
    Path(id): Path<String>,
) -> Answer {
    Ok(Json(show(&find(&state, &id, caller.only()).await?)))
}

pub(super) async fn redrive(
    State(state): State<AdminState>,
    caller: Authorized<DeadLetterManage>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<Value>)> {
    let letter = find(&state, &id, caller.only()).await?;
    if !state
        .store
        .redrive(&[letter.id], state.clock.now())
        .await?
        .contains(&letter.id)
    {
        return Err(Problem::not_found("dead letter"));
    }
    audit(
        &state,
        &caller,
        "dead_letter.redrive",
        &id,
        json!({ "app": letter.app }),
    )
    .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "event": letter.id }))))
}

pub(super) async fn discard(
    State(state): State<AdminState>,
    caller: Authorized<DeadLetterManage>,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let letter = find(&state, &id, caller.only()).await?;
    if !state.store.discard(letter.id.into()).await? {
        return Err(Problem::not_found("dead letter"));
    }
    audit(
        &state,
        &caller,
        "dead_letter.discard",
        &id,
        json!({ "app": letter.app }),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn show(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "app": letter.app,
        "source_kind": letter.source_kind,
        "trigger": letter.trigger,
        "script": letter.script,
        "attempts": letter.attempts,
        "last_error": letter.last_error,
        "errors": letter.errors,
        "event": letter.event,
        "chain": letter.chain,
        "created_at": letter.created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
    })
}
