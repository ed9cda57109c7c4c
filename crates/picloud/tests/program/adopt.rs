//! What somebody changed by hand, brought back into the repository: by a patch that git applies,
//! and by a commit on a branch.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::{
    drift::Hand,
    support::{HOSTED, Server},
};

const MANIFEST: &str = "# The shop.
name: shop
env: {WORD: one}   # what it says

routes:
  # the front door
  - path: /
    script: scripts/a.rhai

triggers:
  # each morning
  - name: report
    kind: cron
    schedule: '0 9 * * *'   # before the meeting
    timezone: Europe/Berlin
    script: scripts/a.rhai
";

fn shop() -> TestRepository {
    let repository = TestRepository::new();
    repository.write("apps/shop/app.yaml", MANIFEST);
    repository.write("apps/shop/scripts/a.rhai", "ctx.env.WORD\n");
    repository.write("apps/shop/public/logo.txt", "logo\n");
    repository.write("apps/other/app.yaml", "name: other\nenv: {A: b}\n");
    repository.commit("feat: a shop");
    repository
}

/// Has git read a patch from standard input.
fn apply(folder: &Path, patch: &str) {
    use std::io::Write;
    let mut child = Command::new("git")
        .args(["apply", "--index", "--whitespace=error", "-"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git runs");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(patch.as_bytes()).expect("written");
    drop(stdin);
    let done = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\n{patch}");
}

fn api(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = (!body.is_null()).then_some(body);
    let answer = server.admin_request(method, path, body);
    (answer.status, answer.json())
}

/// Changes the shop through the API and by hand in all the ways that files can say.
fn change(server: &Server) {
    let changed = api(
        server,
        "PATCH",
        "/apps/shop/triggers/report",
        &json!({ "schedule": "0 7 * * 1-5", "enabled": false }),
    );
    assert_eq!(changed.0, 200, "{}", changed.1);
    let new = json!({ "name": "nightly", "script": "scripts/a.rhai", "schedule": "30 2 * * *", "timezone": "UTC" });
    let made = api(server, "POST", "/apps/shop/triggers/cron", &new);
    assert_eq!(made.0, 201, "{}", made.1);
    let mut hand = Hand::on(server);
    let shop = "(SELECT id FROM apps WHERE name = 'shop')";
    for sql in [
        format!("UPDATE app_env SET value = 'two: and #3' WHERE app_id = {shop}"),
        format!(
            "UPDATE apps SET timeout_ms = 90000, http_allow = '{{api.example.com}}' WHERE id = {shop}"
        ),
        format!("INSERT INTO app_domains (app_id, domain) VALUES ({shop}, 'shop.example.com')"),
        format!(
            "UPDATE routes SET rate_limit = '{{\"requests\": 7, \"window_ms\": 60000}}' WHERE app_id = {shop}"
        ),
        "UPDATE script_blobs SET content = '// by hand\n\"hand\"\n' WHERE content LIKE 'ctx.env%'"
            .to_owned(),
        "DELETE FROM app_env WHERE app_id = (SELECT id FROM apps WHERE name = 'other')".to_owned(),
    ] {
        hand.run(&sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[test]
fn live_changes_become_a_patch_and_a_commit_of_the_repository() {
    let repository = shop();
    let server = Server::start(Path::new(HOSTED));
    let remote = server.remote(None);
    repository.git(&["push", "--quiet", &remote, "HEAD:refs/heads/main"]);
    let base = repository.git(&["rev-parse", "HEAD"]);
    let (code, patch, _) = server.program(repository.path(), &["drift", "--as-patch"]);
    assert_eq!((code, patch.as_str()), (0, ""), "nothing differs yet");

    change(&server);
    let (_, shown) = api(&server, "GET", "/apps/shop/drift/patch", &json!(null));
    assert_eq!(shown["commit"], base.as_str(), "{shown}");
    assert_eq!(
        (&shown["left"], &shown["errors"]),
        (&json!([]), &json!([])),
        "{shown}"
    );
    let (code, patch, told) = server.program(repository.path(), &["drift", "--as-patch"]);
    assert_eq!(code, 0, "{told}");
    for kept in [
        " # The shop.",
        "+env: {WORD: \"two: and #3\"}   # what it says",
        "+    schedule: '0 7 * * 1-5'   # before the meeting",
    ] {
        assert!(patch.contains(kept), "{kept} is missing:\n{patch}");
    }

    // The same as a commit, made by the server itself on a branch.
    let refused = api(
        &server,
        "POST",
        "/apps/shop/adopt",
        &json!({ "branch": "main" }),
    );
    assert_eq!(refused.0, 422, "{}", refused.1);
    let adopt = [
        "drift",
        "--adopt",
        "--branch",
        "adopted",
        "-m",
        "chore: as it is live",
    ];
    let (code, told, error) = server.program(repository.path(), &adopt);
    assert_eq!(code, 0, "{told}{error}");
    repository.git(&["fetch", "--quiet", &remote, "adopted"]);
    let adopted = repository.git(&["rev-parse", "FETCH_HEAD"]);
    assert!(told.contains(&adopted), "{told}");
    assert_eq!(
        repository.git(&["rev-parse", "FETCH_HEAD~2"]),
        base,
        "one commit an app, on what is live"
    );
    assert_eq!(
        repository.git(&["log", "-1", "--format=%s", "FETCH_HEAD"]),
        "chore: as it is live"
    );

    apply(repository.path(), &patch);
    assert_eq!(
        repository.git(&["write-tree"]),
        repository.git(&["rev-parse", "FETCH_HEAD^{tree}"]),
        "the patch and the commit are the same change"
    );

    // Merged, git and live agree: nothing to plan, nothing differs.
    repository.git(&["reset", "--quiet", "--hard", &adopted]);
    repository.git(&["push", "--quiet", &remote, "HEAD:refs/heads/main"]);
    let (code, plan, _) = server.program(repository.path(), &["plan", "--exit-code"]);
    assert_eq!(code, 0, "{plan}");
    let (code, left, _) = server.program(repository.path(), &["drift", "--exit-code"]);
    assert_eq!(code, 0, "{left}");
    assert_eq!(server.get("/apps/shop/").text(), "hand");
    let (_, deployments) = api(&server, "GET", "/deployments?limit=1", &json!(null));
    assert_eq!(
        deployments["items"][0]["changes"],
        json!([]),
        "{deployments}"
    );
    let nothing = api(
        &server,
        "POST",
        "/apps/shop/adopt",
        &json!({ "branch": "again" }),
    );
    assert_eq!(
        (nothing.0, nothing.1["code"].as_str()),
        (409, Some("nothing_to_adopt"))
    );
}

#[test]
fn a_trigger_is_proposed_for_review_and_is_not_live_before_it_is_merged() {
    let repository = shop();
    let server = Server::start(Path::new(HOSTED));
    let remote = server.remote(None);
    repository.git(&["push", "--quiet", &remote, "HEAD:refs/heads/main"]);
    // What drifts is not proposed with it.
    change(&server);
    let trigger =
        json!({ "name": "evening", "script": "scripts/a.rhai", "schedule": "0 18 * * *" });
    let propose = |body: &Value| {
        let path = "/apps/shop/triggers/cron/proposal";
        api(&server, "POST", path, body)
    };
    let (status, shown) = propose(&json!({ "trigger": trigger }));
    assert_eq!(status, 200, "{shown}");
    let patch = shown["patch"].as_str().expect("a patch");
    let added: Vec<&str> = patch
        .lines()
        .filter(|line| line.starts_with('+') || line.starts_with('-'))
        .filter(|line| !line.starts_with("+++") && !line.starts_with("---"))
        .collect();
    assert!(added.iter().all(|line| line.starts_with('+')), "{patch}");
    assert!(
        patch.contains("evening") && patch.contains("0 18 * * *") && !patch.contains("two: and #3"),
        "{patch}"
    );
    apply(repository.path(), patch);

    let (status, shown) = propose(&json!({ "trigger": trigger, "branch": "evening" }));
    assert_eq!(status, 201, "{shown}");
    repository.git(&["fetch", "--quiet", &remote, "evening"]);
    assert_eq!(
        repository.git(&["write-tree"]),
        repository.git(&["rev-parse", "FETCH_HEAD^{tree}"]),
        "the patch and the commit are the same change"
    );
    let (_, live) = api(&server, "GET", "/apps/shop/triggers", &json!(null));
    let live = live["items"].as_array().expect("triggers");
    assert!(live.iter().all(|one| one["name"] != "evening"));

    let taken = json!({ "name": "report", "script": "scripts/a.rhai", "schedule": "0 18 * * *" });
    let refused = [
        (json!({ "trigger": taken }), 409, "name_taken"),
        (
            json!({ "trigger": { "name": "e", "script": "scripts/none.rhai", "schedule": "0 18 * * *" } }),
            422,
            "invalid",
        ),
        (
            json!({ "trigger": trigger, "branch": "main" }),
            422,
            "invalid",
        ),
        (json!({ "trigger": 1 }), 422, "invalid"),
    ];
    for (body, status, code) in refused {
        let answer = propose(&body);
        assert_eq!(
            (answer.0, answer.1["code"].as_str()),
            (status, Some(code)),
            "{body}: {}",
            answer.1
        );
    }
    let (status, _) = api(
        &server,
        "POST",
        "/apps/shop/triggers/weekly/proposal",
        &json!({ "trigger": trigger }),
    );
    assert_eq!(status, 404);
}

#[test]
fn what_files_cannot_say_is_told_and_work_trees_are_left_alone() {
    let repository = shop();
    let server = Server::start(repository.path());
    let mut hand = Hand::on(&server);
    hand.run("UPDATE cron_trigger_details SET schedule = 'often'")
        .expect("done");
    let (code, patch, told) = server.program(repository.path(), &["drift", "shop", "--as-patch"]);
    assert_eq!((code, patch.as_str()), (1, ""), "{told}");
    assert!(told.contains("would be refused"), "{told}");
    hand.run("UPDATE cron_trigger_details SET schedule = '0 8 * * *'")
        .expect("done");
    hand.run("DELETE FROM apps WHERE name = 'other'")
        .expect("done");
    // What is checked out is not moved under its work tree; another branch is only a reference.
    let checked_out = api(
        &server,
        "POST",
        "/apps/shop/adopt",
        &json!({ "branch": "main" }),
    );
    assert_eq!(checked_out.0, 422, "{}", checked_out.1);
    let adopted = ["drift", "--adopt", "--branch", "adopted"];
    let (code, _, told) = server.program(repository.path(), &adopted);
    assert_eq!(code, 0, "{told}");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    let changed = repository.git(&["diff", "--name-status", "HEAD", "adopted"]);
    assert_eq!(changed, "D\tapps/other/app.yaml\nM\tapps/shop/app.yaml");
}
