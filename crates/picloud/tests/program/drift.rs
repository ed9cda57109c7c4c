//! What somebody changes by hand is seen, field by field, and undone.

use std::collections::BTreeMap;

use picloud_services::{SecretKeys, secrets::seal};
use picloud_test_support::TestRepository;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::support::{Server, eventually};

/// A connection of somebody who changes things by hand.
pub(crate) struct Hand {
    runtime: tokio::runtime::Runtime,
    connection: PgConnection,
}

impl Hand {
    pub(crate) fn on(server: &Server) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connection = runtime
            .block_on(PgConnection::connect(&server.database_url()))
            .expect("a connection");
        Self {
            runtime,
            connection,
        }
    }

    /// Runs statements; gives how many rows the last one changed.
    pub(crate) fn run(&mut self, sql: &str) -> Result<u64, sqlx::Error> {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.connection);
        self.runtime.block_on(done).map(|done| done.rows_affected())
    }

    pub(crate) fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let found =
            sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.connection);
        let found = self
            .runtime
            .block_on(found)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let text = |row: &sqlx::postgres::PgRow| {
            (0..row.len())
                .map(|column| row.get::<Option<String>, _>(column).unwrap_or_default())
                .collect()
        };
        found.iter().map(text).collect()
    }
}

/// One of everything that an app can have.
const MANIFEST: &str = "name: app
description: one of everything
domains: [app.example.com]
env: {WORD: one}
permissions: {http: {allow: [api.example.com]}}
limits: {timeout: 2s, memory: 32MiB, operations: 1000000, concurrency: 4, request_body: 1KiB, response_body: 2KiB}
static: public
routes:
  - {path: /, script: scripts/a.rhai, rate_limit: 9/1m, cors: {origins: ['https://x.example'], max_age: 5s}, limits: {timeout: 1s}}
  - {path: /b, methods: [POST], script: scripts/b.rhai, auth: key}
triggers:
  - {name: tick, kind: cron, schedule: '0 0 1 1 *', timezone: UTC, script: scripts/a.rhai, max_concurrency: 2, limits: {timeout: 1s}}
  - {name: on-kv, kind: kv, collection: c, events: [set, delete], script: scripts/a.rhai}
  - {name: on-docs, kind: docs, collection: c, events: [create, update], script: scripts/a.rhai}
  - {name: on-dead, kind: dead_letter, source_kind: kv, script: scripts/b.rhai}
checks:
  - {path: /, status: 200}
  - {path: /b, status: 405}
";

fn everything(keys: &SecretKeys) -> TestRepository {
    let repository = TestRepository::new();
    let sealed = seal(&keys.recipient(), "hunter2").expect("sealed");
    let sealed: String = sealed.lines().map(|line| format!("    {line}\n")).collect();
    repository.write(
        "apps/app/app.yaml",
        &format!("{MANIFEST}secrets:\n  TOKEN: |\n{sealed}"),
    );
    repository.write("apps/app/scripts/a.rhai", "import \"m\" as m; m::word()");
    repository.write("apps/app/scripts/b.rhai", "\"b\"");
    repository.write("apps/app/modules/m.rhai", "fn word() { \"one\" }");
    repository.write("apps/app/public/x.txt", "x");
    repository.write("apps/app/public/y.txt", "y");
    repository.write("apps/other/app.yaml", "name: other\n");
    repository.commit("feat: one of everything");
    repository
}

/// Columns that are no configuration, or that hold one value only.
const EXEMPT: [(&str, &str); 11] = [
    // What finds the rows; everything refers to it.
    ("apps", "id"),
    ("triggers", "id"),
    // Kept by PiCloud itself: when a thing was made, changed, and fires.
    ("apps", "touched"),
    ("apps", "created_at"),
    ("cron_trigger_details", "next_fire_at"),
    ("cron_trigger_details", "last_scheduled_at"),
    // CHECK (kind = '…').
    ("cron_trigger_details", "kind"),
    ("kv_trigger_details", "kind"),
    ("docs_trigger_details", "kind"),
    ("dead_letter_trigger_details", "kind"),
    // Only the order of checks says something; see below.
    ("app_checks", "position"),
];

/// What a column is set to where its type doesn't say it.
const VALUES: [(&str, &str, &str); 23] = [
    ("apps", "name", "'renamed'"),
    (
        "apps",
        "source_id",
        "(SELECT id FROM sources WHERE name = 'second')",
    ),
    ("apps", "pinned_commit", "repeat('a', 40)"),
    ("apps", "pruned_at", "now()"),
    (
        "app_scripts",
        "kind",
        "CASE kind WHEN 'module' THEN 'handler' ELSE 'module' END",
    ),
    ("app_scripts", "blob_id", "repeat('b', 40)"),
    ("app_static_files", "blob_id", "repeat('b', 40)"),
    ("script_blobs", "blob_id", "repeat('c', 40)"),
    ("static_blobs", "blob_id", "repeat('c', 40)"),
    ("routes", "mode", "'async'"),
    ("routes", "auth", "'{\"no\": \"such\"}'"),
    ("routes", "cors", "'{\"origins\": [\"*\"], \"more\": 1}'"),
    (
        "routes",
        "rate_limit",
        "'{\"requests\": 1, \"window_ms\": 1000}'",
    ),
    ("routes", "limits", "'{\"timeout_ms\": 7}'"),
    (
        "triggers",
        "kind",
        "CASE kind WHEN 'kv' THEN 'docs' ELSE 'kv' END",
    ),
    ("triggers", "limits", "'{\"memory\": 7}'"),
    ("cron_trigger_details", "schedule", "'0 0 2 2 *'"),
    ("cron_trigger_details", "overlap", "'queue'"),
    ("cron_trigger_details", "catch_up", "'none'"),
    ("kv_trigger_details", "events", "ARRAY['set']"),
    ("docs_trigger_details", "events", "ARRAY['delete']"),
    ("apps", "concurrency", "1000"),
    ("app_static_files", "size", "-size"),
];

/// Tables with a column `app_id` that hold data, work, history or access, not configuration.
const OTHERS: [&str; 12] = [
    "kv",
    "docs",
    "outbox",
    "dead_letters",
    "runs",
    "runs_default",
    "run_counts",
    "api_keys",
    "idempotency_keys",
    "trigger_failures",
    "desired_apps",
    "device_logins",
];

/// Each column of the live configuration, from the catalogue.
fn columns(hand: &mut Hand) -> Vec<(String, String, String)> {
    let untold = hand.rows(
        "SELECT DISTINCT c.table_name::text FROM information_schema.columns c
         WHERE c.table_schema = 'public' AND c.column_name = 'app_id' AND NOT EXISTS
           (SELECT FROM pg_trigger t WHERE t.tgname = 'note_edit' AND t.tgrelid = c.table_name::regclass)",
    );
    for table in untold.into_iter().flatten() {
        let known = OTHERS.contains(&table.as_str()) || table.starts_with("runs_");
        assert!(
            known,
            "{table}: live configuration without the trigger note_edit, or data that this test should know"
        );
    }
    let columns = hand.rows(
        "SELECT c.table_name::text, c.column_name::text, c.data_type::text FROM information_schema.columns c
         JOIN pg_trigger t ON t.tgname = 'note_edit' AND t.tgrelid = c.table_name::regclass
         WHERE c.table_schema = 'public' ORDER BY c.table_name, c.ordinal_position",
    );
    columns
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[2].clone()))
        .filter(|(table, column, _)| !EXEMPT.contains(&(table, column)))
        .collect()
}

fn value(table: &str, column: &str, data_type: &str) -> String {
    let known = VALUES
        .iter()
        .find(|(of, name, _)| (*of, *name) == (table, column));
    if let Some((_, _, value)) = known {
        return (*value).to_owned();
    }
    if column == "app_id" {
        return "(SELECT id FROM apps WHERE name = 'other')".to_owned();
    }
    match data_type {
        "text" => format!("coalesce({column}, '') || 'x'"),
        "bigint" | "integer" => format!("coalesce({column}, 0) + 1"),
        "boolean" => format!("NOT {column}"),
        "ARRAY" => format!("{column} || 'X'::text"),
        "bytea" => format!("{column} || '\\x00'::bytea"),
        "uuid" => "gen_random_uuid()".to_owned(),
        other => panic!("{table}.{column}: say what a changed {other} is"),
    }
}

/// The live configuration as text, without what PiCloud itself keeps in it.
fn dump(hand: &mut Hand) -> BTreeMap<String, Vec<String>> {
    let tables = hand.rows(
        "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'note_edit' ORDER BY 1",
    );
    let mut all = BTreeMap::new();
    for table in tables.into_iter().flatten() {
        let rows = hand.rows(&format!(
            "SELECT (to_jsonb(t) - 'touched' - 'created_at' - 'next_fire_at' - 'last_scheduled_at' - 'id' - 'trigger_id')::text
             FROM {table} t ORDER BY 1"
        ));
        all.insert(table, rows.into_iter().flatten().collect());
    }
    // Contents are never removed, so that one that came back under its id may be there twice.
    all.retain(|table, _| !table.ends_with("_blobs"));
    all
}

fn check_items(drift: &Value, context: &str) {
    const KINDS: [&str; 10] = [
        "app",
        "script",
        "route",
        "trigger",
        "env",
        "secret",
        "permission",
        "limit",
        "domain",
        "static",
    ];
    let items = drift["items"].as_array().expect("items");
    assert!(!items.is_empty(), "{context}: not seen");
    for item in items {
        assert!(
            KINDS.contains(&item["kind"].as_str().expect("a kind")),
            "{context}: {item}"
        );
        let fields = item["fields"].as_array().expect("fields");
        assert!(
            !fields.is_empty(),
            "{context}: an item without a field: {item}"
        );
        for field in fields {
            assert_ne!(field["desired"], field["live"], "{context}: {item}");
            let side = match item["change"].as_str().expect("a change") {
                "added" => &field["desired"],
                "removed" => &field["live"],
                _ => &Value::Null,
            };
            assert_eq!(*side, Value::Null, "{context}: {item}");
        }
    }
    let text = drift.to_string();
    assert!(
        !text.contains("AGE ENCRYPTED") && !text.contains("hunter2"),
        "{context}: {text}"
    );
}

#[test]
fn each_column_of_the_live_configuration_that_is_changed_without_a_trace_is_seen_and_healed() {
    let text = SecretKeys::generate();
    let keys = SecretKeys::parse(&text).expect("keys");
    let repository = everything(&keys);
    let second = TestRepository::new();
    second.write("apps/elsewhere/app.yaml", "name: elsewhere\n");
    second.commit("feat: another source");
    let server = Server::start_with_secrets(repository.path(), &text);
    let body = json!({ "kind": "local", "url": second.path() });
    server.admin_request("PUT", "/sources/second", Some(&body));
    eventually("the other source's app", || {
        server.admin_request("GET", "/apps/elsewhere", None).status == 200
    });
    let mut hand = Hand::on(&server);
    let sound = dump(&mut hand);
    let clean = |server: &Server| server.admin("/apps/app/drift")["items"] == json!([]);
    assert!(clean(&server), "{}", server.admin("/deployments"));
    // No trigger of a row fires for this session, and no reference is checked.
    hand.run("SET session_replication_role = replica")
        .expect("a superuser");
    let columns = columns(&mut hand);
    assert!(columns.len() > 60, "{columns:?}");
    for (table, column, data_type) in columns {
        let context = format!("{table}.{column}");
        let new = value(&table, &column, &data_type);
        let which = match table.as_str() {
            "apps" => "name = 'app'".to_owned(),
            "script_blobs" | "static_blobs" => format!(
                "blob_id = (SELECT min(blob_id) FROM {})",
                if table == "script_blobs" {
                    "app_scripts"
                } else {
                    "app_static_files"
                }
            ),
            _ => format!(
                "ctid = (SELECT min(ctid) FROM {table} WHERE app_id = (SELECT id FROM apps WHERE name = 'app'))"
            ),
        };
        let changed = hand.run(&format!(
            "UPDATE {table} SET {column} = {new} WHERE {which}"
        ));
        assert_eq!(
            changed.unwrap_or_else(|error| panic!("{context}: {error}")),
            1,
            "{context}"
        );
        check_items(&server.admin("/apps/app/drift"), &context);
        let healed = server.admin_post("/sources/local/heal", &json!({}));
        assert_eq!(
            healed["deployment"]["reason"], "heal",
            "{context}: {healed}"
        );
        assert!(
            clean(&server),
            "{context}: {}",
            server.admin("/apps/app/drift")
        );
        assert_eq!(dump(&mut hand), sound, "{context}");
    }
    // The order of checks is what their positions say.
    hand.run("UPDATE app_checks SET position = 1 - position WHERE position < 2")
        .expect_err("unique, row by row");
    hand.run("UPDATE app_checks SET position = 9 WHERE position = 0")
        .expect("moved");
    check_items(&server.admin("/apps/app/drift"), "the order of checks");
    server.admin_post("/apps/app/heal", &json!({}));
    assert_eq!(dump(&mut hand), sound);
    assert_eq!(server.get("/apps/app/").text(), "one");
    let audit = server.admin("/deployments?limit=1");
    assert_eq!(
        audit["items"][0]["commit"],
        repository.git(&["rev-parse", "HEAD"]).as_str()
    );
}

fn plain() -> TestRepository {
    let repository = TestRepository::new();
    repository.write(
        "apps/app/app.yaml",
        "name: app\nenv: {WORD: one}\nroutes:\n  - {path: /, script: scripts/a.rhai}\ntriggers:\n  - {name: tick, kind: cron, schedule: '@yearly', script: scripts/a.rhai}\n",
    );
    repository.write("apps/app/scripts/a.rhai", "ctx.env.WORD");
    repository.write("apps/stays/app.yaml", "name: stays\n");
    repository.commit("feat: two apps");
    repository
}

fn sync_of(server: &Server) -> Value {
    server.admin("/apps/app")["sync"].clone()
}

#[test]
fn drift_is_told_within_seconds_served_and_gone_with_the_next_commit() {
    let repository = plain();
    let server = Server::start(repository.path());
    let mut hand = Hand::on(&server);
    assert_eq!(sync_of(&server), "synced");
    hand.run("UPDATE app_env SET value = 'two'")
        .expect("changed");
    eventually("the drift", || sync_of(&server) == "drifted");
    let expected = json!([{ "kind": "env", "name": "WORD", "change": "changed",
        "fields": [{ "path": "value", "desired": "one", "live": "two" }] }]);
    assert_eq!(server.admin("/apps/app/drift")["items"], expected);
    assert_eq!(server.admin("/drift")["items"][0]["app"], "app");
    eventually("what is live", || server.get("/apps/app/").text() == "two");
    // Undone by hand it is no drift any more.
    hand.run("UPDATE app_env SET value = 'one'")
        .expect("changed back");
    eventually("the end of the drift", || sync_of(&server) == "synced");

    // Without a trace: nobody asks for the drift, it is seen all the same, and served.
    hand.run("SET session_replication_role = replica; UPDATE app_env SET value = 'three'")
        .expect("changed");
    eventually("the untold drift", || sync_of(&server) == "drifted");
    eventually("what is live", || {
        server.get("/apps/app/").text() == "three"
    });

    // A live change through the API is drift like any other.
    server.admin_request(
        "PATCH",
        "/apps/app/triggers/tick",
        Some(&json!({ "enabled": false })),
    );
    let drift = server.admin("/apps/app/drift");
    assert_eq!(drift["items"][0]["kind"], "trigger", "{drift}");
    // A commit applies what git declares, also to what it doesn't touch.
    repository.write("README.md", "a change elsewhere");
    repository.commit("docs: say something");
    eventually("git's state", || server.get("/apps/app/").text() == "one");
    eventually("the end of the drift", || sync_of(&server) == "synced");
    assert_eq!(server.admin("/apps/app/drift")["items"], json!([]));
}

#[test]
fn apps_that_come_and_go_by_hand_are_seen_and_their_data_survives_another_name() {
    let repository = plain();
    repository.write("apps/app/scripts/a.rhai", "kv::incr(\"c\", \"n\")");
    repository.commit("feat: count");
    let server = Server::start(repository.path());
    let mut hand = Hand::on(&server);
    assert_eq!(server.get("/apps/app/").text(), "1");
    hand.run("UPDATE apps SET name = 'other' WHERE name = 'app'")
        .expect("renamed");
    let drift = server.admin("/apps/other/drift");
    assert_eq!(drift["app"], "app");
    let expected = json!([{ "kind": "app", "name": "app", "change": "changed",
        "fields": [{ "path": "name", "desired": "app", "live": "other" }] }]);
    assert_eq!(drift["items"], expected);
    server.admin_post("/apps/app/heal", &json!({}));
    eventually("the app with its data", || {
        server.get("/apps/app/").text() == "2"
    });

    hand.run(
        "INSERT INTO apps (id, source_id, name, dir, touched, created_at)
              SELECT gen_random_uuid(), id, 'intruder', 'x', 0, now() FROM sources",
    )
    .expect("inserted");
    let drift = server.admin("/apps/intruder/drift");
    assert_eq!(
        (&drift["items"][0]["kind"], &drift["items"][0]["change"]),
        (&json!("app"), &json!("added"))
    );
    hand.run("DELETE FROM apps WHERE name = 'app'")
        .expect("deleted");
    let drift = server.admin("/apps/app/drift");
    assert!(
        drift["items"]
            .as_array()
            .expect("items")
            .iter()
            .all(|item| item["change"] == "removed"),
        "{drift}"
    );
    check_items(&drift, "a deleted app");
    let healed = server.admin_post("/sources/local/heal", &json!({}));
    assert_eq!(healed["healed"], true, "{healed}");
    eventually("the app again", || server.get("/apps/app/").status == 200);
    assert_eq!(
        server.admin_request("GET", "/apps/intruder", None).status,
        404
    );
    assert_eq!(server.admin("/drift")["items"], json!([]));
    assert_eq!(
        server.admin_post("/sources/local/heal", &json!({}))["healed"],
        false
    );
}

#[test]
fn a_source_that_heals_itself_heals_towards_the_commit_that_is_live() {
    let repository = plain();
    repository.write("picloud.yaml", "sync: {self_heal: true}\n");
    let first = repository.commit("feat: heal");
    let server = Server::start(repository.path());
    repository.write("apps/app/scripts/a.rhai", "ctx.env.WORD + \"!\"");
    repository.commit("feat: louder");
    eventually("the new script", || {
        server.get("/apps/app/").text() == "one!"
    });
    server.admin_post("/sources/local/rollback", &json!({ "commit": first }));
    assert_eq!(server.get("/apps/app/").text(), "one");
    let mut hand = Hand::on(&server);
    hand.run("UPDATE script_blobs SET content = '\"mine\"'; DELETE FROM triggers")
        .expect("changed");
    let healed = |server: &Server| {
        let last = &server.admin("/deployments?limit=1")["items"][0];
        last["reason"] == "heal" && last["commit"] == first.as_str()
    };
    eventually("the healing", || healed(&server));
    eventually("the former script", || {
        server.get("/apps/app/").text() == "one"
    });
    assert_eq!(
        server.admin("/apps/app/triggers")["items"][0]["name"],
        "tick"
    );
    // Its head stays undeployed all the same.
    assert_eq!(server.admin("/sources/local")["commit"], first.as_str());
}
