//! `notifications` of picloud.yaml: told of what became of commits and of drift, kept in the
//! database until they are delivered, and never in a deployment's way.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use picloud_gitops_core::Notification;
use picloud_shared::{
    AppName, Clock, LiveEvent, SourceName,
    app::to_value,
    deployment::{Deployment, DeploymentReason, DeploymentStatus},
};
use picloud_store::{
    Store, StoreError,
    notifications::{Announcement, DueNotification},
};
use serde_json::{Value, json};

use crate::{
    drift::DriftWatch,
    events::{EventHub, Heard},
};

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

/// What became of a deployment, for whoever wants to know.
pub(crate) fn announcement<'a>(
    deployment: &Deployment,
    wanted: Option<&[Notification]>,
    clock: &'a dyn Clock,
) -> Announcement<'a> {
    Announcement {
        wanted: wanted.map(|wanted| wanted.iter().map(to_value).collect()),
        told: deployed(deployment, clock.now()),
        clock,
    }
}

/// Delivers what is kept, and tells of drift.
pub struct Notifier {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Notifier {
    /// Nothing is delivered before [`Self::run`].
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { store, clock })
    }

    /// Tells of apps that begin and cease to drift, as they are seen to, for ever.
    pub async fn follow_drift(self: Arc<Self>, hub: Arc<EventHub>, watch: Arc<DriftWatch>) {
        let mut listener = hub.listen(None);
        // What ceased to drift while nobody looked.
        while let Err(error) = self.settle_drift(&watch).await {
            if !error.is_unavailable() {
                tracing::warn!(%error, "it cannot be told which apps drift no longer; trying again");
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        loop {
            let events = match listener.next().await {
                Heard::Events(events) => events,
                Heard::Missed => {
                    if let Err(error) = self.settle_drift(&watch).await {
                        tracing::debug!(%error, "drift could not be looked at");
                    }
                    continue;
                }
            };
            for told in events {
                if let LiveEvent::Drift(event) = told.event.as_ref() {
                    self.drift(&event.app, event.drifted.then_some(event.items))
                        .await;
                }
            }
        }
    }

    /// Tells of all apps as they stand.
    async fn settle_drift(&self, watch: &DriftWatch) -> Result<(), StoreError> {
        let drifted = watch.all().await?;
        for (source, app) in self.store.told_drift().await? {
            if !drifted.iter().any(|one| one.name == app) {
                self.tell_drift(&source, &app, None).await?;
            }
        }
        for one in &drifted {
            self.drift(&one.name, Some(one.items.len())).await;
        }
        Ok(())
    }

    /// An app differs from git in so many things, or does no longer.
    async fn drift(&self, app: &AppName, items: Option<usize>) {
        let told = match self.store.source_of_app(app).await {
            Ok(Some(source)) => self.tell_drift(&source, app, items).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::warn!(%app, %error, "drift of an app could not be told of");
        }
    }

    async fn tell_drift(
        &self,
        source: &SourceName,
        app: &AppName,
        items: Option<usize>,
    ) -> Result<(), StoreError> {
        let event = if items.is_some() { "drifted" } else { "healed" };
        let mut payload =
            json!({ "event": event, "source": source, "app": app, "at": at(self.clock.now()) });
        if let Some(items) = items {
            payload["items"] = items.into();
        }
        let announcement = Announcement {
            wanted: None,
            told: Some((event, payload)),
            clock: self.clock.as_ref(),
        };
        self.store
            .tell_drift(source, app, items.is_some(), &announcement)
            .await
    }

    /// Delivers for ever. Any number of managers may do so.
    pub async fn run(self: Arc<Self>, deliver: Arc<dyn Deliver>) {
        let mut backoff = Duration::from_millis(200);
        loop {
            let Err(error) = self.deliver(deliver.as_ref(), &mut backoff).await;
            if !error.is_unavailable() {
                tracing::error!(%error, "notifications cannot be delivered; trying again");
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_secs(5));
        }
    }

    async fn deliver(
        &self,
        deliver: &dyn Deliver,
        backoff: &mut Duration,
    ) -> Result<std::convert::Infallible, StoreError> {
        let mut told = self.store.listen_notifications().await?;
        loop {
            let until = self.round(deliver).await?;
            *backoff = Duration::from_millis(200);
            // An elapsed time is a reason to look like any other.
            if let Ok(told) = tokio::time::timeout(until, told.next_of_many()).await {
                told?;
            }
        }
    }

    async fn round(&self, deliver: &dyn Deliver) -> Result<Duration, StoreError> {
        loop {
            let due = self
                .store
                .take_notifications(self.clock.now(), HOLD)
                .await?;
            if due.is_empty() {
                break;
            }
            let sent = due.iter().map(|one| self.send(one, deliver));
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

fn at(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The event's name and what is told of a deployment; `None`: nobody is told of this.
fn deployed(deployment: &Deployment, now: DateTime<Utc>) -> Option<(&'static str, Value)> {
    let event = match deployment.status {
        // What is healed is told when it is seen to be.
        _ if deployment.reason == DeploymentReason::Heal => return None,
        DeploymentStatus::Synced => "synced",
        DeploymentStatus::Failed | DeploymentStatus::Partial | DeploymentStatus::Reverted => {
            "failed"
        }
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
            "event": event, "source": deployment.source, "deployment": deployment.id, "commit": deployment.commit,
            "previous_commit": deployment.previous_commit, "author": deployment.author,
            "message": deployment.message, "status": deployment.status,
            "changes": deployment.changes.len(), "errors": errors, "at": at(now),
        }),
    ))
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
        "failing" => format!(
            "{}: the trigger {} of {} fails: {} of its events were given up: {}",
            text("source"),
            text("trigger"),
            text("app"),
            payload["dead_letters"],
            text("error")
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
