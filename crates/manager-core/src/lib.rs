//! The control plane: it watches git, reconciles what git declares into PostgreSQL, and answers
//! the admin API. Knows no script engine and serves no endpoint.

pub mod admin;
pub mod git;
pub mod keys;
pub mod reconcile;
pub mod watch;

pub use admin::{AdminState, router};
pub use reconcile::{Deployer, DeployerOptions, Finished};
