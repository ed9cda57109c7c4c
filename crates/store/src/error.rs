//! What can go wrong between PiCloud and PostgreSQL.

use std::sync::Arc;

use sqlx::migrate::MigrateError;

/// An error of the database, or of what it holds.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused, or could not be reached.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date: {0}")]
    Migrate(#[from] MigrateError),
    /// A row holds what no version of PiCloud writes.
    #[error("the database holds what PiCloud cannot read: {0}")]
    Corrupt(String),
    /// A cursor that this list did not give.
    #[error("the cursor is not one that this list gave")]
    BadCursor,
    /// The statement that was asked together for several callers failed for all of them.
    #[error("{0}")]
    Shared(Arc<StoreError>),
}

impl StoreError {
    /// Whether the database is away, so that trying again later makes sense.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Database(error) | Self::Migrate(MigrateError::Execute(error)) => {
                is_unavailable(error)
            }
            Self::Shared(error) => error.is_unavailable(),
            _ => false,
        }
    }

    /// The five-character code of PostgreSQL's appendix A, where PostgreSQL answered.
    pub fn sql_state(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().map(std::borrow::Cow::into_owned)
            }
            Self::Shared(error) => error.sql_state(),
            _ => None,
        }
    }

    /// The constraint that was violated.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.constraint(),
            Self::Shared(error) => error.constraint(),
            _ => None,
        }
    }
}

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Class 08: connection; 57P: the server stops or starts; 53: it lacks resources; 3D000: the
        // database is not there yet.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || code.starts_with("57P") || code.starts_with("53")
        }),
        _ => false,
    }
}
