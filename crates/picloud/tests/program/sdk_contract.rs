//! What a script sees and what it may answer, sentence by sentence of the contract: tables in
//! `contract/`, each asked of a real server, in both places where scripts run.

use std::{collections::BTreeMap, fs};

use picloud_services::{SecretKeys, secrets::seal};
use picloud_test_support::TestRepository;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    sdk_upstream::Upstream,
    support::{Server, eventually},
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/contract");
const MODES: [&str; 2] = ["in-process", "process"];

fn table(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).expect("a table")
}

/// A request, the script that gets it, and the answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The sentence.
    says: String,
    script: String,
    route: Option<String>,
    path: Option<String>,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    body: String,
    #[serde(default = "ok")]
    status: u16,
    /// Headers of the answer; an empty text: there is none of that name.
    #[serde(default)]
    answered: BTreeMap<String, String>,
    text: Option<String>,
    json: Option<String>,
    /// The problem's code.
    code: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn ok() -> u16 {
    200
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

fn manifest(cases: &[Case]) -> String {
    let mut manifest =
        "name: seen\nenv: {WORD: one}\nlimits: {response_body: 64KiB}\nroutes:\n".to_owned();
    for (number, case) in cases.iter().enumerate() {
        let route = case.route.clone().unwrap_or(format!("/c{number}"));
        manifest.push_str(&format!(
            "  - {{path: '{route}', methods: [{}], script: scripts/c{number}.rhai}}\n",
            case.method
        ));
    }
    manifest
}

/// What is wrong with an answer.
fn mistake(server: &Server, number: usize, case: &Case) -> Option<String> {
    let path = case.path.clone().or(case.route.clone());
    let path = format!("/apps/seen{}", path.unwrap_or(format!("/c{number}")));
    let headers: Vec<&str> = case.headers.iter().map(String::as_str).collect();
    let answer = server.request(&case.method, &path, &headers, &case.body);
    if answer.status != case.status {
        return Some(format!(
            "status {}, not {}: {answer:?}",
            answer.status, case.status
        ));
    }
    for (name, expected) in &case.answered {
        let given = answer.header(name).unwrap_or_default();
        if given != expected {
            return Some(format!("{name} is {given:?}, not {expected:?}"));
        }
    }
    for name in ["x-picloud-run", "x-picloud-commit"] {
        if answer.header(name).is_none() {
            return Some(format!("there is no {name}"));
        }
    }
    let body = answer.text();
    if let Some(expected) = &case.text
        && body != *expected
    {
        return Some(format!("{body:?} is not {expected:?}"));
    }
    let given: Value = serde_json::from_str(&body).unwrap_or_default();
    if let Some(expected) = &case.json {
        let expected: Value = serde_json::from_str(expected).expect("JSON in the table");
        if given != expected {
            return Some(format!("{body} is not {expected}"));
        }
    }
    if let Some(code) = &case.code
        && (given["code"] != **code
            || answer.header("content-type") != Some("application/problem+json"))
    {
        return Some(format!("{answer:?} is no problem {code}"));
    }
    None
}

#[test]
fn a_request_is_seen_and_answered_as_the_contract_says() {
    let cases: Cases = toml::from_str(&table("requests.toml")).expect("a table");
    let cases = cases.case;
    let repository = TestRepository::new();
    repository.write("app.yaml", &manifest(&cases));
    for (number, case) in cases.iter().enumerate() {
        repository.write(&format!("scripts/c{number}.rhai"), &case.script);
    }
    repository.commit("test: requests");
    let mut wrong = Vec::new();
    for mode in MODES {
        let server = Server::start_with_executor(repository.path(), mode);
        for (number, case) in cases.iter().enumerate() {
            if let Some(mistake) = mistake(&server, number, case) {
                wrong.push(format!("{mode}: {}: {mistake}", case.says));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What a line of a table expects.
#[derive(Debug)]
enum Expected {
    Is(Value),
    Matches(regex::Regex),
    Throws(String, String),
}

/// `EXPRESSION => JSON`, `EXPRESSION ~~ REGEX`, `EXPRESSION !! CODE` or `!! CODE: PART OF THE MESSAGE`.
fn parse(line: &str) -> (&str, Expected) {
    if let Some((expression, code)) = line.rsplit_once(" !! ") {
        let (code, part) = code.split_once(": ").unwrap_or((code, ""));
        return (
            expression,
            Expected::Throws(code.to_owned(), part.to_owned()),
        );
    }
    if let Some((expression, pattern)) = line.rsplit_once(" ~~ ") {
        let regex = regex::Regex::new(pattern).expect("a pattern in the table");
        return (expression, Expected::Matches(regex));
    }
    let (expression, value) = line.rsplit_once(" => ").unwrap_or_else(|| panic!("{line}"));
    let value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}"));
    (expression, Expected::Is(value))
}

/// A script of a table's lines, which gives what became of each; and what is expected. Lines that
/// begin with `>` are statements.
fn script(table: &str) -> (String, Vec<(&str, Expected)>) {
    let mut script = "let out = [];\n".to_owned();
    let mut expected = Vec::new();
    for line in table.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        if let Some(statement) = line.strip_prefix('>') {
            script.push_str(&format!("{statement}\n"));
            continue;
        }
        let (expression, wanted) = parse(line);
        script.push_str(&format!(
            "try {{ out.push(#{{ v: {expression} }}); }} catch (e) {{ out.push(#{{ e: e }}); }}\n"
        ));
        expected.push((expression, wanted));
    }
    script.push_str("out\n");
    (script, expected)
}

fn differs(given: &Value, expected: &Expected) -> bool {
    match expected {
        Expected::Is(value) => given.get("v") != Some(value),
        Expected::Matches(regex) => !given["v"].as_str().is_some_and(|text| regex.is_match(text)),
        Expected::Throws(code, part) => {
            let fields = given["e"].as_object();
            let exact = fields.is_some_and(|fields| fields.len() == 2);
            let message = given["e"]["message"].as_str().unwrap_or_default();
            !exact || given["e"]["code"] != **code || message.is_empty() || !message.contains(part)
        }
    }
}

#[test]
fn each_function_gives_and_throws_what_the_contract_says() {
    let tables = ["values", "time", "kv", "docs", "scripts", "http"];
    let upstream = Upstream::start();
    let keys = SecretKeys::generate();
    let recipient = SecretKeys::parse(&keys).expect("a key").recipient();
    let sealed: String = seal(&recipient, "hunter2 is ünsafe")
        .expect("sealed")
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let mut manifest = format!(
        "name: calls\nsecrets:\n  TOKEN: |\n{sealed}limits: {{timeout: 30s, memory: 256MiB}}\nroutes:\n"
    );
    let repository = TestRepository::new();
    let texts: Vec<(&str, String)> = tables
        .into_iter()
        .map(|name| {
            let text = table(&format!("{name}.table"));
            (name, text.replace("UPSTREAM", &upstream.address()))
        })
        .collect();
    for (name, text) in &texts {
        manifest.push_str(&format!(
            "  - {{path: /{name}, script: scripts/{name}.rhai}}\n"
        ));
        repository.write(&format!("scripts/{name}.rhai"), &script(text).0);
    }
    repository.write("app.yaml", &manifest);
    repository.write("modules/words.rhai", "fn one() { 1 }");
    repository.write(
        "scripts/callee.rhai",
        "let p = ctx.event.payload;\nif p == \"throw\" { throw #{ code: \"mine\", message: \"thrown\" }; }\nif p == \"fail\" { let x = (); x.y.z }\n#{ payload: p, kind: ctx.event.kind, attempt: ctx.event.attempt, trigger: ctx.event.trigger, script: ctx.script, request: ctx.request, run: ctx.run_id, cause: ctx.event.cause };",
    );
    repository.write("scripts/odd.rhai", "|x| x");
    repository.commit("test: calls");
    let mut wrong = Vec::new();
    for mode in MODES {
        let server = Server::start_for_upstream(repository.path(), &keys, mode);
        for (name, text) in &texts {
            let answer = server.get(&format!("/apps/calls/{name}"));
            if answer.status != 200 {
                let run = answer
                    .header("x-picloud-run")
                    .unwrap_or_default()
                    .to_owned();
                let record = || server.admin(&format!("/runs/{run}"))["error"].clone();
                eventually("the run's record", || !record().is_null());
                wrong.push(format!("{mode}: {name}: {} {}", answer.status, record()));
                continue;
            }
            let given = answer.json();
            for (index, (expression, expected)) in script(text).1.iter().enumerate() {
                if differs(&given[index], expected) {
                    wrong.push(format!(
                        "{mode}: {expression}\n    {}\n    not {expected:?}",
                        given[index]
                    ));
                }
            }
        }
        assert!(!server.output().contains("hunter2"), "{mode}");
        let metrics = server.get("/metrics").text();
        for outcome in [
            "answered",
            "client_error",
            "server_error",
            "blocked",
            "timeout",
            "too_large",
            "invalid",
            "failed",
        ] {
            let line = format!("picloud_script_http_requests_total{{outcome=\"{outcome}\"}} ");
            let count = metrics.lines().find_map(|text| text.strip_prefix(&line));
            if count.is_none_or(|count| count == "0") {
                wrong.push(format!("{mode}: no {outcome} is counted"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one record, field by field")]
fn a_runs_record_has_the_fields_of_the_contract() {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: told\nroutes:\n  - {path: '/{how}', methods: [GET, POST], script: scripts/a.rhai}\n\
         triggers:\n  - {name: on-kv, kind: kv, script: scripts/b.rhai, collection: c}\n",
    );
    repository.write(
        "modules/deep.rhai",
        "fn down(n) {\n  if n == 0 {\n    throw \"at the bottom\";\n  }\n  down(n - 1)\n}",
    );
    repository.write(
        "scripts/a.rhai",
        "import \"deep\" as deep;\nlog::info(\"begun\", #{ n: 1 });\nif ctx.request.params.how == \"deep\" {\n  deep::down(1);\n}\nif ctx.request.params.how == \"logs\" {\n  for n in 0..10010 { log::debug(`line ${n}`); }\n}\nif ctx.request.params.how == \"kv\" { kv::set(\"c\", \"k\", 1); }\nif ctx.request.params.how == \"other\" {\n  scripts::invoke(\"scripts/c.rhai\", 1);\n}\n\"fine\"",
    );
    repository.write("scripts/b.rhai", "ctx.event.kv.value + 1");
    repository.write(
        "scripts/c.rhai",
        "\n\nscripts::invoke(\"scripts/\" + \"none.rhai\", 1)",
    );
    let head = repository.commit("test: records");
    for mode in MODES {
        let server = Server::start_with_executor(repository.path(), mode);
        let record = |answer: &crate::support::Answer| {
            let run = answer.header("x-picloud-run").expect("a run").to_owned();
            let path = format!("/runs/{run}");
            eventually("the run's record", || {
                server.admin_request("GET", &path, None).status == 200
            });
            server.admin(&path)
        };
        let answer = server.request("POST", "/apps/told/deep?q=1", &["X-A: b"], "hi");
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (500, &json!("script_error"))
        );
        assert!(!answer.text().contains("bottom"), "{answer:?}");
        let told = record(&answer);
        for (name, expected) in [
            ("app", json!("told")),
            ("script", json!("scripts/a.rhai")),
            ("kind", json!("http")),
            ("trigger", Value::Null),
            ("commit", json!(head)),
            ("attempt", json!(1)),
            ("status", json!("failed")),
            ("queue_ms", json!(0.0)),
            ("cause", Value::Null),
        ] {
            assert_eq!(told[name], expected, "{name} of {told}");
        }
        for name in ["id", "started_at"] {
            assert!(told[name].is_string(), "{name} of {told}");
        }
        for name in ["duration_ms", "operations", "peak_memory"] {
            assert!(
                told[name].as_f64().is_some_and(|n| n > 0.0),
                "{name} of {told}"
            );
        }
        let error = &told["error"];
        assert_eq!(
            (
                &error["kind"],
                &error["message"],
                &error["script"],
                &error["line"],
                &error["column"]
            ),
            (
                &json!("script"),
                &json!("at the bottom"),
                &json!("modules/deep.rhai"),
                &json!(3),
                &json!(5)
            ),
            "{error}"
        );
        let trace = error["trace"].as_array().expect("a path").clone();
        let trace: Vec<&str> = trace.iter().filter_map(Value::as_str).collect();
        assert_eq!(trace.len(), 2, "{error}");
        assert!(
            trace[0].contains("down") && trace[0].contains("modules/deep.rhai:5"),
            "{error}"
        );
        assert!(
            trace[1].contains("down") && trace[1].contains("scripts/a.rhai:4"),
            "{error}"
        );
        let line = &told["logs"][0];
        assert_eq!(
            (&line["level"], &line["message"], &line["fields"]),
            (&json!("info"), &json!("begun"), &json!({"n": 1}))
        );
        assert!(line["at"].is_string());
        assert_eq!(
            (&told["request"]["method"], &told["request"]["status"]),
            (&json!("POST"), &json!(500)),
            "{told}"
        );

        // In a handler that another one runs, with the way there.
        let error = record(&server.get("/apps/told/other"))["error"].clone();
        assert_eq!(
            (&error["script"], &error["line"], &error["column"]),
            (&json!("scripts/c.rhai"), &json!(3), &json!(10)),
            "{error}"
        );
        assert_eq!(
            error["trace"],
            json!(["scripts::invoke (scripts/a.rhai:11)"]),
            "{error}"
        );

        let told = record(&server.get("/apps/told/logs"));
        assert_eq!(told["logs"].as_array().map(Vec::len), Some(10_000));
        assert_eq!(told["dropped_logs"], 11);

        let cause = record(&server.get("/apps/told/kv"))["id"].clone();
        let of_kv = || server.admin("/runs?app=told&kind=kv")["items"][0].clone();
        eventually("the event's run", || of_kv()["status"] == "ok");
        let told = server.admin(&format!("/runs/{}", of_kv()["id"].as_str().expect("an id")));
        assert_eq!(
            (&told["trigger"], &told["cause"]),
            (&json!("on-kv"), &cause),
            "{told}"
        );
        assert_eq!(told["event"]["kv"]["value"], 1, "{told}");
    }
}
