//! Runs.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use picloud_shared::{RunId, RunRecord, RunStatus, run::RunKind};
use picloud_store::runs::RunFilter;
use serde::Deserialize;
use serde_json::Value;

use super::{
    AdminState,
    access::{Authorized, RunView},
    answer::{Answer, ListQuery, Problem, none, page, parse_time},
};

#[derive(Deserialize)]
pub(super) struct Filter {
    app: Option<String>,
    status: Option<String>,
    kind: Option<String>,
    trigger: Option<String>,
    cause: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<RunView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let query = query.page()?;
    let Some(app) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(none());
    };
    let parsed = RunFilter {
        app,
        status: word("status", filter.status.as_deref(), RunStatus::parse)?,
        kind: word("kind", filter.kind.as_deref(), RunKind::parse)?,
        trigger: filter.trigger,
        cause: word("cause", filter.cause.as_deref(), |text| text.parse().ok())?,
        since: parse_time("since", filter.since.as_deref())?,
        until: parse_time("until", filter.until.as_deref())?,
    };
    Ok(page(&state.store.runs(&parsed, &query).await?, show_value))
}

pub(super) async fn show(
    State(state): State<AdminState>,
    caller: Authorized<RunView>,
    Path(id): Path<String>,
) -> Answer {
    let id: RunId = id.parse().map_err(|_| Problem::not_found("run"))?;
    let record = state
        .store
        .run(id)
        .await?
        .filter(|record| caller.sees(&record.app));
    Ok(Json(show_value(
        &record.ok_or_else(|| Problem::not_found("run"))?,
    )))
}

fn word<T>(name: &str, text: Option<&str>, parse: impl Fn(&str) -> Option<T>) -> Answer<Option<T>> {
    match text {
        None => Ok(None),
        Some(text) => parse(text)
            .map(Some)
            .ok_or_else(|| Problem::invalid(format!("{name} cannot be `{text}`"))),
    }
}

/// The record, its input under the name that says what it is.
pub(super) fn show_value(record: &RunRecord) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    if let Some(fields) = value.as_object_mut()
        && let Some(input) = fields.remove("input")
    {
        let name = if record.kind == RunKind::Http {
            "request"
        } else {
            "event"
        };
        fields.insert(name.to_owned(), input);
    }
    value
}
