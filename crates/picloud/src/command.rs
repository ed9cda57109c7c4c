//! The commands, one file each.

use std::{future::Future, io::Write};

use anyhow::{Context, Result};
use serde_json::Value;

mod adopt;
pub mod approve;
pub mod backup;
pub mod completions;
pub mod dead_letters;
pub mod doctor;
pub mod drift;
pub mod executor_child;
pub mod git_hook;
pub mod history;
pub mod init;
pub mod keys;
pub mod login;
pub mod logs;
pub mod migrate;
pub mod plan;
pub mod previews;
pub mod replay;
pub mod restore;
pub mod rollback;
pub mod run;
pub mod runs;
pub mod schedule;
pub mod schema;
pub mod secrets;
pub mod sources;
pub mod status;
pub mod sync;
pub mod test;
pub mod triggers;
pub mod up;
pub mod validate;
pub mod wait;

/// How a command ended, beyond "done".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// 0
    Done,
    /// 1: it did its work, and the answer is no.
    Failed,
    /// 3: there are changes.
    Changes,
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Prints JSON for programs.
pub fn print_json(value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    print(&format!("{text}\n"))
}

/// Waits for a future on a runtime of its own: for commands that only speak to a server.
pub fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}

/// A text field of a JSON object, made safe to print.
pub fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => crate::terminal::printable(text),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// How long ago a time field of a JSON object is.
pub fn age_of(value: &Value, field: &str) -> String {
    use picloud_shared::Clock;
    let at = value[field].as_str().and_then(|text| text.parse().ok());
    at.map_or_else(String::new, |at| {
        crate::terminal::age(at, picloud_shared::SystemClock.now())
    })
}

/// The first seven digits of a commit.
pub fn short(commit: &str) -> String {
    commit.chars().take(7).collect()
}
