//! The live configuration, kept for as long as nobody changes it.

use std::sync::Arc;

use picloud_shared::plan::LiveState;
use picloud_store::{Store, StoreError};
use tokio::sync::Mutex;

/// Asks for the version each time, and for the rest only where that is another.
#[derive(Default)]
pub struct LiveCache {
    kept: Mutex<Option<Arc<LiveState>>>,
}

impl LiveCache {
    /// What is live now.
    pub async fn get(&self, store: &Store) -> Result<Arc<LiveState>, StoreError> {
        // Held while it is loaded: who comes meanwhile needs the same.
        let mut kept = self.kept.lock().await;
        let version = store.live_version().await?;
        if let Some(live) = kept.as_ref().filter(|live| live.version == version) {
            return Ok(Arc::clone(live));
        }
        let live = Arc::new(store.load_live().await?);
        *kept = Some(Arc::clone(&live));
        Ok(live)
    }
}
