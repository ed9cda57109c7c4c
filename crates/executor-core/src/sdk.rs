//! What a script finds beyond the language: one file a module, and one table from which the
//! checker and the editors' definitions are made.

mod json;
mod kv;
mod log;

use picloud_shared::sdk::{SdkError, Services};
use rhai::{Dynamic, Engine, EvalAltResult, Map, Position};

use crate::limits;

/// What a native function gives.
type Native<T> = Result<T, Box<EvalAltResult>>;

/// Which of the optional services are there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Served;

impl Served {
    /// Those that were given.
    pub(crate) fn of(_: &Services) -> Self {
        Self
    }
}

/// Makes the modules known to an engine.
pub(crate) fn register(engine: &mut Engine, _: Served) {
    engine.register_static_module("json", json::module().into());
    engine.register_static_module("kv", kv::module().into());
    engine.register_static_module("log", log::module().into());
}

/// One function of the SDK.
pub(crate) struct Function {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    /// How many arguments it takes.
    pub(crate) arguments: &'static [usize],
    pub(crate) signatures: &'static [&'static str],
    pub(crate) about: &'static str,
}

/// All functions.
pub(crate) fn functions() -> impl Iterator<Item = &'static Function> {
    json::FUNCTIONS
        .iter()
        .chain(kv::FUNCTIONS)
        .chain(log::FUNCTIONS)
}

/// The definitions that editors read (`picloud schema rhai`).
pub fn rhai_definitions() -> String {
    let mut out = String::from("module static;\n");
    let mut module = "";
    for function in functions() {
        if function.module != module {
            if !module.is_empty() {
                out.push_str("}\n");
            }
            module = function.module;
            out.push_str(&format!("\nmodule {module} {{\n"));
        }
        for signature in function.signatures {
            out.push_str(&format!(
                "    /// {}\n    fn {signature};\n",
                function.about
            ));
        }
    }
    out.push_str("}\n");
    out
}

/// Throws an error of a service as `#{code, message}`.
fn throw(error: SdkError) -> Box<EvalAltResult> {
    let mut map = Map::new();
    map.insert("code".into(), error.code.as_str().into());
    map.insert("message".into(), error.message.into());
    Box::new(EvalAltResult::ErrorRuntime(map.into(), Position::NONE))
}

/// Throws `invalid`.
fn invalid(message: impl Into<String>) -> Box<EvalAltResult> {
    throw(SdkError::new(
        picloud_shared::sdk::SdkErrorCode::Invalid,
        message,
    ))
}

/// The services and the caller of the run on this thread.
fn services() -> Native<(Services, picloud_shared::sdk::SdkCallCx)> {
    let both = limits::with(|state| (state.services.clone(), state.cx.clone()));
    both.ok_or_else(|| invalid("there is no run on this thread"))
}

/// Milliseconds of an option like `"1s"`.
fn duration(name: &str, value: &Dynamic) -> Native<u64> {
    let text = value
        .clone()
        .into_string()
        .map_err(|kind| invalid(format!("{name} must be text like \"5s\"; this is {kind}")))?;
    picloud_shared::duration::milliseconds(&text).ok_or_else(|| {
        invalid(format!(
            "{name} must be a duration like \"500ms\", \"5s\" or \"1h30m\"; this is {text:?}"
        ))
    })
}
