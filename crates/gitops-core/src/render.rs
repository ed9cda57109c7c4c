//! A plan and findings, for terminals, pull requests and programs: all from the same value.

use std::fmt::Write;

use picloud_shared::{
    Diagnostic, Plan, Severity,
    plan::{AppAction, Change, ChangeKind, FieldChange},
};
use serde_json::{Value, json};

/// For programs: what the API answers to a plan.
pub fn json(plan: &Plan, errors: &[Diagnostic]) -> Value {
    json!({ "changes": plan.changes().collect::<Vec<_>>(), "errors": errors })
}

/// `2 apps to create, 1 to update, 0 to remove; 12 changes`
pub fn summary(plan: &Plan) -> String {
    let count = |action| {
        plan.apps
            .values()
            .filter(|app| app.action == action)
            .count()
    };
    if plan.is_empty() {
        return "No changes.".to_owned();
    }
    format!(
        "{} to create, {} to update, {} to remove; {} changes",
        count(AppAction::Create),
        count(AppAction::Update),
        count(AppAction::Remove),
        plan.changes().count()
    )
}

/// For terminals.
pub fn terminal(plan: &Plan, color: bool) -> String {
    let paint = |code: &str, text: &str| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut out = String::new();
    for (name, app) in &plan.apps {
        let (sign, code, word) = match app.action {
            AppAction::Create => ("+", "32", "created"),
            AppAction::Update => ("~", "33", "updated"),
            AppAction::Remove => ("-", "31", "removed"),
        };
        let _ = writeln!(
            out,
            "{} {} will be {word}",
            paint(code, sign),
            paint("1", name.as_str())
        );
        let width = app
            .changes
            .iter()
            .map(|change| kind(change).len())
            .max()
            .unwrap_or(0);
        for change in &app.changes {
            let (sign, code) = self::sign(change.change);
            let _ = writeln!(
                out,
                "    {} {:width$}  {}",
                paint(code, sign),
                kind(change),
                change.name
            );
            if change.change == ChangeKind::Changed {
                for field in &change.fields {
                    let _ = writeln!(out, "        {}", field_line(field));
                }
            }
        }
    }
    for name in &plan.kept {
        let _ = writeln!(
            out,
            "{} {name} stays at its last good commit",
            paint("33", "!")
        );
    }
    let _ = writeln!(out, "{}", paint("1", &summary(plan)));
    out
}

/// For a pull request.
pub fn markdown(plan: &Plan, errors: &[Diagnostic]) -> String {
    let mut out = format!("### PiCloud plan\n\n{}\n", summary(plan));
    for (name, app) in &plan.apps {
        let _ = write!(
            out,
            "\n<details open><summary><code>{name}</code>: {} changes</summary>\n\n",
            app.changes.len()
        );
        out.push_str("| | kind | name | change |\n|---|---|---|---|\n");
        for change in &app.changes {
            let fields: Vec<String> = match change.change {
                ChangeKind::Changed => change.fields.iter().map(field_line).collect(),
                _ => Vec::new(),
            };
            let _ = writeln!(
                out,
                "| {} | {} | `{}` | {} |",
                sign(change.change).0,
                kind(change),
                cell(&change.name),
                cell(&fields.join("; "))
            );
        }
        out.push_str("\n</details>\n");
    }
    if !errors.is_empty() {
        let _ = write!(
            out,
            "\n#### Errors\n\n```text\n{}```\n",
            human(errors, false).replace("```", "'''")
        );
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn sign(change: ChangeKind) -> (&'static str, &'static str) {
    match change {
        ChangeKind::Added => ("+", "32"),
        ChangeKind::Changed => ("~", "33"),
        ChangeKind::Removed => ("-", "31"),
    }
}

fn kind(change: &Change) -> String {
    let value = serde_json::to_value(change.kind).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn field_line(field: &FieldChange) -> String {
    format!(
        "{}: {} → {}",
        field.path,
        short(&field.old),
        short(&field.new)
    )
}

/// A value for people: absent as `none`, object ids by their first digits.
fn short(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            text[..7].to_owned()
        }
        Value::String(text) => crate::decode::excerpt(text),
        other => crate::decode::excerpt(&other.to_string()),
    }
}

/// Findings for people.
pub fn human(findings: &[Diagnostic], color: bool) -> String {
    let paint = |code: &str, text: &str| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut out = String::new();
    for finding in findings {
        let (code, word) = match finding.severity {
            Severity::Error => ("1;31", "error"),
            Severity::Warning => ("1;33", "warning"),
        };
        let head = paint(code, &format!("{word}[{}]", finding.code));
        let _ = writeln!(
            out,
            "{}:{}:{}: {head}: {}",
            finding.path, finding.line, finding.column, finding.message
        );
        if let Some(line) = &finding.excerpt {
            let number = finding.line.to_string();
            let margin = " ".repeat(number.len());
            let before: String = line
                .chars()
                .take(finding.column as usize - 1)
                .map(|_| ' ')
                .collect();
            let carets = "^".repeat(finding.length.min(80) as usize);
            let _ = writeln!(out, "{number} | {}", line.trim_end());
            let _ = writeln!(out, "{margin} | {before}{}", paint(code, &carets));
        }
        if let Some(hint) = &finding.hint {
            let _ = writeln!(out, "  = hint: {hint}");
        }
    }
    out
}

/// Findings as workflow commands of GitHub Actions.
pub fn github(findings: &[Diagnostic]) -> String {
    let escape = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for finding in findings {
        let word = if finding.is_error() {
            "error"
        } else {
            "warning"
        };
        let hint = finding
            .hint
            .as_deref()
            .map(|hint| format!(" ({hint})"))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "::{word} file={},line={},col={},title={}::{}",
            property(&finding.path),
            finding.line,
            finding.column,
            finding.code,
            escape(&format!("{}{hint}", finding.message))
        );
    }
    out
}

/// Findings as SARIF 2.1.0.
pub fn sarif(findings: &[Diagnostic], version: &str) -> Value {
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "ruleId": finding.code,
                "level": if finding.is_error() { "error" } else { "warning" },
                "message": { "text": finding.message },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": finding.path },
                    "region": { "startLine": finding.line, "startColumn": finding.column },
                }}],
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{ "tool": { "driver": { "name": "picloud", "version": version } }, "results": results }],
    })
}
