//! Time and identifiers come through a port, so that tests own both.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// The wall clock, and the ids that are made from it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> DateTime<Utc>;

    /// A new UUIDv7 (RFC 9562 section 5.7): later ids sort after earlier ones of this process.
    fn new_id(&self) -> Uuid;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where ambient time enters"
)]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
