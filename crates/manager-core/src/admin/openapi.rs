//! The OpenAPI document (3.1), from the table that the router is made of.
//!
//! An operation's scope comes from its handler's type. Shapes of bodies stand in `schemas.json`;
//! that the server keeps to them is what the tests from outside look at.

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Map, Value, json};

use super::{
    AdminState,
    access::Access,
    api::{Op, Operation},
};

const SCHEMAS: &str = include_str!("openapi/schemas.json");
const PAGE: &str = include_str!("openapi/docs.html");
const SCRIPT: &str = include_str!("openapi/docs.js");
/// Base64url without padding (RFC 4648, section 5), of 16 bytes or of any text.
const ID_CURSOR: &str = "^[A-Za-z0-9_-]{21}[AQgw]$";
const NAME_CURSOR: &str =
    "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$";
/// Entity tags (RFC 9110, section 8.8.3), one or more, or any.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$"#;
const CONDITION: &str = "The header `If-Match` takes the `ETag` that the change is based on; \
                         where it was changed since, the answer is 412 and nothing is done.";
const STYLE: &str = include_str!("openapi/docs.css");
/// The page shows what this server says, by this server's script, and nothing else.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The document.
pub fn document() -> Value {
    let (_, operations) = super::routes().into_parts();
    let (_, beside) = super::routes_beside().into_parts();
    assemble(operations.iter().chain(&beside))
}

fn assemble<'o>(operations: impl Iterator<Item = &'o Operation>) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let item = paths
            .entry(operation.path.clone())
            .or_insert_with(|| json!({ "parameters": path_parameters(&operation.path) }));
        item[operation.method.as_str()] = describe(operation);
    }
    for item in paths.values_mut().filter_map(Value::as_object_mut) {
        if item["parameters"].as_array().is_some_and(Vec::is_empty) {
            item.shift_remove("parameters");
        }
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "PiCloud admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "What a PiCloud server shows and lets be done.",
            "description": "Authorisation is decided before a body is read and before anybody learns whether a thing exists: 401, then 403, then 404 or 422. Refusals are `application/problem+json` (RFC 9457) with a stable `code`. Times are RFC 3339 in UTC, ids are UUIDv7. Lists take `limit` and `cursor` and give `items` and `next_cursor`. `{app}`, `{source}` and `{trigger}` are a name or an id.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "pic_…",
                    "description": "An API key. The words beside it in an operation's `security` are the scopes that the key must have; `instance:admin` implies all of them. Where `x-picloud-one-app` is false, a key of one app is not enough.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "picloud_session",
                    "description": "The dashboard's session. Writes need the header `X-CSRF-Token`, too, and come from the server's own origin.",
                },
            },
            "schemas": schemas,
        },
    })
}

fn tags() -> Value {
    json!([
        { "name": "Sources", "description": "Repositories that are deployed from." },
        { "name": "Deployments", "description": "Commits, planned and applied." },
        { "name": "Apps", "description": "What is live." },
        { "name": "Triggers", "description": "What starts scripts beside requests. Changes made here are live at once and show as drift until git says the same." },
        { "name": "Runs", "description": "Executions of scripts, dead letters and counts." },
        { "name": "Events", "description": "What happens, as it happens." },
        { "name": "Access", "description": "Keys, sessions and the audit log." },
        { "name": "Instance", "description": "The server itself." },
    ])
}

fn path_parameters(path: &str) -> Value {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let (about, example) = match name {
                "app" => ("The app's name or id.", "guestbook"),
                "source" => ("The source's name or id.", "main"),
                "code" => ("The code that the program shows.", "BCDF-GHJK"),
                "slug" => ("What the names of the preview's apps end in.", "pr-7"),
                "trigger" => ("The trigger's name or id.", "nightly"),
                "path" => (
                    "From the app's folder; it may have slashes.",
                    "scripts/index.rhai",
                ),
                _ => ("Its id.", "01980000-0000-7000-8000-000000000000"),
            };
            json!({
                "name": name, "in": "path", "required": true, "description": about,
                "schema": { "type": "string", "minLength": 1 }, "example": example,
            })
        })
        .collect()
}

fn describe(operation: &Operation) -> Value {
    let text = &operation.text;
    let mut shown = json!({
        "operationId": text.id,
        "tags": [text.tag],
        "summary": text.summary,
    });
    let condition = text.conditional.then_some(CONDITION);
    let description: Vec<&str> = text.description.into_iter().chain(condition).collect();
    if !description.is_empty() {
        shown["description"] = description.join(" ").into();
    }
    let (security, one_app) = match operation.access {
        Access::Anyone => (json!([]), None),
        Access::AnyKey => (json!([{ "key": [] }, { "session": [] }]), None),
        Access::Scope { scope, of_one_app } => {
            let scopes = [scope.as_str()];
            let either = json!([{ "key": scopes }, { "session": scopes }]);
            (either, Some(of_one_app))
        }
    };
    shown["security"] = security;
    if let Some(one_app) = one_app {
        shown["x-picloud-one-app"] = one_app.into();
    }
    let parameters = parameters(text);
    if !parameters.is_empty() {
        shown["parameters"] = parameters.into();
    }
    if let Some(body) = body(text) {
        shown["requestBody"] = body;
    }
    shown["responses"] = responses(operation);
    shown
}

fn parameters(text: &Op) -> Vec<Value> {
    let one = |place: &str, (name, about, schema): &(&str, &str, Value)| json!({ "name": name, "in": place, "required": false, "description": about, "schema": schema });
    let mut all: Vec<Value> = text.query.iter().map(|found| one("query", found)).collect();
    if text.list {
        let limit = json!({ "type": "integer", "minimum": 1, "default": 50 });
        let about = "At most so many items, and never more than 1,000.";
        all.push(one("query", &("limit", about, limit)));
        let about = "`next_cursor` of an earlier part: go on after it.";
        let pattern = if text.by_name { NAME_CURSOR } else { ID_CURSOR };
        let cursor = json!({ "type": "string", "pattern": pattern });
        all.push(one("query", &("cursor", about, cursor)));
    }
    if text.conditional {
        let about = "An `ETag`: where what is there has another by now, the answer is 412 and nothing is done.";
        let tag = json!({ "type": "string", "pattern": TAGS });
        all.push(one("header", &("If-Match", about, tag)));
    }
    all.extend(text.headers.iter().map(|found| one("header", found)));
    all
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn body(text: &Op) -> Option<Value> {
    let schema = text.body?;
    let mut content = json!({ "application/json": { "schema": reference(schema) } });
    if text.tar {
        let tar = json!({ "type": "string", "format": "binary" });
        content["application/x-tar"] = json!({ "schema": tar });
    }
    Some(json!({ "required": !text.body_optional, "content": content }))
}

fn responses(operation: &Operation) -> Value {
    let text = &operation.text;
    let mut shown = Map::new();
    for (status, about, schema) in &text.answers {
        let mut answer = json!({ "description": about });
        if let Some(schema) = schema {
            let schema = if text.list {
                let items = json!({ "type": "array", "items": reference(schema) });
                let next = json!({
                    "type": ["string", "null"],
                    "description": "Where to go on; null at the end.",
                });
                json!({
                    "type": "object",
                    "required": ["items", "next_cursor"],
                    "properties": { "items": items, "next_cursor": next },
                })
            } else {
                reference(schema)
            };
            answer["content"] = json!({ "application/json": { "schema": schema } });
        }
        if text.tagged && *status < 300 && schema.is_some() {
            let about = "Changes with what is declared; for `If-Match`.";
            answer["headers"] =
                json!({ "ETag": { "description": about, "schema": { "type": "string" } } });
        }
        shown.insert(status.to_string(), answer);
    }
    if text.events {
        let schema = json!({ "type": "string" });
        shown.insert(
            "200".to_owned(),
            json!({
                "description": "Events, until one side ends the stream.",
                "content": { "text/event-stream": { "schema": schema } },
            }),
        );
    }
    let mut problem = |status: u16, why: &str| {
        let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
        shown
            .entry(status.to_string())
            .or_insert_with(|| json!({ "description": why, "content": content }));
    };
    for (status, why) in &text.problems {
        problem(*status, why);
    }
    if operation.access != Access::Anyone {
        problem(401, "No key, or one that is not known, revoked or ended.");
        problem(
            403,
            "The key may not do this, or a write by session lacks its token.",
        );
    }
    if operation.path.contains('{') {
        problem(404, "There is no such thing.");
    }
    if text.body.is_some() {
        problem(400, "The body is no JSON.");
        problem(413, "The body is too large.");
        problem(415, "The body is of a type that is not read here.");
    }
    let takes_words = text.body.is_some() || !text.query.is_empty() || text.list;
    if takes_words {
        problem(400, "The query cannot be read.");
        problem(422, "What was sent says something that cannot be.");
    }
    problem(500, "Something went wrong; the server's log says what.");
    problem(503, "The database is away; try again in a moment.");
    shown.sort_keys();
    Value::Object(shown)
}

/// The document and the page that shows it.
pub(super) fn router() -> Router<AdminState> {
    let text = serde_json::to_string(&document()).unwrap_or_default();
    let json = bytes::Bytes::from(text);
    Router::new()
        .route(
            "/api/v1/openapi.json",
            get(move || async move { file("application/json", json) }),
        )
        .route(
            "/api/v1/docs",
            get(|| async { file("text/html; charset=utf-8", PAGE.into()) }),
        )
        .route(
            "/api/v1/docs/docs.js",
            get(|| async { file("text/javascript; charset=utf-8", SCRIPT.into()) }),
        )
        .route(
            "/api/v1/docs/docs.css",
            get(|| async { file("text/css; charset=utf-8", STYLE.into()) }),
        )
}

fn file(kind: &'static str, bytes: bytes::Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CSP),
        ),
    ];
    (headers, bytes).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                if method != "parameters" {
                    all.push((path.clone(), method.clone(), operation.clone()));
                }
            }
        }
        all
    }

    #[test]
    fn every_operation_names_its_scope_and_is_named_once() {
        let document = document();
        let mut ids = BTreeSet::new();
        // A delivery proves itself by its signature, or by a key.
        let open = [
            "openSession",
            "askCaddy",
            "receiveWebhook",
            "getSession",
            "beginSignIn",
            "finishSignIn",
            "beginLogin",
            "askLogin",
        ];
        let any_key = [
            "closeSession",
            "getMe",
            "getLogin",
            "approveLogin",
            "denyLogin",
        ];
        for (path, method, operation) in operations(&document) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            let security = operation["security"].as_array().expect("security");
            if open.contains(&id) {
                assert!(security.is_empty(), "{id}");
                continue;
            }
            let scopes = security[0]["key"].as_array().expect("scopes");
            let expected = usize::from(!any_key.contains(&id));
            assert_eq!(scopes.len(), expected, "{method} {path}");
        }
        assert!(ids.len() > 30, "{ids:?}");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_has_an_example() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object();
        let schemas = schemas.expect("schemas.json is JSON");
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for name in &used {
            assert!(schemas.contains_key(name), "there is no schema {name}");
        }
        for (name, schema) in schemas {
            assert!(used.contains(name), "the schema {name} is used nowhere");
            assert!(schema["description"].is_string(), "{name} says nothing");
            assert!(schema["examples"].is_array(), "{name} has no example");
        }
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                let name = fields
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|text| text.strip_prefix("#/components/schemas/"));
                found.extend(name.map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
}
