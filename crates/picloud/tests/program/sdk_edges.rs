//! Where scripts meet the rest: what is said of them before they run, on whose behalf they act, what
//! they are told when something behind the SDK fails, and how they end when nobody waits any more.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use picloud_services::{SecretKeys, secrets::seal};
use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::{
    sdk_upstream::Upstream,
    support::{Server, eventually},
};

const CALLS: &str = r#"import "words" as words;
kv::gett("c", "k");
kv::get("c");
kvs::get("c", "k");
words::two();
words::one(1);
now();
helpr(1);
helper();
import ctx.app as dynamic;
fn helper(n) { log::inf("x"); n }
http::get("https://a.example/", #{}, 1);
try { helper(1) } catch (e) { #{ status: 409 } }
try { helper(1) } catch (e) { log::info("x") }
"#;

#[test]
fn what_is_wrong_with_a_script_is_said_before_it_runs() {
    let tree = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = tree.path().join("apps").join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    };
    write(
        "a/app.yaml",
        "name: a\nroutes:\n  - {path: /, script: scripts/s.rhai}\n  - {path: /m, script: modules/words.rhai}\n",
    );
    write("a/scripts/s.rhai", CALLS);
    write(
        "a/modules/words.rhai",
        "fn one() { 1 }\nprivate fn two() { 2 }",
    );
    write("b/app.yaml", "name: b\n");
    write("b/scripts/unused.rhai", "1");
    write("b/modules/unused.rhai", "fn one() { 1 }");
    let output = Command::new(env!("CARGO_BIN_EXE_picloud"))
        .args(["validate", "--format", "json"])
        .current_dir(tree.path())
        .output()
        .expect("picloud runs");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found: Vec<String> = report["errors"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|one| {
            format!(
                "{}:{}:{} {} {}",
                one["path"]
                    .as_str()
                    .unwrap_or_default()
                    .trim_start_matches("apps/"),
                one["line"],
                one["column"],
                one["code"].as_str().unwrap_or_default(),
                one["hint"].as_str().unwrap_or("-")
            )
        })
        .collect();
    let expected = [
        "a/app.yaml:4:24 E0304 modules are imported; a route names a script below `scripts/`",
        "a/scripts/s.rhai:2:1 E0402 did you mean `get`?",
        "a/scripts/s.rhai:3:1 E0403 it is kv::get(collection: String, key: String) -> Dynamic",
        "a/scripts/s.rhai:4:1 E0402 did you mean `kv`?",
        "a/scripts/s.rhai:5:1 E0402 it has one",
        "a/scripts/s.rhai:6:1 E0403 it takes 0",
        "a/scripts/s.rhai:7:1 E0402 did you mean `time::now`?",
        "a/scripts/s.rhai:8:1 E0402 did you mean `helper`?",
        "a/scripts/s.rhai:9:1 E0403 it takes 1",
        "a/scripts/s.rhai:10:11 E0404 write `import \"name\" as name;`",
        "a/scripts/s.rhai:11:16 E0402 did you mean `info`?",
        "a/scripts/s.rhai:12:1 E0403 it is http::get(url: String) -> Map or http::get(url: String, options: Map) -> Map",
        "a/scripts/s.rhai:13:31 W0402 write `return …;`, or assign it to a variable",
        "b/modules/unused.rhai:1:1 W0401 -",
        "b/scripts/unused.rhai:1:1 W0403 -",
    ];
    assert_eq!(found, expected, "{found:#?}");
}

const TRY: &str = "fn told(act) { try { act.call(); return \"done\"; } catch (e) { return e.code + \": \" + e.message } }\n";

#[test]
fn a_run_on_behalf_of_a_key_may_do_what_the_key_may() {
    let upstream = Upstream::start();
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: behalf\nroutes:\n  - {path: /free, script: scripts/a.rhai}\n  - {path: /keyed, script: scripts/a.rhai, auth: key}\n  - {path: /later, methods: [POST], script: scripts/b.rhai, auth: key, mode: async}\n  - {path: /kept, script: scripts/c.rhai}\n",
    );
    let asks = format!(
        "{TRY}[told(|| http::get(\"http://{}/status/200\")), told(|| kv::incr(\"c\", \"n\"))]",
        upstream.address()
    );
    repository.write("scripts/a.rhai", &asks);
    repository.write(
        "scripts/b.rhai",
        &asks
            .replace("[told", "kv::set(\"kept\", ctx.request.query.who, [told")
            .replace("\"n\"))]", "\"n\"))]);"),
    );
    repository.write("scripts/c.rhai", "kv::get(\"kept\", ctx.request.query.who)");
    repository.commit("feat: on somebody's behalf");
    for mode in ["in-process", "process"] {
        let server = Server::start_for_upstream(repository.path(), &SecretKeys::generate(), mode);
        let key = |name: &str, scopes: &[&str]| {
            let made = server.admin_post(
                "/keys",
                &json!({ "name": name, "scopes": scopes, "app": "behalf" }),
            );
            format!(
                "Authorization: Bearer {}",
                made["key"].as_str().expect("a key")
            )
        };
        let caller = key("caller", &["app:invoke"]);
        let author = key("author", &["app:invoke", "script:write"]);
        let forbidden = json!([
            "forbidden: the key that called lacks the scope script:write",
            "done"
        ]);
        let done = json!(["done", "done"]);
        // Nobody's key: it acts for its app.
        assert_eq!(server.get("/apps/behalf/free").json(), done, "{mode}");
        let keyed = |bearer: &str| {
            server
                .request("GET", "/apps/behalf/keyed", &[bearer], "")
                .json()
        };
        assert_eq!(keyed(&caller), forbidden, "{mode}");
        assert_eq!(keyed(&author), done, "{mode}");
        // Later, too: the event remembers the key.
        for (who, bearer, expected) in [("caller", &caller, &forbidden), ("author", &author, &done)]
        {
            let path = format!("/apps/behalf/later?who={who}");
            assert_eq!(
                server.request("POST", &path, &[bearer], "").status,
                202,
                "{mode}"
            );
            eventually("the job", || {
                let kept = server.get(&format!("/apps/behalf/kept?who={who}"));
                kept.status == 200 && kept.json() == *expected
            });
        }
    }
}

#[test]
fn a_failure_behind_the_sdk_is_whole_in_the_log_and_not_in_the_script() {
    let repository = TestRepository::new();
    repository.write("app.yaml", "name: told\nroutes:\n  - {path: /, script: scripts/a.rhai}\n  - {path: /module, script: scripts/b.rhai}\n");
    repository.write(
        "scripts/a.rhai",
        &format!("{TRY}[told(|| kv::get(\"c\", \"k\")), told(|| docs::find(\"c\", #{{}}))]"),
    );
    repository.write(
        "modules/broken.rhai",
        "let all = kv::get(\"c\", \"k\");\nfn one() { 1 }",
    );
    repository.write(
        "scripts/b.rhai",
        "import \"broken\" as broken;\nbroken::one()",
    );
    repository.commit("feat: ask");
    for mode in ["in-process", "process"] {
        let server = Server::start_with_executor(repository.path(), mode);
        assert_eq!(server.get("/apps/told/").json(), json!(["done", "done"]));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect(&server.database_url())
                .await
                .expect("a connection");
            for table in ["kv", "docs"] {
                let rename = format!("ALTER TABLE {table} RENAME TO {table}_hidden");
                sqlx::query(sqlx::AssertSqlSafe(rename))
                    .execute(&mut connection)
                    .await
                    .expect("renamed");
            }
        });
        let refused = "failed: the database refused the call; the server's log says why";
        assert_eq!(
            server.get("/apps/told/").json(),
            json!([refused, refused]),
            "{mode}"
        );
        for said in ["\"kv\" does not exist", "\"docs\" does not exist"] {
            assert!(server.output().contains(said), "{mode}: {said}");
        }
        // From within a module, with the way there.
        let answer = server.get("/apps/told/module");
        let run = answer.header("x-picloud-run").expect("a run").to_owned();
        let error = || server.admin(&format!("/runs/{run}"))["error"].clone();
        eventually("the record", || error().is_object());
        assert_eq!(
            (&error()["message"], &error()["script"], &error()["line"]),
            (&json!(refused), &json!("modules/broken.rhai"), &json!(1)),
            "{mode}: {}",
            error()
        );
    }
}

#[test]
fn a_run_that_goes_on_when_its_node_stops_is_cancelled_and_recorded() {
    let repository = TestRepository::new();
    repository.write("app.yaml", "name: slow\nroutes: [{path: /, script: scripts/a.rhai, limits: {timeout: 30s, operations: 100000000000}}]\n");
    repository.write("scripts/a.rhai", "log::info(\"begun\"); loop {}");
    repository.commit("feat: slow");
    std::thread::scope(|scope| {
        for mode in ["in-process", "process"] {
            let repository = &repository;
            scope.spawn(move || {
                let mut server = Server::start_with_executor(repository.path(), mode);
                let stream = server.open("GET", "/apps/slow/", &[]);
                std::thread::sleep(Duration::from_secs(1));
                assert_eq!(server.terminate(), Some(0), "{mode}");
                drop(stream);
                let server = server.restart(repository.path());
                let runs = server.admin("/runs?app=slow");
                let run = &runs["items"][0];
                assert_eq!(run["error"]["kind"], "cancelled", "{mode}: {runs}");
                assert_eq!(run["status"], "failed", "{mode}");
            });
        }
    });
}

#[test]
fn the_keys_of_a_named_file_open_secrets_and_are_rotated() {
    let folder = reachable_folder();
    let file = folder.path().join("keys");
    let (old, new) = (SecretKeys::generate(), SecretKeys::generate());
    fs::write(&file, &old).expect("written");
    let config = folder.path().join("picloud.toml");
    fs::write(
        &config,
        format!("secrets_key_file = {:?}\n", file.display().to_string()),
    )
    .expect("written");
    let config = config.to_str().expect("UTF-8");
    let recipient = |keys: &str| SecretKeys::parse(keys).expect("keys").recipient();
    let repository = TestRepository::new();
    let write = |values: &[(&str, &str)]| {
        let sealed: String = values
            .iter()
            .map(|(name, recipient)| {
                let sealed = seal(recipient, "value").expect("sealed");
                let lines: String = sealed.lines().map(|line| format!("    {line}\n")).collect();
                format!("  {name}: |\n{lines}")
            })
            .collect();
        let names: Vec<String> = values
            .iter()
            .map(|(name, _)| format!("told(\"{name}\")"))
            .collect();
        repository.write(
            "app.yaml",
            &format!(
                "name: kept\nsecrets:\n{sealed}routes: [{{path: /, script: scripts/a.rhai}}]\n"
            ),
        );
        repository.write(
            "scripts/a.rhai",
            &format!("fn told(name) {{ try {{ return secrets::get(name) == \"value\"; }} catch (e) {{ return e.code; }} }}\n[{}]", names.join(", ")),
        );
        repository.commit("feat: sealed");
    };
    write(&[("OLD", &recipient(&old))]);
    let server = Server::start_with_config(repository.path(), config);
    assert_eq!(server.get("/apps/kept/").json(), json!([true]));
    assert!(!server.data_folder().join("secrets-key").exists());
    // The new key first: what was sealed to the old one still opens.
    fs::write(&file, format!("{new}{old}")).expect("written");
    drop(server);
    let server = Server::start_with_config(repository.path(), config);
    let (code, told, _) = server.program(folder.path(), &["secrets", "recipient"]);
    assert_eq!((code, told.trim()), (0, recipient(&new).as_str()));
    write(&[("OLD", &recipient(&old)), ("NEW", &recipient(&new))]);
    eventually("both", || {
        server.get("/apps/kept/").json() == json!([true, true])
    });
    drop(server);
    // Without the old one, what is still sealed to it is an error with its place.
    fs::write(&file, &new).expect("written");
    let server = Server::start_with_config(repository.path(), config);
    let last = server.admin("/deployments?limit=1")["items"][0].clone();
    assert_eq!(last["errors"][0]["line"], 4, "{last}");
    drop(server);
    let missing = Command::new(env!("CARGO_BIN_EXE_picloud"))
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--secrets-key-file",
            "none",
            "--data-dir",
        ])
        .arg(folder.path().join("data"))
        .arg(repository.path())
        .stdin(Stdio::null())
        .output()
        .expect("picloud runs");
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("cannot read none"),
        "{missing:?}"
    );
}

#[test]
fn dev_serves_what_is_saved_and_says_at_the_endpoint_what_is_wrong() {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: app\nroutes: [{path: /, script: scripts/a.rhai}]\n",
    );
    repository.write("scripts/a.rhai", "\"committed\"");
    repository.commit("feat: an app");
    let server = Server::start_dev(repository.path());
    assert_eq!(server.get("/apps/app/").text(), "committed");
    for round in 0..5 {
        let text = format!("saved {round}");
        repository.write("scripts/a.rhai", &format!("\"{text}\""));
        eventually("the saved file", || server.get("/apps/app/").text() == text);
    }
    assert!(server.get("/apps/app/").header("x-picloud-dev").is_none());
    // A mistake: the last good state goes on, and says that it is not the saved one.
    repository.write("scripts/a.rhai", "let x = ;");
    eventually("the mark", || {
        server.get("/apps/app/").header("x-picloud-dev").is_some()
    });
    let answer = server.get("/apps/app/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "saved 4"));
    let mark = answer.header("x-picloud-dev").expect("a mark").to_owned();
    assert!(mark.contains("scripts/a.rhai:1:9 E0401"), "{mark}");
    let last = server.admin("/deployments?limit=1")["items"][0].clone();
    assert_eq!(last["errors"][0]["code"], "E0401", "{last}");
    assert!(
        server.output().contains("scripts/a.rhai:1:9"),
        "{}",
        server.output()
    );
    // A failure is explained, here and nowhere else.
    let fails = "\n\nthrow \"why it failed\"";
    repository.write("scripts/a.rhai", fails);
    eventually("the failing script", || {
        server.get("/apps/app/").status == 500
    });
    let why = server.get("/apps/app/").json()["dev"].clone();
    assert_eq!(
        (&why["message"], &why["line"]),
        (&json!("why it failed"), &json!(3))
    );
    repository.commit("fix: fail");
    let up = Server::start(repository.path());
    let answer = up.get("/apps/app/");
    assert_eq!(answer.status, 500);
    assert!(answer.json().get("dev").is_none() && !answer.text().contains("why it failed"));
}

#[test]
fn tests_are_run_again_as_files_are_saved() {
    let repository = TestRepository::new();
    repository.write("app.yaml", "name: app\n");
    repository.write("tests/a.rhai", "fn test_one() { assert(true); }");
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("output");
    let mut child = Command::new(env!("CARGO_BIN_EXE_picloud"))
        .args(["test", "--watch"])
        .current_dir(repository.path())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(fs::File::create(&output).expect("a file"))
        .spawn()
        .expect("picloud runs");
    let said = || fs::read_to_string(&output).unwrap_or_default();
    eventually("the first run", || {
        said().contains("1 passed, 0 failed\n\nwaiting")
    });
    repository.write("tests/a.rhai", "fn test_one() { assert_eq(1, 2); }");
    eventually("the second run", || {
        said().contains("0 passed, 1 failed\n\nwaiting")
    });
    repository.write("tests/a.rhai", "fn test_one( {");
    eventually("the file that cannot be read", || {
        said().contains("a.rhai:1:14")
    });
    repository.write("tests/b.rhai", "fn test_two() { assert(true); }");
    repository.write("tests/a.rhai", "fn test_one() { assert(true); }");
    eventually("the new file, too", || {
        said().contains("2 passed, 0 failed\n\nwaiting")
    });
    child.kill().expect("it goes on until it is stopped");
    child.wait().expect("its end");
}
