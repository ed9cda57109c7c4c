//! Runs.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use chrono::{DateTime, Utc};
use picloud_shared::{RunId, RunRecord, RunStatus, run::RunKind};
use picloud_store::runs::RunFilter;
use serde::Deserialize;
use serde_json::Value;

use super::{
    AdminState,
    access::{Authorized, RunView},
    answer::{Answer, ListQuery, Problem, none, page, parse_time},
};

/// Who has just been answered asks for the run at once; records are written in batches. So long,
/// and so often, one is waited for.
const WAIT: Duration = Duration::from_millis(50);
const WAITS: u32 = 20;
/// Milliseconds since its beginning in which a run is new.
const NEW_MS: u64 = 20_000;

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
    let mut record = state.store.run(id).await?;
    let mut waits = if is_new(id, state.clock.now()) {
        WAITS
    } else {
        0
    };
    while record.is_none() && waits > 0 {
        tokio::time::sleep(WAIT).await;
        record = state.store.run(id).await?;
        waits -= 1;
    }
    let record = record.filter(|record| caller.sees(&record.app));
    Ok(Json(show_value(
        &record.ok_or_else(|| Problem::not_found("run"))?,
    )))
}

/// Whether a run began so lately that its record may be on its way: its id (UUIDv7) says when.
fn is_new(id: RunId, now: DateTime<Utc>) -> bool {
    let began = u64::try_from(id.0.as_u128() >> 80).unwrap_or_default();
    let now = u64::try_from(now.timestamp_millis()).unwrap_or_default();
    now.checked_sub(began).is_some_and(|age| age < NEW_MS)
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_id_says_when_its_run_began() {
        let at = |ms: i64| DateTime::from_timestamp_millis(ms).expect("a time");
        let id = RunId(Uuid::from_u128(1_000_000_u128 << 80 | 7 << 76 | 5));
        for (now, expected) in [
            (999_999, false),
            (1_000_000, true),
            (1_019_999, true),
            (1_020_000, false),
        ] {
            assert_eq!(is_new(id, at(now)), expected, "{now}");
        }
        assert!(!is_new(RunId(Uuid::nil()), at(1_000_000)));
        assert!(!is_new(RunId(Uuid::max()), at(1_000_000)));
    }
}
