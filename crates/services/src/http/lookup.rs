//! From a name to the addresses that may be connected to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::FutureExt;
use picloud_shared::AddressGuard;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Finds the addresses of a name.
pub trait NameLookup: Send + Sync + 'static {
    /// All of them.
    fn lookup(&self, name: String) -> LookupFuture;
}

/// What [`NameLookup::lookup`] gives.
pub type LookupFuture =
    std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// As the system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl NameLookup for SystemLookup {
    fn lookup(&self, name: String) -> LookupFuture {
        async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        }
        .boxed()
    }
}

/// Checks every address of a name; what is connected to is what was checked.
pub(super) struct GuardedResolver {
    pub(super) guard: AddressGuard,
    pub(super) lookup: Arc<dyn NameLookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, lookup) = (self.guard, Arc::clone(&self.lookup));
        async move {
            let found = lookup.lookup(name.as_str().to_owned()).await?;
            for address in &found {
                guard.check(*address)?;
            }
            let addresses: Addrs =
                Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        }
        .boxed()
    }
}
