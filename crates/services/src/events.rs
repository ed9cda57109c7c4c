//! Which writes set triggers off, and `scripts::enqueue`.

use std::sync::Arc;

use picloud_shared::{
    Clock, EventId, ScriptPath,
    app::TriggerKind,
    data::check_job,
    sdk::{EnqueueOptions, InvokeService, SdkCallCx, SdkResult},
};
use picloud_store::{
    Store,
    outbox::{DataEvent, NewEvent},
};
use serde_json::Value;

use crate::waiting::wait;

fn event(cx: &SdkCallCx, clock: &Arc<dyn Clock>) -> DataEvent {
    DataEvent {
        cause: cx.run,
        chain: cx.links(),
        clock: Arc::clone(clock),
        now: clock.now(),
    }
}

/// `None`: no trigger of the app is about this, and the write needs no transaction of its own.
pub(crate) fn of_kv(
    cx: &SdkCallCx,
    clock: &Arc<dyn Clock>,
    collection: &str,
    op: &str,
) -> Option<DataEvent> {
    wanted(cx, |kind| kind.is_about_kv(collection, op)).then(|| event(cx, clock))
}

/// As [`of_kv`], for documents.
pub(crate) fn of_docs(
    cx: &SdkCallCx,
    clock: &Arc<dyn Clock>,
    collection: &str,
    op: &str,
) -> Option<DataEvent> {
    wanted(cx, |kind| kind.is_about_docs(collection, op)).then(|| event(cx, clock))
}

fn wanted(cx: &SdkCallCx, about: impl Fn(&TriggerKind) -> bool) -> bool {
    let mut triggers = cx.app.spec.triggers.values();
    triggers.any(|trigger| trigger.enabled && about(&trigger.kind))
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
        check_job(payload, options)?;
        let now = self.clock.now();
        let delay = i64::try_from(options.delay_ms).unwrap_or(i64::MAX);
        let chain = cx.links();
        let event = NewEvent {
            dedup_key: options.key.as_deref(),
            cause: Some(cx.run),
            chain: &chain,
            due_at: now + chrono::TimeDelta::milliseconds(delay),
            ..NewEvent::new(
                EventId(self.clock.new_id()),
                cx.app_id(),
                "enqueue",
                script.as_str(),
                payload,
                now,
            )
        };
        wait(cx.deadline, self.store.enqueue(&event))
    }
}
