//! Where a source's commits come from. Whatever it is, what is deployed from is a git object
//! database on this machine.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use picloud_store::SourceRecord;

use crate::{
    git::{GitError, LocalPath},
    mirror::Mirror,
    previews::PreviewOrigin,
    watch::{Pause, RefWatch},
    work_tree::WorkTree,
};

/// Where a source's commits come from.
pub enum Origin {
    /// A repository on this machine that somebody else keeps.
    Local(PathBuf, String),
    /// A repository of ours that is pushed to.
    Hosted(LocalPath),
    /// A repository elsewhere, fetched into one of ours.
    Remote(Arc<Mirror>, String),
    /// The files of a folder as they are saved (`picloud dev`).
    WorkTree(Arc<WorkTree>),
    /// A branch of another source's repository.
    Preview(Arc<PreviewOrigin>),
}

/// What tells that there may be something new.
pub enum Watch {
    /// References changed.
    Refs(RefWatch, Option<Identity>, PathBuf),
    /// Files changed.
    Files(Arc<WorkTree>),
    /// It is time to fetch again.
    Timer(Arc<Mirror>),
    /// There is nothing to watch; what comes in its place is.
    Missing,
}

/// Which folder a path leads to: another one after it was replaced.
type Identity = (u64, u64);

impl Origin {
    /// The origin of a local source, by the path that names it.
    pub fn local(path: &Path) -> Result<Self, GitError> {
        let found = LocalPath::find(path)?;
        Ok(Self::Local(path.to_owned(), found.prefix))
    }

    /// Brings the object database up to date, and tells where it is.
    pub(crate) async fn refresh(&self) -> Result<LocalPath, GitError> {
        match self {
            Self::Local(..) | Self::Hosted(_) | Self::Preview(_) => self.at_rest(),
            Self::Remote(mirror, prefix) => mirror.fetch(prefix).await,
            Self::WorkTree(tree) => tree.commit().await,
        }
    }

    /// Where the object database is, as it is now.
    pub(crate) fn at_rest(&self) -> Result<LocalPath, GitError> {
        Ok(match self {
            Self::Local(path, prefix) => LocalPath {
                prefix: prefix.clone(),
                ..LocalPath::find(path)?
            },
            Self::Hosted(path) => path.clone(),
            Self::Remote(mirror, prefix) => mirror.at_rest(prefix)?,
            Self::WorkTree(tree) => tree.at_rest(),
            Self::Preview(origin) => origin.at_rest()?,
        })
    }

    /// The branch that is deployed; `None`: the one that is checked out.
    pub(crate) fn branch<'s>(&self, source: &'s SourceRecord) -> Option<&'s str> {
        match self {
            Self::Local(..) => source.branch.as_deref(),
            Self::Hosted(_) | Self::Remote(..) => Some(source.branch.as_deref().unwrap_or("main")),
            Self::WorkTree(_) | Self::Preview(_) => None,
        }
    }

    /// What is said where the branch isn't there; `None`: it may well come, as the first push does.
    pub(crate) fn lacks_branch(&self, source: &SourceRecord) -> Option<String> {
        let whose = match self {
            Self::Local(..) => "repository",
            Self::Remote(..) => "remote",
            Self::Hosted(_) | Self::WorkTree(_) | Self::Preview(_) => return None,
        };
        let branch = self.branch(source)?;
        Some(if branch.starts_with("refs/") {
            format!("the {whose} has no `{branch}`")
        } else {
            format!("the {whose} has no branch `{branch}`")
        })
    }

    /// The source's path below the repository's root.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::Local(_, prefix) | Self::Remote(_, prefix) => prefix,
            Self::Hosted(path) => &path.prefix,
            Self::WorkTree(tree) => tree.prefix(),
            Self::Preview(origin) => origin.prefix(),
        }
    }

    /// The longest wait before something that failed is tried again. A remote that is away isn't
    /// asked more often than it would be if it were there, within reason.
    pub(crate) fn longest_backoff(&self) -> Duration {
        let shortest = Duration::from_secs(10);
        match self {
            Self::Remote(mirror, _) => mirror.interval().clamp(shortest, Duration::from_mins(1)),
            _ => shortest,
        }
    }

    /// Takes up what a commit that was read says about being fetched.
    pub(crate) fn declare_interval(&self, ms: u64) {
        if let Self::Remote(mirror, _) = self {
            mirror.declare_interval(ms);
        }
    }

    /// Whether commits follow one another; saved files don't.
    pub(crate) fn has_history(&self) -> bool {
        !matches!(self, Self::WorkTree(_) | Self::Preview(_))
    }

    /// Begins to watch.
    pub(crate) fn watch(&self) -> Watch {
        match self {
            Self::Local(path, _) => match LocalPath::find(path) {
                Ok(found) => Watch::refs(&found),
                Err(_) => Watch::Missing,
            },
            Self::Hosted(path) => Watch::refs(path),
            Self::Remote(mirror, _) => Watch::Timer(Arc::clone(mirror)),
            Self::WorkTree(tree) => Watch::Files(Arc::clone(tree)),
            Self::Preview(_) => Watch::Missing,
        }
    }

    /// Whether what is watched isn't there any more, or another thing is in its place.
    pub(crate) fn is_stale(watch: &Watch) -> bool {
        match watch {
            Watch::Refs(_, before, path) => identity(path) != *before,
            Watch::Files(_) | Watch::Timer(_) => false,
            Watch::Missing => true,
        }
    }
}

impl Watch {
    fn refs(path: &LocalPath) -> Self {
        let refs = path.common_dir.join("refs");
        // Read first: what is put in its place afterwards is another.
        let before = identity(&refs);
        Self::Refs(RefWatch::new(path), before, refs)
    }

    /// Waits until there may be something new.
    pub(crate) async fn changed(&self) {
        match self {
            Self::Refs(watch, ..) => watch.changed().await,
            Self::Files(tree) => tree.changed().await,
            Self::Timer(mirror) => Pause::with_jitter(mirror.interval()).over().await,
            Self::Missing => std::future::pending().await,
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
