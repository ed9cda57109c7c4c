//! What the admin API says of all apps at once.

use picloud_test_support::TestRepository;
use serde_json::{Value, json};

use crate::support::{Server, eventually};

fn three_apps() -> TestRepository {
    let repository = TestRepository::new();
    for name in ["one", "three", "two"] {
        let manifest = format!(
            "name: {name}\nroutes:\n  - {{path: /, script: scripts/a.rhai}}\n  - {{path: /bad, script: scripts/b.rhai}}\n\
             triggers:\n  - {{name: hourly, kind: cron, schedule: \"@hourly\", script: scripts/a.rhai}}\n"
        );
        repository.write(&format!("apps/{name}/app.yaml"), &manifest);
        repository.write(&format!("apps/{name}/scripts/a.rhai"), "1");
        repository.write(&format!("apps/{name}/scripts/b.rhai"), "throw 1");
    }
    repository.commit("feat: three apps");
    repository
}

/// The apps that the items of a list are of.
fn apps(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    let apps = items.iter().filter_map(|item| item["app"].as_str());
    apps.collect()
}

#[test]
fn lists_over_all_apps_are_answered_at_once_in_pages_and_for_whom_they_are() {
    let repository = three_apps();
    let server = Server::start(repository.path());
    let routes = server.admin("/routes");
    assert_eq!(
        apps(&routes),
        ["one", "one", "three", "three", "two", "two"],
        "{routes}"
    );
    assert_eq!(apps(&server.admin("/scripts?q=TWO%20b.rhai")), ["two"]);
    let triggers = server.admin("/triggers?limit=2");
    assert_eq!(apps(&triggers), ["one", "three"], "{triggers}");
    let times = &triggers["items"][1]["next_fire_times"];
    assert_eq!(times.as_array().map(Vec::len), Some(5), "{triggers}");
    let own = server.admin("/apps/three/triggers")["items"][0].clone();
    assert_eq!(triggers["items"][1]["id"], own["id"], "{own}");
    let cursor = triggers["next_cursor"].as_str().expect("a cursor");
    let rest = server.admin(&format!("/triggers?limit=2&cursor={cursor}"));
    assert_eq!(
        (apps(&rest), &rest["next_cursor"]),
        (vec!["two"], &Value::Null)
    );

    for _ in 0..3 {
        assert_eq!(server.get("/apps/two/bad").status, 500);
    }
    assert_eq!(server.get("/apps/one/").status, 200);
    eventually("all runs are counted", || {
        let stats = server.admin("/stats/apps?window=15m");
        let count = |app: usize| stats["items"][app]["count"].as_u64();
        (count(0), count(1), count(2)) == (Some(1), Some(0), Some(3))
    });
    let stats = server.admin("/stats/apps?window=15m");
    let two = &stats["items"][2];
    assert_eq!(
        (&two["app"], &two["error_rate"]),
        (&json!("two"), &json!(1.0))
    );
    let buckets = two["buckets"].as_array().expect("buckets");
    let errors: u64 = buckets.iter().filter_map(|pair| pair[1].as_u64()).sum();
    assert_eq!((buckets.len(), errors), (15, 3), "{two}");

    let overview = server.admin("/overview");
    assert_eq!(
        (
            &overview["apps"],
            &overview["health"]["degraded"],
            &overview["dead_letters"]
        ),
        (&json!(3), &json!(1), &json!(0)),
        "{overview}"
    );
    let named = json!([{ "app": "two", "sync": "synced", "health": "degraded" }]);
    assert_eq!(overview["attention"], named);
    let degraded = server.admin("/apps?health=degraded");
    assert_eq!(degraded["items"][0]["name"], "two", "{degraded}");
    assert_eq!(degraded["items"].as_array().map(Vec::len), Some(1));
    let wrong = server.admin_request("GET", "/apps?sync=nonsense", None);
    assert_eq!(
        (wrong.status, &wrong.json()["field"]),
        (422, &json!("sync"))
    );

    let key = server.admin_post(
        "/keys",
        &json!({ "name": "of one", "scopes": ["app:read"], "app": "three" }),
    );
    let bearer = format!(
        "Authorization: Bearer {}",
        key["key"].as_str().expect("a key")
    );
    let ask = |path: &str| {
        let path = format!("/api/v1/admin{path}");
        server.request("GET", &path, &[&bearer], "")
    };
    assert_eq!(apps(&ask("/routes").json()), ["three", "three"]);
    assert_eq!(ask("/routes?app=one").status, 403);
    let overview = ask("/overview").json();
    assert_eq!(
        (&overview["apps"], &overview["dead_letters"]),
        (&json!(1), &Value::Null),
        "{overview}"
    );
}
