//! A secret's value is nowhere: not in a log, a record, an error, a plan, a file of the server.

use std::{io::Read, net::TcpStream, path::Path, process::Command};

use picloud_services::{SecretKeys, secrets::seal};
use picloud_test_support::TestRepository;

use crate::support::{Server, eventually};

const CANARY: &str = "canary\"7f3a\\ sings";

/// A manifest's block of a sealed value.
fn block(recipient: &str) -> String {
    let sealed = seal(recipient, CANARY).expect("sealed");
    sealed.lines().map(|line| format!("    {line}\n")).collect()
}

/// Files below a folder that hold one of the texts, in any case.
fn holding(folder: &Path, texts: &[&str]) -> String {
    let mut grep = Command::new("grep");
    grep.args(["-rlaiF"]);
    for text in texts {
        grep.args(["-e", text]);
    }
    let found = grep.arg(folder).output().expect("grep runs");
    String::from_utf8_lossy(&found.stdout).into_owned()
}

/// What a stream of events tells until a text was in it so many times.
fn heard(mut stream: TcpStream, text: &str, times: usize) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    while String::from_utf8_lossy(&all).matches(text).count() < times {
        let read = stream.read(&mut part).expect("more of it");
        assert!(read > 0, "the stream goes on");
        all.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn a_canary_is_nowhere_and_an_old_key_still_opens_what_was_sealed_to_it() {
    let (old, new) = (SecretKeys::generate(), SecretKeys::generate());
    let recipient = SecretKeys::parse(&old).expect("a key").recipient();
    let repository = TestRepository::new();
    repository.write(
        "apps/a/app.yaml",
        &format!(
            "name: a\nsecrets:\n  TOKEN: |\n{}routes: [{{path: '/{{x}}', script: scripts/a.rhai}}]\n",
            block(&recipient)
        ),
    );
    repository.write(
        "apps/a/scripts/a.rhai",
        "let t = secrets::get(\"TOKEN\");\n\
         log::info(\"plain \" + t, #{ h: hex::encode(t), u: url::encode(t), n: [#{ t: t }] });\n\
         log::info(base64::encode(\"user:\" + t)); log::info(base64url::encode(\"ab\" + t));\n\
         log::info(`${[t]}`); log::info(json::stringify(#{ t: t })); log::info(\"x\", #{ [t]: 1 });\n\
         if ctx.request.params.x == \"map\" { throw #{ code: t, message: [t] }; }\n\
         throw \"thrown \" + t;\n"
            .replace("#{ [t]: 1 }", "{ let m = #{}; m[t] = 1; m }")
            .as_str(),
    );
    // Sealed to somebody else: told with its place, and the app is not live.
    let stranger = SecretKeys::parse(&SecretKeys::generate()).expect("a key");
    repository.write(
        "apps/b/app.yaml",
        &format!(
            "name: b\nsecrets:\n  OTHER: |\n{}",
            block(&stranger.recipient())
        ),
    );
    repository.commit("feat: secrets");
    for mode in ["in-process", "process"] {
        let keys = format!("{new}{old}");
        let server = Server::start_with_secrets_and_executor(repository.path(), &keys, mode);
        let deployments = server.admin("/deployments?limit=1");
        let error = &deployments["items"][0]["errors"][0];
        assert_eq!(error["path"], "apps/b/app.yaml", "{deployments}");
        assert!(
            error["line"].as_u64().is_some_and(|line| line >= 3),
            "{error}"
        );
        let mut shown = deployments.to_string();
        let live = server.open("GET", "/api/v1/admin/events", &[&server.bearer()]);
        for path in ["text", "map"] {
            let answer = server.get(&format!("/apps/a/{path}"));
            assert_eq!(answer.status, 500, "{answer:?}");
            shown.push_str(&format!("{answer:?}"));
            let run = answer.header("x-picloud-run").expect("a run").to_owned();
            let record = format!("/runs/{run}");
            eventually("the run's record", || {
                server.admin_request("GET", &record, None).status == 200
            });
            let record = server.admin(&record);
            assert_eq!(record["logs"].as_array().map(Vec::len), Some(6), "{record}");
            shown.push_str(&record.to_string());
        }
        shown.push_str(&heard(live, "\"failed\"", 2));
        for arguments in [
            ["plan", "--format", "human"],
            ["plan", "--format", "json"],
            ["plan", "--format", "markdown"],
            ["runs", "--format", "json"],
            ["logs", "--app", "a"],
            ["history", "--format", "json"],
            ["drift", "--format", "json"],
        ] {
            let (_, out, err) = server.program(repository.path(), &arguments);
            shown.push_str(&(out + err.as_str()));
        }
        let (code, _, err) = server.program(server.folder(), &["backup", "all.backup"]);
        assert_eq!(code, 0, "{err}");
        for path in [
            "/stats",
            "/audit",
            "/runs",
            "/apps/a",
            "/apps/a/drift",
            "/apps/a/env",
            "/apps/a/scripts",
            "/sources",
        ] {
            shown.push_str(&server.admin_request("GET", path, None).text());
        }
        shown.push_str(&server.output());
        assert!(shown.contains("[redacted]"));
        let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
        for part in [
            "canary",
            "7f3a",
            hex.as_str(),
            "Y2FuYXJ5",
            "NhbmFyeS",
            "jYW5hcnki",
        ] {
            assert!(!shown.contains(part), "{mode}: {part} in {shown}");
        }
        let found = holding(server.folder(), &["canary\"7f3a", &hex]);
        assert_eq!(found, "", "{mode}");
    }
}

#[test]
fn a_secret_is_redacted_in_what_reaches_runs_that_were_never_given_it() {
    let keys = SecretKeys::generate();
    let recipient = SecretKeys::parse(&keys).expect("a key").recipient();
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        &format!(
            "name: a\nsecrets:\n  TOKEN: |\n{}routes:\n  - {{path: /hand, script: scripts/hand.rhai}}\n  \
             - {{path: /other, methods: [POST], script: scripts/other.rhai}}\ntriggers:\n  \
             - {{name: seen, kind: kv, collection: c, script: scripts/seen.rhai, retry: {{attempts: 1}}}}\n",
            block(&recipient)
        ),
    );
    repository.write(
        "scripts/hand.rhai",
        "let t = secrets::get(\"TOKEN\"); kv::set(\"c\", \"k\", #{ t: t }); scripts::enqueue(\"scripts/job.rhai\", t); ()",
    );
    repository.write(
        "scripts/seen.rhai",
        "log::info(\"saw\", ctx.event.kv.value); throw \"bad \" + ctx.event.kv.value.t;",
    );
    repository.write(
        "scripts/job.rhai",
        "log::info(\"got \" + ctx.event.payload);",
    );
    repository.write(
        "scripts/other.rhai",
        "log::warn(ctx.request.body); \"fine\"",
    );
    repository.commit("feat: hand a secret on");
    for mode in ["in-process", "process"] {
        let server = Server::start_with_secrets_and_executor(repository.path(), &keys, mode);
        let live = server.open("GET", "/api/v1/admin/events", &[&server.bearer()]);
        assert_eq!(server.get("/apps/a/hand").status, 204);
        let answer = server.request("POST", "/apps/a/other", &[], CANARY);
        assert_eq!(answer.status, 200, "{answer:?}");
        let runs = || server.admin("/runs?app=a")["items"].clone();
        eventually("all four runs", || {
            runs().as_array().map(Vec::len) == Some(4)
        });
        let letters = server.admin("/dead-letters?app=a");
        let letter = &letters["items"][0];
        let one = format!("/dead-letters/{}", letter["id"].as_str().expect("an id"));
        let shown = format!(
            "{} {letters} {} {}",
            runs(),
            server.admin(&one),
            heard(live, "\"script\":\"scripts/seen.rhai\"", 1)
        );
        assert_eq!(letter["event"]["value"]["t"], "[redacted]", "{letters}");
        assert!(!shown.contains("7f3a"), "{mode}: {shown}");
        // What is put back is whole.
        let path = format!("{one}/redrive");
        assert_eq!(server.admin_request("POST", &path, None).status, 202);
        eventually("the run that failed again", || {
            runs().as_array().map(Vec::len) == Some(5)
        });
        let again = runs()[0]["error"]["message"].to_string();
        assert!(again.contains("bad [redacted]"), "{again}");
    }
}
