//! The record of one commit, planned and applied.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    diagnostic::Diagnostic,
    ids::DeploymentId,
    names::{AppName, CommitId, SourceName},
    plan::Change,
};

/// What became of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentStatus {
    /// Under way.
    Applying,
    /// The commit is live, whole.
    Synced,
    /// Live, but some apps stay at an earlier commit because they are invalid.
    Partial,
    /// Nothing of it is live.
    Failed,
    /// Waits for a person's approval.
    Held,
    /// Waits for a window to open.
    Waiting,
    /// A check failed; the apps went back.
    Reverted,
}

impl DeploymentStatus {
    /// All, in the order of their numbers in counters.
    pub const ALL: [Self; 7] = [
        Self::Applying,
        Self::Synced,
        Self::Partial,
        Self::Failed,
        Self::Held,
        Self::Waiting,
        Self::Reverted,
    ];

    /// The word that stands in the API and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applying => "applying",
            Self::Synced => "synced",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Reverted => "reverted",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// Why there is a deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentReason {
    /// The branch's head is another, or was asked for again.
    #[default]
    Commit,
    /// A person chose a former commit.
    Rollback,
    /// Live differed from the commit that is live.
    Heal,
}

impl DeploymentReason {
    /// The word that stands in the API and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Heal => "heal",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Commit, Self::Rollback, Self::Heal]
            .into_iter()
            .find(|reason| reason.as_str() == word)
    }
}

/// What became of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppOutcome {
    /// Which.
    pub name: AppName,
    /// What became of it.
    pub outcome: Outcome,
    /// The commit that it is at now; `None`: it isn't live.
    pub commit: Option<CommitId>,
}

/// What becomes of an app of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is live as the commit has it.
    Applied,
    /// The commit doesn't have it any more.
    Removed,
    /// It has errors, and stays as it was.
    Invalid,
    /// What it depends on has errors, and it stays as it was.
    Blocked,
    /// It went back, because a check failed: its own, or one of what it depends on.
    Reverted,
}

/// One deployment, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// UUIDv7.
    pub id: DeploymentId,
    /// Whose commit.
    pub source: SourceName,
    /// Full id.
    pub commit: CommitId,
    /// What was live before; `None` for the first.
    pub previous_commit: Option<CommitId>,
    /// `Name <address>`.
    pub author: String,
    /// The commit's message, at most 4 KiB of it.
    pub message: String,
    /// Why there is one.
    #[serde(default)]
    pub reason: DeploymentReason,
    /// What became of it.
    pub status: DeploymentStatus,
    /// When the window opens that it waits for.
    #[serde(default)]
    pub waits_until: Option<DateTime<Utc>>,
    /// Whose signature of the commit was verified, where signatures are.
    #[serde(default)]
    pub signed_by: Option<String>,
    /// What it changed.
    pub changes: Vec<Change>,
    /// What was wrong with it.
    pub errors: Vec<Diagnostic>,
    /// What became of each app; one that is not listed is unchanged.
    #[serde(default)]
    pub apps: Vec<AppOutcome>,
    /// Of what the commit would change, as reviews of it show it; `None` where nothing was planned.
    #[serde(default)]
    pub plan_hash: Option<String>,
    /// Whether the former commit isn't an ancestor of this one.
    #[serde(default)]
    pub history_rewritten: bool,
    /// The generation that it made live; `None` where nothing changed hands.
    pub generation: Option<i64>,
    /// When the commit was seen.
    pub started_at: DateTime<Utc>,
    /// From seeing the commit to serving it; `None` while under way.
    pub duration_ms: Option<f64>,
    /// How long each step took.
    #[serde(default)]
    pub steps: Vec<StepTiming>,
}

/// How long a step of a deployment took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTiming {
    /// `fetch`, `read`, `validate`, `plan`, `apply`, `publish`.
    pub step: String,
    /// Milliseconds.
    pub ms: f64,
}
