//! A process shows the others that it is there.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use picloud_manager_core::EventHub;
use picloud_orchestrator_core::SnapshotHolder;
use picloud_shared::Clock;
use picloud_store::{Store, nodes::NodeRecord};

/// How often. Rare enough to cost nothing; a node that is silent for a minute counts as gone.
const BEAT: Duration = Duration::from_secs(20);
const ALIVE: TimeDelta = TimeDelta::minutes(1);

/// Shows it for ever. While there are others, they are told of this one's events.
pub async fn run(
    store: Store,
    clock: Arc<dyn Clock>,
    holder: Arc<SnapshotHolder>,
    events: Arc<EventHub>,
    mut node: NodeRecord,
) {
    loop {
        node.seen_at = clock.now();
        node.generation = holder
            .watch()
            .borrow()
            .map_or(0, |served| served.generation);
        match store.note_node(&node, node.seen_at - ALIVE).await {
            Ok(others) => events.set_others(others > 0),
            Err(error) => tracing::debug!(%error, "the database is not told that this node lives"),
        }
        tokio::time::sleep(BEAT).await;
    }
}
