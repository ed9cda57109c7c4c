//! Apps that depend on one another, commits that come while others are tried, and plans that
//! somebody has to look at.

use std::time::{Duration, Instant};

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::{Server, eventually};

fn app(repository: &TestRepository, name: &str, script: &str, more: &str) {
    repository.write(
        &format!("apps/{name}/app.yaml"),
        &format!("name: {name}\nroutes:\n  - {{path: /, script: scripts/a.rhai}}\n{more}"),
    );
    repository.write(&format!("apps/{name}/scripts/a.rhai"), script);
}

/// The deployment of a commit, once it has one of these states.
fn deployment(server: &Server, commit: &str, states: &[&str]) -> Value {
    let mut found = Value::Null;
    eventually(&format!("{commit} to be {states:?}"), || {
        let all = server.admin("/deployments?limit=50");
        let all = all["items"].as_array().cloned().unwrap_or_default();
        let own = all.into_iter().find(|one| one["commit"] == commit);
        found = own.unwrap_or_default();
        states.iter().any(|state| found["status"] == *state)
    });
    found
}

/// Waits until an app answers so: what is applied is served a moment later.
fn serves(server: &Server, app: &str, text: &str) {
    let path = format!("/apps/{app}/");
    eventually(&format!("{app} to say {text}"), || {
        server.get(&path).text() == text
    });
}

fn outcomes(deployment: &Value) -> Vec<(String, String, Option<String>)> {
    let apps = deployment["apps"].as_array().expect("outcomes");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    apps.iter()
        .map(|app| {
            (
                text(&app["name"]).expect("a name"),
                text(&app["outcome"]).expect("an outcome"),
                text(&app["commit"]),
            )
        })
        .collect()
}

#[test]
fn an_app_is_no_newer_than_what_it_depends_on() {
    const NEEDS: &str = "depends_on:\n  - base\n";
    let checks = "checks:\n  - {path: /ok}\n  # the front\n  - path: /\n    within: 300ms\n";
    let route = |script: &str| {
        format!(
            "name: base\nroutes:\n  - {{path: /, script: scripts/a.rhai}}\n  - {{path: /ok, script: scripts/ok.rhai}}\n{script}"
        )
    };
    let repository = TestRepository::new();
    app(&repository, "base", "\"base 1\"", "");
    repository.write("apps/base/scripts/ok.rhai", "\"ok\"");
    repository.write("apps/base/app.yaml", &route(checks));
    app(&repository, "top", "\"top 1\"", NEEDS);
    app(&repository, "other", "\"other 1\"", "");
    let first = repository.commit("feat: three apps");
    let server = Server::start(repository.path());
    let done = deployment(&server, &first, &["synced"]);
    let applied = |name: &str, commit: &str| {
        (
            name.to_owned(),
            "applied".to_owned(),
            Some(commit.to_owned()),
        )
    };
    assert_eq!(
        outcomes(&done),
        ["base", "other", "top"].map(|name| applied(name, &first))
    );

    // What it depends on has errors: it stays, too, and says so; the others go on.
    repository.write("apps/base/app.yaml", "name: base\nroutes: 1\n");
    app(&repository, "top", "\"top 2\"", NEEDS);
    app(&repository, "other", "\"other 2\"", "");
    let second = repository.commit("feat: base is broken");
    let done = deployment(&server, &second, &["partial"]);
    let stays = |name: &str, word: &str| (name.to_owned(), word.to_owned(), Some(first.clone()));
    assert_eq!(
        outcomes(&done),
        [
            stays("base", "invalid"),
            applied("other", &second),
            stays("top", "blocked")
        ]
    );
    let codes: Vec<&str> = done["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["code"].as_str())
        .collect();
    assert_eq!(codes, ["E0103", "E0214"], "{done}");
    serves(&server, "top", "top 1");
    serves(&server, "other", "other 2");

    // A check of it fails: what depends on it goes back with it, and the finding points at the check.
    repository.write("apps/base/app.yaml", &route(checks));
    repository.write("apps/base/scripts/a.rhai", "throw 1");
    let third = repository.commit("feat: base answers no more");
    let done = deployment(&server, &third, &["reverted"]);
    assert_eq!(
        outcomes(&done),
        [stays("base", "reverted"), stays("top", "reverted")],
        "{done}"
    );
    let check = done["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .find(|error| error["code"] == "E0701")
        .expect("a check");
    assert_eq!(
        (&check["path"], &check["line"], &check["column"]),
        (&json!("apps/base/app.yaml"), &json!(8), &json!(11)),
        "{check}"
    );
    serves(&server, "top", "top 1");
    serves(&server, "base", "base 1");

    repository.write("apps/base/scripts/a.rhai", "\"base 4\"");
    let fourth = repository.commit("fix: base");
    let done = deployment(&server, &fourth, &["synced"]);
    assert_eq!(
        outcomes(&done),
        [applied("base", &fourth), applied("top", &fourth)],
        "{done}"
    );
    serves(&server, "top", "top 2");
}

#[test]
fn a_newer_commit_waits_for_no_check_and_an_end_loses_none() {
    const CHECKS: &str = "checks:\n  - {path: /, within: 2m}\n";
    let repository = TestRepository::new();
    app(&repository, "app", "\"one\"", CHECKS);
    app(&repository, "other", "\"one\"", "");
    let first = repository.commit("feat: two apps");
    let mut server = Server::start(repository.path());
    deployment(&server, &first, &["synced"]);

    // It would be tried for two minutes; the next commit is live long before.
    app(&repository, "app", "throw 1", CHECKS);
    let second = repository.commit("feat: an app that does not answer");
    eventually("it to be live", || server.get("/apps/app/").status == 500);
    app(&repository, "other", "\"two\"", "");
    let began = Instant::now();
    let third = repository.commit("feat: the other");
    eventually("the newer commit", || {
        server.get("/apps/other/").text() == "two"
    });
    assert!(began.elapsed() < Duration::from_mins(1));
    // The app that was not tried to its end is tried with it.
    assert_eq!(
        deployment(&server, &second, &["synced"])["apps"][0]["outcome"],
        "applied"
    );
    assert_eq!(
        deployment(&server, &third, &["applying"])["status"],
        "applying"
    );

    // Neither does the end of the process lose it: it is tried again, and goes back.
    app(
        &repository,
        "app",
        "throw 1",
        "checks:\n  - {path: /, within: 3s}\n",
    );
    let fourth = repository.commit("feat: tried for a shorter time");
    eventually("it to be live", || {
        server.admin("/apps/app")["commit"] == fourth
    });
    server.kill();
    let server = server.restart(repository.path());
    let done = deployment(&server, &fourth, &["reverted"]);
    assert_eq!(done["errors"][0]["code"], "E0701", "{done}");
    assert_eq!(done["apps"][0]["outcome"], "reverted", "{done}");
}

#[test]
fn a_plan_that_nobody_reviewed_is_held_and_a_held_one_is_over_with_the_next() {
    const SETTINGS: &str = "sync: {require_reviewed: true}\n";
    let repository = TestRepository::new();
    app(&repository, "app", "\"one\"", "");
    let first = repository.commit("feat: an app");
    let server = Server::start(repository.path());
    deployment(&server, &first, &["synced"]);

    repository.write("picloud.yaml", SETTINGS);
    app(&repository, "app", "\"two\"", "");
    let second = repository.commit("feat: two");
    let held = deployment(&server, &second, &["held"]);
    let unreviewed = |held: &Value| {
        held["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .any(|error| error["code"] == "E0706")
    };
    assert!(unreviewed(&held), "{held}");
    serves(&server, "app", "one");
    // The same plan has the same hash wherever it is shown.
    let (_, plan, _) = server.program(repository.path(), &["plan", "--format", "json"]);
    let plan: Value = serde_json::from_str(&plan).expect("a plan");
    assert_eq!(plan["hash"], held["plan_hash"], "{plan}");

    app(&repository, "app", "\"three\"", "");
    let third = repository.commit("feat: three");
    let held = deployment(&server, &third, &["held"]);
    let over = deployment(&server, &second, &["failed"]);
    let last = over["errors"]
        .as_array()
        .and_then(|errors| errors.last())
        .expect("a reason");
    assert_eq!(last["code"], "E0705", "{over}");
    let approve = format!(
        "/deployments/{}/approve",
        held["id"].as_str().expect("an id")
    );
    server.admin_request("POST", &approve, None);
    assert_eq!(deployment(&server, &third, &["synced"])["id"], held["id"]);
    serves(&server, "app", "three");

    // What changes nothing that is live needs nobody; what switches it off does.
    repository.write("README.md", "Hello.");
    let fourth = repository.commit("docs: hello");
    deployment(&server, &fourth, &["synced"]);
    repository.write("picloud.yaml", "{}\n");
    let fifth = repository.commit("chore: no reviews");
    assert!(unreviewed(&deployment(&server, &fifth, &["held"])));
}
