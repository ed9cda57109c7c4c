//! What is requested right after a deployment, and the way back where an answer is another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use picloud_gitops_core::{Loaded, Notification, check_place, dependents, diff};
use picloud_shared::{
    AppName, AppSpec, CommitId, Diagnostic, Plan, Severity,
    app::CheckSpec,
    deployment::{AppOutcome, Deployment, DeploymentStatus, Outcome, StepTiming},
    drift::DesiredApp,
    plan::{AppAction, AppPlan, LiveVersion},
};
use picloud_store::{Apply, ApplyError, Declared, DesiredChange, notifications::Announcement};

use super::{
    DeployError, Deployer, MAX_REPLANS, blocking,
    known::{self, Known},
};
use crate::{
    git::{GitError, GitRepository},
    notifications::announcement,
    origin::Origin,
};

/// Between two requests of one check.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a newer commit is looked for where nothing tells of it.
const LOOK: Duration = Duration::from_secs(5);

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

/// What a deployment is to be tried by, and what it goes back to.
#[derive(Debug, Clone, Default)]
pub(super) struct Trial {
    checks: BTreeMap<AppName, Arc<AppSpec>>,
    /// What was declared before, of each app that changed; `None`: it is new.
    before: BTreeMap<AppName, Option<DesiredApp>>,
    /// Which apps need which others.
    depends_on: BTreeMap<AppName, BTreeSet<AppName>>,
    /// What becomes of the deployment where nothing fails.
    outcome: Option<DeploymentStatus>,
}

impl Trial {
    pub(super) fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }
}

/// A deployment that is live and not settled yet.
pub(super) struct Begun {
    pub(super) deployment: Deployment,
    /// The branch's head that is dealt with by it.
    pub(super) head: CommitId,
    /// Whom its commit wants to be told, where that is known.
    pub(super) wanted: Option<Vec<Notification>>,
    pub(super) began: Instant,
    pub(super) trial: Trial,
}

impl Begun {
    /// What is told of its end.
    fn announcement<'a>(&self, deployer: &'a Deployer) -> Announcement<'a> {
        let clock = deployer.options.clock.as_ref();
        announcement(&self.deployment, self.wanted.as_deref(), clock)
    }
}

/// A check that failed.
struct Failed {
    /// Which of its app's.
    position: usize,
    finding: Diagnostic,
}

/// How checks ended.
enum Checked {
    Done(Vec<Failed>),
    /// A newer commit takes them over.
    Overtaken,
    /// A person chose another commit, and doesn't wait for them.
    Chosen,
}

/// Requests all checks of all apps at once; gives what failed.
async fn run(probe: &dyn Probe, apps: &BTreeMap<AppName, Arc<AppSpec>>) -> Vec<Failed> {
    let checks = apps.iter().flat_map(|(name, spec)| {
        let checks = spec.checks.iter().enumerate();
        checks.map(move |(position, check)| (name, spec, position, check))
    });
    let all = checks.map(|(name, spec, position, check)| async move {
        let got = one(probe, name, check).await.err()?;
        let finding = finding(spec, check, &got);
        Some(Failed { position, finding })
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
    Diagnostic {
        code: "E0701".to_owned(),
        message: format!(
            "the check of {} expected {} within {} ms, and {got}",
            check.path, check.status, check.within_ms
        ),
        hint: Some(
            "the app went back to what was live before; `picloud runs` shows why".to_owned(),
        ),
        ..at_manifest(spec)
    }
}

/// A finding of an app, at the beginning of its manifest.
fn at_manifest(spec: &AppSpec) -> Diagnostic {
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
        code: String::new(),
        message: String::new(),
        hint: None,
        excerpt: None,
        app: Some(spec.name.clone()),
    }
}

/// What is said of an app that goes back because of another.
fn went_along(spec: &AppSpec, because: &AppName) -> Diagnostic {
    Diagnostic {
        code: "E0704".to_owned(),
        message: format!("the app went back with `{because}`, which it depends on"),
        hint: None,
        ..at_manifest(spec)
    }
}

impl Deployer {
    /// What a plan is to be tried by. What an earlier deployment left untried is tried with it.
    pub(super) fn trial(
        &self,
        plan: &Plan,
        known: &Known,
        depends_on: &BTreeMap<AppName, BTreeSet<AppName>>,
        outcome: DeploymentStatus,
    ) -> Trial {
        if self.options.probe.is_none() {
            return Trial {
                outcome: Some(outcome),
                ..Trial::default()
            };
        }
        let mut trial = Trial {
            depends_on: depends_on.clone(),
            outcome: Some(outcome),
            ..Trial::default()
        };
        let put = plan
            .apps
            .iter()
            .filter_map(|(name, app)| Some((name, app.desired.as_ref()?)));
        for (name, spec) in put {
            trial
                .before
                .insert(name.clone(), known.desired.get(name).cloned());
            if !spec.checks.is_empty() {
                trial.checks.insert(name.clone(), Arc::clone(spec));
            }
        }
        if let Some(earlier) = &*self.untried.lock() {
            for (name, before) in &earlier.trial.before {
                let planned = plan.apps.get(name);
                let live = known.live.apps.get(name).map(|app| Arc::clone(&app.spec));
                let spec = planned.map_or(live, |app| app.desired.clone());
                let Some(spec) = spec else { continue };
                // What went before that was tried; this is what it goes back to.
                trial.before.insert(name.clone(), before.clone());
                if !spec.checks.is_empty() {
                    trial.checks.insert(name.clone(), spec);
                }
            }
        }
        trial
    }

    /// Tries a deployment that is live, and ends it: apps whose checks fail go back, and with them
    /// those that depend on them. A newer commit doesn't wait for this: it is given back as being
    /// applied, and tried with that.
    pub(super) async fn settle(
        &self,
        mut begun: Begun,
        known: &mut Option<Known>,
        repository: &Arc<GitRepository>,
    ) -> Result<Deployment, DeployError> {
        // What this deployment took over is settled by it.
        let earlier = self.untried.lock().take();
        if let Some(earlier) = earlier {
            self.end_untried(earlier).await?;
        }
        let step = Instant::now();
        let failed = match self.try_out(&begun).await {
            Checked::Done(failed) => failed,
            Checked::Chosen => Vec::new(),
            Checked::Overtaken => {
                let deployment = begun.deployment.clone();
                *self.untried.lock() = Some(begun);
                return Ok(deployment);
            }
        };
        if !begun.trial.is_empty() {
            begun.deployment.steps.push(StepTiming {
                step: "check".to_owned(),
                ms: step.elapsed().as_secs_f64() * 1000.0,
            });
        }
        begun.deployment.status = begun.trial.outcome.unwrap_or(DeploymentStatus::Synced);
        if !failed.is_empty() {
            self.revert(&mut begun, failed, known, repository).await?;
        }
        begun.deployment.duration_ms = Some(begun.began.elapsed().as_secs_f64() * 1000.0);
        self.options
            .store
            .finish_deployment(&begun.deployment, Some(&begun.announcement(self)))
            .await?;
        Ok(begun.deployment)
    }

    /// Ends a deployment whose trial a newer one took over.
    async fn end_untried(&self, mut earlier: Begun) -> Result<(), DeployError> {
        earlier.deployment.status = earlier.trial.outcome.unwrap_or(DeploymentStatus::Synced);
        earlier.deployment.duration_ms = Some(earlier.began.elapsed().as_secs_f64() * 1000.0);
        self.options
            .store
            .finish_deployment(&earlier.deployment, Some(&earlier.announcement(self)))
            .await?;
        self.tell(earlier.deployment);
        Ok(())
    }

    /// Tries what was left untried because of a newer commit that is not applied: it is held, waits,
    /// or is refused.
    pub(super) async fn settle_untried(
        &self,
        known: &mut Option<Known>,
    ) -> Result<(), DeployError> {
        let Some(mut begun) = self.untried.lock().take() else {
            return Ok(());
        };
        let (repository, head) = self.open(self.origin.at_rest()?).await?;
        begun.head = head.unwrap_or(begun.head);
        let deployment = self.settle(begun, known, &repository).await?;
        if deployment.status != DeploymentStatus::Applying {
            self.tell(deployment);
        }
        Ok(())
    }

    /// Takes up the checks that an ended process left: what they were to try is live.
    pub(super) async fn take_up_checks(&self) -> Result<(), DeployError> {
        let store = &self.options.store;
        let mut interrupted = store.interrupted_deployments(self.source.id).await?;
        let Some(mut deployment) = interrupted.pop() else {
            return Ok(());
        };
        for mut earlier in interrupted {
            earlier.status = went_well(&earlier);
            let told = announcement(&earlier, None, self.options.clock.as_ref());
            store.finish_deployment(&earlier, Some(&told)).await?;
        }
        let mut known = self.known.lock().await;
        let (repository, head) = self.open(self.origin.at_rest()?).await?;
        let trial = self
            .former_trial(&deployment, &mut known, &repository)
            .await?;
        tracing::info!(source = %deployment.source, commit = %deployment.commit, checks = trial.checks.len(), "checks are taken up again");
        // Until this process serves it, nothing can be tried.
        let version = store.live_version().await?;
        self.served(version).await;
        deployment.duration_ms = None;
        let begun = Begun {
            head: head.unwrap_or_else(|| deployment.commit.clone()),
            deployment,
            wanted: None,
            began: Instant::now(),
            trial,
        };
        let deployment = self.settle(begun, &mut known, &repository).await?;
        if deployment.status != DeploymentStatus::Applying {
            self.tell(deployment);
        }
        Ok(())
    }

    /// The trial of a deployment, as far as git knows what was before.
    async fn former_trial(
        &self,
        deployment: &Deployment,
        known: &mut Option<Known>,
        repository: &Arc<GitRepository>,
    ) -> Result<Trial, DeployError> {
        let outcome = Some(went_well(deployment));
        if self.options.probe.is_none() {
            return Ok(Trial {
                outcome,
                ..Trial::default()
            });
        }
        let before = match &deployment.previous_commit {
            Some(commit) => Some(self.loaded_at(repository, commit).await?),
            None => None,
        };
        let now = self.loaded_at(repository, &deployment.commit).await?;
        let current = known::current(&self.options.store, self.source.id, known).await?;
        let mut trial = Trial {
            depends_on: now.depends_on,
            outcome,
            ..Trial::default()
        };
        let applied = deployment
            .apps
            .iter()
            .filter(|app| app.outcome == Outcome::Applied);
        for name in applied.map(|app| &app.name) {
            let Some(live) = current.live.apps.get(name) else {
                continue;
            };
            let unknown = before.as_ref().is_some_and(|before| {
                let mut invalid = before.desired.invalid.iter();
                invalid.any(|app| app.name.as_ref() == Some(name))
            });
            if unknown {
                continue;
            }
            let former = before
                .as_ref()
                .and_then(|before| before.desired.apps.get(name));
            let former = former.map(|spec| DesiredApp {
                id: live.id,
                pinned_commit: None,
                spec: Arc::clone(spec),
            });
            trial.before.insert(name.clone(), former);
            if !live.spec.checks.is_empty() {
                trial.checks.insert(name.clone(), Arc::clone(&live.spec));
            }
        }
        Ok(trial)
    }

    async fn loaded_at(
        &self,
        repository: &Arc<GitRepository>,
        commit: &CommitId,
    ) -> Result<Loaded, DeployError> {
        let (git, id) = (Arc::clone(repository), commit.clone());
        let tree = blocking(move || git.commit(&id)).await??.tree;
        let prefix = self.origin.prefix().to_owned();
        let mut loaded = self
            .load(
                Arc::clone(repository),
                tree,
                prefix,
                Arc::clone(&self.cache),
            )
            .await?;
        if let Origin::Preview(origin) = &self.origin {
            origin.shape(&mut loaded);
        }
        Ok(loaded)
    }

    /// Requests the checks of a trial.
    async fn try_out(&self, begun: &Begun) -> Checked {
        let Some(probe) = self
            .options
            .probe
            .as_ref()
            .filter(|_| !begun.trial.is_empty())
        else {
            return Checked::Done(Vec::new());
        };
        tokio::select! {
            failed = run(probe.as_ref(), &begun.trial.checks) => Checked::Done(failed),
            () = self.overtaken.notified() => Checked::Chosen,
            () = self.newer_than(&begun.head) => Checked::Overtaken,
        }
    }

    /// Waits until the branch has another head than this, and it may be deployed.
    async fn newer_than(&self, head: &CommitId) {
        if matches!(self.origin, Origin::Preview(_) | Origin::WorkTree(_)) {
            std::future::pending::<()>().await;
        }
        let mut asked = false;
        loop {
            let watching = self.origin.watch();
            let ask = self.asked.notified();
            let found = if asked {
                self.head().await
            } else {
                match self.origin.at_rest() {
                    Ok(path) => self.open(path).await,
                    Err(error) => Err(error.into()),
                }
            };
            let is_newer = matches!(&found, Ok((_, Some(found))) if found != head);
            if is_newer && !self.is_suspended().await {
                return;
            }
            tokio::select! {
                () = watching.changed() => {}
                () = ask => {}
                // What can't be watched is looked at.
                () = tokio::time::sleep(LOOK) => {}
            }
            asked = true;
        }
    }

    async fn is_suspended(&self) -> bool {
        let source = self.options.store.source(&self.source.name).await;
        !matches!(source, Ok(Some(source)) if !source.suspended)
    }

    /// Puts the apps back whose checks failed, and those that depend on them.
    async fn revert(
        &self,
        begun: &mut Begun,
        mut failed: Vec<Failed>,
        known: &mut Option<Known>,
        repository: &Arc<GitRepository>,
    ) -> Result<(), DeployError> {
        self.locate(&mut failed, &begun.deployment.commit, repository)
            .await?;
        let mut apps: BTreeSet<AppName> = failed
            .iter()
            .filter_map(|failed| failed.finding.app.clone())
            .collect();
        let errors = &mut begun.deployment.errors;
        errors.extend(failed.into_iter().map(|failed| failed.finding));
        let current = known::current(&self.options.store, self.source.id, known).await?;
        let trial = &begun.trial;
        let along = dependents(&trial.depends_on, &apps);
        let along: Vec<(AppName, AppName)> = along
            .into_iter()
            .filter(|(name, _)| trial.before.contains_key(*name))
            .map(|(name, because)| (name.clone(), because.clone()))
            .collect();
        for (name, because) in along {
            if let Some(app) = current.live.apps.get(&name) {
                errors.push(went_along(&app.spec, &because));
                apps.insert(name);
            }
        }
        let before: BTreeMap<AppName, DesiredApp> = trial
            .before
            .iter()
            .filter_map(|(name, app)| Some((name.clone(), app.clone()?)))
            .collect();
        let previous = begun.deployment.previous_commit.clone();
        for app in &apps {
            let former = before.get(app);
            let commit =
                former.and_then(|app| app.pinned_commit.clone().or_else(|| previous.clone()));
            begun.deployment.apps.retain(|known| known.name != *app);
            begun.deployment.apps.push(AppOutcome {
                name: app.clone(),
                outcome: Outcome::Reverted,
                commit,
            });
        }
        begun.deployment.apps.sort_by(|a, b| a.name.cmp(&b.name));
        let version = self
            .go_back(&mut begun.deployment, &begun.head, &apps, &before, current)
            .await?;
        *known = None;
        begun.deployment.generation = Some(version.generation);
        self.served(version).await;
        Ok(())
    }

    /// Has findings point at the checks in the manifests of the commit.
    async fn locate(
        &self,
        failed: &mut Vec<Failed>,
        commit: &CommitId,
        repository: &Arc<GitRepository>,
    ) -> Result<(), DeployError> {
        let (git, id, mut found) = (
            Arc::clone(repository),
            commit.clone(),
            std::mem::take(failed),
        );
        let found = blocking(move || {
            let tree = git.commit(&id)?.tree;
            for failed in &mut found {
                let text = git.text_at(&tree, &failed.finding.path)?;
                let Some(text) = text else { continue };
                if let Some((line, column, length)) = check_place(&text, failed.position) {
                    let excerpt = text.lines().nth(line as usize - 1);
                    failed.finding.line = line;
                    failed.finding.column = column;
                    failed.finding.length = length;
                    failed.finding.excerpt = excerpt.map(|line| line.chars().take(200).collect());
                }
            }
            Ok::<_, GitError>(found)
        });
        *failed = found.await??;
        Ok(())
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

/// What a deployment is where its checks went well.
fn went_well(deployment: &Deployment) -> DeploymentStatus {
    if deployment.errors.iter().any(Diagnostic::is_error) {
        DeploymentStatus::Partial
    } else {
        DeploymentStatus::Synced
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
