//! Hosted repositories: smart HTTP by the installed git, and hooks that ask this process.

mod hooks;
mod http;
mod options;
mod told;
pub(crate) mod upkeep;

use std::{path::PathBuf, sync::Arc};

use picloud_shared::Clock;
use picloud_store::Store;

use crate::{previews::Previews, sources::Sources};

pub use hooks::{HookRequest, PHASES, RefUpdate, listen};
pub(crate) use http::base_url;
pub use http::router;

/// What hosting needs.
#[derive(Clone)]
pub struct HostingState {
    /// For keys.
    pub store: Store,
    /// For times.
    pub clock: Arc<dyn Clock>,
    /// Whose repositories.
    pub sources: Arc<Sources>,
    /// What is shown of other branches.
    pub previews: Arc<Previews>,
    /// Where hooks reach this process.
    pub socket: PathBuf,
    /// The folder of the hooks.
    pub hooks: PathBuf,
}
