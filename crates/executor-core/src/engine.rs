//! The one engine: shared by all threads, since nothing in it changes after it was made.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use picloud_shared::{AppId, ScriptPath, snapshot::ScriptSource};
use rhai::{
    AST, Engine, EvalAltResult, FnNamespace, Module, ModuleResolver, OptimizationLevel, Position,
    Scope, Shared, Token,
    packages::{Package, StandardPackage},
};

use crate::{limits, natives, sdk};

/// Nested calls. A frame of the interpreter takes a few KiB of a stack that has hundreds of MiB.
const MAX_CALLS: usize = 64;
/// Nested expressions in a script, and in a function of it.
const MAX_EXPRESSION: usize = 64;
/// Makes the engine, with every limit said.
pub(crate) fn engine() -> Engine {
    let mut engine = raw();
    natives::register(&mut engine);
    sdk::register(&mut engine);
    engine.set_module_resolver(SnapshotModules::default());
    engine.on_progress(limits::progress);
    engine
}

/// An engine that only compiles.
pub(crate) fn compiler() -> Engine {
    raw()
}

fn raw() -> Engine {
    let mut engine = Engine::new_raw();
    engine.register_global_module(StandardPackage::new().as_shared_module());
    // An interner would be a lock that all threads share.
    engine.set_max_strings_interned(0);
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_max_call_levels(MAX_CALLS);
    engine.set_max_expr_depths(MAX_EXPRESSION, MAX_EXPRESSION);
    engine.set_max_operations(0);
    // The sizes of values are bounded by the memory that they take: the engine would count each
    // value from the beginning after each change of it.
    engine.set_max_string_size(0);
    engine.set_max_array_size(0);
    engine.set_max_map_size(0);
    engine.set_max_variables(4096);
    engine.set_max_functions(1024);
    engine.set_max_modules(256);
    engine.set_fast_operators(true);
    engine.set_strict_variables(false);
    for gone in ["eval", "sleep"] {
        engine.disable_symbol(gone);
    }
    // What a script prints goes nowhere; `log` is for that.
    engine.on_print(|_| {});
    engine.on_debug(|_, _, _| {});
    name_debug(&mut engine);
    engine
}

/// `debug` is a reserved word of the language; as `log::debug` it is a function of ours.
#[expect(
    deprecated,
    reason = "the engine calls this hook volatile; the version is pinned exactly"
)]
fn name_debug(engine: &mut Engine) {
    engine.on_parse_token(|token, _, _| match token {
        Token::Reserved(word) if word.as_str() == "debug" => Token::Identifier(word),
        other => other,
    });
}

/// Compiles a script. Its path stands in the errors of what it runs.
pub(crate) fn compile(engine: &Engine, source: &ScriptSource) -> Result<AST, rhai::ParseError> {
    let mut ast = engine.compile(without_mark(source.text.as_ref()))?;
    ast.set_source(source.path.as_str());
    Ok(ast)
}

/// A text without the byte order mark that some editors put before it.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

type ModuleKey = (AppId, i64, ScriptPath);

/// `import "name"`: the running app's own modules, as of the generation that the run began on.
/// Nothing is read from anywhere else.
#[derive(Default, Clone)]
pub(crate) struct SnapshotModules {
    ready: Arc<RwLock<HashMap<ModuleKey, Shared<Module>>>>,
}

/// Modules that are kept; above it, all are dropped and made again as they are needed.
const MAX_MODULES: usize = 4096;

impl ModuleResolver for SnapshotModules {
    fn resolve(
        &self,
        engine: &Engine,
        _: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let missing = || {
            Box::new(EvalAltResult::ErrorModuleNotFound(
                path.to_owned(),
                position,
            ))
        };
        let app = limits::with(|state| Arc::clone(&state.cx.app)).ok_or_else(missing)?;
        let script: ScriptPath = format!("modules/{path}.rhai")
            .parse()
            .map_err(|_| missing())?;
        let source = app.scripts.get(&script).ok_or_else(missing)?;
        let key = (app.id, app.generation, script);
        if let Some(module) = self.ready.read().get(&key) {
            return Ok(Shared::clone(module));
        }
        let ast = compile(engine, source).map_err(|error| {
            EvalAltResult::ErrorInModule(path.to_owned(), Box::new(error.into()), position)
        })?;
        let mut module = Module::eval_ast_as_new(Scope::new(), &ast, engine)
            .map_err(|error| EvalAltResult::ErrorInModule(path.to_owned(), error, position))?;
        publish_closures(&mut module, &ast);
        module.build_index();
        let module = Shared::new(module);
        let mut ready = self.ready.write();
        if ready.len() >= MAX_MODULES {
            ready.clear();
        }
        ready.insert(key, Shared::clone(&module));
        Ok(module)
    }
}

/// A closure that a module's function returns is called by a name of its own, which is looked for
/// where the call stands: it has to be found there. Since no script can write such a name, nothing
/// else becomes visible.
#[expect(
    deprecated,
    reason = "the registration API has no way to say this of a script's function"
)]
fn publish_closures(module: &mut Module, ast: &AST) {
    let mut names = Module::new();
    for function in ast.iter_fn_def() {
        if is_closure(&function.name) {
            let hash = names.set_script_fn(Shared::clone(function));
            module.update_fn_namespace(hash, FnNamespace::Global);
        }
    }
}

/// Whether that is the name of a closure.
pub(crate) fn is_closure(name: &str) -> bool {
    name.starts_with("anon$")
}
