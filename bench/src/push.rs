//! From `git push` over HTTP to the first answer that shows it, beside the same push to a bare
//! repository over the same transport.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, bail};
use picloud_test_support::TestRepository;

use crate::{deploy, process::Server, quantile, say};

const PUSHES: usize = 20;

pub(crate) fn run() -> Result<()> {
    say("git push over HTTP with a key, until the endpoint shows it (the commit not counted)");
    say("   apps   push returns p50 ms   p95 ms   live p50 ms   p95 ms");
    for apps in [10, 1000] {
        let repository = TestRepository::new();
        for app in 0..apps {
            deploy::write(&repository, app);
        }
        repository.commit("feat: all apps");
        let server = Server::hosted()?;
        let remote = server.remote("default")?;
        push(&repository, &remote)?;
        let (mut returned, mut live) = (Vec::new(), Vec::new());
        for round in 0..PUSHES {
            let app = round * 7 % apps;
            let text = format!("push {round}");
            repository.write(&deploy::script(app, 0), &format!("\"{text}\""));
            repository.commit(&text);
            let began = Instant::now();
            let path = format!("/apps/app{app}/r0");
            let watching = std::thread::scope(|scope| {
                let seen = scope.spawn(|| {
                    server.wait_for(&path, &text)?;
                    Ok::<_, anyhow::Error>(began.elapsed())
                });
                push(&repository, &remote)?;
                returned.push(began.elapsed().as_secs_f64() * 1000.0);
                match seen.join() {
                    Ok(seen) => seen,
                    Err(_) => bail!("the watch of the endpoint broke off"),
                }
            })?;
            live.push(watching.as_secs_f64() * 1000.0);
        }
        let quantiles = |values: &mut Vec<f64>| (quantile(values, 0.5), quantile(values, 0.95));
        let (returned, live) = (quantiles(&mut returned), quantiles(&mut live));
        say(&format!(
            "{apps:>7}{:>22.0}{:>9.0}{:>14.0}{:>9.0}",
            returned.0, returned.1, live.0, live.1
        ));
        server.stop()?;
    }
    bare()?;
    say("");
    Ok(())
}

/// The limit: git alone, over the same transport, into a repository without hooks.
fn bare() -> Result<()> {
    let target = picloud_test_support::reachable_folder();
    let made = Command::new("git")
        .args(["init", "-q", "--bare"])
        .arg(target.path())
        .status()
        .context("git")?;
    if !made.success() {
        bail!("git init failed");
    }
    let server = Server::reference_git(target.path())?;
    let remote = format!("http://{}/bare.git", server.address);
    let repository = TestRepository::new();
    let mut times = Vec::new();
    for round in 0..=PUSHES {
        repository.write("file", &round.to_string());
        repository.commit("feat: another");
        let began = Instant::now();
        push(&repository, &remote)?;
        if round > 0 {
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let (p50, p95) = (quantile(&mut times, 0.5), quantile(&mut times, 0.95));
    say(&format!(
        "   bare{p50:>22.0}{p95:>9.0}   (a repository without hooks, over the same transport)"
    ));
    server.stop()?;
    Ok(())
}

fn push(repository: &TestRepository, remote: &str) -> Result<()> {
    let output = Command::new("git")
        .args(["push", "-q", remote, "HEAD:main"])
        .current_dir(repository.path())
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .context("git")?;
    if !output.status.success() {
        bail!(
            "the push failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
