//! What is live, brought back into the repository: as a patch, and as a commit on a branch.

use std::{collections::BTreeMap, sync::Arc};

use picloud_gitops_core::{
    LoadOptions,
    adopt::{self, Adopt, Adoption},
};
use picloud_shared::{AppName, AppSpec, BlobId, CommitId, plan::LiveApp};

use super::{DeployError, Deployer, blocking};
use crate::{
    git::{GitRepository, NewCommit, hash_blob},
    origin::Origin,
};

/// An app on both sides, of which live is to be adopted.
#[derive(Debug, Clone)]
pub(crate) struct Sides {
    /// The name that git has for it, or live where git has none.
    pub(crate) name: AppName,
    /// What the last applied commit declares.
    pub(crate) desired: Option<Arc<AppSpec>>,
    /// What is live.
    pub(crate) live: Option<LiveApp>,
}

/// What adopting takes.
#[derive(Debug, Clone)]
pub(crate) struct Adopted {
    /// The commit that the change is for.
    pub(crate) base: CommitId,
    /// The change.
    pub(crate) adoption: Adoption,
    /// As `git apply` takes it; empty where nothing can be changed.
    pub(crate) patch: Vec<u8>,
}

/// A change that is to be committed.
#[derive(Debug, Clone)]
pub(crate) struct OnBranch {
    pub(crate) branch: String,
    pub(crate) author: String,
    pub(crate) message: String,
}

/// Why nothing can be adopted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    /// The repository, or the database.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// Nothing was applied yet.
    #[error("nothing of the source is deployed yet")]
    NothingApplied,
    /// Its files declare another app.
    #[error("a preview is not adopted: its files are those of the app that it shows")]
    Preview,
    /// Nobody may write there.
    #[error("{0}")]
    NotHere(&'static str),
    /// It isn't a name, or the wrong one.
    #[error("{0}")]
    Branch(String),
    /// Somebody was faster.
    #[error("the branch `{0}` was moved meanwhile; try again")]
    Moved(String),
}

impl From<picloud_store::StoreError> for AdoptError {
    fn from(error: picloud_store::StoreError) -> Self {
        Self::Deploy(error.into())
    }
}

impl From<crate::git::GitError> for AdoptError {
    fn from(error: crate::git::GitError) -> Self {
        Self::Deploy(error.into())
    }
}

impl Deployer {
    /// The change of the last applied commit that makes it declare what is live.
    pub(crate) async fn adoption(&self, sides: Sides) -> Result<Adopted, AdoptError> {
        let base = self.applied().await?;
        let repository = self.repository_at_rest().await?;
        self.adoption_on(&repository, base, sides).await
    }

    /// Commits what is live to a branch: a new one from the last applied commit, or on top of one
    /// that is there. Gives the commit, or `None` where there is nothing to be changed.
    pub(crate) async fn adopt(
        &self,
        sides: Sides,
        target: OnBranch,
    ) -> Result<(Adopted, Option<CommitId>), AdoptError> {
        if !matches!(self.origin, Origin::Local(..) | Origin::Hosted(_)) {
            return Err(AdoptError::NotHere(
                "only hosted and local repositories are written to; apply the patch where the source comes from",
            ));
        }
        let branch = target.branch.clone();
        if !GitRepository::is_branch_name(&branch) {
            return Err(AdoptError::Branch(format!(
                "`{branch}` is no name of a branch"
            )));
        }
        let base = self.applied().await?;
        let repository = self.repository_at_rest().await?;
        let (git, deployed) = (
            Arc::clone(&repository),
            self.origin.branch(&self.source).map(str::to_owned),
        );
        let wanted = branch.clone();
        let (tip, deployed) = blocking(move || {
            // What a work tree has checked out is not moved under it either.
            let checked_out = git.checked_out().unwrap_or_default();
            let is_own =
                deployed.as_deref() == Some(&wanted) || checked_out.as_deref() == Some(&wanted);
            Ok::<_, AdoptError>((git.branch(&wanted)?, is_own))
        })
        .await??;
        if deployed {
            return Err(AdoptError::Branch(format!(
                "`{branch}` is what is deployed or checked out; name another branch, and merge it"
            )));
        }
        let parent = tip.unwrap_or(base);
        let adopted = self.adoption_on(&repository, parent.clone(), sides).await?;
        if adopted.adoption.files.is_empty() || !adopted.adoption.errors.is_empty() {
            return Ok((adopted, None));
        }
        let (files, path) = (adopted.adoption.files.clone(), self.origin.at_rest()?);
        let made = blocking(move || {
            // Opened anew: the other one keeps what it writes to itself.
            let repository = GitRepository::open(&path)?;
            let new = NewCommit {
                parent: &parent,
                branch: &target.branch,
                author: &target.author,
                message: &target.message,
            };
            Ok::<_, AdoptError>(repository.commit_files(&new, &files)?)
        })
        .await??;
        match made {
            Some(commit) => Ok((adopted, Some(commit))),
            None => Err(AdoptError::Moved(branch)),
        }
    }

    async fn applied(&self) -> Result<CommitId, AdoptError> {
        if matches!(self.origin, Origin::Preview(_)) {
            return Err(AdoptError::Preview);
        }
        if matches!(self.origin, Origin::WorkTree(_)) {
            return Err(AdoptError::NotHere(
                "`picloud dev` deploys what is saved; change the files",
            ));
        }
        let source = self.options.store.source(&self.source.name).await?;
        let commit = source.and_then(|source| source.live_commit);
        commit.ok_or(AdoptError::NothingApplied)
    }

    async fn repository_at_rest(&self) -> Result<Arc<GitRepository>, AdoptError> {
        let path = self.origin.at_rest()?;
        let opened = blocking(move || GitRepository::open(&path)).await??;
        Ok(Arc::new(opened))
    }

    async fn adoption_on(
        &self,
        repository: &Arc<GitRepository>,
        base: CommitId,
        sides: Sides,
    ) -> Result<Adopted, AdoptError> {
        let wanted = adopt::wanted_contents(sides.desired.as_deref(), sides.live.as_ref());
        let contents: BTreeMap<BlobId, Vec<u8>> = self.options.store.held_contents(&wanted).await?;
        let (git, commit) = (Arc::clone(repository), base.clone());
        let (source, prefix) = (self.source.id, self.origin.prefix().to_owned());
        let checker = Arc::clone(&self.options.checker);
        let secrets = self.options.secrets.clone();
        let made = blocking(move || {
            let tree = git.commit(&commit).map_err(DeployError::from)?.tree;
            let options = LoadOptions {
                path: &prefix,
                checker: checker.as_ref(),
                secrets: secrets.as_deref(),
            };
            let ask = Adopt {
                reader: git.as_ref(),
                root: &tree,
                source,
                name: &sides.name,
                desired: sides.desired.as_deref(),
                live: sides.live.as_ref(),
                contents: &contents,
                hash: &hash_blob,
            };
            let adoption = adopt::adopt(&ask, &options)?;
            let patch = if adoption.errors.is_empty() && !adoption.files.is_empty() {
                git.patch(&tree, &adoption.files)
                    .map_err(DeployError::from)?
            } else {
                Vec::new()
            };
            Ok::<_, DeployError>((adoption, patch))
        });
        let (adoption, patch) = made.await??;
        Ok(Adopted {
            base,
            adoption,
            patch,
        })
    }
}
