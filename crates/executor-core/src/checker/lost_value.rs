//! Values that look like a script's and are nobody's.

use picloud_shared::script::{ScriptProblem, ScriptProblemKind};
use rhai::{Expr, Stmt};

/// What a `catch` block ends with. The engine gives `()` for it, unlike for a `try` block: a handler
/// that ends so answers 204.
pub(super) fn of_catch(statement: &Stmt) -> Option<ScriptProblem> {
    let Stmt::TryCatch(flow, _) = statement else {
        return None;
    };
    let position = match flow.branch.statements().last()? {
        Stmt::Expr(value) if is_bare(value) => value.position(),
        Stmt::FnCall(call, position) if call.is_operator_call() => *position,
        _ => return None,
    };
    let (line, column) = super::place(position);
    Some(ScriptProblem {
        kind: ScriptProblemKind::Warning,
        line,
        column,
        message: "the value of a `catch` block is lost".to_owned(),
        hint: Some("write `return …;`, or assign it to a variable".to_owned()),
    })
}

/// Whether an expression does nothing but give a value.
fn is_bare(value: &Expr) -> bool {
    match value {
        Expr::FnCall(call, _) => call.is_operator_call(),
        Expr::Unit(_)
        | Expr::Dot(..)
        | Expr::Index(..)
        | Expr::MethodCall(..)
        | Expr::Stmt(_)
        | Expr::And(..)
        | Expr::Or(..)
        | Expr::Coalesce(..)
        | Expr::Custom(..) => false,
        _ => true,
    }
}
