//! The same endpoint as a bare axum server and through PiCloud, with runs counted and recorded.

use std::process::Command;

use anyhow::{Context, Result, bail};
use picloud_test_support::TestRepository;

use crate::{process::Server, quantile, say};

const ROUNDS: usize = 5;
const CONNECTIONS: &str = "64";

/// `{"hello":"world"}`, as plainly as axum allows.
pub(crate) fn bare_axum() -> Result<()> {
    use axum::{Json, Router, routing::get};
    let port: u16 = std::env::args().nth(2).context("a port")?.parse()?;
    let hello = || async { Json(serde_json::json!({ "hello": "world" })) };
    let router = Router::new()
        .route("/hello", get(hello))
        .route("/readyz", get(|| async { "ready" }));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        axum::serve(listener, router).await
    })?;
    Ok(())
}

#[derive(Default)]
struct Side {
    rate: Vec<f64>,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

pub(crate) fn run() -> Result<()> {
    let repository = TestRepository::new();
    repository.write(
        "apps/hello/app.yaml",
        "name: hello\nroutes: [{path: /hello, script: scripts/hello.rhai}]\n",
    );
    repository.write("apps/hello/scripts/hello.rhai", "#{ hello: \"world\" }");
    repository.commit("feat: hello");
    let axum = Server::bare_axum()?;
    let picloud = Server::picloud(repository.path())?;
    let mut sides = [Side::default(), Side::default()];
    for round in 0..=ROUNDS {
        let both = [(&axum, "/hello"), (&picloud, "/apps/hello/hello")];
        for ((server, path), side) in both.into_iter().zip(&mut sides) {
            let cpu = server.cpu()?;
            let load = wrk(&server.address, path, if round == 0 { "1" } else { "4" })?;
            // The first round warms both up.
            if round > 0 {
                side.rate.push(load.rate);
                side.cpu.push((server.cpu()? - cpu) * 1e6 / load.requests);
                side.p50.push(load.p50);
                side.p99.push(load.p99);
            }
        }
    }
    say("hello, 64 connections, medians of 5 rounds of 4 s, interleaved");
    say("                    requests/s   CPU µs/request   p50 ms   p99 ms");
    let medians = sides.map(|mut side| {
        [&mut side.rate, &mut side.cpu, &mut side.p50, &mut side.p99]
            .map(|values| quantile(values, 0.5))
    });
    for (name, [rate, cpu, p50, p99]) in ["bare axum", "PiCloud"].iter().zip(medians) {
        say(&format!(
            "  {name:<16}{rate:>12.0}{cpu:>17.2}{p50:>9.2}{p99:>9.2}"
        ));
    }
    let [axum_side, picloud_side] = medians;
    let ratio: Vec<String> = axum_side
        .iter()
        .zip(picloud_side)
        .map(|(limit, own)| format!("{:.2}", own / limit))
        .collect();
    say(&format!(
        "  ratio            {:>11}{:>17}{:>9}{:>9}",
        ratio[0], ratio[1], ratio[2], ratio[3]
    ));
    say("");
    picloud.stop()?;
    axum.stop()?;
    Ok(())
}

struct Load {
    rate: f64,
    requests: f64,
    p50: f64,
    p99: f64,
}

fn wrk(address: &str, path: &str, seconds: &str) -> Result<Load> {
    let output = Command::new("wrk")
        .args(["-t1", "-c", CONNECTIONS, "-d", seconds, "--latency"])
        .arg(format!("http://{address}{path}"))
        .output()
        .context("wrk is missing: scripts/install-dependencies.sh --bench installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("the load was not answered:\n{text}");
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
