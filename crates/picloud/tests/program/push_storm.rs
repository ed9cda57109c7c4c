//! Many pushers at once, and a server that is killed among them.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use picloud::private_postgres::PrivatePostgres;
use picloud_test_support::{TestRepository, reachable_folder};

use crate::support::{HOSTED, Server, eventually};

const PUSHERS: usize = 8;
const EACH: usize = 3;

fn git(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()
        .expect("git runs")
}

/// Pushes until it is taken, wherever the server is by then.
fn push(clone: &Path, remote: &Mutex<String>) {
    let began = Instant::now();
    loop {
        let to = remote.lock().expect("an address").clone();
        if git(clone, &["push", "-q", &to, "HEAD:refs/heads/main"])
            .status
            .success()
        {
            return;
        }
        // Somebody was faster, or nobody is there now.
        git(clone, &["pull", "-q", "--rebase", &to, "main"]);
        assert!(
            began.elapsed() < Duration::from_mins(2),
            "a push is not taken"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn pushed_by_many_and_killed_among_them_the_head_is_live() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let database = postgres.database_url();
    let repository = TestRepository::new();
    repository.write(
        "apps/app/app.yaml",
        "name: app\nroutes:\n  - {path: /, script: scripts/a.rhai}\n",
    );
    repository.write("apps/app/scripts/a.rhai", "\"a\"");
    repository.commit("feat: an app");
    let started = Server::start_on_database(Path::new(HOSTED), &database);
    let remote = Mutex::new(started.remote(None));
    let mut running = Some(started);
    push(repository.path(), &remote);
    let kills = std::thread::scope(|scope| {
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let (remote, from) = (&remote, repository.path());
                scope.spawn(move || {
                    let folder = tempfile::tempdir().expect("a folder");
                    let clone = folder.path().join("c");
                    let from = from.to_str().expect("UTF-8");
                    git(folder.path(), &["clone", "-q", from, "c"]);
                    for round in 0..EACH {
                        let path = format!("apps/app/scripts/p{pusher}.rhai");
                        fs::write(clone.join(path), format!("\"{round}\"")).expect("a file");
                        git(&clone, &["add", "-A"]);
                        git(&clone, &["commit", "-qm", "feat: mine"]);
                        push(&clone, remote);
                    }
                })
            })
            .collect();
        let mut kills = 0_u64;
        while !pushers
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            std::thread::sleep(Duration::from_millis(700 + kills * 130));
            if kills < 4
                && let Some(mut server) = running.take()
            {
                server.kill();
                let server = server.restart_on_database(Path::new(HOSTED), &database);
                *remote.lock().expect("an address") = server.remote(None);
                running = Some(server);
                kills += 1;
            }
        }
        kills
    });
    let server = running.expect("a server");
    assert!(kills > 0, "nothing was killed: the pushes are too fast");
    let head = git(&server.hosted_folder(), &["rev-parse", "main"]);
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    eventually("the head to be live", || {
        server.get("/apps/app/").header("x-picloud-commit") == Some(head.as_str())
    });
    // Each push that was taken is in it, each once.
    let counted = git(&server.hosted_folder(), &["rev-list", "--count", "main"]);
    let counted = String::from_utf8_lossy(&counted.stdout).trim().to_owned();
    assert_eq!(counted, (PUSHERS * EACH + 1).to_string());
    let scripts = server.admin("/apps/app/scripts");
    assert_eq!(
        scripts["items"].as_array().map(Vec::len),
        Some(PUSHERS + 1),
        "{scripts}"
    );
    drop(server);
    postgres.stop();
}
