//! The schema of one entry of `triggers`.

use serde_json::{Value, json};

use super::{duration, limits};

/// A trigger: the keys that each has, and those of its kind.
pub(super) fn trigger() -> Value {
    json!({
        "type": "object",
        "required": ["name", "kind", "script"],
        "oneOf": [
            kind("cron", &["schedule"], json!({
                "schedule": { "type": "string", "description": "As in crontab(5), with an optional seconds field first: `0 9 * * MON-FRI`, `@daily`." },
                "timezone": { "type": "string", "default": "UTC", "description": "An IANA name: `Europe/Berlin`." },
                "overlap": { "enum": ["skip", "allow", "queue"], "default": "skip", "description": "What happens when the last run is still going." },
                "catch_up": { "enum": ["latest", "none"], "default": "latest", "description": "What happens to the times passed over in downtime." }
            })),
            kind("kv", &["collection"], data(&["set", "delete"])),
            kind("docs", &["collection"], data(&["create", "update", "delete"])),
            kind("dead_letter", &[], json!({
                "source_kind": {
                    "enum": ["cron", "kv", "docs", "dead_letter", "invoke", "enqueue", "http"],
                    "description": "What was given up; absent: anything."
                }
            }))
        ]
    })
}

fn data(events: &[&str]) -> Value {
    json!({
        "collection": { "type": "string", "minLength": 1, "maxLength": 256, "description": "Its name, or a beginning that ends in `*`." },
        "events": {
            "type": "array", "items": { "enum": events }, "minItems": 1, "uniqueItems": true, "default": events,
            "description": "What is done to it."
        }
    })
}

fn kind(word: &str, required: &[&str], own: Value) -> Value {
    let mut properties = json!({
        "name": {
            "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            "description": "Unique in the app."
        },
        "kind": { "const": word, "description": "What sets it off." },
        "script": { "type": "string", "description": "A script below `scripts/`." },
        "enabled": { "type": "boolean", "default": true, "description": "Whether it fires." },
        "retry": {
            "type": "object", "additionalProperties": false, "description": "What happens after a failed attempt.",
            "properties": {
                "attempts": { "type": "integer", "minimum": 1, "maximum": 100, "default": 5, "description": "Counts the first." },
                "backoff": duration("Before the second attempt; doubles from there.", "10s"),
                "max_backoff": duration("The longest wait.", "10m")
            }
        },
        "max_concurrency": { "type": "integer", "minimum": 1, "maximum": 10_000, "description": "Runs at the same time over all nodes; absent: no bound." },
        "limits": limits()
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut properties, own) {
        all.extend(own);
    }
    json!({
        "title": format!("a {word} trigger"),
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties
    })
}
