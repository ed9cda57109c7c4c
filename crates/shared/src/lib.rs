//! The vocabulary of PiCloud: what the rooms say to each other.
//!
//! Types that cannot hold a bad value, and the ports (traits) through which the cores reach what
//! lies outside them. No I/O, no async runtime, no script engine: see `docs/ARCHITECTURE.md`.

pub mod access;
pub mod address_guard;
pub mod app;
pub mod clock;
pub mod data;
pub mod deployment;
pub mod diagnostic;
pub mod doc_filter;
pub mod drift;
pub mod duration;
pub mod event;
pub mod executor;
pub mod ids;
pub mod invocation;
pub mod limits;
pub mod live_event;
pub mod names;
pub mod outgoing;
pub mod peer;
pub mod plan;
pub mod redact;
pub mod route_pattern;
pub mod run;
pub mod script;
pub mod sdk;
pub mod snapshot;

pub use access::{Capability, KeyGrant, Principal, Scope};
pub use address_guard::AddressGuard;
pub use app::AppSpec;
pub use clock::{Clock, SystemClock};
pub use diagnostic::{Diagnostic, Severity};
pub use executor::{Executor, RunSink};
pub use ids::{AppId, DeploymentId, EventId, KeyId, NodeId, RunId, SourceId, TriggerId};
pub use invocation::{Invocation, Outcome, Reply};
pub use limits::{Limits, LimitsPatch};
pub use live_event::{EventSink, LiveEvent};
pub use names::{AppName, BlobId, CommitId, ScriptPath, SourceName, TriggerName};
pub use peer::Peer;
pub use plan::{LiveState, Plan};
pub use redact::Redactor;
pub use run::{RunRecord, RunStatus};
pub use snapshot::{AppSnapshot, Snapshot};
