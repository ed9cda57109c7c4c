//! Where live differs from what git declares.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    app::AppSpec,
    ids::AppId,
    names::CommitId,
    plan::{ChangeKind, ItemKind},
};

/// An app as the last applied commit declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredApp {
    /// The app's id when it was applied; finds it again under another name.
    pub id: AppId,
    /// Where it stays while newer commits of it are invalid.
    pub pinned_commit: Option<CommitId>,
    /// What is declared there.
    pub spec: Arc<AppSpec>,
}

/// A row of the live configuration that says nothing PiCloud could act on: it counts as absent for
/// serving, and differs from whatever git declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedItem {
    /// What kind of thing.
    pub kind: ItemKind,
    /// Which.
    pub name: String,
    /// What the row holds, in the form that a sound one has.
    pub fields: Value,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftItem {
    /// What kind of thing.
    pub kind: ItemKind,
    /// Which: a route's label, a trigger's name, a script's path, …
    pub name: String,
    /// `added`: live has what git lacks; `removed`: git has what live lacks.
    pub change: ChangeKind,
    /// The fields that differ, never none. A secret's hold a digest, never its ciphertext.
    pub fields: Vec<DriftField>,
}

/// One field that differs; `null` on a side means that it isn't there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftField {
    /// `schedule`, `retry.attempts`, …
    pub path: String,
    /// What git declares.
    pub desired: Value,
    /// What is live.
    pub live: Value,
}
