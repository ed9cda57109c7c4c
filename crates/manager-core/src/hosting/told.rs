//! What a push is told: before it is accepted, and once it is live. Lines that begin with `error`,
//! `warning`, `hint` or `success` are coloured by the pusher's git where it has colours
//! (git-config(1), `color.remote`).

use std::{path::Path, sync::Arc};

use chrono_tz::Tz;
use picloud_gitops_core::{render, schedule::Schedule};
use picloud_shared::{
    AppName, CommitId, SourceName,
    app::TriggerKind,
    deployment::{Deployment, DeploymentStatus},
};
use picloud_store::audit::AuditEntry;
use serde_json::json;

use super::{HookRequest, HostingState, RefUpdate, options::PushOptions, upkeep};
use crate::{
    git::{GitError, GitRepository},
    reconcile::{DeployError, Deployer, UNREVIEWED},
};

/// Errors that are shown with their lines; of more, what and where is told.
const WHOLE: usize = 100;
/// Apps whose addresses are shown.
const MAX_ADDRESSES: usize = 20;

fn is_nothing(id: &str) -> bool {
    id.bytes().all(|b| b == b'0')
}

fn deployer(state: &HostingState, request: &HookRequest) -> Option<Arc<Deployer>> {
    let name: SourceName = request.source.parse().ok()?;
    state.sources.get(&name)
}

fn deployed_branch(deployer: &Deployer) -> String {
    let branch = deployer.source().branch.as_deref().unwrap_or("main");
    format!("refs/heads/{branch}")
}

/// Whether a push is accepted, and what it would do.
pub(super) async fn before(state: &HostingState, request: &HookRequest) -> (String, i32) {
    let Some(deployer) = deployer(state, request) else {
        return ("error: the source is gone\n".to_owned(), 1);
    };
    let options = match PushOptions::parse(&request.options) {
        Ok(options) => options,
        Err(wrong) => return (format!("error: {wrong}\n"), 1),
    };
    let deployed = deployed_branch(&deployer);
    let mut out = String::new();
    let mut refused = false;
    for update in &request.updates {
        let Some(branch) = update.reference.strip_prefix("refs/heads/") else {
            continue;
        };
        let own = update.reference == deployed;
        if is_nothing(&update.new) {
            if own {
                out.push_str(&format!(
                    "error: `{branch}` is what is deployed; it cannot be deleted\n"
                ));
                refused = true;
            }
            continue;
        }
        if !own {
            out.push_str(&format!("{branch} is not deployed; if it were:\n"));
        }
        match plan(&deployer, request, &update.new, options).await {
            Ok((text, valid)) => {
                out.push_str(&text);
                refused |= own && !valid;
            }
            Err(error) => {
                out.push_str(&format!("error: `{branch}` cannot be checked: {error}\n"));
                refused |= own;
            }
        }
    }
    if refused {
        out.push_str("error: the push is refused; nothing changed\n");
    } else if options.dry_run {
        out.push_str("hint: a dry run: nothing was pushed\n");
    }
    (out, (refused || options.dry_run).into())
}

async fn plan(
    deployer: &Arc<Deployer>,
    request: &HookRequest,
    commit: &str,
    options: PushOptions,
) -> Result<(String, bool), DeployError> {
    let path = deployer.origin().refresh().await?;
    let quarantine = request.quarantine.clone();
    let id: CommitId = commit
        .parse()
        .map_err(|_| DeployError::NoSuchCommit(commit.to_owned()))?;
    let opened = tokio::task::spawn_blocking(move || {
        let repository = GitRepository::open(&path)?;
        if let Some(quarantine) = &quarantine {
            repository.add_objects(Path::new(quarantine))?;
        }
        let commit = repository.commit(&id)?;
        Ok::<_, GitError>((Arc::new(repository), commit, path.prefix))
    });
    let (repository, commit, prefix) = opened
        .await
        .map_err(|error| DeployError::Unexpected(error.to_string()))??;
    let (plan, mut loaded) = deployer
        .plan_commit(Arc::clone(&repository), commit.tree, prefix)
        .await?;
    let signed = deployer
        .verify(&repository, &commit.id, &loaded.settings)
        .await?;
    loaded
        .diagnostics
        .extend(signed.err().map(|error| error.finding()));
    let review = deployer.review(&plan, &loaded, repository).await?;
    let findings = &review.errors;
    let mut text = render::many(findings, WHOLE, options.color);
    if review.has_errors() {
        text.push_str(&format!("{}\n", render::count(findings)));
    } else {
        text.push_str(&render::terminal(&review, options.layout()));
    }
    Ok((text, !review.has_errors()))
}

/// Deploys what was accepted, and tells what became of it.
pub(super) async fn after(state: &HostingState, request: &HookRequest) -> String {
    let Some(deployer) = deployer(state, request) else {
        return String::new();
    };
    upkeep::tidy(state.sources.hosted_dir(&deployer.source().name));
    let deployed = deployed_branch(&deployer);
    let mut out = String::new();
    if let Some(update) = request
        .updates
        .iter()
        .find(|update| update.reference == deployed)
    {
        out.push_str(&after_own(state, request, &deployer, update).await);
    }
    for update in &request.updates {
        if update.reference != deployed
            && let Some(branch) = update.reference.strip_prefix("refs/heads/")
        {
            match state.previews.of_branch(deployer.source().id, branch).await {
                Ok(shown) => out.push_str(&shown.lines(&request.base_url)),
                Err(error) => out.push_str(&format!(
                    "warning: the preview of `{branch}` is not up to date: {error}; it is tried again by itself\n"
                )),
            }
        }
    }
    out
}

/// Deploys the branch that is deployed.
async fn after_own(
    state: &HostingState,
    request: &HookRequest,
    deployer: &Deployer,
    update: &RefUpdate,
) -> String {
    let approve = PushOptions::parse(&request.options).is_ok_and(|options| options.approve);
    note(state, request, update, approve).await;
    match deploy(state, deployer, approve).await {
        Ok(Some(deployment)) => {
            let mut out = outcome(&deployment);
            if deployment.commit.as_str() != update.new {
                out.push_str(&format!(
                    "hint: a newer push was faster than {}\n",
                    update.new
                ));
            }
            out.push_str(&addresses(state, request, &deployment).await);
            out
        }
        Ok(None) => format!(
            "hint: accepted, but not deployed: the source is suspended (`picloud resume {}`)\n",
            deployer.source().name
        ),
        Err(error) => {
            format!("warning: accepted, but not live yet: {error}; it is tried again by itself\n")
        }
    }
}

/// Notes who pushed what.
async fn note(state: &HostingState, request: &HookRequest, update: &RefUpdate, approve: bool) {
    let entry = AuditEntry {
        id: state.clock.new_id(),
        at: state.clock.now(),
        key: request.key.parse().ok(),
        actor: request.actor.clone(),
        action: "source.push".to_owned(),
        target: request.source.clone(),
        app: None,
        detail: json!({ "reference": update.reference, "old": update.old, "new": update.new, "approve": approve }),
    };
    if let Err(error) = state.store.append_audit(&entry).await {
        tracing::warn!(%error, source = request.source, commit = update.new, "a push is not in the audit log");
    }
}

/// Deploys the head, or finds what somebody who was faster made of it: the watch of the
/// repository, or another push. `None`: the source is suspended.
async fn deploy(
    state: &HostingState,
    deployer: &Deployer,
    approve: bool,
) -> Result<Option<Arc<Deployment>>, DeployError> {
    let made = deploy_once(state, deployer).await?;
    match &made {
        Some(held)
            if approve
                && matches!(
                    held.status,
                    DeploymentStatus::Held | DeploymentStatus::Waiting
                ) =>
        {
            state
                .store
                .approve_commit(deployer.source().id, &held.commit)
                .await?;
            deploy_once(state, deployer).await
        }
        _ => Ok(made),
    }
}

async fn deploy_once(
    state: &HostingState,
    deployer: &Deployer,
) -> Result<Option<Arc<Deployment>>, DeployError> {
    if let Some(made) = deployer.sync().await? {
        return Ok(Some(made));
    }
    let name = &deployer.source().name;
    if state
        .store
        .source(name)
        .await?
        .is_none_or(|source| source.suspended)
    {
        return Ok(None);
    }
    let last = state.store.last_deployment(name).await?;
    Ok(last.map(Arc::new))
}

/// What became of a deployment.
fn outcome(deployment: &Deployment) -> String {
    let mut out = String::new();
    if deployment.history_rewritten {
        out.push_str("warning: the branch's history was rewritten; what was pushed is deployed as it stands\n");
    }
    let took = deployment
        .duration_ms
        .map_or_else(String::new, |ms| format!(" in {ms:.0} ms"));
    let commit = &deployment.commit;
    let changes = match deployment.changes.len() {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    let errors = deployment
        .errors
        .iter()
        .filter(|finding| finding.is_error());
    let errors: Vec<_> = errors.cloned().collect();
    let why = render::many(&errors, WHOLE, false);
    out.push_str(&match deployment.status {
        DeploymentStatus::Synced => format!("success: {commit} is live{took}: {changes}\n"),
        DeploymentStatus::Held => format!(
            "warning: {commit} is held: {}\nhint: let it go with `picloud approve {}`, or push with -o approve\n",
            held(deployment),
            deployment.id
        ),
        DeploymentStatus::Waiting => {
            let until = deployment.waits_until.map_or_else(
                || "its windows leave no time".to_owned(),
                |until| format!("it is deployed at {}", until.to_rfc3339()),
            );
            format!(
                "warning: {commit} waits for a window to open: {until}\nhint: let it go now with `picloud approve {}`, or push with -o approve\n{why}",
                deployment.id
            )
        }
        DeploymentStatus::Partial => format!(
            "warning: {commit} is live in part{took}: {changes}\n{why}"
        ),
        DeploymentStatus::Reverted => {
            format!("error: {commit} was live, and is not any more: a check failed\n{why}")
        }
        DeploymentStatus::Failed => format!("error: nothing of {commit} is live\n{why}"),
        DeploymentStatus::Applying => {
            format!("hint: {commit} is being deployed: `picloud wait {commit}`\n")
        }
    });
    out
}

/// Why a deployment is held.
fn held(deployment: &Deployment) -> &str {
    let unreviewed = |finding: &&picloud_shared::Diagnostic| finding.code == UNREVIEWED;
    let finding = deployment.errors.iter().find(unreviewed);
    finding.map_or("it would remove much of what is live", |finding| {
        &finding.message
    })
}

/// Where what changed is reached, and when its triggers fire.
async fn addresses(state: &HostingState, request: &HookRequest, deployment: &Deployment) -> String {
    let mut apps: Vec<_> = deployment
        .changes
        .iter()
        .map(|change| &change.app)
        .collect();
    apps.dedup();
    let live = matches!(
        deployment.status,
        DeploymentStatus::Synced | DeploymentStatus::Partial
    );
    if apps.is_empty() || !live {
        return String::new();
    }
    let names: Vec<AppName> = apps.into_iter().take(MAX_ADDRESSES).cloned().collect();
    let mut live = match state.store.load_live_apps(&names).await {
        Ok(live) => live,
        Err(error) => {
            tracing::warn!(%error, "a push cannot be told the addresses of what it changed");
            return String::new();
        }
    };
    live.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let mut out = String::new();
    for app in live {
        let name = &app.spec.name;
        out.push_str(&format!("  {}/apps/{name}/\n", request.base_url));
        for domain in &app.spec.domains {
            out.push_str(&format!("  https://{domain}/\n"));
        }
        for (trigger, spec) in &app.spec.triggers {
            let TriggerKind::Cron {
                schedule, timezone, ..
            } = &spec.kind
            else {
                continue;
            };
            let parsed = Schedule::parse(schedule)
                .ok()
                .zip(timezone.parse::<Tz>().ok());
            let next = parsed.and_then(|(schedule, zone)| {
                let next = schedule.next_after(state.clock.now(), zone)?;
                Some(next.with_timezone(&zone).to_rfc3339())
            });
            if let Some(next) = next.filter(|_| spec.enabled) {
                out.push_str(&format!("    {trigger} fires next at {next}\n"));
            }
        }
    }
    out
}
