//! The limit: the same endpoints by hand, on axum, in compiled code. No script, no sandbox, no
//! route table that changes, no record of runs.

use std::process::Stdio;

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use serde_json::{Map, Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

/// Connections to the database, as PiCloud has.
const CONNECTIONS: usize = 16;

/// Serves until it is stopped. Arguments: a port, and a database or `--repository PATH`.
pub(crate) fn serve() -> Result<()> {
    let mut arguments = std::env::args().skip(2);
    let port: u16 = arguments.next().context("a port")?.parse()?;
    let mut router = Router::new()
        .route("/readyz", get(|| async { "ready" }))
        .route(
            "/hello",
            get(|| async { Json(json!({ "hello": "world" })) }),
        )
        .route("/json", post(json_in_and_out))
        .route(
            "/sieve",
            get(|| async { Json(json!({ "primes": sieve(2000) })) }),
        );
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mode = arguments.next();
        if mode.as_deref() == Some("--repository") {
            let path = arguments.next().context("a repository")?;
            let git = Router::new()
                .route("/bare.git/info/refs", get(advertise))
                .route("/bare.git/git-receive-pack", post(receive));
            router = router.merge(git.with_state(path));
        } else if let Some(database) = mode {
            let pool = pool(&database)?;
            prepare(&pool).await?;
            let data = Router::new()
                .route("/read", get(read))
                .route("/write", get(write));
            router = router.merge(data.with_state(pool));
        }
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let listener = listener.tap_io(|stream| {
            // Without it the load would measure the system's delays.
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await?;
        Ok(())
    })
}

async fn advertise(State(path): State<String>) -> Result<Response, StatusCode> {
    let arguments = ["receive-pack", "--stateless-rpc", "--advertise-refs", &path];
    let output = Command::new("git").args(arguments).output();
    let output = output.await.map_err(failed)?;
    let mut body = b"001f# service=git-receive-pack\n0000".to_vec();
    body.extend(output.stdout);
    let kind = "application/x-git-receive-pack-advertisement";
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

async fn receive(State(path): State<String>, body: Bytes) -> Result<Response, StatusCode> {
    let mut child = Command::new("git")
        .args(["receive-pack", "--stateless-rpc", &path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child
        .stdin
        .take()
        .ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    stdin.write_all(&body).await.map_err(failed)?;
    drop(stdin);
    let output = child.wait_with_output().await.map_err(failed)?;
    let kind = "application/x-git-receive-pack-result";
    Ok(([(header::CONTENT_TYPE, kind)], output.stdout).into_response())
}

fn sieve(below: usize) -> usize {
    let mut composite = vec![false; below];
    let mut primes = 0;
    for number in 2..below {
        if !composite[number] {
            primes += 1;
            for multiple in (number * number..below).step_by(number) {
                composite[multiple] = true;
            }
        }
    }
    primes
}

async fn json_in_and_out(body: Bytes) -> Result<Json<Map<String, Value>>, StatusCode> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let name = fields.get("name").and_then(Value::as_str);
    let name = name.ok_or(StatusCode::BAD_REQUEST)?.to_uppercase();
    fields.insert("name".to_owned(), name.into());
    fields.insert("seen".to_owned(), true.into());
    Ok(Json(fields))
}

fn pool(database: &str) -> Result<Pool> {
    let manager = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(database.parse()?, tokio_postgres::NoTls, manager);
    Ok(Pool::builder(manager).max_size(CONNECTIONS).build()?)
}

/// A table of the same shape as PiCloud's own, with one row.
async fn prepare(pool: &Pool) -> Result<()> {
    let client = pool.get().await?;
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS bench_kv (app_id uuid, collection text COLLATE \"C\", key text COLLATE \"C\",
               value json NOT NULL, version bigint NOT NULL, expires_at timestamptz, PRIMARY KEY (app_id, collection, key));
             INSERT INTO bench_kv VALUES ('00000000-0000-0000-0000-000000000000', 'c', 'k', '{\"n\":1}', 1)
             ON CONFLICT DO NOTHING",
        )
        .await?;
    Ok(())
}

fn failed<E>(_: E) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn read(State(pool): State<Pool>) -> Result<Json<Value>, StatusCode> {
    let client = pool.get().await.map_err(failed)?;
    let sql = "SELECT key, value::text, version FROM bench_kv WHERE app_id = '00000000-0000-0000-0000-000000000000'
               AND collection = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > now())";
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let row = client
        .query_one(&statement, &[&"c", &"k"])
        .await
        .map_err(failed)?;
    let value: Value = serde_json::from_str(row.get(1)).map_err(failed)?;
    Ok(Json(value))
}

async fn write(State(pool): State<Pool>) -> Result<Json<Value>, StatusCode> {
    let client = pool.get().await.map_err(failed)?;
    let sql = "INSERT INTO bench_kv AS old (app_id, collection, key, value, version)
               VALUES ('00000000-0000-0000-0000-000000000000', $1, $2, $3::text::json, 1)
               ON CONFLICT (app_id, collection, key) DO UPDATE SET value = EXCLUDED.value, version = old.version + 1
               RETURNING version";
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let key = format!("k{}", fastrand());
    let row = client
        .query_one(&statement, &[&"c", &key, &"{\"n\":1}"])
        .await
        .map_err(failed)?;
    Ok(Json(json!(row.get::<_, i64>(0))))
}

/// One of a hundred, so that writers don't all wait for one row.
fn fastrand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % 100
}
