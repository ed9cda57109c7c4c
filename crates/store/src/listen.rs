//! What PostgreSQL tells without being asked.

use sqlx::postgres::PgListener;

use crate::{Store, StoreError};

/// Channels of `NOTIFY`.
pub(crate) const GENERATION: &str = "picloud_generation";
const EDITED: &str = "picloud_edited";
pub(crate) const OUTBOX: &str = "picloud_outbox";

/// One thing that PostgreSQL told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    /// A deployment was applied.
    Generation,
    /// Live configuration was changed by something else.
    Edited,
    /// The connection was lost and is there again; something may have been missed.
    Reconnected,
}

/// A connection that listens.
#[derive(Debug)]
pub struct Notifications {
    listener: PgListener,
}

impl Store {
    /// Listens for events that are written.
    pub async fn listen_outbox(&self) -> Result<Notifications, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen(OUTBOX).await?;
        Ok(Notifications { listener })
    }

    /// Listens for changes of the live configuration.
    pub async fn listen(&self) -> Result<Notifications, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen_all([GENERATION, EDITED]).await?;
        Ok(Notifications { listener })
    }
}

impl Notifications {
    /// The next one; waits for it. After an error the caller listens anew.
    pub async fn next(&mut self) -> Result<Notification, StoreError> {
        match self.listener.try_recv().await? {
            None => Ok(Notification::Reconnected),
            Some(told) if told.channel() == EDITED => Ok(Notification::Edited),
            Some(_) => Ok(Notification::Generation),
        }
    }
}
