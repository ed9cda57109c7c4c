//! The engine's own functions that one call of could take any amount of memory, time or stack:
//! written anew, with the same meaning, so that each asks while it works.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the engine hands arguments over by value"
)]

mod arrays;
mod bytes;
mod chars;
mod equal;
mod show;
mod sort;
mod text;

use rhai::{Engine, FuncRegistration, Module, RhaiNativeFunc, Variant};

pub(crate) use show::show;

/// What a native function gives.
type Native<T> = Result<T, Box<rhai::EvalAltResult>>;

/// Puts them before the engine's own.
pub(crate) fn register(engine: &mut Engine) {
    let mut module = Module::new();
    arrays::register(&mut module);
    bytes::register(&mut module);
    chars::register(&mut module);
    equal::register(&mut module);
    show::register(&mut module);
    sort::register(&mut module);
    text::register(&mut module);
    // A symbol that is disabled can still be called through a function pointer.
    add(&mut module, &["sleep"], true, |_: i64| gone("sleep"));
    add(&mut module, &["sleep"], true, |_: f64| gone("sleep"));
    engine.register_global_module(module.into());
}

fn gone(name: &str) -> Native<()> {
    Err(Box::new(rhai::EvalAltResult::ErrorFunctionNotFound(
        name.to_owned(),
        rhai::Position::NONE,
    )))
}

/// Adds a function under each of its names; `pure` may be called on constants.
fn add<A: 'static, const N: usize, const X: bool, R, const F: bool>(
    module: &mut Module,
    names: &[&str],
    pure: bool,
    function: impl RhaiNativeFunc<A, N, X, R, F> + Clone + Send + Sync + 'static,
) where
    R: Variant + Clone,
{
    for name in names {
        FuncRegistration::new(*name)
            .with_purity(pure)
            .in_global_namespace()
            .set_into_module(module, function.clone());
    }
}
