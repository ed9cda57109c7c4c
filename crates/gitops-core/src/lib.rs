//! From files to a plan, and nothing else: no I/O, no clock, no randomness.
//!
//! A tree goes in by [`TreeReader`]; out come the desired state and every finding, at once. The
//! planner compares it with what is live and decides everything; applying has no choices left.

pub mod adopt;
mod decode;
pub mod diff;
pub mod drift;
pub mod live_trigger;
mod load;
mod manifest;
mod planner;
pub mod preview;
pub mod render;
pub mod review;
pub mod schedule;
pub mod schema;
mod tree;
pub mod units;
mod windows;
mod yaml;
mod yaml_edit;
mod yaml_write;

pub use load::{LoadCache, LoadOptions, Loaded, dependents, load};
pub use manifest::{Notification, PreviewOptions, SourceSettings, Window, app_name, check_place};
pub use planner::{check_desired, plan};
pub use review::Review;
pub use tree::{EntryKind, MapTree, ReadError, TreeEntry, TreeReader};
pub use windows::Opening;
