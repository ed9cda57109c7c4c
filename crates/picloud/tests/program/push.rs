//! Pushing to a hosted repository, with a real git over HTTP.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use picloud::private_postgres::PrivatePostgres;
use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::json;

use crate::support::{HOSTED, Server, eventually};

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
    // Nobody but a trusted proxy says by which scheme a client came.
    let claim = "http.extraHeader=X-Forwarded-Proto: https";
    let (done, text) = told(&git(
        repository.path(),
        &["-c", claim, "push", &remote, "main"],
    ));
    assert!(done && text.contains("  http://127.0.0.1:"), "{text}");
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
    // It is what a clone has checked out.
    let folder = tempfile::tempdir().expect("a folder");
    assert!(
        git(folder.path(), &["clone", "-q", &site, "clone"])
            .status
            .success()
    );
    assert!(folder.path().join("clone/apps/app/app.yaml").exists());
    let (done, _) = push(&repository, &site, &["--delete", "live/site"]);
    assert!(!done);
}

#[test]
fn a_domain_serves_one_app_whatever_source_has_it() {
    let server = hosted();
    let remote = server.remote(None);
    let made = server.admin_request("PUT", "/sources/site", Some(&json!({ "kind": "hosted" })));
    assert_eq!(made.status, 201);
    let site = remote.replace("default.git", "site.git");
    let (first, second) = (app(), app());
    let of = |repository: &TestRepository, name: &str, domain: &str| {
        let named = MANIFEST.replace("name: app", &format!("name: {name}\ndomains: [{domain}]"));
        repository.write("apps/app/app.yaml", &named);
        repository.commit("feat: a domain");
    };
    of(&first, "app", "shop.example");
    assert!(push(&first, &remote, &["main"]).0);
    of(&second, "site", "site.example");
    assert!(push(&second, &site, &["main"]).0);
    of(&second, "site", "Shop.example");
    let (done, text) = push(&second, &site, &["main"]);
    assert!(
        !done && text.contains("apps/app/app.yaml:2:11: error[E0215]"),
        "{text}"
    );
    let (done, text) = push(&second, &site, &["main:topic"]);
    assert!(done && text.contains("error[E0215]"), "{text}");
    // Once it is free, it is anybody's.
    of(&first, "app", "other.example");
    assert!(push(&first, &remote, &["main"]).0);
    second.git(&["commit", "-q", "--allow-empty", "-m", "feat: again"]);
    let (done, text) = push(&second, &site, &["main"]);
    assert!(done && text.contains("https://shop.example/"), "{text}");
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
        let name = format!("{} {}", scopes.join(" "), app.unwrap_or_default());
        let body = json!({ "name": name, "scopes": scopes, "app": app });
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
    assert!(!fetches(&of_one_app), "a repository holds many apps");
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

/// Bytes that nothing can compress.
fn noise(size: usize) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = vec![0; size];
    let mut source = fs::File::open("/dev/urandom").expect("randomness");
    source.read_exact(&mut bytes).expect("randomness");
    bytes
}

#[test]
fn big_pushes_arrive_byte_for_byte_in_every_form_and_bigger_ones_are_refused() {
    let repository = app();
    let server = hosted();
    let remote = server.remote(None);
    repository.write(
        "apps/app/app.yaml",
        &MANIFEST.replace("env:", "static: public\nenv:"),
    );
    let files: Vec<Vec<u8>> = (0..3).map(|_| noise(10 << 20)).collect();
    fs::create_dir_all(repository.path().join("apps/app/public")).expect("a folder");
    for (index, bytes) in files.iter().enumerate() {
        let path = format!("apps/app/public/{index}.bin");
        fs::write(repository.path().join(path), bytes).expect("a file");
    }
    repository.git(&["config", "core.compression", "0"]);
    repository.commit("feat: 30 MB");
    // Chunked, in small pieces; each after having asked whether it may.
    let form = [
        "-c",
        "http.postBuffer=65536",
        "-c",
        "http.extraHeader=Expect: 100-continue",
    ];
    let sent = git(
        repository.path(),
        &[&form[..], &["push", &remote, "main"]].concat(),
    );
    assert!(sent.status.success(), "{}", told(&sent).1);
    let got = server.get_bytes("/apps/app/1.bin");
    assert!(got == files[1], "{} bytes came back", got.len());

    let folder = tempfile::tempdir().expect("a folder");
    for (name, form) in [
        ("v0", &["-c", "protocol.version=0", "clone", "-q"][..]),
        (
            "shallow",
            &["-c", "protocol.version=2", "clone", "-q", "--depth", "1"],
        ),
    ] {
        let cloned = git(folder.path(), &[form, &[&remote, name]].concat());
        assert!(cloned.status.success(), "{name}: {}", told(&cloned).1);
        let bytes = fs::read(folder.path().join(name).join("apps/app/public/2.bin"));
        assert!(bytes.expect("the file") == files[2], "{name}");
    }
    // From a clone without history, and by the old protocol.
    let shallow = folder.path().join("shallow");
    fs::write(shallow.join("apps/app/scripts/a.rhai"), "\"shallow\"").expect("a file");
    for arguments in [
        &["commit", "-qam", "feat: from a shallow clone"][..],
        &["-c", "protocol.version=0", "push", "-q", "origin", "main"],
    ] {
        let done = git(&shallow, arguments);
        assert!(done.status.success(), "{}", told(&done).1);
    }
    assert_eq!(server.get("/apps/app/").text(), "shallow");
    // What a client asks for may come compressed, as git does when it has much to say.
    let head = git(&shallow, &["rev-parse", "HEAD"]);
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    let want = format!("want {head}\n");
    let question = format!("{:04x}{want}00000009done\n", want.len() + 4);
    let answer = server.fetch_compressed(&question);
    assert!(
        answer.starts_with(b"0008NAK\n") && answer[8..].starts_with(b"PACK"),
        "{:?}",
        String::from_utf8_lossy(&answer[..answer.len().min(200)])
    );

    let repository = app();
    repository.git(&["config", "core.compression", "0"]);
    fs::write(repository.path().join("apps/app/a.bin"), noise(100 << 20)).expect("a file");
    repository.commit("feat: 100 MB");
    let (done, text) = push(&repository, &remote, &["--force", "main"]);
    assert!(!done && text.contains("at most 96 MiB"), "{text}");
    assert_eq!(server.get("/apps/app/").text(), "shallow");
    let left = fs::read_dir(server.hosted_folder().join("objects")).expect("the objects");
    let left = left.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(
        left.filter(|name| name.contains("incoming")).count(),
        0,
        "of what was refused nothing is left"
    );
}

#[test]
fn many_pushers_at_once_end_with_the_head_live() {
    const PUSHERS: usize = 8;
    const EACH: usize = 3;
    let repository = app();
    let server = hosted();
    let remote = server.remote(None);
    assert!(push(&repository, &remote, &["main"]).0);
    std::thread::scope(|scope| {
        for pusher in 0..PUSHERS {
            let remote = &remote;
            scope.spawn(move || {
                let folder = tempfile::tempdir().expect("a folder");
                let cloned = git(folder.path(), &["clone", "-q", remote, "c"]);
                assert!(cloned.status.success(), "{}", told(&cloned).1);
                let clone = folder.path().join("c");
                for round in 0..EACH {
                    let path = format!("apps/app/scripts/p{pusher}.rhai");
                    fs::write(clone.join(path), format!("\"{round}\"")).expect("a file");
                    git(&clone, &["add", "-A"]);
                    git(&clone, &["commit", "-qm", "feat: mine"]);
                    // Who comes second takes in what the first pushed, and tries again.
                    while !git(&clone, &["push", "-q", "origin", "main"])
                        .status
                        .success()
                    {
                        let pulled = git(&clone, &["pull", "-q", "--rebase", "origin", "main"]);
                        assert!(pulled.status.success(), "{}", told(&pulled).1);
                    }
                }
            });
        }
    });
    let head = git(&server.hosted_folder(), &["rev-parse", "main"]);
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    // Whoever pushed last was told when it was live; nothing is waited for.
    assert_eq!(server.admin("/sources/default")["commit"], json!(head));
    let scripts = server.admin("/apps/app/scripts");
    assert_eq!(
        scripts["items"].as_array().map(Vec::len),
        Some(PUSHERS + 1),
        "{scripts}"
    );
    assert_eq!(
        server.get("/apps/app/").header("x-picloud-commit"),
        Some(head.as_str())
    );
    let counted = git(&server.hosted_folder(), &["rev-list", "--count", "main"]);
    assert_eq!(
        String::from_utf8_lossy(&counted.stdout).trim(),
        (PUSHERS * EACH + 1).to_string()
    );
}

#[test]
fn killed_in_the_middle_of_a_push_the_repository_is_sound_and_its_head_is_live() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let database = postgres.database_url();
    let repository = app();
    let mut server = Server::start_on_database(Path::new(HOSTED), &database);
    assert!(push(&repository, &server.remote(None), &["main"]).0);
    let (mut taken, mut lost) = (0, 0);
    for round in 0..12_u64 {
        repository.write("apps/app/app.yaml", &with_word(&format!("round{round}")));
        let pushed = repository.commit("feat: another round");
        let remote = server.remote(None);
        let mut child = git_command(repository.path(), &["push", "-q", &remote, "main"])
            .stderr(Stdio::null())
            .spawn()
            .expect("git runs");
        std::thread::sleep(Duration::from_millis(20 + round * 25));
        server.kill();
        child.wait().expect("git ends");
        // A computer that lost its power leaves its locks behind.
        let lock = server.hosted_folder().join("refs/heads/main.lock");
        fs::write(&lock, "").expect("a lock");
        server = server.restart_on_database(Path::new(HOSTED), &database);
        let git_dir = server.hosted_folder();
        let sound = git(&git_dir, &["fsck", "--strict", "--no-dangling"]);
        assert!(sound.status.success(), "{}", told(&sound).1);
        let head = git(&git_dir, &["rev-parse", "main"]);
        let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        assert_eq!(
            server.admin("/sources/default")["commit"],
            json!(head),
            "round {round}"
        );
        if head == pushed {
            taken += 1;
        } else {
            lost += 1;
            // What was lost is pushed again, as anybody would.
            let (done, text) = push(&repository, &server.remote(None), &["main"]);
            assert!(done, "{text}");
        }
        assert_eq!(server.get("/apps/app/").text(), format!("round{round}"));
    }
    assert!(
        taken > 0 && lost > 0,
        "taken {taken}, lost {lost}: the instants are badly chosen"
    );
    drop(server);
    postgres.stop();
}

#[test]
fn a_push_that_cannot_go_live_now_says_so() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let repository = app();
    let server = Server::start_on_database(Path::new(HOSTED), &postgres.database_url());
    let remote = server.remote(None);
    assert!(push(&repository, &remote, &["main"]).0);

    // Suspended: accepted, and live when it is resumed.
    server.admin_post("/sources/default/suspend", &json!({}));
    repository.write("apps/app/app.yaml", &with_word("two"));
    repository.commit("feat: two");
    let (done, text) = push(&repository, &remote, &["main"]);
    assert!(done && text.contains("picloud resume default"), "{text}");
    assert_eq!(server.get("/apps/app/").text(), "one");
    server.admin_post("/sources/default/resume", &json!({}));
    eventually("the resumed head", || {
        server.get("/apps/app/").text() == "two"
    });

    // Held: until somebody says yes, if it is the pusher.
    repository.git(&["mv", "apps/app", "apps/other"]);
    repository.write(
        "apps/other/app.yaml",
        &with_word("three").replace("name: app", "name: other"),
    );
    repository.commit("feat: another name");
    let (done, text) = push(&repository, &remote, &["main"]);
    assert!(
        done && text.contains("is held") && text.contains("picloud approve"),
        "{text}"
    );
    assert_eq!(
        (
            server.get("/apps/app/").status,
            server.get("/apps/other/").status
        ),
        (200, 404)
    );
    repository.git(&["commit", "-q", "--allow-empty", "-m", "feat: yes"]);
    let (done, text) = push(&repository, &remote, &["-o", "approve", "main"]);
    assert!(done && text.contains("success: "), "{text}");
    assert_eq!(
        (
            server.get("/apps/app/").status,
            server.get("/apps/other/").status
        ),
        (404, 200)
    );

    // Without the database nobody can be let in; nothing is lost.
    postgres.stop();
    repository.write(
        "apps/other/app.yaml",
        &with_word("four").replace("name: app", "name: other"),
    );
    repository.commit("feat: four");
    let (done, text) = push(&repository, &remote, &["main"]);
    assert!(!done && text.contains("the database is away"), "{text}");
    assert_eq!(server.get("/apps/other/").text(), "three");
    let postgres = PrivatePostgres::start(folder.path()).expect("the database again");
    eventually("a push that is taken again", || {
        push(&repository, &remote, &["main"]).0
    });
    eventually("the last push", || {
        server.get("/apps/other/").text() == "four"
    });
    drop(server);
    postgres.stop();
}
