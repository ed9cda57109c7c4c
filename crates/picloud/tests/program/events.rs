//! Events as their owner works with them: given up, put back, thrown away, run again; and what a
//! trigger's settings mean while they come.

use std::time::{Duration, Instant};

use picloud::private_postgres::PrivatePostgres;
use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::{Value, json};

use crate::support::{Server, eventually};

fn items(page: &Value) -> Vec<Value> {
    page["items"].as_array().cloned().unwrap_or_default()
}

fn letters(server: &Server) -> Vec<Value> {
    items(&server.admin("/dead-letters?app=shop"))
}

/// Orders are shipped once the warehouse is open.
fn shop() -> TestRepository {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: shop\nenv: {VERSION: one}\nroutes:\n  \
         - {path: '/order/{c}/{n}', script: scripts/order.rhai}\n  - {path: /open, script: scripts/open.rhai}\n  \
         - {path: /jobs, script: scripts/jobs.rhai}\n\
         triggers:\n  - {name: ship, kind: kv, collection: 'orders-*', events: [set], script: scripts/ship.rhai, \
         retry: {attempts: 2, backoff: 50ms}}\n",
    );
    repository.write(
        "scripts/order.rhai",
        "kv::set(ctx.request.params.c, ctx.request.params.n, 1)",
    );
    repository.write(
        "scripts/open.rhai",
        "kv::set(\"warehouse\", \"open\", true)",
    );
    repository.write(
        "scripts/ship.rhai",
        "log::info(`${ctx.env.VERSION} ${ctx.event.kv.collection}/${ctx.event.kv.key}`);\n\
         if kv::get(\"warehouse\", \"open\") == () { throw \"closed\" }\n\
         kv::incr(\"shipped\", ctx.event.kv.key)",
    );
    repository.write(
        "scripts/report.rhai",
        "#{ version: ctx.env.VERSION, kind: ctx.event.kind, twice: ctx.event.payload.n * 2 }",
    );
    repository.write(
        "scripts/jobs.rhai",
        "let first = scripts::enqueue(\"scripts/job.rhai\", #{ n: 1 }, #{ key: \"k\", delay: \"1s\" });\n\
         let second = scripts::enqueue(\"scripts/job.rhai\", #{ n: 2 }, #{ key: \"k\" });\n\
         scripts::enqueue(\"scripts/job.rhai\", #{ n: 3 }, #{ key: \"other\" });\n\
         first == second",
    );
    repository.write(
        "scripts/job.rhai",
        "log::info(`job ${ctx.event.payload.n}`)",
    );
    repository.commit("feat: a shop");
    repository
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, on one server")]
fn what_was_given_up_is_put_back_or_thrown_away_and_what_ran_runs_again() {
    let repository = shop();
    let server = Server::start(repository.path());
    let here = repository.path();
    for (collection, key) in [
        ("orders-eu", "a"),
        ("orders-us", "b"),
        ("orders-", "c"),
        ("orders-eu", "d"),
        ("order", "e"),
    ] {
        let path = format!("/apps/shop/order/{collection}/{key}");
        assert_eq!(server.get(&path).status, 200);
    }
    // Those whose collection begins as the trigger's does, after as many attempts as it has.
    eventually("four dead letters", || letters(&server).len() == 4);
    let found = letters(&server);
    for letter in &found {
        assert_eq!(
            (
                &letter["attempts"],
                letter["errors"].as_array().map(Vec::len),
                &letter["last_error"]["message"]
            ),
            (&json!(2), Some(2), &json!("closed")),
            "{letter}"
        );
    }
    let id_of = |key: &str| {
        let of = found.iter().find(|letter| letter["event"]["key"] == key);
        of.expect("its letter")["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };

    // One is thrown away, one put back while nothing is better, and one once it is.
    let (code, out, err) = server.program(here, &["dead-letters", "discard", &id_of("d")]);
    assert_eq!(code, 0, "{out}{err}");
    let redrive =
        |id: &str| server.admin_request("POST", &format!("/dead-letters/{id}/redrive"), None);
    assert_eq!(redrive(&id_of("a")).status, 202);
    assert_eq!(redrive(&id_of("d")).status, 404);
    eventually("it is given up again", || letters(&server).len() == 3);
    assert_eq!(server.get("/apps/shop/open").status, 200);
    assert_eq!(redrive(&id_of("a")).status, 202);
    let ok = || items(&server.admin("/runs?app=shop&trigger=ship&status=ok"));
    eventually("it succeeds", || ok().len() == 1);
    let (code, out, err) = server.program(here, &["dead-letters", "redrive", "--app", "shop"]);
    assert_eq!(code, 0, "{out}{err}");
    eventually("the others do", || ok().len() == 3);
    assert_eq!(letters(&server), Vec::<Value>::new());
    let line = |record: &Value| record["logs"][0]["message"].as_str().map(str::to_owned);
    let mut shipped: Vec<_> = ok().iter().filter_map(line).collect();
    shipped.sort();
    assert_eq!(
        shipped,
        ["one orders-/c", "one orders-eu/a", "one orders-us/b"]
    );

    // A recorded run again: on what is live, or on the commit that it ran on.
    let first = repository.git(&["rev-parse", "HEAD"]);
    let manifest = std::fs::read_to_string(here.join("app.yaml")).expect("the manifest");
    repository.write(
        "app.yaml",
        &manifest.replace("VERSION: one", "VERSION: two"),
    );
    let second = repository.commit("feat: another version");
    eventually("the second commit", || {
        server.admin("/apps/shop")["commit"] == json!(second)
    });
    let old = ok()[0].clone();
    let id = old["id"].as_str().expect("an id");
    for (arguments, commit, version) in [
        (
            vec!["replay", id, "--format", "json"],
            second.as_str(),
            "two",
        ),
        (
            vec!["replay", id, "--original", "--format", "json"],
            first.trim(),
            "one",
        ),
    ] {
        let (code, out, err) = server.program(here, &arguments);
        assert_eq!(code, 0, "{out}{err}");
        let again: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(
            (
                &again["status"],
                &again["commit"],
                &again["cause"],
                &again["trigger"]
            ),
            (&json!("ok"), &json!(commit), &old["id"], &json!("ship")),
            "{again}"
        );
        let said = line(&again).expect("a line");
        assert_eq!(said, line(&old).expect("a line").replace("one", version));
    }

    // A handler now.
    let invoke = [
        "invoke",
        "shop",
        "scripts/report.rhai",
        "--payload",
        "{\"n\": 21}",
        "--format",
        "json",
    ];
    let (code, out, err) = server.program(here, &invoke);
    let by_command: Value = serde_json::from_str(&out).expect("JSON");
    let by_api = server.admin_post(
        "/apps/shop/invoke",
        &json!({ "script": "scripts/report.rhai", "payload": { "n": 21 } }),
    );
    for told in [&by_command, &by_api] {
        assert_eq!(
            (&told["status"], &told["kind"], &told["answer"]),
            (
                &json!("ok"),
                &json!("invoke"),
                &json!({ "version": "two", "kind": "invoke", "twice": 42 })
            ),
            "{told} {err}"
        );
    }
    assert_eq!(code, 0);
    let nothing = json!({ "script": "scripts/nothing.rhai", "payload": null });
    assert_eq!(
        server
            .admin_request("POST", "/apps/shop/invoke", Some(&nothing))
            .status,
        422
    );

    // One waiting job a key: the payload is the last one's, the time the first one's.
    assert_eq!(server.get("/apps/shop/jobs").text(), "true");
    let jobs = || items(&server.admin("/runs?app=shop&kind=enqueue"));
    eventually("both jobs", || jobs().len() == 2);
    // Newest first.
    let said: Vec<_> = jobs().iter().filter_map(line).collect();
    assert_eq!(said, ["job 2", "job 3"]);
}

/// How the runs of a trigger went, oldest first: the second that they were due, and the status.
fn course(server: &Server, trigger: &str) -> Vec<(String, String)> {
    let page = server.admin(&format!("/runs?app=beat&trigger={trigger}&limit=200"));
    let mut runs: Vec<_> = items(&page)
        .iter()
        .map(|run| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (
                text(&run["started_at"]),
                text(&run["input"]["cron"]["scheduled_at"]),
                text(&run["status"]),
            )
        })
        .collect();
    runs.sort();
    runs.into_iter()
        .map(|(_, due, status)| (due, status))
        .collect()
}

#[test]
fn firings_that_meet_one_another_are_passed_over_wait_or_run_beside() {
    let repository = TestRepository::new();
    let trigger = |overlap: &str| {
        format!(
            "  - {{name: {overlap}, kind: cron, schedule: '* * * * * *', script: scripts/a.rhai, overlap: {overlap}, \
             retry: {{attempts: 2, backoff: 1500ms}}}}\n"
        )
    };
    // Each firing fails at first, and takes longer than a second with its second attempt.
    repository.write(
        "scripts/a.rhai",
        "if ctx.event.attempt == 1 { throw \"not yet\" }",
    );
    repository.write(
        "app.yaml",
        &format!(
            "name: beat\ntriggers:\n{}{}{}",
            trigger("skip"),
            trigger("queue"),
            trigger("allow")
        ),
    );
    repository.commit("feat: a beat");
    let server = Server::start(repository.path());
    let of = |trigger: &str, status: &str| {
        let course = course(&server, trigger);
        course.iter().filter(|(_, is)| is == status).count()
    };
    eventually("each has come to its end twice", || {
        ["skip", "queue", "allow"]
            .iter()
            .all(|trigger| of(trigger, "ok") >= 2)
    });
    assert!(of("skip", "skipped") >= 2);
    assert_eq!((of("queue", "skipped"), of("allow", "skipped")), (0, 0));
    // In order, each with its retry before the next.
    let queue = course(&server, "queue");
    for pair in queue.chunks_exact(2) {
        assert_eq!(
            (&pair[0].0, pair[0].1.as_str(), pair[1].1.as_str()),
            (&pair[1].0, "failed", "ok"),
            "{queue:?}"
        );
    }
    assert!(
        queue.chunks_exact(2).map(|pair| &pair[0].0).is_sorted(),
        "{queue:?}"
    );
    // The second begins while the first waits for its other attempt.
    let allow = course(&server, "allow");
    assert_eq!(
        (allow[0].1.as_str(), allow[1].1.as_str()),
        ("failed", "failed"),
        "{allow:?}"
    );
    // One that is passed over while another one waits leaves its place to no third.
    let skip = course(&server, "skip");
    let ran: Vec<_> = skip
        .iter()
        .filter(|(_, status)| status != "skipped")
        .collect();
    for pair in ran.chunks_exact(2) {
        assert_eq!(pair[0].0, pair[1].0, "{skip:?}");
    }
}

#[test]
fn a_node_that_ends_hands_back_what_does_not_end_and_another_takes_it_at_once() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let database = postgres.database_url();
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: app\nlimits: {timeout: 2m, operations: 100000000000}\nroutes:\n  - {path: /go, script: scripts/go.rhai}\n",
    );
    repository.write(
        "scripts/go.rhai",
        "scripts::enqueue(\"scripts/long.rhai\", ()); \"gone\"",
    );
    // Goes on until it is the second that tries.
    repository.write(
        "scripts/long.rhai",
        "if kv::incr(\"c\", \"begun\") == 1 { loop {} }",
    );
    repository.commit("feat: an app");
    let manager = Server::serve("manager,orchestrator", Some(repository.path()), &database);
    let mut first = Server::serve("executor", None, &database);
    eventually("the app", || manager.get("/apps/app/go").text() == "gone");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let pool = runtime
        .block_on(sqlx::PgPool::connect(&database))
        .expect("a connection");
    let begun = || {
        let sql = "SELECT count(*) FROM kv WHERE key = 'begun'";
        let count: i64 = runtime
            .block_on(sqlx::query_scalar(sql).fetch_one(&pool))
            .expect("a number");
        count == 1
    };
    eventually("the run's begin", begun);
    let asked = Instant::now();
    assert_eq!(first.terminate(), Some(0));
    // A lease that nobody gave back would be believed for longer than that.
    assert!(asked.elapsed() < Duration::from_secs(18));
    let second = Server::serve("executor", None, &database);
    eventually("the run at the other node", || {
        let runs = items(&manager.admin("/runs?kind=enqueue"));
        let ended: Vec<_> = runs
            .iter()
            .map(|run| (&run["status"], &run["attempt"]))
            .collect();
        ended == [(&json!("ok"), &json!(1))]
    });
    runtime.block_on(pool.close());
    drop((manager, first, second));
    postgres.stop();
}

#[test]
fn an_event_of_a_run_that_took_all_of_its_apps_room_does_not_wait() {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: narrow\nlimits: {concurrency: 1}\nroutes: [{path: /, script: scripts/set.rhai}]\n\
         triggers: [{name: seen, kind: kv, collection: c, script: scripts/seen.rhai}]\n",
    );
    repository.write("scripts/set.rhai", "kv::incr(\"c\", \"k\")");
    repository.write("scripts/seen.rhai", "1");
    repository.commit("feat: an app with room for one");
    let server = Server::start(repository.path());
    // One that found room by chance says nothing.
    for round in 1..=8 {
        let busy = || server.get("/apps/narrow/").status == 503;
        while busy() {}
        eventually("the event's run", || {
            let runs = items(&server.admin("/runs?app=narrow&kind=kv"));
            runs.len() == round
        });
    }
    for run in items(&server.admin("/runs?app=narrow&kind=kv")) {
        // Told or not, it is looked for every 15 seconds.
        assert!(run["queue_ms"].as_f64() < Some(10_000.0), "{run}");
    }
}
