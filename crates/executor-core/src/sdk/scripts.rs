//! `scripts::*`: other handlers of the same app, now or later.

use picloud_shared::{ScriptPath, app::ScriptKind, sdk::EnqueueOptions};
use rhai::{Dynamic, EvalAltResult, ImmutableString, Map, Module, NativeCallContext};

use super::{Native, absent, app, ask, duration, function, invalid, text, unknown};
use crate::{json, nested};

/// Bytes of a job's key.
const MAX_KEY: usize = 256;

functions! {
    "scripts" :: "invoke" [2], ["invoke(script: String, payload: Dynamic) -> Dynamic"], "Runs another handler of this app now, with the payload as `ctx.event.payload`, and gives its value.";
    "scripts" :: "enqueue" [2, 3], ["enqueue(script: String, payload: Dynamic) -> String", "enqueue(script: String, payload: Dynamic, options: Map) -> String"], "Runs another handler of this app later, through the outbox; gives the event's id. Options: delay (`10s`), key (one waiting job a key).";
}

type Text = ImmutableString;

pub(super) fn module() -> Module {
    let mut module = Module::new();
    module.set_native_fn(
        "invoke",
        |context: NativeCallContext<'_>, script: Text, payload: Dynamic| {
            invoke(context.engine(), &script, &payload).map_err(|mut error| {
                // Where the other handler was stopped is no place of this script.
                let elsewhere = matches!(*error, EvalAltResult::ErrorTerminated(..));
                if elsewhere || error.position().is_none() {
                    error.set_position(context.call_position());
                }
                error
            })
        },
    );
    function(&mut module, "enqueue", |script: Text, payload: Dynamic| {
        enqueue(&script, &payload, &Map::new())
    });
    function(
        &mut module,
        "enqueue",
        |script: Text, payload: Dynamic, options: Map| enqueue(&script, &payload, &options),
    );
    module
}

fn handler(script: &str) -> Native<ScriptPath> {
    let app = app()?;
    let path: ScriptPath = script
        .parse()
        .map_err(|_| invalid(format!("the app has no script `{script}`")))?;
    match app.scripts.get(&path) {
        Some(found) if found.kind == ScriptKind::Handler => Ok(path),
        Some(_) => Err(invalid(format!("`{script}` is a module, not a handler"))),
        None => Err(invalid(format!("the app has no script `{script}`"))),
    }
}

fn invoke(engine: &rhai::Engine, script: &str, payload: &Dynamic) -> Native<Dynamic> {
    let path = handler(script)?;
    // As it would be through the outbox: what JSON can't hold can't be handed over.
    let payload = json::to_json(payload)
        .map_err(|reason| invalid(format!("the payload is no JSON: {reason}")))?;
    nested::invoke(engine, &path, &payload)
}

fn enqueue(script: &str, payload: &Dynamic, options: &Map) -> Native<ImmutableString> {
    let path = handler(script)?;
    let mut parsed = EnqueueOptions::default();
    for (name, option) in options {
        match name.as_str() {
            "delay" => parsed.delay_ms = duration("delay", option)?,
            "key" => {
                let key = text("key", option)?;
                if key.is_empty() || key.len() > MAX_KEY {
                    return Err(invalid(format!("key must have 1 to {MAX_KEY} bytes")));
                }
                parsed.key = Some(key);
            }
            other => return Err(unknown("scripts::enqueue", other, "delay, key")),
        }
    }
    let payload = json::to_json(payload)
        .map_err(|reason| invalid(format!("the payload is no JSON: {reason}")))?;
    ask(
        |services, cx| {
            let invoke = services.invoke.as_ref();
            let invoke = invoke.ok_or_else(|| absent("scripts::enqueue"))?;
            invoke.enqueue(cx, &path, &payload, &parsed)
        },
        |event| event.to_string().into(),
    )
}
