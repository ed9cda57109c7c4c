//! `picloud test`

use std::{sync::mpsc, time::Duration};

use anyhow::{Context, Result, anyhow};
use notify::{EventKind, RecursiveMode, Watcher};
use picloud_gitops_core::render;
use picloud_shared::Diagnostic;
use picloud_test_runner::{Report, RunOptions, TestReport, discover, run as run_tests};

use super::{Ending, print, print_json, validate};
use crate::{
    cli::{TestArgs, TestFormat},
    folder_tree::FolderTree,
    terminal::{Style, milliseconds, printable},
};

/// An editor writes a file in several steps; they are waited for.
const SETTLE: Duration = Duration::from_millis(50);

/// Runs the tests of a tree, offline.
pub fn run(args: &TestArgs) -> Result<Ending> {
    if !args.watch {
        return once(args);
    }
    let (changed, changes) = mpsc::channel();
    let mut watcher =
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // What it reads itself is no change.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            // Whoever waited is gone with the program.
            _ => drop(changed.send(())),
        })
        .context("cannot watch files")?;
    watcher
        .watch(&args.dir, RecursiveMode::Recursive)
        .with_context(|| format!("cannot watch {}", args.dir.display()))?;
    loop {
        // A tree that can't be read now can be after the next change.
        if let Err(error) = once(args) {
            print(&format!("{error:#}\n"))?;
        }
        print("\nwaiting for changes\n")?;
        changes
            .recv()
            .map_err(|_| anyhow!("files are no longer watched"))?;
        while changes.recv_timeout(SETTLE).is_ok() {}
    }
}

fn once(args: &TestArgs) -> Result<Ending> {
    let tree = FolderTree::open(&args.dir)?;
    let loaded = validate::read(&tree)?;
    let apps = discover(&tree, &tree.root_id(), &loaded).context("cannot read the tests")?;
    let options = RunOptions {
        filter: args.filter.clone(),
        threads: args.threads.unwrap_or(0),
    };
    let report = run_tests(&apps, &options);
    let invalid = loaded.has_errors();
    match args.format {
        TestFormat::Human => print(&human(&report, &loaded.diagnostics))?,
        TestFormat::Json => {
            let mut value = serde_json::to_value(&report).context("cannot write JSON")?;
            value["errors"] = serde_json::json!(loaded.diagnostics);
            print_json(&value)?;
        }
        TestFormat::Junit => {
            crate::complain(&render::human(&loaded.diagnostics, Style::stderr().is_on()));
            print(&report.junit())?;
        }
    }
    Ok(if invalid || report.failed > 0 {
        Ending::Failed
    } else {
        Ending::Done
    })
}

fn human(report: &Report, findings: &[Diagnostic]) -> String {
    let style = Style::stdout();
    let mut out = render::human(findings, style.is_on());
    if !out.is_empty() {
        out.push('\n');
    }
    for file in report.tests.chunk_by(|a, b| a.file == b.file) {
        out.push_str(&style.bold(&printable(&file[0].file)));
        out.push('\n');
        for test in file {
            out.push_str(&line(test, style));
        }
        out.push('\n');
    }
    let summary = report.summary();
    out.push_str(&if report.failed > 0 {
        style.red(&summary)
    } else {
        style.green(&summary)
    });
    out.push('\n');
    out
}

fn line(test: &TestReport, style: Style) -> String {
    let took = style.dim(&milliseconds(test.duration.as_secs_f64() * 1000.0));
    let name = printable(&test.name);
    let Some(failure) = &test.failure else {
        return format!("  {}    {name}  {took}\n", style.green("ok"));
    };
    let mut out = format!("  {}  {}  {took}\n", style.red("FAIL"), style.bold(&name));
    for line in failure.text().lines() {
        out.push_str(&format!("        {}\n", printable(line)));
    }
    out
}
