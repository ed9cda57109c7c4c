//! Apps as former commits have them, read from git: what a replay runs on that is pinned to its
//! original commit.

use std::sync::Arc;

use picloud_shared::{
    AppSnapshot, CommitId,
    executor::{FormerApps, FormerFuture},
};

use crate::sources::Sources;

/// Reads former commits of the sources of this process.
pub struct Former(pub Arc<Sources>);

impl FormerApps for Former {
    fn app<'a>(&'a self, live: &'a AppSnapshot, commit: &'a CommitId) -> FormerFuture<'a> {
        Box::pin(async move {
            let sources = self.0.all();
            let owner = sources
                .iter()
                .find(|deployer| deployer.source().id == live.source);
            let owner = owner.ok_or("the app's source is not deployed by this node")?;
            let found = owner.app_at(live, commit).await;
            let found = found.map_err(|error| error.to_string())?;
            found
                .map(Arc::new)
                .ok_or_else(|| format!("the commit {commit} has no valid app `{}`", live.spec.name))
        })
    }
}
