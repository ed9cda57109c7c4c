//! The admin API: `/api/v1/admin/…`.
//!
//! Who may do a thing is decided before its body is read and before anybody learns whether it
//! exists: 401, then 403, then 404 or 422.

mod access;
mod answer;
mod apps;
mod dead_letters;
mod deployments;
mod drift;
mod keys;
mod plan;
mod runs;
mod schedule;
mod sources;
mod triggers;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use picloud_shared::{Clock, plan::LiveVersion};
use picloud_store::Store;
use serde::Deserialize;
use tokio::sync::watch;

use crate::{drift::DriftWatch, events::EventHub, sources::Sources};

pub(crate) use answer::Problem;

/// Bytes of an uploaded tree.
const MAX_TREE: usize = 64 << 20;

/// What the handlers share.
#[derive(Clone)]
pub struct AdminState {
    /// Where everything is kept.
    pub store: Store,
    /// For ids and times.
    pub clock: Arc<dyn Clock>,
    /// The sources that this process deploys.
    pub sources: Arc<Sources>,
    /// What happens, as it happens.
    pub events: Arc<EventHub>,
    /// Where live differs from git.
    pub drift: Arc<DriftWatch>,
    /// What is served.
    pub served: watch::Receiver<Option<LiveVersion>>,
    /// The server's version.
    pub version: &'static str,
    /// What secrets are sealed to.
    pub recipient: String,
    /// Whether an app owns a host name.
    pub owns_domain: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// The routes of the admin API and what stands beside it.
pub fn router(state: AdminState) -> Router {
    let admin = Router::new()
        .route("/me", get(keys::me))
        .route("/instance", get(keys::instance))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}", delete(keys::revoke))
        .route("/sources", get(sources::list))
        .route(
            "/sources/{source}",
            get(sources::show).put(sources::put).delete(sources::remove),
        )
        .route("/sources/{source}/sync", post(sources::sync))
        .route("/sources/{source}/suspend", post(sources::suspend))
        .route("/sources/{source}/resume", post(sources::resume))
        .route("/sources/{source}/rollback", post(sources::rollback))
        .route("/sources/{source}/heal", post(drift::heal_source))
        .route("/drift", get(drift::list))
        .route("/apps/{app}/drift", get(drift::show))
        .route("/apps/{app}/heal", post(drift::heal))
        .route("/deployments", get(deployments::list))
        .route("/deployments/{id}", get(deployments::show))
        .route("/deployments/{id}/approve", post(deployments::approve))
        .route(
            "/plan",
            post(plan::create).layer(axum::extract::DefaultBodyLimit::max(MAX_TREE)),
        )
        .route("/apps", get(apps::list))
        .route("/apps/{app}", get(apps::show))
        .route("/apps/{app}/scripts", get(apps::scripts))
        .route("/apps/{app}/scripts/{*path}", get(apps::script))
        .route("/apps/{app}/routes", get(apps::routes))
        .route("/apps/{app}/triggers", get(triggers::list))
        .route(
            "/apps/{app}/triggers/{trigger}",
            post(triggers::create)
                .patch(triggers::patch)
                .delete(triggers::remove),
        )
        .route("/apps/{app}/triggers/{trigger}/fire", post(triggers::fire))
        .route("/dead-letters", get(dead_letters::list))
        .route(
            "/dead-letters/{id}",
            get(dead_letters::show_one).delete(dead_letters::discard),
        )
        .route("/dead-letters/{id}/redrive", post(dead_letters::redrive))
        .route("/apps/{app}/env", get(apps::env))
        .route("/schedule", get(schedule::show))
        .route("/runs", get(runs::list))
        .route("/runs/{id}", get(runs::show));
    Router::new()
        .nest("/api/v1/admin", admin)
        .route("/api/v1/caddy/ask", get(ask))
        .fallback(answer::nothing_here)
        .method_not_allowed_fallback(answer::wrong_method)
        .with_state(state)
}

#[derive(Deserialize)]
struct Ask {
    domain: String,
}

/// Whether Caddy may get a certificate for a name: only while an app owns it.
async fn ask(State(state): State<AdminState>, Query(ask): Query<Ask>) -> StatusCode {
    let host = ask.domain.trim_end_matches('.').to_ascii_lowercase();
    if (state.owns_domain)(&host) {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}
