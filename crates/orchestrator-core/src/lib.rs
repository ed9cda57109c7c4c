//! The data plane of a node: it serves the snapshot that it holds, whatever becomes of the
//! database, of git or of the control plane. Knows no manifest, no git and no script engine.

mod async_request;
mod dev;
mod direct;
mod disk;
mod dispatcher;
mod follow;
mod holder;
mod ingress;
mod live_logs;
mod metrics;
mod problem;
mod recorder;
mod request_record;
mod routes;
mod serve;
mod static_files;
mod stats;

pub use dev::DevNotes;
pub use direct::Direct;
pub use dispatcher::Dispatcher;
pub use follow::follow;
pub use holder::{Served, SnapshotHolder};
pub use ingress::{Ingress, IngressOptions, SecretLookup};
pub use live_logs::{LogTap, SecretsOf, Tapped};
pub use metrics::{Gauges, OutgoingCounts};
pub use problem::problem;
pub use recorder::{Pending, Recorder, RecorderOptions};
pub use serve::serve;
