//! One look for work: what is due is leased, and where there is no more, when there will be.

use std::{future::Future, pin::Pin};

use chrono::{DateTime, Utc};
use picloud_shared::NodeId;
use picloud_store::{
    StoreError,
    outbox::{LeaseRequest, LeasedEvent, Leasing},
};

/// A look that is under way.
pub(super) type Looking = Pin<Box<dyn Future<Output = Result<Looked, StoreError>> + Send>>;

/// What a look found.
pub(super) struct Looked {
    /// For the next look.
    pub(super) leasing: Leasing,
    /// What was leased.
    pub(super) events: Vec<LeasedEvent>,
    /// Whether there may be more.
    pub(super) more: bool,
    /// When something is to be looked at that nobody tells of; not asked where there may be more.
    pub(super) next: Option<DateTime<Utc>>,
}

/// Looks. A lost connection ends with it.
pub(super) fn look(
    mut leasing: Leasing,
    node: NodeId,
    request: LeaseRequest,
    now: DateTime<Utc>,
) -> Looking {
    Box::pin(async move {
        let events = leasing.lease(node, &request, now).await?;
        let more = i32::try_from(events.len()).is_ok_and(|count| count == request.most);
        let next = if more {
            None
        } else {
            // What became due after `now` isn't known yet.
            leasing.next_due(node, now).await?
        };
        Ok(Looked {
            leasing,
            events,
            more,
            next,
        })
    })
}

/// Waits for the end of a look; without one, for ever.
pub(super) async fn ended(looking: &mut Option<Looking>) -> Result<Looked, StoreError> {
    let Some(running) = looking else {
        return std::future::pending().await;
    };
    let looked = running.await;
    *looking = None;
    looked
}
