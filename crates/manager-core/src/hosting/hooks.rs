//! What a push is told: before it is accepted, and once it is live. Git's hooks hand their
//! questions over a Unix socket; what is answered is what the pusher reads.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use picloud_gitops_core::render;
use picloud_shared::{
    CommitId, Diagnostic, SourceName, app::TriggerKind, deployment::DeploymentStatus,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::HostingState;
use crate::{
    git::GitRepository,
    reconcile::{DeployError, Deployer},
};

/// Bytes of a hook's question.
const MAX_QUESTION: usize = 1 << 20;
/// Errors that are shown.
const MAX_SHOWN: usize = 100;

/// One reference that a push changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// All zeros: it is new.
    pub old: String,
    /// All zeros: it is deleted.
    pub new: String,
    /// `refs/heads/main`
    pub reference: String,
}

/// What a hook asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookRequest {
    /// `pre-receive` or `post-receive`.
    pub phase: String,
    /// Whose repository.
    pub source: String,
    /// How the client reached the server.
    pub base_url: String,
    /// What the push changes.
    pub updates: Vec<RefUpdate>,
    /// Where the pushed objects are until they are accepted.
    pub quarantine: Option<String>,
    /// `-o` of the push.
    pub options: Vec<String>,
}

/// Answers hooks for ever. Writes the hooks themselves first.
pub async fn listen(state: HostingState, program: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(&state.hooks)?;
    for phase in ["pre-receive", "post-receive"] {
        let path = state.hooks.join(phase);
        let program = program.display().to_string().replace('\'', "'\\''");
        std::fs::write(
            &path,
            format!("#!/bin/sh\nexec '{program}' git-hook {phase}\n"),
        )?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    // What an ended process left is nobody's.
    match std::fs::remove_file(&state.socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&state.socket)?;
    std::fs::set_permissions(&state.socket, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(state.clone(), stream));
                }
                Err(error) => {
                    tracing::error!(%error, "a hook cannot be answered");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    });
    Ok(())
}

/// Reads one question as a line of JSON; answers with text, and at last a line `exit N`.
async fn answer(state: HostingState, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(read, MAX_QUESTION as u64));
    let asked = reader.read_line(&mut line).await;
    let (text, code) = match asked
        .ok()
        .and_then(|_| serde_json::from_str::<HookRequest>(&line).ok())
    {
        Some(request) if request.phase == "pre-receive" => before(&state, &request).await,
        Some(request) => (after(&state, &request).await, 0),
        None => ("the hook's question cannot be read\n".to_owned(), 1),
    };
    let answer = format!("{text}\0exit {code}\n");
    if let Err(error) = write.write_all(answer.as_bytes()).await {
        tracing::debug!(%error, "a hook did not wait for its answer");
    }
}

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
async fn before(state: &HostingState, request: &HookRequest) -> (String, i32) {
    let Some(deployer) = deployer(state, request) else {
        return ("the source is gone\n".to_owned(), 1);
    };
    let deployed = deployed_branch(&deployer);
    let mut out = String::new();
    let mut code = 0;
    for update in &request.updates {
        let own = update.reference == deployed;
        if is_nothing(&update.new) {
            if own {
                let branch = deployed.trim_start_matches("refs/heads/");
                out.push_str(&format!(
                    "`{branch}` is what is deployed; it cannot be deleted\n"
                ));
                code = 1;
            }
            continue;
        }
        if !update.reference.starts_with("refs/heads/") {
            continue;
        }
        let branch = update.reference.trim_start_matches("refs/heads/");
        match plan(&deployer, request, &update.new).await {
            Ok((text, valid)) => {
                if !own {
                    out.push_str(&format!("{branch} is not deployed; if it were:\n"));
                }
                out.push_str(&text);
                if own && !valid {
                    out.push_str("The push is refused: nothing changed.\n");
                    code = 1;
                }
            }
            Err(error) if own => {
                out.push_str(&format!("the push cannot be checked: {error}\n"));
                code = 1;
            }
            Err(error) => out.push_str(&format!("{branch} cannot be planned: {error}\n")),
        }
    }
    if code == 0 && request.options.iter().any(|option| option == "dry-run") {
        out.push_str("A dry run: nothing was pushed.\n");
        code = 1;
    }
    (out, code)
}

async fn plan(
    deployer: &Arc<Deployer>,
    request: &HookRequest,
    commit: &str,
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
        Ok::<_, crate::git::GitError>((repository, commit, path.prefix))
    });
    let (repository, commit, prefix) = opened
        .await
        .map_err(|error| DeployError::Unexpected(error.to_string()))??;
    let (plan, loaded) = deployer.plan_tree(repository, commit.tree, prefix).await?;
    let mut findings: Vec<Diagnostic> = loaded.diagnostics.clone();
    findings.extend(plan.errors.iter().cloned());
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let shown: Vec<Diagnostic> = findings.iter().take(MAX_SHOWN).cloned().collect();
    let mut text = render::human(&shown, false);
    if findings.len() > shown.len() {
        text.push_str(&format!("and {} more\n", findings.len() - shown.len()));
    }
    if errors == 0 {
        text.push_str(&render::terminal(&plan, false));
    } else {
        text.push_str(&format!("{errors} errors\n"));
    }
    Ok((text, errors == 0))
}

/// Deploys what was accepted, and tells what became of it.
async fn after(state: &HostingState, request: &HookRequest) -> String {
    let Some(deployer) = deployer(state, request) else {
        return String::new();
    };
    let deployed = deployed_branch(&deployer);
    let own = request
        .updates
        .iter()
        .find(|update| update.reference == deployed);
    let Some(update) = own else {
        return String::new();
    };
    let mut done = deployer.sync().await;
    if request.options.iter().any(|option| option == "approve")
        && let Ok(Some(held)) = &done
        && held.status == DeploymentStatus::Held
    {
        let approved = state
            .store
            .approve_commit(deployer.source().id, &held.commit)
            .await;
        if let Err(error) = approved {
            return format!("the approval could not be kept: {error}\n");
        }
        done = deployer.sync().await;
    }
    let deployment = match done {
        Ok(Some(deployment)) => deployment,
        // Somebody else was faster: the watch of the repository, or another push.
        Ok(None) => match state.store.last_deployment(&deployer.source().name).await {
            Ok(Some(deployment)) => Arc::new(deployment),
            Ok(None) => return "nothing is deployed: the source is suspended\n".to_owned(),
            Err(error) => return format!("accepted; its deployment cannot be read: {error}\n"),
        },
        Err(error) => return format!("accepted, but not deployed yet: {error}\n"),
    };
    let short = |id: &str| id.chars().take(10).collect::<String>();
    let mut out = String::new();
    if deployment.history_rewritten {
        out.push_str(
            "The branch's history was rewritten; what is pushed now is deployed as it stands.\n",
        );
    }
    let took = deployment
        .duration_ms
        .map_or_else(String::new, |ms| format!(" in {ms:.0} ms"));
    let commit = short(deployment.commit.as_str());
    out.push_str(&match deployment.status {
        DeploymentStatus::Synced => format!(
            "Live: {commit}{took}, {} changes\n",
            deployment.changes.len()
        ),
        DeploymentStatus::Held => format!(
            "Held: {commit} removes much of what is live; let it go with `picloud approve {}`, or push with -o approve\n",
            deployment.id
        ),
        status => format!(
            "{}: {commit}{took}, {} changes, {} errors\n",
            status.as_str(),
            deployment.changes.len(),
            deployment.errors.len()
        ),
    });
    if deployment.commit.as_str() != update.new {
        out.push_str(&format!(
            "(a newer push was faster than {})\n",
            short(&update.new)
        ));
    }
    out.push_str(&addresses(state, request, &deployment).await);
    out
}

/// Where what changed is reached, and when its triggers fire.
async fn addresses(
    state: &HostingState,
    request: &HookRequest,
    deployment: &picloud_shared::deployment::Deployment,
) -> String {
    use chrono_tz::Tz;
    use picloud_gitops_core::schedule::Schedule;
    let mut out = String::new();
    let Ok(live) = state.store.load_live().await else {
        return out;
    };
    let mut apps: Vec<_> = deployment
        .changes
        .iter()
        .map(|change| &change.app)
        .collect();
    apps.dedup();
    for name in apps.into_iter().take(20) {
        let Some(app) = live.apps.get(name) else {
            continue;
        };
        out.push_str(&format!("  {}/apps/{name}/\n", request.base_url));
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
