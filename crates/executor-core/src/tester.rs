//! Runs tests: scripts that may call handlers, fire triggers and turn the clock. What that means is
//! the host's to say; here is only how a test's script speaks to it.

mod compare;
mod functions;

use std::{cell::Cell, collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;
use picloud_shared::{
    AppSnapshot, BlobId, Clock, CommitId, Invocation, Limits, Principal, RunId, ScriptPath,
    app::ScriptKind,
    event::{Event, EventKind},
    invocation::{Cancel, Input},
    run::{LogLine, RunError, RunErrorKind},
    sdk::{HttpAnswer, SdkResult, Services},
    snapshot::ScriptSource,
};
use rhai::{AST, CallFnOptions, Engine, EvalAltResult, Scope, Token};
use serde_json::Value;

use crate::{
    engine, error,
    limits::{self, RunState},
};

/// `call` is a word of the language; in tests it is our function, and goes by this name inside.
const CALL: &str = "call_handler";

/// What a test may do beyond what a script may.
pub trait TestHost: Send + Sync {
    /// Runs a handler for a request; gives what a client would get.
    fn call(&self, script: &str, request: TestRequest) -> SdkResult<TestAnswer>;
    /// Runs a trigger's handler now; gives the run.
    fn fire(&self, trigger: &str, payload: &Value) -> SdkResult<Value>;
    /// From now on, requests to that URL get that answer.
    fn mock_http(&self, url: &str, mock: HttpMock) -> SdkResult<()>;
    /// The requests that were sent so far.
    fn sent(&self) -> Vec<SentRequest>;
    /// From now on, the secret has that value.
    fn mock_secret(&self, name: &str, value: &str) -> SdkResult<()>;
    /// Sets the clock; nothing runs.
    fn set_clock(&self, at: &str) -> SdkResult<()>;
    /// Lets time pass, and runs what falls due.
    fn advance_clock(&self, ms: u64) -> SdkResult<()>;
}

/// A request of a test.
#[derive(Debug, Clone, Default)]
pub struct TestRequest {
    /// Upper case; the route's where there is none.
    pub method: Option<String>,
    /// Below the app; the route's where there is none.
    pub path: Option<String>,
    /// Parameters of the route.
    pub params: Vec<(String, String)>,
    /// Query parameters to add.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body, and its content type unless the headers have one.
    pub body: Option<(Bytes, &'static str)>,
}

/// What a client would get.
#[derive(Debug, Clone)]
pub struct TestAnswer {
    /// The answer.
    pub answer: HttpAnswer,
    /// Why the run failed, as its record says it.
    pub error: Option<Value>,
}

/// An answer that a test made up.
#[derive(Debug, Clone)]
pub struct HttpMock {
    /// Of requests by this method alone.
    pub method: Option<String>,
    /// What they get.
    pub answer: HttpAnswer,
}

/// A request that a script sent.
#[derive(Debug, Clone)]
pub struct SentRequest {
    /// Upper case.
    pub method: String,
    /// With its query.
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Empty where there was none.
    pub body: Bytes,
}

/// What a test runs with.
pub struct TestRun {
    /// Whose test.
    pub app: Arc<AppSnapshot>,
    /// What it reaches as any script does.
    pub services: Services,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// What it may do beyond.
    pub host: Arc<dyn TestHost>,
    /// Of the test itself; the handlers that it calls have their own.
    pub limits: Limits,
    /// Its id.
    pub run: RunId,
    /// What `ctx.commit` of its handlers is.
    pub commit: CommitId,
}

/// What came of a test.
#[derive(Debug)]
pub struct TestOutcome {
    /// Why it failed.
    pub result: Result<(), Box<RunError>>,
    /// What the test itself logged.
    pub logs: Vec<LogLine>,
}

/// A test of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFunction {
    /// `test_…`
    pub name: String,
    /// Where it begins; from 1.
    pub line: u32,
}

/// A file of tests.
pub struct TestScript {
    path: ScriptPath,
    ast: AST,
    tests: Vec<TestFunction>,
}

impl TestScript {
    /// Compiles a file, whose path is below its app.
    pub fn compile(path: &ScriptPath, text: &str) -> Result<Self, Box<RunError>> {
        let engine = compiler();
        let source = ScriptSource {
            path: path.clone(),
            kind: ScriptKind::Handler,
            blob: no_blob(),
            text: text.into(),
        };
        let ast = engine::compile(&engine, &source).map_err(|error| {
            let error = EvalAltResult::from(error);
            let mut error = error::run_error(&error, path, None);
            error.message = plain(&error.message);
            Box::new(error)
        })?;
        let mut tests: Vec<TestFunction> = Vec::new();
        let mut seen = BTreeSet::new();
        for function in ast.iter_functions() {
            if function.name.starts_with("test_") && seen.insert(function.name.to_owned()) {
                tests.push(TestFunction {
                    name: function.name.to_owned(),
                    line: line_of(text, function.name),
                });
            }
        }
        tests.sort_by(|a, b| (a.line, &a.name).cmp(&(b.line, &b.name)));
        Ok(Self {
            path: path.clone(),
            ast,
            tests,
        })
    }

    /// Its tests, in the order of the file.
    pub fn tests(&self) -> &[TestFunction] {
        &self.tests
    }

    /// Runs one test on this thread.
    pub fn run(&self, name: &str, run: TestRun) -> TestOutcome {
        let engine = engine_for(&run.host);
        let invocation = Invocation {
            run: run.run,
            app: run.app,
            commit: run.commit,
            script: Arc::new(ScriptSource {
                path: self.path.clone(),
                kind: ScriptKind::Handler,
                blob: no_blob(),
                text: "".into(),
            }),
            deadline: Instant::now() + run.limits.timeout(),
            limits: run.limits,
            input: Input::Event(Box::new(Event {
                id: run.run.0.into(),
                kind: EventKind::Invoke,
                attempt: 1,
                trigger: None,
                cause: None,
                detail: Value::Null,
            })),
            principal: Principal::App,
            cause: None,
            chain: Vec::new(),
            cancel: Cancel::never(),
        };
        let state = RunState::new(
            &invocation,
            Arc::new(run.services),
            run.clock,
            Arc::default(),
            invocation.limits.memory,
        );
        let (result, state) = limits::within(state, || {
            let evaluate = || self.evaluate(&engine, name);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(evaluate)).unwrap_or_else(|_| {
                Err(Box::new(RunError {
                    kind: RunErrorKind::Crashed,
                    message: "the engine failed on this test".to_owned(),
                    script: Some(self.path.clone()),
                    line: None,
                    column: None,
                    trace: Vec::new(),
                }))
            })
        });
        TestOutcome {
            result,
            logs: state.logs,
        }
    }

    fn evaluate(&self, engine: &Engine, name: &str) -> Result<(), Box<RunError>> {
        let options = CallFnOptions::new().eval_ast(true).rewind_scope(true);
        let called: Result<rhai::Dynamic, _> =
            engine.call_fn_with_options(options, &mut Scope::new(), &self.ast, name, ());
        let Err(error) = called else { return Ok(()) };
        let stopped = limits::with(|state| state.stopped).flatten();
        let mut error = error::run_error(&error, &self.path, stopped);
        error.message = plain(&error.message);
        // Where the test itself was called from is nowhere.
        error.trace.retain(|step| !step.ends_with(":0)"));
        Err(Box::new(error))
    }
}

/// As the test's author knows it.
fn plain(message: &str) -> String {
    let message = message.strip_prefix("assertion: ").unwrap_or(message);
    message.replace(CALL, "call")
}

fn no_blob() -> BlobId {
    "0".repeat(40)
        .parse()
        .unwrap_or_else(|_| unreachable!("forty digits are an id"))
}

/// Where a function is defined. The engine keeps no place of it.
fn line_of(text: &str, name: &str) -> u32 {
    let is_it = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("private ").unwrap_or(line).trim_start();
        let rest = line.strip_prefix("fn ").map(str::trim_start);
        let rest = rest.and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.trim_start().starts_with('('))
    };
    let line = text.lines().position(is_it).map_or(1, |index| index + 1);
    u32::try_from(line).unwrap_or(u32::MAX)
}

thread_local! {
    /// Whether the word before was a dot: `f.call(…)` is the language's own.
    static AFTER_DOT: Cell<bool> = const { Cell::new(false) };
}

fn compiler() -> Engine {
    let mut engine = engine::compiler();
    name_call(&mut engine);
    engine
}

#[expect(
    deprecated,
    reason = "the engine calls this hook volatile; the version is pinned exactly"
)]
fn name_call(engine: &mut Engine) {
    engine.on_parse_token(|token, _, _| {
        let after_dot = AFTER_DOT.replace(matches!(token, Token::Period | Token::Elvis));
        match token {
            Token::Reserved(word) if word.as_str() == "debug" => Token::Identifier(word),
            Token::Reserved(word) if word.as_str() == "call" && !after_dot => {
                Token::Identifier(Box::new(CALL.into()))
            }
            other => other,
        }
    });
}

fn engine_for(host: &Arc<dyn TestHost>) -> Engine {
    let mut engine = engine::engine();
    functions::register(&mut engine, host);
    engine
}
