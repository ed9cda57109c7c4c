//! All SQL of PiCloud, one file a table family, and the migrations, embedded.
//!
//! Rows become types of the vocabulary here, so that no other room knows a column.

mod app_names;
pub mod app_stats;
pub mod apply;
pub mod audit;
mod contents;
pub mod cron;
pub mod dead_letters;
pub mod deployments;
pub mod docs;
pub mod drift;
mod error;
mod gather;
pub mod keys;
pub mod kv;
mod kv_together;
mod listen;
mod live;
mod live_rows;
pub mod logins;
pub mod nodes;
pub mod notifications;
pub mod outbox;
pub mod page;
pub mod people;
pub mod previews;
mod pruned;
pub mod pulls;
pub mod runs;
mod sealed;
pub mod sessions;
pub mod snapshot;
pub mod sources;
pub mod stats;
pub mod triggers;
pub mod webhooks;

use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    migrate::{Migrate, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use apply::{Applied, Apply, ApplyError, Blob, Declared, DesiredChange};
pub use error::StoreError;
pub use listen::{Notification, Notifications, Signal, Signals};
pub use page::Page;
pub use snapshot::SnapshotDelta;
pub use sources::{Forge, SourceKind, SourceRecord};

/// The migrations of this version: forward only.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// How the pool of connections behaves.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Connections at the most.
    pub max_connections: u32,
    /// How long a caller waits for one.
    pub acquire_timeout: Duration,
}

/// What the pool holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections that are open.
    pub size: u32,
    /// Those of them that nobody uses.
    pub idle: usize,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    teller: Arc<listen::Teller>,
    checked: contents::Checked,
    sealing: sealed::Sealing,
    kv_reads: gather::Gatherer<kv_together::Read>,
    kv_writes: gather::Gatherer<kv_together::Write>,
}

impl Store {
    /// Connects, and says what is wrong where that fails.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let pool = pool_options(options)
            .connect_with(connect_options(url)?)
            .await?;
        Ok(Self::on(pool))
    }

    /// A store that connects when it is first asked: a node starts with the database away.
    pub fn connect_lazy(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let pool = pool_options(options).connect_lazy_with(connect_options(url)?);
        Ok(Self::on(pool))
    }

    fn on(pool: PgPool) -> Self {
        Self {
            pool,
            teller: Arc::default(),
            checked: contents::Checked::default(),
            sealing: sealed::Sealing::default(),
            kv_reads: gather::Gatherer::default(),
            kv_writes: gather::Gatherer::default(),
        }
    }

    /// Applies what is pending. Safe beside others that do the same: the database is locked for it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATOR.run(&self.pool).await?;
        Ok(())
    }

    /// The migrations that the database lacks, in order.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        connection
            .ensure_migrations_table("_sqlx_migrations")
            .await?;
        let applied = connection
            .list_applied_migrations("_sqlx_migrations")
            .await?;
        Ok(MIGRATOR
            .iter()
            .filter(|migration| !applied.iter().any(|done| done.version == migration.version))
            .map(|migration| {
                format!(
                    "{:04}_{}",
                    migration.version,
                    migration.description.replace(' ', "_")
                )
            })
            .collect())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// What the pool holds now.
    pub fn pool_status(&self) -> PoolStatus {
        PoolStatus {
            size: self.pool.size(),
            idle: self.pool.num_idle(),
        }
    }

    /// Closes all connections, once they are returned.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}

fn connect_options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    Ok(options
        .application_name("picloud")
        .statement_cache_capacity(256))
}

fn pool_options(options: StoreOptions) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(options.acquire_timeout)
        // A ping before each use would double the round trips; a dead connection shows itself.
        .test_before_acquire(false)
        .idle_timeout(Duration::from_mins(10))
        .max_lifetime(None)
}
