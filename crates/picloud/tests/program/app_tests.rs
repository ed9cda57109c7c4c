//! `picloud test`, as an app's author sees it.

use std::{
    path::Path,
    process::{Command, Output},
};

use picloud_test_support::TestRepository;
use serde_json::Value;

fn picloud(arguments: &[&str], at: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_picloud"))
        .args(arguments)
        .current_dir(at)
        .env("NO_COLOR", "1")
        .output()
        .expect("picloud runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const MANIFEST: &str = "
name: app
limits: {operations: 100000}
routes:
  - {path: '/items/{id}', methods: [PUT], script: scripts/item.rhai}
triggers:
  - {name: tick, kind: cron, script: scripts/tick.rhai, schedule: '*/10 * * * *'}
  - {name: watch, kind: kv, script: scripts/watch.rhai, collection: 'w*', retry: {attempts: 3, backoff: 10s}}
  - {name: letters, kind: dead_letter, script: scripts/letters.rhai, source_kind: kv}
secrets: {}
permissions: {http: {allow: [api.example, other.example]}}
";

const TESTS: &str = r#"
fn test_a_request_comes_by_its_route() {
    let answer = call("scripts/item.rhai", #{ params: #{ id: "a b" }, json: #{ n: 1 }, query: #{ q: ["1", "2"] } });
    assert_eq(answer.status, 201);
    assert_eq(answer.headers.location, "/items/a b");
    assert_eq(answer.body, #{ method: "PUT", path: "/items/a%20b", n: 1, q: ["1", "2"] });
    assert_eq(call("scripts/item.rhai", #{ method: "PUT", path: "/items/7?q=x", body: "no" }).body.q, "x");
}

fn test_limits_hold() {
    assert_eq(call("scripts/spin.rhai").json.limit, "operations");
    assert_eq(call("scripts/large.rhai").status, 500);
}

fn test_a_week_of_schedules() {
    clock::set("2026-05-01T00:00:30Z");
    clock::advance("7d");
    assert_eq(kv::get("ticks", "count"), 7 * 24 * 6);
    assert_eq(kv::get("ticks", "last"), "2026-05-08T00:00:00.000Z");
    assert_eq(time::now(), "2026-05-08T00:00:30.000Z");
}

fn test_what_fails_is_tried_again_and_given_up() {
    kv::set("watched", "k", "bad");
    assert_eq(kv::get("seen", "attempts"), ());
    clock::advance("0s");
    assert_eq(kv::get("seen", "attempts"), 1);
    clock::advance("9s");
    assert_eq(kv::get("seen", "attempts"), 1);
    clock::advance("1s");
    assert_eq(kv::get("seen", "attempts"), 2);
    clock::advance("20s");
    assert_eq(kv::get("seen", "attempts"), 3);
    clock::advance("0s");
    let letter = kv::get("seen", "letter");
    assert_eq([letter.attempts, letter.trigger, letter.last_error.message], [3, "watch", "no"]);
}

fn test_jobs_wait_for_their_time() {
    let one = scripts::enqueue("scripts/job.rhai", 1, #{ delay: "1h", key: "k" });
    let two = scripts::enqueue("scripts/job.rhai", 2, #{ delay: "1h", key: "k" });
    assert_eq(one, two);
    clock::advance("59m");
    assert_eq(kv::get("jobs", "sum"), ());
    clock::advance("1m");
    assert_eq(kv::get("jobs", "sum"), 2);
}

fn test_a_trigger_is_fired() {
    let run = fire("watch", #{ key: "k", value: 5 });
    assert_eq([run.status, run.value], ["ok", 5]);
    assert_eq(fire("watch", #{ value: "bad" }).error.message, "no");
}

fn test_the_network_is_what_the_test_says() {
    http::mock("https://api.example/x", #{ status: 202, headers: #{ "X-A": "b" }, body: #{ ok: true } });
    let answer = http::post("https://api.example/x", #{ n: 1 }, #{ query: #{ q: "1" } });
    assert_eq([answer.status, answer.headers["x-a"], answer.body], [202, "b", #{ ok: true }]);
    assert_eq(http::sent()[0], #{
        method: "POST", url: "https://api.example/x?q=1", headers: #{ "content-type": "application/json" }, body: #{ n: 1 },
    });
    let code = ();
    try { http::get("https://other.example/"); } catch (error) { code = error.code; }
    assert_eq(code, "blocked");
    secrets::mock("TOKEN", "hunter2");
    assert_eq(secrets::get("TOKEN"), "hunter2");
}

fn test_a_mock_makes_nothing_reachable_that_a_server_refuses() {
    let codes = [];
    for url in ["http://10.0.0.1/", "http://2130706433/", "http://u:p@api.example/", "http://api.example:22/", "http://elsewhere.test/"] {
        http::mock(url, #{ status: 200 });
        try { http::get(url); codes.push("reached " + url); } catch (error) { codes.push(error.code); }
    }
    assert_eq(codes, ["blocked", "blocked", "blocked", "blocked", "blocked"]);
    http::mock("https://api.example/on", #{ status: 302, headers: #{ location: "https://elsewhere.test/" } });
    let code = ();
    try { http::get("https://api.example/on"); } catch (error) { code = error.code; }
    assert_eq(code, "blocked");
    assert_eq(http::sent().map(|sent| sent.url), ["https://api.example/on"]);
}

fn test_worlds_are_apart() {
    assert_eq(kv::list("seen"), []);
    assert_eq(time::now(), "2026-01-01T00:00:00.000Z");
}
"#;

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    let write = |path: &str, text: &str| repository.write(&format!("apps/app/{path}"), text);
    write("app.yaml", MANIFEST);
    write(
        "scripts/item.rhai",
        "let r = ctx.request;
        #{ status: 201, headers: #{ location: `/items/${r.params.id}` },
           body: #{ method: r.method, path: r.path, n: r.json?.n, q: r.query.q } }",
    );
    write("scripts/spin.rhai", "loop {}");
    write(
        "scripts/large.rhai",
        "let a = []; loop { a.push(\"x\".to_upper()); }",
    );
    write(
        "scripts/tick.rhai",
        "kv::incr(\"ticks\", \"count\"); kv::set(\"ticks\", \"last\", ctx.event.cron.scheduled_at);",
    );
    write(
        "scripts/watch.rhai",
        "kv::incr(\"seen\", \"attempts\"); if ctx.event.kv.value == \"bad\" { throw \"no\"; } ctx.event.kv.value",
    );
    write(
        "scripts/letters.rhai",
        "kv::set(\"seen\", \"letter\", ctx.event.dead_letter);",
    );
    write(
        "scripts/job.rhai",
        "kv::incr(\"jobs\", \"sum\", ctx.event.payload);",
    );
    write("tests/all.rhai", TESTS);
    repository
}

#[test]
fn tests_live_in_a_world_of_their_own() {
    let repository = repository();
    let output = picloud(&["test"], repository.path());
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(told.lines().last(), Some("9 passed, 0 failed"));
}

#[test]
fn a_failure_is_told_by_its_place_and_the_values() {
    let repository = repository();
    repository.write(
        "apps/app/modules/check.rhai",
        "fn even(n) {\n  if n % 2 != 0 { throw \"odd\"; }\n}",
    );
    repository.write(
        "apps/app/tests/all.rhai",
        "import \"check\" as check;\nfn test_values() {\n    assert_eq(#{ a: [1, 2] }, #{ a: [1, 3] });\n}\nfn test_module() {\n    check::even(3);\n}\nfn test_fine() { assert(true); }\nfn helper() { throw \"not a test\"; }\n",
    );
    repository.write("apps/app/tests/broken.rhai", "fn test_x( {");
    let output = picloud(&["test"], repository.path());
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for expected in [
        "apps/app/tests/all.rhai:3:5\n",
        ".a[1]: 2 is not 3",
        "apps/app/tests/all.rhai:6\n",
        "odd",
        "in apps/app/modules/check.rhai:2",
        "apps/app/tests/broken.rhai:1:12",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    assert_eq!(told.lines().last(), Some("1 passed, 3 failed"), "{told}");

    let output = picloud(&["test", "--filter", "test_fine"], repository.path());
    assert_eq!(
        text(&output.stdout).lines().last(),
        Some("1 passed, 0 failed")
    );
    assert_eq!(output.status.code(), Some(0));

    let output = picloud(&["test", "--format", "json"], repository.path());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&1.into(), &3.into())
    );
    let place = &report["tests"][0]["failure"]["place"];
    assert_eq!((&place["line"], &place["column"]), (&3.into(), &5.into()));
    let output = picloud(&["test", "--format", "junit"], repository.path());
    let junit = text(&output.stdout);
    assert!(
        junit.contains("<testsuites name=\"picloud test\" tests=\"4\" failures=\"3\""),
        "{junit}"
    );
    assert!(junit.contains("<failure message=\"odd\">"), "{junit}");

    // What is invalid is told, and the valid apps are tested all the same.
    repository.write("apps/other/app.yaml", "name: other\nroutes: 5\n");
    let output = picloud(&["test", "--filter", "test_fine"], repository.path());
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    assert!(told.contains("apps/other/app.yaml:2:9"), "{told}");
    assert_eq!(told.lines().last(), Some("1 passed, 0 failed"));
}

#[test]
fn nothing_to_run_is_no_failure_and_what_init_and_the_examples_hold_passes() {
    let empty = tempfile::tempdir().expect("a folder");
    let output = picloud(&["test"], empty.path());
    assert_eq!(text(&output.stdout), "0 passed, 0 failed\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(picloud(&["init"], empty.path()).status.code(), Some(0));
    let output = picloud(&["test"], empty.path());
    assert_eq!(
        text(&output.stdout).lines().last(),
        Some("2 passed, 0 failed")
    );

    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples-repo");
    let output = picloud(&["test"], &examples);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    for app in std::fs::read_dir(examples.join("apps")).expect("the examples") {
        let name = app
            .expect("an app")
            .file_name()
            .into_string()
            .expect("a name");
        assert!(
            told.contains(&format!("apps/{name}/tests/")),
            "{name} has tests"
        );
    }
}
