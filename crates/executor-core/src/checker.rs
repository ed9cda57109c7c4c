//! What can be said of a script without running it.

use std::collections::BTreeSet;

use picloud_shared::{
    ScriptPath,
    app::ScriptKind,
    script::{Import, ScriptChecker, ScriptProblem, ScriptProblemKind, ScriptReport},
};
use rhai::{ASTNode, Engine, Expr, Position, Stmt};

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
        let ast = match self.engine.compile(source) {
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
        let mut look = Look::default();
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::Import(import, _))) => look.import(import, &mut report),
                Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                    look.call(call, *position, &mut report);
                }
                Some(ASTNode::Expr(Expr::FnCall(call, position))) => {
                    look.call(call, *position, &mut report);
                }
                _ => {}
            }
            true
        });
        report
            .problems
            .sort_by_key(|problem| (problem.line, problem.column));
        report.problems.dedup();
        report
    }
}

#[derive(Default)]
struct Look {
    /// Names under which modules of the app are known in this script.
    aliases: BTreeSet<String>,
}

impl Look {
    fn import(&mut self, import: &(Expr, rhai::Ident), report: &mut ScriptReport) {
        let (from, alias) = import;
        self.aliases.insert(alias.name.to_string());
        let (line, column) = place(from.position());
        if let Expr::StringConstant(name, _) = from {
            report.imports.push(Import {
                name: name.to_string(),
                line,
                column,
            });
        } else {
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
        if module.is_empty() || module == "global" || self.aliases.contains(module) {
            return;
        }
        let position = if call.namespace.is_empty() {
            position
        } else {
            call.namespace.position()
        };
        let (line, column) = place(position);
        let name = call.name.as_str();
        let same: Vec<_> = sdk::functions()
            .filter(|known| known.module == module)
            .collect();
        let found = same.iter().find(|known| known.name == name);
        let (kind, message, hint) = match found {
            Some(known) if known.arguments.contains(&call.args.len()) => return,
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
                    Some(format!(
                        "it has {}",
                        same.iter()
                            .map(|known| known.name)
                            .collect::<Vec<_>>()
                            .join(", ")
                    ))
                }),
            ),
        };
        report.problems.push(ScriptProblem {
            kind,
            line,
            column,
            message,
            hint,
        });
    }
}

fn near<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let best = names
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .min()?;
    (best.0 <= 2).then(|| format!("did you mean `{}`?", best.1))
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
