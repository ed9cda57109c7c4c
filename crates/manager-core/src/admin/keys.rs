//! Keys: made, seen without what they are, revoked.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use chrono::{DateTime, SecondsFormat, Utc};
use picloud_shared::{KeyId, Scope};
use picloud_store::keys::{KeyRecord, NewKey};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) use super::audit::audit;
use super::{
    AdminState,
    access::{Authorized, KeyManage},
    answer::{Answer, ListQuery, Problem, page, read},
    apps,
};
use crate::keys::{FreshKey, hash, prefix};

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<KeyManage>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let only = caller.grant.app.as_ref().map(|(id, _)| *id);
    let keys = state.store.keys(only, &query.page()?).await?;
    let now = state.clock.now();
    Ok(page(&keys, |key| show(key, now)))
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
    let mut wanted: Create = read(&body)?;
    let name = wanted.name.trim();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Problem::invalid("name must have 1 to 100 characters").at("name"));
    }
    wanted.scopes.sort();
    wanted.scopes.dedup();
    if wanted.scopes.is_empty() {
        return Err(Problem::invalid("scopes must name at least one scope").at("scopes"));
    }
    let now = state.clock.now();
    if wanted.expires_at.is_some_and(|end| end <= now) {
        return Err(Problem::invalid("expires_at must be a time to come").at("expires_at"));
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
    if let Some((id, own)) = &caller.grant.app
        && wanted
            .app
            .as_deref()
            .is_none_or(|app| app != own.as_str() && app != id.to_string())
    {
        return Err(Problem::forbidden("key:write for that"));
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
    if !state.store.insert_named_key(&key, now).await? {
        let detail = format!("there is a key `{name}` already");
        return Err(Problem::conflict("name_taken", detail));
    }
    let app = app.map(|app| app.spec.name.clone());
    let expires_at = wanted.expires_at.map(time);
    let after =
        json!({ "name": name, "scopes": wanted.scopes, "app": app, "expires_at": expires_at });
    let detail = json!({ "app": app, "after": after });
    audit(&state, &caller, "key.create", &id.to_string(), detail).await?;
    let shown = json!({
        "id": id, "key": fresh.text, "name": name, "scopes": wanted.scopes, "app": app,
        "expires_at": expires_at,
    });
    Ok((StatusCode::CREATED, Json(shown)))
}

pub(super) async fn revoke(
    State(state): State<AdminState>,
    caller: Authorized<KeyManage>,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let missing = || Problem::not_found("key");
    let id: KeyId = id.parse().map_err(|_| missing())?;
    let found = state.store.key(id).await?;
    let own = |key: &KeyRecord| caller.only().is_none() || key.grant.app == caller.grant.app;
    let found = found.filter(own).ok_or_else(missing)?;
    let now = state.clock.now();
    if !state.store.revoke_key(id, now).await? {
        return Err(missing());
    }
    let app = found.grant.app.as_ref().map(|(_, name)| name);
    let detail = json!({ "app": app, "before": show(&found, now) });
    audit(&state, &caller, "key.revoke", &id.to_string(), detail).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn show(key: &KeyRecord, now: DateTime<Utc>) -> Value {
    json!({
        "id": key.grant.id,
        "name": key.grant.name,
        "prefix": key.prefix,
        "scopes": key.grant.scopes,
        "app": key.grant.app.as_ref().map(|(_, name)| name),
        "created_at": time(key.created_at),
        "expires_at": key.expires_at.map(time),
        "expired": key.expires_at.is_some_and(|end| end <= now),
        "last_used_at": key.last_used_at.map(time),
        "person": key.person.as_ref().map(|person| json!({
            "id": person.id, "issuer": person.issuer, "subject": person.subject,
            "email": person.email, "role": person.role,
        })),
    })
}

/// A time, as all answers write it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
