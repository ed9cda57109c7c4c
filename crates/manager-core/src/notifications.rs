//! `notifications` of picloud.yaml: told of what became of commits and of drift, kept in the
//! database until they are delivered, and never in a deployment's way.

use std::{collections::HashSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use picloud_gitops_core::Notification;
use picloud_shared::{
    AppName, Clock, LiveEvent, SourceName,
    deployment::{Deployment, DeploymentStatus},
};
use picloud_store::{Store, StoreError, notifications::DueNotification};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::events::{EventHub, Heard};

/// How often one is tried: over about nine hours.
const ATTEMPTS: i32 = 15;
/// Before the second attempt; doubles from there.
const BACKOFF: TimeDelta = TimeDelta::seconds(5);
/// The longest wait.
const MAX_BACKOFF: TimeDelta = TimeDelta::hours(1);
/// How long nobody else tries what one process tries.
const HOLD: TimeDelta = TimeDelta::minutes(1);
/// Told or not, it looks this often.
const SWEEP: Duration = Duration::from_mins(1);
/// Characters of a message; Discord takes 2,000.
const MAX_TEXT: usize = 1_900;
/// Errors that a message names.
const MAX_ERRORS: usize = 5;

/// What a delivery gives: the status, or why there is none.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Result<u16, String>> + Send + 'a>>;

/// How notifications leave the machine. The operator's own network may be reached.
pub trait Deliver: Send + Sync {
    /// Opens an address that is sealed; gives a plain one as it is.
    fn address(&self, written: &str) -> Result<String, String>;
    /// Sends a JSON body; ends within half a minute.
    fn post<'a>(&'a self, url: &'a str, body: String) -> Delivery<'a>;
}

/// What somebody may want to be told.
#[derive(Debug, Clone)]
pub enum Happened<'a> {
    /// A deployment ended.
    Deployed(&'a Deployment),
    /// An app's live state began to differ from git's.
    Drifted {
        /// Which.
        app: &'a AppName,
        /// In how many things.
        items: usize,
    },
    /// An app's live state is git's again.
    Healed {
        /// Which.
        app: &'a AppName,
    },
}

/// Keeps notifications, and delivers them.
pub struct Notifier {
    store: Store,
    clock: Arc<dyn Clock>,
    wake: Notify,
}

impl Notifier {
    /// Nothing is delivered before [`Self::run`].
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            wake: Notify::new(),
        })
    }

    /// Keeps whom a source wants to be told from now on.
    pub(crate) async fn configure(&self, source: &SourceName, wanted: &[Notification]) {
        let wanted: Value = wanted
            .iter()
            .map(|one| json!({ "on": one.on, "url": one.url, "format": one.format }))
            .collect();
        if let Err(error) = self.store.set_notifications(source, &wanted).await {
            tracing::warn!(%source, %error, "notifications of a source could not be kept; the next commit's are");
        }
    }

    /// Tells whoever of the source wants to know. Never fails: what could not be written is logged.
    pub async fn tell(&self, source: &SourceName, happened: &Happened<'_>) {
        let now = self.clock.now();
        let Some((event, payload)) = payload(source, happened, now) else {
            return;
        };
        let new_id = || self.clock.new_id();
        let added = self
            .store
            .add_notifications(source, event, &payload, &new_id, now)
            .await;
        match added {
            Ok(0) => {}
            Ok(_) => self.wake.notify_one(),
            Err(error) => {
                tracing::warn!(%source, event, %error, "a notification could not be kept");
            }
        }
    }

    /// Tells of apps that begin and cease to drift, as they are seen to, for ever.
    pub async fn follow_drift(self: Arc<Self>, hub: Arc<EventHub>) {
        let mut listener = hub.listen(None);
        let mut drifted: HashSet<AppName> = HashSet::new();
        loop {
            let Heard::Events(events) = listener.next().await else {
                continue;
            };
            for told in events {
                let LiveEvent::Drift(event) = told.event.as_ref() else {
                    continue;
                };
                let (app, items) = (&event.app, event.items);
                // One that drifts further is no news.
                let happened = match (event.drifted, drifted.contains(app)) {
                    (true, false) => Happened::Drifted { app, items },
                    (false, true) => Happened::Healed { app },
                    _ => continue,
                };
                match self.store.source_of_app(app).await {
                    Ok(Some(source)) => self.tell(&source, &happened).await,
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%app, %error, "drift of an app could not be told of");
                    }
                }
                if event.drifted {
                    drifted.insert(app.clone());
                } else {
                    drifted.remove(app);
                }
            }
        }
    }

    /// Delivers for ever. Any number of managers may do so.
    pub async fn run(self: Arc<Self>, deliver: Arc<dyn Deliver>) {
        let mut backoff = Duration::from_millis(200);
        loop {
            let until = match self.round(&deliver).await {
                Ok(until) => {
                    backoff = Duration::from_millis(200);
                    until
                }
                Err(error) => {
                    if !error.is_unavailable() {
                        tracing::error!(%error, "notifications cannot be delivered; trying again");
                    }
                    backoff = (backoff * 2).min(Duration::from_secs(5));
                    backoff
                }
            };
            // An elapsed time is a reason to look like any other.
            let _ = tokio::time::timeout(until, self.wake.notified()).await;
        }
    }

    async fn round(&self, deliver: &Arc<dyn Deliver>) -> Result<Duration, StoreError> {
        loop {
            let due = self
                .store
                .take_notifications(self.clock.now(), HOLD)
                .await?;
            if due.is_empty() {
                break;
            }
            let sent = due.iter().map(|one| self.send(one, deliver.as_ref()));
            for done in futures_util::future::join_all(sent).await {
                done?;
            }
        }
        let next = self.store.next_notification().await?;
        Ok(next.map_or(SWEEP, |next| {
            let wait = (next - self.clock.now()).to_std().unwrap_or_default();
            wait.clamp(Duration::from_millis(10), SWEEP)
        }))
    }

    async fn send(&self, one: &DueNotification, deliver: &dyn Deliver) -> Result<(), StoreError> {
        let address = match deliver.address(&one.url) {
            Ok(address) => address,
            Err(error) => {
                tracing::error!(
                    source = one.source,
                    error,
                    "a notification's url cannot be opened; it is given up"
                );
                return self.store.end_notification(one.id).await;
            }
        };
        let outcome = deliver.post(&address, body(one)).await;
        let reason = match outcome {
            Ok(200..=299) => return self.store.end_notification(one.id).await,
            Ok(status) => format!("the receiver answered {status}"),
            Err(reason) => reason,
        };
        if one.attempt >= ATTEMPTS {
            tracing::error!(
                source = one.source,
                event = one.event,
                reason,
                "a notification is given up"
            );
            return self.store.end_notification(one.id).await;
        }
        let doublings = u32::try_from(one.attempt - 1).unwrap_or(0).min(16);
        let wait = (BACKOFF * (1_i32 << doublings)).min(MAX_BACKOFF);
        tracing::warn!(
            source = one.source,
            event = one.event,
            reason,
            seconds = wait.num_seconds(),
            "a notification was not taken; trying again"
        );
        let at = self.clock.now() + wait;
        self.store.retry_notification(one.id, at).await
    }
}

/// The event's name and what is told of it; `None`: nobody is told of this.
fn payload(
    source: &SourceName,
    happened: &Happened<'_>,
    now: DateTime<Utc>,
) -> Option<(&'static str, Value)> {
    let at = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    match happened {
        Happened::Deployed(deployment) => {
            let event = match deployment.status {
                DeploymentStatus::Synced => "synced",
                DeploymentStatus::Failed
                | DeploymentStatus::Partial
                | DeploymentStatus::Reverted => "failed",
                DeploymentStatus::Applying | DeploymentStatus::Held | DeploymentStatus::Waiting => {
                    return None;
                }
            };
            let errors: Vec<Value> = deployment
                .errors
                .iter()
                .filter(|error| error.is_error())
                .take(MAX_ERRORS)
                .map(|error| {
                    json!({ "code": error.code, "path": error.path, "line": error.line, "message": error.message })
                })
                .collect();
            Some((
                event,
                json!({
                    "event": event, "source": source, "deployment": deployment.id, "commit": deployment.commit,
                    "previous_commit": deployment.previous_commit, "author": deployment.author,
                    "message": deployment.message, "status": deployment.status,
                    "changes": deployment.changes.len(), "errors": errors, "at": at,
                }),
            ))
        }
        Happened::Drifted { app, items } => Some((
            "drifted",
            json!({ "event": "drifted", "source": source, "app": app, "items": items, "at": at }),
        )),
        Happened::Healed { app } => Some((
            "healed",
            json!({ "event": "healed", "source": source, "app": app, "at": at }),
        )),
    }
}

/// What is sent.
fn body(one: &DueNotification) -> String {
    let body = match one.format.as_str() {
        "slack" => json!({ "text": words(&one.payload) }),
        "discord" => json!({ "content": words(&one.payload), "allowed_mentions": { "parse": [] } }),
        _ => {
            let mut body = one.payload.clone();
            body["id"] = json!(one.id);
            body
        }
    };
    body.to_string()
}

/// What happened, for people.
fn words(payload: &Value) -> String {
    let text = |field: &str| payload[field].as_str().unwrap_or_default();
    let short: String = text("commit").chars().take(7).collect();
    let title = text("message").lines().next().unwrap_or_default();
    let mut words = match text("event") {
        "drifted" => format!(
            "{}: the app {} drifted: {} differ from git",
            text("source"),
            text("app"),
            payload["items"]
        ),
        "healed" => format!(
            "{}: the app {} is what git says again",
            text("source"),
            text("app")
        ),
        "synced" => format!(
            "{}: {short} is live: {title} ({}, {} changes)",
            text("source"),
            text("author"),
            payload["changes"]
        ),
        _ => format!(
            "{}: {short} is {}: {title} ({})",
            text("source"),
            text("status"),
            text("author")
        ),
    };
    for error in payload["errors"].as_array().into_iter().flatten() {
        words.push_str(&format!(
            "\n{} {}:{} {}",
            error["code"].as_str().unwrap_or_default(),
            error["path"].as_str().unwrap_or_default(),
            error["line"],
            error["message"].as_str().unwrap_or_default()
        ));
    }
    words.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_in_words_and_programs_in_fields() {
        let payload = json!({
            "event": "failed", "source": "shop", "commit": "0123456789abcdef", "message": "feat: x\n\nmore",
            "author": "Ada", "status": "failed", "changes": 0,
            "errors": [{ "code": "E0101", "path": "app.yaml", "line": 3, "message": "no" }],
        });
        let mut one = DueNotification {
            id: uuid::Uuid::nil(),
            source: "shop".to_owned(),
            event: "failed".to_owned(),
            url: String::new(),
            format: "slack".to_owned(),
            payload,
            attempt: 1,
        };
        let text = "shop: 0123456 is failed: feat: x (Ada)\nE0101 app.yaml:3 no";
        let sent = |one: &DueNotification| serde_json::from_str::<Value>(&body(one)).expect("JSON");
        assert_eq!(sent(&one), json!({ "text": text }));
        "discord".clone_into(&mut one.format);
        assert_eq!(sent(&one)["content"], text);
        "json".clone_into(&mut one.format);
        assert_eq!(sent(&one)["errors"][0]["line"], 3);
        assert_eq!(sent(&one)["id"], one.id.to_string());
        one.payload["errors"] = (0..400)
            .map(|_| json!({ "message": "x".repeat(90) }))
            .collect();
        "discord".clone_into(&mut one.format);
        let content = sent(&one)["content"]
            .as_str()
            .expect("text")
            .chars()
            .count();
        assert!(content <= 2_000, "{content}");
    }
}
