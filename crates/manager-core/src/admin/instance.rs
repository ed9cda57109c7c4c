//! The server itself.

use axum::{Json, extract::State};
use chrono::TimeDelta;
use picloud_shared::Scope;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Authorized, InstanceView},
    answer::Answer,
    keys::time,
};

/// A node that was silent for longer is not there any more.
const ALIVE: TimeDelta = TimeDelta::minutes(1);

/// What a client needs to know of the server; nodes and the database to who runs it.
pub(super) async fn show(
    State(state): State<AdminState>,
    caller: Authorized<InstanceView>,
) -> Answer {
    let served = *state.served.borrow();
    let now = state.clock.now();
    let mut shown = json!({
        "version": state.version,
        "recipient": state.recipient,
        "generation": served.map(|served| served.generation),
        "edits": served.map(|served| served.edits),
        "started_at": time(state.started_at),
        "uptime_seconds": (now - state.started_at).num_seconds().max(0),
    });
    let runs_it = caller.grant.scopes.contains(&Scope::InstanceAdmin) && caller.only().is_none();
    if runs_it {
        let database = state.store.database_info().await?;
        let pool = state.store.pool_status();
        shown["database"] = json!({
            "version": database.version,
            "size": database.size,
            "connections": pool.size,
            "idle_connections": pool.idle,
        });
        let nodes = state.store.nodes(now - ALIVE).await?;
        let nodes: Vec<Value> = nodes
            .iter()
            .map(|node| {
                json!({
                    "id": node.id,
                    "roles": node.roles,
                    "version": node.version,
                    "generation": node.generation,
                    "started_at": time(node.started_at),
                    "seen_at": time(node.seen_at),
                })
            })
            .collect();
        shown["nodes"] = nodes.into();
    }
    Ok(Json(shown))
}
