//! Makes live again what the commit that is live declares.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use picloud_gitops_core::drift;
use picloud_shared::{
    AppName, DeploymentId,
    deployment::{AppOutcome, Deployment, DeploymentReason, DeploymentStatus, Outcome, StepTiming},
};
use picloud_store::{Apply, ApplyError, DesiredChange};

use super::{DeployError, Deployer, MAX_REPLANS, blocking, contents::contents, known};
use crate::git::GitRepository;

impl Deployer {
    /// As [`Deployer::heal`], unless nothing is to be done without a person's word.
    pub async fn heal_by_itself(
        &self,
        only: &BTreeSet<AppName>,
    ) -> Result<Option<Arc<Deployment>>, DeployError> {
        match self.options.store.source(&self.source.name).await? {
            Some(source) if !source.suspended => self.heal(Some(only)).await,
            _ => Ok(None),
        }
    }

    /// Undoes the drift of these apps, or of all of the source. Gives the deployment that did it;
    /// `None`: nothing differed.
    pub async fn heal(
        &self,
        only: Option<&BTreeSet<AppName>>,
    ) -> Result<Option<Arc<Deployment>>, DeployError> {
        let mut known = self.known.lock().await;
        let began = Instant::now();
        let store = &self.options.store;
        for _ in 0..MAX_REPLANS {
            let Some(source) = store.source(&self.source.name).await? else {
                return Ok(None);
            };
            let Some(commit) = source.live_commit else {
                return Ok(None);
            };
            // A change that left no trace doesn't change the version either.
            *known = None;
            let current = known::current(store, self.source.id, &mut known).await?;
            let plan = drift::heal(self.source.id, &current.desired, &current.live, only);
            if plan.apps.is_empty() {
                return Ok(None);
            }
            let path = self.origin.at_rest()?;
            let repository = blocking(move || GitRepository::open(&path)).await??;
            let blobs = contents(store, &Arc::new(repository), &plan, &current.live.edited).await?;
            let mut deployment = self.healing(commit, &plan, began);
            let applied = store
                .apply(Apply {
                    source: self.source.id,
                    commit: &deployment.commit,
                    head: source.settled_head.as_ref(),
                    plan: &plan,
                    blobs: &blobs,
                    deployment: &deployment,
                    clock: self.options.clock.as_ref(),
                    ids: &current.ids(&plan),
                    desired: &DesiredChange::default(),
                    settings: None,
                })
                .await;
            *known = None;
            match applied {
                Ok(applied) => {
                    deployment.generation = Some(applied.version.generation);
                    self.served(applied.version).await;
                    deployment.duration_ms = Some(began.elapsed().as_secs_f64() * 1000.0);
                    store.finish_deployment(&deployment, None).await?;
                    return Ok(Some(self.tell(deployment)));
                }
                Err(ApplyError::ParentChanged) => {}
                Err(ApplyError::Store(error)) => return Err(error.into()),
            }
        }
        Err(DeployError::Unexpected(
            "the live state changes faster than it can be healed".to_owned(),
        ))
    }

    fn healing(
        &self,
        commit: picloud_shared::CommitId,
        plan: &picloud_shared::Plan,
        began: Instant,
    ) -> Deployment {
        let clock = &self.options.clock;
        let apps: Vec<&str> = plan.apps.keys().map(AppName::as_str).collect();
        Deployment {
            id: DeploymentId(clock.new_id()),
            source: self.source.name.clone(),
            previous_commit: Some(commit.clone()),
            commit: commit.clone(),
            author: "PiCloud".to_owned(),
            message: format!("heal {}", apps.join(", ")),
            reason: DeploymentReason::Heal,
            status: DeploymentStatus::Synced,
            waits_until: None,
            signed_by: None,
            changes: plan.changes().cloned().collect(),
            errors: Vec::new(),
            apps: plan
                .apps
                .iter()
                .map(|(name, app)| AppOutcome {
                    name: name.clone(),
                    outcome: match app.desired {
                        Some(_) => Outcome::Applied,
                        None => Outcome::Removed,
                    },
                    commit: app.desired.as_ref().map(|_| commit.clone()),
                })
                .collect(),
            plan_hash: None,
            history_rewritten: false,
            generation: None,
            started_at: clock.now(),
            duration_ms: None,
            steps: vec![StepTiming {
                step: "plan".to_owned(),
                ms: began.elapsed().as_secs_f64() * 1000.0,
            }],
        }
    }
}
