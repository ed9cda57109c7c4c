//! An app as git declares it and as PostgreSQL holds it: the same type on both sides, so that
//! desired and live can be compared field by field.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    limits::{Limits, LimitsPatch},
    names::{AppName, BlobId, ScriptPath, TriggerName},
};

/// One app, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    /// Unique over all sources.
    pub name: AppName,
    /// Its folder from the repository's root; empty at the root itself.
    pub dir: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Host names (lower case, IDNA) that serve the app at `/`.
    #[serde(default)]
    pub domains: BTreeSet<String>,
    /// Plain configuration.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Name → age ciphertext, armored.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// What `http::*` may reach; `None` is every public host, empty is none.
    #[serde(default)]
    pub http_allow: Option<Vec<String>>,
    /// What the app sets; the source's defaults are already merged in.
    #[serde(default)]
    pub limits: LimitsPatch,
    /// The folder of `static`, below the app's; `None` serves no files.
    #[serde(default)]
    pub static_dir: Option<String>,
    /// Files below `static_dir`, by their path below it.
    #[serde(default)]
    pub static_files: BTreeMap<String, StaticFile>,
    /// Handlers and modules, by path below the app.
    #[serde(default)]
    pub scripts: BTreeMap<ScriptPath, ScriptSpec>,
    /// Sorted by path and methods; no two are equal in both.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// By name.
    #[serde(default)]
    pub triggers: BTreeMap<TriggerName, TriggerSpec>,
    /// Requested after a deployment.
    #[serde(default)]
    pub checks: Vec<CheckSpec>,
}

impl AppSpec {
    /// An app with a name and nothing else.
    pub fn empty(name: AppName, dir: impl Into<String>) -> Self {
        Self {
            name,
            dir: dir.into(),
            description: None,
            domains: BTreeSet::new(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            http_allow: None,
            limits: LimitsPatch::default(),
            static_dir: None,
            static_files: BTreeMap::new(),
            scripts: BTreeMap::new(),
            routes: Vec::new(),
            triggers: BTreeMap::new(),
            checks: Vec::new(),
        }
    }

    /// The limits that hold where no route or trigger says otherwise.
    pub fn effective_limits(&self) -> Limits {
        Limits::default().with(&self.limits)
    }
}

/// A file that is served as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticFile {
    /// Its content's git blob id.
    pub blob: BlobId,
    /// Bytes.
    pub size: u64,
}

/// A script of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptSpec {
    /// What may name it.
    pub kind: ScriptKind,
    /// Its content's git blob id.
    pub blob: BlobId,
}

/// What may name a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScriptKind {
    /// Below `scripts/`: routes, triggers and `scripts::*` may name it.
    Handler,
    /// Below `modules/`: only `import` may name it.
    Module,
}

/// One entry of `routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The pattern: `/entries/{id}`, `/files/{*rest}`.
    pub path: String,
    /// Upper case, sorted, not empty.
    pub methods: BTreeSet<String>,
    /// The handler.
    pub script: ScriptPath,
    /// Whether the client waits.
    #[serde(default)]
    pub mode: RouteMode,
    /// Who may call it.
    #[serde(default)]
    pub auth: RouteAuth,
    /// Cross-origin rules; `None` sends no CORS headers.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// Requests a client address.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// What differs from the app's.
    #[serde(default)]
    pub limits: LimitsPatch,
}

impl RouteSpec {
    /// How people name it: `GET,POST /entries/{id}`.
    pub fn label(&self) -> String {
        let methods: Vec<&str> = self.methods.iter().map(String::as_str).collect();
        format!("{} {}", methods.join(","), self.path)
    }
}

/// Whether the client of a route waits for the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteMode {
    /// The run's value is the answer.
    #[default]
    Sync,
    /// 202 with the run's id; the run goes through the outbox.
    Async,
}

/// Who may call a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteAuth {
    /// Anyone.
    #[default]
    None,
    /// A bearer key with scope `app:invoke`.
    Key,
    /// A signed request.
    Signature {
        /// Whose convention the signature follows.
        scheme: SignatureScheme,
        /// The name of the secret that signs.
        secret: String,
    },
}

/// Whose convention a request's signature follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureScheme {
    /// `X-Hub-Signature-256`.
    Github,
    /// `Stripe-Signature`.
    Stripe,
    /// `X-Slack-Signature`.
    Slack,
    /// Hexadecimal HMAC-SHA-256 of the body in `X-Signature`.
    HmacSha256,
}

/// Cross-origin rules of a route (Fetch standard, section 3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// `*`, or origins; `cors: true` is `["*"]`.
    pub origins: Vec<String>,
    /// Empty: the route's own.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Empty: those the preflight asks for.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Seconds that a preflight's answer may be kept.
    #[serde(default)]
    pub max_age: Option<u64>,
}

/// `100/1m`: requests in a window, per client address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// At least 1.
    pub requests: u32,
    /// At least 1,000.
    pub window_ms: u64,
}

/// One entry of `triggers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerSpec {
    /// What sets it off, with that kind's own keys.
    pub kind: TriggerKind,
    /// The handler.
    pub script: ScriptPath,
    /// Whether it fires.
    pub enabled: bool,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// Runs at the same time over all nodes; `None`: no bound of its own.
    #[serde(default)]
    pub max_concurrency: Option<u32>,
    /// What differs from the app's.
    #[serde(default)]
    pub limits: LimitsPatch,
}

/// What sets a trigger off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TriggerKind {
    /// A schedule.
    Cron {
        /// As written: crontab(5) with an optional seconds field.
        schedule: String,
        /// IANA name.
        timezone: String,
        /// What happens when the last run is still going.
        overlap: Overlap,
        /// What happens after downtime.
        catch_up: CatchUp,
    },
    /// A write to a kv collection.
    Kv {
        /// Its name, or a prefix that ends in `*`.
        collection: String,
        /// `set`, `delete`; sorted.
        events: BTreeSet<String>,
    },
    /// A write to a docs collection.
    Docs {
        /// Its name, or a prefix that ends in `*`.
        collection: String,
        /// `create`, `update`, `delete`; sorted.
        events: BTreeSet<String>,
    },
    /// An event of this app that was given up.
    DeadLetter {
        /// Any when absent.
        source_kind: Option<String>,
    },
}

impl TriggerKind {
    /// `cron`, `kv`, `docs` or `dead_letter`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cron { .. } => "cron",
            Self::Kv { .. } => "kv",
            Self::Docs { .. } => "docs",
            Self::DeadLetter { .. } => "dead_letter",
        }
    }

    /// Whether a write (`set`, `delete`) to that kv collection sets it off.
    pub fn is_about_kv(&self, collection: &str, op: &str) -> bool {
        matches!(self, Self::Kv { collection: pattern, events } if covers(pattern, collection) && events.contains(op))
    }

    /// Whether a write (`create`, `update`, `delete`) to that docs collection sets it off.
    pub fn is_about_docs(&self, collection: &str, op: &str) -> bool {
        matches!(self, Self::Docs { collection: pattern, events } if covers(pattern, collection) && events.contains(op))
    }

    /// Whether a dead letter of that kind sets it off.
    pub fn is_about_dead_letter(&self, source: &str) -> bool {
        matches!(self, Self::DeadLetter { source_kind } if source_kind.as_deref().is_none_or(|kind| kind == source))
    }
}

/// A collection's name, or all that begin as a pattern that ends in `*` does.
fn covers(pattern: &str, collection: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => collection.starts_with(prefix),
        None => pattern == collection,
    }
}

/// What happens when a cron trigger is due and its last run is still going.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// The firing is a visible run of status `skipped`.
    #[default]
    Skip,
    /// Both run.
    Allow,
    /// One after the other, in order, unbounded.
    Queue,
}

/// What happens to the times passed over in downtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// One firing, for the latest of them.
    #[default]
    Latest,
    /// None; the next time is waited for.
    None,
}

/// What happens after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Counts the first.
    pub attempts: u32,
    /// Before the second attempt; doubles from there.
    pub backoff_ms: u64,
    /// The longest wait.
    pub max_backoff_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            backoff_ms: 10_000,
            max_backoff_ms: 600_000,
        }
    }
}

/// One entry of `checks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// Below the app.
    pub path: String,
    /// What the answer must be.
    pub status: u16,
    /// How long it may take to become so, in milliseconds.
    pub within_ms: u64,
}

/// JSON of any value of this module, for field-by-field comparison and display.
pub fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
