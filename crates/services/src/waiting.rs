//! How a synchronous call of a script waits for the database: within its run's time, and without
//! holding up whatever else its thread has to do.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use picloud_shared::{
    data,
    sdk::{SdkError, SdkErrorCode, SdkResult},
};
use picloud_store::StoreError;
use tokio::runtime::{Handle, RuntimeFlavor};

/// A database that doesn't answer for so long isn't there: it is stopped, or the way to it is cut.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a run has left for saying so.
const MARGIN: Duration = Duration::from_millis(100);

/// Waits for `future` until `deadline`, and turns what may go wrong into what a script is told.
pub(crate) fn wait<T>(
    deadline: Instant,
    future: impl Future<Output = Result<T, StoreError>>,
) -> SdkResult<T> {
    let left = deadline.saturating_duration_since(Instant::now());
    let silent = left > PATIENCE + MARGIN;
    let patience = if silent {
        left.saturating_sub(MARGIN)
    } else {
        left
    };
    let bounded = tokio::time::timeout(patience, future);
    match block(bounded)? {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(told(&error)),
        Err(_) if silent => Err(SdkError::new(
            SdkErrorCode::Unavailable,
            "the database does not answer",
        )),
        Err(_) => Err(SdkError::new(
            SdkErrorCode::Timeout,
            "the run's time was up while it waited for the database",
        )),
    }
}

/// Waits for a future that keeps its own time.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> SdkResult<T> {
    let handle = Handle::try_current()
        .map_err(|_| SdkError::new(SdkErrorCode::Unavailable, "the server is stopping"))?;
    match handle.runtime_flavor() {
        RuntimeFlavor::MultiThread => Ok(tokio::task::block_in_place(|| handle.block_on(future))),
        _ => Err(SdkError::new(
            SdkErrorCode::Unavailable,
            "this runtime cannot wait",
        )),
    }
}

/// A script is told what it can act on; the rest is logged for the operator.
fn told(error: &StoreError) -> SdkError {
    if error.is_unavailable() {
        return SdkError::new(SdkErrorCode::Unavailable, "the database is not available");
    }
    match error.sql_state().as_deref() {
        // invalid_text_representation, numeric_value_out_of_range: `incr` on what is no integer.
        Some("22P02" | "22003") => data::not_an_integer(),
        // untranslatable_character: a NUL inside a text.
        Some("22P05" | "22021") => data::holds_nul(),
        _ => {
            tracing::error!(error = %error, "a call of a script to the database failed");
            SdkError::new(
                SdkErrorCode::Failed,
                "the database refused the call; the server's log says why",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_does_not_answer_is_away_unless_the_run_gave_it_no_time() {
        let waited = |ms: u64| {
            let deadline = Instant::now() + Duration::from_millis(ms);
            let never = std::future::pending::<Result<(), StoreError>>();
            wait(deadline, never).expect_err("nothing comes").code
        };
        assert_eq!(waited(1_300), SdkErrorCode::Unavailable);
        assert_eq!(waited(100), SdkErrorCode::Timeout);
    }
}
