//! What happens, told as it happens: to the dashboard, to `picloud logs -f`, to other processes.
//!
//! An event says that something happened and what to look at; whoever wants all of it asks the
//! API. Nothing depends on an event being delivered.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    deployment::{Deployment, DeploymentStatus},
    ids::{DeploymentId, RunId},
    names::{AppName, CommitId, ScriptPath, SourceName, TriggerName},
    run::{LogLine, RunKind, RunRecord, RunStatus},
};

/// Log lines that one event carries; the run's record has them all.
const MAX_LINES: usize = 100;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "lowercase")]
pub enum LiveEvent {
    /// A deployment ended, or came to where it waits for somebody.
    Deployment(DeploymentEvent),
    /// An app drifted, or drifts no longer.
    Drift(DriftEvent),
    /// A run ended, and its record is kept.
    Run(RunEvent),
    /// A trigger was changed live, or fired by hand.
    Trigger(TriggerEvent),
    /// A run logged something.
    Log(LogEvent),
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentEvent {
    /// The deployment.
    pub id: DeploymentId,
    /// Whose commit.
    pub source: SourceName,
    /// Full id.
    pub commit: CommitId,
    /// What became of it.
    pub status: DeploymentStatus,
    /// The apps that it changes or has errors for, each once.
    pub apps: Vec<AppName>,
    /// How many changes it holds.
    pub changes: usize,
    /// How many errors.
    pub errors: usize,
    /// When the commit was seen.
    pub started_at: DateTime<Utc>,
    /// From seeing the commit to serving it.
    pub duration_ms: Option<f64>,
}

impl From<&Deployment> for DeploymentEvent {
    fn from(deployment: &Deployment) -> Self {
        let changed = deployment.changes.iter().map(|change| &change.app);
        let wrong = deployment
            .errors
            .iter()
            .filter_map(|error| error.app.as_ref());
        let mut apps: Vec<AppName> = changed.chain(wrong).cloned().collect();
        apps.sort();
        apps.dedup();
        Self {
            id: deployment.id,
            source: deployment.source.clone(),
            commit: deployment.commit.clone(),
            status: deployment.status,
            apps,
            changes: deployment.changes.len(),
            errors: deployment.errors.len(),
            started_at: deployment.started_at,
            duration_ms: deployment.duration_ms,
        }
    }
}

/// How far an app is from what git declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftEvent {
    /// Whose.
    pub app: AppName,
    /// Whether it drifts now.
    pub drifted: bool,
    /// How many things differ.
    pub items: usize,
    /// When that was seen.
    pub at: DateTime<Utc>,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    /// The run.
    pub id: RunId,
    /// Whose.
    pub app: AppName,
    /// The handler.
    pub script: ScriptPath,
    /// What started it.
    pub kind: RunKind,
    /// The trigger behind it.
    pub trigger: Option<TriggerName>,
    /// The route's label, for requests.
    pub route: Option<String>,
    /// From 1.
    pub attempt: u32,
    /// How it ended.
    pub status: RunStatus,
    /// When the script began.
    pub started_at: DateTime<Utc>,
    /// How long it ran.
    pub duration_ms: f64,
    /// Why it did not end well, in words.
    pub error: Option<String>,
}

impl From<&RunRecord> for RunEvent {
    fn from(record: &RunRecord) -> Self {
        let message = record.error.as_ref().map(|error| &error.message);
        Self {
            id: record.id,
            app: record.app.clone(),
            script: record.script.clone(),
            kind: record.kind,
            trigger: record.trigger.clone(),
            route: record.route.clone(),
            attempt: record.attempt,
            status: record.status,
            started_at: record.started_at,
            duration_ms: record.duration_ms,
            error: message.map(|message| message.chars().take(500).collect()),
        }
    }
}

/// What was done to a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum TriggerAction {
    Created,
    Changed,
    Deleted,
    Fired,
}

/// A trigger that was changed live, or fired by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriggerEvent {
    /// Whose.
    pub app: AppName,
    /// The trigger.
    pub trigger: TriggerName,
    /// What was done.
    pub action: TriggerAction,
    /// When.
    pub at: DateTime<Utc>,
}

/// What a run logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEvent {
    /// The run.
    pub run: RunId,
    /// Whose.
    pub app: AppName,
    /// The handler.
    pub script: ScriptPath,
    /// How many lines it had written before these.
    #[serde(default)]
    pub first: usize,
    /// The lines: as they are written while somebody listens, else the first of them, once its
    /// record is kept.
    pub lines: Vec<LogLine>,
    /// How many more its record has.
    pub more: usize,
}

impl LogEvent {
    /// `None` where the run logged nothing.
    pub fn of(record: &RunRecord) -> Option<Self> {
        if record.logs.is_empty() {
            return None;
        }
        Some(Self {
            run: record.id,
            app: record.app.clone(),
            script: record.script.clone(),
            first: 0,
            lines: record.logs.iter().take(MAX_LINES).cloned().collect(),
            more: record.logs.len().saturating_sub(MAX_LINES),
        })
    }

    /// What is news to somebody who was told of the run's first `told` lines; `None` where
    /// nothing is.
    #[must_use]
    pub fn after(mut self, told: usize) -> Option<Self> {
        let end = self.end();
        let old = told.saturating_sub(self.first).min(self.lines.len());
        self.lines.drain(..old);
        self.first += old;
        if self.lines.is_empty() {
            self.first = self.first.max(told);
            self.more = (end + self.more).saturating_sub(self.first);
        }
        (!self.lines.is_empty() || self.more > 0).then_some(self)
    }

    /// How many lines the run had written after these.
    pub fn end(&self) -> usize {
        self.first + self.lines.len()
    }
}

impl LiveEvent {
    /// The word by which listeners tell events apart.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deployment(_) => "deployment",
            Self::Drift(_) => "drift",
            Self::Run(_) => "run",
            Self::Trigger(_) => "trigger",
            Self::Log(_) => "log",
        }
    }

    /// Whether it is about this app.
    pub fn concerns(&self, app: &AppName) -> bool {
        match self {
            Self::Deployment(event) => event.apps.contains(app),
            Self::Drift(event) => event.app == *app,
            Self::Run(event) => event.app == *app,
            Self::Trigger(event) => event.app == *app,
            Self::Log(event) => event.app == *app,
        }
    }

    /// As somebody sees it who may see one app alone: no other app is named.
    pub fn confined(&self, app: &AppName) -> Option<Self> {
        if !self.concerns(app) {
            return None;
        }
        let mut event = self.clone();
        if let Self::Deployment(deployment) = &mut event {
            deployment.apps.retain(|named| named == app);
        }
        Some(event)
    }
}

/// Where events are told. Never waits and never fails: who listens gets them, if anybody does.
pub trait EventSink: Send + Sync {
    /// Tells of something that happened.
    fn publish(&self, event: LiveEvent);

    /// Whether anybody wants to know what runs log while they run.
    fn hears_logs(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn publish(&self, _: LiveEvent) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::LogLevel;

    #[test]
    fn who_was_told_of_lines_is_told_of_the_others_alone() {
        let event = LogEvent {
            run: RunId::default(),
            app: "a".parse().expect("a name"),
            script: "scripts/a.rhai".parse().expect("a path"),
            first: 2,
            lines: (2..5)
                .map(|number| LogLine {
                    at: DateTime::UNIX_EPOCH,
                    level: LogLevel::Info,
                    message: number.to_string(),
                    fields: None,
                })
                .collect(),
            more: 4,
        };
        let told = |told: usize| {
            let news = event.clone().after(told)?;
            let lines: Vec<String> = news.lines.into_iter().map(|line| line.message).collect();
            Some((news.first, lines.concat(), news.more))
        };
        let some = |first, lines: &str, more| Some((first, lines.to_owned(), more));
        assert_eq!(told(0), some(2, "234", 4));
        assert_eq!(told(3), some(3, "34", 4));
        assert_eq!(told(5), some(5, "", 4));
        assert_eq!(told(7), some(7, "", 2));
        assert_eq!(told(9), None);
    }
}
