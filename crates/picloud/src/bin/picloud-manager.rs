//! `picloud serve --role manager`, as a program of its own for clusters.

use std::process::ExitCode;

fn main() -> ExitCode {
    picloud::run_role("manager")
}
