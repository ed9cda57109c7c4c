//! What it costs to do nothing, and how long it takes to begin.

use std::time::Duration;

use anyhow::Result;
use chrono::Timelike;
use picloud_test_support::TestRepository;

use crate::{cron, deploy, process::Server, quantile, say};

const WATCHED: Duration = Duration::from_mins(1);

pub(crate) fn run() -> Result<()> {
    let repository = TestRepository::new();
    for app in 0..50 {
        deploy::write(&repository, app);
    }
    repository.commit("feat: fifty apps");
    let server = Server::picloud(repository.path())?;
    let share = watch(&server)?;
    let (rss, pss) = (
        server.memory("Rss:")? / 1024.0,
        server.memory("Pss:")? / 1024.0,
    );
    say(&format!(
        "idle with 50 apps: {share:.3} % of a core over a minute, {rss:.1} MiB resident, {pss:.1} MiB proportional (PostgreSQL not counted)"
    ));
    server.stop()?;
    Ok(())
}

/// Triggers that are due once an hour: waiting costs nothing.
pub(crate) fn triggers() -> Result<()> {
    // Not within the minutes that are watched.
    let minute = cron::clock().minute();
    let repository = cron::repository(1000, &format!("0 {} * * * *", (minute + 30) % 60));
    let server = Server::picloud(repository.path())?;
    say(&format!(
        "idle with 1,000 hourly triggers: {:.3} % of a core over a minute",
        watch(&server)?
    ));
    say("");
    server.stop()?;
    Ok(())
}

/// The share of a core that a server takes that has nothing to do, in percent.
fn watch(server: &Server) -> Result<f64> {
    std::thread::sleep(Duration::from_secs(5));
    let before = server.cpu()?;
    std::thread::sleep(WATCHED);
    Ok((server.cpu()? - before) / WATCHED.as_secs_f64() * 100.0)
}

/// From the process's start to the first 200, with the database up and a snapshot kept.
pub(crate) fn start() -> Result<()> {
    let folder = picloud_test_support::reachable_folder();
    let repository = TestRepository::new();
    for app in 0..10 {
        deploy::write(&repository, app);
    }
    repository.commit("feat: ten apps");
    // One server keeps the database up for the other, which is started again and again.
    let keeper = Server::picloud_in(folder, repository.path(), None)?;
    let database = keeper.database_url()?;
    let mut own = picloud_test_support::reachable_folder();
    let mut times = Vec::new();
    for round in 0..=10 {
        let server = Server::picloud_in(own, repository.path(), Some(&database))?;
        // The first has no snapshot yet.
        if round > 0 {
            times.push(server.started.as_secs_f64() * 1000.0);
        }
        own = server.stop()?.ok_or_else(|| anyhow::anyhow!("its data"))?;
    }
    let (p50, max) = (quantile(&mut times, 0.5), quantile(&mut times, 1.0));
    say(&format!(
        "start with the database up: first 200 after {p50:.1} ms (median of 10), {max:.1} ms at most"
    ));
    say("");
    keeper.stop()?;
    Ok(())
}
