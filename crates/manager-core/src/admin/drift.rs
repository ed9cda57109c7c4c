//! Drift, and its end.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use picloud_shared::{AppName, plan::LiveApp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, DriftHeal, DriftView, SourceSync},
    answer::{Answer, ListQuery, Problem, read},
    keys::audit,
    sources::{find, stalled},
    triggers,
};
use crate::{
    drift::AppDrift,
    reconcile::{AdoptError, Adopted, Deployer, OnBranch, Sides},
};

async fn of(state: &AdminState, app: &str) -> Answer<AppDrift> {
    let found = state.drift.app(app).await?;
    found.ok_or_else(|| Problem::not_found("app"))
}

pub(super) async fn show(
    State(state): State<AdminState>,
    _: Authorized<DriftView>,
    Path(app): Path<String>,
) -> Answer {
    let drift = of(&state, &app).await?;
    Ok(Json(
        json!({ "items": drift.items, "app": drift.name, "drifted": !drift.items.is_empty() }),
    ))
}

/// All apps that drift, by name.
pub(super) async fn list(
    State(state): State<AdminState>,
    caller: Authorized<DriftView>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let drifted = state.drift.all().await?;
    let seen = drifted.iter().filter(|app| caller.sees(&app.name));
    let (found, next) = query.slice(seen.map(|app| (app.name.to_string(), app)))?;
    let items: Vec<Value> = found
        .into_iter()
        .map(|app| json!({ "app": app.name, "items": app.items }))
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// The change of the repository's files that would make git declare what is live.
pub(super) async fn patch(
    State(state): State<AdminState>,
    _: Authorized<DriftView>,
    Path(app): Path<String>,
) -> Answer {
    let (drift, sides) = sides(&state, &app).await?;
    let deployer = of_source(&state, &drift).await?;
    let adopted = deployer.adoption(sides).await.map_err(refused)?;
    Ok(Json(show_adopted(&drift, &adopted)))
}

/// What `adopt` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdoptBody {
    branch: String,
    #[serde(default)]
    message: Option<String>,
}

/// Commits that change to a branch.
pub(super) async fn adopt(
    State(state): State<AdminState>,
    caller: Authorized<DriftHeal>,
    Path(app): Path<String>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let (drift, sides) = sides(&state, &app).await?;
    let body: AdoptBody = read(&body)?;
    let message = body.message.filter(|message| !message.trim().is_empty());
    let target = OnBranch {
        branch: body.branch,
        author: caller.grant.name.clone(),
        message: message.unwrap_or_else(|| format!("Adopt what is live of {}\n", drift.name)),
    };
    let shown = commit(&state, &caller, &drift, sides, target, "app.adopt").await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// What `proposal` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProposalBody {
    trigger: Value,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// A trigger more, as a change of the repository's files: to be reviewed, with nothing live before.
pub(super) async fn propose(
    State(state): State<AdminState>,
    caller: Authorized<DriftHeal>,
    Path((app, kind)): Path<(String, String)>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let (drift, mut sides) = sides(&state, &app).await?;
    if !triggers::KINDS.contains(&kind.as_str()) {
        return Err(Problem::not_found("kind of trigger"));
    }
    let body: ProposalBody = read(&body)?;
    let (Some(declared), Some(live)) = (&sides.desired, &sides.live) else {
        let detail = "git and what is live have not both got the app";
        return Err(Problem::new(StatusCode::CONFLICT, "not_adoptable", detail));
    };
    // As git has it, and not as it is live: what differs besides is not proposed.
    let mut proposed = LiveApp {
        spec: Arc::clone(declared),
        damaged: Vec::new(),
        ..live.clone()
    };
    let (name, trigger) = triggers::parse_kind(&proposed, &kind, body.trigger)?;
    let spec = Arc::make_mut(&mut proposed.spec);
    if spec.triggers.insert(name.clone(), trigger).is_some() {
        let detail = format!("git declares a trigger `{name}` of the app already");
        return Err(Problem::conflict("name_taken", detail));
    }
    sides.live = Some(proposed);
    let Some(branch) = body.branch else {
        let deployer = of_source(&state, &drift).await?;
        let adopted = deployer.adoption(sides).await.map_err(refused)?;
        return Ok((StatusCode::OK, Json(show_adopted(&drift, &adopted))));
    };
    let message = body.message.filter(|message| !message.trim().is_empty());
    let target = OnBranch {
        branch,
        author: caller.grant.name.clone(),
        message: message.unwrap_or_else(|| format!("Add the trigger {name} to {}\n", drift.name)),
    };
    let shown = commit(&state, &caller, &drift, sides, target, "trigger.propose").await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// Commits a change to a branch; gives what is shown of it.
async fn commit(
    state: &AdminState,
    caller: &Authorized<DriftHeal>,
    drift: &AppDrift,
    sides: Sides,
    target: OnBranch,
    action: &'static str,
) -> Answer<Value> {
    let deployer = of_source(state, drift).await?;
    let branch = target.branch.clone();
    let (adopted, commit) = deployer.adopt(sides, target).await.map_err(refused)?;
    let Some(commit) = commit else {
        let adoption = &adopted.adoption;
        if !adoption.errors.is_empty() {
            let words = adoption.errors.iter();
            let words = words
                .map(|finding| format!("{} ({}:{})", finding.message, finding.path, finding.line));
            let words: Vec<String> = words.collect();
            let detail = format!("the commit would be refused: {}", words.join("; "));
            return Err(Problem::new(StatusCode::CONFLICT, "not_adoptable", detail));
        }
        let why = if adoption.left.is_empty() {
            "git declares it already"
        } else {
            "what differs cannot be said in files"
        };
        return Err(Problem::new(StatusCode::CONFLICT, "nothing_to_adopt", why));
    };
    let detail = json!({ "branch": branch, "commit": commit, "base": adopted.base });
    audit(state, caller, action, drift.name.as_str(), detail).await?;
    let mut shown = show_adopted(drift, &adopted);
    shown["branch"] = json!(branch);
    shown["base"] = shown["commit"].take();
    shown["commit"] = json!(commit);
    Ok(shown)
}

async fn sides(state: &AdminState, app: &str) -> Answer<(AppDrift, Sides)> {
    let found = state.drift.sides(app).await?;
    found.ok_or_else(|| Problem::not_found("app"))
}

async fn of_source(state: &AdminState, drift: &AppDrift) -> Answer<Arc<Deployer>> {
    let deployer = state.previews.deployer(drift.source).await?;
    deployer.ok_or_else(|| Problem::unavailable("this process does not deploy the source"))
}

fn refused(error: AdoptError) -> Problem {
    match error {
        AdoptError::Deploy(error) => stalled(error),
        AdoptError::Branch(_) => Problem::invalid(error.to_string()).at("branch"),
        AdoptError::Moved(_) => Problem::new(StatusCode::CONFLICT, "conflict", error.to_string()),
        AdoptError::NothingApplied | AdoptError::Preview | AdoptError::NotHere(_) => {
            Problem::new(StatusCode::CONFLICT, "not_adoptable", error.to_string())
        }
    }
}

fn show_adopted(drift: &AppDrift, adopted: &Adopted) -> Value {
    let files = adopted
        .adoption
        .files
        .iter()
        .map(|(path, content)| json!({ "path": path, "removed": content.is_none() }));
    json!({
        "app": drift.name,
        "commit": adopted.base,
        "patch": String::from_utf8_lossy(&adopted.patch),
        "files": files.collect::<Vec<_>>(),
        "left": adopted.adoption.left,
        "errors": adopted.adoption.errors,
    })
}

/// Undoes the drift of one app.
pub(super) async fn heal(
    State(state): State<AdminState>,
    caller: Authorized<DriftHeal>,
    Path(app): Path<String>,
) -> Answer {
    let drift = of(&state, &app).await?;
    let deployer = of_source(&state, &drift).await?;
    let only = BTreeSet::from([drift.name.clone()]);
    let healed = carry_out(&deployer, Some(&only)).await?;
    let detail = json!({ "deployment": healed["deployment"]["id"] });
    audit(&state, &caller, "app.heal", drift.name.as_str(), detail).await?;
    Ok(Json(healed))
}

/// Undoes the drift of all apps of a source.
pub(super) async fn heal_source(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(name): Path<String>,
) -> Answer {
    let source = find(&state, &name).await?;
    let deployer = super::sources::deployer(&state, &source)?;
    let healed = carry_out(&deployer, None).await?;
    let detail = json!({ "deployment": healed["deployment"]["id"] });
    audit(&state, &caller, "source.heal", source.name.as_str(), detail).await?;
    Ok(Json(healed))
}

async fn carry_out(deployer: &Deployer, only: Option<&BTreeSet<AppName>>) -> Answer<Value> {
    let done = deployer.heal(only).await.map_err(stalled)?;
    let shown = done.as_deref().map(super::deployments::show_value);
    Ok(json!({ "healed": done.is_some(), "deployment": shown }))
}
