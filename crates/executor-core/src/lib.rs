//! Runs Rhai scripts within limits. Knows the vocabulary and the engine; neither SQL, git nor an
//! HTTP client: what a script reaches comes through `Services`.

mod answer;
mod checker;
mod compiled;
mod context;
mod engine;
mod error;
mod executor;
mod form;
mod json;
mod leaks;
mod limits;
mod natives;
mod nested;
mod sdk;
mod tester;
mod ticker;

/// The stack of a thread that runs scripts: address space, of which only what a deeply nested value
/// touches becomes memory.
pub const STACK: usize = 256 << 20;

pub use checker::RhaiChecker;
pub use executor::InProcessExecutor;
pub use sdk::{rhai_definitions, sdk_reference};
pub use tester::{
    HttpMock, SentRequest, TestAnswer, TestFunction, TestHost, TestOutcome, TestRequest, TestRun,
    TestScript,
};
pub use ticker::start as start_clock;
