//! What `Services` bundles: the implementations behind the ports through which scripts reach the
//! world. Knows the vocabulary and the store, and neither the engine nor the data plane.

mod docs;
mod events;
pub mod http;
mod kv;
pub mod secrets;
mod waiting;

use std::sync::Arc;

use picloud_shared::{Clock, sdk::Services};
use picloud_store::Store;

pub use docs::DocsServiceImpl;
pub use events::InvokeServiceImpl;
pub use http::{HttpOutcomes, HttpServiceImpl, SystemLookup};
pub use kv::{KvServiceImpl, sweep_expired};
pub use picloud_shared::AddressGuard;
pub use secrets::{SecretKeys, SecretsServiceImpl};

/// All services, and the counts of outgoing requests. Called from within a runtime, whose threads
/// do the waiting.
pub fn services(
    store: &Store,
    clock: &Arc<dyn Clock>,
    secrets: &Arc<SecretsServiceImpl>,
    guard: AddressGuard,
    version: &'static str,
) -> (Services, Arc<HttpOutcomes>) {
    let http = HttpServiceImpl::new(guard, Arc::new(SystemLookup), version);
    let outcomes = http.outcomes();
    let services = Services {
        kv: Arc::new(KvServiceImpl::new(store.clone(), Arc::clone(clock))),
        docs: Some(Arc::new(DocsServiceImpl::new(
            store.clone(),
            Arc::clone(clock),
        ))),
        secrets: Some(Arc::clone(secrets) as _),
        http: Some(Arc::new(http)),
        invoke: Some(Arc::new(InvokeServiceImpl::new(
            store.clone(),
            Arc::clone(clock),
        ))),
        live_logs: None,
    };
    (services, outcomes)
}
