//! `picloud/deploy`: what became of the deployed branch's commits, told to the forge.

use std::sync::Arc;

use picloud_gitops_core::render;
use picloud_shared::{
    SourceName,
    deployment::{Deployment, DeploymentStatus},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{PullError, Pulls};
use crate::{
    forge::{self, CommitState, CommitStatus},
    reconcile::Finished,
};

/// What stands beside the branch's commits.
const CONTEXT: &str = "picloud/deploy";

impl Pulls {
    /// Tells of each deployment that ends, and first of those that ended untold.
    pub(super) async fn follow_deployments(self: &Arc<Self>, mut finished: Receiver<Finished>) {
        self.tell_last().await;
        loop {
            match finished.recv().await {
                Ok(Finished(deployment)) => {
                    self.plan_anew(&deployment).await;
                    self.tell_later(deployment);
                }
                Err(RecvError::Lagged(_)) => self.tell_last().await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// The last deployment of each source that has a forge, where it wasn't told.
    async fn tell_last(self: &Arc<Self>) {
        for deployer in self.sources.all() {
            let source = deployer.source();
            if source.forge.is_none() {
                continue;
            }
            match self.store.last_deployment(&source.name).await {
                Ok(Some(deployment)) => self.tell_later(Arc::new(deployment)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(source = %source.name, %error, "its deployments cannot be read");
                }
            }
        }
    }

    /// The plans of open pull requests are held against what is live: with that, they change.
    async fn plan_anew(self: &Arc<Self>, deployment: &Deployment) {
        let changed = deployment.generation.is_some() && !deployment.changes.is_empty();
        let deployer = self.sources.get(&deployment.source);
        let Some(deployer) =
            deployer.filter(|deployer| changed && deployer.source().forge.is_some())
        else {
            return;
        };
        match self.store.renew_pulls(deployer.source().id).await {
            Ok(numbers) => {
                for number in numbers {
                    self.report_later(&deployment.source, number);
                }
            }
            Err(error) => {
                tracing::warn!(source = %deployment.source, %error, "open pull requests are not planned anew");
            }
        }
    }

    /// Not in the way of others: a forge may be slow.
    fn tell_later(self: &Arc<Self>, deployment: Arc<Deployment>) {
        let forge = self.sources.get(&deployment.source);
        if forge.is_none_or(|deployer| deployer.source().forge.is_none()) {
            return;
        }
        let pulls = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = pulls.tell_deployment(&deployment).await {
                tracing::warn!(source = %deployment.source, commit = %deployment.commit, %error,
                    "the forge cannot be told of a deployment");
            }
        });
    }

    async fn tell_deployment(&self, deployment: &Deployment) -> Result<(), PullError> {
        let source: &SourceName = &deployment.source;
        let Some(deployer) = self.sources.get(source) else {
            return Ok(());
        };
        let record = deployer.source();
        let Some(settings) = &record.forge else {
            return Ok(());
        };
        // In order: of one context the last word counts.
        let _turn = self.once.turn(record.id, "deployments").await;
        let names = self.store.forge_names(record.id).await?;
        let told = format!("{} {}", deployment.id, deployment.status.as_str());
        if names.deploy_reported.as_ref() == Some(&told) {
            return Ok(());
        }
        let named = forge::repository_of(&record.url).or(names.repository);
        let Some(repository) = named else {
            tracing::debug!(%source, "the forge's name of the repository is not known yet");
            return Ok(());
        };
        let forge = forge::open(settings, &record.url, &self.clock)?;
        let (state, description) = words(deployment);
        let status = CommitStatus {
            context: CONTEXT,
            state,
            description,
            url: names.public_url.map(|url| format!("{url}/dashboard/")),
        };
        forge
            .set_status(&repository, &deployment.commit, &status)
            .await?;
        self.store.set_deploy_reported(record.id, &told).await?;
        Ok(())
    }
}

fn words(deployment: &Deployment) -> (CommitState, String) {
    let changes = deployment.changes.len();
    let took = deployment
        .duration_ms
        .map_or_else(String::new, |ms| format!(" in {ms:.0} ms"));
    let errors = || render::count(&deployment.errors);
    match deployment.status {
        DeploymentStatus::Synced => (
            CommitState::Success,
            format!(
                "live{took}, {changes} {}",
                if changes == 1 { "change" } else { "changes" }
            ),
        ),
        DeploymentStatus::Partial => (
            CommitState::Failure,
            format!("live but for invalid apps: {}", errors()),
        ),
        DeploymentStatus::Failed => (CommitState::Failure, format!("not live: {}", errors())),
        DeploymentStatus::Reverted => (
            CommitState::Failure,
            "a check failed; the commit before is live".to_owned(),
        ),
        DeploymentStatus::Held => (
            CommitState::Pending,
            "held: it removes much; waits for an approval".to_owned(),
        ),
        DeploymentStatus::Waiting => (
            CommitState::Pending,
            "waits for a window to open".to_owned(),
        ),
        DeploymentStatus::Applying => (CommitState::Pending, "being applied".to_owned()),
    }
}
