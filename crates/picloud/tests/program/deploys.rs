//! What becomes of a commit: rolled back to, checked, waiting, signed.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::{Value, json};

use crate::{
    drift::Hand,
    support::{Server, eventually},
};

fn app(repository: &TestRepository, name: &str, script: &str, more: &str) {
    repository.write(
        &format!("apps/{name}/app.yaml"),
        &format!("name: {name}\nroutes:\n  - {{path: /, script: scripts/a.rhai}}\n{more}"),
    );
    repository.write(&format!("apps/{name}/scripts/a.rhai"), script);
}

fn last(server: &Server) -> Value {
    server.admin("/deployments?limit=1")["items"][0].clone()
}

/// Waits for what becomes of a commit.
fn settled(server: &Server, commit: &str) -> Value {
    let mut found = Value::Null;
    eventually("the deployment", || {
        found = last(server);
        found["commit"] == commit
            && found["status"] != "applying"
            && !found["duration_ms"].is_null()
    });
    found
}

#[test]
fn a_rollback_stays_until_a_newer_commit_and_a_resume_goes_to_the_head() {
    let repository = TestRepository::new();
    app(&repository, "app", "\"one\"", "");
    app(&repository, "other", "\"one\"", "");
    let first = repository.commit("feat: one");
    let mut server = Server::start(repository.path());
    app(&repository, "app", "let x = ;", "");
    app(&repository, "other", "\"two\"", "");
    let second = repository.commit("feat: two, one of them broken");
    assert_eq!(settled(&server, &second)["status"], "partial");
    app(&repository, "app", "\"three\"", "");
    let third = repository.commit("feat: three");
    settled(&server, &third);

    // By a short id; what is live is the former state at once.
    let done = server.admin_post("/sources/local/rollback", &json!({ "commit": &first[..8] }));
    assert_eq!(
        (&done["status"], &done["reason"]),
        (&json!("synced"), &json!("rollback")),
        "{done}"
    );
    assert_eq!(
        (&done["commit"], &done["previous_commit"]),
        (&json!(first), &json!(third))
    );
    for name in ["app", "other"] {
        let answer = server.get(&format!("/apps/{name}/"));
        assert_eq!(
            (answer.text().as_str(), answer.header("x-picloud-commit")),
            ("one", Some(first.as_str()))
        );
    }
    // Neither a look nor a new start deploys the head again.
    server.admin_post("/sources/local/sync?wait=true", &json!({}));
    assert_eq!(server.get("/apps/app/").text(), "one");
    server.kill();
    let server = server.restart(repository.path());
    assert_eq!(server.get("/apps/app/").text(), "one");
    assert_eq!(server.admin("/sources/local")["commit"], first.as_str());

    // To a commit that is invalid in part: that part stays as it is.
    let done = server.admin_post("/sources/local/rollback", &json!({ "commit": second }));
    assert_eq!(done["status"], "partial", "{done}");
    assert_eq!(server.get("/apps/other/").text(), "two");
    let kept = server.get("/apps/app/");
    assert_eq!(
        (kept.text().as_str(), kept.header("x-picloud-commit")),
        ("one", Some(first.as_str()))
    );
    let unknown = server.admin_request(
        "POST",
        "/sources/local/rollback",
        Some(&json!({ "commit": "f".repeat(40) })),
    );
    assert_eq!(unknown.status, 422);

    // Suspended, not even a newer commit is deployed; resumed, the head is.
    server.admin_post("/sources/local/suspend", &json!({}));
    app(&repository, "app", "\"four\"", "");
    let fourth = repository.commit("feat: four");
    server.admin_post("/sources/local/sync?wait=true", &json!({}));
    assert_eq!(server.get("/apps/app/").text(), "one");
    assert_eq!(server.admin("/apps/other")["sync"], "suspended");
    server.admin_post("/sources/local/resume", &json!({}));
    let done = settled(&server, &fourth);
    assert_eq!(
        (&done["status"], &done["history_rewritten"]),
        (&json!("synced"), &json!(false))
    );
    eventually("the head", || server.get("/apps/app/").text() == "four");

    // A rollback, then a newer commit: that is deployed. History that was rewritten says so.
    server.admin_post("/sources/local/rollback", &json!({ "commit": third }));
    app(&repository, "app", "\"five\"", "");
    let fifth = repository.commit("feat: five");
    assert_eq!(settled(&server, &fifth)["history_rewritten"], false);
    assert_eq!(server.get("/apps/app/").text(), "five");
    server.admin_post("/sources/local/rollback", &json!({ "commit": first }));
    app(&repository, "app", "\"six\"", "");
    repository.git(&["add", "-A"]);
    repository.git(&["commit", "-q", "--amend", "-m", "feat: six instead"]);
    let sixth = repository.git(&["rev-parse", "HEAD"]);
    assert_eq!(settled(&server, &sixth)["history_rewritten"], true);
    assert_eq!(server.get("/apps/app/").text(), "six");
    // What no branch leads to any more was live, and can be again.
    let done = server.admin_post("/sources/local/rollback", &json!({ "commit": fifth }));
    assert_eq!(done["status"], "synced", "{done}");
    assert_eq!(server.get("/apps/app/").text(), "five");
}

#[test]
fn an_app_whose_check_fails_goes_back_and_the_others_go_on() {
    let checks = "checks:\n  - {path: /, status: 200, within: 300ms}\n";
    let repository = TestRepository::new();
    app(&repository, "app", "\"good\"", checks);
    app(&repository, "other", "\"one\"", "");
    let first = repository.commit("feat: good");
    let server = Server::start(repository.path());
    assert_eq!(settled(&server, &first)["status"], "synced");
    app(&repository, "app", "throw \"no\"", checks);
    app(&repository, "other", "\"two\"", "");
    app(&repository, "new", "#{ status: 404, body: \"\" }", checks);
    let second = repository.commit("feat: bad");
    let done = settled(&server, &second);
    assert_eq!(done["status"], "reverted", "{done}");
    let errors = done["errors"].as_array().expect("errors");
    let told: Vec<(&str, &str)> = errors
        .iter()
        .map(|error| {
            (
                error["app"].as_str().expect("an app"),
                error["message"].as_str().expect("a message"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "app",
                "the check of / expected 200 within 300 ms, and got 500"
            ),
            (
                "new",
                "the check of / expected 200 within 300 ms, and got 404"
            ),
        ]
    );
    let answer = server.get("/apps/app/");
    assert_eq!(
        (answer.text().as_str(), answer.header("x-picloud-commit")),
        ("good", Some(first.as_str()))
    );
    assert_eq!(server.get("/apps/other/").text(), "two");
    // There was nothing to go back to.
    assert_eq!(server.get("/apps/new/").status, 404);
    assert_eq!(server.admin("/apps/app")["sync"], "failed");
    assert_eq!(server.admin("/drift")["items"], json!([]));

    app(&repository, "app", "\"better\"", checks);
    repository.remove("apps/new");
    let third = repository.commit("fix: mend it");
    assert_eq!(settled(&server, &third)["status"], "synced");
    assert_eq!(server.get("/apps/app/").text(), "better");
    assert_eq!(server.admin("/apps/app")["sync"], "synced");
}

#[test]
fn a_commit_waits_for_its_window_says_until_when_and_can_be_let_go() {
    let repository = TestRepository::new();
    app(&repository, "app", "\"one\"", "");
    repository.commit("feat: one");
    let server = Server::start(repository.path());
    // Closed but for a minute in February of a leap year.
    repository.write(
        "picloud.yaml",
        "sync:\n  windows:\n    - {allow: '0 0 29 2 *', duration: 1m, timezone: Europe/Berlin}\n",
    );
    app(&repository, "app", "\"two\"", "");
    let second = repository.commit("feat: two");
    let done = settled(&server, &second);
    assert_eq!(done["status"], "waiting", "{done}");
    let until = done["waits_until"].as_str().expect("until when");
    assert!(until.ends_with("-02-28T23:00:00Z"), "{until}");
    server.admin_post("/sources/local/sync?wait=true", &json!({}));
    assert_eq!(
        server.admin("/deployments")["items"]
            .as_array()
            .expect("items")
            .len(),
        2
    );
    assert_eq!(server.get("/apps/app/").text(), "one");
    let path = format!(
        "/deployments/{}/approve",
        done["id"].as_str().expect("an id")
    );
    let approved = server.admin_post(&path, &json!({}));
    assert_eq!(
        (&approved["status"], &approved["id"]),
        (&json!("synced"), &done["id"]),
        "{approved}"
    );
    assert_eq!(server.get("/apps/app/").text(), "two");

    // Denied until the next full minute but two: then it goes by itself, also after a new start.
    let now = Command::new("date")
        .args(["-u", "-d", "+2 seconds", "+%s %S %M %H %d %m"])
        .output()
        .expect("date");
    let now = String::from_utf8(now.stdout).expect("text");
    let parts: Vec<&str> = now.split_whitespace().collect();
    let (second, minute, hour) = (parts[1], parts[2], parts[3]);
    repository.write(
        "picloud.yaml",
        &format!("sync:\n  windows:\n    - {{allow: '{second} {minute} {hour} {} {} *', duration: 1h}}\n", parts[4], parts[5]),
    );
    app(&repository, "app", "\"three\"", "");
    let third = repository.commit("feat: three");
    assert!(
        ["waiting", "synced"].contains(
            &settled(&server, &third)["status"]
                .as_str()
                .expect("a status")
        )
    );
    eventually("the window", || server.get("/apps/app/").text() == "three");
}

#[test]
fn where_signatures_are_wanted_only_listed_keys_deploy() {
    let folder = reachable_folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["listed", "other"] {
        let made = Command::new("ssh-keygen")
            .args([
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                name,
                "-f",
                &path(name),
            ])
            .status();
        assert!(made.expect("ssh-keygen runs").success());
    }
    let public = fs::read_to_string(path("listed.pub")).expect("the public key");
    fs::write(
        path("picloud.toml"),
        format!(
            "[sources.local]\nallowed_signers = ['alice@example.com {}']\n",
            public.trim()
        ),
    )
    .expect("the configuration");
    let repository = TestRepository::new();
    let sign = |key: &str, message: &str| {
        repository.git(&["add", "-A"]);
        let key = format!("user.signingkey={}", path(key));
        repository.git(&[
            "-c",
            "gpg.format=ssh",
            "-c",
            &key,
            "commit",
            "-q",
            "-S",
            "-m",
            message,
        ]);
        repository.git(&["rev-parse", "HEAD"])
    };
    repository.write("picloud.yaml", "sync: {verify_signatures: true}\n");
    app(&repository, "app", "\"one\"", "");
    let first = sign("listed", "feat: signed");
    let server = Server::start_with_config(repository.path(), &path("picloud.toml"));
    let done = settled(&server, &first);
    assert_eq!(done["status"], "synced", "{done}");
    let who = done["signed_by"].as_str().expect("who signed");
    assert!(
        who.starts_with("alice@example.com (ED25519 key SHA256:"),
        "{who}"
    );

    app(&repository, "app", "\"two\"", "");
    let refused = |server: &Server, commit: &str, why: &str| {
        let done = settled(server, commit);
        let error = &done["errors"][0];
        assert_eq!(
            (&done["status"], &error["code"]),
            (&json!("failed"), &json!("E0702")),
            "{done}"
        );
        assert!(
            error["message"].as_str().expect("a message").contains(why),
            "{done}"
        );
        assert_eq!(server.get("/apps/app/").text(), "one");
    };
    refused(
        &server,
        &repository.commit("feat: not signed"),
        "is not signed",
    );
    app(&repository, "app", "\"three\"", "");
    refused(
        &server,
        &sign("other", "feat: signed by another"),
        "not listed",
    );
    // Whoever may not deploy may not switch this off either.
    repository.write("picloud.yaml", "sync: {verify_signatures: false}\n");
    refused(
        &server,
        &repository.commit("feat: trust me"),
        "is not signed",
    );
    app(&repository, "app", "\"four\"", "");
    let done = settled(&server, &sign("listed", "feat: signed again"));
    assert_eq!(done["status"], "synced", "{done}");
    assert_eq!(server.get("/apps/app/").text(), "four");
}

#[test]
fn openpgp_signatures_count_as_well() {
    let folder = reachable_folder();
    let home = folder.path().join("g");
    fs::create_dir(&home).expect("a folder");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("its mode");
    let gpg = |arguments: &[&str]| {
        let done = Command::new("gpg")
            .env("GNUPGHOME", &home)
            .args(["--batch", "-q"])
            .args(arguments)
            .output();
        let done = done.expect("gpg runs");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).expect("text")
    };
    gpg(&[
        "--passphrase",
        "",
        "--quick-generate-key",
        "Alice <alice@example.com>",
        "ed25519",
        "sign",
        "never",
    ]);
    let public = gpg(&["--armor", "--export"]);
    let config = folder.path().join("picloud.toml");
    fs::write(
        &config,
        format!("[sources.local]\ngpg_keys = ['''{public}''']\n"),
    )
    .expect("the configuration");
    let program = folder.path().join("gpg");
    fs::write(
        &program,
        format!(
            "#!/bin/sh\nexec env GNUPGHOME='{}' gpg \"$@\"\n",
            home.display()
        ),
    )
    .expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let repository = TestRepository::new();
    repository.write("picloud.yaml", "sync: {verify_signatures: true}\n");
    app(&repository, "app", "\"one\"", "");
    repository.git(&["add", "-A"]);
    let program = format!("gpg.program={}", program.display());
    repository.git(&[
        "-c",
        &program,
        "-c",
        "user.signingkey=alice@example.com",
        "commit",
        "-q",
        "-S",
        "-m",
        "feat: signed",
    ]);
    let server = Server::start_with_config(repository.path(), &config.display().to_string());
    let done = last(&server);
    assert_eq!(done["status"], "synced", "{done}");
    assert!(
        done["signed_by"]
            .as_str()
            .is_some_and(|who| who.starts_with("Alice <alice@example.com> (")),
        "{done}"
    );
    gpg_agent_ends(&home);
}

/// The agent that made the key is ours to end.
fn gpg_agent_ends(home: &std::path::Path) {
    let ended = Command::new("gpgconf")
        .env("GNUPGHOME", home)
        .args(["--kill", "all"])
        .status();
    assert!(ended.expect("gpgconf runs").success());
}

#[test]
fn the_program_shows_drift_heals_goes_back_stops_and_goes_on() {
    let repository = TestRepository::new();
    app(&repository, "app", "ctx.env.WORD", "env: {WORD: one}\n");
    let first = repository.commit("feat: one");
    let server = Server::start(repository.path());
    app(&repository, "app", "ctx.env.WORD", "env: {WORD: two}\n");
    let second = repository.commit("feat: two");
    settled(&server, &second);
    let run = |arguments: &[&str]| server.program(repository.path(), arguments);
    let (code, out, _) = run(&["drift", "--exit-code"]);
    assert_eq!((code, out.as_str()), (0, "Nothing differs from git.\n"));
    let mut hand = Hand::on(&server);
    hand.run("UPDATE app_env SET value = 'mine'")
        .expect("changed");
    let (code, out, _) = run(&["drift", "--exit-code"]);
    let expected = "app\n  ~ env WORD\n      value: git \"two\"  live \"mine\"\n";
    assert_eq!((code, out.as_str()), (3, expected));
    let (_, out, _) = run(&["diff", "app", "--format", "json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(told["items"][0]["fields"][0]["live"], "mine");
    let (code, out, _) = run(&["heal", "app"]);
    assert!(
        code == 0 && out.contains("synced") && out.contains("1 change"),
        "{out}"
    );
    assert_eq!(run(&["heal"]).1, "Nothing differs from git.\n");
    let (code, out, _) = run(&["rollback", &first[..9]]);
    assert!(code == 0 && out.contains(&first[..7]), "{out}");
    assert_eq!(server.get("/apps/app/").text(), "one");
    let (code, _, error) = run(&["rollback", "0000000"]);
    assert!(
        code == 1 && error.contains("no commit `0000000`"),
        "{error}"
    );
    assert!(run(&["suspend"]).1.contains("is suspended"));
    assert!(run(&["resume", "local"]).1.contains("is resumed"));
    eventually("the head", || server.get("/apps/app/").text() == "two");
}

#[test]
fn the_data_of_an_app_that_is_long_gone_is_removed() {
    let repository = TestRepository::new();
    app(
        &repository,
        "gone",
        "kv::set(\"c\", \"k\", 1); docs::create(\"d\", #{}); 1",
        "",
    );
    app(&repository, "recent", "kv::set(\"c\", \"k\", 1); 1", "");
    app(&repository, "stays", "kv::set(\"c\", \"k\", 1); 1", "");
    repository.write("picloud.yaml", "sync: {prune_limit: 90%}\n");
    repository.commit("feat: three apps");
    let server = Server::start(repository.path());
    for name in ["gone", "recent", "stays"] {
        assert_eq!(server.get(&format!("/apps/{name}/")).text(), "1");
    }
    repository.remove("apps/gone");
    repository.remove("apps/recent");
    let second = repository.commit("feat: two less");
    assert_eq!(settled(&server, &second)["status"], "synced");
    let mut hand = Hand::on(&server);
    hand.run("UPDATE apps SET pruned_at = now() - interval '31 days' WHERE name = 'gone'")
        .expect("aged");
    drop(hand);
    // The house is kept at each start.
    let mut server = server;
    server.terminate();
    let server = server.restart(repository.path());
    let mut hand = Hand::on(&server);
    let names =
        "SELECT a.name, (SELECT count(*) FROM kv WHERE app_id = a.id)::text FROM apps a ORDER BY 1";
    eventually("the house", || hand.rows(names).len() == 2);
    assert_eq!(hand.rows(names), [["recent", "1"], ["stays", "1"]]);
    assert_eq!(hand.rows("SELECT count(*)::text FROM docs"), [["0"]]);
}
