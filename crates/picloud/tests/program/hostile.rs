//! Repositories made to hurt: each gets an error or is served, and memory stays bounded.

use std::{fs, io::Write, path::Path, process::Command, process::Stdio};

use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::Value;

use crate::support::{Server, eventually};

const GOOD: &str = "name: good\nroutes: [{path: /, script: scripts/a.rhai}]\n";

fn good(repository: &TestRepository) {
    repository.write("apps/good/app.yaml", GOOD);
    repository.write("apps/good/scripts/a.rhai", "\"good\"");
}

/// Errors of the last deployment, by app's folder or file.
fn errors(server: &Server) -> Vec<(String, String)> {
    let deployments = server.admin("/deployments?limit=1");
    let errors = deployments["items"][0]["errors"].as_array().cloned();
    errors
        .unwrap_or_default()
        .iter()
        .map(|error| {
            let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            (text("code"), text("path"))
        })
        .collect()
}

fn import(repository: &Path, stream: &[u8]) {
    let mut git = Command::new("git")
        .args(["fast-import", "--quiet", "--force"])
        .current_dir(repository)
        .stdin(Stdio::piped())
        .spawn()
        .expect("git runs");
    git.stdin
        .take()
        .expect("a pipe")
        .write_all(stream)
        .expect("the stream is read");
    assert!(git.wait().expect("its end").success());
}

#[test]
fn a_hundred_thousand_files_deep_trees_and_a_large_blob_leave_the_good_app_alone() {
    let repository = TestRepository::new();
    let mut stream = Vec::new();
    let put = |stream: &mut Vec<u8>, path: &str, data: &[u8]| {
        stream.extend(format!("M 100644 inline {path}\ndata {}\n", data.len()).bytes());
        stream.extend(data);
        stream.push(b'\n');
    };
    let message =
        "commit refs/heads/main\ncommitter T <t@example.com> 1700000000 +0000\ndata 4\nhurt\n";
    stream.extend(message.bytes());
    put(&mut stream, "apps/good/app.yaml", GOOD.as_bytes());
    put(&mut stream, "apps/good/scripts/a.rhai", b"\"good\"");
    for file in 0..100_000 {
        put(
            &mut stream,
            &format!("data/{}/{file}.txt", file / 1000),
            b"x",
        );
    }
    put(
        &mut stream,
        &format!("{}app.yaml", "deep/".repeat(2_000)),
        b"name: deep\n",
    );
    let large = vec![b'#'; 200 << 20];
    put(&mut stream, "apps/large/app.yaml", &large);
    put(&mut stream, "apps/script/app.yaml", b"name: script\n");
    put(&mut stream, "apps/script/scripts/s.rhai", &large[..1 << 20]);
    put(
        &mut stream,
        "apps/static/app.yaml",
        b"name: static\nstatic: public\n",
    );
    put(
        &mut stream,
        "apps/static/public/big.bin",
        &large[..26 << 20],
    );
    drop(large);
    import(repository.path(), &stream);
    drop(stream);
    let server = Server::start(repository.path());
    assert_eq!(server.get("/apps/good/").text(), "good");
    let found = errors(&server);
    for path in [
        "apps/large/app.yaml",
        "apps/script/scripts/s.rhai",
        "apps/static/public/big.bin",
    ] {
        assert!(
            found.iter().any(|(_, at)| at == path),
            "{path} in {found:?}"
        );
    }
    let memory = server.peak_memory_mib();
    assert!(memory < 400, "{memory} MiB at its peak");
}

#[test]
fn links_submodules_odd_names_and_alias_bombs_are_reported_where_they_are() {
    let repository = TestRepository::new();
    good(&repository);
    repository.write("apps/link/app.yaml", "name: link\nstatic: public\n");
    fs::create_dir_all(repository.path().join("apps/link/public")).expect("a folder");
    std::os::unix::fs::symlink(
        "/etc/passwd",
        repository.path().join("apps/link/public/passwd"),
    )
    .expect("a link");
    repository.write("apps/odd/app.yaml", "name: odd\nstatic: public\n");
    repository.write("apps/odd/public/new\nline", "x");
    let mut bomb = "name: bomb\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    repository.write("apps/bomb/app.yaml", &bomb);
    repository.write("apps/sub/app.yaml", "name: sub\nstatic: public\n");
    repository.commit("feat: odd things");
    let head = repository.git(&["rev-parse", "HEAD"]);
    let entry = format!("160000,{head},apps/sub/public/module");
    repository.git(&["update-index", "--add", "--cacheinfo", &entry]);
    repository.git(&["commit", "-qm", "feat: a submodule"]);
    let server = Server::start(repository.path());
    assert_eq!(server.get("/apps/good/").text(), "good");
    let found = errors(&server);
    let at = |code: &str, path: &str| {
        assert!(
            found
                .iter()
                .any(|(known, at)| known == code && at.starts_with(path)),
            "{code} at {path} in {found:?}"
        );
    };
    at("E0204", "apps/link/public/passwd");
    at("E0205", "apps/sub/public/module");
    at("E0210", "apps/odd/public/new");
    assert!(
        found.iter().any(|(_, path)| path == "apps/bomb/app.yaml"),
        "{found:?}"
    );
}

#[test]
fn an_unborn_branch_waits_and_a_replaced_repository_is_followed() {
    let repository = TestRepository::new();
    let server = Server::start(repository.path());
    assert_eq!(server.get("/readyz").status, 503);
    good(&repository);
    repository.commit("feat: at last");
    eventually("the first commit", || {
        server.get("/apps/good/").text() == "good"
    });
    fs::remove_dir_all(repository.path().join(".git")).expect("removed");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(server.get("/apps/good/").text(), "good");
    repository.git(&["init", "-q", "-b", "main"]);
    repository.write("apps/good/scripts/a.rhai", "\"another\"");
    repository.commit("feat: another repository");
    eventually("the other repository", || {
        server.get("/apps/good/").text() == "another"
    });
    repository.write("apps/good/scripts/a.rhai", "\"and on\"");
    repository.commit("feat: it is followed");
    eventually("the next commit", || {
        server.get("/apps/good/").text() == "and on"
    });
    repository.git(&["pack-refs", "--all"]);
    repository.git(&["checkout", "-qb", "other"]);
    repository.write("apps/good/scripts/a.rhai", "\"branch\"");
    repository.commit("feat: on a branch");
    eventually("the branch", || {
        server.get("/apps/good/").text() == "branch"
    });
    repository.git(&["checkout", "-q", "main"]);
    eventually("main again", || {
        server.get("/apps/good/").text() == "and on"
    });
}

#[test]
fn a_shallow_clone_is_served_and_a_sha256_repository_is_refused_by_name() {
    let repository = TestRepository::new();
    good(&repository);
    repository.commit("feat: one");
    repository.write("apps/good/scripts/a.rhai", "\"two\"");
    repository.commit("feat: two");
    let folder = reachable_folder();
    let clone = folder.path().join("clone");
    let url = format!("file://{}", repository.path().display());
    let done = Command::new("git")
        .args(["clone", "-q", "--depth", "1", &url])
        .arg(&clone)
        .status();
    assert!(done.expect("git runs").success());
    let server = Server::start(&clone);
    assert_eq!(server.get("/apps/good/").text(), "two");
    let other = folder.path().join("sha256");
    let made = Command::new("git")
        .args(["init", "-q", "--object-format=sha256"])
        .arg(&other)
        .status();
    assert!(made.expect("git runs").success());
    let refused = Command::new(env!("CARGO_BIN_EXE_picloud"))
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .arg(&other)
        .output()
        .expect("picloud runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("SHA-256") && said.contains("--object-format=sha1"),
        "{said}"
    );
}

#[test]
fn a_commit_that_removes_most_apps_is_held_until_somebody_approves_it() {
    let repository = TestRepository::new();
    good(&repository);
    for app in ["a", "b"] {
        repository.write(
            &format!("apps/{app}/app.yaml"),
            &format!("name: {app}\nstatic: p\n"),
        );
        repository.write(&format!("apps/{app}/p/index.html"), app);
    }
    let first = repository.commit("feat: three apps");
    let server = Server::start(repository.path());
    repository.remove("apps/a");
    repository.remove("apps/b");
    let head = repository.commit("feat: remove two of three");
    let last = || server.admin("/deployments?limit=1")["items"][0].clone();
    eventually("the hold", || last()["status"] == "held");
    assert_eq!(server.get("/apps/a/").text(), "a");
    let held = last();
    assert_eq!(
        (held["commit"].as_str(), held["previous_commit"].as_str()),
        (Some(&*head), Some(&*first))
    );
    let id = held["id"].as_str().expect("an id");
    let approved = server.admin_post(&format!("/deployments/{id}/approve"), &Value::Null);
    assert_eq!(
        (&approved["status"], &approved["id"]),
        (&"synced".into(), &held["id"])
    );
    assert_eq!(server.get("/apps/a/").status, 404);
    assert_eq!(server.get("/apps/good/").text(), "good");

    let back = server.admin_post(
        "/sources/local/rollback",
        &serde_json::json!({ "commit": &first[..10] }),
    );
    assert_eq!(
        (&back["status"], &back["commit"]),
        (&"synced".into(), &first.clone().into())
    );
    assert_eq!(server.get("/apps/a/").text(), "a");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(
        server.get("/apps/a/").text(),
        "a",
        "the head stays where it is"
    );
    server.admin_post("/sources/local/resume", &Value::Null);
    eventually("the head again: it is held", || last()["status"] == "held");
    let suspended = server.admin_post("/sources/local/suspend", &Value::Null);
    assert_eq!(suspended["suspended"], true);
}
