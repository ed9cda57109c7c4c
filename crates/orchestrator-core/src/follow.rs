//! Keeps the node at what is live: loads it at start, then whatever changes, as it is told.

use std::{sync::Arc, time::Duration};

use picloud_shared::{Executor, plan::LiveVersion};
use picloud_store::{Store, StoreError};

use crate::holder::SnapshotHolder;

/// Told or not, it looks this often: a notification can be lost, a look costs one query.
const SWEEP: Duration = Duration::from_mins(5);
/// The longest wait for a database that is away.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Follows the live configuration for ever. Without the database the node serves what it has.
pub async fn follow(store: Store, holder: Arc<SnapshotHolder>, executor: Arc<dyn Executor>) {
    let mut backoff = Duration::from_millis(50);
    // What was kept on disk may be of another database: it is replaced whole at first.
    let mut since = None;
    loop {
        match listen(&store, &holder, &executor, &mut since, &mut backoff).await {
            Ok(never) => match never {},
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, "the database is away; serving what was live");
            }
            Err(error) => {
                tracing::error!(%error, "the live configuration cannot be loaded; serving what was live");
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn listen(
    store: &Store,
    holder: &Arc<SnapshotHolder>,
    executor: &Arc<dyn Executor>,
    since: &mut Option<LiveVersion>,
    backoff: &mut Duration,
) -> Result<std::convert::Infallible, StoreError> {
    let mut told = store.listen().await?;
    loop {
        load(store, holder, executor, since).await?;
        *backoff = Duration::from_millis(50);
        // An elapsed sweep is a reason to look like any other.
        if let Ok(told) = tokio::time::timeout(SWEEP, told.next()).await {
            told?;
        }
    }
}

async fn load(
    store: &Store,
    holder: &Arc<SnapshotHolder>,
    executor: &Arc<dyn Executor>,
    since: &mut Option<LiveVersion>,
) -> Result<(), StoreError> {
    let version = store.live_version().await?;
    if *since == Some(version) {
        return Ok(());
    }
    let delta = store.load_snapshot(*since).await?;
    if delta.version == LiveVersion::default() {
        return Ok(());
    }
    *since = Some(delta.version);
    let (holder, executor) = (Arc::clone(holder), Arc::clone(executor));
    // Writes files and compiles scripts: not on a thread that has requests.
    let done = tokio::task::spawn_blocking(move || {
        for app in &delta.changed {
            executor.prepare(&Arc::new(app.clone()));
        }
        holder.update(delta);
    });
    done.await
        .map_err(|error| StoreError::Corrupt(error.to_string()))
}
