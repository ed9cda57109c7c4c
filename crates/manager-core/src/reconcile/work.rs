//! One commit on its way from git to what is live.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use picloud_gitops_core::{
    LoadOptions, Loaded, Notification, Opening, check_desired, load, plan, review::plan_hash,
};
use picloud_shared::{
    AppName, CommitId, DeploymentId, Diagnostic, Plan, Severity,
    app::to_value,
    deployment::{AppOutcome, Deployment, DeploymentReason, DeploymentStatus, Outcome, StepTiming},
    plan::{AppAction, LiveState, LiveVersion},
};
use picloud_store::{Apply, ApplyError, SourceRecord, notifications::Announcement};

use super::{
    DeployError, Deployer, MAX_REPLANS, Target, blocking,
    checks::Begun,
    contents::contents,
    known::{self, Known},
};
use crate::{
    git::{Commit, GitError, GitRepository},
    notifications::announcement,
    origin::Origin,
};

/// One deployment under way.
pub(super) struct Work {
    commit: Commit,
    target: Target,
    /// Whether a person let this commit go.
    approved: bool,
    deployment: Deployment,
    /// Whom the commit wants to be told, where that is known and may be asked.
    wanted: Option<Vec<Notification>>,
    began: Instant,
    step: Instant,
}

impl Work {
    pub(super) async fn begin(
        deployer: &Deployer,
        source: &SourceRecord,
        target: Target,
        began: Instant,
        repository: &Arc<GitRepository>,
    ) -> Result<Self, DeployError> {
        let previous = source.live_commit.clone();
        let (git, id, before) = (
            Arc::clone(repository),
            target.commit.clone(),
            // The head that was dealt with, also where it isn't what is live.
            (source.settled_head.clone())
                .or_else(|| previous.clone())
                .filter(|_| !target.chosen && deployer.origin.has_history()),
        );
        let read = blocking(move || {
            let commit = git.commit(&id)?;
            let rewritten = match &before {
                Some(before) => !git.is_ancestor(before, &id)?,
                None => false,
            };
            Ok::<_, GitError>((commit, rewritten))
        });
        let (commit, history_rewritten) = read.await??;
        let clock = &deployer.options.clock;
        let approved = source.approved_commit.as_ref() == Some(&target.commit);
        // What was held or waits is the same deployment when it goes on.
        let store = &deployer.options.store;
        let earlier = store.pending_deployment(source.id, &target.commit).await?;
        let deployment = Deployment {
            id: earlier.unwrap_or_else(|| DeploymentId(clock.new_id())),
            source: source.name.clone(),
            commit: target.commit.clone(),
            previous_commit: previous,
            author: commit.author.clone(),
            message: commit.message.clone(),
            status: DeploymentStatus::Applying,
            changes: Vec::new(),
            errors: Vec::new(),
            apps: Vec::new(),
            plan_hash: None,
            history_rewritten,
            reason: if target.chosen {
                DeploymentReason::Rollback
            } else {
                DeploymentReason::Commit
            },
            waits_until: None,
            signed_by: None,
            generation: None,
            started_at: clock.now(),
            duration_ms: None,
            steps: Vec::new(),
        };
        if !target.chosen && deployer.origin.has_history() {
            let why = superseded(&target.commit);
            store
                .supersede_deployments(source.id, &target.commit, &why)
                .await?;
        }
        let mut work = Self {
            commit,
            target,
            approved,
            deployment,
            wanted: None,
            began,
            step: began,
        };
        work.done("resolve");
        Ok(work)
    }

    fn done(&mut self, step: &str) {
        let ms = self.step.elapsed().as_secs_f64() * 1000.0;
        self.deployment.steps.push(StepTiming {
            step: step.to_owned(),
            ms,
        });
        self.step = Instant::now();
    }

    pub(super) async fn read(
        &mut self,
        deployer: &Deployer,
        repository: &Arc<GitRepository>,
    ) -> Result<Loaded, DeployError> {
        let (git, cache) = (Arc::clone(repository), Arc::clone(&deployer.cache));
        let (tree, prefix) = (
            self.commit.tree.clone(),
            deployer.origin.prefix().to_owned(),
        );
        let checker = Arc::clone(&deployer.options.checker);
        let secrets = deployer.options.secrets.clone();
        let loaded = blocking(move || {
            let options = LoadOptions {
                path: &prefix,
                checker: checker.as_ref(),
                secrets: secrets.as_deref(),
            };
            load(git.as_ref(), &tree, &options, &mut cache.lock())
        });
        let mut loaded = loaded.await??;
        if let Origin::Preview(origin) = &deployer.origin {
            origin.shape(&mut loaded);
        }
        let broken = check_desired(&loaded.desired);
        if !broken.is_empty() {
            return Err(DeployError::Unexpected(format!(
                "the desired state is not sound: {}",
                broken.join("; ")
            )));
        }
        deployer
            .origin
            .declare_interval(loaded.settings.interval_ms);
        self.done("validate");
        Ok(loaded)
    }

    pub(super) async fn reconcile(
        mut self,
        deployer: &Deployer,
        repository: &Arc<GitRepository>,
        loaded: &Loaded,
        known: &mut Option<Known>,
    ) -> Result<Deployment, DeployError> {
        let store = &deployer.options.store;
        let unread =
            |finding: &Diagnostic| finding.is_error() && finding.path.ends_with("picloud.yaml");
        if !loaded.diagnostics.iter().any(unread) {
            self.wanted = Some(loaded.settings.notifications.clone());
        }
        for _ in 0..MAX_REPLANS {
            let current = known::current(store, deployer.source.id, known).await?;
            let plan = plan(
                deployer.source.id,
                &loaded.desired,
                &current.live,
                loaded.settings.prune,
            );
            self.deployment.changes = plan.changes().cloned().collect();
            self.deployment.errors = loaded
                .diagnostics
                .iter()
                .chain(&plan.errors)
                .cloned()
                .collect();
            self.deployment.status = status(&self.deployment.errors, loaded, &plan);
            self.deployment.plan_hash = Some(plan_hash(&plan));
            self.done("plan");
            if self.deployment.status == DeploymentStatus::Failed {
                self.deployment.changes.clear();
                return self.end_without_apply(deployer).await;
            }
            let opening = self.opening(deployer, loaded);
            if opening != Opening::Open {
                self.deployment.status = DeploymentStatus::Waiting;
                self.deployment.waits_until = match opening {
                    Opening::At(time) => Some(time),
                    Opening::Open | Opening::Never => None,
                };
                return self.end_without_apply(deployer).await;
            }
            if self.removes_too_much(deployer, loaded, &current.live, &plan) {
                self.deployment.status = DeploymentStatus::Held;
                return self.end_without_apply(deployer).await;
            }
            if let Some(finding) = self.unreviewed(deployer, loaded, &plan).await? {
                self.deployment.status = DeploymentStatus::Held;
                self.deployment.errors.push(finding);
                return self.end_without_apply(deployer).await;
            }
            let blobs = contents(store, repository, &plan, &current.live.edited).await?;
            let desired = current.change(loaded, &plan);
            self.deployment.apps = outcomes(&self.deployment, loaded, &plan, current);
            let outcome = self.deployment.status;
            let trial = deployer.trial(&plan, current, &loaded.depends_on, outcome);
            if !trial.is_empty() {
                self.deployment.status = DeploymentStatus::Applying;
            }
            let applied = store
                .apply(Apply {
                    source: deployer.source.id,
                    commit: &self.commit.id,
                    head: Some(&self.target.head),
                    plan: &plan,
                    blobs: &blobs,
                    deployment: &self.deployment,
                    clock: deployer.options.clock.as_ref(),
                    ids: &current.ids(&plan),
                    desired: &desired,
                    settings: Some(&to_value(&loaded.settings)),
                })
                .await;
            match applied {
                Ok(applied) => {
                    self.done("apply");
                    *known = known
                        .take()
                        .and_then(|known| known.after(&plan, &desired, &applied, &self.deployment));
                    self.publish(deployer, applied.version).await;
                    let begun = Begun {
                        head: self.target.head.clone(),
                        began: self.began,
                        deployment: self.deployment,
                        wanted: self.wanted,
                        trial,
                    };
                    return deployer.settle(begun, known, repository).await;
                }
                Err(ApplyError::ParentChanged) => *known = None,
                Err(ApplyError::Store(error)) => return Err(error.into()),
            }
        }
        Err(DeployError::Unexpected(
            "the live state changes faster than a plan can be made".to_owned(),
        ))
    }

    /// Whether the windows let this commit go now. What a person chose or let go doesn't wait.
    fn opening(&self, deployer: &Deployer, loaded: &Loaded) -> Opening {
        if self.approved || self.target.chosen || !deployer.origin.has_history() {
            return Opening::Open;
        }
        loaded.settings.opening(deployer.options.clock.now())
    }

    /// Verifies who signed the commit, where that is asked for. An unsigned one ends here.
    pub(super) async fn verify(
        &mut self,
        deployer: &Deployer,
        repository: &Arc<GitRepository>,
        loaded: &Loaded,
    ) -> Result<bool, DeployError> {
        let store = &deployer.options.store;
        let source = deployer.source.id;
        if self.target.chosen && store.was_applied(source, &self.commit.id).await? {
            return Ok(true);
        }
        let verified = deployer
            .verify(repository, &self.commit.id, &loaded.settings)
            .await?;
        match verified {
            Ok(signed_by) => {
                self.deployment.signed_by = signed_by;
                Ok(true)
            }
            Err(error) => {
                self.deployment.status = DeploymentStatus::Failed;
                self.deployment.errors = vec![error.finding()];
                Ok(false)
            }
        }
    }

    /// Whether this commit needs a person's word: it would remove all apps of the source, or more
    /// of them than the limit.
    fn removes_too_much(
        &self,
        deployer: &Deployer,
        loaded: &Loaded,
        live: &LiveState,
        plan: &Plan,
    ) -> bool {
        if self.approved || self.target.chosen || !deployer.origin.has_history() {
            return false;
        }
        let own = live
            .apps
            .values()
            .filter(|app| app.source == deployer.source.id)
            .count();
        let removed = plan
            .apps
            .values()
            .filter(|app| app.action == AppAction::Remove)
            .count();
        removed > 0
            && (removed == own || removed * 100 > own * usize::from(loaded.settings.prune_limit))
    }

    /// Records what was decided; nothing of the commit becomes live.
    pub(super) async fn end_without_apply(
        mut self,
        deployer: &Deployer,
    ) -> Result<Deployment, DeployError> {
        self.deployment.duration_ms = Some(self.began.elapsed().as_secs_f64() * 1000.0);
        // Another commit than the head was chosen by a person, who is told.
        // One that waits is looked at again when its time comes.
        let settled = !self.target.chosen && self.deployment.status != DeploymentStatus::Waiting;
        let head = settled.then_some(&self.target.head);
        deployer
            .options
            .store
            .record_deployment(
                deployer.source.id,
                &self.deployment,
                head,
                &self.announcement(deployer),
            )
            .await?;
        Ok(self.deployment)
    }

    /// What is told of it.
    fn announcement<'a>(&self, deployer: &'a Deployer) -> Announcement<'a> {
        let clock = deployer.options.clock.as_ref();
        announcement(&self.deployment, self.wanted.as_deref(), clock)
    }

    async fn publish(&mut self, deployer: &Deployer, version: LiveVersion) {
        self.deployment.generation = Some(version.generation);
        deployer.served(version).await;
        self.done("publish");
    }

    /// Why a commit is held until somebody looked at its plan; `None`: it isn't.
    async fn unreviewed(
        &self,
        deployer: &Deployer,
        loaded: &Loaded,
        plan: &Plan,
    ) -> Result<Option<Diagnostic>, DeployError> {
        if self.approved || self.target.chosen || !deployer.origin.has_history() {
            return Ok(None);
        }
        let store = &deployer.options.store;
        let live = store.source_settings(deployer.source.id).await?;
        let live = live.is_some_and(|live| live["require_reviewed"] == true);
        // A commit that no longer asks for it is the last that has to be looked at.
        let switched_off = live && !loaded.settings.require_reviewed;
        let wanted = (live || loaded.settings.require_reviewed) && !plan.apps.is_empty();
        if !wanted && !switched_off {
            return Ok(None);
        }
        // What was live before was let go then: a resume after a rollback asks nobody again.
        if store
            .was_applied(deployer.source.id, &self.commit.id)
            .await?
        {
            return Ok(None);
        }
        let hash = plan_hash(plan);
        if !switched_off && store.is_reviewed(deployer.source.id, &hash).await? {
            return Ok(None);
        }
        let short = &hash[..12.min(hash.len())];
        Ok(Some(of_source(
            deployer,
            Severity::Warning,
            UNREVIEWED,
            format!("the plan {short} was not reviewed"),
            "merge a pull request that shows this plan, or let it go with `picloud approve`",
        )))
    }
}

/// The code of what is said where a plan was not reviewed.
pub(crate) const UNREVIEWED: &str = "E0706";

fn of_source(
    deployer: &Deployer,
    severity: Severity,
    code: &str,
    message: String,
    hint: &str,
) -> Diagnostic {
    let prefix = deployer.origin.prefix();
    Diagnostic {
        path: if prefix.is_empty() {
            "picloud.yaml".to_owned()
        } else {
            format!("{prefix}/picloud.yaml")
        },
        line: 1,
        column: 1,
        length: 1,
        severity,
        code: code.to_owned(),
        message,
        hint: Some(hint.to_owned()),
        excerpt: None,
        app: None,
    }
}

/// What is said of a deployment that a newer commit took the place of.
fn superseded(by: &CommitId) -> Diagnostic {
    Diagnostic {
        path: "picloud.yaml".to_owned(),
        line: 1,
        column: 1,
        length: 1,
        severity: Severity::Error,
        code: "E0705".to_owned(),
        message: format!("the newer commit {by} took its place"),
        hint: None,
        excerpt: None,
        app: None,
    }
}

/// What becomes of each app that the commit changes, or can't.
fn outcomes(
    deployment: &Deployment,
    loaded: &Loaded,
    plan: &Plan,
    current: &Known,
) -> Vec<AppOutcome> {
    let changed = plan.apps.iter().map(|(name, app)| {
        let removed = app.action == AppAction::Remove;
        AppOutcome {
            name: name.clone(),
            outcome: if removed {
                Outcome::Removed
            } else {
                Outcome::Applied
            },
            commit: (!removed).then(|| deployment.commit.clone()),
        }
    });
    let waits = |name: &AppName| {
        let mut errors = deployment.errors.iter();
        errors.any(|finding| finding.code == "E0214" && finding.app.as_ref() == Some(name))
    };
    let named = loaded
        .desired
        .invalid
        .iter()
        .filter_map(|app| app.name.as_ref());
    let invalid: BTreeSet<&AppName> = plan.kept.iter().chain(named).collect();
    let held_back = invalid.into_iter().map(|name| {
        let live = current.live.apps.get(name);
        let commit = live.and_then(|app| {
            app.pinned_commit
                .clone()
                .or_else(|| deployment.previous_commit.clone())
        });
        AppOutcome {
            name: name.clone(),
            outcome: if waits(name) {
                Outcome::Blocked
            } else {
                Outcome::Invalid
            },
            commit,
        }
    });
    let mut all: Vec<AppOutcome> = changed.chain(held_back).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn status(errors: &[Diagnostic], loaded: &Loaded, plan: &Plan) -> DeploymentStatus {
    if !errors.iter().any(Diagnostic::is_error) {
        return DeploymentStatus::Synced;
    }
    // Errors that belong to no app are of the source itself: then nothing of it can be trusted.
    let of_source = loaded.diagnostics.iter().any(|finding| {
        finding.is_error()
            && (finding.path.ends_with("picloud.yaml")
                || finding.code == "E0209"
                    && finding.app.is_none()
                    && loaded.desired.apps.is_empty())
    });
    let refused: BTreeSet<&AppName> = plan
        .errors
        .iter()
        .filter_map(|finding| finding.app.as_ref())
        .collect();
    // Where no app is valid, what else the commit does is done all the same: an app that it removes.
    if of_source || loaded.desired.apps.len() == refused.len() && plan.apps.is_empty() {
        DeploymentStatus::Failed
    } else {
        DeploymentStatus::Partial
    }
}
