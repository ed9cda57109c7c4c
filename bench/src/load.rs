//! The load: wrk, and two servers side by side under it, interleaved.

use std::{io::Write, process::Command};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::{process::Server, quantile, say};

const ROUNDS: usize = 5;
const CONNECTIONS: &str = "64";

/// One side of a comparison.
pub(crate) struct Side<'a> {
    pub(crate) name: &'a str,
    pub(crate) server: &'a Server,
    pub(crate) path: &'a str,
}

/// Puts the same load on all sides in turns; the ratios are to the first.
pub(crate) fn compare(title: &str, sides: &[Side<'_>], post: Option<&str>) -> Result<()> {
    let script = post.map(post_script).transpose()?;
    let mut seen: Vec<[Vec<f64>; 4]> = sides.iter().map(|_| Default::default()).collect();
    for round in 0..=ROUNDS {
        for (side, seen) in sides.iter().zip(&mut seen) {
            let cpu = side.server.cpu()?;
            let seconds = if round == 0 { "1" } else { "4" };
            let load = wrk(&side.server.address, side.path, seconds, script.as_ref())?;
            // The first round warms up.
            if round > 0 {
                let cpu = (side.server.cpu()? - cpu) * 1e6 / load.requests;
                for (values, value) in seen.iter_mut().zip([load.rate, cpu, load.p50, load.p99]) {
                    values.push(value);
                }
            }
        }
    }
    say(&format!(
        "{title}: 64 connections, medians of {ROUNDS} rounds of 4 s, interleaved"
    ));
    say("                              requests/s  ratio   CPU µs  ratio   p50 ms   p99 ms  ratio");
    let mut limit = None;
    for (side, mut seen) in sides.iter().zip(seen) {
        let [rate, cpu, p50, p99] = seen.each_mut().map(|values| quantile(values, 0.5));
        let [rate0, cpu0, p99_0] = *limit.get_or_insert([rate, cpu, p99]);
        say(&format!(
            "  {:<26}{rate:>12.0}{:>7.2}{cpu:>9.2}{:>7.2}{p50:>9.2}{p99:>9.2}{:>7.2}",
            side.name,
            rate / rate0,
            cpu / cpu0,
            p99 / p99_0,
        ));
    }
    say("");
    Ok(())
}

/// What tells wrk to send a body.
fn post_script(body: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    write!(
        file,
        "wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = [==[{body}]==]\n"
    )?;
    Ok(file)
}

struct Load {
    rate: f64,
    requests: f64,
    p50: f64,
    p99: f64,
}

fn wrk(address: &str, path: &str, seconds: &str, script: Option<&NamedTempFile>) -> Result<Load> {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", CONNECTIONS, "-d", seconds, "--latency"]);
    if let Some(script) = script {
        command.arg("-s").arg(script.path());
    }
    let output = command
        .arg(format!("http://{address}{path}"))
        .output()
        .context("wrk is missing: scripts/install-dependencies.sh --bench installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("the load on {path} was not answered:\n{text}");
    }
    let word = |begins: &str, at: usize| {
        let line = text.lines().find(|line| line.trim().starts_with(begins));
        line.and_then(|line| line.split_whitespace().nth(at))
            .with_context(|| format!("wrk did not say {begins}:\n{text}"))
    };
    let requests = text
        .lines()
        .find(|line| line.contains("requests in"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(Load {
        rate: word("Requests/sec:", 1)?.parse()?,
        requests: requests.context("no count")?,
        p50: milliseconds(word("50%", 1)?)?,
        p99: milliseconds(word("99%", 1)?)?,
    })
}

fn milliseconds(text: &str) -> Result<f64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let value: f64 = text.trim_end_matches(unit).parse()?;
    Ok(match unit {
        "us" => value / 1000.0,
        "ms" => value,
        "s" => value * 1000.0,
        _ => bail!("{text} is no time"),
    })
}
