//! The program as its users run it: a real git, a real PostgreSQL, real requests.

mod access;
mod across;
mod admin_api;
mod adopt;
mod app_tests;
mod attacks;
mod caddy;
mod cluster;
mod crashes;
mod delivery;
mod deploys;
mod drift;
mod events;
mod files;
mod guide;
mod hostile;
mod kills;
mod live_logs;
mod login;
mod notifications;
mod order;
mod outbox;
mod previews;
mod pulls;
mod push;
mod push_storm;
mod refusals;
mod sdk;
mod sdk_contract;
mod sdk_edges;
mod sdk_upstream;
mod secrets;
mod support;
mod together;
mod webhooks;

use picloud_test_support::TestRepository;
use serde_json::{Value, json};
use support::{Server, eventually};

const MANIFEST: &str = "name: app\nenv: {WORD: one}\nroutes:\n  - {path: /, script: scripts/a.rhai}\n  - {path: '/x/{id}', methods: [GET, POST], script: scripts/b.rhai}\n";

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    repository.write("apps/app/app.yaml", MANIFEST);
    repository.write("apps/app/scripts/a.rhai", "#{ word: ctx.env.WORD }");
    repository.write(
        "apps/app/scripts/b.rhai",
        "#{ id: ctx.request.params.id, query: ctx.request.query, json: ctx.request.json, method: ctx.request.method }",
    );
    repository.commit("feat: an app");
    repository
}

#[test]
fn a_commit_becomes_live_endpoints_and_so_does_the_next() {
    let repository = repository();
    let server = Server::start(repository.path());
    let first = server.get("/apps/app/");
    assert_eq!(first.status, 200);
    assert_eq!(first.json(), json!({ "word": "one" }));
    assert_eq!(
        first.header("x-picloud-commit"),
        Some(repository.git(&["rev-parse", "HEAD"]).as_str())
    );
    assert!(first.header("x-picloud-run").is_some());

    let answer = server.request(
        "POST",
        "/apps/app/x/a%20b?q=1&q=2&r=3",
        &[],
        r#"{"n": 9007199254740993}"#,
    );
    let expected = json!({ "id": "a b", "query": { "q": ["1", "2"], "r": "3" }, "json": { "n": 9_007_199_254_740_993_i64 }, "method": "POST" });
    assert_eq!(answer.json(), expected);

    repository.write("apps/app/app.yaml", &MANIFEST.replace("one", "two"));
    repository.commit("feat: another word");
    eventually("the new word", || {
        server.get("/apps/app/").json() == json!({ "word": "two" })
    });
}

#[test]
fn an_invalid_app_stays_at_its_last_good_commit_and_the_others_go_on() {
    let repository = repository();
    repository.write(
        "apps/other/app.yaml",
        "name: other\nroutes:\n  - {path: /, script: scripts/o.rhai}\n",
    );
    repository.write("apps/other/scripts/o.rhai", "\"old\"");
    let good = repository.commit("feat: two apps");
    let server = Server::start(repository.path());
    repository.write("apps/app/scripts/a.rhai", "let x = ;");
    repository.write("apps/other/scripts/o.rhai", "\"new\"");
    let head = repository.commit("feat: one good, one broken");
    eventually("the good app's change", || {
        server.get("/apps/other/").text() == "new"
    });
    let kept = server.get("/apps/app/");
    assert_eq!(
        (kept.status, kept.header("x-picloud-commit")),
        (200, Some(good.as_str()))
    );
    assert_eq!(
        server.get("/apps/other/").header("x-picloud-commit"),
        Some(head.as_str())
    );
    let last = &server.admin("/deployments?limit=1")["items"][0];
    assert_eq!(last["status"], "partial");
    let error = &last["errors"][0];
    assert_eq!(
        (&error["code"], &error["path"], &error["line"]),
        (
            &json!("E0401"),
            &json!("apps/app/scripts/a.rhai"),
            &json!(1)
        )
    );

    repository.write("apps/app/scripts/a.rhai", "\"mended\"");
    repository.commit("fix: mend it");
    eventually("the mended app", || {
        server.get("/apps/app/").text() == "mended"
    });
    assert_eq!(server.admin("/apps/app")["sync"], "synced");
}

#[test]
fn an_app_that_git_has_no_longer_stops_and_its_data_is_there_when_it_comes_back() {
    let repository = repository();
    repository.write("apps/app/scripts/a.rhai", "kv::incr(\"c\", \"n\")");
    repository.write("apps/stays/app.yaml", "name: stays\n");
    repository.write("picloud.yaml", "sync: {prune_limit: 60%}\n");
    repository.commit("feat: count");
    let server = Server::start(repository.path());
    assert_eq!(server.get("/apps/app/").text(), "1");
    repository.git(&["mv", "apps/app/app.yaml", "apps/app/gone.yaml"]);
    repository.commit("feat: remove it");
    eventually("the removal", || server.get("/apps/app/").status == 404);
    repository.git(&["mv", "apps/app/gone.yaml", "apps/app/app.yaml"]);
    repository.commit("feat: bring it back");
    eventually("the return", || server.get("/apps/app/").status == 200);
    assert!(
        server
            .get("/apps/app/")
            .text()
            .parse::<i64>()
            .expect("a number")
            >= 2
    );
}

#[test]
fn a_killed_server_is_there_again_with_everything() {
    let repository = repository();
    repository.write("apps/app/scripts/a.rhai", "kv::incr(\"c\", \"n\")");
    repository.commit("feat: count");
    let mut server = Server::start(repository.path());
    assert_eq!(server.get("/apps/app/").text(), "1");
    server.kill();
    let server = server.restart(repository.path());
    assert_eq!(server.get("/apps/app/").text(), "2");
    let deployments = server.admin("/deployments");
    assert_eq!(
        deployments["items"].as_array().expect("a list").len(),
        1,
        "nothing is deployed twice: {deployments}"
    );
}

#[test]
fn sigterm_ends_it_with_zero_and_leaves_nothing_behind() {
    let repository = repository();
    let mut server = Server::start(repository.path());
    let postgres = server.postgres_pid();
    assert_eq!(server.terminate(), Some(0));
    eventually("PostgreSQL's end", || {
        !std::path::Path::new(&format!("/proc/{postgres}")).exists()
    });
}

#[test]
fn a_second_server_on_the_same_data_is_refused_by_name() {
    let repository = repository();
    let server = Server::start(repository.path());
    let output = server.second(repository.path());
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&server.pid().to_string()), "{message}");
}

#[test]
fn limits_stop_a_script_and_say_which() {
    let repository = repository();
    let routes = [
        "time",
        "memory",
        "depth",
        "throw",
        "operations",
        "answer",
        "big",
    ];
    let mut manifest =
        "name: app\nlimits: {timeout: 300ms, memory: 16MiB, response_body: 1KiB}\nroutes:\n"
            .to_owned();
    for name in routes {
        let limits = if name == "operations" {
            ", limits: {operations: 1000}"
        } else {
            ""
        };
        manifest.push_str(&format!(
            "  - {{path: /{name}, script: scripts/{name}.rhai{limits}}}\n"
        ));
    }
    repository.write("apps/app/app.yaml", &manifest);
    let scripts = [
        ("time", "loop {}"),
        (
            "memory",
            "let s = \"x\"; for i in 0..18 { s += s; } let a = []; loop { a.push(s + \"y\"); }",
        ),
        ("depth", "fn f(n) { f(n + 1) } f(0)"),
        ("throw", "log::warn(\"before\");\nthrow \"a secret reason\""),
        ("operations", "let n = 0; while n < 100000 { n += 1; }"),
        ("answer", "0.0 / 0.0"),
        ("big", "let s = \"x\"; for i in 0..11 { s += s; } s"),
    ];
    for (name, text) in scripts {
        repository.write(&format!("apps/app/scripts/{name}.rhai"), text);
    }
    repository.commit("test: scripts that go too far");
    let server = Server::start(repository.path());
    let expected = [
        ("time", 504, "timeout", "timeout"),
        ("memory", 500, "script_limit", "memory"),
        ("depth", 500, "script_limit", "depth"),
        ("throw", 500, "script_error", ""),
        ("operations", 500, "script_limit", "operations"),
        ("answer", 500, "script_error", ""),
        ("big", 500, "script_limit", "output"),
    ];
    for (name, status, code, limit) in expected {
        let answer = server.get(&format!("/apps/app/{name}"));
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["code"]),
            (status, &json!(code)),
            "{name}: {body}"
        );
        assert_eq!(body["limit"].as_str().unwrap_or_default(), limit, "{name}");
        assert!(
            !answer.text().contains("secret"),
            "a reason must not reach the client"
        );
    }
    eventually("the record of the throw", || {
        let runs = server.admin("/runs?status=failed");
        let items = runs["items"].as_array().cloned().unwrap_or_default();
        items.iter().any(|run| {
            run["script"] == "scripts/throw.rhai"
                && run["error"]["line"] == 2
                && run["error"]["message"]
                    .as_str()
                    .is_some_and(|message| message.contains("a secret reason"))
                && run["logs"][0]["message"] == "before"
        })
    });
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn the_http_edge_keeps_its_promises() {
    let repository = repository();
    let server = Server::start(repository.path());
    let wrong = server.request("DELETE", "/apps/app/", &[], "");
    assert_eq!(
        (wrong.status, wrong.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    assert_eq!(server.get("/apps/app/none").json()["code"], "not_found");
    assert_eq!(server.get("/apps/none/").status, 404);
    let large = server.request("POST", "/apps/app/x/1", &[], &"x".repeat((1 << 20) + 1));
    assert_eq!(
        (large.status, &large.json()["code"]),
        (413, &json!("payload_too_large"))
    );
    let by_host = server.request("GET", "/", &["Host: app.localhost"], "");
    assert_eq!(by_host.json(), json!({ "word": "one" }));
    let home = server.request("GET", "/", &["Host: localhost"], "");
    assert_eq!(home.header("location"), Some("/dashboard/"));
    assert_eq!(
        server
            .request("GET", "/healthz", &["Host: app.localhost"], "")
            .text(),
        "ok\n"
    );
    let head = server.request("HEAD", "/apps/app/", &[], "");
    assert_eq!(
        (
            head.status,
            head.text().as_str(),
            head.header("content-length")
        ),
        (200, "", Some("14"))
    );
}

#[test]
fn the_admin_api_asks_for_a_key_first() {
    let repository = repository();
    let server = Server::start(repository.path());
    for path in [
        "/apps",
        "/apps/app",
        "/apps/none",
        "/runs",
        "/deployments",
        "/sources",
        "/keys",
        "/me",
        "/runs/x",
    ] {
        let url = format!("/api/v1/admin{path}");
        assert_eq!(server.get(&url).status, 401, "{path}");
        assert_eq!(
            server
                .request("GET", &url, &["Authorization: Bearer pic_wrong"], "")
                .status,
            401,
            "{path}"
        );
    }
    let made = server.admin_post(
        "/keys",
        &json!({ "name": "reader", "scopes": ["app:read"], "app": "app" }),
    );
    let key = made["key"].as_str().expect("a key");
    let bearer = format!("Authorization: Bearer {key}");
    let status = |method: &str, path: &str| {
        server
            .request(method, &format!("/api/v1/admin{path}"), &[&bearer], "")
            .status
    };
    assert_eq!(status("GET", "/apps/app"), 200);
    assert_eq!(status("GET", "/apps/other"), 403);
    assert_eq!(status("GET", "/runs"), 403);
    assert_eq!(status("POST", "/keys"), 403);
    assert_eq!(status("POST", "/sources/none/sync"), 403);
    let revoke = format!("/keys/{}", made["id"].as_str().expect("an id"));
    assert_eq!(server.admin_request("DELETE", &revoke, None).status, 204);
    assert_eq!(status("GET", "/apps/app"), 401);
}

#[test]
fn without_the_database_what_needs_none_goes_on_and_all_is_caught_up_with() {
    let repository = repository();
    repository.write(
        "apps/app/scripts/b.rhai",
        "kv::get(\"c\", \"k\") ?? \"none\"",
    );
    repository.commit("feat: read kv");
    let server = Server::start(repository.path());
    assert_eq!(server.get("/apps/app/x/1").text(), "none");
    let mut unavailable = 0;
    for _ in 0..3 {
        let before = server.postgres_pid();
        server.kill_postgres();
        for _ in 0..50 {
            assert_eq!(server.get("/apps/app/").status, 200);
        }
        let needs = server.get("/apps/app/x/1");
        if needs.status != 200 {
            unavailable += 1;
            let code = needs.json()["code"].clone();
            assert_eq!((needs.status, code), (503, json!("unavailable")));
        }
        eventually("the database, started again", || {
            server.get("/apps/app/x/1").text() == "none" && server.postgres_pid() != before
        });
    }
    assert!(unavailable > 0, "the database was never seen to be away");
    repository.write("apps/app/app.yaml", &MANIFEST.replace("one", "after"));
    repository.commit("feat: after the outages");
    eventually("the commit after the outages", || {
        server.get("/apps/app/").json() == json!({ "word": "after" })
    });
    eventually("the runs of the outages", || {
        let runs = server.admin("/runs?app=app&limit=200");
        runs["items"]
            .as_array()
            .is_some_and(|items| items.len() > 60)
    });
}

#[test]
fn the_examples_answer_as_their_cases_say() {
    let repository = TestRepository::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples-repo");
    let copied = std::process::Command::new("cp")
        .args(["-r", &format!("{examples}/."), "."])
        .current_dir(repository.path())
        .status();
    assert!(copied.expect("cp runs").success());
    repository.commit("feat: the examples");
    let server = Server::start(repository.path());
    let cases: Vec<Value> = serde_json::from_str(include_str!("examples.json")).expect("cases");
    for case in &cases {
        let body = if case["body"].is_null() {
            String::new()
        } else {
            case["body"].to_string()
        };
        let method = case["method"].as_str().unwrap_or("GET");
        let headers: Vec<&str> = case["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let answer = server.request(
            method,
            case["path"].as_str().expect("a path"),
            &headers,
            &body,
        );
        assert_eq!(
            Value::from(answer.status),
            case["status"],
            "{case}: {}",
            answer.text()
        );
        if let Some(expected) = case.get("json") {
            assert_eq!(answer.json(), *expected, "{case}");
        }
        if let Some(expected) = case["text"].as_str() {
            assert!(
                answer.text().contains(expected),
                "{case}: {}",
                answer.text()
            );
        }
    }
}
