//! What a run may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits that hold for a run: every axis has a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall-clock time of a run, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes that a run may hold at once.
    pub memory: u64,
    /// Operations of the script engine.
    pub operations: u64,
    /// Runs of the app at the same time.
    pub concurrency: u32,
    /// Bytes of a request's body.
    pub request_body: u64,
    /// Bytes of an answer's body.
    pub response_body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_ms: 5_000,
            memory: 64 << 20,
            operations: 50_000_000,
            concurrency: 32,
            request_body: 1 << 20,
            response_body: 6 << 20,
        }
    }
}

impl Limits {
    /// The wall-clock time of a run.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// These limits with what `patch` sets in their place.
    pub fn with(&self, patch: &LimitsPatch) -> Self {
        Self {
            timeout_ms: patch.timeout_ms.unwrap_or(self.timeout_ms),
            memory: patch.memory.unwrap_or(self.memory),
            operations: patch.operations.unwrap_or(self.operations),
            concurrency: patch.concurrency.unwrap_or(self.concurrency),
            request_body: patch.request_body.unwrap_or(self.request_body),
            response_body: patch.response_body.unwrap_or(self.response_body),
        }
    }
}

/// The limits that one level of configuration sets; what is absent comes from the level above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Limits`")]
pub struct LimitsPatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<u64>,
}

impl LimitsPatch {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
