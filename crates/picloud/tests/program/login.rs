//! Programs that a person lets in, what one learns before one is signed in, and conditions.

use std::{
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::{Answer, Server, eventually};

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    repository.write(
        "apps/app/app.yaml",
        "name: app\nroutes:\n  - {path: /, script: scripts/a.rhai}\n",
    );
    repository.write("apps/app/scripts/a.rhai", "1");
    repository.commit("feat: an app");
    repository
}

fn post(server: &Server, path: &str, key: Option<&str>, body: &Value) -> Answer {
    let bearer = key.map(|key| format!("Authorization: Bearer {key}"));
    let headers: Vec<&str> = bearer.iter().map(String::as_str).collect();
    let path = format!("/api/v1/admin{path}");
    server.request("POST", &path, &headers, &body.to_string())
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().expect(field).to_owned()
}

/// A program's codes: its own, and the one for a person.
fn begin(server: &Server, scopes: &Value) -> (Value, String) {
    let body = json!({ "name": "laptop", "scopes": scopes });
    let begun = post(server, "/login", None, &body);
    assert_eq!(begun.status, 201, "{begun:?}");
    let begun = begun.json();
    let code = text(&begun, "user_code");
    let address = text(&begun, "verification_uri_complete");
    let page = format!("/dashboard/login?code={code}");
    assert!(address.starts_with("http://127.0.0.1"), "{address}");
    assert!(address.ends_with(&page), "{address}");
    (json!({ "device_code": begun["device_code"] }), code)
}

#[test]
fn a_program_is_let_in_to_do_no_more_than_who_let_it_in_and_ends_with_them() {
    let repository = repository();
    let server = Server::start(repository.path());
    let parent = server.admin_post(
        "/keys",
        &json!({ "name": "person", "scopes": ["app:read", "run:read"], "app": "app" }),
    );
    let person = text(&parent, "key");
    let (device, code) = begin(&server, &json!(["app:read", "sync:write"]));
    let pending = post(&server, "/login/token", None, &device);
    assert_eq!(
        (pending.status, &pending.json()["code"]),
        (400, &json!("authorization_pending"))
    );
    let hasty = post(&server, "/login/token", None, &device);
    assert_eq!(hasty.json()["code"], "slow_down", "{hasty:?}");
    // What waits is for those who are signed in.
    let waiting = server.get(&format!("/api/v1/admin/login/{code}"));
    assert_eq!(waiting.status, 401);
    let bearer = format!("Authorization: Bearer {person}");
    let lower = code.to_lowercase().replace('-', "");
    let path = format!("/api/v1/admin/login/{lower}");
    let waiting = server.request("GET", &path, &[&bearer], "").json();
    assert_eq!(
        (&waiting["name"], &waiting["scopes"], &waiting["app"]),
        (&json!("laptop"), &json!(["app:read"]), &json!("app")),
        "{waiting}"
    );
    for (body, expected) in [
        (json!({ "scopes": ["instance:admin"] }), 422),
        (json!({ "expires_at": "2001-01-01T00:00:00Z" }), 422),
        (json!({ "more": 1 }), 422),
    ] {
        let refused = post(
            &server,
            &format!("/login/{code}/approve"),
            Some(&person),
            &body,
        );
        assert_eq!(refused.status, expected, "{body}: {refused:?}");
    }
    let approve = format!("/login/{code}/approve");
    let approved = post(&server, &approve, Some(&person), &json!({}));
    assert_eq!(approved.status, 200, "{approved:?}");
    assert_eq!(
        post(&server, &approve, Some(&person), &json!({})).status,
        404
    );
    let key = post(&server, "/login/token", None, &device);
    assert_eq!(key.status, 200, "{key:?}");
    let key = key.json();
    assert_eq!(
        (&key["scopes"], &key["app"]),
        (&json!(["app:read"]), &json!("app")),
        "{key}"
    );
    // It is given once.
    let again = post(&server, "/login/token", None, &device);
    assert_eq!(again.json()["code"], "expired_token", "{again:?}");
    let bearer = format!("Authorization: Bearer {}", text(&key, "key"));
    let me = |bearer: &str| server.request("GET", "/api/v1/admin/me", &[bearer], "");
    let shown = me(&bearer).json();
    assert!(shown["key"]["expires_at"].is_string(), "{shown}");
    assert_eq!(
        server
            .request("GET", "/api/v1/admin/runs", &[&bearer], "")
            .status,
        403
    );
    let log = server.admin("/audit?action=login.approve");
    assert_eq!(
        (&log["items"][0]["actor"], &log["items"][0]["target"]),
        (&json!("person"), &json!("laptop")),
        "{log}"
    );
    let gone = format!("/keys/{}", text(&parent, "id"));
    assert_eq!(server.admin_request("DELETE", &gone, None).status, 204);
    assert_eq!(me(&bearer).status, 401);

    let (device, code) = begin(&server, &json!([]));
    let deny = server.admin_request("POST", &format!("/login/{code}/deny"), None);
    assert_eq!(deny.status, 204, "{deny:?}");
    eventually("it is told so", || {
        std::thread::sleep(Duration::from_millis(50));
        post(&server, "/login/token", None, &device).json()["code"] == "access_denied"
            || post(&server, "/login/token", None, &device).json()["code"] == "expired_token"
    });
    for body in [
        json!({ "name": "" }),
        json!({ "name": "a", "scopes": ["x"] }),
        json!({}),
    ] {
        assert_eq!(post(&server, "/login", None, &body).status, 422, "{body}");
    }
    for _ in 0..10 {
        post(&server, "/login", None, &json!({ "name": "a" }));
    }
    let many = post(&server, "/login", None, &json!({ "name": "a" }));
    assert_eq!(
        (many.status, many.header("retry-after").is_some()),
        (429, true)
    );
}

#[test]
fn who_is_not_signed_in_learns_how_and_nothing_else() {
    let repository = repository();
    let server = Server::start(repository.path());
    let asked = server.get("/api/v1/admin/session");
    assert_eq!(asked.status, 200, "{asked:?}");
    let asked = asked.json();
    assert_eq!((&asked["me"], &asked["oidc"]), (&Value::Null, &Value::Null));
    let asked = server.admin("/session");
    assert_eq!(asked["me"]["scopes"], json!(["instance:admin"]), "{asked}");
    for path in ["/session/oidc", "/session/oidc/callback?code=a&state=b"] {
        let answer = server.get(&format!("/api/v1/admin{path}"));
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
}

#[test]
fn a_put_twice_is_the_same_source_and_conditions_stand_in_the_document() {
    let repository = repository();
    let server = Server::start(repository.path());
    let other = TestRepository::new();
    other.write("apps/more/app.yaml", "name: more\n");
    other.commit("feat: more");
    let body = json!({ "kind": "local", "url": other.path(), "interval": "1h" });
    let first = server.admin_request("PUT", "/sources/more", Some(&body));
    assert_eq!(first.status, 201, "{first:?}");
    let second = server.admin_request("PUT", "/sources/more", Some(&body));
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(first.header("etag"), second.header("etag"));
    assert!(first.header("etag").is_some());
    let bearer = server.bearer();
    let stale = [bearer.as_str(), "If-Match: \"0123456789abcdef01234567\""];
    let path = "/api/v1/admin/sources/more";
    let refused = server.request("PUT", path, &stale, &body.to_string());
    assert_eq!(refused.status, 412, "{refused:?}");
    assert_eq!(server.request("DELETE", path, &stale, "").status, 412);
    let there = [bearer.as_str(), "If-None-Match: *"];
    assert_eq!(
        server
            .request("PUT", path, &there, &body.to_string())
            .status,
        412
    );

    let document = server.get("/api/v1/openapi.json").json();
    let mut conditional = Vec::new();
    for item in document["paths"].as_object().expect("paths").values() {
        for operation in item.as_object().expect("operations").values() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let mut named = parameters.filter(|one| one["name"] == "If-Match");
            if named.any(|one| one["in"] == "header" && one["required"] == false) {
                conditional.push(operation["operationId"].as_str().expect("an id"));
                assert!(operation["responses"]["412"].is_object(), "{operation}");
            }
        }
    }
    conditional.sort_unstable();
    assert!(
        ["deleteSource", "deleteTrigger", "patchTrigger", "putSource"]
            .iter()
            .all(|id| conditional.contains(id)),
        "{conditional:?}"
    );
}

#[test]
fn a_stream_by_session_ends_within_a_second_of_its_key() {
    let repository = repository();
    let server = Server::start(repository.path());
    let made = server.admin_post("/keys", &json!({ "name": "me", "scopes": ["app:read"] }));
    let login = json!({ "key": made["key"] });
    let opened = post(&server, "/session", None, &login);
    let cookie = opened.header("set-cookie").expect("a cookie");
    let cookie = format!("Cookie: {}", cookie.split(';').next().expect("a pair"));
    let mut stream = BufReader::new(server.open("GET", "/api/v1/admin/events", &[&cookie]));
    let mut line = String::new();
    while !line.starts_with(": listening") {
        line.clear();
        assert!(
            stream.read_line(&mut line).expect("a line") > 0,
            "no stream"
        );
    }
    let gone = format!("/keys/{}", text(&made, "id"));
    assert_eq!(server.admin_request("DELETE", &gone, None).status, 204);
    let ended = Instant::now();
    // The last chunk, or the connection's end.
    loop {
        line.clear();
        let read = stream.read_line(&mut line).expect("an end in time");
        if read == 0 || line.trim_end() == "0" {
            break;
        }
    }
    // A loaded machine is given some grace.
    assert!(
        ended.elapsed() < Duration::from_secs(5),
        "{:?}",
        ended.elapsed()
    );
}
