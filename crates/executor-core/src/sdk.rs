//! What a script finds beyond the language: one file a module, and one table from which the
//! checker and the editors' definitions are made.

/// One module's rows of the table.
macro_rules! functions {
    ($($module:literal :: $name:literal $arguments:expr, $signatures:expr, $about:literal;)*) => {
        pub(super) const FUNCTIONS: &[super::Function] = &[$(super::Function {
            module: $module,
            name: $name,
            arguments: &$arguments,
            signatures: &$signatures,
            about: $about,
        }),*];
    };
}

mod crypto;
mod docs;
mod encoding;
pub(crate) mod http;
mod ids;
mod json;
mod kv;
mod log;
mod reference;
mod regex;
mod scripts;
pub(crate) mod secrets;
mod testing;
mod time;

use std::{rc::Rc, sync::Arc};

use picloud_shared::{
    AppSnapshot,
    sdk::{SdkCallCx, SdkError, SdkErrorCode, SdkResult, Services},
};
use rhai::{
    Dynamic, Engine, EvalAltResult, ImmutableString, Map, Module, NativeCallContext, Position,
    Variant,
};

use crate::limits;

pub use reference::sdk_reference;

/// What a native function gives.
pub(crate) type Native<T> = Result<T, Box<EvalAltResult>>;

/// Bytes of a text that a function takes or gives, unless it says otherwise.
pub(crate) const MAX_TEXT: usize = 16 << 20;

/// Makes the modules known to an engine.
pub(crate) fn register(engine: &mut Engine) {
    let modules = [
        ("base64", encoding::base64()),
        ("base64url", encoding::base64url()),
        ("crypto", crypto::module()),
        ("docs", docs::module()),
        ("hex", encoding::hex()),
        ("html", ids::html()),
        ("http", http::module()),
        ("json", json::module()),
        ("kv", kv::module()),
        ("log", log::module()),
        ("regex", regex::module()),
        ("scripts", scripts::module()),
        ("secrets", secrets::module()),
        ("time", time::module()),
        ("url", encoding::url()),
        ("uuid", ids::uuid()),
    ];
    for (name, mut module) in modules {
        refuse_other_types(&mut module, name);
        engine.register_static_module(name, module.into());
    }
}

/// What a function is given and doesn't take is `invalid`, too: a script catches all errors of the
/// SDK alike.
pub(crate) fn refuse_other_types(module: &mut Module, name: &str) {
    let mut others = Module::new();
    for known in functions().filter(|known| known.module == name) {
        let refuse = |given: &[&Dynamic]| -> Native<Dynamic> {
            let given = given
                .iter()
                .map(|value| Dynamic::type_name(value).to_owned());
            let given: Vec<String> = given.collect();
            let takes = known.signatures.join(&format!(" or {}::", known.module));
            Err(invalid(format!(
                "it is {}::{takes}; this is ({})",
                known.module,
                given.join(", ")
            )))
        };
        let name = known.name;
        for count in known.arguments {
            match count {
                1 => function(&mut others, name, move |a: Dynamic| refuse(&[&a])),
                2 => function(&mut others, name, move |a: Dynamic, b: Dynamic| {
                    refuse(&[&a, &b])
                }),
                3 => function(
                    &mut others,
                    name,
                    move |a: Dynamic, b: Dynamic, c: Dynamic| refuse(&[&a, &b, &c]),
                ),
                4 => function(
                    &mut others,
                    name,
                    move |a: Dynamic, b: Dynamic, c: Dynamic, d: Dynamic| refuse(&[&a, &b, &c, &d]),
                ),
                // Without arguments there is nothing to be wrong.
                _ => {}
            }
        }
    }
    module.fill_with(&others);
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
    [
        encoding::FUNCTIONS,
        crypto::FUNCTIONS,
        docs::FUNCTIONS,
        ids::FUNCTIONS,
        http::FUNCTIONS,
        json::FUNCTIONS,
        kv::FUNCTIONS,
        log::FUNCTIONS,
        regex::FUNCTIONS,
        scripts::FUNCTIONS,
        secrets::FUNCTIONS,
        time::FUNCTIONS,
    ]
    .into_iter()
    .flatten()
}

/// What a test has beyond a script.
pub(crate) fn test_functions() -> &'static [Function] {
    testing::FUNCTIONS
}

/// The definitions that editors read (`picloud schema rhai`).
pub fn rhai_definitions() -> String {
    let mut out = String::from("module static;\n");
    let mut module = "";
    let in_tests = test_functions()
        .iter()
        .map(|function| (function, " In tests alone."));
    let mut all: Vec<_> = functions()
        .map(|function| (function, ""))
        .chain(in_tests)
        .collect();
    all.sort_by_key(|(function, _)| function.module);
    for (function, note) in all {
        if function.module != module {
            if !module.is_empty() {
                out.push_str("}\n");
            }
            module = function.module;
            out.push_str(&format!("\nmodule {module} {{\n"));
        }
        let indent = if module.is_empty() { "" } else { "    " };
        for signature in function.signatures {
            let about = function.about;
            out.push_str(&format!(
                "{indent}/// {about}{note}\n{indent}fn {signature};\n"
            ));
        }
    }
    out.push_str("}\n");
    out
}

/// Adds a function to a module. Its errors tell where it was called: the engine by itself says that
/// of its own functions alone.
pub(crate) fn function<A, F: SdkFunction<A>>(module: &mut Module, name: &str, function: F) {
    function.add_to(module, name);
}

/// What [`function`] takes: a function of at most four arguments.
pub(crate) trait SdkFunction<A> {
    /// Makes it known by that name.
    fn add_to(self, module: &mut Module, name: &str);
}

macro_rules! sdk_function {
    ($($argument:ident),*) => {
        impl<F, R, $($argument),*> SdkFunction<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Native<R> + Send + Sync + 'static,
            R: Variant + Clone,
            $($argument: Variant + Clone),*
        {
            #[allow(non_snake_case, reason = "the arguments go by the names of their types")]
            fn add_to(self, module: &mut Module, name: &str) {
                module.set_native_fn(name, move |context: NativeCallContext<'_>, $($argument: $argument),*| {
                    self($($argument),*).map_err(|mut error| {
                        if error.position().is_none() {
                            error.set_position(context.call_position());
                        }
                        error
                    })
                });
            }
        }
    };
}

sdk_function!();
sdk_function!(A);
sdk_function!(A, B);
sdk_function!(A, B, C);
sdk_function!(A, B, C, D);

/// Throws an error of a service as `#{code, message}`.
pub(crate) fn throw(error: SdkError) -> Box<EvalAltResult> {
    let mut map = Map::new();
    map.insert("code".into(), error.code.as_str().into());
    map.insert("message".into(), error.message.into());
    Box::new(EvalAltResult::ErrorRuntime(map.into(), Position::NONE))
}

/// Throws `invalid`.
pub(crate) fn invalid(message: impl Into<String>) -> Box<EvalAltResult> {
    throw(SdkError::new(SdkErrorCode::Invalid, message))
}

/// Calls a service on behalf of the run on this thread; `take` makes the script's value of the
/// answer. A service hands memory to other threads and takes memory from them: none of that is the
/// run's, only what `take` copies. So `call` borrows what is the run's, and `take` copies.
fn ask<T, R>(
    call: impl FnOnce(&Services, &SdkCallCx) -> SdkResult<T>,
    take: impl FnOnce(&T) -> R,
) -> Native<R> {
    let both = limits::with(|state| {
        state.called();
        (Arc::clone(&state.services), Rc::clone(&state.cx))
    });
    let (services, cx) = both.ok_or_else(|| invalid("there is no run on this thread"))?;
    let answer = picloud_counting_alloc::apart(|| call(&services, &cx));
    let taken = match &answer {
        Ok(answer) => Ok(take(answer)),
        Err(error) => Err(throw(error.clone())),
    };
    picloud_counting_alloc::apart(|| drop(answer));
    taken
}

/// The caller's app.
fn app() -> Native<Arc<AppSnapshot>> {
    let app = limits::with(|state| {
        state.called();
        Arc::clone(&state.cx.app)
    });
    app.ok_or_else(|| invalid("there is no run on this thread"))
}

/// Milliseconds of an option like `"1s"`.
pub(crate) fn duration(name: &str, value: &Dynamic) -> Native<u64> {
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

/// The bytes of text or of a blob.
fn with_bytes<T>(name: &str, value: &Dynamic, look: impl FnOnce(&[u8]) -> T) -> Native<T> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        limits::weigh(text.len());
        return Ok(look(text.as_bytes()));
    }
    if let Some(blob) = value.read_lock::<rhai::Blob>() {
        limits::weigh(blob.len());
        return Ok(look(&blob));
    }
    Err(invalid(format!(
        "{name} must be text or a blob; this is {}",
        value.type_name()
    )))
}

/// Text of an argument or an option.
pub(crate) fn text(name: &str, value: &Dynamic) -> Native<String> {
    value
        .clone()
        .into_string()
        .map_err(|kind| invalid(format!("{name} must be text; this is {kind}")))
}

/// A service that isn't part of this server.
fn absent(name: &str) -> SdkError {
    SdkError::new(
        SdkErrorCode::Unavailable,
        format!("{name} is not available here"),
    )
}

/// Throws `invalid` for an option that a function doesn't know.
pub(crate) fn unknown(function: &str, option: &str, known: &str) -> Box<EvalAltResult> {
    invalid(format!(
        "{function} has no option `{option}`; it takes {known}"
    ))
}

/// A page's size.
fn limit(value: &Dynamic) -> Native<u32> {
    let limit = value
        .as_int()
        .ok()
        .and_then(|limit| u32::try_from(limit).ok());
    limit
        .filter(|limit| (1..=1000).contains(limit))
        .ok_or_else(|| invalid("limit must be a whole number from 1 to 1000"))
}

/// `if_version`
fn version(value: &Dynamic) -> Native<i64> {
    let version = value.as_int().ok().filter(|version| *version >= 0);
    version.ok_or_else(|| invalid("if_version must be a whole number, 0 or more"))
}
