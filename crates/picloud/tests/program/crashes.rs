//! What is live is one commit, whole, whenever the process ends.

use picloud::private_postgres::PrivatePostgres;
use picloud_test_support::{TestRepository, reachable_folder};
use sqlx::Row;

use crate::support::{Server, eventually};

const APPS: usize = 6;

fn write(repository: &TestRepository, round: usize) -> String {
    for app in 0..APPS {
        // Each round has another number of routes, so that rows come and go, too.
        let routes: String = (0..=(round + app) % 4)
            .map(|route| format!("  - {{path: '/r{route}', script: scripts/a.rhai}}\n"))
            .collect();
        repository.write(
            &format!("apps/app{app}/app.yaml"),
            &format!("name: app{app}\nenv: {{ROUND: '{round}'}}\nroutes:\n{routes}"),
        );
        repository.write(
            &format!("apps/app{app}/scripts/a.rhai"),
            &format!("ctx.env.ROUND + \" {round}\""),
        );
    }
    repository.commit(&format!("feat: round {round}"))
}

/// What the database holds: the commit that is live, and the round of each part of each app.
async fn live(pool: &sqlx::PgPool) -> (Option<String>, Vec<String>) {
    let mut transaction = pool.begin().await.expect("a transaction");
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await
        .expect("set");
    let commit = sqlx::query("SELECT live_commit FROM sources")
        .fetch_optional(&mut *transaction)
        .await
        .expect("the source");
    let rows = sqlx::query(
        "SELECT a.name || ' ' || e.value || ' ' || b.content || ' ' ||
           (SELECT count(*) FROM routes r WHERE r.app_id = a.id)
         FROM apps a JOIN app_env e ON e.app_id = a.id JOIN app_scripts s ON s.app_id = a.id
         JOIN script_blobs b USING (blob_id) ORDER BY a.name",
    )
    .fetch_all(&mut *transaction)
    .await
    .expect("the apps");
    let rows = rows.iter().map(|row| row.get(0)).collect();
    (commit.and_then(|row| row.get(0)), rows)
}

fn expected(round: usize) -> Vec<String> {
    (0..APPS)
        .map(|app| {
            let routes = 1 + (round + app) % 4;
            format!("app{app} {round} ctx.env.ROUND + \" {round}\" {routes}")
        })
        .collect()
}

#[test]
fn killed_at_any_instant_of_an_apply_the_old_state_is_live_or_the_new() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let pool = runtime.block_on(async {
        sqlx::postgres::PgPoolOptions::new()
            .max_connections(2)
            .connect(&postgres.database_url())
            .await
            .expect("a connection")
    });
    let repository = TestRepository::new();
    let mut rounds = vec![write(&repository, 0)];
    let database = postgres.database_url();
    let mut server = Server::start_on_database(repository.path(), &database);
    let (mut old, mut new) = (0, 0);
    for round in 1..=50 {
        rounds.push(write(&repository, round));
        // From before the commit is noticed until after it is live, in steps.
        let micros = u64::try_from(round).unwrap_or(0) % 25 * 1_500;
        std::thread::sleep(std::time::Duration::from_micros(micros));
        server.kill();
        let (commit, rows) = runtime.block_on(live(&pool));
        let commit = commit.expect("something is live");
        let at = rounds.iter().position(|known| *known == commit);
        let at = at.expect("a commit of the repository");
        assert_eq!(
            rows,
            expected(at),
            "killed after {micros} µs of round {round}"
        );
        if at == round {
            new += 1;
        } else {
            old += 1;
        }
        server = server.restart_on_database(repository.path(), &database);
        let answer = server.get("/apps/app3/r0").text();
        assert_eq!(answer, format!("{round} {round}"));
    }
    assert!(
        old > 0 && new > 0,
        "old {old} times, new {new} times: the instants are badly chosen"
    );
    drop(server);
    runtime.block_on(pool.close());
    postgres.stop();
}

#[test]
fn two_servers_on_one_database_never_interleave() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let database = postgres.database_url();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let pool = runtime.block_on(async {
        sqlx::PgPool::connect(&database)
            .await
            .expect("a connection")
    });
    let repository = TestRepository::new();
    write(&repository, 0);
    let first = Server::start_on_database(repository.path(), &database);
    let second = Server::start_on_database(repository.path(), &database);
    let mut last = String::new();
    for round in 1..=10 {
        last = write(&repository, round);
    }
    for server in [&first, &second] {
        eventually("the last round on both", || {
            server.get("/apps/app0/r0").text() == "10 10"
        });
    }
    let (commit, rows) = runtime.block_on(live(&pool));
    assert_eq!((commit, rows), (Some(last), expected(10)));
    drop((first, second));
    runtime.block_on(pool.close());
    postgres.stop();
}
