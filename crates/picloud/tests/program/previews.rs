//! Branches as apps of their own.

use std::process::Command;

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::{
    drift::Hand,
    support::{HOSTED, Server, eventually},
};

const MANIFEST: &str = "name: shop\ndomains: [shop.example.com]\nroutes:\n  - {path: /, script: scripts/a.rhai}\n  - {path: /count, script: scripts/count.rhai}\n\
    triggers:\n  - {name: tick, kind: cron, schedule: '* * * * * *', script: scripts/count.rhai}\n";

fn write(repository: &TestRepository, word: &str) -> String {
    repository.write("apps/shop/app.yaml", MANIFEST);
    repository.write("apps/shop/scripts/a.rhai", &format!("\"{word}\""));
    repository.write("apps/shop/scripts/count.rhai", "kv::incr(\"c\", \"n\")");
    repository.commit(word)
}

fn enabled(repository: &TestRepository, settings: &str) {
    repository.write("picloud.yaml", &format!("previews: {settings}\n"));
}

/// A commit on a branch, made elsewhere: what is checked out stays what it is.
fn on_branch(repository: &TestRepository, branch: &str, word: &str) -> String {
    let elsewhere = TestRepository::new();
    let path = repository.path().display().to_string();
    elsewhere.git(&["fetch", "-q", &path, "main"]);
    elsewhere.git(&["checkout", "-qB", "work", "FETCH_HEAD"]);
    let commit = write(&elsewhere, word);
    elsewhere.git(&["push", "-qf", &path, &format!("HEAD:refs/heads/{branch}")]);
    commit
}

fn slugs(server: &Server) -> Vec<String> {
    let listed = server.admin("/sources/local/previews");
    let items = listed["items"].as_array().expect("items");
    let slug = |item: &Value| item["slug"].as_str().expect("a slug").to_owned();
    items.iter().map(slug).collect()
}

#[test]
fn a_branch_is_an_app_of_its_own_until_it_is_gone() {
    let repository = TestRepository::new();
    enabled(&repository, "{enabled: true, ttl: 1d}");
    write(&repository, "main");
    // A branch that nobody works on any more.
    let old = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.com"])
        .args(["commit-tree", "-p", "HEAD", "-m", "old", "HEAD^{tree}"])
        .env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z")
        .current_dir(repository.path())
        .output()
        .expect("git runs");
    let old = String::from_utf8(old.stdout).expect("an id");
    repository.git(&["branch", "stale", old.trim()]);
    let commit = on_branch(&repository, "feature/New", "topic");
    let server = Server::start(repository.path());
    eventually("the preview", || {
        slugs(&server).len() == 2
            && server.admin("/apps")["items"]
                .as_array()
                .map_or(0, Vec::len)
                == 2
    });
    let apps = server.admin("/apps");
    let preview = &apps["items"][1];
    let name = preview["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("shop--feature-new-"), "{name}");
    assert_eq!(preview["source"], "local");
    assert_eq!(preview["commit"], json!(commit));
    assert_eq!(preview["preview"]["reference"], "refs/heads/feature/New");
    assert_eq!(preview["domains"], json!([]));
    assert_eq!(preview["sync"], "synced");
    assert_eq!(apps["items"][0]["preview"], Value::Null);
    let path = format!("/apps/{name}/");
    let answer = server.get(&path);
    assert_eq!((answer.status, answer.text().as_str()), (200, "topic"));
    assert_eq!(answer.header("x-picloud-commit"), Some(commit.as_str()));
    assert_eq!(server.get("/apps/shop/").text(), "main");

    // Its own data, and nothing fires by itself.
    eventually("the deployed app's trigger", || {
        let count = server.get("/apps/shop/count").text();
        count.parse::<i64>().is_ok_and(|count| count > 2)
    });
    assert_eq!(server.get(&format!("/apps/{name}/count")).text(), "1");

    // The deployed branch goes on without it, and it without the branch.
    let listed = server.admin("/deployments");
    assert!(
        listed["items"]
            .as_array()
            .expect("items")
            .iter()
            .all(|one| one["source"] == "local")
    );
    let main = write(&repository, "main again");
    eventually("the next commit", || {
        server.get("/apps/shop/").text() == "main again"
    });
    assert_eq!(
        server.get("/apps/shop/").header("x-picloud-commit"),
        Some(main.as_str())
    );
    assert_eq!(server.get(&path).text(), "topic");
    on_branch(&repository, "feature/New", "topic again");
    eventually("the preview's next commit", || {
        server.get(&path).text() == "topic again"
    });
    assert_eq!(server.get(&format!("/apps/{name}/count")).text(), "2");

    repository.git(&["branch", "-qD", "feature/New"]);
    eventually("its end", || server.get(&path).status == 404);
    assert_eq!(server.get("/apps/shop/").text(), "main again");
    // The same branch again is the same name, with new data; switched off, all are gone.
    on_branch(&repository, "feature/New", "third");
    eventually("the preview again", || server.get(&path).text() == "third");
    assert_eq!(server.get(&format!("/apps/{name}/count")).text(), "1");
    enabled(&repository, "{enabled: false}");
    repository.commit("feat: no previews");
    eventually("no previews", || {
        slugs(&server).is_empty() && server.get(&path).status == 404
    });
    assert_eq!(server.get("/apps/shop/").status, 200);
}

#[test]
fn a_push_of_another_branch_tells_where_its_preview_is() {
    let repository = TestRepository::new();
    enabled(&repository, "{enabled: true}");
    write(&repository, "main");
    let server = Server::start(std::path::Path::new(HOSTED));
    let remote = server.remote(None);
    let push = |branch: &str| {
        let output = Command::new("git")
            .args(["push", "-q", &remote, branch])
            .current_dir(repository.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .output()
            .expect("git runs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    push("main");
    let commit = on_branch(&repository, "topic", "topic");
    let told = push("topic");
    assert!(
        told.contains(&commit) && told.contains("/apps/shop--topic/"),
        "{told}"
    );
    assert_eq!(server.get("/apps/shop--topic/").text(), "topic");
    repository.git(&["checkout", "-q", "topic"]);
    repository.write("apps/shop/app.yaml", "name: shop\nroutez: []\n");
    repository.commit("fix: a mistake");
    repository.git(&["checkout", "-q", "main"]);
    let told = push("topic");
    assert!(told.contains("routez") && told.contains("failed"), "{told}");
    assert_eq!(server.get("/apps/shop--topic/").text(), "topic");
    push(":topic");
    eventually("its end", || server.get("/apps/shop--topic/").status == 404);
}

#[test]
fn drift_of_a_preview_is_undone_also_after_a_new_start() {
    let repository = TestRepository::new();
    enabled(&repository, "{enabled: true}");
    write(&repository, "main");
    on_branch(&repository, "topic", "topic");
    let server = Server::start(repository.path());
    eventually("the preview", || {
        server.get("/apps/shop--topic/").text() == "topic"
    });
    let server = server.restart(repository.path());
    let mut hand = Hand::on(&server);
    hand.run("UPDATE apps SET description = 'by hand' WHERE name = 'shop--topic'")
        .expect("done");
    let drift = || server.admin("/apps/shop--topic/drift")["drifted"].clone();
    assert_eq!(drift(), true);
    let healed = server.admin_request("POST", "/apps/shop--topic/heal", None);
    assert_eq!(healed.status, 200, "{healed:?}");
    assert_eq!(drift(), false);
    // Its files are those of another app: there is nothing to adopt them into.
    let adopted = server.admin_request("GET", "/apps/shop--topic/drift/patch", None);
    assert_eq!(adopted.status, 409, "{adopted:?}");
}
