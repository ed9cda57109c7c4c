//! What is wrong with a tree: for people, for GitHub Actions, for tools that read SARIF.

use std::{collections::BTreeSet, fmt::Write};

use picloud_shared::{Diagnostic, Severity};
use serde_json::{Value, json};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::printable;

/// Carets below a line.
const MAX_CARETS: usize = 80;

/// Findings for people.
pub fn human(findings: &[Diagnostic], color: bool) -> String {
    let mut out = String::new();
    for finding in findings {
        out.push_str(&headline(finding, color));
        if let Some(line) = &finding.excerpt {
            let number = finding.line.to_string();
            let margin = " ".repeat(number.len());
            let line = line.replace('\t', " ");
            let (before, carets) = below(&line, finding);
            let _ = writeln!(out, "{number} | {}", printable(line.trim_end()));
            // Of a very long line the begin is shown, which may end before the place.
            if (finding.column as usize) <= line.chars().count() + 1 {
                let carets = paint(color_of(finding), &carets, color);
                let _ = writeln!(out, "{margin} | {before}{carets}");
            }
        }
        if let Some(hint) = &finding.hint {
            let _ = writeln!(out, "  = hint: {}", printable(hint));
        }
    }
    out
}

/// Findings for people, where there are many: the first `whole` of them as [`human`] has them, of
/// the others one line each.
pub fn many(findings: &[Diagnostic], whole: usize, color: bool) -> String {
    let (first, rest) = findings.split_at(whole.min(findings.len()));
    let mut out = human(first, color);
    out.extend(rest.iter().map(|finding| headline(finding, color)));
    out
}

/// What and where, in a line.
fn headline(finding: &Diagnostic, color: bool) -> String {
    let word = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let head = format!("{word}[{}]", finding.code);
    format!(
        "{}:{}:{}: {}: {}\n",
        printable(&finding.path),
        finding.line,
        finding.column,
        paint(color_of(finding), &head, color),
        printable(&finding.message)
    )
}

/// SGR.
fn color_of(finding: &Diagnostic) -> &'static str {
    match finding.severity {
        Severity::Error => "1;31",
        Severity::Warning => "1;33",
    }
}

fn paint(code: &str, text: &str, color: bool) -> String {
    if color {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The space and the carets below a finding's line, in columns: a wide character has two.
fn below(line: &str, finding: &Diagnostic) -> (String, String) {
    let start = (finding.column as usize).saturating_sub(1);
    let length = (finding.length as usize).clamp(1, MAX_CARETS);
    let columns = |c: char| c.width().unwrap_or(0);
    let before: usize = line.chars().take(start).map(columns).sum();
    // Places beyond the line, as behind its end, have one column a character.
    let beyond = start.saturating_sub(line.chars().count());
    let meant: String = line.chars().skip(start).take(length).collect();
    let carets = meant.width() + (length - meant.chars().count());
    (" ".repeat(before + beyond), "^".repeat(carets.max(1)))
}

/// `3 errors, 1 warning`
pub fn count(findings: &[Diagnostic]) -> String {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let warnings = findings.len() - errors;
    let plural = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    match (errors, warnings) {
        (_, 0) => plural(errors, "error"),
        (0, _) => plural(warnings, "warning"),
        _ => format!(
            "{}, {}",
            plural(errors, "error"),
            plural(warnings, "warning")
        ),
    }
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
            "::{word} file={},line={},col={},endColumn={},title={}::{}",
            property(&finding.path),
            finding.line,
            finding.column,
            finding.column + finding.length,
            finding.code,
            escape(&format!("{}{hint}", finding.message))
        );
    }
    out
}

/// Findings as SARIF 2.1.0.
pub fn sarif(findings: &[Diagnostic], version: &str) -> Value {
    let codes: BTreeSet<&str> = findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    let rules: Vec<Value> = codes
        .iter()
        .map(|code| json!({ "id": code, "help": { "text": format!("docs/errors/{code}.md") } }))
        .collect();
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let hint = finding.hint.as_deref();
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            json!({
                "ruleId": finding.code,
                "ruleIndex": codes.iter().position(|code| *code == finding.code),
                "level": if finding.is_error() { "error" } else { "warning" },
                "message": { "text": format!("{}{hint}", finding.message) },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": uri(&finding.path), "uriBaseId": "%SRCROOT%" },
                    "region": {
                        "startLine": finding.line,
                        "startColumn": finding.column,
                        "endColumn": finding.column + finding.length,
                    },
                }}],
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "PiCloud",
                "semanticVersion": version,
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

/// A path as a relative reference (RFC 3986, section 4.2): a colon in its first part would be a
/// scheme.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into());
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
