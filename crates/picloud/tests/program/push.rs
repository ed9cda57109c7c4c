//! Pushing to a hosted repository, with a real git over HTTP.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use picloud_test_support::TestRepository;
use serde_json::json;

use crate::support::{HOSTED, Server};

const MANIFEST: &str = "name: app\nenv: {WORD: one}\nroutes:\n  - {path: /, script: scripts/a.rhai}\ntriggers:\n  - {name: nightly, kind: cron, schedule: '30 2 * * *', timezone: Europe/Berlin, script: scripts/a.rhai}\n";

fn app() -> TestRepository {
    let repository = TestRepository::new();
    repository.write("apps/app/app.yaml", MANIFEST);
    repository.write("apps/app/scripts/a.rhai", "ctx.env.WORD");
    repository.commit("feat: an app");
    repository
}

fn with_word(word: &str) -> String {
    MANIFEST.replace("WORD: one", &format!("WORD: {word}"))
}

fn hosted() -> Server {
    Server::start(Path::new(HOSTED))
}

/// A git command that asks nobody anything; it may fail.
fn git(folder: &Path, arguments: &[&str]) -> Output {
    git_command(folder, arguments).output().expect("git runs")
}

fn git_command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

/// Whether a push was taken, and what stood on the pusher's terminal: the server's lines as the
/// server wrote them.
fn push(repository: &TestRepository, remote: &str, arguments: &[&str]) -> (bool, String) {
    let mut all = vec!["push", remote];
    all.extend(arguments);
    told(&git(repository.path(), &all))
}

fn told(output: &Output) -> (bool, String) {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("remote: ").unwrap_or(line).trim_end())
        .collect();
    (output.status.success(), lines.join("\n"))
}

fn head(repository: &TestRepository) -> String {
    repository.git(&["rev-parse", "HEAD"])
}

#[test]
fn a_push_tells_its_plan_and_what_became_live() {
    let repository = app();
    let server = hosted();
    let remote = server.remote(None);
    let greeting = server.output();
    assert!(
        greeting.contains("git remote add picloud http://127.0.0.1:"),
        "{greeting}"
    );
    let (done, text) = push(&repository, &remote, &["main"]);
    assert!(done, "{text}");
    for expected in [
        "+ app",
        "GET /",
        "nightly",
        "scripts/a.rhai",
        &head(&repository)[..10],
        " ms",
        "/apps/app/",
        "T02:30:00+0",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    // What the push told is so when it ends, not some time later.
    let answer = server.get("/apps/app/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
    assert_eq!(
        answer.header("x-picloud-commit"),
        Some(head(&repository).as_str())
    );

    let nothing = push(&repository, &remote, &["main"]);
    assert_eq!((nothing.0, nothing.1.contains("up-to-date")), (true, true));

    repository.write("apps/app/app.yaml", &with_word("two"));
    repository.commit("feat: two");
    let (done, text) = push(&repository, &remote, &["-o", "dry-run", "main"]);
    assert!(
        !done && text.contains("WORD") && text.contains("dry run"),
        "{text}"
    );
    assert_eq!(server.get("/apps/app/").text(), "one");
    let (done, text) = push(&repository, &remote, &["main:feature"]);
    assert!(
        done && text.contains("feature is not deployed") && text.contains("WORD"),
        "{text}"
    );
    assert_eq!(server.get("/apps/app/").text(), "one");
    assert_eq!(
        server.admin("/deployments")["items"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let (done, text) = push(&repository, &remote, &["main"]);
    assert!(done && text.contains("WORD"), "{text}");
    assert_eq!(server.get("/apps/app/").text(), "two");
}

#[test]
fn an_invalid_tree_is_refused_with_every_error_at_its_place() {
    let repository = app();
    let server = hosted();
    let remote = server.remote(None);
    assert!(push(&repository, &remote, &["main"]).0);
    let good = head(&repository);
    repository.write(
        "apps/app/app.yaml",
        &MANIFEST
            .replace("a.rhai}\ntriggers", "b.rhai}\ntriggers")
            .replace("kind: cron", "kind: corn"),
    );
    repository.write("apps/app/scripts/a.rhai", "let a = 1;\nlet b = ;");
    repository.commit("feat: broken");
    let (done, text) = push(&repository, &remote, &["main", "main:other"]);
    assert!(!done, "{text}");
    for expected in [
        "apps/app/app.yaml:4:23: error[E0207]",
        "4 |   - {path: /, script: scripts/b.rhai}\n  |                       ^^^^^^^^^^^^^^",
        "= hint: did you mean `scripts/a.rhai`?",
        "apps/app/app.yaml:6:27: error[E0108]",
        "apps/app/scripts/a.rhai:2:9: error[E0401]",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    // Nothing of it: neither the branch nor what is live, and not the other branch either.
    let there = git(repository.path(), &["ls-remote", &remote]);
    let there = String::from_utf8_lossy(&there.stdout).into_owned();
    assert!(
        there.contains(&format!("{good}\trefs/heads/main")) && !there.contains("other"),
        "{there}"
    );
    assert_eq!(server.get("/apps/app/").text(), "one");
    assert_eq!(server.admin("/sources/default")["commit"], json!(good));
    // A branch that is not deployed may be broken, and says so.
    let (done, text) = push(&repository, &remote, &["main:other"]);
    assert!(done && text.contains("error[E0401]"), "{text}");
    // The branch is there and mended, and goes live.
    repository.git(&["reset", "-q", "--hard", &good]);
    repository.write("apps/app/scripts/a.rhai", "\"mended\"");
    repository.commit("fix: mend it");
    assert!(push(&repository, &remote, &["main"]).0);
    assert_eq!(server.get("/apps/app/").text(), "mended");
}

#[test]
fn branches_tags_and_history_are_what_git_says_except_the_deployed_one() {
    let repository = app();
    let server = hosted();
    let remote = server.remote(None);
    assert!(push(&repository, &remote, &["main", "main:old"]).0);
    repository.write("apps/app/app.yaml", &with_word("two"));
    repository.commit("feat: two");
    repository.git(&["tag", "-a", "v1", "-m", "one"]);
    assert!(push(&repository, &remote, &["main", "v1"]).0);
    assert_eq!(server.get("/apps/app/").text(), "two");
    let (done, text) = push(&repository, &remote, &["--delete", "main"]);
    assert!(
        !done && text.contains("`main` is what is deployed; it cannot be deleted"),
        "{text}"
    );
    let (done, text) = push(&repository, &remote, &["--delete", "old", "v1"]);
    assert!(done, "{text}");

    repository.git(&["reset", "-q", "--hard", "HEAD^"]);
    repository.write("apps/app/app.yaml", &with_word("three"));
    repository.commit("feat: three, instead of two");
    let (done, _) = push(&repository, &remote, &["main"]);
    assert!(
        !done,
        "what isn't a fast-forward needs --force, as everywhere"
    );
    let (done, text) = push(&repository, &remote, &["--force", "main"]);
    assert!(done && text.contains("history was rewritten"), "{text}");
    assert_eq!(server.get("/apps/app/").text(), "three");
    let last = &server.admin("/deployments?limit=1")["items"][0];
    assert_eq!(
        (&last["history_rewritten"], &last["commit"]),
        (&json!(true), &json!(head(&repository)))
    );
    // A branch of the same name as the deployed one, below another folder, is another branch.
    assert!(push(&repository, &remote, &["main:x/main"]).0);

    // The deployed branch is what the source says.
    let made = server.admin_request(
        "PUT",
        "/sources/site",
        Some(&json!({ "kind": "hosted", "branch": "live/site" })),
    );
    assert_eq!(made.status, 201);
    let site = remote.replace("default.git", "site.git");
    repository.write(
        "apps/app/app.yaml",
        &MANIFEST.replace("name: app", "name: site"),
    );
    repository.commit("feat: another app");
    assert!(push(&repository, &site, &["main"]).0);
    assert_eq!(server.get("/apps/site/").status, 404);
    let (done, text) = push(&repository, &site, &["main:live/site"]);
    assert!(done && text.contains("/apps/site/"), "{text}");
    assert_eq!(server.get("/apps/site/").text(), "one");
    let (done, _) = push(&repository, &site, &["--delete", "live/site"]);
    assert!(!done);
}

#[test]
fn who_may_fetch_may_not_push_and_a_wrong_key_may_neither() {
    let repository = app();
    let server = hosted();
    // Empty, and yet a repository.
    let folder = tempfile::tempdir().expect("a folder");
    let clone = git(
        folder.path(),
        &["clone", "-q", &server.remote(None), "clone"],
    );
    assert!(clone.status.success(), "{}", told(&clone).1);
    assert!(push(&repository, &server.remote(None), &["main"]).0);

    let key = |scopes: &[&str], app: Option<&str>| {
        let body = json!({ "name": "k", "scopes": scopes, "app": app });
        let made = server.admin_post("/keys", &body);
        server.remote(Some(made["key"].as_str().expect("a key")))
    };
    repository.write("apps/app/app.yaml", &with_word("two"));
    repository.commit("feat: two");
    let fetches = |remote: &str| {
        git(repository.path(), &["ls-remote", remote])
            .status
            .success()
    };
    let reader = key(&["app:read"], None);
    assert!(fetches(&reader));
    let (done, text) = push(&repository, &reader, &["main"]);
    assert!(!done && text.contains("403"), "{text}");
    let pusher = key(&["sync:write"], None);
    let of_one_app = key(&["sync:write", "app:read"], Some("app"));
    assert!(!push(&repository, &of_one_app, &["main"]).0);
    assert!(!fetches(&key(&["run:read"], None)));
    assert!(!fetches(&server.remote(Some("pic_wrong"))));
    let (done, text) = push(&repository, &server.remote(Some("pic_wrong")), &["main"]);
    assert!(!done && text.contains("Authentication failed"), "{text}");
    assert_eq!(server.get("/apps/app/").text(), "one");
    let (done, text) = push(&repository, &pusher, &["main"]);
    assert!(done, "{text}");
    assert_eq!(server.get("/apps/app/").text(), "two");

    // Git asks for a password when it is told so; who has none learns nothing of what there is.
    for path in [
        "/git/default.git/info/refs?service=git-upload-pack",
        "/git/none.git/info/refs?service=git-receive-pack",
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 401);
        assert!(
            answer
                .header("www-authenticate")
                .is_some_and(|value| value.starts_with("Basic "))
        );
    }
    assert!(!fetches(
        &server.remote(None).replace("default.git", "none.git")
    ));
}
