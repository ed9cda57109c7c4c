//! Sources, deployments, plans and backups, by the commands that a person types.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::{Value, json};

use crate::support::{HOSTED, Server, eventually};

const MANIFEST: &str =
    "name: app\nenv: {WORD: one}\nroutes:\n  - {path: /, script: scripts/a.rhai}\n";

fn app(name: &str) -> TestRepository {
    let repository = TestRepository::new();
    repository.write(
        "apps/app/app.yaml",
        &MANIFEST.replace("name: app", &format!("name: {name}")),
    );
    repository.write(
        "apps/app/scripts/a.rhai",
        "ctx.env.WORD + kv::incr(\"c\", \"n\")",
    );
    repository.commit("feat: an app");
    repository
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn sources_are_added_waited_for_planned_against_and_removed() {
    let server = Server::start(Path::new(HOSTED));
    let (first, second) = (app("first"), app("second"));
    let here = first.path();
    for (name, repository) in [("one", &first), ("two", &second)] {
        let path = repository.path().to_str().expect("UTF-8");
        let (code, out, err) = server.program(here, &["sources", "add", name, path]);
        assert_eq!((code, out.contains("local")), (0, true), "{out}{err}");
    }
    let (code, out, err) = server.program(here, &["wait", "HEAD", "--timeout", "20s"]);
    assert_eq!((code, out.starts_with("synced ")), (0, true), "{out}{err}");
    let (code, out, _) = server.program(here, &["sources", "list", "--format", "json"]);
    let names: Vec<_> = parsed(&out)["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| item["name"].clone())
        .collect();
    assert_eq!(
        (code, names),
        (0, vec![json!("default"), json!("one"), json!("two")])
    );
    let (_, out, _) = server.program(here, &["sources", "show", "default"]);
    assert!(
        out.contains("git remote add picloud http://127.0.0.1:"),
        "{out}"
    );
    let (_, out, _) = server.program(here, &["status"]);
    assert!(
        out.contains("two") && out.contains("second") && !out.contains('\u{1b}'),
        "{out}"
    );

    // A plan is held against the source that owns the tree's apps, wherever it stands in the list.
    let second_path = second.path().to_str().expect("UTF-8");
    let plan = ["plan", second_path, "--exit-code"];
    let (code, out, err) = server.program(here, &plan);
    assert_eq!((code, out.as_str()), (0, "No changes.\n"), "{err}");
    second.write(
        "apps/app/app.yaml",
        &MANIFEST
            .replace("name: app", "name: second")
            .replace("one", "two"),
    );
    let (code, out, err) = server.program(here, &plan);
    assert_eq!((code, out.contains("one → two")), (3, true), "{out}{err}");
    let (code, out, _) = server.program(here, &["plan", second_path, "--format", "json"]);
    let change = &parsed(&out)["changes"][0];
    assert_eq!(
        (code, &change["app"], &change["words"]),
        (0, &json!("second"), &json!(["one → two"]))
    );
    let (_, out, _) = server.program(here, &["plan", second_path, "--format", "markdown"]);
    assert!(out.starts_with("### PiCloud plan"), "{out}");
    let (code, _, err) = server.program(here, &["plan", second_path, "--source", "none"]);
    assert_eq!((code, err.contains("source")), (1, true), "{err}");
    let commit = second.commit("feat: two");
    let of_revision = server.admin_post(
        "/plan",
        &json!({ "source": "two", "revision": &commit[..12] }),
    );
    assert!(
        of_revision["hash"]
            .as_str()
            .is_some_and(|hash| hash.len() == 64),
        "{of_revision}"
    );

    // What fails is 1, and said on standard error or in the answer; a mistake in the line is 2.
    let (code, out, err) = server.program(
        here,
        &["wait", &commit[..9], "--timeout", "20s", "--format", "json"],
    );
    assert_eq!(
        (code, parsed(&out)["commit"].as_str()),
        (0, Some(commit.as_str())),
        "{err}"
    );
    second.write("apps/app/scripts/a.rhai", "let x = ;");
    let broken = second.commit("feat: broken");
    let (code, out, err) = server.program(here, &["wait", &broken]);
    assert_eq!(
        (code, out.contains("a.rhai:1:9: error[E0401]")),
        (1, true),
        "{out}{err}"
    );
    let (code, _, err) = server.program(here, &["wait", "ffffffff", "--timeout", "100ms"]);
    assert_eq!(
        (code, err.contains("not live after 100ms")),
        (1, true),
        "{err}"
    );
    assert_eq!(server.program(here, &["wait"]).0, 2);
    assert_eq!(server.program(here, &["sync", "two"]).0, 1);
    let (code, out, _) = server.program(here, &["sync", "two", "--no-wait", "--format", "json"]);
    assert_eq!((code, &parsed(&out)["source"]), (0, &json!("two")));

    a_removal_is_held_until_somebody_says_yes(&server, here, &second);

    assert_eq!(server.program(here, &["sources", "remove", "one"]).0, 0);
    eventually("the end of its app", || {
        server.get("/apps/first/").status == 404
    });
    assert_eq!(server.program(here, &["sources", "show", "one"]).0, 1);
}

fn a_removal_is_held_until_somebody_says_yes(
    server: &Server,
    here: &Path,
    second: &TestRepository,
) {
    second.git(&["mv", "apps/app/app.yaml", "apps/app/gone.yaml"]);
    let removal = second.commit("feat: remove it");
    assert_eq!(server.program(here, &["sync", "two"]).0, 0);
    assert_eq!(server.get("/apps/second/").status, 200);
    let (code, _, err) = server.program(here, &["wait", &removal, "--timeout", "100ms"]);
    assert_eq!((code, err.contains("held")), (1, true), "{err}");
    let (code, out, err) = server.program(here, &["approve", &removal[..8]]);
    assert_eq!((code, out.starts_with("synced ")), (0, true), "{out}{err}");
    assert_eq!(server.get("/apps/second/").status, 404);
    let (code, _, err) = server.program(here, &["approve", &removal[..8]]);
    assert_eq!((code, err.contains("held")), (1, true), "{err}");
}

#[test]
fn a_folder_is_planned_as_it_lies_in_its_repository() {
    let repository = TestRepository::new();
    repository.write("deploy/picloud.yaml", "defaults: {limits: {timeout: 1s}}\n");
    repository.write("deploy/apps/app/app.yaml", MANIFEST);
    repository.write("deploy/apps/app/scripts/a.rhai", "ctx.env.WORD");
    // What is no part of the source neither counts nor hinders.
    repository.write("elsewhere/app.yaml", "name: elsewhere\n");
    repository.write("large.bin", &"x".repeat(26 << 20));
    let commit = repository.commit("feat: an app");
    let server = Server::start(&repository.path().join("deploy"));
    let here = repository.path();
    for folder in ["deploy", "."] {
        let (code, out, err) = server.program(here, &["plan", folder, "--exit-code"]);
        assert_eq!(
            (code, out.as_str()),
            (0, "No changes.\n"),
            "{folder}: {err}"
        );
    }
    // The same without a repository around it, or as an archive of a part or of the whole.
    let copy = tempfile::tempdir().expect("a folder");
    let bearer = server.bearer();
    let headers = [bearer.as_str(), "Content-Type: application/x-tar"];
    repository.git(&["rm", "-q", "--cached", "large.bin"]);
    let small = repository.commit("chore: less");
    for tree in [format!("{small}:deploy"), small] {
        let archive = Command::new("git")
            .args(["archive", &tree])
            .current_dir(here)
            .output()
            .expect("git runs");
        let body = String::from_utf8(archive.stdout).expect("a tar of text");
        let answer = server.request("POST", "/api/v1/admin/plan", &headers, &body);
        assert_eq!(
            answer.json()["summary"],
            "No changes.",
            "{tree}: {answer:?}"
        );
        let tar = copy.path().join("tree.tar");
        fs::write(&tar, body).expect("a file");
        let unpacked = copy.path().join(if tree.ends_with("deploy") {
            "part"
        } else {
            "whole"
        });
        fs::create_dir(&unpacked).expect("a folder");
        let done = Command::new("tar")
            .arg("xf")
            .arg(&tar)
            .current_dir(&unpacked)
            .status();
        assert!(done.expect("tar runs").success());
    }
    let part = copy.path().join("part");
    let (code, out, err) = server.program(&part, &["plan", "--exit-code"]);
    assert_eq!((code, out.as_str()), (0, "No changes.\n"), "{err}");

    repository.git(&["reset", "-q", "--hard", &commit]);
    let scripts = here.join("deploy/apps/app/scripts");
    std::os::unix::fs::symlink("a.rhai", scripts.join("b.rhai")).expect("a link");
    repository.write(
        "deploy/apps/app/app.yaml",
        &MANIFEST.replace("env:", "enw:"),
    );
    for against in [
        &["plan", "deploy"][..],
        &["plan", "deploy", "--against", "HEAD"],
    ] {
        let (code, out, err) = server.program(here, against);
        assert_eq!(code, 1, "{out}{err}");
        for expected in [
            "deploy/apps/app/app.yaml:2:1: error[E0102]",
            "deploy/apps/app/scripts/b.rhai:1:1: error[E0204]",
        ] {
            assert!(
                out.contains(expected),
                "{against:?}: {expected} in\n{out}{err}"
            );
        }
    }
}

#[test]
fn what_was_in_a_commits_way_is_asked_about_again_and_hinders_nothing_else() {
    let server = Server::start(Path::new(HOSTED));
    let (first, second) = (app("shop"), app("shop"));
    let here = first.path();
    let path = |repository: &TestRepository| repository.path().display().to_string();
    let run = |arguments: &[&str]| server.program(here, arguments);
    assert_eq!(run(&["sources", "add", "one", &path(&first)]).0, 0);
    assert_eq!(run(&["sync", "one"]).0, 0);
    assert_eq!(run(&["sources", "add", "two", &path(&second)]).0, 0);
    let (code, out, err) = run(&["sync", "two"]);
    assert_eq!((code, out.contains("1 error")), (1, true), "{out}{err}");
    let (code, out, _) = run(&["sources", "remove", "one", "--format", "json"]);
    assert_eq!((code, &parsed(&out)["removed"]), (0, &json!("one")));
    let (code, out, err) = run(&["sync", "two"]);
    assert_eq!((code, out.starts_with("synced ")), (0, true), "{out}{err}");
    assert_eq!(server.get("/apps/shop/").status, 200);

    // Where no app is valid, one that is removed is removed all the same.
    for name in ["a", "b", "c"] {
        second.write(&format!("apps/{name}/app.yaml"), &format!("name: {name}\n"));
    }
    second.commit("feat: more");
    assert_eq!(run(&["sync", "two"]).0, 0);
    second.git(&["rm", "-rq", "apps/app"]);
    for name in ["a", "b", "c"] {
        second.write(
            &format!("apps/{name}/app.yaml"),
            &format!("name: {name}\nx: y\n"),
        );
    }
    second.commit("feat: less");
    eventually("the end of the one that is gone", || {
        server.get("/apps/shop/").status == 404
    });
    assert_eq!(run(&["sync", "two"]).0, 1);
    let left = server.admin("/apps")["items"].as_array().map(Vec::len);
    assert_eq!(left, Some(3));

    // A branch that isn't there is told, and a source that is suspended.
    let nowhere = ["sources", "add", "three", &path(&first), "--branch", "mian"];
    assert_eq!(run(&nowhere).0, 0);
    eventually("what is wrong with it", || {
        let shown = server.admin("/sources/three");
        shown["error"] == "the repository has no branch `mian`"
    });
    assert_eq!(run(&["suspend", "two"]).0, 0);
    let (_, _, err) = run(&["sync", "two"]);
    assert!(err.contains("is suspended"), "{err}");
}

#[test]
fn a_backup_restored_elsewhere_is_the_same_server() {
    let repository = app("app");
    let server = Server::start(Path::new(HOSTED));
    repository.git(&["push", "-q", &server.remote(None), "main"]);
    assert_eq!(server.get("/apps/app/").text(), "one1");
    let folder = reachable_folder();
    let file = folder.path().join("all.backup");
    let name = file.to_str().expect("UTF-8");
    // While it runs.
    let (code, out, err) = server.program(folder.path(), &["backup", name]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(
        fs::metadata(&file).expect("the file").permissions().mode() & 0o777,
        0o600
    );
    let (code, _, err) = server.program(folder.path(), &["backup", name]);
    assert_eq!(
        (code, err.contains("overwrites nothing")),
        (1, true),
        "{err}"
    );
    assert_eq!(
        fs::read_dir(folder.path()).expect("the folder").count(),
        1,
        "nothing else is left"
    );
    let (code, _, err) = server.program(folder.path(), &["restore", name]);
    assert_eq!((code, err.contains("not empty")), (1, true), "{err}");
    assert_eq!(server.get("/apps/app/").text(), "one2");

    let data = reachable_folder();
    let there = data.path().join("data");
    let there = there.to_str().expect("UTF-8");
    let damaged = folder.path().join("damaged.backup");
    let bytes = fs::read(&file).expect("the backup");
    fs::write(&damaged, &bytes[..bytes.len() / 3]).expect("a part of it");
    let damaged = damaged.to_str().expect("UTF-8");
    let (code, _, err) = server.program(folder.path(), &["restore", damaged, "--data-dir", there]);
    assert_eq!((code, err.contains("damaged")), (1, true), "{err}");
    let (code, out, err) = server.program(folder.path(), &["restore", name, "--data-dir", there]);
    assert_eq!(code, 0, "{out}{err}");
    let restored = Server::start_in(data, Path::new(HOSTED));
    // Data as of the backup, the same key, and the repository with its history.
    assert_eq!(restored.get("/apps/app/").text(), "one2");
    assert_eq!(
        restored.remote(None).split('@').next(),
        server.remote(None).split('@').next()
    );
    repository.write("apps/app/app.yaml", &MANIFEST.replace("one", "after"));
    let commit = repository.commit("feat: after the restore");
    repository.git(&["push", "-q", &restored.remote(None), "main"]);
    assert_eq!(restored.get("/apps/app/").text(), "after3");
    let history = restored.admin("/deployments");
    let commits = history["items"].as_array().map(Vec::len);
    assert_eq!(
        (commits, &history["items"][0]["commit"]),
        (Some(2), &json!(commit))
    );
}

/// Whether a folder is valid, and what `picloud validate` prints in a format.
fn validate(folder: &Path, format: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_picloud"))
        .args(["validate", "--format", format, "."])
        .current_dir(folder)
        .output()
        .expect("picloud runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("an exit code"), text)
}

#[test]
fn whatever_is_no_plain_file_of_a_bounded_size_is_told_once_at_its_own_place() {
    let repository = TestRepository::new();
    let root = repository.path();
    repository.write("apps/a: b/app.yaml", "name: a\nstatic: public\nroutes:\n  - {path: /, script: scripts/link.rhai}\n  - {path: /big, script: scripts/big.rhai}\n  - {path: /sub, script: scripts/sub/x.rhai}\n  - {path: /gone, script: scripts/bug.rhai}\n");
    repository.write("apps/a: b/scripts/big.rhai", &" ".repeat((256 << 10) + 1));
    repository.write("apps/a: b/scripts/full.rhai", &" ".repeat(256 << 10));
    repository.write("apps/a: b/public/x.txt", "x");
    fs::write(
        root.join("apps/a: b/public/big.bin"),
        vec![0; (25 << 20) + 1],
    )
    .expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", root.join("apps/a: b/scripts/link.rhai"))
        .expect("a link");
    std::os::unix::fs::symlink("../a: b/app.yaml", root.join("apps/a: b/public/l"))
        .expect("a link");
    fs::create_dir_all(root.join("apps/c")).expect("a folder");
    std::os::unix::fs::symlink("../a: b/app.yaml", root.join("apps/c/app.yaml")).expect("a link");
    fs::create_dir_all(root.join("apps/a: b/scripts/sub/.git")).expect("a folder");
    repository.write(
        "apps/long/app.yaml",
        &format!("name: long\ndescription: {}\n", "x".repeat(1 << 20)),
    );
    repository.write(
        "apps/deep/app.yaml",
        &format!(
            "name: deep\nenv: {}1{}\n",
            "{a: ".repeat(65),
            "}".repeat(65)
        ),
    );
    let expected = [
        ("apps/a: b/app.yaml", 7, "E0207"),
        ("apps/a: b/public/big.bin", 1, "E0209"),
        ("apps/a: b/public/l", 1, "E0204"),
        ("apps/a: b/scripts/big.rhai", 1, "E0109"),
        ("apps/a: b/scripts/link.rhai", 1, "E0204"),
        ("apps/a: b/scripts/sub", 1, "E0205"),
        ("apps/c/app.yaml", 1, "E0204"),
        ("apps/deep/app.yaml", 2, "E0106"),
        ("apps/long/app.yaml", 1, "E0109"),
    ];
    let expected: Vec<Value> = expected
        .iter()
        .map(|(path, line, code)| json!([path, line, code]))
        .collect();
    let (code, text) = validate(root, "json");
    let found = parsed(&text);
    let found: Vec<Value> = found["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| json!([error["path"], error["line"], error["code"]]))
        .collect();
    assert_eq!((code, &found), (1, &expected));

    let (code, text) = validate(root, "human");
    assert!(
        code == 1 && text.contains("apps/a: b/scripts/link.rhai:1:1: error[E0204]"),
        "{text}"
    );
    assert!(text.ends_with("0 valid apps, 9 errors\n"), "{text}");
    // Each line is one command, whatever is in it (GitHub's `@actions/toolkit`, command.ts).
    let (_, text) = validate(root, "github");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{text}");
    assert!(
        lines[0].starts_with(
            "::error file=apps/a%3A b/app.yaml,line=7,col=27,endColumn=43,title=E0207::"
        ),
        "{text}"
    );
    // SARIF 2.1.0: sections 3.13 (version, runs), 3.18 (driver), 3.27 (results), 3.29 (regions).
    let (_, text) = validate(root, "sarif");
    let log = parsed(&text);
    let run = &log["runs"][0];
    assert_eq!(
        (&log["version"], &run["columnKind"]),
        (&json!("2.1.0"), &json!("unicodeCodePoints"))
    );
    for (result, expected) in run["results"]
        .as_array()
        .expect("results")
        .iter()
        .zip(&expected)
    {
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().expect("a URI");
        assert_eq!(
            uri.replace("%3A%20", ": "),
            expected[0].as_str().expect("a path")
        );
        assert_eq!(place["region"]["startLine"], expected[1]);
        assert!(place["region"]["endColumn"].as_u64() > place["region"]["startColumn"].as_u64());
        assert_eq!(result["ruleId"], expected[2]);
        let rule = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(run["tool"]["driver"]["rules"][rule]["id"], expected[2]);
        assert!(
            matches!(result["level"].as_str(), Some("error" | "warning"))
                && result["message"]["text"].is_string()
        );
    }
}
