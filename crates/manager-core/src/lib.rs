//! The control plane: it watches git, reconciles what git declares into PostgreSQL, and answers
//! the admin API. Knows no script engine and serves no endpoint.

pub mod admin;
pub mod cron;
pub mod drift;
pub mod events;
pub mod forge;
pub mod former;
pub mod git;
pub mod hosting;
pub mod keys;
pub mod live_cache;
pub mod mirror;
pub mod notifications;
pub mod oidc;
pub mod origin;
pub mod previews;
pub mod pulls;
pub mod reconcile;
pub mod signals;
pub mod signatures;
pub mod sources;
pub mod watch;
pub mod webhooks;
pub mod work_tree;

pub use admin::{AdminState, router};
pub use drift::DriftWatch;
pub use events::EventHub;
pub use former::Former;
pub use hosting::HostingState;
pub use notifications::Notifier;
pub use reconcile::{Deployer, DeployerOptions, Finished, Probe};
pub use signatures::Signers;
pub use sources::Sources;
