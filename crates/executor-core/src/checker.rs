//! What can be said of a script without running it.

mod language;
mod lost_value;

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{
    ScriptPath,
    app::ScriptKind,
    script::{
        Export, Import, ModuleCall, ScriptChecker, ScriptProblem, ScriptProblemKind, ScriptReport,
    },
};
use rhai::{AST, ASTNode, Engine, Expr, FnAccess, Position, Stmt};

use crate::{engine, sdk};

/// Compiles scripts, and looks at what they import and call.
pub struct RhaiChecker {
    engine: Engine,
}

impl RhaiChecker {
    /// A checker with the engine's own rules.
    pub fn new() -> Self {
        Self {
            engine: engine::compiler(),
        }
    }
}

impl Default for RhaiChecker {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptChecker for RhaiChecker {
    fn check(&self, _: &ScriptPath, _: ScriptKind, source: &str) -> ScriptReport {
        let mut report = ScriptReport::default();
        let ast = match self.engine.compile(engine::without_mark(source)) {
            Ok(ast) => ast,
            Err(error) => {
                let (line, column) = place(error.position());
                report.problems.push(ScriptProblem {
                    kind: ScriptProblemKind::Syntax,
                    line,
                    column,
                    message: error.err_type().to_string(),
                    hint: None,
                });
                return report;
            }
        };
        let mut look = Look::new(&ast);
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last() {
                look.import(import, &mut report);
            }
            if let Some(ASTNode::Stmt(statement)) = path.last() {
                report.problems.extend(lost_value::of_catch(statement));
            }
            true
        });
        let mut own_calls = Vec::new();
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            let call = match path.last() {
                Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => Some((call, position)),
                Some(ASTNode::Expr(Expr::FnCall(call, position))) => Some((call, position)),
                _ => None,
            };
            if let Some((call, position)) = call {
                look.call(call, *position, &mut report);
                if look.is_own(call) {
                    own_calls.push(*position);
                }
            }
            true
        });
        closures(&ast, &own_calls, &mut report);
        report.exports = exports(&ast);
        report
            .problems
            .sort_by_key(|problem| (problem.line, problem.column));
        report.problems.dedup();
        report
    }
}

fn exports(ast: &AST) -> Vec<Export> {
    let public = ast.iter_functions().filter(|function| {
        function.access == FnAccess::Public && !engine::is_closure(function.name)
    });
    let mut exports: Vec<Export> = public
        .map(|function| Export {
            name: function.name.to_owned(),
            parameters: function.params.len(),
        })
        .collect();
    // The engine keeps them in no order.
    exports.sort();
    exports
}

#[derive(Default)]
struct Look {
    /// Modules of the app, by the names under which this script knows them.
    aliases: BTreeMap<String, String>,
    /// The script's own functions.
    own: BTreeMap<String, BTreeSet<usize>>,
    /// Those for values of one type, whose arguments the value adds to.
    methods: BTreeSet<String>,
}

impl Look {
    fn new(ast: &AST) -> Self {
        let mut look = Self::default();
        for function in ast.iter_fn_def() {
            let name = function.name.to_string();
            if function.this_type.is_some() {
                look.methods.insert(name);
            } else {
                let arities = look.own.entry(name).or_default();
                arities.insert(function.params.len());
            }
        }
        look
    }

    fn import(&mut self, import: &(Expr, rhai::Ident), report: &mut ScriptReport) {
        let (from, alias) = import;
        let (line, column) = place(from.position());
        if let Expr::StringConstant(name, _) = from {
            self.aliases
                .insert(alias.name.to_string(), name.to_string());
            report.imports.push(Import {
                name: name.to_string(),
                line,
                column,
            });
        } else {
            self.aliases.insert(alias.name.to_string(), String::new());
            report.problems.push(ScriptProblem {
                kind: ScriptProblemKind::DynamicImport,
                line,
                column,
                message: "the name of an imported module must be plain text".to_owned(),
                hint: Some("write `import \"name\" as name;`".to_owned()),
            });
        }
    }

    fn call(&self, call: &rhai::FnCallExpr, position: Position, report: &mut ScriptReport) {
        let namespace = call.namespace.to_string();
        let module = namespace.trim_end_matches("::");
        let position = if call.namespace.is_empty() {
            position
        } else {
            call.namespace.position()
        };
        let (line, column) = place(position);
        if module == "global" {
            return;
        }
        if module.is_empty() {
            if let Some((kind, message, hint)) = self.bare(call) {
                report.problems.push(ScriptProblem {
                    kind,
                    line,
                    column,
                    message,
                    hint,
                });
            }
            return;
        }
        if let Some(imported) = self.aliases.get(module) {
            report.module_calls.push(ModuleCall {
                module: imported.clone(),
                function: call.name.to_string(),
                arguments: call.args.len(),
                line,
                column,
            });
            return;
        }
        // A module that a module of the app imports is known as a part of it.
        let first = module.split("::").next().unwrap_or_default();
        if self.aliases.contains_key(first) {
            return;
        }
        invoked(module, call, (line, column), report);
        if let Some((kind, message, hint)) = of_sdk(module, call) {
            report.problems.push(ScriptProblem {
                kind,
                line,
                column,
                message,
                hint,
            });
        }
    }

    /// A call without a module: of the script's own functions, or of the language's.
    fn bare(&self, call: &rhai::FnCallExpr) -> Option<Finding> {
        let (name, count) = (call.name.as_str(), call.args.len());
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // Operators are calls, too.
        if !name.chars().all(word) || language::is_word(name) || self.methods.contains(name) {
            return None;
        }
        let own = self.own.get(name);
        let standard = language::arities(name);
        // Given the caller's scope (`f!(…)`), or not, the arguments are counted alike.
        if own.is_some_and(|own| own.contains(&count))
            || standard.is_some_and(|known| known.contains(&count))
        {
            return None;
        }
        if own.is_none() && standard.is_none() {
            let mut known: Vec<&str> = self.own.keys().map(String::as_str).collect();
            for name in language::names() {
                known.push(name);
            }
            let hint = in_a_module(name)
                .or_else(|| near(name, known.into_iter()))
                .or_else(|| {
                    Some(format!(
                        "a closure in a variable is called with {name}.call(…)"
                    ))
                });
            let message = format!("there is no function `{name}`");
            return Some((ScriptProblemKind::UnknownFunction, message, hint));
        }
        let arities: BTreeSet<usize> = own
            .into_iter()
            .flatten()
            .copied()
            .chain(standard.into_iter().flatten().copied())
            .collect();
        let takes: Vec<String> = arities.iter().map(ToString::to_string).collect();
        Some((
            ScriptProblemKind::WrongArity,
            format!("{name} does not take {count} arguments"),
            Some(format!("it takes {}", takes.join(" or "))),
        ))
    }

    /// Whether a call is of a function that another script may have by the same name.
    fn is_own(&self, call: &rhai::FnCallExpr) -> bool {
        let namespace = call.namespace.to_string();
        let module = namespace.trim_end_matches("::");
        module == "global"
            || self.aliases.contains_key(module)
            || module.is_empty() && self.own.contains_key(call.name.as_str())
    }
}

/// A closure goes by a name that is made of its text and its place: two modules that have the
/// same one would be taken for each other, where it matters whose it is.
fn closures(ast: &AST, own_calls: &[Position], report: &mut ScriptReport) {
    for function in ast.iter_fn_def() {
        if !engine::is_closure(&function.name) {
            continue;
        }
        let (start, end) = (function.body.start_position(), function.body.end_position());
        let within = |at: &&Position| {
            let ends = if end.is_none() {
                at.line() == start.line()
            } else {
                **at <= end
            };
            **at >= start && ends
        };
        if own_calls.iter().any(|at| within(&at)) {
            let (line, column) = place(start);
            report.closures.push(Import {
                name: function.name.to_string(),
                line,
                column,
            });
        }
    }
}

/// Which kind of problem, what is wrong, and what to do.
type Finding = (ScriptProblemKind, String, Option<String>);

/// `scripts::invoke("scripts/x.rhai", …)`: which scripts are used.
fn invoked(
    module: &str,
    call: &rhai::FnCallExpr,
    (line, column): (u32, u32),
    report: &mut ScriptReport,
) {
    if module != "scripts" || !matches!(call.name.as_str(), "invoke" | "enqueue") {
        return;
    }
    match call.args.first() {
        Some(Expr::StringConstant(name, _)) => report.invokes.push(Import {
            name: name.to_string(),
            line,
            column,
        }),
        _ => report.invokes_any = true,
    }
}

/// A call of a function of the SDK.
fn of_sdk(module: &str, call: &rhai::FnCallExpr) -> Option<Finding> {
    let name = call.name.as_str();
    let same: Vec<_> = sdk::functions()
        .filter(|known| known.module == module)
        .collect();
    let found = same.iter().find(|known| known.name == name);
    Some(match found {
        Some(known) if known.arguments.contains(&call.args.len()) => return None,
        Some(known) => (
            ScriptProblemKind::WrongArity,
            format!(
                "{module}::{name} does not take {} arguments",
                call.args.len()
            ),
            Some(format!(
                "it is {module}::{}",
                known.signatures.join(&format!(" or {module}::"))
            )),
        ),
        None if same.is_empty() => (
            ScriptProblemKind::UnknownFunction,
            format!("there is no module `{module}`"),
            near(module, sdk::functions().map(|known| known.module)).or_else(|| {
                Some(format!(
                    "a module of the app is imported first: import \"{module}\" as {module};"
                ))
            }),
        ),
        None => (
            ScriptProblemKind::UnknownFunction,
            format!("the module `{module}` has no function `{name}`"),
            near(name, same.iter().map(|known| known.name)).or_else(|| {
                let known = same.iter().map(|known| known.name);
                Some(format!("it has {}", known.collect::<Vec<_>>().join(", ")))
            }),
        ),
    })
}

/// `now()` where `time::now()` is meant.
fn in_a_module(name: &str) -> Option<String> {
    let found = sdk::functions().find(|known| known.name == name)?;
    Some(format!("did you mean `{}::{name}`?", found.module))
}

fn near<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let best = names
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .min()?;
    let most = if written.chars().count() <= 4 { 1 } else { 2 };
    (best.0 <= most).then(|| format!("did you mean `{}`?", best.1))
}

fn place(position: Position) -> (u32, u32) {
    let number = |value: Option<usize>| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(1)
            .max(1)
    };
    (number(position.line()), number(position.position()))
}
