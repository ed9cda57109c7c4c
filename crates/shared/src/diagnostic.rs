//! What is wrong with a tree, where, and what to do about it.

use serde::{Deserialize, Serialize};

use crate::names::AppName;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The app it belongs to is not deployed.
    Error,
    /// Deployed, but a person should look.
    Warning,
}

/// One finding. Printed as `path:line:column: error[E0101]: message`, the line with a caret, and
/// the hint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    /// From the repository's root.
    pub path: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// How many characters from `column` on are meant; at least 1.
    #[serde(default = "one")]
    pub length: u32,
    /// Error or warning.
    pub severity: Severity,
    /// Stable: `E0101`. Each has a page under `docs/errors`.
    pub code: String,
    /// One sentence, readable alone.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line of the file, without its end; absent for what has no text (a symlink, a big file).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// The app it belongs to, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
}

fn one() -> u32 {
    1
}

impl Diagnostic {
    /// Whether this keeps its app from being deployed.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
