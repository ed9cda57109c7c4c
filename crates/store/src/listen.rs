//! What PostgreSQL tells without being asked.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock},
};

use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification},
};
use tokio::sync::Notify;

use crate::{Store, StoreError};

/// Channels of `NOTIFY`.
pub(crate) const GENERATION: &str = "picloud_generation";
pub(crate) const EDITED: &str = "picloud_edited";
const ACCESS: &str = "picloud_access";
const EVENTS: &str = "picloud_events";
pub(crate) const NOTIFICATIONS: &str = "picloud_notifications";
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

/// Tells dispatchers that events were written: the one of this process at once, the others by
/// one `NOTIFY` for as many as come while the last one is sent. Not in the transactions that write
/// them: PostgreSQL lets transactions that notify commit one after another only.
///
/// A script's thread writes events: what it would allocate for each, and another thread free, would
/// count against the memory of its app. So one task sends, and is only woken here.
#[derive(Debug)]
pub(crate) struct Teller {
    here: Notify,
    there: Notify,
    sender: OnceLock<()>,
    /// What this process tells others by, so as to know its own word when it hears it.
    name: String,
}

impl Default for Teller {
    fn default() -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        Self {
            here: Notify::default(),
            there: Notify::default(),
            sender: OnceLock::default(),
            name: format!("{random:016x}"),
        }
    }
}

impl Store {
    /// Events were written, and are committed.
    pub(crate) fn outbox_written(&self) {
        self.teller.sender.get_or_init(|| {
            let (pool, teller) = (self.pool().clone(), Arc::clone(&self.teller));
            tokio::spawn(tell_others(pool, teller));
        });
        self.teller.here.notify_one();
        self.teller.there.notify_one();
    }

    /// Waits until this process wrote events.
    pub async fn outbox_told_here(&self) {
        self.teller.here.notified().await;
    }
}

/// Tells other processes for ever: a store lives as long as its process.
async fn tell_others(pool: PgPool, teller: Arc<Teller>) {
    loop {
        teller.there.notified().await;
        let told = sqlx::query("SELECT pg_notify($1, $2)")
            .bind(OUTBOX)
            .bind(&teller.name)
            .execute(&pool)
            .await;
        if let Err(error) = told {
            tracing::debug!(%error, "other nodes were not told of events; they look by themselves");
        }
    }
}

/// A connection that listens.
#[derive(Debug)]
pub struct Notifications {
    listener: PgListener,
    /// What of it is this process's own word, of which it knows.
    own: Option<String>,
}

/// What another process tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A key or a session ended, or changed.
    Access,
    /// A live event, as that process wrote it.
    Event(String),
    /// The connection was lost and is there again; something may have been missed.
    Reconnected,
}

/// A connection that listens to other processes.
#[derive(Debug)]
pub struct Signals {
    listener: PgListener,
}

impl Signals {
    /// The next one; waits for it. After an error the caller listens anew.
    pub async fn next(&mut self) -> Result<Signal, StoreError> {
        Ok(match self.listener.try_recv().await? {
            None => Signal::Reconnected,
            Some(told) if told.channel() == EVENTS => Signal::Event(told.payload().to_owned()),
            Some(_) => Signal::Access,
        })
    }
}

impl Store {
    /// Listens for events that are written.
    pub async fn listen_outbox(&self) -> Result<Notifications, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen(OUTBOX).await?;
        let own = Some(self.teller.name.clone());
        Ok(Notifications { listener, own })
    }

    /// Listens for notifications that are written.
    pub async fn listen_notifications(&self) -> Result<Notifications, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen(NOTIFICATIONS).await?;
        Ok(Notifications {
            listener,
            own: None,
        })
    }

    /// Listens for what processes tell each other: changes of access, and live events.
    pub async fn listen_signals(&self) -> Result<Signals, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen_all([ACCESS, EVENTS]).await?;
        Ok(Signals { listener })
    }

    /// Tells other processes of live events, each a text of less than 8,000 bytes.
    pub async fn tell_events(&self, events: &[String]) -> Result<(), StoreError> {
        sqlx::query!(
            r#"SELECT pg_notify('picloud_events', event) AS "told: ()" FROM unnest($1::text[]) AS told (event)"#,
            events,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(())
    }

    /// Listens for changes of the live configuration.
    pub async fn listen(&self) -> Result<Notifications, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen_all([GENERATION, EDITED]).await?;
        Ok(Notifications {
            listener,
            own: None,
        })
    }
}

impl Notifications {
    /// Waits for something that this process doesn't know of, and takes all others that are there already: one look serves for all.
    pub async fn next_of_many(&mut self) -> Result<(), StoreError> {
        loop {
            let told = self.listener.try_recv().await?;
            let mut is_news = told.is_none_or(|told| !self.is_own(&told));
            while let Some(told) = self.listener.next_buffered() {
                is_news |= !self.is_own(&told);
            }
            if is_news {
                return Ok(());
            }
        }
    }

    fn is_own(&self, told: &PgNotification) -> bool {
        self.own.as_deref() == Some(told.payload())
    }

    /// The next one; waits for it. After an error the caller listens anew.
    pub async fn next(&mut self) -> Result<Notification, StoreError> {
        match self.listener.try_recv().await? {
            None => Ok(Notification::Reconnected),
            Some(told) if told.channel() == EDITED => Ok(Notification::Edited),
            Some(_) => Ok(Notification::Generation),
        }
    }
}
