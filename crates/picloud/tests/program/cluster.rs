//! One platform in several processes on one database.

use picloud::private_postgres::PrivatePostgres;
use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::json;

use crate::support::{Server, eventually};

#[test]
fn a_commit_at_the_manager_is_served_by_the_orchestrator_and_its_events_run_at_the_executor() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let database = postgres.database_url();
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: app\nroutes:\n  - {path: /set, script: scripts/set.rhai}\n  - {path: /seen, script: scripts/seen.rhai}\n\
         triggers:\n  - {name: t, kind: kv, collection: c, script: scripts/t.rhai}\n",
    );
    repository.write("scripts/set.rhai", "kv::set(\"c\", \"k\", 7)");
    repository.write(
        "scripts/t.rhai",
        "kv::set(\"d\", \"seen\", ctx.event.kv.value)",
    );
    repository.write("scripts/seen.rhai", "#{ seen: kv::get(\"d\", \"seen\") }");
    repository.commit("feat: an app");
    let manager = Server::serve("manager", Some(repository.path()), &database);
    let orchestrator = Server::serve("orchestrator", None, &database);
    let seen = |server: &Server| server.get("/apps/app/seen");
    eventually("the app at the orchestrator", || {
        seen(&orchestrator).status == 200
    });
    for (server, path) in [
        (&manager, "/apps/app/seen"),
        (&orchestrator, "/api/v1/admin/apps"),
    ] {
        let answer = server.get(path);
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &json!("not_served_here")),
            "{path}"
        );
    }
    assert_eq!(manager.admin("/apps/app")["sync"], "synced");
    // Without anybody who runs events they wait; then they run.
    assert_eq!(orchestrator.get("/apps/app/set").text(), "1");
    assert_eq!(seen(&orchestrator).json(), json!({ "seen": null }));
    let executor = Server::serve("executor", None, &database);
    eventually("the event's run", || {
        seen(&orchestrator).json() == json!({ "seen": 7 })
    });
    repository.write("scripts/seen.rhai", "\"again\"");
    repository.commit("feat: another answer");
    eventually("the next commit at the orchestrator", || {
        seen(&orchestrator).text() == "again"
    });
    drop((manager, orchestrator, executor));
    postgres.stop();
}
