//! Notifications, as their receivers get them: what was told, once each, also after a receiver
//! was away.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::{Server, eventually};

/// Takes what is posted to it, and answers with 200, or with 500 while it refuses.
struct Receiver {
    told: mpsc::Receiver<(String, Value)>,
    refuses: Arc<AtomicBool>,
    /// Refused so far.
    refused: Arc<AtomicBool>,
    address: String,
    _taking: JoinHandle<()>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let (sender, told) = mpsc::channel();
        let (refuses, refused) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (refusing, note) = (Arc::clone(&refuses), Arc::clone(&refused));
        let taking = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let mut line = String::new();
                stream.read_line(&mut line).expect("a request");
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut length = 0;
                while line.trim() != "" {
                    line.clear();
                    stream.read_line(&mut line).expect("a header");
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a length");
                    }
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).expect("a body");
                let refuse = refusing.load(SeqCst);
                let status = if refuse { "500 No" } else { "200 OK" };
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream
                    .get_mut()
                    .write_all(answer.as_bytes())
                    .expect("answered");
                if refuse {
                    note.store(true, SeqCst);
                    continue;
                }
                let body = serde_json::from_slice(&body).expect("JSON");
                if sender.send((path, body)).is_err() {
                    return;
                }
            }
        });
        Self {
            told,
            refuses,
            refused,
            address,
            _taking: taking,
        }
    }

    /// The next ones, by path; there are no others.
    fn next(&self, count: usize) -> Vec<(String, Value)> {
        let next = || self.told.recv_timeout(Duration::from_secs(30));
        let mut told: Vec<_> = (0..count)
            .map(|_| next().expect("a notification"))
            .collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    }
}

fn manifest(mistake: &str) -> String {
    format!(
        "name: shop\n{mistake}routes:\n  - {{path: '/{{n}}', script: scripts/set.rhai}}\n\
         triggers:\n  - {{name: fails, kind: kv, collection: c, script: scripts/fails.rhai, retry: {{attempts: 1}}}}\n"
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, on one server")]
fn who_wants_to_know_is_told_once_in_the_form_that_they_read() {
    let receiver = Receiver::start();
    let repository = TestRepository::new();
    let entry = |format: &str, on: &str| {
        let url = format!("http://{}/{format}", receiver.address);
        format!("  - {{on: [{on}], url: '{url}', format: {format}, threshold: 2}}\n")
    };
    let all = "failed, synced, drifted, healed, failing";
    let settings = format!(
        "notifications:\n{}{}{}",
        entry("json", all),
        entry("slack", "failed, failing"),
        entry("discord", "drifted, healed")
    );
    repository.write("picloud.yaml", &settings);
    repository.write("apps/shop/app.yaml", &manifest(""));
    repository.write(
        "apps/shop/scripts/set.rhai",
        "kv::set(\"c\", ctx.request.params.n, 1)",
    );
    repository.write("apps/shop/scripts/fails.rhai", "throw \"out of stock\"");
    let first = repository.commit("feat: a shop");
    let server = Server::start(repository.path());
    let told = receiver.next(1);
    let (path, body) = &told[0];
    assert_eq!(
        (
            path.as_str(),
            &body["event"],
            &body["commit"],
            &body["status"],
            &body["source"]
        ),
        (
            "/json",
            &json!("synced"),
            &json!(first),
            &json!("synced"),
            &json!("local")
        ),
        "{body}"
    );

    repository.write("apps/shop/app.yaml", &manifest("nmae: x\n"));
    let second = repository.commit("fix: a mistake");
    let told = receiver.next(2);
    let (json_body, slack) = (&told[0].1, &told[1].1);
    assert_eq!(
        (
            &json_body["event"],
            &json_body["commit"],
            &json_body["errors"][0]["path"],
            &json_body["errors"][0]["line"]
        ),
        (
            &json!("failed"),
            &json!(second),
            &json!("apps/shop/app.yaml"),
            &json!(2)
        ),
        "{json_body}"
    );
    let text = slack["text"].as_str().expect("text");
    assert!(
        text.contains(&second[..7]) && text.contains("apps/shop/app.yaml:2"),
        "{text}"
    );

    // While the receiver refuses nothing is lost, and nothing else waits for it.
    receiver.refuses.store(true, SeqCst);
    repository.write("apps/shop/app.yaml", &manifest(""));
    let third = repository.commit("fix: the mistake");
    eventually("the receiver refused", || receiver.refused.load(SeqCst));
    assert_eq!(server.admin("/apps/shop")["commit"], json!(third));
    receiver.refuses.store(false, SeqCst);
    let told = receiver.next(1);
    assert_eq!(
        (&told[0].1["event"], &told[0].1["commit"]),
        (&json!("synced"), &json!(third))
    );

    let trigger = json!({ "name": "extra", "script": "scripts/set.rhai", "schedule": "@daily" });
    let made = server.admin_request("POST", "/apps/shop/triggers/cron", Some(&trigger));
    assert_eq!(made.status, 201, "{made:?}");
    let told = receiver.next(2);
    assert_eq!(
        (
            told[0].0.as_str(),
            told[0].1["allowed_mentions"]["parse"]
                .as_array()
                .map(Vec::len)
        ),
        ("/discord", Some(0))
    );
    let words = told[0].1["content"].as_str().expect("text");
    assert!(words.contains("shop drifted"), "{words}");
    assert_eq!(
        (&told[1].1["event"], &told[1].1["app"], &told[1].1["items"]),
        (&json!("drifted"), &json!("shop"), &json!(1))
    );
    // What was told before the server ended is not told again, and what ended meanwhile is.
    let server = server.restart(repository.path());
    server.admin_post("/apps/shop/heal", &json!({}));
    let told = receiver.next(2);
    assert_eq!(told[1].1["event"], "healed", "{told:?}");

    // The second dead letter within the hour is what was asked for; the third is no news.
    for number in 0..3 {
        assert_eq!(server.get(&format!("/apps/shop/{number}")).status, 200);
    }
    let told = receiver.next(2);
    let body = &told[0].1;
    assert_eq!(
        (
            &body["event"],
            &body["trigger"],
            &body["dead_letters"],
            &body["error"]
        ),
        (
            &json!("failing"),
            &json!("fails"),
            &json!(2),
            &json!("out of stock")
        ),
        "{body}"
    );
    let text = told[1].1["text"].as_str().expect("text");
    assert!(text.contains("fails of shop"), "{text}");
    eventually("all dead letters", || {
        server.admin("/dead-letters")["items"]
            .as_array()
            .map(Vec::len)
            == Some(3)
    });
    let more = receiver.told.recv_timeout(Duration::from_millis(300));
    assert!(more.is_err(), "{more:?}");
}
