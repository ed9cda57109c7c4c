//! Runs that a person asks for: a recorded one again, or a handler now.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use picloud_shared::{
    EventId, Principal, RunId, RunRecord, ScriptPath, app::ScriptKind, executor::DirectCall,
    run::RunKind,
};
use picloud_store::outbox::NewEvent;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{AppInvoke, Authorized, RunReplay},
    answer::{Answer, Problem, read},
    apps,
    keys::audit,
    runs,
};

/// Bytes of a payload as JSON.
const MAX_PAYLOAD: usize = 1 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Version {
    #[default]
    Live,
    Original,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    #[serde(default)]
    commit: Version,
}

/// Hands a recorded run over to the outbox again, on behalf of who asks.
pub(super) async fn replay(
    State(state): State<AdminState>,
    caller: Authorized<RunReplay>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let run: RunId = id.parse().map_err(|_| Problem::not_found("run"))?;
    let record = state.store.run(run).await?;
    let record = record
        .filter(|record| caller.sees(&record.app))
        .ok_or_else(|| Problem::not_found("run"))?;
    let asked: Replay = if body.is_empty() {
        Replay::default()
    } else {
        read(&body)?
    };
    let app = apps::find(&state, record.app.as_str()).await?;
    if asked.commit == Version::Live {
        handler(&app, record.script.as_str())?;
    }
    let payload = payload(&record)?;
    let event = EventId(state.clock.new_id());
    let new = NewEvent {
        trigger: None,
        cause: Some(record.id),
        attempts: 1,
        key: Some(caller.grant.id),
        commit: (asked.commit == Version::Original).then(|| record.commit.as_str()),
        ..NewEvent::new(
            event,
            app.id,
            record.kind.as_str(),
            record.script.as_str(),
            &payload,
            state.clock.now(),
        )
    };
    state
        .store
        .enqueue_named(&new, record.trigger.as_ref())
        .await?;
    let commit = match asked.commit {
        Version::Live => "live",
        Version::Original => "original",
    };
    let detail = json!({ "app": record.app, "commit": commit, "run": event });
    audit(&state, &caller, "run.replay", &id, detail).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "run": event, "event": event, "replay_of": record.id })),
    ))
}

/// What the run was about, as the outbox keeps it.
fn payload(record: &RunRecord) -> Answer<Value> {
    let missing = |what: &str| {
        Problem::new(
            StatusCode::CONFLICT,
            "not_replayable",
            format!("the run's record does not hold {what}"),
        )
    };
    let field = match record.kind {
        RunKind::Http => return request(&record.input).ok_or_else(|| missing("the whole request")),
        RunKind::Invoke | RunKind::Enqueue => "payload",
        other => other.as_str(),
    };
    let payload = record.input.get(field).cloned();
    payload.ok_or_else(|| missing("its event"))
}

/// A recorded request in the form of one that was handed over.
fn request(kept: &Value) -> Option<Value> {
    let body = match (kept["body"].as_str(), kept["body_base64"].as_str()) {
        (Some(text), _) => STANDARD.encode(text),
        (None, Some(encoded)) => encoded.to_owned(),
        (None, None) => return None,
    };
    let path = kept["path"].as_str()?;
    let uri = match kept["query"].as_str() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let pairs = |field: &str, write: fn(&str) -> String| -> Option<Vec<Value>> {
        let pairs = kept[field].as_object()?.iter();
        pairs
            .map(|(name, value)| Some(json!([name, write(value.as_str()?)])))
            .collect()
    };
    Some(json!({
        "method": kept["method"], "uri": uri, "path_offset": 0, "route": kept["route"],
        "params": pairs("params", str::to_owned)?, "headers": pairs("headers", |text| STANDARD.encode(text))?,
        "body": body, "client_ip": kept["client_ip"],
    }))
}

fn handler(app: &picloud_shared::plan::LiveApp, script: &str) -> Answer<ScriptPath> {
    match app.spec.scripts.get_key_value(script) {
        Some((path, spec)) if spec.kind == ScriptKind::Handler => Ok(path.clone()),
        Some(_) => Err(Problem::invalid(format!(
            "`{script}` is a module; only handlers below scripts/ can be run"
        ))),
        None => Err(Problem::invalid(format!(
            "the app has no script `{script}`"
        ))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invoke {
    script: String,
    #[serde(default)]
    payload: Value,
}

/// Runs a handler now; answers with the run and what it gave, also where the run failed.
pub(super) async fn invoke(
    State(state): State<AdminState>,
    caller: Authorized<AppInvoke>,
    Path(app): Path<String>,
    body: Bytes,
) -> Answer {
    let app = apps::find(&state, &app).await?;
    let asked: Invoke = read(&body)?;
    let script = handler(&app, &asked.script)?;
    if asked.payload.to_string().len() > MAX_PAYLOAD {
        let detail = format!("a payload may have {MAX_PAYLOAD} bytes as JSON");
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            detail,
        ));
    }
    let done = state.direct.run(DirectCall {
        app: app.spec.name.clone(),
        script,
        payload: asked.payload,
        principal: Principal::Key(std::sync::Arc::clone(&caller.grant)),
    });
    let done = done
        .await
        .map_err(|refused| Problem::unavailable(refused.to_string()))?;
    let target = format!("{}/{}", app.spec.name, asked.script);
    let detail = json!({ "run": done.record.id, "status": done.record.status });
    audit(&state, &caller, "app.invoke", &target, detail).await?;
    let mut shown = runs::show_value(&done.record);
    shown["answer"] = json!(done.answer);
    Ok(Json(shown))
}
