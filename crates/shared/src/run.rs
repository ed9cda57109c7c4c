//! The record of one execution of a script.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{AppId, RunId},
    names::{AppName, CommitId, ScriptPath, TriggerName},
    redact::Redactor,
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// It gave a value.
    Ok,
    /// It threw, or answered with what cannot be sent.
    Failed,
    /// Its time was up.
    Timeout,
    /// It exceeded memory, operations, depth or output.
    Limit,
    /// The process that ran it died.
    Crashed,
    /// A firing that was passed over while the last run was still going.
    Skipped,
    /// There was no room for it.
    Rejected,
}

impl RunStatus {
    /// All, in the order of their numbers in counters.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Failed,
        Self::Timeout,
        Self::Limit,
        Self::Crashed,
        Self::Skipped,
        Self::Rejected,
    ];

    /// The word that stands in the API and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Limit => "limit",
            Self::Crashed => "crashed",
            Self::Skipped => "skipped",
            Self::Rejected => "rejected",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the contract")]
pub enum RunKind {
    Http,
    Cron,
    Kv,
    Docs,
    DeadLetter,
    Invoke,
    Enqueue,
}

impl RunKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Http,
        Self::Cron,
        Self::Kv,
        Self::Docs,
        Self::DeadLetter,
        Self::Invoke,
        Self::Enqueue,
    ];

    /// The word that stands in the API and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Cron => "cron",
            Self::Kv => "kv",
            Self::Docs => "docs",
            Self::DeadLetter => "dead_letter",
            Self::Invoke => "invoke",
            Self::Enqueue => "enqueue",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One line that a script logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: DateTime<Utc>,
    /// How bad.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// The map that was given with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Value>,
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Why a run did not end well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// Stable word: `script`, `compile`, `answer`, `timeout`, `memory`, `operations`, `depth`, `output`,
    /// `crashed`, `overloaded`, `unavailable`, `cancelled`.
    pub kind: RunErrorKind,
    /// For the owner of the script, never for its client.
    pub message: String,
    /// The script or module in which it happened.
    pub script: Option<ScriptPath>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1.
    pub column: Option<u32>,
    /// The calls that led there, innermost first: `function (script:line)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

/// The kinds of errors of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunErrorKind {
    /// The script threw, or an operation of it failed.
    Script,
    /// There is nothing that could run: the script does not compile, it or a module is missing.
    Compile,
    /// Its value can't be sent: NaN, a function, an impossible status, CR or LF in a header.
    Answer,
    /// `limits.timeout`.
    Timeout,
    /// `limits.memory`.
    Memory,
    /// `limits.operations`.
    Operations,
    /// Calls or values nested too deeply.
    Depth,
    /// `limits.response_body`, or a string, array or map of an impossible size.
    Output,
    /// The process that ran it died.
    Crashed,
    /// Its script made several processes die, and is not run for a while.
    #[serde(rename = "held_back")]
    HeldBack,
    /// There was no room.
    Overloaded,
    /// The database, or something else that the run needs, is away.
    Unavailable,
    /// The client went away, or the node is stopping.
    Cancelled,
}

impl RunErrorKind {
    /// The status of a run that ended so.
    pub fn status(self) -> RunStatus {
        match self {
            Self::Script | Self::Compile | Self::Answer | Self::Unavailable | Self::Cancelled => {
                RunStatus::Failed
            }
            Self::Timeout => RunStatus::Timeout,
            Self::Memory | Self::Operations | Self::Depth | Self::Output => RunStatus::Limit,
            Self::Crashed | Self::HeldBack => RunStatus::Crashed,
            Self::Overloaded => RunStatus::Rejected,
        }
    }

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Compile => "compile",
            Self::Answer => "answer",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Operations => "operations",
            Self::Depth => "depth",
            Self::Output => "output",
            Self::Crashed => "crashed",
            Self::HeldBack => "held_back",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The record of a run, as history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// UUIDv7.
    pub id: RunId,
    /// The app's id.
    #[serde(skip_serializing)]
    pub app_id: AppId,
    /// The app's name.
    pub app: AppName,
    /// The handler.
    pub script: ScriptPath,
    /// What started it.
    pub kind: RunKind,
    /// The trigger behind it.
    pub trigger: Option<TriggerName>,
    /// The route's label, for requests.
    pub route: Option<String>,
    /// The commit it ran on.
    pub commit: CommitId,
    /// From 1.
    pub attempt: u32,
    /// How it ended.
    pub status: RunStatus,
    /// When the script began.
    pub started_at: DateTime<Utc>,
    /// How long it ran.
    pub duration_ms: f64,
    /// How long it waited before it ran.
    pub queue_ms: f64,
    /// Operations of the engine.
    pub operations: u64,
    /// The most bytes that it held at once.
    pub peak_memory: u64,
    /// Why it did not end well.
    pub error: Option<RunError>,
    /// What it logged.
    pub logs: Vec<LogLine>,
    /// Lines that did not fit.
    pub dropped_logs: u64,
    /// The run that caused it.
    pub cause: Option<RunId>,
    /// The request (method, path, status) or the event, as JSON.
    pub input: Value,
}

impl RunRecord {
    /// Takes secrets out of all that is shown of it.
    pub fn redact(&mut self, secrets: &Redactor) {
        if secrets.is_empty() {
            return;
        }
        secrets.json(&mut self.input);
        for line in &mut self.logs {
            secrets.replace(&mut line.message);
            if let Some(fields) = &mut line.fields {
                secrets.json(fields);
            }
        }
        if let Some(error) = &mut self.error {
            secrets.replace(&mut error.message);
        }
    }
}
