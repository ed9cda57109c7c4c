//! `picloud completions SHELL`

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use super::{Ending, print};
use crate::cli::Cli;

/// Prints the completion script.
pub fn run(shell: Shell) -> Result<Ending> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "picloud", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Ending::Done)
}
