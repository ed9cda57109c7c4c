//! Triggers as the admin API gives and takes them: with the keys of app.yaml.

use picloud_shared::{
    Diagnostic, ScriptPath, TriggerName,
    app::{TriggerSpec, to_value},
    duration,
};
use serde_json::{Map, Value, json};

use crate::{decode::Report, manifest, yaml};

/// A trigger with the keys of app.yaml.
pub fn write(name: &TriggerName, spec: &TriggerSpec) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(name));
    if let Value::Object(kind) = to_value(&spec.kind) {
        out.extend(kind.into_iter().filter(|(_, value)| !value.is_null()));
    }
    out.insert("script".to_owned(), json!(spec.script));
    out.insert("enabled".to_owned(), json!(spec.enabled));
    out.insert(
        "retry".to_owned(),
        json!({
            "attempts": spec.retry.attempts,
            "backoff": duration::text(spec.retry.backoff_ms),
            "max_backoff": duration::text(spec.retry.max_backoff_ms),
        }),
    );
    if let Some(most) = spec.max_concurrency {
        out.insert("max_concurrency".to_owned(), json!(most));
    }
    let mut limits = Map::new();
    if let Value::Object(fields) = to_value(&spec.limits) {
        for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            match (key.as_str(), value.as_u64()) {
                ("timeout_ms", Some(time)) => {
                    limits.insert("timeout".to_owned(), json!(duration::text(time)))
                }
                _ => limits.insert(key, value),
            };
        }
    }
    if !limits.is_empty() {
        out.insert("limits".to_owned(), limits.into());
    }
    Value::Object(out)
}

/// Reads a trigger with the keys of app.yaml; the findings where it isn't good.
pub fn read(body: &Value) -> Result<(TriggerName, TriggerSpec), Vec<Diagnostic>> {
    // JSON is YAML (YAML 1.2, section 1.3), so that one reader decides.
    let text = body.to_string();
    let mut report = Report::new("body", &text);
    let root = match yaml::parse(&text) {
        Ok(Some(root)) => root,
        Ok(None) => {
            report.error("E0104", yaml::Place::START, "the body is empty", None);
            return Err(report.found);
        }
        Err(error) => {
            let hint = error.hint.map(str::to_owned);
            report.error(error.code, error.place, error.message, hint);
            return Err(report.found);
        }
    };
    let trigger = manifest::trigger(&root, &mut report);
    let script = trigger
        .as_ref()
        .map(|trigger| trigger.script.value.parse::<ScriptPath>());
    if let (Some(Err(error)), Some(trigger)) = (&script, &trigger) {
        let message = format!("a script {error}");
        report.error("E0210", trigger.script.place, message, None);
    }
    match (trigger, script) {
        (Some(trigger), Some(Ok(script))) if report.found.is_empty() => Ok((
            trigger.name.value,
            TriggerSpec {
                kind: trigger.kind,
                script,
                enabled: trigger.enabled,
                retry: trigger.retry,
                max_concurrency: trigger.max_concurrency,
                limits: trigger.limits,
            },
        )),
        _ => Err(report.found),
    }
}
