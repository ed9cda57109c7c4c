//! `picloud`: one binary for the whole platform.

use std::process::ExitCode;

fn main() -> ExitCode {
    picloud::run()
}
