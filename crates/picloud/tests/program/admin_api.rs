//! The admin API's manners: sessions, lists, conditions, problems, live events, statistics.

use std::io::{BufRead, BufReader};

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::{Answer, Server, eventually};

const MANIFEST: &str = "name: app\ndomains: [app.example.com]\nroutes:\n  - {path: /, script: scripts/a.rhai}\n  - {path: /bad, script: scripts/b.rhai}\n";

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    repository.write("apps/app/app.yaml", MANIFEST);
    repository.write("apps/app/scripts/a.rhai", "log::info(\"asked\"); 1");
    repository.write("apps/app/scripts/b.rhai", "throw \"no\"");
    repository.commit("feat: an app");
    repository
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").expect("a cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/api/v1/admin"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(
        !set.contains("Secure"),
        "plain HTTP keeps no such cookie: {set}"
    );
    format!("Cookie: {}", set.split(';').next().expect("a pair"))
}

#[test]
fn a_session_stands_for_its_key_and_ends_with_it() {
    let repository = repository();
    let server = Server::start(repository.path());
    let made = server.admin_post(
        "/keys",
        &json!({ "name": "me", "scopes": ["app:read", "key:write"] }),
    );
    let login = json!({ "key": made["key"] }).to_string();
    let opened = server.request("POST", "/api/v1/admin/session", &[], &login);
    assert_eq!(opened.status, 201, "{opened:?}");
    let cookie = cookie(&opened);
    let csrf = opened.json()["csrf"].as_str().expect("a token").to_owned();
    let me = server
        .request("GET", "/api/v1/admin/me", &[&cookie], "")
        .json();
    assert_eq!(
        (&me["csrf"], &me["scopes"]),
        (&json!(csrf), &json!(["app:read", "key:write"]))
    );
    assert_eq!(
        server
            .request("GET", "/api/v1/admin/audit", &[&cookie], "")
            .status,
        403
    );

    let token = format!("X-CSRF-Token: {csrf}");
    let own = format!("Origin: http://{}", server.address());
    let host = format!("Host: {}", server.address());
    let body = json!({ "name": "by session", "scopes": ["app:read"] }).to_string();
    for (headers, expected) in [
        (vec![cookie.as_str()], 403),
        (vec![&cookie, &host, &own], 403),
        (vec![&cookie, &host, &token], 403),
        (vec![&cookie, &host, &own, "X-CSRF-Token: other"], 403),
        (
            vec![&cookie, &host, "Origin: http://elsewhere.example", &token],
            403,
        ),
        (
            vec![&cookie, &host, &own, &token, "Sec-Fetch-Site: cross-site"],
            403,
        ),
        (vec![&cookie, &host, &own, &token], 201),
    ] {
        let answer = server.request("POST", "/api/v1/admin/keys", &headers, &body);
        assert_eq!(answer.status, expected, "{headers:?}: {answer:?}");
    }
    // A page of elsewhere can't log a browser in.
    let foreign = ["Origin: http://elsewhere.example"];
    assert_eq!(
        server
            .request("POST", "/api/v1/admin/session", &foreign, &login)
            .status,
        403
    );

    let id = made["id"].as_str().expect("an id");
    assert_eq!(
        server
            .admin_request("DELETE", &format!("/keys/{id}"), None)
            .status,
        204
    );
    assert_eq!(
        server
            .request("GET", "/api/v1/admin/me", &[&cookie], "")
            .status,
        401
    );
}

#[test]
fn an_ended_session_is_good_for_nothing_and_wrong_keys_are_throttled() {
    let repository = repository();
    let server = Server::start(repository.path());
    let made = server.admin_post("/keys", &json!({ "name": "me", "scopes": ["app:read"] }));
    let login = json!({ "key": made["key"] }).to_string();
    let opened = server.request("POST", "/api/v1/admin/session", &[], &login);
    let cookie = cookie(&opened);
    let token = format!(
        "X-CSRF-Token: {}",
        opened.json()["csrf"].as_str().expect("a token")
    );
    let own = format!("Origin: http://{}", server.address());
    let host = format!("Host: {}", server.address());
    let ended = server.request(
        "DELETE",
        "/api/v1/admin/session",
        &[&cookie, &token, &own, &host],
        "",
    );
    assert_eq!(ended.status, 204, "{ended:?}");
    assert_eq!(
        server
            .request("GET", "/api/v1/admin/me", &[&cookie], "")
            .status,
        401
    );
    let actions = server.admin("/audit?action=session");
    assert_eq!(
        actions["items"].as_array().map(Vec::len),
        Some(2),
        "{actions}"
    );

    for _ in 0..10 {
        let wrong = server.request("POST", "/api/v1/admin/session", &[], r#"{"key":"pic_no"}"#);
        assert_eq!(wrong.status, 401);
    }
    let throttled = server.request("POST", "/api/v1/admin/session", &[], &login);
    assert_eq!(throttled.status, 429, "{throttled:?}");
    let wait: u64 = throttled
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    // Who has a key is not kept out.
    assert_eq!(server.admin_request("GET", "/me", None).status, 200);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn refusals_are_problems_lists_have_cursors_and_writes_have_conditions() {
    let repository = repository();
    let server = Server::start(repository.path());
    for (method, path, headers, body, expected) in [
        ("GET", "/nothing", "", "", 404),
        ("PUT", "/apps", "", "", 405),
        ("POST", "/apps/app/triggers/other", "", "{}", 405),
        ("DELETE", "/apps/nosuch/triggers/cron", "", "", 405),
        ("POST", "/keys", "", "{\"name\":", 400),
        ("POST", "/keys", "", "[]", 422),
        ("POST", "/keys", "Content-Type: text/xml", "<key/>", 415),
        ("GET", "/runs?limit=0", "", "", 422),
        ("GET", "/runs?limit=1&limit=2", "", "", 400),
        ("GET", "/runs?cursor=x", "", "", 422),
        ("GET", "/runs?trigger=%00", "", "", 422),
        ("GET", "/runs?app=%00", "", "", 422),
        ("GET", "/apps?cursor=%21", "", "", 422),
        ("GET", "/apps/%00", "", "", 404),
        ("GET", "/apps/%ff", "", "", 400),
        ("GET", "/stats?window=soon", "", "", 422),
        ("GET", "/stats?window=0s", "", "", 422),
        ("GET", "/stats?window=31d", "", "", 422),
    ] {
        let bearer = server.bearer();
        let all = [bearer.as_str(), headers];
        let headers: Vec<&str> = all.into_iter().filter(|line| !line.is_empty()).collect();
        let answer = server.request(method, &format!("/api/v1/admin{path}"), &headers, body);
        assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{answer:?}"
        );
        assert!(answer.json()["code"].is_string(), "{answer:?}");
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
        assert_eq!(
            expected == 405,
            answer.header("allow").is_some(),
            "{answer:?}"
        );
    }
    for (domain, expected) in [("app.example.com", 200), ("other.example.com", 404)] {
        let asked = server.get(&format!("/api/v1/caddy/ask?domain={domain}"));
        assert_eq!(asked.status, expected, "{asked:?}");
    }
    assert_eq!(
        server.request("PUT", "/api/v1/caddy/ask", &[], "").status,
        405
    );
    let large = "x".repeat(3 << 20);
    let answer = server.request("POST", "/api/v1/admin/keys", &[&server.bearer()], &large);
    assert_eq!(answer.status, 413, "{answer:?}");
    // Without a key nobody learns what is there.
    for (method, path) in [("GET", "/nothing"), ("PUT", "/apps")] {
        let answer = server.request(method, &format!("/api/v1/admin{path}"), &[], "");
        assert_eq!(answer.status, 401, "{method} {path}");
    }
    let named = server.request(
        "GET",
        "/api/v1/admin/me",
        &[&server.bearer(), "X-Request-Id: mine-1"],
        "",
    );
    assert_eq!(named.header("x-request-id"), Some("mine-1"));

    for name in ["a", "b", "c"] {
        let body = json!({ "name": name, "script": "scripts/a.rhai", "schedule": "@hourly" });
        let made = server.admin_request("POST", "/apps/app/triggers/cron", Some(&body));
        assert_eq!(made.status, 201, "{made:?}");
        assert!(made.header("etag").is_some(), "{made:?}");
    }
    let taken = json!({ "name": "a", "script": "scripts/a.rhai", "schedule": "@hourly" });
    assert_eq!(
        server
            .admin_request("POST", "/apps/app/triggers/cron", Some(&taken))
            .status,
        409
    );
    let wrong = json!({ "name": "d", "script": "scripts/a.rhai", "schedule": "0 0 30 2 *" });
    let refused = server.admin_request("POST", "/apps/app/triggers/cron", Some(&wrong));
    assert_eq!(
        (refused.status, &refused.json()["errors"][0]["field"]),
        (422, &json!("schedule")),
        "{refused:?}"
    );
    let lacking = json!({ "name": "d", "script": "scripts/a.rhai" });
    let refused = server.admin_request("POST", "/apps/app/triggers/cron", Some(&lacking));
    assert_eq!(
        (refused.status, &refused.json()["errors"][0]["field"]),
        (422, &json!("schedule")),
        "{refused:?}"
    );
    assert_eq!(
        pages(&server, "/apps/app/triggers", "name"),
        ["a", "b", "c"]
    );
    let keys = pages(&server, "/keys", "name");
    assert_eq!(keys, ["owner"]);

    let listed = server.admin("/apps/app/triggers");
    let (id, tag) = (
        listed["items"][0]["id"].as_str(),
        listed["items"][0]["etag"].as_str(),
    );
    let path = format!("/apps/app/triggers/{}", id.expect("an id"));
    let stale = format!("If-Match: {}", tag.expect("a tag"));
    let patch = |conditions: &[&str]| {
        let bearer = server.bearer();
        let headers: Vec<&str> = std::iter::once(bearer.as_str())
            .chain(conditions.iter().copied())
            .collect();
        server.request(
            "PATCH",
            &format!("/api/v1/admin{path}"),
            &headers,
            r#"{"enabled":false}"#,
        )
    };
    let first = patch(&[&stale]);
    assert_eq!(
        (first.status, &first.json()["enabled"]),
        (200, &json!(false)),
        "{first:?}"
    );
    assert_eq!(patch(&[&stale]).status, 412);
    let fresh = format!("If-Match: {}", first.header("etag").expect("a tag"));
    assert_eq!(patch(&[&fresh]).status, 200);
    let log = server.admin("/audit?action=trigger.patch&app=app");
    let sides = (
        &log["items"][1]["before"]["enabled"],
        &log["items"][1]["after"]["enabled"],
    );
    assert_eq!(sides, (&json!(true), &json!(false)), "{log}");
}

/// All items of a list, taken one at a time.
fn pages(server: &Server, path: &str, field: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.admin(&format!("{path}?limit=1{cursor}"));
        for item in page["items"].as_array().expect("items") {
            found.push(item[field].as_str().expect("a name").to_owned());
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// An event of a stream.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// The next event; `None` at the stream's end.
fn next_event(stream: &mut impl BufRead) -> Option<Event> {
    let (mut name, mut id, mut data) = (String::new(), String::new(), None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).expect("a line in time") == 0 {
            return None;
        }
        let line = line.trim_end();
        if let Some(text) = line.strip_prefix("event: ") {
            text.clone_into(&mut name);
        } else if let Some(text) = line.strip_prefix("id: ") {
            text.clone_into(&mut id);
        } else if let Some(text) = line.strip_prefix("data: ") {
            data = Some(serde_json::from_str(text).expect("JSON"));
        } else if line.is_empty()
            && let Some(data) = data.take()
        {
            return Some(Event { name, id, data });
        }
    }
}

fn wait_for(stream: &mut impl BufRead, name: &str) -> Event {
    loop {
        let event = next_event(stream).expect("the stream goes on");
        if event.name == name {
            return event;
        }
    }
}

#[test]
fn what_happens_is_told_to_those_who_may_see_it_until_their_key_ends() {
    let repository = repository();
    let mut server = Server::start(repository.path());
    let key = |name: &str, scopes: &[&str], app: Option<&str>| {
        server.admin_post(
            "/keys",
            &json!({ "name": name, "scopes": scopes, "app": app }),
        )
    };
    let (all, blind) = (
        key("all", &["app:read", "run:read"], None),
        key("blind", &["app:read"], Some("app")),
    );
    let listen = |key: &Value, more: &[&str]| {
        let bearer = format!(
            "Authorization: Bearer {}",
            key["key"].as_str().expect("a key")
        );
        let headers: Vec<&str> = std::iter::once(bearer.as_str())
            .chain(more.iter().copied())
            .collect();
        let mut stream = BufReader::new(server.open("GET", "/api/v1/admin/events", &headers));
        let mut line = String::new();
        while !line.starts_with(": listening") {
            line.clear();
            assert!(
                stream.read_line(&mut line).expect("a line") > 0,
                "the stream ended"
            );
        }
        stream
    };
    let (mut seeing, mut blinded) = (listen(&all, &[]), listen(&blind, &[]));
    assert_eq!(server.get("/apps/app/bad").status, 500);
    let run = wait_for(&mut seeing, "run");
    assert_eq!(
        (&run.data["app"], &run.data["status"]),
        (&json!("app"), &json!("failed"))
    );
    // What is told can be asked for.
    let id = run.data["id"].as_str().expect("an id");
    assert_eq!(server.admin(&format!("/runs/{id}"))["status"], "failed");
    assert_eq!(server.get("/apps/app/").status, 200);
    assert_eq!(
        wait_for(&mut seeing, "log").data["lines"][0]["message"],
        "asked"
    );

    repository.write("apps/app/scripts/a.rhai", "2");
    let commit = repository.commit("feat: another");
    // Without `run:read` the first that is seen is the deployment.
    for stream in [&mut seeing, &mut blinded] {
        let told = wait_for(stream, "deployment");
        assert_eq!(
            (&told.data["commit"], &told.data["apps"]),
            (&json!(commit), &json!(["app"]))
        );
    }
    // Who comes back goes on where they were.
    drop(seeing);
    let mut again = listen(&all, &[&format!("Last-Event-ID: {}", run.id)]);
    let mut missing = vec!["run", "deployment"];
    while !missing.is_empty() {
        let told = next_event(&mut again).expect("the stream goes on");
        missing.retain(|name| *name != told.name);
    }

    let gone = format!("/keys/{}", all["id"].as_str().expect("an id"));
    assert_eq!(server.admin_request("DELETE", &gone, None).status, 204);
    while next_event(&mut again).is_some() {}
    // An open stream doesn't keep the server from ending.
    assert_eq!(server.terminate(), Some(0));
    while next_event(&mut blinded).is_some() {}
}

#[test]
fn statistics_count_every_run() {
    let repository = repository();
    let server = Server::start(repository.path());
    for _ in 0..6 {
        assert_eq!(server.get("/apps/app/").status, 200);
    }
    for _ in 0..2 {
        assert_eq!(server.get("/apps/app/bad").status, 500);
    }
    eventually("all runs are counted", || {
        server.admin("/stats?app=app&window=15m")["count"] == 8
    });
    let stats = server.admin("/stats?window=15m");
    assert_eq!(
        (&stats["errors"], &stats["error_rate"]),
        (&json!(2), &json!(0.25)),
        "{stats}"
    );
    assert_eq!(
        (&stats["by_status"]["ok"], &stats["by_kind"]["http"]),
        (&json!(6), &json!(8))
    );
    let buckets = stats["buckets"].as_array().expect("buckets");
    let sum: u64 = buckets
        .iter()
        .filter_map(|bucket| bucket["count"].as_u64())
        .sum();
    assert_eq!((buckets.len(), sum), (15, 8), "{stats}");
    assert!(
        stats["p50_ms"].as_f64() <= stats["p99_ms"].as_f64(),
        "{stats}"
    );
    assert_eq!(server.admin("/apps/app")["health"], "degraded");
    let instance = server.admin("/instance");
    assert_eq!(
        instance["nodes"].as_array().map(Vec::len),
        Some(1),
        "{instance}"
    );
    assert!(
        instance["database"]["size"].as_u64() > Some(0),
        "{instance}"
    );
}

#[test]
fn a_run_can_be_asked_for_as_soon_as_it_is_answered() {
    let repository = repository();
    let server = Server::start(repository.path());
    for path in ["/apps/app/", "/apps/app/bad"] {
        for _ in 0..3 {
            let answer = server.get(path);
            let run = answer.header("x-picloud-run").expect("a run");
            let found = server.admin_request("GET", &format!("/runs/{run}"), None);
            assert_eq!(found.status, 200, "{found:?}");
        }
    }
}

#[test]
fn what_is_fired_by_hand_carries_what_its_kind_carries() {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: app\ntriggers:\n  - {name: nightly, kind: cron, schedule: '@daily', script: scripts/a.rhai}\n  \
         - {name: off, kind: kv, collection: 'c*', enabled: false, script: scripts/a.rhai}\n",
    );
    repository.write("scripts/a.rhai", "1");
    repository.commit("feat: triggers");
    let server = Server::start(repository.path());
    let mut known = 0;
    let mut fired = |trigger: &str, body: Option<&Value>| {
        let path = format!("/apps/app/triggers/{trigger}/fire");
        let answer = server.admin_request("POST", &path, body);
        assert_eq!(answer.status, 202, "{answer:?}");
        known += 1;
        let runs = || server.admin("/runs?app=app")["items"].clone();
        eventually("the run", || {
            runs().as_array().is_some_and(|runs| runs.len() == known)
        });
        runs()[0]["event"].clone()
    };
    for body in [None, Some(json!({})), Some(json!({ "payload": null }))] {
        let event = fired("nightly", body.as_ref());
        assert_eq!(event["trigger"], "nightly", "{event}");
        assert_eq!(event["cron"]["schedule"], "@daily", "{event}");
        assert!(event["cron"]["scheduled_at"].is_string(), "{event}");
    }
    let given = json!({ "payload": { "missed": 7, "more": [1] } });
    let cron = fired("nightly", Some(&given))["cron"].clone();
    assert_eq!(
        (&cron["missed"], &cron["more"], &cron["timezone"]),
        (&json!(7), &json!([1]), &json!("UTC")),
        "{cron}"
    );
    let strange = json!({ "payload": { "more": "a\u{0}b" } });
    let refused = server.admin_request("POST", "/apps/app/triggers/nightly/fire", Some(&strange));
    assert_eq!(refused.status, 422, "{refused:?}");
    // One that is switched off, too, with its name.
    let event = fired("off", Some(&json!({ "key": "k", "value": 5 })));
    assert_eq!(event["trigger"], "off", "{event}");
    let expected =
        json!({ "collection": "c", "key": "k", "op": "set", "value": 5, "previous": null });
    assert_eq!(event["kv"], expected, "{event}");
    let of_it = server.admin("/runs?app=app&trigger=off");
    assert_eq!(of_it["items"].as_array().map(Vec::len), Some(1), "{of_it}");
}
