//! What `Services` bundles: the implementations behind the ports through which scripts reach the
//! world. Knows the vocabulary and the store, and neither the engine nor the data plane.

mod kv;
mod waiting;

use std::sync::Arc;

use picloud_shared::{Clock, sdk::Services};
use picloud_store::Store;

pub use kv::{KvServiceImpl, sweep_expired};

/// The services of this version: `kv`. Called from within a runtime, whose threads do the waiting.
pub fn services(store: &Store, clock: &Arc<dyn Clock>) -> Services {
    Services {
        kv: Arc::new(KvServiceImpl::new(store.clone(), Arc::clone(clock))),
        docs: None,
        secrets: None,
        http: None,
        invoke: None,
    }
}
