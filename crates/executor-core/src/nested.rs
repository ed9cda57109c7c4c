//! One handler that runs another, in the same run and within the same limits.

use std::{rc::Rc, sync::Arc};

use picloud_shared::{
    ScriptPath,
    run::RunErrorKind,
    sdk::{SdkError, SdkErrorCode},
};
use rhai::{Dynamic, Engine, EvalAltResult, Position, Scope};
use serde_json::Value;

use crate::{context, limits, sdk};

/// Handlers that wait for one another.
const MAX_NESTED: u32 = 16;

/// Runs a handler of the running app now; gives its value.
pub(crate) fn invoke(
    engine: &Engine,
    path: &ScriptPath,
    payload: &Value,
) -> Result<Dynamic, Box<EvalAltResult>> {
    let state = limits::with(|state| {
        let source = state.cx.app.scripts.get(path).cloned()?;
        let event = state.clock.new_id();
        Some((
            source,
            Rc::clone(&state.cx),
            Arc::clone(&state.compiled),
            event,
        ))
    });
    let gone = || {
        sdk::throw(SdkError::new(
            SdkErrorCode::NotFound,
            format!("the app has no script `{path}`"),
        ))
    };
    let (source, cx, compiled, event) = state.flatten().ok_or_else(gone)?;
    let compiled = compiled
        .get(engine, &source)
        .map_err(|error| sdk::throw(SdkError::new(SdkErrorCode::Failed, error.message)))?;
    let mut scope = Scope::new();
    if compiled.wants_context {
        let ctx = context::invoked(&cx, path, payload, &event.to_string());
        scope.push_constant_dynamic("ctx", ctx);
    }
    let outer = limits::with(|state| state.enter(path.clone())).flatten();
    let Some(outer) = outer else {
        return Err(limits::stop(RunErrorKind::Depth));
    };
    let result = engine.eval_ast_with_scope::<Dynamic>(&mut scope, &compiled.ast);
    limits::with(|state| state.leave(outer));
    result.map_err(|error| {
        // What stops a run stops all of it.
        if matches!(*error, EvalAltResult::ErrorTerminated(..)) {
            return error;
        }
        Box::new(EvalAltResult::ErrorInFunctionCall(
            "scripts::invoke".to_owned(),
            path.to_string(),
            error,
            Position::NONE,
        ))
    })
}

impl limits::RunState {
    /// Begins a nested run; gives what [`Self::leave`] takes, or `None` where there are too many.
    fn enter(&mut self, script: ScriptPath) -> Option<ScriptPath> {
        if self.nested >= MAX_NESTED {
            return None;
        }
        self.nested += 1;
        Some(std::mem::replace(
            &mut Rc::make_mut(&mut self.cx).script,
            script,
        ))
    }

    /// Ends a nested run.
    fn leave(&mut self, outer: ScriptPath) {
        self.nested -= 1;
        Rc::make_mut(&mut self.cx).script = outer;
    }
}
