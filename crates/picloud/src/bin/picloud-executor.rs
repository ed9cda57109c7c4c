//! `picloud serve --role executor`, as a program of its own for clusters.

use std::process::ExitCode;

fn main() -> ExitCode {
    picloud::run_role("executor")
}
