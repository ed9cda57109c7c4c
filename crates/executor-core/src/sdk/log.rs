//! `log::*`

use picloud_shared::run::{LogLevel, LogLine};
use rhai::{ImmutableString, Map, Module};

use super::{Function, function};
use crate::{json, limits};

/// Lines of a run that are kept.
const MAX_LINES: usize = 10_000;
/// Bytes of them.
const MAX_BYTES: usize = 1 << 20;

macro_rules! function {
    ($name:literal, $one:literal, $two:literal) => {
        Function {
            module: "log",
            name: $name,
            arguments: &[1, 2],
            signatures: &[$one, $two],
            about: "Writes a line to the run's log, with fields where a map is given.",
        }
    };
}

pub(super) const FUNCTIONS: &[Function] = &[
    function!(
        "debug",
        "debug(text: String)",
        "debug(text: String, fields: Map)"
    ),
    function!(
        "info",
        "info(text: String)",
        "info(text: String, fields: Map)"
    ),
    function!(
        "warn",
        "warn(text: String)",
        "warn(text: String, fields: Map)"
    ),
    function!(
        "error",
        "error(text: String)",
        "error(text: String, fields: Map)"
    ),
];

pub(super) fn module() -> Module {
    let mut module = Module::new();
    let levels = [
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
    ];
    for (name, level) in levels {
        function(&mut module, name, move |text: ImmutableString| {
            write(level, &text, None);
            Ok(())
        });
        function(
            &mut module,
            name,
            move |text: ImmutableString, fields: Map| {
                write(level, &text, Some(fields));
                Ok(())
            },
        );
    }
    module
}

fn write(level: LogLevel, text: &str, fields: Option<Map>) {
    limits::weigh(text.len());
    // Fields that JSON can't hold are told as text, so that a line is never lost for them.
    let fields = fields.map(|fields| {
        let value = fields.into();
        json::to_json(&value).unwrap_or_else(|reason| serde_json::json!({ "unreadable": reason }))
    });
    let size = text.len() + fields.as_ref().map_or(0, |fields| fields.to_string().len());
    limits::with(|state| {
        if state.logs.len() >= MAX_LINES || state.log_bytes + size > MAX_BYTES {
            state.dropped_logs += 1;
            return;
        }
        state.log_bytes += size;
        let line = LogLine {
            at: state.clock.now(),
            level,
            message: text.to_owned(),
            fields,
        };
        if let Some(live) = &state.services.live_logs {
            // What it copies goes to other threads.
            picloud_counting_alloc::apart(|| live.line(&state.cx, state.logs.len(), &line));
        }
        state.logs.push(line);
    });
}
