//! What `picloud dev` tells at the endpoints: mistakes of the files that were saved, and why a script
//! failed. Nowhere else: what a client is told of a server's failures is that there was one.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::RwLock;
use picloud_shared::{AppName, deployment::Deployment, run::RunError};
use serde_json::{Value, json};

/// Says that a newer state of the app is not served, and why.
const HEADER: HeaderName = HeaderName::from_static("x-picloud-dev");
/// Characters of the header.
const MAX_HEADER: usize = 400;

/// The mistakes of the last deployment, by app.
#[derive(Debug, Default)]
pub struct DevNotes {
    mistakes: RwLock<BTreeMap<AppName, String>>,
}

impl DevNotes {
    /// Takes the mistakes of a deployment in place of those of the one before.
    pub fn learn(&self, deployment: &Deployment) {
        let mut mistakes: BTreeMap<AppName, (usize, String)> = BTreeMap::new();
        for error in deployment.errors.iter().filter(|error| error.is_error()) {
            let Some(app) = &error.app else { continue };
            let first = || {
                format!(
                    "{}:{}:{} {} {}",
                    error.path, error.line, error.column, error.code, error.message
                )
            };
            let entry = mistakes.entry(app.clone()).or_insert_with(|| (0, first()));
            entry.0 += 1;
        }
        *self.mistakes.write() = mistakes
            .into_iter()
            .map(|(app, (count, first))| {
                (
                    app,
                    format!("not the saved state: {count} errors, first {first}"),
                )
            })
            .collect();
    }

    /// Marks an answer of an app whose saved state is not what is served.
    pub(crate) fn mark(&self, app: &AppName, headers: &mut HeaderMap) {
        let Some(mistake) = self.mistakes.read().get(app).cloned() else {
            return;
        };
        let plain: String = mistake
            .chars()
            .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
            .take(MAX_HEADER)
            .collect();
        if let Ok(value) = HeaderValue::from_str(&plain) {
            headers.insert(HEADER, value);
        }
    }
}

/// Why a run failed, as a field of the problem that a client gets.
pub(crate) fn explained(error: &RunError) -> Value {
    json!({
        "message": error.message, "script": error.script, "line": error.line, "column": error.column,
        "trace": error.trace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(errors: &Value) -> Deployment {
        let commit = "0".repeat(40);
        serde_json::from_value(json!({
            "id": uuid::Uuid::nil(), "source": "files", "commit": commit, "previous_commit": null,
            "author": "a", "message": "m", "status": "failed", "changes": [], "errors": errors,
            "started_at": "2026-01-01T00:00:00Z", "duration_ms": 1.0,
        }))
        .expect("a deployment")
    }

    #[test]
    fn an_app_is_marked_while_its_saved_state_is_wrong() {
        let notes = DevNotes::default();
        let (app, other): (AppName, AppName) = ("a".parse().expect("a"), "b".parse().expect("b"));
        let error = json!([{
            "path": "a/app.yaml", "line": 2, "column": 3, "length": 1, "severity": "error", "code": "E0101",
            "message": "wröng", "hint": null, "excerpt": null, "app": "a",
        }]);
        notes.learn(&deployment(&error));
        let mut headers = HeaderMap::new();
        notes.mark(&other, &mut headers);
        assert!(headers.is_empty());
        notes.mark(&app, &mut headers);
        assert_eq!(
            headers.get(HEADER).map(HeaderValue::as_bytes),
            Some(b"not the saved state: 1 errors, first a/app.yaml:2:3 E0101 wr?ng".as_slice())
        );
        notes.learn(&deployment(&json!([])));
        let mut headers = HeaderMap::new();
        notes.mark(&app, &mut headers);
        assert!(headers.is_empty());
    }
}
