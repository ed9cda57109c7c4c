//! `picloud executor-child`: what the server starts to run scripts in.

use anyhow::{Context, Result};

use super::Ending;

/// The server's word for such a process, before the bytes that a run may hold.
pub const WORD: &str = "executor-child";

/// What the process was started with, whichever of the programs it is.
pub fn memory() -> Option<u64> {
    let mut arguments = std::env::args().skip(1);
    arguments.next().filter(|word| word == WORD)?;
    arguments.next()?.parse().ok()
}

/// Runs scripts until the server has no more.
pub fn run(memory: u64) -> Result<Ending> {
    // Only what goes wrong: standard error is the server's.
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    log.map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))?;
    picloud_executor_process::child_main(memory)
        .context("the server starts this process itself")?;
    Ok(Ending::Done)
}
