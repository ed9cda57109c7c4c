//! Who may do what: every operation of the OpenAPI document, with every scope, on the own app and
//! on another.

use std::collections::BTreeMap;

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::Server;

const SCOPES: [&str; 9] = [
    "app:read",
    "app:invoke",
    "script:write",
    "trigger:write",
    "secret:write",
    "sync:write",
    "run:read",
    "key:write",
    "instance:admin",
];

fn two_apps() -> TestRepository {
    let repository = TestRepository::new();
    for name in ["one", "two"] {
        let manifest = format!("name: {name}\nroutes:\n  - {{path: /, script: scripts/a.rhai}}\n");
        repository.write(&format!("apps/{name}/app.yaml"), &manifest);
        repository.write(&format!("apps/{name}/scripts/a.rhai"), "1");
    }
    repository.commit("feat: two apps");
    repository
}

fn key(server: &Server, scope: &str, app: Option<&str>) -> String {
    let name = format!("{scope} {}", app.unwrap_or("all"));
    let body = json!({ "name": name, "scopes": [scope], "app": app });
    let made = server.admin_request("POST", "/keys", Some(&body));
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["key"].as_str().expect("a key").to_owned()
}

/// One operation, as the document has it.
struct Operation {
    method: String,
    path: String,
    /// `None`: nothing is needed; empty: any key.
    scope: Option<String>,
    one_app: bool,
    takes_app: bool,
}

impl Operation {
    /// The path, with things that are not there; the app is.
    fn on(&self, app: &str) -> String {
        let parts = self.path.split('/').map(|part| match part {
            "{app}" => app,
            "{id}" => "01980000-0000-7000-8000-000000000000",
            "{path}" => "scripts/nosuch.rhai",
            part if part.starts_with('{') => "nosuch",
            part => part,
        });
        parts.collect::<Vec<_>>().join("/")
    }

    fn names_an_app(&self) -> bool {
        self.path.contains("{app}")
    }
}

fn operations(server: &Server) -> Vec<Operation> {
    let document = server.get("/api/v1/openapi.json").json();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let Some(security) = operation["security"].as_array() else {
                continue;
            };
            let scope = security.first().map(|either| {
                let scope = either["key"][0].as_str();
                scope.unwrap_or_default().to_owned()
            });
            let parameters = operation["parameters"].as_array();
            let takes_app =
                parameters.is_some_and(|all| all.iter().any(|one| one["name"] == "app"));
            all.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                scope,
                one_app: operation["x-picloud-one-app"] != false,
                takes_app,
            });
        }
    }
    assert!(all.len() > 40, "the document has {} operations", all.len());
    all
}

/// What came of it: refused for want of a key, of a right, or let in.
fn outcome(server: &Server, operation: &Operation, path: &str, key: Option<&str>) -> &'static str {
    let bearer = key.map(|key| format!("Authorization: Bearer {key}"));
    let headers: Vec<&str> = bearer.iter().map(String::as_str).collect();
    // A body that is no good: who may not ask is told so, and nothing of the body.
    let body = if operation.method == "GET" { "" } else { "{" };
    match server.status(&operation.method, path, &headers, body) {
        401 => "unknown",
        403 => "refused",
        500.. => "broken",
        _ => "let in",
    }
}

#[test]
fn every_operation_lets_in_whom_its_scope_says_and_nobody_else() {
    let repository = two_apps();
    let server = Server::start(repository.path());
    let operations = operations(&server);
    let mut keys = BTreeMap::new();
    for scope in SCOPES {
        keys.insert((scope, "all"), key(&server, scope, None));
        keys.insert((scope, "one"), key(&server, scope, Some("one")));
    }
    let mut wrong = Vec::new();
    let mut check = |what: String, found: &str, expected: &str| {
        if found != expected {
            wrong.push(format!("{what}: {found}, not {expected}"));
        }
    };
    for operation in &operations {
        let label = format!("{} {}", operation.method, operation.path);
        let own = operation.on("one");
        let without = outcome(&server, operation, &own, None);
        let bogus = outcome(&server, operation, &own, Some("pic_bogus"));
        let Some(needed) = &operation.scope else {
            continue;
        };
        check(format!("{label} without a key"), without, "unknown");
        check(format!("{label} with a wrong key"), bogus, "unknown");
        for ((scope, reach), key) in &keys {
            let held = needed.is_empty() || needed == scope || *scope == "instance:admin";
            let of_one = *reach == "one";
            let reached = !of_one || operation.one_app;
            let expected = if held && reached { "let in" } else { "refused" };
            let found = outcome(&server, operation, &own, Some(key));
            check(format!("{label} by {scope} of {reach}"), found, expected);
            let elsewhere = if operation.names_an_app() {
                operation.on("two")
            } else if operation.takes_app {
                format!("{own}?app=two")
            } else {
                continue;
            };
            let expected = if held && !of_one { "let in" } else { "refused" };
            let found = outcome(&server, operation, &elsewhere, Some(key));
            check(
                format!("{label} by {scope} of {reach}, elsewhere"),
                found,
                expected,
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn keys_are_made_within_bounds_and_end_everywhere() {
    let repository = two_apps();
    let server = Server::start(repository.path());
    let post = |key: &str, body: &Value| {
        let bearer = format!("Authorization: Bearer {key}");
        server.request("POST", "/api/v1/admin/keys", &[&bearer], &body.to_string())
    };
    let manager = key(&server, "key:write", Some("one"));
    for (body, expected) in [
        (
            json!({ "name": "a", "scopes": ["key:write"], "app": "one" }),
            201,
        ),
        (
            json!({ "name": "a", "scopes": ["key:write"], "app": "one" }),
            409,
        ),
        (
            json!({ "name": "b", "scopes": ["key:write"], "app": "two" }),
            403,
        ),
        (json!({ "name": "b", "scopes": ["key:write"] }), 403),
        (
            json!({ "name": "b", "scopes": ["app:read"], "app": "one" }),
            403,
        ),
        (
            json!({ "name": "b", "scopes": ["nonsense"], "app": "one" }),
            422,
        ),
        (json!({ "name": "b", "scopes": [], "app": "one" }), 422),
        (
            json!({ "name": "", "scopes": ["key:write"], "app": "one" }),
            422,
        ),
        (
            json!({ "name": "b", "scopes": ["key:write"], "app": "one", "expires_at": "2001-01-01T00:00:00Z" }),
            422,
        ),
        (
            json!({ "name": "b", "scopes": ["key:write"], "app": "one", "more": 1 }),
            422,
        ),
    ] {
        let answer = post(&manager, &body);
        assert_eq!(answer.status, expected, "{body}: {answer:?}");
    }
    // What a key manager of one app sees are that app's keys.
    let bearer = format!("Authorization: Bearer {manager}");
    let seen = server
        .request("GET", "/api/v1/admin/keys", &[&bearer], "")
        .json();
    let items = seen["items"].as_array().expect("items");
    assert!(items.iter().all(|item| item["app"] == "one"), "{seen}");
    assert!(items.iter().all(|item| item.get("key").is_none()), "{seen}");
    // Another's key is not there for them.
    let other = server.admin_post("/keys", &json!({ "name": "other", "scopes": ["app:read"] }));
    let path = format!(
        "/api/v1/admin/keys/{}",
        other["id"].as_str().expect("an id")
    );
    assert_eq!(server.request("DELETE", &path, &[&bearer], "").status, 404);

    let reader = format!(
        "Authorization: Bearer {}",
        other["key"].as_str().expect("a key")
    );
    assert_eq!(
        server
            .request("GET", "/api/v1/admin/apps", &[&reader], "")
            .status,
        200
    );
    let gone = server.admin_request("DELETE", &path["/api/v1/admin".len()..], None);
    assert_eq!(gone.status, 204);
    assert_eq!(
        server
            .request("GET", "/api/v1/admin/apps", &[&reader], "")
            .status,
        401
    );
    // Its name is free again, and both writes are in the audit log, without the key.
    server.admin_post("/keys", &json!({ "name": "other", "scopes": ["app:read"] }));
    let log = server.admin("/audit?action=key.revoke");
    assert_eq!(log["items"][0]["before"]["name"], "other", "{log}");
    let log = server
        .admin_request("GET", "/audit?action=key", None)
        .text();
    assert!(
        !log.contains(reader.trim_start_matches("Authorization: Bearer ")),
        "{log}"
    );
}
