//! What processes tell each other through the database: that access changed, and live events.
//!
//! Both are told in vain where they are lost: access is asked for anew after a lost connection,
//! and nothing depends on an event.

use std::{sync::Arc, time::Duration};

use picloud_shared::LiveEvent;
use picloud_store::{Signal, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::events::{EventHub, Told};

/// The longest wait for a database that is away.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Bytes of one notification: PostgreSQL takes less than 8,000.
const MAX_PAYLOAD: usize = 7_500;
/// How long events are gathered for one statement.
const GATHER: Duration = Duration::from_millis(50);
/// Events of one statement.
const BATCH: usize = 256;

/// How often others are told that somebody listens here to what runs log.
const HEARING: Duration = Duration::from_secs(10);
/// How long they believe it, in milliseconds.
const HEARD: i64 = 25_000;

/// Somebody listens at a process to what runs log.
#[derive(Serialize, Deserialize)]
struct Hearing {
    from: Uuid,
    hears_logs_ms: i64,
}

/// An event on its way to other processes.
#[derive(Serialize, Deserialize)]
struct Letter {
    /// The process that it comes from.
    from: Uuid,
    id: Uuid,
    #[serde(flatten)]
    event: LiveEvent,
}

/// Listens for ever: each change of access makes the number larger, other processes' events come
/// into the hub.
pub async fn listen(store: Store, hub: Arc<EventHub>, access: watch::Sender<u64>) {
    let mut backoff = Duration::from_millis(50);
    loop {
        let Err(error) = follow(&store, &hub, &access, &mut backoff).await;
        tracing::debug!(%error, "other processes cannot be listened to; trying again");
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn follow(
    store: &Store,
    hub: &EventHub,
    access: &watch::Sender<u64>,
    backoff: &mut Duration,
) -> Result<std::convert::Infallible, StoreError> {
    let mut signals = store.listen_signals().await?;
    *backoff = Duration::from_millis(50);
    // Something may have been missed until now.
    access.send_modify(|number| *number += 1);
    loop {
        match signals.next().await? {
            Signal::Access | Signal::Reconnected => access.send_modify(|number| *number += 1),
            Signal::Event(text) => receive(hub, &text),
        }
    }
}

fn receive(hub: &EventHub, text: &str) {
    match serde_json::from_str::<Letter>(text) {
        Ok(letter) if letter.from != hub.process() => hub.receive(letter.id, letter.event),
        Ok(_) => {}
        Err(error) => match serde_json::from_str::<Hearing>(text) {
            Ok(hearing) if hearing.from != hub.process() => {
                hub.note_hearing(hearing.hears_logs_ms);
            }
            Ok(_) => {}
            // Another version's, most likely.
            Err(_) => tracing::debug!(%error, "an event of another process is not known"),
        },
    }
}

/// Tells other processes while somebody listens here to what runs log.
pub async fn tell_hearing(store: Store, hub: Arc<EventHub>) {
    let mut hearing = hub.hearing();
    loop {
        // The hub holds the other end.
        if hearing.wait_for(|count| *count > 0).await.is_err() {
            return;
        }
        // Others that come are not known at once; telling nobody costs next to nothing.
        let told = serde_json::to_string(&Hearing {
            from: hub.process(),
            hears_logs_ms: HEARD,
        });
        let told: Vec<String> = told.into_iter().collect();
        if let Err(error) = store.tell_events(&told).await {
            tracing::debug!(%error, "other processes are not told that logs are listened to");
        }
        tokio::time::sleep(HEARING).await;
    }
}

/// Tells other processes of this one's events, while there are others.
pub async fn forward(store: Store, hub: Arc<EventHub>, mut events: mpsc::Receiver<Told>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        if events.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        if batch.len() < BATCH {
            tokio::time::sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(event) = events.try_recv()
            {
                batch.push(event);
            }
        }
        let letters: Vec<String> = batch
            .iter()
            .filter_map(|told| letter(hub.process(), told))
            .collect();
        if let Err(error) = store.tell_events(&letters).await {
            tracing::debug!(%error, "events could not be told to other processes");
        }
    }
}

/// An event as text that fits; logs too long for that are left to the run's record.
fn letter(from: Uuid, told: &Told) -> Option<String> {
    let write = |event: LiveEvent| {
        let id = told.id;
        serde_json::to_string(&Letter { from, id, event }).ok()
    };
    let text = write(LiveEvent::clone(&told.event))?;
    if text.len() <= MAX_PAYLOAD {
        return Some(text);
    }
    match LiveEvent::clone(&told.event) {
        LiveEvent::Log(mut logged) => {
            logged.more += logged.lines.len();
            logged.lines.clear();
            write(LiveEvent::Log(logged))
        }
        LiveEvent::Deployment(mut deployment) => {
            // Of hundreds of apps: who watches one of them asks anyway when a deployment ends.
            deployment.apps.truncate(50);
            write(LiveEvent::Deployment(deployment))
        }
        _ => None,
    }
}
