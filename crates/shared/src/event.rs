//! What starts a run other than a request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{EventId, RunId},
    names::{ScriptPath, TriggerName},
    run::RunRecord,
};

/// What kind of cause an event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the contract")]
pub enum EventKind {
    Cron,
    Kv,
    Docs,
    DeadLetter,
    Invoke,
    Enqueue,
    Http,
}

impl EventKind {
    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Cron,
            Self::Kv,
            Self::Docs,
            Self::DeadLetter,
            Self::Invoke,
            Self::Enqueue,
            Self::Http,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }

    /// The word that stands in `ctx.event.kind` and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Kv => "kv",
            Self::Docs => "docs",
            Self::DeadLetter => "dead_letter",
            Self::Invoke => "invoke",
            Self::Enqueue => "enqueue",
            Self::Http => "http",
        }
    }
}

/// How many runs may cause one another; the next event is a dead letter.
pub const MAX_CHAIN: usize = 16;

/// One run of a chain of causes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The run.
    pub run: RunId,
    /// What it ran.
    pub script: ScriptPath,
    /// The trigger behind it.
    pub trigger: Option<TriggerName>,
}

impl Link {
    /// The link that a finished run makes.
    pub fn of(record: &RunRecord) -> Self {
        Self {
            run: record.id,
            script: record.script.clone(),
            trigger: record.trigger.clone(),
        }
    }
}

/// What a script sees as `ctx.event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The same on every retry.
    pub id: EventId,
    /// What kind of cause.
    pub kind: EventKind,
    /// From 1.
    pub attempt: u32,
    /// The trigger's name, where one is behind it.
    pub trigger: Option<TriggerName>,
    /// The run that caused it.
    pub cause: Option<RunId>,
    /// The kind's own fields: stands under the kind's name (`ctx.event.cron`), and for `invoke`
    /// and `enqueue` under `payload`.
    pub detail: Value,
}
