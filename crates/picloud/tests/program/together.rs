//! Calls of `kv::*` that come at once are asked together: each is answered as if it had come alone.

use std::{collections::BTreeMap, sync::mpsc, thread, time::Duration};

use picloud_test_support::TestRepository;

use crate::{
    drift::Hand,
    support::{Server, eventually},
};

const MANIFEST: &str = "limits: {concurrency: 64}\nroutes:\n  - {path: '/set/{key}', script: scripts/set.rhai}\n  - {path: '/get/{key}', script: scripts/get.rhai}\n";
const CALLERS: usize = 24;
const CALLS: usize = 20;
const KEYS: usize = 5;

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    for app in ["one", "other"] {
        repository.write(
            &format!("apps/{app}/app.yaml"),
            &format!("name: {app}\n{MANIFEST}"),
        );
        repository.write(
            &format!("apps/{app}/scripts/set.rhai"),
            "let key = ctx.request.params.key; kv::set(\"c\", key, #{ key: key, app: ctx.app })",
        );
        repository.write(
            &format!("apps/{app}/scripts/get.rhai"),
            "let found = kv::get_with_version(\"c\", ctx.request.params.key); if found == () { \"none\" } else { `${found.value.app} ${found.value.key} ${found.version}` }",
        );
    }
    repository.commit("feat: two apps");
    repository
}

#[test]
fn writes_and_reads_that_come_at_once_are_each_answered_as_if_alone() {
    let repository = repository();
    let server = Server::start(repository.path());
    let versions: Vec<(String, i64)> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let server = &server;
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    for call in 0..CALLS {
                        let app = if caller % 2 == 0 { "one" } else { "other" };
                        let key = format!("k{}", (caller + call) % KEYS);
                        let answer = server.get(&format!("/apps/{app}/set/{key}"));
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        let version = answer.text().parse().expect("a version");
                        seen.push((format!("{app} {key}"), version));
                        let read = server.get(&format!("/apps/{app}/get/{key}")).text();
                        let at_least = read.strip_prefix(&format!("{app} {key} "));
                        let at_least: i64 = at_least.expect(&read).parse().expect("a version");
                        assert!(
                            at_least >= version,
                            "a read sees what was written before it"
                        );
                        assert_eq!(
                            server.get(&format!("/apps/{app}/get/no{call}")).text(),
                            "none"
                        );
                    }
                    seen
                })
            })
            .collect();
        callers
            .into_iter()
            .flat_map(|caller| caller.join().expect("a caller"))
            .collect()
    });
    let mut by_entry: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (entry, version) in versions {
        by_entry.entry(entry).or_default().push(version);
    }
    assert_eq!(by_entry.len(), 2 * KEYS);
    for (entry, mut versions) in by_entry {
        versions.sort_unstable();
        let expected: Vec<i64> = (1..=i64::try_from(versions.len()).expect("few")).collect();
        assert_eq!(
            versions, expected,
            "{entry}: each write has a version of its own"
        );
    }
}

#[test]
fn an_app_that_waits_for_a_lock_holds_up_no_other() {
    let repository = repository();
    let server = Server::start(repository.path());
    assert_eq!(server.get("/apps/one/set/held").text(), "1");
    let mut database = Hand::on(&server);
    database.run("BEGIN").expect("begins");
    database
        .run("UPDATE kv SET version = version WHERE key = 'held'")
        .expect("holds the entry");
    thread::scope(|scope| {
        let (told, waiting) = mpsc::channel();
        for key in ["held", "held", "held", "free"] {
            let (server, told) = (&server, told.clone());
            scope.spawn(move || {
                let answer = server.get(&format!("/apps/one/set/{key}"));
                told.send((key, answer.status)).expect("told");
            });
        }
        let blocked = "SELECT '1' FROM pg_locks WHERE NOT granted";
        let mut watch = Hand::on(&server);
        eventually("somebody waits for the entry", || {
            !watch.rows(blocked).is_empty()
        });
        for _ in 0..5 {
            assert_eq!(server.get("/apps/other/set/held").status, 200);
            assert_eq!(server.get("/apps/one/get/held").text(), "one held 1");
        }
        database.run("COMMIT").expect("lets it go");
        for _ in 0..4 {
            let (key, status) = waiting
                .recv_timeout(Duration::from_secs(20))
                .expect("everybody is answered");
            assert_eq!(status, 200, "{key}");
        }
    });
}

#[test]
fn what_calls_hand_to_other_threads_counts_neither_for_a_run_nor_against_it() {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: app\nlimits: {timeout: 60s, memory: 32MiB}\nroutes:\n  - {path: /much, script: scripts/much.rhai}\n  - {path: /room, script: scripts/room.rhai}\n",
    );
    repository.write(
        "scripts/much.rhai",
        "let text = \"\";\ntext.pad(1000000, \"x\");\nfor n in 0..60 { kv::set(\"c\", \"k\", text); }\nlet last = 0;\nfor n in 0..60 { last = kv::get(\"c\", \"k\").len(); }\nlast",
    );
    // What is read makes no room beyond the limit.
    repository.write(
        "scripts/room.rhai",
        "for n in 0..60 { kv::get(\"c\", \"k\"); }\nlet text = \"\";\ntext.pad(40000000, \"x\");\ntext.len()",
    );
    repository.commit("feat: much");
    let server = Server::start(repository.path());
    for _ in 0..3 {
        let answer = server.get("/apps/app/much");
        assert_eq!((answer.status, answer.text().as_str()), (200, "1000000"));
    }
    let answer = server.get("/apps/app/room");
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("memory"), "{}", answer.text());
    let output = server.output();
    assert!(!output.contains("leave memory behind"), "{output}");
}
