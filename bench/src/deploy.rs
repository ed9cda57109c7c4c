//! From `git commit` to the first answer that shows it.

use std::time::Instant;

use anyhow::Result;
use picloud_test_support::TestRepository;

use crate::{process::Server, quantile, say};

const SCRIPTS: usize = 5;
const COMMITS: usize = 20;

pub(crate) fn run() -> Result<()> {
    say("commit to live, by asking the endpoint over and over (the commit itself not counted)");
    say("   apps   scripts   first deployment s   p50 ms   p95 ms");
    let mut slowest = Vec::new();
    for apps in [10, 1000] {
        let repository = TestRepository::new();
        for app in 0..apps {
            write(&repository, app);
        }
        repository.commit("feat: all apps");
        let server = Server::picloud(repository.path())?;
        let first = server.started.as_secs_f64();
        let mut times = Vec::new();
        for commit in 0..COMMITS {
            let app = commit * 7 % apps;
            let text = format!("commit {commit}");
            repository.write(&script(app, 0), &format!("\"{text}\""));
            repository.commit(&text);
            let began = Instant::now();
            server.wait_for(&format!("/apps/app{app}/r0"), &text)?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        let (p50, p95) = (quantile(&mut times, 0.5), quantile(&mut times, 0.95));
        slowest.push(p95);
        say(&format!(
            "{apps:>7}{:>10}{first:>21.2}{p50:>9.1}{p95:>9.1}",
            apps * SCRIPTS
        ));
        server.stop()?;
    }
    say(&format!(
        "  ratio of the p95s: {:.2}",
        slowest[1] / slowest[0]
    ));
    say("");
    Ok(())
}

pub(crate) fn script(app: usize, script: usize) -> String {
    format!("apps/app{app}/scripts/s{script}.rhai")
}

/// An app of five small scripts.
pub(crate) fn write(repository: &TestRepository, app: usize) {
    let mut manifest = format!("name: app{app}\nroutes:\n");
    for route in 0..SCRIPTS {
        manifest.push_str(&format!(
            "  - {{path: /r{route}, script: scripts/s{route}.rhai}}\n"
        ));
        let text =
            format!("let app = {app};\nlet script = {route};\n#{{ app: app, script: script }}\n");
        repository.write(&script(app, route), &text);
    }
    repository.write(&format!("apps/app{app}/app.yaml"), &manifest);
}
