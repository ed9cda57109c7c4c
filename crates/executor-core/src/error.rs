//! From the engine's errors to the vocabulary's.

use picloud_shared::{
    ScriptPath,
    run::{RunError, RunErrorKind},
};
use rhai::{Dynamic, EvalAltResult, Map, Position};

use crate::{engine, natives};

/// What a run's error says: the innermost place, and the way there.
pub(crate) fn run_error(
    error: &EvalAltResult,
    script: &ScriptPath,
    stopped: Option<RunErrorKind>,
) -> RunError {
    let mut place = Place {
        script: Some(script.clone()),
        position: Position::NONE,
        trace: Vec::new(),
    };
    let innermost = place.descend(error);
    let (kind, message) = explain(innermost, stopped);
    RunError {
        kind,
        message,
        script: place.script,
        line: place
            .position
            .line()
            .and_then(|line| u32::try_from(line).ok()),
        column: place
            .position
            .position()
            .and_then(|column| u32::try_from(column).ok()),
        trace: place.trace,
    }
}

struct Place {
    script: Option<ScriptPath>,
    position: Position,
    trace: Vec<String>,
}

impl Place {
    fn descend<'e>(&mut self, error: &'e EvalAltResult) -> &'e EvalAltResult {
        let mut at = error;
        loop {
            match at {
                EvalAltResult::ErrorInFunctionCall(name, source, inner, position) => {
                    let script = self.script.as_ref().map_or("", |script| script.as_str());
                    let line = position.line().unwrap_or(0);
                    self.trace.insert(0, format!("{name} ({script}:{line})"));
                    if let Ok(path) = source.parse() {
                        self.script = Some(path);
                    }
                    at = inner;
                }
                EvalAltResult::ErrorInModule(name, inner, _) => {
                    if let Ok(path) = format!("modules/{name}.rhai").parse() {
                        self.script = Some(path);
                    }
                    at = inner;
                }
                other => {
                    self.position = other.position();
                    return other;
                }
            }
        }
    }
}

fn explain(error: &EvalAltResult, stopped: Option<RunErrorKind>) -> (RunErrorKind, String) {
    match error {
        EvalAltResult::ErrorTerminated(..) => {
            let kind = stopped.unwrap_or(RunErrorKind::Cancelled);
            (kind, stopped_message(kind).to_owned())
        }
        EvalAltResult::ErrorStackOverflow(_) => (
            RunErrorKind::Depth,
            "calls are nested too deeply".to_owned(),
        ),
        EvalAltResult::ErrorTooManyOperations(_) => (
            RunErrorKind::Operations,
            stopped_message(RunErrorKind::Operations).to_owned(),
        ),
        EvalAltResult::ErrorDataTooLarge(what, _) => (
            RunErrorKind::Memory,
            format!("{} is too large", what.to_lowercase()),
        ),
        EvalAltResult::ErrorTooManyVariables(_) => (
            RunErrorKind::Memory,
            "there are too many variables".to_owned(),
        ),
        EvalAltResult::ErrorRuntime(value, _) => (thrown_kind(value), thrown(value)),
EvalAltResult::ErrorParsing(..) | EvalAltResult::ErrorModuleNotFound(..) => {
            (RunErrorKind::Compile, bare(error))
        }
        EvalAltResult::ErrorFunctionNotFound(name, _) if engine::is_closure(name) => (
            RunErrorKind::Script,
            "a closure of a module is called where the module is not imported; import it at the top"
                .to_owned(),
        ),
        other => (RunErrorKind::Script, bare(other)),
    }
}

/// Without the place, which stands in fields of its own.
fn bare(error: &EvalAltResult) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.rfind(" (line ") {
        text.truncate(end);
    }
    text
}

pub(crate) fn stopped_message(kind: RunErrorKind) -> &'static str {
    match kind {
        RunErrorKind::Timeout => "the run took longer than limits.timeout",
        RunErrorKind::Memory => "the run held more than limits.memory",
        RunErrorKind::Operations => "the run took more than limits.operations",
        RunErrorKind::Depth => "calls or values are nested too deeply",
        RunErrorKind::Cancelled => "nobody waited for the run any more",
        _ => "the run was stopped",
    }
}

/// A script that let `unavailable` pass did not fail by itself: what it needs is away.
fn thrown_kind(value: &Dynamic) -> RunErrorKind {
    let code = value
        .read_lock::<Map>()
        .and_then(|map| map.get("code").cloned());
    let code = code.and_then(|code| code.into_string().ok());
    if code.as_deref() == Some("unavailable") {
        RunErrorKind::Unavailable
    } else {
        RunErrorKind::Script
    }
}

/// What a script threw: text as it is, `#{code, message}` as `code: message`.
fn thrown(value: &Dynamic) -> String {
    if let Some(map) = value.read_lock::<Map>() {
        let field = |name: &str| {
            map.get(name)
                .and_then(|value| value.clone().into_string().ok())
        };
        return match (field("code"), field("message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (None, Some(message)) => message,
            _ => serde_json::to_string(&crate::json::to_json(value).unwrap_or_default())
                .unwrap_or_default(),
        };
    }
    natives::show(value)
}
