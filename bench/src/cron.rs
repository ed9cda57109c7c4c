//! Cron triggers that are due in one second: how late each one starts; and what triggers cost that
//! are not due.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use chrono::{DateTime, TimeDelta, Timelike, Utc};
use picloud_test_support::TestRepository;
use tokio_postgres::Client;

use crate::{idle, process::Server, quantile, queue::connect, say};

/// Triggers of an app.
const OF_AN_APP: usize = 100;
/// How long they may take in all.
const LIMIT: Duration = Duration::from_mins(1);

pub(crate) fn run() -> Result<()> {
    say(
        "cron: triggers that are due in one second, from that second to the first line of each run",
    );
    say("  triggers     p50 ms     p99 ms     max ms");
    for triggers in [1, 1000, 10_000] {
        let mut lags = fire(triggers)?;
        say(&format!(
            "{triggers:>10}{:>11.0}{:>11.0}{:>11.0}",
            quantile(&mut lags, 0.5),
            quantile(&mut lags, 0.99),
            quantile(&mut lags, 1.0)
        ));
    }
    say("");
    idle::triggers()
}

/// Milliseconds that each was late.
fn fire(triggers: usize) -> Result<Vec<f64>> {
    // Time enough to be deployed.
    let due = clock() + TimeDelta::seconds(20);
    let due = due.with_nanosecond(0).unwrap_or(due);
    let schedule = due.format("%-S %-M %-H %-d %-m *").to_string();
    let repository = repository(triggers, &schedule);
    let server = Server::picloud(repository.path())?;
    if clock() > due - TimeDelta::seconds(2) {
        bail!("deploying {triggers} triggers took too long");
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let lags = runtime.block_on(async {
        let client = connect(&server.database_url()?).await?;
        ended(&client, triggers, due).await
    })?;
    server.stop()?;
    Ok(lags)
}

async fn ended(client: &Client, triggers: usize, due: DateTime<Utc>) -> Result<Vec<f64>> {
    let began = Instant::now();
    let wait = (due - clock()).to_std().unwrap_or_default();
    tokio::time::sleep(wait).await;
    let sql = "SELECT app || '/' || trigger, (logs -> 0 ->> 'at')::timestamptz FROM runs WHERE kind = 'cron'";
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let rows = client.query(sql, &[]).await?;
        let mut names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        names.sort_unstable();
        names.dedup();
        if rows.len() != names.len() {
            bail!("{} firings of {} triggers", rows.len(), names.len());
        }
        if names.len() == triggers {
            let late = rows.iter().map(|row| {
                let at: DateTime<Utc> = row.get::<_, std::time::SystemTime>(1).into();
                (at - due).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0
            });
            return Ok(late.collect());
        }
        if began.elapsed() > LIMIT {
            bail!("{} of {triggers} triggers fired", names.len());
        }
    }
}

/// Apps with a hundred triggers each, all of that schedule.
pub(crate) fn repository(triggers: usize, schedule: &str) -> TestRepository {
    let repository = TestRepository::new();
    for app in 0..triggers.div_ceil(OF_AN_APP) {
        let mut manifest = format!("name: cron{app}\ntriggers:\n");
        for trigger in 0..OF_AN_APP.min(triggers - app * OF_AN_APP) {
            // A text cannot refuse what is written to it.
            let _ = writeln!(
                manifest,
                "  - {{name: t{trigger}, kind: cron, script: scripts/tick.rhai, schedule: '{schedule}'}}"
            );
        }
        repository.write(&format!("apps/cron{app}/app.yaml"), &manifest);
        repository.write(
            &format!("apps/cron{app}/scripts/tick.rhai"),
            "log::info(\"ticks\")",
        );
    }
    repository.commit("feat: triggers");
    repository
}

#[expect(
    clippy::disallowed_methods,
    reason = "schedules are of the wall clock, which the server goes by"
)]
pub(crate) fn clock() -> DateTime<Utc> {
    Utc::now()
}
