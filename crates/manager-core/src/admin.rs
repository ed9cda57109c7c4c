//! The admin API: `/api/v1/admin/…`.
//!
//! Who may do a thing is decided before its body is read and before anybody learns whether it
//! exists: 401, then 403, then 404 or 422.

mod access;
mod across;
mod answer;
mod api;
mod apps;
mod audit;
mod dead_letters;
mod deployments;
mod device;
mod diffs;
mod drift;
mod etag;
mod events;
mod instance;
mod keys;
pub mod openapi;
mod operations;
mod people;
mod plan;
mod previews;
mod replay;
mod runs;
mod schedule;
mod session;
mod sign_in;
mod sources;
mod stats;
mod triggers;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
};
use chrono::{DateTime, Utc};
use picloud_shared::{AppSpec, Clock, Redactor, executor::DirectRuns, plan::LiveVersion};
use picloud_store::Store;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore, watch};

use self::{
    access::Anyone,
    operations::{routes, routes_beside},
    session::LoginThrottle,
};
use crate::{
    drift::DriftWatch, events::EventHub, live_cache::LiveCache, oidc::Oidc, previews::Previews,
    pulls::Pulls, sources::Sources,
};

pub(crate) use answer::Problem;

/// Bytes of an uploaded tree.
const MAX_TREE: usize = 64 << 20;
/// Streams of events that may be open at once.
const MAX_STREAMS: usize = 256;

/// What the handlers share.
#[derive(Clone)]
pub struct AdminState {
    /// Where everything is kept.
    pub store: Store,
    /// For ids and times.
    pub clock: Arc<dyn Clock>,
    /// The sources that this process deploys.
    pub sources: Arc<Sources>,
    /// Branches and pull requests as apps of their own.
    pub previews: Arc<Previews>,
    /// What forges are told.
    pub pulls: Arc<Pulls>,
    /// What happens, as it happens.
    pub events: Arc<EventHub>,
    /// Where live differs from git.
    pub drift: Arc<DriftWatch>,
    /// Runs handlers for whoever asks.
    pub direct: Arc<dyn DirectRuns>,
    /// What is served.
    pub served: watch::Receiver<Option<LiveVersion>>,
    /// The server's version.
    pub version: &'static str,
    /// What secrets are sealed to.
    pub recipient: String,
    /// What takes an app's secrets out of what is shown.
    pub secrets: Arc<dyn Fn(&AppSpec) -> Redactor + Send + Sync>,
    /// Who people sign in by without a key, if by anybody.
    pub oidc: Option<Arc<Oidc>>,
    /// Whether an app owns a host name.
    pub owns_domain: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// When this process was started.
    pub started_at: DateTime<Utc>,
    /// Rises when a key or a session ends or changes, on any node.
    pub access: watch::Receiver<u64>,
    /// True once the server is to end: what is open must not keep it.
    pub stop: watch::Receiver<bool>,
    /// What the handlers keep among themselves.
    pub kept: Arc<Kept>,
}

/// What the handlers keep among themselves.
pub struct Kept {
    /// Wrong keys, by address.
    throttle: LoginThrottle,
    /// Programs that ask to be let in, by address.
    logins: LoginThrottle,
    /// The live configuration, until it changes.
    live: LiveCache,
    /// Streams of events that may be open at once.
    streams: Arc<Semaphore>,
    /// One conditional write after the other: between the look and the write nobody comes.
    writes: Mutex<()>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            throttle: LoginThrottle::default(),
            logins: LoginThrottle::default(),
            live: LiveCache::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            writes: Mutex::default(),
        }
    }
}

/// The routes of the admin API and what stands beside it.
pub fn router(state: AdminState) -> Router {
    let (admin, _) = routes().into_parts();
    let (beside, _) = routes_beside().into_parts();
    let ids = Arc::clone(&state.clock);
    Router::new()
        .nest("/api/v1/admin", admin.fallback(answer::nothing_behind))
        .nest("/api/v1", beside)
        .merge(openapi::router())
        .fallback(answer::nothing_here)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(axum::middleware::from_fn(move |request, next| {
            let ids = Arc::clone(&ids);
            answer::dress(move || ids.new_id().to_string(), request, next)
        }))
        .with_state(state)
}

#[derive(Deserialize)]
struct Ask {
    domain: String,
}

/// Whether Caddy may get a certificate for a name: only while an app owns it.
async fn ask(State(state): State<AdminState>, _: Anyone, Query(ask): Query<Ask>) -> StatusCode {
    let host = ask.domain.trim_end_matches('.').to_ascii_lowercase();
    if (state.owns_domain)(&host) {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}
