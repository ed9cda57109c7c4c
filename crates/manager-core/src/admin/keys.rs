//! Keys, and who one is.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use chrono::{DateTime, SecondsFormat, Utc};
use picloud_shared::{KeyId, Scope};
use picloud_store::keys::{AuditEntry, KeyRecord, NewKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, Caller, KeyManage},
    answer::{Answer, ListQuery, Problem, page},
    apps,
};
use crate::keys::{FreshKey, hash, prefix};

pub(super) async fn me(State(state): State<AdminState>, Caller(record): Caller) -> Json<Value> {
    Json(json!({ "key": show(&record), "version": state.version }))
}

/// What a client needs to know of the server: no secret is among it.
pub(super) async fn instance(State(state): State<AdminState>, _: Caller) -> Json<Value> {
    let served = *state.served.borrow();
    Json(json!({
        "version": state.version,
        "recipient": state.recipient,
        "generation": served.map(|served| served.generation),
    }))
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<KeyManage>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let mut keys = state.store.keys(&query.page()?, state.clock.now()).await?;
    keys.items.retain(|key| {
        caller
            .only()
            .is_none_or(|only| key.grant.app.as_ref().is_some_and(|(_, app)| app == only))
    });
    Ok(page(&keys, show))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    scopes: Vec<Scope>,
    app: Option<String>,
    expires_at: Option<DateTime<Utc>>,
}

pub(super) async fn create(
    State(state): State<AdminState>,
    caller: Authorized<KeyManage>,
    body: axum::body::Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let wanted: Create = serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid(format!("the body: {error}")))?;
    let name = wanted.name.trim();
    if name.is_empty() || name.chars().count() > 100 || name.contains('\0') {
        return Err(Problem::invalid("name must have 1 to 100 characters"));
    }
    if wanted.scopes.is_empty() {
        return Err(Problem::invalid("scopes must name at least one scope"));
    }
    let admin = caller.grant.scopes.contains(&Scope::InstanceAdmin);
    if let Some(scope) = wanted
        .scopes
        .iter()
        .find(|scope| !admin && !caller.grant.scopes.contains(scope))
    {
        // A key that could give what it hasn't would have everything.
        return Err(Problem::forbidden(scope.as_str()));
    }
    if caller
        .only()
        .is_some_and(|only| wanted.app.as_deref() != Some(only.as_str()))
    {
        return Err(Problem::forbidden("key:write for the whole instance"));
    }
    let app = match &wanted.app {
        None => None,
        Some(app) => Some(apps::find(&state, app).await?),
    };
    let fresh = FreshKey::generate()
        .map_err(|error| Problem::unavailable(format!("no randomness: {error}")))?;
    let id = KeyId(state.clock.new_id());
    let key = NewKey {
        id,
        name,
        hash: hash(&fresh.text),
        prefix: &prefix(&fresh.text),
        scopes: &wanted.scopes,
        app: app.as_ref().map(|app| app.id),
        expires_at: wanted.expires_at,
    };
    state.store.insert_key(&key, state.clock.now()).await?;
    audit(
        &state,
        &caller,
        "key.create",
        &id.to_string(),
        json!({ "name": name, "scopes": wanted.scopes }),
    )
    .await?;
    let shown = json!({
        "id": id, "key": fresh.text, "name": name, "scopes": wanted.scopes,
        "app": app.map(|app| app.spec.name.clone()), "expires_at": wanted.expires_at.map(time),
    });
    Ok((StatusCode::CREATED, Json(shown)))
}

pub(super) async fn revoke(
    State(state): State<AdminState>,
    caller: Authorized<KeyManage>,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let id: KeyId = id.parse().map_err(|_| Problem::not_found("key"))?;
    if caller.only().is_some() {
        let all = state
            .store
            .keys(
                &picloud_store::page::PageQuery {
                    limit: 10_000,
                    cursor: None,
                },
                state.clock.now(),
            )
            .await?;
        let own = all
            .items
            .iter()
            .find(|key| key.grant.id == id)
            .is_some_and(|key| key.grant.app == caller.grant.app);
        if !own {
            return Err(Problem::not_found("key"));
        }
    }
    if !state.store.revoke_key(id, state.clock.now()).await? {
        return Err(Problem::not_found("key"));
    }
    audit(&state, &caller, "key.revoke", &id.to_string(), json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Notes a write.
pub(super) async fn audit<N>(
    state: &AdminState,
    caller: &Authorized<N>,
    action: &str,
    target: &str,
    detail: Value,
) -> Answer<()> {
    let entry = AuditEntry {
        id: state.clock.new_id(),
        at: state.clock.now(),
        key: Some(caller.grant.id),
        actor: caller.grant.name.clone(),
        action: action.to_owned(),
        target: target.to_owned(),
        detail,
    };
    Ok(state.store.append_audit(&entry).await?)
}

fn show(key: &KeyRecord) -> Value {
    json!({
        "id": key.grant.id,
        "name": key.grant.name,
        "prefix": key.prefix,
        "scopes": key.grant.scopes,
        "app": key.grant.app.as_ref().map(|(_, name)| name),
        "created_at": time(key.created_at),
        "expires_at": key.expires_at.map(time),
        "last_used_at": key.last_used_at.map(time),
    })
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
