//! The schema of `picloud.yaml`.

use serde_json::{Value, json};

use super::{DRAFT, duration, limits};

/// The settings of a source.
pub(super) fn picloud() -> Value {
    json!({
        "$schema": DRAFT,
        "title": "PiCloud picloud.yaml",
        "description": "Settings of a source.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "sync": sync(),
            "previews": {
                "type": "object", "additionalProperties": false, "description": "Branches and pull requests as apps of their own.",
                "properties": {
                    "enabled": { "type": "boolean", "default": false, "description": "Whether there are any." },
                    "ttl": duration("How long one stays without a new commit.", "7d"),
                    "triggers": { "type": "boolean", "default": false, "description": "Whether their triggers fire." }
                }
            },
            "notifications": { "type": "array", "items": notification(), "description": "Who is told of what." },
            "defaults": {
                "type": "object", "additionalProperties": false, "description": "What apps get that do not say otherwise.",
                "properties": { "limits": limits() }
            }
        }
    })
}

fn sync() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "description": "How commits are deployed.",
        "properties": {
            "prune": { "type": "boolean", "default": true, "description": "Whether apps that git has no longer are removed." },
            "prune_limit": {
                "type": "string", "pattern": "^(100|[0-9]{1,2}) *%$", "default": "30%",
                "description": "The share of the source's apps that one commit may remove without an approval."
            },
            "self_heal": { "type": "boolean", "default": false, "description": "Whether drift is undone." },
            "interval": duration("How often a remote is fetched.", "3m"),
            "windows": { "type": "array", "items": window(), "description": "When commits may be deployed; none: always." },
            "verify_signatures": { "type": "boolean", "default": false, "description": "Whether the head commit must be signed by a key that the server lists." },
            "require_reviewed": { "type": "boolean", "default": false, "description": "Whether a commit is held until its plan was reviewed or approved." }
        }
    })
}

fn window() -> Value {
    let schedule = |what: &str| json!({ "type": "string", "description": what });
    json!({
        "type": "object", "additionalProperties": false, "required": ["duration"],
        "oneOf": [{ "required": ["allow"] }, { "required": ["deny"] }],
        "properties": {
            "allow": schedule("When a time begins in which commits are deployed, as in crontab(5)."),
            "deny": schedule("When a time begins in which none is."),
            "duration": duration("How long it lasts.", ""),
            "timezone": { "type": "string", "default": "UTC", "description": "An IANA name." }
        }
    })
}

fn notification() -> Value {
    let event = json!({ "enum": ["failed", "synced", "drifted", "healed"] });
    json!({
        "type": "object", "additionalProperties": false, "required": ["on", "url"],
        "properties": {
            "on": { "oneOf": [event, { "type": "array", "items": event, "minItems": 1 }], "description": "What is told." },
            "url": { "type": "string", "description": "Where to: an https address, or what `picloud secrets seal` prints." },
            "format": { "enum": ["json", "slack", "discord"], "default": "json", "description": "In whose words." }
        }
    })
}
