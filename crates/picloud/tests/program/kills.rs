//! Under load, killed at random: every write that was acknowledged has its event, no event is
//! without its write, and runs, records and counts agree. `make soak` does the same for longer.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::{Server, eventually, within};

const KILLS: u64 = 12;
const CLIENTS: usize = 4;

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: k\nlimits: {concurrency: 8}\nroutes:\n  - {path: '/w/{n}', script: scripts/write.rhai}\n  \
         - {path: '/keys/{c}', script: scripts/keys.rhai}\n\
         triggers:\n  - {name: t, kind: kv, collection: w, events: [set], script: scripts/event.rhai, \
         retry: {attempts: 100, backoff: 100ms, max_backoff: 500ms}}\n",
    );
    repository.write(
        "scripts/write.rhai",
        "kv::set(\"w\", ctx.request.params.n, 1); \"ok\"",
    );
    repository.write("scripts/event.rhai", "kv::incr(\"done\", ctx.event.kv.key)");
    repository.write(
        "scripts/keys.rhai",
        "let all = [];\nlet after = \"\";\nloop {\n    let page = kv::list(ctx.request.params.c, #{ limit: 1000, after: after });\n    \
         for entry in page { all.push(entry.key); after = entry.key; }\n    if page.len() < 1000 { break; }\n}\nall",
    );
    repository.commit("feat: load");
    repository
}

/// Whether the server acknowledged a write; one that is being killed may not answer.
fn is_acknowledged(address: &str, key: u32) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let request = format!(
            "GET /apps/k/w/{key:06} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"))
}

fn keys(server: &Server, collection: &str) -> Option<BTreeSet<String>> {
    let answer = server.get(&format!("/apps/k/keys/{collection}"));
    (answer.status == 200).then(|| {
        let keys: Vec<String> = serde_json::from_value(answer.json()).expect("keys");
        keys.into_iter().collect()
    })
}

/// Runs of the trigger that ended well, as records and as they are counted.
fn runs(server: &Server) -> (u64, Value) {
    let (mut records, mut cursor) = (0, String::new());
    loop {
        let page = server.admin(&format!("/runs?limit=200&kind=kv&status=ok{cursor}"));
        records += page["items"].as_array().map_or(0, Vec::len) as u64;
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    let counts = server.admin("/stats?app=k&window=1h")["by_kind"]["kv"].clone();
    (records, counts)
}

#[test]
fn whatever_is_killed_under_load_nothing_is_lost_and_nothing_made_up() {
    let repository = repository();
    let mut server = Server::start(repository.path());
    let (sent, acknowledged) = (AtomicU32::new(0), Mutex::new(BTreeSet::new()));
    for kill in 0..KILLS {
        // From right after the start until well into the load.
        let load = Duration::from_millis(50 + kill * 397 % 900);
        let address = server.address().to_owned();
        let until = Instant::now() + load + Duration::from_millis(100);
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while Instant::now() < until {
                        let key = sent.fetch_add(1, SeqCst);
                        if is_acknowledged(&address, key) {
                            let mut all = acknowledged.lock().expect("nobody panicked");
                            all.insert(format!("{key:06}"));
                        }
                    }
                });
            }
            std::thread::sleep(load);
            if kill % 3 == 2 {
                server.kill_postgres();
            } else {
                server.kill();
            }
        });
        if kill % 3 == 2 {
            eventually("the database is there again", || {
                keys(&server, "w").is_some()
            });
        } else {
            server = server.restart(repository.path());
        }
    }
    let acknowledged = acknowledged.into_inner().expect("nobody panicked");
    assert!(acknowledged.len() > 50, "too little was written to tell");
    let mut written = BTreeSet::new();
    // What was under way when the database died is taken up when its lease has run out: 30 s.
    within(
        Duration::from_mins(1),
        "every write's event has ended",
        || {
            written = keys(&server, "w").unwrap_or_default();
            !written.is_empty() && keys(&server, "done").as_ref() == Some(&written)
        },
    );
    assert!(
        acknowledged.is_subset(&written),
        "lost: {:?}",
        acknowledged.difference(&written).collect::<Vec<_>>()
    );
    assert_eq!(server.admin("/dead-letters")["items"], json!([]));
    let count = written.len() as u64;
    eventually(
        "each event has one record of its end, and is counted",
        || {
            let (records, counted) = runs(&server);
            records == count && counted.as_u64().is_some_and(|counted| counted >= count)
        },
    );
    let failed = server.admin("/runs?limit=200&kind=kv&status=failed");
    let failed = failed["items"].as_array().map_or(0, Vec::len) as u64;
    let (_, counted) = runs(&server);
    assert_eq!(counted, json!(count + failed), "{failed} attempts failed");
}
