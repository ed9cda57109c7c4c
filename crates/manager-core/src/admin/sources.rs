//! Sources.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use picloud_shared::{
    SourceId, SourceName,
    deployment::{DeploymentReason, DeploymentStatus},
    duration,
    sdk::SecretValue,
};
use picloud_store::{Forge, SourceKind, SourceRecord};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, SourceManage, SourceSync, SourceView},
    answer::{Answer, ListQuery, Problem, read},
    etag,
    keys::audit,
};
use crate::{
    mirror::shown_url,
    reconcile::{DeployError, Deployer},
    sources::SourceError,
};

pub(super) async fn list(
    State(state): State<AdminState>,
    _: Authorized<SourceView>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let sources = state.store.sources().await?;
    let keyed = sources
        .iter()
        .map(|source| (source.name.to_string(), source));
    let (sources, next) = query.slice(keyed)?;
    let items: Vec<Value> = sources
        .into_iter()
        .map(|source| show_value(&state, source))
        .collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// The source of that name or id.
pub(super) async fn find(state: &AdminState, asked: &str) -> Answer<SourceRecord> {
    let missing = || Problem::not_found("source");
    if let Ok(id) = asked.parse::<SourceId>() {
        let all = state.store.sources().await?;
        let found = all.into_iter().find(|source| source.id == id);
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let name = asked.parse().map_err(|_| missing())?;
    state.store.source(&name).await?.ok_or_else(missing)
}

pub(super) async fn show(
    State(state): State<AdminState>,
    _: Authorized<SourceView>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let source = find(&state, &name).await?;
    let shown = show_value(&state, &source);
    Ok(etag::tagged(StatusCode::OK, &tag(&shown), shown))
}

/// The tag of what was declared; what became of it is no part of it.
fn tag(shown: &Value) -> String {
    const DECLARED: [&str; 8] = [
        "id",
        "kind",
        "url",
        "branch",
        "path",
        "interval_ms",
        "webhook_secret_set",
        "forge",
    ];
    let declared: Vec<&Value> = DECLARED.iter().map(|name| &shown[*name]).collect();
    etag::of(&json!(declared))
}

/// What a source is declared as.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    kind: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    interval: Option<String>,
    #[serde(default)]
    webhook_secret: Option<String>,
    /// Accepted beside it while the forge is told the new one.
    #[serde(default)]
    previous_webhook_secret: Option<String>,
    #[serde(default)]
    forge: Option<ForgeBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgeBody {
    kind: String,
    #[serde(default)]
    api_url: Option<String>,
    #[serde(default)]
    token: Option<String>,
}

/// By which a remote may be fetched.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

const FORGES: [&str; 5] = ["github", "gitlab", "gitea", "forgejo", "bitbucket"];

impl Body {
    fn record(self, name: SourceName, state: &AdminState) -> Answer<SourceRecord> {
        let kind = SourceKind::parse(&self.kind)
            .ok_or_else(|| Problem::invalid("kind must be local, hosted or remote"))?;
        let url = self.url.unwrap_or_default();
        if kind != SourceKind::Hosted && url.is_empty() {
            return Err(Problem::invalid("url must name the repository").at("url"));
        }
        let plain = |text: &str| !text.starts_with('-') && !text.chars().any(char::is_control);
        let scheme = url
            .split_once("://")
            .map(|(scheme, _)| scheme.to_ascii_lowercase());
        let known = scheme.is_none_or(|scheme| SCHEMES.contains(&scheme.as_str()));
        if !plain(&url) || kind == SourceKind::Remote && !known {
            return Err(Problem::invalid("url is no address of a repository").at("url"));
        }
        let branch = self.branch.filter(|branch| !branch.is_empty());
        if branch
            .as_deref()
            .is_some_and(|branch| !git2::Reference::is_valid_name(&format!("refs/heads/{branch}")))
        {
            return Err(Problem::invalid("branch is no name of a branch"));
        }
        let is_reference = branch
            .as_deref()
            .is_some_and(|branch| branch.starts_with("refs/"));
        if is_reference && kind == SourceKind::Hosted {
            return Err(Problem::invalid(
                "a hosted repository deploys a branch; only local and remote ones deploy a tag",
            ));
        }
        let path = self.path.unwrap_or_default();
        let path = path.trim_matches('/');
        if path.split('/').any(|part| part == ".." || part == ".") || !plain(path) {
            return Err(Problem::invalid(
                "path must be a folder below the repository's root",
            ));
        }
        let interval = match self.interval.as_deref().map(duration::milliseconds) {
            None => None,
            Some(Some(ms)) if (1_000..=86_400_000).contains(&ms) => {
                Some(std::time::Duration::from_millis(ms))
            }
            Some(_) => {
                return Err(Problem::invalid(
                    "interval must be from 1s to 24h, like \"3m\"",
                ));
            }
        };
        let forge = match self.forge {
            Some(forge) if !FORGES.contains(&forge.kind.as_str()) => {
                return Err(Problem::invalid(format!(
                    "forge.kind must be one of {}",
                    FORGES.join(", ")
                )));
            }
            Some(forge) => Some(Forge {
                kind: forge.kind,
                api_url: forge.api_url,
                token: forge.token.map(|token| SecretValue(token.into())),
            }),
            None => None,
        };
        Ok(SourceRecord {
            id: SourceId(state.clock.new_id()),
            name,
            kind,
            url,
            // A local source follows what is checked out unless it is told otherwise.
            branch: branch.or_else(|| (kind != SourceKind::Local).then(|| "main".to_owned())),
            path: path.to_owned(),
            interval,
            webhook_secret: self
                .webhook_secret
                .filter(|secret| !secret.is_empty())
                .map(|secret| SecretValue(secret.into())),
            forge,
            live_commit: None,
            settled_head: None,
            approved_commit: None,
            suspended: false,
            created_at: state.clock.now(),
        })
    }
}

pub(super) async fn put(
    State(state): State<AdminState>,
    caller: Authorized<SourceManage>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let mut body: Body = read(&body)?;
    let old_secret = body.previous_webhook_secret.take();
    let old_secret = old_secret.filter(|secret| !secret.is_empty());
    let _one_by_one = state.kept.writes.lock().await;
    let (name, before): (SourceName, _) = if let Ok(found) = find(&state, &name).await {
        (found.name.clone(), Some(show_value(&state, &found)))
    } else {
        let parsed = name.parse();
        let name = parsed.map_err(|error| Problem::invalid(format!("a source's name {error}")))?;
        let found = state.store.source(&name).await?;
        (name, found.map(|found| show_value(&state, &found)))
    };
    etag::check(&headers, before.as_ref().map(tag).as_deref())?;
    let record = body.record(name, &state)?;
    let put = state.sources.put(&record).await;
    let deployer = put.map_err(|error| match error {
        SourceError::Git(error) => Problem::invalid(error.to_string()),
        SourceError::Store(error) => error.into(),
    })?;
    let old_secret = old_secret.map(|secret| SecretValue(secret.into()));
    state
        .store
        .set_previous_webhook_secret(deployer.source().id, old_secret.as_ref())
        .await?;
    let after = show_value(&state, deployer.source());
    audit(
        &state,
        &caller,
        "source.put",
        record.name.as_str(),
        json!({ "before": before, "after": after }),
    )
    .await?;
    state.sources.run();
    let status = if before.is_some() {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok(etag::tagged(status, &tag(&after), after))
}

pub(super) async fn remove(
    State(state): State<AdminState>,
    caller: Authorized<SourceManage>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let _one_by_one = state.kept.writes.lock().await;
    let source = find(&state, &name).await?;
    let before = show_value(&state, &source);
    etag::check(&headers, Some(&tag(&before)))?;
    // Its deployer first, so that nothing of it is applied any more.
    state.sources.remove(&source.name);
    state
        .store
        .delete_source(source.id, state.clock.now())
        .await?;
    audit(
        &state,
        &caller,
        "source.delete",
        source.name.as_str(),
        json!({ "before": before }),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(super) struct Sync {
    #[serde(default)]
    wait: bool,
}

pub(super) fn deployer(state: &AdminState, source: &SourceRecord) -> Answer<Arc<Deployer>> {
    let found = state.sources.get(&source.name);
    found.ok_or_else(|| Problem::unavailable("this process does not deploy the source"))
}

pub(super) fn stalled(error: DeployError) -> Problem {
    match error {
        DeployError::Waiting(_) => Problem::unavailable(error.to_string()),
        DeployError::NoSuchCommit(_) => Problem::invalid(error.to_string()),
        error => Problem::new(StatusCode::CONFLICT, "stalled", error.to_string()),
    }
}

pub(super) async fn sync(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(name): Path<String>,
    Query(query): Query<Sync>,
) -> Answer<(StatusCode, Json<Value>)> {
    let source = find(&state, &name).await?;
    let deployer = deployer(&state, &source)?;
    let target = source.name.as_str();
    audit(&state, &caller, "source.sync", target, json!({})).await?;
    reconsider(&state, &source).await?;
    if !query.wait {
        deployer.kick();
        return Ok((StatusCode::ACCEPTED, Json(json!({ "source": source.name }))));
    }
    let made = deployer.sync().await.map_err(stalled)?;
    let deployment = match made {
        Some(deployment) => Some(deployment.as_ref().clone()),
        None => state.store.last_deployment(&source.name).await?,
    };
    match deployment {
        Some(deployment) => Ok((
            StatusCode::OK,
            Json(super::deployments::show_value(&deployment)),
        )),
        None => Err(Problem::not_found("commit: the branch has none yet")),
    }
}

/// A head of which not all is live is tried again where a person asks for it: what was in its way
/// may be gone, be it another source's app or what a check needs.
async fn reconsider(state: &AdminState, source: &SourceRecord) -> Answer<()> {
    use DeploymentStatus::{Failed, Partial, Reverted};
    let Some(last) = state.store.last_deployment(&source.name).await? else {
        return Ok(());
    };
    if matches!(last.status, Failed | Partial | Reverted)
        && last.reason == DeploymentReason::Commit
        && source.settled_head.as_ref() == Some(&last.commit)
    {
        state.store.reconsider_head(source.id, &last.commit).await?;
    }
    Ok(())
}

pub(super) async fn suspend(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(name): Path<String>,
) -> Answer {
    set_suspended(&state, &caller, &name, true).await
}

pub(super) async fn resume(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(name): Path<String>,
) -> Answer {
    set_suspended(&state, &caller, &name, false).await
}

async fn set_suspended(
    state: &AdminState,
    caller: &Authorized<SourceSync>,
    name: &str,
    suspended: bool,
) -> Answer {
    let source = find(state, name).await?;
    state.store.suspend_source(source.id, suspended).await?;
    let action = if suspended {
        "source.suspend"
    } else {
        "source.resume"
    };
    let detail = json!({
        "before": { "suspended": source.suspended },
        "after": { "suspended": suspended },
    });
    audit(state, caller, action, source.name.as_str(), detail).await?;
    if !suspended && let Some(deployer) = state.sources.get(&source.name) {
        deployer.kick();
    }
    Ok(Json(show_value(state, &find(state, name).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    commit: String,
}

pub(super) async fn rollback(
    State(state): State<AdminState>,
    caller: Authorized<SourceSync>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let source = find(&state, &name).await?;
    let body: Rollback = read(&body)?;
    let deployer = deployer(&state, &source)?;
    let detail =
        json!({ "before": { "commit": source.live_commit }, "after": { "commit": body.commit } });
    let deployment = deployer.rollback(&body.commit).await.map_err(stalled)?;
    audit(
        &state,
        &caller,
        "source.rollback",
        source.name.as_str(),
        detail,
    )
    .await?;
    Ok(Json(super::deployments::show_value(&deployment)))
}

fn show_value(state: &AdminState, source: &SourceRecord) -> Value {
    let running = state.sources.get(&source.name);
    let forge = source.forge.as_ref().map(|forge| {
        json!({ "kind": forge.kind, "api_url": forge.api_url, "token_set": forge.token.is_some() })
    });
    json!({
        "id": source.id,
        "name": source.name,
        "kind": source.kind.as_str(),
        "url": shown_url(&source.url),
        "branch": source.branch,
        "path": source.path,
        "interval_ms": source.interval.map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
        "webhook_secret_set": source.webhook_secret.is_some(),
        "forge": forge,
        "commit": source.live_commit,
        "head": source.settled_head,
        "suspended": source.suspended,
        "error": running.and_then(|deployer| deployer.trouble()),
    })
}
