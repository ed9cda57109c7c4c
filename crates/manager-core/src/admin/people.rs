//! People who sign in by the identity provider: seen, and shown out.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use picloud_store::people::PersonRecord;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, PeopleManage},
    answer::{Answer, Problem},
    keys::{audit, time},
};

/// People that are listed: those who came last.
const MOST: i64 = 200;

pub(super) fn show(person: &PersonRecord) -> Value {
    json!({
        "id": person.id,
        "name": person.name,
        "email": person.email,
        "role": person.role,
        "issuer": person.issuer,
        "subject": person.subject,
        "first_seen_at": time(person.first_seen_at),
        "last_seen_at": time(person.last_seen_at),
    })
}

pub(super) async fn list(State(state): State<AdminState>, _: Authorized<PeopleManage>) -> Answer {
    let people = state.store.people(state.clock.now(), MOST).await?;
    let items: Vec<Value> = people
        .iter()
        .map(|(person, open)| {
            let mut shown = show(person);
            shown["sessions"] = json!(open);
            shown
        })
        .collect();
    Ok(Json(json!({ "items": items })))
}

/// Ends what somebody has open: sessions, and keys of programs that they let in.
pub(super) async fn end(
    State(state): State<AdminState>,
    caller: Authorized<PeopleManage>,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let missing = || Problem::not_found("person");
    let id = id.parse().map_err(|_| missing())?;
    let found = state.store.end_person(id, state.clock.now()).await?;
    let person = found.ok_or_else(missing)?;
    let detail = json!({ "before": show(&person) });
    audit(&state, &caller, "person.sign_out", &id.to_string(), detail).await?;
    Ok(StatusCode::NO_CONTENT)
}
