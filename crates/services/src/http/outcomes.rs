//! What became of outgoing requests, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use picloud_shared::sdk::{HttpAnswer, SdkErrorCode, SdkResult};

/// The categories, as metrics name them: answers by the class of their status, and refusals and
/// failures by the code that the script is thrown.
const CATEGORIES: [&str; 9] = [
    "answered",
    "client_error",
    "server_error",
    "blocked",
    "timeout",
    "too_large",
    "invalid",
    "forbidden",
    "failed",
];

/// How many requests ended how.
#[derive(Debug, Default)]
pub struct HttpOutcomes([AtomicU64; CATEGORIES.len()]);

impl HttpOutcomes {
    pub(super) fn count(&self, outcome: &SdkResult<HttpAnswer>) {
        let category = match outcome {
            Ok(answer) if answer.status >= 500 => "server_error",
            Ok(answer) if answer.status >= 400 => "client_error",
            Ok(_) => "answered",
            Err(error) => match error.code {
                SdkErrorCode::Blocked => "blocked",
                SdkErrorCode::Timeout => "timeout",
                SdkErrorCode::TooLarge => "too_large",
                SdkErrorCode::Invalid => "invalid",
                SdkErrorCode::Forbidden => "forbidden",
                SdkErrorCode::Conflict
                | SdkErrorCode::Unavailable
                | SdkErrorCode::NotFound
                | SdkErrorCode::Failed => "failed",
            },
        };
        if let Some(at) = CATEGORIES.iter().position(|known| *known == category) {
            self.0[at].fetch_add(1, Relaxed);
        }
    }

    /// The categories with their counts.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        CATEGORIES.into_iter().zip(counts).collect()
    }
}
