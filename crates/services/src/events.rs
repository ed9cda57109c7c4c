//! Which writes set triggers off, and `scripts::enqueue`.

use std::sync::Arc;

use picloud_shared::{
    Clock, EventId, ScriptPath,
    app::TriggerKind,
    event::Link,
    sdk::{EnqueueOptions, InvokeService, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use picloud_store::{
    Store,
    outbox::{DataEvent, NewEvent},
};
use serde_json::Value;

use crate::waiting::wait;

/// The longest delay of a job.
const MAX_DELAY_MS: u64 = 366 * 24 * 3_600_000;
/// Bytes of a payload as JSON.
const MAX_PAYLOAD: usize = 1 << 20;

/// The runs that led to what a run does: itself included.
fn chain(cx: &SdkCallCx) -> Vec<Link> {
    let mut chain = cx.chain.clone();
    chain.push(Link {
        run: cx.run,
        script: cx.script.clone(),
        trigger: cx.trigger.clone(),
    });
    chain
}

fn event(cx: &SdkCallCx, clock: &dyn Clock) -> DataEvent {
    DataEvent {
        cause: cx.run,
        chain: chain(cx),
        ids: (0..DataEvent::IDS).map(|_| clock.new_id()).collect(),
        now: clock.now(),
    }
}

/// `None`: no trigger of the app is about this, and the write needs no transaction of its own.
pub(crate) fn of_kv(
    cx: &SdkCallCx,
    clock: &dyn Clock,
    collection: &str,
    op: &str,
) -> Option<DataEvent> {
    let about = |kind: &TriggerKind| matches!(kind, TriggerKind::Kv { collection: pattern, events } if covers(pattern, collection) && events.contains(op));
    wanted(cx, about).then(|| event(cx, clock))
}

/// As [`of_kv`], for documents.
pub(crate) fn of_docs(
    cx: &SdkCallCx,
    clock: &dyn Clock,
    collection: &str,
    op: &str,
) -> Option<DataEvent> {
    let about = |kind: &TriggerKind| matches!(kind, TriggerKind::Docs { collection: pattern, events } if covers(pattern, collection) && events.contains(op));
    wanted(cx, about).then(|| event(cx, clock))
}

fn wanted(cx: &SdkCallCx, about: impl Fn(&TriggerKind) -> bool) -> bool {
    let mut triggers = cx.app.spec.triggers.values();
    triggers.any(|trigger| trigger.enabled && about(&trigger.kind))
}

fn covers(pattern: &str, collection: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => collection.starts_with(prefix),
        None => pattern == collection,
    }
}

/// `scripts::enqueue` through the outbox.
pub struct InvokeServiceImpl {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl InvokeServiceImpl {
    /// On this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }
}

impl InvokeService for InvokeServiceImpl {
    fn enqueue(
        &self,
        cx: &SdkCallCx,
        script: &ScriptPath,
        payload: &Value,
        options: &EnqueueOptions,
    ) -> SdkResult<EventId> {
        if options.delay_ms > MAX_DELAY_MS {
            return Err(SdkError::new(
                SdkErrorCode::Invalid,
                "delay must be at most 366d",
            ));
        }
        let size = payload.to_string().len();
        if size > MAX_PAYLOAD {
            return Err(SdkError::new(
                SdkErrorCode::TooLarge,
                format!("a payload may have {MAX_PAYLOAD} bytes as JSON; this has {size}"),
            ));
        }
        let now = self.clock.now();
        let delay = i64::try_from(options.delay_ms).unwrap_or(i64::MAX);
        let chain = chain(cx);
        let event = NewEvent {
            id: EventId(self.clock.new_id()),
            app: cx.app_id(),
            kind: "enqueue",
            trigger: None,
            script: script.as_str(),
            payload,
            dedup_key: options.key.as_deref(),
            cause: Some(cx.run),
            chain: &chain,
            attempts: 5,
            backoff_ms: 10_000,
            max_backoff_ms: 600_000,
            max_concurrency: None,
            due_at: now + chrono::TimeDelta::milliseconds(delay),
            now,
        };
        wait(cx.deadline, self.store.enqueue(&event))
    }
}
