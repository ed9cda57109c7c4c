//! What is requested right after a deployment, and the way back where an answer is another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use picloud_gitops_core::diff;
use picloud_shared::{
    AppName, AppSpec, CommitId, Diagnostic, Plan, Severity,
    app::CheckSpec,
    deployment::{Deployment, DeploymentStatus},
    drift::DesiredApp,
    plan::{AppAction, AppPlan, LiveVersion},
};
use picloud_store::{Apply, ApplyError, Declared, DesiredChange};

use super::{
    DeployError, Deployer, MAX_REPLANS,
    known::{self, Known},
};

/// Between two requests of one check.
const PAUSE: Duration = Duration::from_millis(100);

/// Requests a path of an app as a client would.
pub trait Probe: Send + Sync {
    /// The answer's status, or why there is none.
    fn status<'a>(
        &'a self,
        app: &'a AppName,
        path: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<u16, String>>;
}

/// The apps of a plan that have checks.
pub(super) fn wanted(plan: &Plan) -> Vec<(AppName, Arc<AppSpec>)> {
    plan.apps
        .iter()
        .filter_map(|(name, app)| Some((name.clone(), app.desired.clone()?)))
        .filter(|(_, spec)| !spec.checks.is_empty())
        .collect()
}

/// Requests all checks of all apps at once; gives what failed.
pub(super) async fn run(probe: &dyn Probe, apps: &[(AppName, Arc<AppSpec>)]) -> Vec<Diagnostic> {
    let checks = apps
        .iter()
        .flat_map(|(name, spec)| spec.checks.iter().map(move |check| (name, spec, check)));
    let all = checks.map(|(name, spec, check)| async move {
        let got = one(probe, name, check).await.err()?;
        Some(finding(spec, check, &got))
    });
    join_all(all).await.into_iter().flatten().collect()
}

/// Requests one check until its answer is right or its time is over.
async fn one(probe: &dyn Probe, app: &AppName, check: &CheckSpec) -> Result<(), String> {
    let within = Duration::from_millis(check.within_ms);
    let began = Instant::now();
    loop {
        let left = within.saturating_sub(began.elapsed()).max(PAUSE);
        let got = match tokio::time::timeout(left, probe.status(app, &check.path, left)).await {
            Ok(Ok(status)) if status == check.status => return Ok(()),
            Ok(Ok(status)) => format!("got {status}"),
            Ok(Err(why)) => format!("got no answer: {why}"),
            Err(_) => "got no answer in time".to_owned(),
        };
        if began.elapsed() + PAUSE >= within {
            return Err(got);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn finding(spec: &AppSpec, check: &CheckSpec, got: &str) -> Diagnostic {
    let dir = &spec.dir;
    Diagnostic {
        path: if dir.is_empty() {
            "app.yaml".to_owned()
        } else {
            format!("{dir}/app.yaml")
        },
        line: 1,
        column: 1,
        length: 1,
        severity: Severity::Error,
        code: "E0701".to_owned(),
        message: format!(
            "the check of {} expected {} within {} ms, and {got}",
            check.path, check.status, check.within_ms
        ),
        hint: Some(
            "the app went back to what was live before; `picloud runs` shows why".to_owned(),
        ),
        excerpt: None,
        app: Some(spec.name.clone()),
    }
}

impl Deployer {
    /// The checks of a plan that are requested here.
    pub(super) fn checks(&self, plan: &Plan) -> Vec<(AppName, Arc<AppSpec>)> {
        match &self.options.probe {
            Some(_) => wanted(plan),
            None => Vec::new(),
        }
    }

    /// Requests checks; gives what failed. A person who chooses another commit doesn't wait for
    /// them.
    pub(super) async fn failing(&self, checks: &[(AppName, Arc<AppSpec>)]) -> Vec<Diagnostic> {
        let Some(probe) = &self.options.probe else {
            return Vec::new();
        };
        tokio::select! {
            failed = run(probe.as_ref(), checks) => failed,
            () = self.overtaken.notified() => Vec::new(),
        }
    }

    /// Puts the apps whose checks failed back to what was declared before this deployment; one
    /// that is new is removed again.
    pub(super) async fn go_back(
        &self,
        deployment: &mut Deployment,
        head: &CommitId,
        failed: &BTreeSet<AppName>,
        before: &BTreeMap<AppName, DesiredApp>,
        known: &Known,
    ) -> Result<LiveVersion, DeployError> {
        deployment.status = DeploymentStatus::Reverted;
        let mut fresh: Option<Known> = None;
        for _ in 0..MAX_REPLANS {
            let now = fresh.as_ref().unwrap_or(known);
            let (plan, desired) = way_back(deployment, failed, before, now);
            let applied = self
                .options
                .store
                .apply(Apply {
                    source: self.source.id,
                    commit: &deployment.commit,
                    head: Some(head),
                    plan: &plan,
                    blobs: &[],
                    deployment,
                    clock: self.options.clock.as_ref(),
                    ids: &now.ids(&plan),
                    desired: &desired,
                    settings: None,
                })
                .await;
            match applied {
                Ok(applied) => return Ok(applied.version),
                Err(ApplyError::ParentChanged) => {
                    fresh = None;
                    known::current(&self.options.store, self.source.id, &mut fresh).await?;
                }
                Err(ApplyError::Store(error)) => return Err(error.into()),
            }
        }
        Err(DeployError::Unexpected(
            "the live state changes faster than an app can go back".to_owned(),
        ))
    }
}

fn way_back(
    deployment: &Deployment,
    failed: &BTreeSet<AppName>,
    before: &BTreeMap<AppName, DesiredApp>,
    known: &Known,
) -> (Plan, DesiredChange) {
    let mut plan = Plan {
        parent: known.live.version,
        ..Plan::default()
    };
    let mut desired = DesiredChange::default();
    for name in failed {
        let live = known.live.apps.get(name);
        let former = before.get(name);
        let app = AppPlan {
            action: if former.is_some() {
                AppAction::Update
            } else {
                AppAction::Remove
            },
            desired: former.map(|app| app.spec.clone()),
            live: live.map(|app| app.spec.clone()),
            changes: diff::changes_of_live(live, former.map(|app| app.spec.as_ref())),
        };
        plan.apps.insert(name.clone(), app);
        match former {
            Some(app) => desired.put.push(Declared {
                spec: app.spec.clone(),
                pinned_commit: app
                    .pinned_commit
                    .clone()
                    .or_else(|| deployment.previous_commit.clone()),
            }),
            None => desired.removed.push(name.clone()),
        }
    }
    (plan, desired)
}
