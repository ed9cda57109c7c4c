//! What a node serves: immutable, swapped whole.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    app::{AppSpec, ScriptKind},
    ids::{AppId, SourceId},
    names::{AppName, BlobId, CommitId, ScriptPath, SourceName},
};

/// All that a node serves. Requests hold the snapshot that they began on.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The generation it was loaded at.
    pub generation: i64,
    /// By name. Apps that did not change are the same allocation as in the snapshot before.
    pub apps: BTreeMap<AppName, Arc<AppSnapshot>>,
    /// By id: where the source's valid apps are.
    pub sources: BTreeMap<SourceId, SourceSnapshot>,
}

impl Snapshot {
    /// The commit of an app: where it is kept back, or else its source's.
    pub fn commit_of<'a>(&'a self, app: &'a AppSnapshot) -> Option<&'a CommitId> {
        app.pinned_commit
            .as_ref()
            .or_else(|| self.sources.get(&app.source).map(|source| &source.commit))
    }
}

/// A source, as far as serving needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSnapshot {
    /// Its name.
    pub name: SourceName,
    /// The commit that is live.
    pub commit: CommitId,
}

/// One app, ready to be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSnapshot {
    /// Its id.
    pub id: AppId,
    /// Who owns it.
    pub source: SourceId,
    /// The generation at which it last changed.
    pub generation: i64,
    /// Where it is kept back because newer commits of it are invalid.
    pub pinned_commit: Option<CommitId>,
    /// Its configuration.
    pub spec: Arc<AppSpec>,
    /// Sources of all its scripts, by path.
    pub scripts: BTreeMap<ScriptPath, Arc<ScriptSource>>,
}

/// A script's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptSource {
    /// Below the app.
    pub path: ScriptPath,
    /// Handler or module.
    pub kind: ScriptKind,
    /// What the text is addressed by.
    pub blob: BlobId,
    /// At most 256 KiB.
    pub text: Arc<str>,
}
