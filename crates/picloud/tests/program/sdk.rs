//! The SDK, by scripts that check themselves; and events, from their cause to their end.

use std::process::{Command, Stdio};

use picloud_services::{SecretKeys, secrets::seal};
use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::{Server, eventually};

/// What the scripts check themselves with; the same as the test runner gives them.
const CHECKS: &str = include_str!("sdk/checks.rhai");

const SCRIPTS: [(&str, &str); 8] = [
    ("encoding", include_str!("sdk/encoding.rhai")),
    ("crypto", include_str!("sdk/crypto.rhai")),
    ("time", include_str!("sdk/time.rhai")),
    ("regex", include_str!("sdk/regex.rhai")),
    ("kv", include_str!("sdk/kv.rhai")),
    ("docs", include_str!("sdk/docs.rhai")),
    ("http", include_str!("sdk/http.rhai")),
    ("scripts", include_str!("sdk/scripts.rhai")),
];

#[test]
fn the_sdk_does_what_it_says_and_no_secret_is_shown() {
    let repository = TestRepository::new();
    let keys = SecretKeys::generate();
    let recipient = SecretKeys::parse(&keys).expect("a key").recipient();
    let sealed = seal(&recipient, "hunter2").expect("sealed");
    let sealed: String = sealed.lines().map(|line| format!("    {line}\n")).collect();
    let routes: String = SCRIPTS
        .iter()
        .map(|(name, _)| format!("  - {{path: /{name}, script: scripts/{name}.rhai}}\n"))
        .collect();
    repository.write(
        "app.yaml",
        &format!("name: sdk\nsecrets:\n  TOKEN: |\n{sealed}routes:\n{routes}"),
    );
    for (name, text) in SCRIPTS {
        repository.write(
            &format!("scripts/{name}.rhai"),
            &format!("{CHECKS}\n{text}\n\"ok\""),
        );
    }
    repository.write("modules/checks.rhai", "fn none() {}");
    repository.write(
        "scripts/callee.rhai",
        "let n = ctx.event.payload.n; if type_of(n) == \"string\" { throw \"thrown\"; } n * 2 + 2",
    );
    repository.commit("feat: all of the SDK");
    let server = Server::start_with_secrets(repository.path(), &keys);
    for (name, _) in &SCRIPTS[..7] {
        let answer = server.get(&format!("/apps/sdk/{name}"));
        let run = answer
            .header("x-picloud-run")
            .unwrap_or_default()
            .to_owned();
        let why = || server.admin(&format!("/runs/{run}"))["error"].clone();
        eventually("the run's record", || {
            answer.status == 200 || !why().is_null()
        });
        assert_eq!(answer.text(), "ok", "{name}: {}", why());
    }
    // The last one throws on purpose, after all its checks held.
    let answer = server.get("/apps/sdk/scripts");
    assert_eq!(answer.status, 500);
    let run = answer.header("x-picloud-run").expect("a run").to_owned();
    let shown = || server.admin(&format!("/runs/{run}"));
    eventually("the run's record", || shown()["error"].is_object());
    let record = shown();
    assert_eq!(
        record["error"]["message"], "with [redacted] in it",
        "{record}"
    );
    assert_eq!(record["logs"][0]["message"], "the token is [redacted]");
    assert!(
        record["logs"][0]["fields"]["basic"]
            .as_str()
            .is_some_and(|text| text.contains("[redacted]"))
    );
    assert!(!record.to_string().contains("hunter2"));
    assert!(!server.output().contains("hunter2"));
}

const EVENTS: &str = "
name: events
routes:
  - {path: '/set/{value}', script: scripts/set.rhai}
  - {path: '/seen/{key}', script: scripts/seen.rhai}
  - {path: /later, methods: [POST], script: scripts/later.rhai, mode: async}
  - {path: /few, script: scripts/seen.rhai, rate_limit: 2/1h}
  - {path: /keyed, script: scripts/seen.rhai, auth: key}
triggers:
  - {name: tick, kind: cron, script: scripts/tick.rhai, schedule: '* * * * * *'}
  - {name: on-kv, kind: kv, script: scripts/on_kv.rhai, collection: watched, events: [set], retry: {attempts: 2, backoff: 10ms}}
  - {name: on-docs, kind: docs, script: scripts/on_docs.rhai, collection: 'notes*'}
  - {name: on-dead, kind: dead_letter, script: scripts/on_dead.rhai, source_kind: kv}
  - {name: loop, kind: kv, script: scripts/loop.rhai, collection: loop}
";

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn events_run_are_retried_and_end_as_done_or_as_a_dead_letter() {
    let repository = TestRepository::new();
    repository.write("app.yaml", EVENTS);
    repository.write(
        "scripts/set.rhai",
        r#"
        let v = ctx.request.params.value;
        kv::set("watched", "k", v);
        docs::create("notes-1", #{ v: v });
        if v == "loop" { kv::set("loop", "n", 0); }
        "set""#,
    );
    repository.write(
        "scripts/seen.rhai",
        "kv::get(\"seen\", ctx.request.params.key ?? \"none\")",
    );
    repository.write(
        "scripts/tick.rhai",
        "kv::set(\"seen\", \"tick\", ctx.event.cron)",
    );
    repository.write(
        "scripts/on_kv.rhai",
        r#"
        if ctx.event.kv.value == "bad" { throw "no"; }
        kv::set("seen", "kv", ctx.event);"#,
    );
    repository.write(
        "scripts/on_docs.rhai",
        "kv::set(\"seen\", \"docs\", ctx.event.docs)",
    );
    repository.write(
        "scripts/on_dead.rhai",
        "kv::set(\"seen\", \"dead\", ctx.event.dead_letter)",
    );
    repository.write(
        "scripts/loop.rhai",
        "kv::set(\"loop\", \"n\", ctx.event.kv.value + 1)",
    );
    repository.write(
        "scripts/later.rhai",
        r#"
        kv::incr("seen", "later-runs");
        kv::set("seen", "later", ctx.request.json)"#,
    );
    repository.commit("feat: events");
    let server = Server::start(repository.path());
    let seen = |key: &str| -> Value {
        let answer = server.get(&format!("/apps/events/seen/{key}"));
        if answer.status == 204 {
            Value::Null
        } else {
            answer.json()
        }
    };
    eventually("a cron firing", || {
        seen("tick")["schedule"] == "* * * * * *"
    });
    assert_eq!(server.get("/apps/events/set/good").text(), "set");
    eventually("the kv event", || seen("kv")["kv"]["value"] == "good");
    let event = seen("kv");
    assert_eq!(
        (&event["kind"], &event["trigger"], &event["attempt"]),
        (&json!("kv"), &json!("on-kv"), &json!(1))
    );
    assert_eq!(event["kv"]["op"], "set");
    assert!(event["cause"].is_string());
    eventually("the docs event", || seen("docs")["document"]["v"] == "good");
    server.get("/apps/events/set/bad");
    eventually("the dead letter", || seen("dead")["attempts"] == 2);
    assert_eq!(seen("dead")["trigger"], "on-kv");
    assert_eq!(seen("dead")["last_error"]["message"], "no");
    server.get("/apps/events/set/loop");
    eventually("the end of the loop", || {
        let letters = server.admin("/dead-letters?app=events");
        letters["items"].as_array().is_some_and(|items| {
            items.iter().any(|item| {
                item["trigger"] == "loop"
                    && item["chain"]
                        .as_array()
                        .is_some_and(|chain| chain.len() == 16)
            })
        })
    });

    // A request that is handed over: once, however often it comes.
    let post =
        |body: &str| server.request("POST", "/apps/events/later", &["Idempotency-Key: k1"], body);
    let (one, two) = (post("{\"n\":1}"), post("{\"n\":1}"));
    assert_eq!((one.status, one.json()), (202, two.json()));
    assert_eq!(post("{\"n\":2}").status, 422);
    eventually("the handed-over request", || {
        seen("later") == json!({ "n": 1 })
    });
    assert_eq!(seen("later-runs"), 1);
    let run = one.json()["run"].as_str().expect("a run").to_owned();
    eventually("its record", || {
        server.admin(&format!("/runs/{run}"))["status"] == "ok"
    });

    assert_eq!(server.get("/apps/events/few").status, 204);
    assert_eq!(server.get("/apps/events/few").status, 204);
    let third = server.get("/apps/events/few");
    assert_eq!(third.status, 429);
    assert!(third.header("retry-after").is_some());

    assert_eq!(server.get("/apps/events/keyed").status, 401);
    let key = server.admin_post(
        "/keys",
        &json!({ "name": "caller", "scopes": ["app:invoke"], "app": "events" }),
    );
    let bearer = format!(
        "Authorization: Bearer {}",
        key["key"].as_str().expect("a key")
    );
    assert_eq!(
        server
            .request("GET", "/apps/events/keyed", &[&bearer], "")
            .status,
        204
    );
    let wrong = server.admin_post(
        "/keys",
        &json!({ "name": "reader", "scopes": ["app:read"] }),
    );
    let bearer = format!(
        "Authorization: Bearer {}",
        wrong["key"].as_str().expect("a key")
    );
    assert_eq!(
        server
            .request("GET", "/apps/events/keyed", &[&bearer], "")
            .status,
        403
    );
}

#[test]
fn a_schedule_is_shown_offline_and_what_is_sealed_is_no_longer_plain() {
    let picloud = |arguments: &[&str], input: &str| {
        use std::io::Write;
        let mut child = Command::new(env!("CARGO_BIN_EXE_picloud"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("picloud runs");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .expect("read");
        let output = child.wait_with_output().expect("its end");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let arguments = [
        "schedule",
        "30 2 * * *",
        "--timezone",
        "Europe/Berlin",
        "--from",
        "2026-03-28T12:00:00Z",
        "--next",
        "2",
    ];
    let expected = "2026-03-29T03:00:00+02:00\n2026-03-30T02:30:00+02:00\n";
    assert_eq!(picloud(&arguments, ""), (Some(0), expected.to_owned()));
    assert_eq!(picloud(&["schedule", "0 0 30 2 *"], "").0, Some(1));
    let (_, keys) = picloud(&["secrets", "keygen"], "");
    let keys = SecretKeys::parse(&keys).expect("an identity");
    let (code, sealed) = picloud(
        &["secrets", "seal", "--recipient", &keys.recipient()],
        "value\n",
    );
    assert_eq!(code, Some(0));
    assert_eq!(keys.open(&sealed).expect("opened").0.as_ref(), "value");
}
