//! Pull requests: planned against what is live, and told where they are reviewed.
//!
//! What a forge was told is kept, so that an event that leaves the head as it was writes nothing,
//! also after a restart; what it could not be told is told later.

mod deployments;

use std::{sync::Arc, time::Duration};

use picloud_gitops_core::{Review, render};
use picloud_shared::{Clock, CommitId, SourceName};
use picloud_store::{Store, StoreError, pulls::PullRecord};
use sha2::{Digest, Sha256};

use crate::{
    forge::{self, Comment, CommitState, CommitStatus, Forge, ForgeError, keep_comment},
    git::{GitError, GitRepository},
    origin::Origin,
    previews::Previews,
    reconcile::{DeployError, Deployer},
    sources::Sources,
    webhooks::{delivery::PullEvent, once::Once},
};

/// What stands beside a pull request's head.
const CONTEXT: &str = "picloud/plan";
/// Between tries to tell a forge that is away; doubles.
const BACKOFF: Duration = Duration::from_secs(5);
/// The longest of these waits.
const LONGEST: Duration = Duration::from_mins(10);
/// After so many tries it waits for the next event or the next start.
const TRIES: u32 = 30;

/// The pull requests of all sources.
pub struct Pulls {
    store: Store,
    clock: Arc<dyn Clock>,
    sources: Arc<Sources>,
    previews: Arc<Previews>,
    /// One at a time, of each.
    once: Once,
}

/// Why a forge wasn't told.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The forge.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The repository, or the database.
    #[error(transparent)]
    Deploy(#[from] DeployError),
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        Self::Deploy(error.into())
    }
}

impl From<GitError> for PullError {
    fn from(error: GitError) -> Self {
        Self::Deploy(error.into())
    }
}

impl PullError {
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Forge(error) => error.is_passing(),
            Self::Deploy(error) => !matches!(error, DeployError::NoSuchCommit(_)),
        }
    }
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Nothing is done about it.
    Ignored(String),
    /// The head is as it was.
    Unchanged,
    /// It is closed, and what was made for it is gone.
    Closed,
    /// The forge was told the plan.
    Planned {
        /// Whether the tree is valid.
        valid: bool,
        /// As beside the commit.
        summary: String,
    },
}

/// A pull request's newest commit, in a repository of ours.
#[derive(Clone)]
struct Head {
    repository: Arc<GitRepository>,
    commit: CommitId,
    prefix: String,
}

impl Pulls {
    /// None is looked at before it is told of.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        sources: Arc<Sources>,
        previews: Arc<Previews>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            sources,
            previews,
            once: Once::default(),
        })
    }

    /// Tells what could not be told before the last stop, and the forges of each deployment.
    pub async fn run(self: Arc<Self>) {
        let finished = self.sources.subscribe();
        for deployer in self.sources.all() {
            if deployer.source().forge.is_none() {
                continue;
            }
            match self.store.open_pulls(deployer.source().id).await {
                Ok(pulls) => {
                    for pull in pulls {
                        if pull.stale || pull.reported_head.as_ref() != Some(&pull.head) {
                            self.report_later(&deployer.source().name, pull.number);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(source = %deployer.source().name, %error, "its pull requests cannot be read");
                }
            }
        }
        self.follow_deployments(finished).await;
    }

    /// Takes up what an event says; what is to be told is told in the background.
    pub(crate) async fn event(
        self: &Arc<Self>,
        deployer: &Arc<Deployer>,
        repository: String,
        event: PullEvent,
    ) -> Result<Reported, PullError> {
        let source = deployer.source();
        if !deployer.deploys(&format!("refs/heads/{}", event.base)) {
            let why = format!("`{}` is not the branch that is deployed", event.base);
            return Ok(Reported::Ignored(why));
        }
        let known = self.store.pull(source.id, event.number).await?;
        // Of a head that is known already, an event of the same is no news of it.
        let head = match &known {
            Some(known) if known.head.starts_with(&event.head) => known.head.clone(),
            _ => event.head,
        };
        let pull = PullRecord {
            source: source.id,
            number: event.number,
            repository,
            title: event.title,
            head_branch: event.head_branch,
            fork: event.fork,
            fork_url: event.fork_url,
            open: event.open,
            head,
            reported_head: None,
            approved_head: None,
            comment_id: None,
            comment_digest: None,
            stale: false,
        };
        self.store.put_pull(&pull, self.clock.now()).await?;
        if !pull.open {
            if event.merged
                && self
                    .store
                    .review_pull(source.id, event.number, self.clock.now())
                    .await?
            {
                // A commit of that plan that is held goes now.
                deployer.kick();
            }
            self.previews.wake();
            return Ok(Reported::Closed);
        }
        match self.report(&source.name, pull.number).await {
            Err(error) if error.is_passing() => {
                self.report_later(&source.name, pull.number);
                Err(error)
            }
            done => done,
        }
    }

    /// Tells the forge later, and again until it is told.
    pub(crate) fn report_later(self: &Arc<Self>, source: &SourceName, number: i64) {
        let (pulls, source) = (Arc::clone(self), source.clone());
        tokio::spawn(async move {
            let mut wait = BACKOFF;
            for _ in 0..TRIES {
                match pulls.report(&source, number).await {
                    Ok(_) => return,
                    Err(error) if error.is_passing() => {
                        let asked = match &error {
                            PullError::Forge(ForgeError::Limited { wait }) => *wait,
                            _ => Duration::ZERO,
                        };
                        tracing::info!(%source, number, %error, "the forge is told of the pull request later");
                        tokio::time::sleep(wait.max(asked)).await;
                        wait = (wait * 2).min(LONGEST);
                    }
                    Err(error) => {
                        tracing::warn!(%source, number, %error, "the forge cannot be told of a pull request");
                        return;
                    }
                }
            }
        });
    }

    /// Tells the forge the plan of a pull request's head, unless it was told.
    pub(crate) async fn report(
        &self,
        source: &SourceName,
        number: i64,
    ) -> Result<Reported, PullError> {
        let Some(deployer) = self.sources.get(source) else {
            return Ok(Reported::Ignored("the source is gone".to_owned()));
        };
        let record = deployer.source();
        let _turn = self.once.turn(record.id, &format!("pull {number}")).await;
        let Some(pull) = self.store.pull(record.id, number).await? else {
            return Ok(Reported::Ignored(
                "there is no such pull request".to_owned(),
            ));
        };
        let told = pull.reported_head.as_ref() == Some(&pull.head);
        if !pull.open || told && !pull.stale {
            return Ok(Reported::Unchanged);
        }
        let Some(settings) = &record.forge else {
            return Ok(Reported::Ignored("the source has no forge".to_owned()));
        };
        let forge = forge::open(settings, &record.url, &self.clock)?;
        let head = find_head(&deployer, forge.as_ref(), &pull).await?;
        let commit = head.commit.clone();
        if commit.as_str() != pull.head {
            self.store.set_pull_head(&pull, commit.as_str()).await?;
            if pull.reported_head.as_deref() == Some(commit.as_str()) && !pull.stale {
                return Ok(Reported::Unchanged);
            }
        }
        if told && self.is_as_told(&deployer, &pull, &head).await? {
            return Ok(Reported::Unchanged);
        }
        let names = self.store.forge_names(record.id).await?;
        let status = |state, description: String| CommitStatus {
            context: CONTEXT,
            state,
            description,
            url: names
                .public_url
                .as_ref()
                .map(|url| format!("{url}/dashboard/")),
        };
        let pending = status(CommitState::Pending, "planning".to_owned());
        let repository = pull.repository.clone();
        forge.set_status(&repository, &commit, &pending).await?;
        let review = review(&deployer, head).await?;
        let valid = !review.has_errors();
        let pull = PullRecord {
            head: commit.as_str().to_owned(),
            ..pull
        };
        let shown = self.previews.of_pull(&deployer, &pull).await?;
        let shown = shown.markdown(source, names.public_url.as_deref());
        self.comment(forge.as_ref(), source, &pull, &review, &shown)
            .await?;
        let summary = if valid {
            render::summary(&review)
        } else {
            render::count(&review.errors)
        };
        let state = if valid {
            CommitState::Success
        } else {
            CommitState::Failure
        };
        let done = status(state, summary.clone());
        forge.set_status(&repository, &commit, &done).await?;
        let hash = valid.then_some(review.hash.as_str());
        self.store
            .set_pull_reported(&pull, commit.as_str(), hash)
            .await?;
        tracing::info!(%source, number, %commit, valid, "a pull request was planned");
        Ok(Reported::Planned { valid, summary })
    }

    /// Whether a plan that is made anew says what the comment says.
    async fn is_as_told(
        &self,
        deployer: &Arc<Deployer>,
        pull: &PullRecord,
        head: &Head,
    ) -> Result<bool, PullError> {
        let review = review(deployer, head.clone()).await?;
        let source = &deployer.source().name;
        let names = self.store.forge_names(pull.source).await?;
        let shown = self.previews.of_pull(deployer, pull).await?;
        let shown = shown.markdown(source, names.public_url.as_deref());
        let same = pull.comment_digest.as_ref() == Some(&digest(&review, &shown));
        if same {
            let hash = (!review.has_errors()).then_some(review.hash.as_str());
            self.store
                .set_pull_reported(pull, head.commit.as_str(), hash)
                .await?;
        }
        Ok(same)
    }

    async fn comment(
        &self,
        forge: &dyn Forge,
        source: &SourceName,
        pull: &PullRecord,
        review: &Review,
        preview: &str,
    ) -> Result<(), PullError> {
        let text = render::markdown(review) + preview;
        let comment = Comment {
            source: source.to_string(),
            digest: digest(review, preview),
            text,
        };
        let same = pull.comment_digest.as_ref() == Some(&comment.digest);
        if same && pull.comment_id.is_some() {
            return Ok(());
        }
        let known = pull.comment_id.as_deref();
        let id = keep_comment(forge, &pull.repository, pull.number, known, &comment).await?;
        self.store
            .set_pull_comment(pull, &id, &comment.digest)
            .await?;
        Ok(())
    }
}

/// Of what a comment says, but for the fire times, which every moment makes anew.
fn digest(review: &Review, preview: &str) -> String {
    let errors = serde_json::to_vec(&review.errors).unwrap_or_default();
    let digest = Sha256::new()
        .chain_update(&review.hash)
        .chain_update(errors)
        .chain_update(preview)
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fetches a pull request's head, from a fork where it comes from one.
async fn find_head(
    deployer: &Deployer,
    forge: &dyn Forge,
    pull: &PullRecord,
) -> Result<Head, PullError> {
    let own = format!("refs/picloud/pulls/{}", pull.number);
    let origin = deployer.origin();
    let mut fetched = false;
    if let Origin::Remote(mirror, _) = origin {
        let branch = format!("refs/heads/{}", pull.head_branch);
        let from_web = |url: &&str| url.starts_with("https://") || url.starts_with("http://");
        let asked = match (forge.pull_reference(pull.number), &pull.fork) {
            (Some(reference), _) => Some((None, reference)),
            // What a stranger's fork says where it is, is an address of the web or nothing.
            (None, Some(_)) => {
                let url = pull.fork_url.as_deref().filter(from_web);
                url.map(|url| (Some(url), branch))
            }
            (None, None) => None,
        };
        if let Some((from, reference)) = asked {
            let done = mirror.fetch_reference(from, &reference, &own).await;
            fetched = done.is_ok();
            if let Err(error) = done {
                tracing::debug!(%error, reference, "the head is looked for among the branches");
            }
        }
    }
    let path = if fetched {
        origin.at_rest()?
    } else {
        origin.refresh().await?
    };
    let told = pull.head.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let repository = GitRepository::open(&path)?;
        let told = repository.resolve(&told)?;
        let there = if fetched {
            repository.resolve(&own)?
        } else {
            None
        };
        // The reference is what the forge says now; an event may be late, or be the first to know.
        let commit = match (told, there) {
            (Some(told), Some(there)) if repository.is_ancestor(&there, &told)? => Some(told),
            (told, there) => there.or(told),
        };
        Ok::<_, GitError>((Arc::new(repository), commit, path.prefix))
    });
    let (repository, commit, prefix) = opened
        .await
        .map_err(|error| DeployError::Unexpected(error.to_string()))??;
    let commit = commit.ok_or_else(|| DeployError::NoSuchCommit(pull.head.clone()))?;
    Ok(Head {
        repository,
        commit,
        prefix,
    })
}

/// Plans a head against what is live.
async fn review(deployer: &Deployer, head: Head) -> Result<Review, PullError> {
    let (git, id) = (Arc::clone(&head.repository), head.commit);
    let read = tokio::task::spawn_blocking(move || git.commit(&id));
    let commit = read
        .await
        .map_err(|error| DeployError::Unexpected(error.to_string()))??;
    let (plan, loaded) = deployer
        .plan_commit(Arc::clone(&head.repository), commit.tree, head.prefix)
        .await?;
    Ok(deployer.review(&plan, &loaded, head.repository).await?)
}
