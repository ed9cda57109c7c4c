//! What a commit would change. Decided by the planner (gitops-core), carried out by the store,
//! and shown to the pusher, the reviewer and the dashboard from this same value.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    app::AppSpec,
    diagnostic::Diagnostic,
    drift::DamagedItem,
    ids::{AppId, SourceId},
    names::{AppName, BlobId, CommitId},
};

/// Which live state a plan was made from. `generation` counts what was applied; `edits` counts
/// changes to the live configuration by anything but an apply.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LiveVersion {
    /// Rises by one with each applied deployment.
    pub generation: i64,
    /// Rises with each change by API or SQL.
    pub edits: i64,
}

/// An app as PostgreSQL holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveApp {
    /// Kept for as long as the app exists.
    pub id: AppId,
    /// Who owns it.
    pub source: SourceId,
    /// Where the app stays while newer commits of it are invalid.
    pub pinned_commit: Option<CommitId>,
    /// Its configuration, without the rows that can't be read.
    pub spec: Arc<AppSpec>,
    /// The rows that can't be read.
    pub damaged: Vec<DamagedItem>,
}

/// Everything that PostgreSQL holds as live, over all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveState {
    /// What a plan made from this names as its parent.
    pub version: LiveVersion,
    /// By name.
    pub apps: BTreeMap<AppName, LiveApp>,
    /// Contents that were changed by hand: the database holds them under another's id.
    pub edited: BTreeSet<BlobId>,
}

/// What a commit of one source declares: the valid apps, and those that stay as they are because
/// this commit's version of them is invalid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Valid apps by name.
    pub apps: BTreeMap<AppName, Arc<AppSpec>>,
    /// Apps that have errors: known by folder, and by name where the name could be read.
    pub invalid: Vec<InvalidApp>,
    /// Where the names of the valid apps stand, for what is said of them later.
    pub names: BTreeMap<AppName, NamePlace>,
    /// Where their domains stand.
    pub domains: BTreeMap<String, NamePlace>,
}

/// Where an app's name or domain stands in its manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamePlace {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Characters.
    pub length: u32,
    /// The line.
    pub excerpt: Option<String>,
}

/// An app whose declaration has errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidApp {
    /// From the repository's root.
    pub dir: String,
    /// Where it could be read.
    pub name: Option<AppName>,
}

/// What applying would do. Planning again after applying yields an empty plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Applying checks that this is still the live version.
    pub parent: LiveVersion,
    /// Apps that change, by name.
    pub apps: BTreeMap<AppName, AppPlan>,
    /// Live apps that stay at the commit they are at, because this commit's version is invalid.
    pub kept: Vec<AppName>,
    /// Live apps that were kept back by an earlier commit and are valid (again) in this one.
    pub released: Vec<AppName>,
    /// What the planner found: an app of another source's name and the like.
    pub errors: Vec<Diagnostic>,
}

impl Plan {
    /// Whether applying would change no app.
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// All changes in the order they are shown: by app, then by kind, then by name.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.apps.values().flat_map(|app| app.changes.iter())
    }
}

/// What happens to one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPlan {
    /// Create, update or remove.
    pub action: AppAction,
    /// The state after applying; `None` where the app is removed.
    pub desired: Option<Arc<AppSpec>>,
    /// The state before; `None` where the app is created.
    pub live: Option<Arc<AppSpec>>,
    /// Field by field, never empty.
    pub changes: Vec<Change>,
}

/// What happens to an app as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppAction {
    /// It did not exist (or was pruned and comes back).
    Create,
    /// It exists and differs.
    Update,
    /// Git has it no longer.
    Remove,
}

/// What kind of thing a change is about, in the order they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of app.yaml's keys")]
pub enum ItemKind {
    App,
    Domain,
    Route,
    Trigger,
    Script,
    Static,
    Permission,
    Limit,
    Env,
    Secret,
    Check,
}

/// How a thing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ChangeKind {
    Added,
    Changed,
    Removed,
}

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Whose.
    pub app: AppName,
    /// What kind of thing.
    pub kind: ItemKind,
    /// Which: a route's label, a trigger's name, a script's path, a variable's name, …
    pub name: String,
    /// How.
    pub change: ChangeKind,
    /// The fields that differ. For a thing added or removed: all that are set. A secret's fields
    /// never hold its ciphertext, only a digest of it.
    pub fields: Vec<FieldChange>,
}

/// One field that differs. `null` on a side means the field isn't there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// `schedule`, `retry.attempts`, …
    pub path: String,
    /// Live before the deployment.
    pub old: Value,
    /// Live after it.
    pub new: Value,
}
