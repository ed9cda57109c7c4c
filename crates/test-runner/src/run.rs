//! Runs tests, several at a time, each in a world of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use picloud_executor_core::{TestFunction, TestHost, TestRun, TestScript};
use picloud_shared::{
    AppSnapshot, CommitId, Limits, RunId, ScriptPath,
    run::{LogLine, RunError},
};
use uuid::Uuid;

use crate::{
    discover::AppTests,
    report::{Failure, Place, Report, TestReport},
    world::{STACK, World},
};

/// Lines of logs that a failure shows, the last ones.
const MAX_LOGS: usize = 50;

/// How tests are run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Those alone whose `app/tests/file.rhai::test_name` holds this.
    pub filter: Option<String>,
    /// At the same time; 0: as many as there are processors.
    pub threads: usize,
}

/// A test that is to be run.
struct Planned<'a> {
    app: &'a Arc<AppSnapshot>,
    path: &'a ScriptPath,
    script: Arc<TestScript>,
    function: TestFunction,
}

/// Runs all tests.
pub fn run(apps: &[AppTests], options: &RunOptions) -> Report {
    let mut planned = Vec::new();
    let mut reports = Vec::new();
    for tests in apps {
        for file in &tests.files {
            let compiled = match &file.text {
                Ok(text) => TestScript::compile(&file.path, text).map_err(|error| *error),
                Err(reason) => Err(unreadable(reason)),
            };
            match compiled {
                Ok(script) => {
                    let script = Arc::new(script);
                    for function in script.tests() {
                        planned.push(Planned {
                            app: &tests.app,
                            path: &file.path,
                            script: Arc::clone(&script),
                            function: function.clone(),
                        });
                    }
                }
                Err(error) => reports.push(broken(&tests.app, &file.path, &error)),
            }
        }
    }
    if let Some(filter) = &options.filter {
        planned.retain(|test| {
            let name = &test.function.name;
            format!("{}/{}::{name}", test.app.spec.name, test.path).contains(filter)
        });
        reports.retain(|report: &TestReport| {
            format!("{}/{}", report.app, report.file).contains(filter)
        });
    }
    reports.extend(run_all(&planned, options.threads));
    reports.sort_by(|a, b| (&a.app, &a.file, a.line).cmp(&(&b.app, &b.file, b.line)));
    Report::of(reports)
}

fn run_all(planned: &[Planned<'_>], threads: usize) -> Vec<TestReport> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { available } else { threads };
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::with_capacity(planned.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(planned.len()) {
            let work = || {
                while let Some(test) = planned.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run_one(test);
                    reports.lock().push(report);
                }
            };
            let spawned = std::thread::Builder::new()
                .name("picloud-test".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, work);
            if spawned.is_err() {
                // Those that could be made do all the work; without any, nothing below is left.
                break;
            }
        }
    });
    reports.into_inner()
}

/// A test may take its time, for it may live through years; its handlers have their own limits.
fn limits(app: &AppSnapshot) -> Limits {
    let own = app.spec.effective_limits();
    Limits {
        timeout_ms: own.timeout_ms.max(30_000),
        memory: own.memory.max(256 << 20),
        operations: own.operations.max(50_000_000),
        ..own
    }
}

fn run_one(test: &Planned<'_>) -> TestReport {
    let began = Instant::now();
    let limits = limits(test.app);
    let commit: CommitId = "0"
        .repeat(40)
        .parse()
        .unwrap_or_else(|_| unreachable!("forty digits are an id"));
    let world = World::new(test.app, &commit, began + limits.timeout());
    let run = TestRun {
        app: Arc::clone(test.app),
        services: world.services(),
        clock: world.clock(),
        host: Arc::clone(&world) as Arc<dyn TestHost>,
        limits,
        run: RunId(Uuid::nil()),
        commit,
    };
    let outcome = test.script.run(&test.function.name, run);
    let (failed_runs, mut logs, waiting_events) = world.notes();
    let failure = outcome.result.err().map(|error| {
        logs.extend(outcome.logs);
        let too_many = logs.len().saturating_sub(MAX_LOGS);
        let logs: Vec<LogLine> = logs.split_off(too_many);
        Failure {
            failed_runs,
            logs,
            waiting_events,
            ..failure(test.app, test.path, test.function.line, &error)
        }
    });
    report(
        test.app,
        test.path,
        &test.function,
        began.elapsed(),
        failure,
    )
}

fn report(
    app: &AppSnapshot,
    path: &ScriptPath,
    function: &TestFunction,
    duration: Duration,
    failure: Option<Failure>,
) -> TestReport {
    TestReport {
        app: app.spec.name.to_string(),
        file: join(&app.spec.dir, path.as_str()),
        line: function.line,
        name: function.name.clone(),
        duration,
        failure,
    }
}

/// The innermost place in the tests themselves; where a module failed, it stands in the message.
fn failure(app: &AppSnapshot, path: &ScriptPath, begin: u32, error: &RunError) -> Failure {
    let mut message = error.message.clone();
    let (mut line, mut column) = (error.line, error.column);
    if let Some(script) = error.script.as_ref().filter(|script| *script != path) {
        let inner = error
            .line
            .map_or_else(String::new, |line| format!(":{line}"));
        let file = join(&app.spec.dir, script.as_str());
        message.push_str(&format!("\n  in {file}{inner}"));
        (line, column) = (called_from(&error.trace, path), None);
    }
    Failure {
        message,
        place: Place {
            file: join(&app.spec.dir, path.as_str()),
            line: line.unwrap_or(begin),
            column,
        },
        trace: error.trace.iter().map(|step| rooted(app, step)).collect(),
        failed_runs: Vec::new(),
        logs: Vec::new(),
        waiting_events: 0,
    }
}

/// `name (tests/x.rhai:12)` with the path from the repository's root.
fn rooted(app: &AppSnapshot, step: &str) -> String {
    match step.rsplit_once(" (") {
        Some((name, place)) => format!("{name} ({}", join(&app.spec.dir, place)),
        None => step.to_owned(),
    }
}

/// The line of the innermost call in the tests: `name (tests/x.rhai:12)`.
fn called_from(trace: &[String], path: &ScriptPath) -> Option<u32> {
    trace.iter().find_map(|step| {
        let place = step.split_once(&format!("({path}:"))?.1;
        place.strip_suffix(')')?.parse().ok()
    })
}

fn broken(app: &AppSnapshot, path: &ScriptPath, error: &RunError) -> TestReport {
    let function = TestFunction {
        name: path.to_string(),
        line: error.line.unwrap_or(1),
    };
    let failure = failure(app, path, 1, error);
    report(app, path, &function, Duration::ZERO, Some(failure))
}

fn unreadable(reason: &str) -> RunError {
    RunError {
        kind: picloud_shared::run::RunErrorKind::Script,
        message: reason.to_owned(),
        script: None,
        line: None,
        column: None,
        trace: Vec::new(),
    }
}

fn join(dir: &str, path: &str) -> String {
    if dir.is_empty() {
        path.to_owned()
    } else {
        format!("{dir}/{path}")
    }
}
