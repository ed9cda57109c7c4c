//! The audit log: every write leaves an entry, with before and after, and never a secret.

use axum::extract::{Query, State};
use picloud_shared::{AppName, KeyGrant, KeyId};
use picloud_store::audit::{AuditEntry, AuditFilter, NotedEntry};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{AuditView, Authorized},
    answer::{Answer, ListQuery, page, parse_time},
    apps,
    keys::time,
};

/// Who did something.
pub(super) struct Actor {
    key: KeyId,
    name: String,
}

impl Actor {
    /// Who has this key.
    pub(super) fn of(key: KeyId, name: &str) -> Self {
        Self {
            key,
            name: name.to_owned(),
        }
    }
}

impl From<&KeyGrant> for Actor {
    fn from(grant: &KeyGrant) -> Self {
        Self {
            key: grant.id,
            name: grant.name.clone(),
        }
    }
}

/// Notes a write of a caller; to which app, the path or the detail says.
pub(super) async fn audit<N>(
    state: &AdminState,
    caller: &Authorized<N>,
    action: &str,
    target: &str,
    mut detail: Value,
) -> Answer<()> {
    if let (Some(asked), None) = (&caller.app, detail.get("app"))
        && let Ok(app) = apps::find(state, asked).await
    {
        detail["app"] = json!(app.spec.name);
    }
    note(
        state,
        Actor::from(caller.grant.as_ref()),
        action,
        target,
        detail,
    )
    .await
}

/// Notes a write.
pub(super) async fn note(
    state: &AdminState,
    actor: Actor,
    action: &str,
    target: &str,
    mut detail: Value,
) -> Answer<()> {
    let app = detail
        .as_object_mut()
        .and_then(|fields| fields.remove("app"));
    let app: Option<AppName> = app.and_then(|app| app.as_str()?.parse().ok());
    let entry = AuditEntry {
        id: state.clock.new_id(),
        at: state.clock.now(),
        key: Some(actor.key),
        actor: actor.name,
        action: action.to_owned(),
        target: target.to_owned(),
        app,
        detail,
    };
    Ok(state.store.append_audit(&entry).await?)
}

#[derive(Deserialize)]
pub(super) struct Filter {
    app: Option<String>,
    action: Option<String>,
    actor: Option<String>,
    target: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<AuditView>,
    Query(filter): Query<Filter>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let query = query.page()?;
    let Some(app) = caller.app_filter(&state, filter.app.as_deref()).await? else {
        return Ok(super::answer::none());
    };
    let filter = AuditFilter {
        app,
        action: filter.action,
        actor: filter.actor,
        target: filter.target,
        since: parse_time("since", filter.since.as_deref())?,
        until: parse_time("until", filter.until.as_deref())?,
    };
    Ok(page(&state.store.audit(&filter, &query).await?, show))
}

fn show(noted: &NotedEntry) -> Value {
    let entry = &noted.entry;
    let mut detail = entry.detail.clone();
    let mut side = |name: &str| {
        let fields = detail.as_object_mut();
        fields.and_then(|fields| fields.remove(name))
    };
    let (before, after) = (side("before"), side("after"));
    json!({
        "id": entry.id,
        "at": time(entry.at),
        "key": entry.key,
        "actor": entry.actor,
        "person": noted.person,
        "subject": noted.subject,
        "action": entry.action,
        "target": entry.target,
        "app": entry.app,
        "before": before,
        "after": after,
        "detail": detail,
    })
}
