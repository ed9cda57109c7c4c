//! What starts a run other than a request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{EventId, RunId},
    names::TriggerName,
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
