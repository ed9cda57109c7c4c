//! What starts a run other than a request.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    app::{TriggerKind, TriggerSpec},
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

/// The own part of an event that somebody has fired by hand: what a real one would have. `id` is
/// that of the document or dead letter that there might be.
pub fn fired_detail(trigger: &TriggerSpec, now: DateTime<Utc>, id: Uuid) -> Value {
    let plain = |pattern: &str| pattern.trim_end_matches('*').to_owned();
    match &trigger.kind {
        TriggerKind::Cron { .. } => cron_detail(trigger, now, now),
        TriggerKind::Kv { collection, events } => json!({
            "collection": plain(collection), "key": "", "op": events.last(), "value": null, "previous": null,
        }),
        TriggerKind::Docs { collection, events } => json!({
            "collection": plain(collection), "id": id, "op": events.first(), "document": null, "previous": null,
        }),
        TriggerKind::DeadLetter { source_kind } => json!({
            "id": id, "source_kind": source_kind.as_deref().unwrap_or("enqueue"), "trigger": null,
            "script": trigger.script, "attempts": 1, "last_error": null, "event": null,
        }),
    }
}

/// The own part of a cron trigger's event, where no firing was missed.
pub fn cron_detail(trigger: &TriggerSpec, scheduled: DateTime<Utc>, fired: DateTime<Utc>) -> Value {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let (schedule, timezone) = match &trigger.kind {
        TriggerKind::Cron {
            schedule, timezone, ..
        } => (schedule.as_str(), timezone.as_str()),
        _ => ("", ""),
    };
    json!({
        "scheduled_at": time(scheduled), "fired_at": time(fired), "schedule": schedule, "timezone": timezone,
        "missed": 0,
    })
}
