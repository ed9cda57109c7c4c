//! Runs Rhai scripts within limits. Knows the vocabulary and the engine; neither SQL, git nor an
//! HTTP client: what a script reaches comes through `Services`.

mod answer;
mod checker;
mod compiled;
mod context;
mod engine;
mod error;
mod executor;
mod json;
mod limits;
mod nested;
mod sdk;
mod tester;

pub use checker::RhaiChecker;
pub use executor::InProcessExecutor;
pub use sdk::rhai_definitions;
pub use tester::{
    HttpMock, SentRequest, TestAnswer, TestFunction, TestHost, TestOutcome, TestRequest, TestRun,
    TestScript,
};
