//! JSON Schemas of `app.yaml` and `picloud.yaml`, for editors.

use serde_json::{Value, json};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of `app.yaml`.
pub fn app() -> Value {
    json!({
        "$schema": DRAFT,
        "title": "PiCloud app.yaml",
        "description": "An app: what it serves, and what its scripts may do.",
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
                "description": "A DNS label, unique over all sources."
            },
            "description": { "type": "string", "description": "Shown in the dashboard." },
            "domains": {
                "type": "array", "items": { "type": "string" }, "uniqueItems": true,
                "description": "Hosts that serve this app's routes at `/`."
            },
            "env": {
                "type": "object", "additionalProperties": { "type": "string" },
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
                "description": "Plain configuration, read as `ctx.env.NAME`."
            },
            "permissions": {
                "type": "object", "additionalProperties": false, "description": "What scripts may reach.",
                "properties": { "http": {
                    "type": "object", "additionalProperties": false, "description": "Outgoing requests.",
                    "properties": { "allow": {
                        "type": "array", "items": { "type": "string" },
                        "description": "Host patterns; absent: every public host; empty: none."
                    }}
                }}
            },
            "limits": limits(),
            "static": { "type": "string", "description": "A folder whose files are served where no route matches." },
            "routes": { "type": "array", "items": route(), "description": "Which script answers what." }
        }
    })
}

/// The schema of `picloud.yaml`.
pub fn picloud() -> Value {
    json!({
        "$schema": DRAFT,
        "title": "PiCloud picloud.yaml",
        "description": "Settings of a source.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "sync": {
                "type": "object", "additionalProperties": false, "description": "How commits are deployed.",
                "properties": {
                    "prune": { "type": "boolean", "default": true, "description": "Whether apps that git has no longer are removed." },
                    "interval": duration("How often a remote is fetched.", "3m")
                }
            },
            "defaults": {
                "type": "object", "additionalProperties": false, "description": "What apps get that do not say otherwise.",
                "properties": { "limits": limits() }
            }
        }
    })
}

fn route() -> Value {
    let method = json!({ "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] });
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["path", "script"],
        "properties": {
            "path": { "type": "string", "pattern": "^/", "description": "`/entries/{id}`, `/files/{*rest}`." },
            "methods": {
                "type": "array", "items": method, "minItems": 1, "uniqueItems": true, "default": ["GET"],
                "description": "Which methods it answers."
            },
            "script": { "type": "string", "pattern": "^scripts/.+\\.rhai$", "description": "The handler, below the app's folder." },
            "mode": { "enum": ["sync"], "default": "sync", "description": "Whether the client waits." },
            "auth": { "enum": ["none"], "default": "none", "description": "Who may call it." },
            "cors": {
                "description": "Cross-origin rules.",
                "oneOf": [
                    { "type": "boolean" },
                    { "type": "object", "additionalProperties": false, "properties": {
                        "origins": { "type": "array", "items": { "type": "string" }, "description": "Origins, or `*`." },
                        "methods": { "type": "array", "items": method, "description": "The route's own where absent." },
                        "headers": { "type": "array", "items": { "type": "string" }, "description": "What the preflight asks for where absent." },
                        "max_age": duration("How long a preflight's answer may be kept.", "")
                    }}
                ]
            },
            "limits": limits()
        }
    })
}

fn duration(description: &str, default: &str) -> Value {
    let mut schema = json!({
        "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$", "description": description
    });
    if !default.is_empty() {
        schema["default"] = default.into();
    }
    schema
}

fn limits() -> Value {
    let size = |description: &str, default: &str| {
        json!({
            "type": ["string", "integer"], "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB|kB|KB|MB|GB)?$",
            "description": description, "default": default
        })
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "What a run may use.",
        "properties": {
            "timeout": duration("Wall-clock time of a run.", "5s"),
            "memory": size("What a run may hold at once.", "64MiB"),
            "operations": { "type": "integer", "minimum": 1, "default": 50_000_000, "description": "Operations of the script engine." },
            "concurrency": { "type": "integer", "minimum": 1, "default": 32, "description": "Runs of the app at the same time." },
            "request_body": size("A request's body.", "1MiB"),
            "response_body": size("An answer's body.", "6MiB")
        }
    })
}
