//! Triggers, changed live. What is changed here shows as drift until git says the same.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{SecondsFormat, Utc};
use chrono_tz::Tz;
use picloud_gitops_core::{live_trigger, schedule::Schedule};
use picloud_shared::{
    EventId, EventSink, LiveEvent, TriggerId, TriggerName,
    app::{ScriptKind, TriggerKind, TriggerSpec},
    event::fired_detail,
    live_event::{TriggerAction, TriggerEvent},
    plan::LiveApp,
};
use picloud_store::{cron::NextFire, outbox::NewEvent};
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{AppView, Authorized, TriggerFire, TriggerManage},
    answer::{Answer, ListQuery, Problem, read},
    apps, etag,
    keys::audit,
};

/// Fire times that are shown of a trigger.
const SHOWN: usize = 5;

pub(super) async fn list(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Path(app): Path<String>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let app = apps::find(&state, &app).await?;
    let ids = state.store.next_fires(app.id).await?;
    let keyed = app.spec.triggers.iter();
    let (triggers, next) = query.slice(keyed.map(|pair| (pair.0.to_string(), pair)))?;
    let items: Vec<Value> = triggers
        .into_iter()
        .map(|trigger| show_known(&state, &app, trigger, &ids))
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// A trigger, with what is known of when it fires.
pub(super) fn show_known(
    state: &AdminState,
    app: &LiveApp,
    (name, spec): (&TriggerName, &TriggerSpec),
    known: &[NextFire],
) -> Value {
    let found = known
        .iter()
        .find(|known| known.app == app.id && known.name == name.as_str());
    let (id, next) = found.map_or((None, None), |known| (Some(known.id), known.at));
    show(state, app, (name, spec), id, next)
}

/// The tag of what is declared.
fn tag(name: &TriggerName, spec: &TriggerSpec) -> String {
    etag::of(&live_trigger::write(name, spec))
}

/// Kinds: the words of addresses to which triggers are posted.
pub(super) const KINDS: [&str; 4] = ["cron", "kv", "docs", "dead_letter"];

fn show(
    state: &AdminState,
    app: &LiveApp,
    (name, spec): (&TriggerName, &TriggerSpec),
    id: Option<TriggerId>,
    next: Option<chrono::DateTime<Utc>>,
) -> Value {
    let mut value = live_trigger::write(name, spec);
    value["app"] = json!(app.spec.name);
    value["id"] = json!(id);
    value["etag"] = tag(name, spec).into();
    if let TriggerKind::Cron {
        schedule, timezone, ..
    } = &spec.kind
    {
        let mut next = next;
        let parsed = Schedule::parse(schedule)
            .ok()
            .zip(timezone.parse::<Tz>().ok());
        if let Some((schedule, zone)) = parsed {
            let upcoming = schedule.upcoming(state.clock.now(), zone, SHOWN);
            if spec.enabled {
                // The scheduler has not looked at it yet: it will find this.
                next = next.or_else(|| upcoming.first().copied());
            }
            let times: Vec<String> = upcoming
                .iter()
                .map(|at| {
                    at.with_timezone(&zone)
                        .to_rfc3339_opts(SecondsFormat::Secs, false)
                })
                .collect();
            value["next_fire_times"] = json!(if spec.enabled { times } else { Vec::new() });
            value["words"] = schedule.in_words().into();
        }
        let next = next.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true));
        value["next_fire_at"] = json!(next);
    }
    value
}

/// The app and the trigger that a path names, each by name or id.
async fn find_both(state: &AdminState, app: &str, trigger: &str) -> Answer<(LiveApp, Found)> {
    let found = async {
        let app = apps::find(state, app).await?;
        let found = find(state, &app, trigger).await?;
        Ok((app, found))
    };
    let found: Answer<_> = found.await;
    // Where no trigger is named like a kind, the address is the one that triggers are posted to.
    match found {
        Err(_) if KINDS.contains(&trigger) => Err(Problem::wrong_method("POST")),
        other => other,
    }
}

type Found = (TriggerId, TriggerName, TriggerSpec);

async fn find(state: &AdminState, app: &LiveApp, asked: &str) -> Answer<Found> {
    let missing = || Problem::not_found("trigger");
    let ids = state.store.next_fires(app.id).await?;
    let known = ids
        .iter()
        .find(|known| known.name == asked || known.id.to_string() == asked)
        .ok_or_else(missing)?;
    let (name, spec) = app
        .spec
        .triggers
        .get_key_value(known.name.as_str())
        .ok_or_else(missing)?;
    Ok((known.id, name.clone(), spec.clone()))
}

/// The body's findings as one problem.
fn parse(app: &LiveApp, body: &Value) -> Answer<(TriggerName, TriggerSpec)> {
    let (name, spec) =
        live_trigger::read(body).map_err(|findings| Problem::findings(&findings, body))?;
    // A trigger runs a handler of its own app, and nothing else.
    match app.spec.scripts.get(&spec.script) {
        Some(script) if script.kind == ScriptKind::Handler => Ok((name, spec)),
        Some(_) => Err(Problem::invalid(format!(
            "`{}` is a module; a trigger needs a handler below scripts/",
            spec.script
        ))
        .at("script")),
        None => {
            Err(Problem::invalid(format!("the app has no script `{}`", spec.script)).at("script"))
        }
    }
}

/// As [`parse`], of the kind that the address names.
pub(super) fn parse_kind(
    app: &LiveApp,
    kind: &str,
    mut body: Value,
) -> Answer<(TriggerName, TriggerSpec)> {
    if !body.is_object() {
        return Err(Problem::invalid("the body must be an object"));
    }
    if body.get("kind").is_some_and(|given| *given != kind) {
        return Err(Problem::invalid("kind differs from that of the address").at("kind"));
    }
    body["kind"] = kind.into();
    parse(app, &body)
}

/// Tells those who watch.
fn tell(state: &AdminState, app: &LiveApp, name: &TriggerName, action: TriggerAction) {
    state.events.publish(LiveEvent::Trigger(TriggerEvent {
        app: app.spec.name.clone(),
        trigger: name.clone(),
        action,
        at: state.clock.now(),
    }));
}

pub(super) async fn create(
    State(state): State<AdminState>,
    caller: Authorized<TriggerManage>,
    Path((app, kind)): Path<(String, String)>,
    body: Bytes,
) -> Answer<Response> {
    if !KINDS.contains(&kind.as_str()) {
        return Err(Problem::wrong_method("PATCH, DELETE"));
    }
    let _one_by_one = state.kept.writes.lock().await;
    let app = apps::find(&state, &app).await?;
    let (name, spec) = parse_kind(&app, &kind, read(&body)?)?;
    let id = state.clock.new_id();
    let id = state
        .store
        .put_trigger(app.id, &name, &spec, id, false)
        .await?
        .ok_or_else(|| {
            let detail = format!("the app has a trigger `{name}` already");
            Problem::conflict("name_taken", detail)
        })?;
    let shown = show(&state, &app, (&name, &spec), Some(id), None);
    let target = format!("{}/{name}", app.spec.name);
    let detail = json!({ "after": live_trigger::write(&name, &spec) });
    audit(&state, &caller, "trigger.create", &target, detail).await?;
    tell(&state, &app, &name, TriggerAction::Created);
    Ok(etag::tagged(StatusCode::CREATED, &tag(&name, &spec), shown))
}

pub(super) async fn patch(
    State(state): State<AdminState>,
    caller: Authorized<TriggerManage>,
    Path((app, trigger)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let _one_by_one = state.kept.writes.lock().await;
    let (app, (id, name, before)) = find_both(&state, &app, &trigger).await?;
    let Value::Object(patch) = read(&body)? else {
        return Err(Problem::invalid("the body must be an object"));
    };
    etag::check(&headers, Some(&tag(&name, &before)))?;
    let mut wanted = live_trigger::write(&name, &before);
    for (key, value) in patch {
        if key == "kind" && value != before.kind.name() || key == "name" && value != name.as_str() {
            return Err(Problem::invalid(format!("{key} cannot be changed")));
        }
        match (value.is_null(), wanted.as_object_mut()) {
            (true, Some(fields)) => {
                fields.remove(&key);
            }
            _ => wanted[key] = value,
        }
    }
    let (_, spec) = parse(&app, &wanted)?;
    state
        .store
        .put_trigger(app.id, &name, &spec, id.0, true)
        .await?;
    let shown = show(&state, &app, (&name, &spec), Some(id), None);
    let detail = json!({ "before": live_trigger::write(&name, &before), "after": live_trigger::write(&name, &spec) });
    let target = format!("{}/{name}", app.spec.name);
    audit(&state, &caller, "trigger.patch", &target, detail).await?;
    tell(&state, &app, &name, TriggerAction::Changed);
    Ok(etag::tagged(StatusCode::OK, &tag(&name, &spec), shown))
}

pub(super) async fn remove(
    State(state): State<AdminState>,
    caller: Authorized<TriggerManage>,
    Path((app, trigger)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let _one_by_one = state.kept.writes.lock().await;
    let (app, (id, name, before)) = find_both(&state, &app, &trigger).await?;
    etag::check(&headers, Some(&tag(&name, &before)))?;
    state.store.delete_trigger(id).await?;
    let detail = json!({ "before": live_trigger::write(&name, &before) });
    let target = format!("{}/{name}", app.spec.name);
    audit(&state, &caller, "trigger.delete", &target, detail).await?;
    tell(&state, &app, &name, TriggerAction::Deleted);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn fire(
    State(state): State<AdminState>,
    caller: Authorized<TriggerFire>,
    Path((app, trigger)): Path<(String, String)>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let app = apps::find(&state, &app).await?;
    let (id, name, spec) = find(&state, &app, &trigger).await?;
    let given: Value = if body.is_empty() {
        Value::Null
    } else {
        read(&body)?
    };
    let now = state.clock.now();
    let given = match given {
        Value::Object(mut fields) => fields.remove("payload").unwrap_or(fields.into()),
        other => other,
    };
    let payload = match (fired_detail(&spec, now, state.clock.new_id()), given) {
        (detail, Value::Null) => detail,
        (Value::Object(mut detail), Value::Object(given)) => {
            detail.extend(given);
            detail.into()
        }
        (_, given) => given,
    };
    let event = NewEvent::new(
        EventId(state.clock.new_id()),
        app.id,
        spec.kind.name(),
        spec.script.as_str(),
        &payload,
        now,
    );
    let id = if spec.enabled {
        let event = event.of_trigger(id, name.as_str(), &spec);
        state.store.enqueue(&event).await?
    } else {
        // Events of a trigger that is switched off wait; this one was asked for, and has its name
        // alone.
        let event = event.with_retry(&spec.retry);
        state.store.enqueue_named(&event, Some(&name)).await?;
        event.id
    };
    let target = format!("{}/{name}", app.spec.name);
    audit(
        &state,
        &caller,
        "trigger.fire",
        &target,
        json!({ "event": id }),
    )
    .await?;
    tell(&state, &app, &name, TriggerAction::Fired);
    Ok((StatusCode::ACCEPTED, Json(json!({ "event": id }))))
}
