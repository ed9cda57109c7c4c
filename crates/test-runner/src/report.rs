//! What came of the tests, for people and for programs.

use std::time::Duration;

use picloud_shared::run::{LogLine, RunError};
use serde::Serialize;

/// All tests that ran.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order of apps, files and lines.
    pub tests: Vec<TestReport>,
    /// How many did well.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
}

/// One of them.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// Whose.
    pub app: String,
    /// The file, from the repository's root.
    pub file: String,
    /// The line at which the test begins.
    pub line: u32,
    /// `test_…`; the file's own where it doesn't compile.
    pub name: String,
    /// Wall-clock time.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// Why a test failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// For people; may have several lines.
    pub message: String,
    /// Where.
    pub place: Place,
    /// The calls that led there.
    pub trace: Vec<String>,
    /// Runs of handlers that failed meanwhile.
    pub failed_runs: Vec<FailedRun>,
    /// What test and handlers logged.
    pub logs: Vec<LogLine>,
    /// Events that are due, and wait for the clock to be advanced.
    pub waiting_events: usize,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// From the repository's root.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: Option<u32>,
}

/// A handler's run that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedRun {
    /// Below the app.
    pub script: String,
    /// What started it.
    pub kind: &'static str,
    /// Why.
    pub error: RunError,
}

impl Report {
    /// Counts.
    pub(crate) fn of(tests: Vec<TestReport>) -> Self {
        let failed = tests.iter().filter(|test| test.failure.is_some()).count();
        Self {
            passed: tests.len() - failed,
            failed,
            tests,
        }
    }

    /// `N passed, N failed`
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }

    /// As continuous integration reads it: one suite a file.
    pub fn junit(&self) -> String {
        let total: Duration = self.tests.iter().map(|test| test.duration).sum();
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        out.push_str(&format!(
            "<testsuites name=\"picloud test\" tests=\"{}\" failures=\"{}\" time=\"{:.3}\">\n",
            self.tests.len(),
            self.failed,
            total.as_secs_f64()
        ));
        for suite in self.tests.chunk_by(|a, b| a.file == b.file) {
            let failed = suite.iter().filter(|test| test.failure.is_some()).count();
            let time: Duration = suite.iter().map(|test| test.duration).sum();
            out.push_str(&format!(
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\" time=\"{:.3}\">\n",
                xml(&suite[0].file),
                suite.len(),
                time.as_secs_f64()
            ));
            for test in suite {
                test.junit(&mut out);
            }
            out.push_str("  </testsuite>\n");
        }
        out.push_str("</testsuites>\n");
        out
    }
}

impl TestReport {
    fn junit(&self, out: &mut String) {
        out.push_str(&format!(
            "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\" time=\"{:.3}\"",
            xml(&self.app),
            xml(&self.name),
            xml(&self.file),
            self.line,
            self.duration.as_secs_f64()
        ));
        let Some(failure) = &self.failure else {
            out.push_str("/>\n");
            return;
        };
        let first = failure.message.lines().next().unwrap_or_default();
        out.push_str(&format!(
            ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
            xml(first),
            xml(&failure.text())
        ));
    }
}

impl Failure {
    /// All that is known, in lines.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n{}\n", self.place, self.message);
        for step in &self.trace {
            out.push_str(&format!("called from {step}\n"));
        }
        for run in &self.failed_runs {
            let line = run
                .error
                .line
                .map_or_else(String::new, |line| format!(":{line}"));
            let script = run
                .error
                .script
                .as_ref()
                .map_or("", |script| script.as_str());
            out.push_str(&format!(
                "the {} run of {} failed: {} ({script}{line})\n",
                run.kind, run.script, run.error.message
            ));
        }
        for log in &self.logs {
            let level = serde_json::to_value(log.level).unwrap_or_default();
            let level = level.as_str().unwrap_or_default().to_owned();
            let fields = log
                .fields
                .as_ref()
                .map_or_else(String::new, |fields| format!(" {fields}"));
            out.push_str(&format!("{level}: {}{fields}\n", log.message));
        }
        if self.waiting_events > 0 {
            out.push_str(&format!(
                "{} events are due and wait: clock::advance runs them\n",
                self.waiting_events
            ));
        }
        out
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        match self.column {
            Some(column) => write!(f, ":{column}"),
            None => Ok(()),
        }
    }
}

fn milliseconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((time.as_secs_f64() * 1_000_000.0).round() / 1000.0)
}

/// Text in XML 1.0, which can't hold most control characters at all.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
