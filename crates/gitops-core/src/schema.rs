//! JSON Schemas of `app.yaml` and `picloud.yaml`, for editors.

mod settings;
mod triggers;

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
            "secrets": {
                "type": "object", "additionalProperties": { "type": "string", "pattern": "^\\s*-----BEGIN AGE ENCRYPTED FILE-----" },
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
                "description": "What `picloud secrets seal` prints, by name; read with `secrets::get(\"NAME\")`."
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
            "routes": { "type": "array", "items": route(), "description": "Which script answers what." },
            "triggers": { "type": "array", "items": triggers::trigger(), "maxItems": 1_000, "description": "What starts scripts beside requests." },
            "checks": { "type": "array", "items": check(), "maxItems": 20, "description": "Requested right after a deployment; where one fails, the app goes back." },
            "depends_on": {
                "type": "array", "items": { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" }, "uniqueItems": true,
                "description": "Apps of the source without which this one is not deployed: where one has errors, this one stays as it is; where one goes back, this one does."
            }
        }
    })
}

/// The schema of `picloud.yaml`.
pub fn picloud() -> Value {
    settings::picloud()
}

fn check() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["path"],
        "properties": {
            "path": { "type": "string", "pattern": "^/", "description": "Below the app." },
            "status": { "type": "integer", "minimum": 100, "maximum": 599, "default": 200, "description": "What the answer must be." },
            "within": duration("How long it may take to become so.", "10s")
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
            "cors": {
                "description": "Cross-origin rules.",
                "oneOf": [
                    { "type": "boolean" },
                    { "type": "object", "additionalProperties": false, "properties": {
                        "origins": { "type": "array", "items": { "type": "string" }, "description": "Origins, or `*`." },
                        "methods": { "type": "array", "items": method, "description": "The route's own where absent." },
                        "headers": { "type": "array", "items": { "type": "string" }, "description": "What the preflight asks for where absent." },
                        "max_age": max_age()
                    }}
                ]
            },
            "mode": { "enum": ["sync", "async"], "default": "sync", "description": "`async` answers 202 at once; the run goes through the outbox." },
            "auth": {
                "description": "Who may call it.", "default": "none",
                "oneOf": [
                    { "enum": ["none", "key"] },
                    { "type": "object", "additionalProperties": false, "required": ["signature"], "properties": { "signature": {
                        "type": "object", "additionalProperties": false, "required": ["scheme", "secret"],
                        "description": "Verified before the script runs.",
                        "properties": {
                            "scheme": { "enum": ["github", "stripe", "slack", "hmac-sha256"], "description": "Whose convention it follows." },
                            "secret": { "type": "string", "description": "The name of the secret that signs." }
                        }
                    }}}
                ]
            },
            "rate_limit": { "type": "string", "pattern": "^[0-9]+ */ *([0-9]+(ms|s|m|h|d)|[smhd])+$", "description": "Requests in a window, a client address: `100/1m`." },
            "limits": limits()
        }
    })
}

fn max_age() -> Value {
    let mut schema = duration(
        "How long a preflight's answer may be kept; a number is seconds.",
        "",
    );
    schema["type"] = json!(["string", "integer"]);
    schema["minimum"] = 0.into();
    schema["maximum"] = 86_400.into();
    schema
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::manifest::{APP_KEYS, LIMIT_KEYS, ROUTE_KEYS, SYNC_KEYS};

    fn keys(schema: &Value) -> Vec<&str> {
        let properties = schema["properties"].as_object().expect("properties");
        let mut keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    fn sorted(keys: &[&'static str]) -> Vec<&'static str> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn schemas_have_the_keys_that_are_read() {
        let (app, picloud) = (super::app(), super::picloud());
        assert_eq!(keys(&app), sorted(&APP_KEYS));
        let properties = &app["properties"];
        assert_eq!(keys(&properties["routes"]["items"]), sorted(&ROUTE_KEYS));
        assert_eq!(keys(&properties["limits"]), sorted(&LIMIT_KEYS));
        assert_eq!(keys(&picloud["properties"]["sync"]), sorted(&SYNC_KEYS));
        let kinds = properties["triggers"]["items"]["oneOf"]
            .as_array()
            .expect("kinds");
        let known = |kind: &Value| {
            kind["properties"]["kind"]["const"]
                .as_str()
                .map(str::to_owned)
        };
        let words: Vec<String> = kinds.iter().filter_map(known).collect();
        assert_eq!(words, crate::manifest::TRIGGER_KINDS);
        for kind in kinds {
            let word = known(kind).expect("a word");
            let read = crate::manifest::trigger_keys(&word).expect("a kind");
            assert_eq!(keys(kind), sorted(&read), "{word}");
        }
    }
}
