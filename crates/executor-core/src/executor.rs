//! Runs scripts where their requests are: on the thread that has them.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use parking_lot::RwLock;
use picloud_shared::{
    AppSnapshot, BlobId, Clock, Executor, Invocation, Outcome, ScriptPath,
    executor::ExecuteFuture,
    invocation::{Answer, Input},
    run::{RunError, RunErrorKind},
    sdk::Services,
    snapshot::ScriptSource,
};
use rhai::{AST, Dynamic, Engine, EvalAltResult, Scope};

use crate::{
    answer, context, engine, error, json,
    limits::{self, RunState},
    sdk,
};

/// Scripts that are kept compiled; above it, all are dropped and compiled again as they are run.
const MAX_COMPILED: usize = 16_384;

/// Runs scripts in this process.
pub struct InProcessExecutor {
    engine: Engine,
    services: Services,
    clock: Arc<dyn Clock>,
    compiled: RwLock<HashMap<BlobId, Arc<Compiled>>>,
}

struct Compiled {
    ast: AST,
    /// Whether it can see `ctx` at all; a script that can't is spared the making of it.
    wants_context: bool,
}

impl InProcessExecutor {
    /// With what scripts may reach.
    pub fn new(services: Services, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            engine: engine::engine(sdk::Served::of(&services)),
            services,
            clock,
            compiled: RwLock::default(),
        })
    }

    fn compiled(&self, source: &ScriptSource) -> Result<Arc<Compiled>, Box<RunError>> {
        if let Some(compiled) = self.compiled.read().get(&source.blob) {
            return Ok(Arc::clone(compiled));
        }
        let ast = engine::compile(&self.engine, source).map_err(|error| {
            let error = EvalAltResult::from(error);
            Box::new(error::run_error(&error, &source.path, None))
        })?;
        let compiled = Arc::new(Compiled {
            ast,
            wants_context: source.text.contains("ctx"),
        });
        let mut all = self.compiled.write();
        if all.len() >= MAX_COMPILED {
            all.clear();
        }
        all.insert(source.blob.clone(), Arc::clone(&compiled));
        Ok(compiled)
    }

    fn run(&self, invocation: &Invocation) -> Outcome {
        let state = RunState::new(invocation, self.services.clone(), Arc::clone(&self.clock));
        let (result, state) = limits::within(state, || {
            // A native function of the engine that panics (a comparison for `sort` that
            // contradicts itself) is that script's failure and nobody else's.
            std::panic::catch_unwind(AssertUnwindSafe(|| self.evaluate(invocation)))
                .unwrap_or_else(|_| Err(panicked(&invocation.script.path)))
        });
        let result = result.map_err(|mut error| {
            // An SDK call that waited until the very end throws; it was the time all the same.
            if error.kind == RunErrorKind::Script
                && std::time::Instant::now() >= invocation.deadline
            {
                error.kind = RunErrorKind::Timeout;
            }
            if error.script.is_none() {
                error.script = Some(invocation.script.path.clone());
            }
            error
        });
        Outcome {
            result,
            operations: state.operations(),
            peak_memory: state.peak_memory(),
            logs: state.logs,
            dropped_logs: state.dropped_logs,
        }
    }

    fn evaluate(&self, invocation: &Invocation) -> Result<Answer, Box<RunError>> {
        let compiled = self.compiled(&invocation.script)?;
        let mut scope = Scope::new();
        if compiled.wants_context {
            scope.push_constant_dynamic("ctx", context::context(invocation));
        }
        let value: Dynamic = self
            .engine
            .eval_ast_with_scope(&mut scope, &compiled.ast)
            .map_err(|error| {
                let stopped = limits::with(|state| state.stopped).flatten();
                Box::new(error::run_error(&error, &invocation.script.path, stopped))
            })?;
        match invocation.input {
            Input::Request(_) => {
                answer::reply(&value, invocation.limits.response_body).map(Answer::Http)
            }
            Input::Event(_) => json::to_json(&value).map(Answer::Json).map_err(|reason| {
                Box::new(RunError {
                    kind: RunErrorKind::Answer,
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
            if let Err(error) = self.compiled(source) {
                tracing::warn!(app = %app.spec.name, script = %source.path, error = error.message, "a live script does not compile");
            }
        }
    }
}
