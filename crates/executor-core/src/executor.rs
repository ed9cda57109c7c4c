//! Runs scripts where their requests are: on the thread that has them.

use std::{panic::AssertUnwindSafe, sync::Arc};

use picloud_shared::{
    AppSnapshot, Clock, Executor, Invocation, Outcome, Redactor, ScriptPath,
    executor::ExecuteFuture,
    invocation::{Answer, Input},
    run::{RunError, RunErrorKind},
    sdk::Services,
};
use rhai::{Dynamic, Engine, Scope};

use crate::{
    answer,
    compiled::CompiledScripts,
    context, engine, error, json,
    leaks::{self, Leaks},
    limits::{self, RunState},
};

/// Bytes of an error's message that are kept.
const MAX_MESSAGE: usize = 16 << 10;

/// Runs scripts in this process.
pub struct InProcessExecutor {
    engine: Engine,
    services: Arc<Services>,
    clock: Arc<dyn Clock>,
    compiled: Arc<CompiledScripts>,
    leaks: Leaks,
}

impl InProcessExecutor {
    /// With what scripts may reach.
    pub fn new(services: Services, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            engine: engine::engine(),
            services: Arc::new(services),
            clock,
            compiled: Arc::default(),
            leaks: Leaks::default(),
        })
    }

    /// Runs one script to its end, on this thread, whose stack has [`crate::STACK`] bytes.
    pub fn run(&self, invocation: &Invocation) -> Outcome {
        let taken = self.leaks.taken(&invocation.app);
        let state = RunState::new(
            invocation,
            Arc::clone(&self.services),
            Arc::clone(&self.clock),
            Arc::clone(&self.compiled),
            invocation.limits.memory.saturating_sub(taken),
        );
        let (result, mut state) = limits::within(state, || {
            // A native function of the engine that panics (a comparison for `sort` that
            // contradicts itself) is that script's failure and nobody else's.
            std::panic::catch_unwind(AssertUnwindSafe(|| self.evaluate(invocation)))
                .unwrap_or_else(|_| Err(panicked(&invocation.script.path)))
        });
        self.leaks.note(
            &invocation.app,
            state.held().saturating_sub(kept(&result, &state)),
        );
        // However it ended: a native function may have made something else of it.
        let mut result = match state.stopped {
            Some(kind) => Err(stopped(kind, result.err())),
            None => result,
        };
        if let Err(error) = &mut result {
            // An SDK call that waited until the very end throws; it was the time all the same.
            if error.kind == RunErrorKind::Script
                && std::time::Instant::now() >= invocation.deadline
            {
                error.kind = RunErrorKind::Timeout;
            }
            if error.script.is_none() {
                error.script = Some(invocation.script.path.clone());
            }
            cut(&mut error.message);
        }
        let secrets = std::mem::take(&mut state.secrets);
        if !secrets.is_empty() {
            for line in &mut state.logs {
                redact(&secrets, &mut line.message);
                if let Some(fields) = &mut line.fields {
                    secrets.json(fields);
                }
            }
            if let Err(error) = &mut result {
                redact(&secrets, &mut error.message);
            }
        }
        Outcome {
            secrets,
            result,
            operations: state.operations,
            peak_memory: state.peak_memory(),
            logs: state.logs,
            dropped_logs: state.dropped_logs,
        }
    }

    fn evaluate(&self, invocation: &Invocation) -> Result<Answer, Box<RunError>> {
        let compiled = self.compiled.get(&self.engine, &invocation.script)?;
        let mut scope = Scope::new();
        if compiled.wants_context {
            scope.push_constant_dynamic("ctx", context::context(invocation));
        }
        let value: Result<Dynamic, _> = self
            .engine
            .eval_ast_with_scope(&mut scope, &compiled.ast)
            .map_err(|error| {
                let stopped = limits::with(|state| state.stopped).flatten();
                Box::new(error::run_error(&error, &invocation.script.path, stopped))
            });
        let answer = value.and_then(|value| Self::answer(invocation, &value));
        leaks::break_cycles(&scope);
        answer
    }

    fn answer(invocation: &Invocation, value: &Dynamic) -> Result<Answer, Box<RunError>> {
        match invocation.input {
            Input::Request(_) => {
                answer::reply(value, invocation.limits.response_body).map(Answer::Http)
            }
            Input::Event(_) => json::to_json(value).map(Answer::Json).map_err(|reason| {
                Box::new(RunError {
                    kind: if reason == json::TOO_DEEP {
                        RunErrorKind::Depth
                    } else {
                        RunErrorKind::Answer
                    },
                    message: format!("the value cannot be kept: {reason}"),
                    script: None,
                    line: None,
                    column: None,
                    trace: Vec::new(),
                })
            }),
        }
    }
}

/// About what an outcome holds: it is the caller's, and no leak.
fn kept(result: &Result<Answer, Box<RunError>>, state: &RunState) -> u64 {
    let answer = match result {
        Ok(Answer::Http(reply)) => reply.body.len() + reply.headers.capacity() * 128,
        // Numbers and small texts take several times their length.
        Ok(Answer::Json(value)) => value.to_string().len() * 16,
        Err(error) => error.message.len() + error.trace.len() * 256,
    };
    (answer + state.log_bytes * 2 + state.logs.len() * 512) as u64
}

/// The error of a run that a limit stopped, at the place where it was.
fn stopped(kind: RunErrorKind, error: Option<Box<RunError>>) -> Box<RunError> {
    let mut error = error.unwrap_or_else(|| {
        Box::new(RunError {
            kind,
            message: String::new(),
            script: None,
            line: None,
            column: None,
            trace: Vec::new(),
        })
    });
    if error.kind != kind || error.message.is_empty() {
        error.kind = kind;
        error::stopped_message(kind).clone_into(&mut error.message);
    }
    error
}

fn cut(message: &mut String) {
    if message.len() > MAX_MESSAGE {
        let end = message.floor_char_boundary(MAX_MESSAGE);
        message.truncate(end);
        message.push('…');
    }
}

fn redact(secrets: &Redactor, text: &mut String) {
    if let std::borrow::Cow::Owned(clean) = secrets.text(text) {
        *text = clean;
    }
}

fn panicked(script: &ScriptPath) -> Box<RunError> {
    Box::new(RunError {
        kind: RunErrorKind::Crashed,
        message: "the engine failed on this script; the server's log says where".to_owned(),
        script: Some(script.clone()),
        line: None,
        column: None,
        trace: Vec::new(),
    })
}

impl Executor for InProcessExecutor {
    fn execute(&self, invocation: Invocation) -> ExecuteFuture<'_> {
        Box::pin(std::future::ready(self.run(&invocation)))
    }

    fn prepare(&self, app: &Arc<AppSnapshot>) {
        for source in app.scripts.values() {
            // An error here was reported when the commit was validated, and is told to each run.
            if let Err(error) = self.compiled.get(&self.engine, source) {
                tracing::warn!(app = %app.spec.name, script = %source.path, error = error.message, "a live script does not compile");
            }
        }
    }
}
