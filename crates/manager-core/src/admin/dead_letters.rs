//! Dead letters: seen, put back, discarded.

use std::collections::HashMap;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use chrono::SecondsFormat;
use picloud_shared::{AppName, EventId, Redactor};
use picloud_store::dead_letters::{DeadLetter, DeadLetterFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, DeadLetterManage, DeadLetterView},
    answer::{Answer, ListQuery, Problem, none, page, read},
    keys::audit,
};

/// Dead letters that one request moves or discards.
const MAX_AT_ONCE: i64 = 10_000;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    app: Option<String>,
    trigger: Option<String>,
    source_kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

/// The same in a body, where nothing else may stand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    app: Option<String>,
    trigger: Option<String>,
    source_kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

impl From<Strict> for Filter {
    fn from(strict: Strict) -> Self {
        Self {
            app: strict.app,
            trigger: strict.trigger,
            source_kind: strict.source_kind,
            since: strict.since,
            until: strict.until,
        }
    }
}

impl Filter {
    /// Of this app, where one is named or the caller may touch no other.
    fn parse(self, app: Option<AppName>) -> Answer<DeadLetterFilter> {
        let time = |name: &str, text: Option<&str>| {
            let parsed = text.map(str::parse).transpose();
            parsed.map_err(|_| Problem::invalid(format!("{name} must be a time of RFC 3339")))
        };
        Ok(DeadLetterFilter {
            app,
            trigger: self.trigger,
            source_kind: self.source_kind,
            since: time("since", self.since.as_deref())?,
            until: time("until", self.until.as_deref())?,
        })
    }
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
    let filter = filter.parse(app)?;
    let mut found = state.store.dead_letters(&filter, &query).await?;
    clean(&state, &mut found.items).await?;
    Ok(page(&found, show))
}

/// Takes secrets out of what is shown; what is put back has them.
async fn clean(state: &AdminState, letters: &mut [DeadLetter]) -> Answer<()> {
    let live = state.kept.live.get(&state.store).await?;
    let mut known: HashMap<String, Redactor> = HashMap::new();
    for letter in letters {
        let app = live.apps.get(letter.app.as_str());
        let secrets = known.entry(letter.app.clone()).or_insert_with(|| {
            app.map(|app| (state.secrets)(&app.spec))
                .unwrap_or_default()
        });
        for shown in [&mut letter.event, &mut letter.errors, &mut letter.chain] {
            secrets.json(shown);
        }
        if let Some(error) = &mut letter.last_error {
            secrets.json(error);
        }
    }
    Ok(())
}

/// Those that a body's filter names; an empty one names all that the caller may touch.
async fn chosen(
    state: &AdminState,
    caller: &Authorized<DeadLetterManage>,
    body: &Bytes,
) -> Answer<Vec<uuid::Uuid>> {
    let filter: Filter = if body.is_empty() {
        Filter::default()
    } else {
        // A misspelt key must not mean all of them.
        read::<Strict>(body)?.into()
    };
    let Some(app) = caller.app_filter(state, filter.app.as_deref()).await? else {
        return Ok(Vec::new());
    };
    let filter = filter.parse(app)?;
    Ok(state.store.dead_letter_ids(&filter, MAX_AT_ONCE).await?)
}

pub(super) async fn redrive_many(
    State(state): State<AdminState>,
    caller: Authorized<DeadLetterManage>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let ids = chosen(&state, &caller, &body).await?;
    let moved = state.store.redrive(&ids, state.clock.now()).await?.len();
    let detail = json!({ "count": moved, "ids": ids.iter().take(100).collect::<Vec<_>>() });
    audit(&state, &caller, "dead_letter.redrive", "many", detail).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "count": moved }))))
}

pub(super) async fn discard_many(
    State(state): State<AdminState>,
    caller: Authorized<DeadLetterManage>,
    body: Bytes,
) -> Answer {
    let ids = chosen(&state, &caller, &body).await?;
    let gone = state.store.discard_many(&ids).await?;
    let detail = json!({ "count": gone, "ids": ids.iter().take(100).collect::<Vec<_>>() });
    audit(&state, &caller, "dead_letter.discard", "many", detail).await?;
    Ok(Json(json!({ "count": gone })))
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
    let mut letter = [find(&state, &id, caller.only()).await?];
    clean(&state, &mut letter).await?;
    Ok(Json(show(&letter[0])))
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
