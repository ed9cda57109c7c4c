//! Where a preview's commits come from: the repository of the source that it shows a branch of.

use std::sync::Arc;

use parking_lot::Mutex;
use picloud_gitops_core::{Loaded, preview};
use picloud_shared::CommitId;
use picloud_store::{SourceRecord, previews::PreviewRecord};

use crate::{
    git::{GitError, LocalPath},
    reconcile::Deployer,
};

/// A commit of another source's repository, and how it is shown.
pub struct PreviewOrigin {
    parent: Arc<Deployer>,
    head: Mutex<CommitId>,
    slug: String,
    triggers: bool,
}

impl PreviewOrigin {
    pub(super) fn new(parent: &Arc<Deployer>, preview: &PreviewRecord, triggers: bool) -> Self {
        Self {
            parent: Arc::clone(parent),
            head: Mutex::new(preview.head.clone()),
            slug: preview.slug.clone(),
            triggers,
        }
    }

    /// Takes up another commit.
    pub(super) fn follow(&self, head: CommitId) {
        *self.head.lock() = head;
    }

    pub(super) fn has_triggers(&self) -> bool {
        self.triggers
    }

    /// The commit that is shown.
    pub(crate) fn head(&self) -> CommitId {
        self.head.lock().clone()
    }

    /// The source that a branch is shown of.
    pub(crate) fn owner(&self) -> &SourceRecord {
        self.parent.source()
    }

    /// Where the object database is.
    pub(crate) fn at_rest(&self) -> Result<LocalPath, GitError> {
        self.parent.origin().at_rest()
    }

    /// The source's path below the repository's root.
    pub(crate) fn prefix(&self) -> &str {
        self.parent.origin().prefix()
    }

    /// Makes of what the commit declares what a preview declares.
    pub(crate) fn shape(&self, loaded: &mut Loaded) {
        preview::shape(loaded, &self.slug, self.triggers);
    }
}
