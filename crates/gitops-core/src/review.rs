//! What a person decides on: a plan with everything that explains it. It is made once, and the
//! pusher, the reviewer, the dashboard and programs are shown the same value.

mod fires;
mod script_diff;
mod warnings;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use chrono::{DateTime, Utc};
use picloud_shared::{
    AppName, BlobId, Diagnostic, Plan, ScriptPath,
    plan::{AppAction, AppPlan, Change, ChangeKind, ItemKind},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Fire times that are shown of each trigger.
const FIRE_TIMES: usize = 5;

/// A plan, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Review {
    /// Apps that change, by name.
    pub apps: Vec<AppReview>,
    /// Live apps that stay at their last good commit.
    pub kept: Vec<AppName>,
    /// What a person should look at twice.
    pub warnings: Vec<Warning>,
    /// What is wrong with the tree, or with the plan.
    pub errors: Vec<Diagnostic>,
    /// Of what would change: the same for the same changes, whenever they are planned.
    pub hash: String,
}

/// What happens to one app.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppReview {
    /// Whose.
    pub name: AppName,
    /// Create, update or remove.
    pub action: AppAction,
    /// In the plan's order.
    pub changes: Vec<ChangeReview>,
}

/// One change, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChangeReview {
    /// The planner's own.
    #[serde(flatten)]
    pub change: Change,
    /// What it means, in sentences without an end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// A changed script's text, as a unified diff without a head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Of a cron trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_fire_times: Option<FireTimes>,
}

/// When a trigger fires: RFC 3339 in the trigger's own zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FireTimes {
    /// As it is live; empty where it isn't, or is disabled.
    pub old: Vec<String>,
    /// As it would be.
    pub new: Vec<String>,
}

/// What a person should look at twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    /// Whose.
    pub app: AppName,
    /// What kind of thing.
    pub kind: ItemKind,
    /// Which.
    pub name: String,
    /// Stable: `route_opened`, `rate_limit_gone`, `egress_wider`, `schedule_fast`.
    pub code: &'static str,
    /// One sentence, readable alone.
    pub message: String,
}

/// The texts of scripts, by their blobs' ids.
pub type Texts = BTreeMap<BlobId, String>;

/// The scripts whose texts a review of this plan shows.
pub fn wanted_texts(plan: &Plan) -> BTreeSet<BlobId> {
    let mut wanted = BTreeSet::new();
    for app in plan.apps.values() {
        for change in app
            .changes
            .iter()
            .filter(|change| change.kind == ItemKind::Script)
        {
            let (old, new) = script_blobs(app, &change.name);
            wanted.extend(old.cloned());
            wanted.extend(new.cloned());
        }
    }
    wanted
}

fn script_blobs<'a>(app: &'a AppPlan, name: &str) -> (Option<&'a BlobId>, Option<&'a BlobId>) {
    let path = name.parse::<ScriptPath>().ok();
    let blob = |spec: &'a Option<std::sync::Arc<picloud_shared::AppSpec>>| {
        let scripts = &spec.as_ref()?.scripts;
        scripts.get(path.as_ref()?).map(|script| &script.blob)
    };
    (blob(&app.live), blob(&app.desired))
}

impl Review {
    /// Explains a plan as of `now`. A script whose text isn't among `texts` is shown without one.
    pub fn new(plan: &Plan, findings: &[Diagnostic], texts: &Texts, now: DateTime<Utc>) -> Self {
        let mut errors = findings.to_vec();
        errors.extend(plan.errors.iter().cloned());
        let apps = plan.apps.iter().map(|(name, app)| AppReview {
            name: name.clone(),
            action: app.action,
            changes: app
                .changes
                .iter()
                .map(|change| explain(app, change, texts, now))
                .collect(),
        });
        Self {
            apps: apps.collect(),
            kept: plan.kept.clone(),
            warnings: plan.apps.values().flat_map(warnings::of).collect(),
            errors,
            hash: plan_hash(plan),
        }
    }

    /// Whether anything would change.
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// How many changes there are.
    pub fn count(&self) -> usize {
        self.apps.iter().map(|app| app.changes.len()).sum()
    }

    /// Whether there is an error among the findings.
    pub fn has_errors(&self) -> bool {
        self.errors.iter().any(Diagnostic::is_error)
    }

    /// What concerns one app alone.
    #[must_use]
    pub fn only(mut self, app: &AppName) -> Self {
        self.apps.retain(|found| found.name == *app);
        self.kept.retain(|found| found == app);
        self.warnings.retain(|found| found.app == *app);
        self.errors.retain(|found| found.app.as_ref() == Some(app));
        self
    }
}

fn explain(app: &AppPlan, change: &Change, texts: &Texts, now: DateTime<Utc>) -> ChangeReview {
    let mut words = words::of(app, change, texts);
    let mut next_fire_times = None;
    if change.kind == ItemKind::Trigger {
        let (old, new) = words::triggers(app, &change.name);
        next_fire_times = fires::times(old, new, now, FIRE_TIMES);
        words.extend(
            new.map(|new| fires::clock_changes(new, now))
                .unwrap_or_default(),
        );
    }
    let diff = (change.kind == ItemKind::Script && change.change == ChangeKind::Changed)
        .then(|| {
            let (old, new) = script_blobs(app, &change.name);
            Some(script_diff::unified(texts.get(old?)?, texts.get(new?)?))
        })
        .flatten();
    ChangeReview {
        change: change.clone(),
        words,
        diff: diff.filter(|diff| !diff.is_empty()),
        next_fire_times,
    }
}

/// SHA-256 of the changes as JSON: neither the live version nor the time is in it.
pub fn plan_hash(plan: &Plan) -> String {
    let changes: Vec<&Change> = plan.changes().collect();
    let text = serde_json::to_vec(&(changes, &plan.kept)).unwrap_or_default();
    let digest = Sha256::digest(&text);
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
