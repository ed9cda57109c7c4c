//! `picloud test`: runs an app's tests offline. Each test has a world of its own, in memory, with
//! the rules of the real one: data, clock, events, retries, and requests that a test answers.

mod clock;
mod discover;
mod report;
mod run;
mod world;

pub use discover::{AppTests, TestFile, discover};
pub use report::{FailedRun, Failure, Place, Report, TestReport};
pub use run::{RunOptions, run};
