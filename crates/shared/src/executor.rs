//! The ports between the data plane and what runs scripts.

use std::{future::Future, pin::Pin, sync::Arc};

use serde_json::Value;

use crate::{
    access::Principal,
    invocation::{Invocation, Outcome},
    names::{AppName, CommitId, ScriptPath},
    run::{RunRecord, RunStatus},
    snapshot::AppSnapshot,
};

/// A future that the executor gives; it never panics and always ends within the run's deadline
/// and 200 ms.
pub type ExecuteFuture<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Runs scripts. Admission is the caller's; isolation and limits are the executor's.
pub trait Executor: Send + Sync {
    /// Runs one script to its end.
    fn execute(&self, invocation: Invocation) -> ExecuteFuture<'_>;

    /// Compiles what an app needs, before requests come for it. Cheap where nothing changed.
    fn prepare(&self, app: &Arc<AppSnapshot>);
}

/// Where runs are counted and recorded. Never waits: a record that finds no room is shed and the
/// shedding counted; the count of runs is exact in any case.
pub trait RunSink: Send + Sync {
    /// Whether a record of such a run is wanted. Counting is separate, and always done.
    fn wants(&self, app: &AppSnapshot, status: RunStatus, duration_ms: f64) -> bool;

    /// Keeps a record.
    fn record(&self, record: RunRecord);
}

/// A future that [`FormerApps`] gives.
pub type FormerFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Arc<AppSnapshot>, String>> + Send + 'a>>;

/// Apps as former commits of their source have them: what a replay runs on that is pinned to its
/// original commit. Only who reads git can tell.
pub trait FormerApps: Send + Sync {
    /// The app as of that commit; an error says, for people, why there is none.
    fn app<'a>(&'a self, live: &'a AppSnapshot, commit: &'a CommitId) -> FormerFuture<'a>;
}

/// A handler to be run now, on somebody's behalf.
#[derive(Debug, Clone)]
pub struct DirectCall {
    /// Whose handler.
    pub app: AppName,
    /// Which.
    pub script: ScriptPath,
    /// `ctx.event.payload`
    pub payload: Value,
    /// On whose behalf.
    pub principal: Principal,
}

/// What came of a direct call.
#[derive(Debug, Clone)]
pub struct DirectAnswer {
    /// The run's record.
    pub record: RunRecord,
    /// The handler's value, where it gave one.
    pub answer: Option<Value>,
}

/// A future that [`DirectRuns`] gives.
pub type DirectFuture<'a> =
    Pin<Box<dyn Future<Output = Result<DirectAnswer, NoSuchHandler>> + Send + 'a>>;

/// Why a direct call could not be made: the app is not served here, or has no such handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSuchHandler(pub String);

/// Runs handlers for the control plane, which knows no executor.
pub trait DirectRuns: Send + Sync {
    /// Runs a handler to its end, counts it and keeps its record.
    fn run(&self, call: DirectCall) -> DirectFuture<'_>;
}
