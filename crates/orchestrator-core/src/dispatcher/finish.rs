//! Results on the way to the database: in batches, as large as they come while the last one is
//! written.

use std::{collections::HashSet, sync::Arc, time::Duration};

use picloud_store::{
    StoreError,
    outbox::{Finished, LeaseId},
};
use tokio::sync::mpsc;

use super::{Dispatcher, MAX_BACKOFF, Running};

/// Results of one transaction.
const BATCH: usize = 512;

/// Writes results until nobody sends any more.
pub(super) async fn finish(running: Arc<Running>, mut results: mpsc::Receiver<Finished>) {
    let this = Arc::clone(&running.dispatcher);
    let mut batch = Vec::new();
    while results.recv_many(&mut batch, BATCH).await > 0 {
        write(&this, &batch).await;
        let mut own = running.own.lock();
        for done in batch.drain(..) {
            own.remove(&done.event.id.0);
        }
        drop(own);
        // Room was made, or a time for another attempt is known.
        running.settled.notify_one();
    }
}

async fn write(this: &Dispatcher, batch: &[Finished]) {
    match keep_trying(this, batch).await {
        Ok(held) => told(this, batch, &held),
        Err(error) if batch.len() > 1 => {
            tracing::warn!(%error, events = batch.len(), "results of events were refused by the database; writing them one by one");
            for done in batch {
                write_one(this, done).await;
            }
        }
        Err(_) => write_one(this, &batch[0]).await,
    }
}

/// A result that the database refuses is written without what its script made up: the event must
/// end.
async fn write_one(this: &Dispatcher, done: &Finished) {
    let one = std::slice::from_ref(done);
    let error = match keep_trying(this, one).await {
        Ok(held) => return told(this, one, &held),
        Err(error) => error,
    };
    let mut bare = done.clone();
    if let Some(record) = &mut bare.record {
        record.dropped_logs += record.logs.len() as u64;
        record.logs.clear();
        record.input = serde_json::json!({});
        if let Some(error) = &mut record.error {
            "the error's text could not be kept".clone_into(&mut error.message);
        }
    }
    let bare = [bare];
    match keep_trying(this, &bare).await {
        Ok(held) => {
            tracing::error!(event = %done.event.id, %error, "the record of an event was refused by the database, and kept without its logs and its input");
            told(this, &bare, &held);
        }
        Err(error) => {
            tracing::error!(event = %done.event.id, %error, "the result of an event was refused by the database; it runs again when its lease ends");
        }
    }
}

/// Waits for a database that is away.
async fn keep_trying(this: &Dispatcher, batch: &[Finished]) -> Result<Vec<LeaseId>, StoreError> {
    let mut backoff = Duration::from_millis(50);
    loop {
        match this.store.finish_events(batch, &this.clock).await {
            Err(error) if error.is_unavailable() => {
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
            other => return other,
        }
    }
}

fn told(this: &Dispatcher, batch: &[Finished], held: &[LeaseId]) {
    let held: HashSet<&LeaseId> = held.iter().collect();
    for done in batch {
        if !held.contains(&done.event.lease()) {
            tracing::warn!(event = %done.event.id, "a late result was refused: the event's lease was lost");
            continue;
        }
        if let Some(record) = &done.record {
            this.recorder.settled(&this.holder, record);
        }
    }
}
