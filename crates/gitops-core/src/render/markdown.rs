//! For pull requests (GitHub Flavored Markdown, which the other forges read, too).

use std::fmt::Write;

use picloud_shared::{Diagnostic, plan::ChangeKind};

use super::{action, human, kind, many, printable, shown_name, sign, summary};
use crate::review::{AppReview, ChangeReview, FireTimes, Review};

/// Characters of a comment: GitHub takes 65,536, and whoever posts it adds some of their own.
const MAX: usize = 60_000;
/// Characters of it that errors may take: all of them are to be seen, whatever else is not.
const MAX_ERRORS: usize = MAX - 2_000;

/// A review for a pull request: as long as a comment may be, with the diffs left out first.
pub fn markdown(review: &Review) -> String {
    let whole = write(review, true);
    if whole.len() <= MAX {
        return whole;
    }
    let mut short = write(review, false);
    if short.len() > MAX {
        let end = short[..short.floor_char_boundary(MAX)]
            .rfind("\n<details")
            .unwrap_or(0);
        if end > 0 {
            short.truncate(end);
        } else {
            short.truncate(short.floor_char_boundary(MAX));
        }
        short.push_str("\n\nThe rest is too long for a comment; `picloud plan` shows it.\n");
    }
    short
}

fn write(review: &Review, diffs: bool) -> String {
    let mut out = format!("### PiCloud plan\n\n{}\n", summary(review));
    errors(&mut out, &review.errors);
    for warning in &review.warnings {
        let message = text(&warning.message);
        let _ = write!(out, "\n> **Warning** `{}`: {message}\n", warning.app);
    }
    for name in &review.kept {
        let _ = write!(out, "\n`{name}` stays at its last good commit.\n");
    }
    for app in &review.apps {
        self::app(&mut out, app, diffs);
    }
    let _ = write!(
        out,
        "\n<sub>plan `{}`</sub>\n",
        &review.hash[..12.min(review.hash.len())]
    );
    out
}

fn app(out: &mut String, app: &AppReview, diffs: bool) {
    let count = app.changes.len();
    let _ = write!(
        out,
        "\n<details open><summary><code>{}</code> will be {}: {count} {}</summary>\n\n",
        app.name,
        action(app.action).2,
        if count == 1 { "change" } else { "changes" },
    );
    out.push_str("| | kind | name | change |\n|---|---|---|---|\n");
    for review in &app.changes {
        let change = &review.change;
        let words: Vec<String> = review.words.iter().map(|words| text(words)).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            sign(change.change).0,
            kind(change.kind),
            code(shown_name(change.kind, &change.name)),
            words.join("<br>")
        );
    }
    for review in &app.changes {
        if let Some(times) = &review.next_fire_times {
            fire_times(out, review, times);
        }
        if let Some(diff) = review.diff.as_ref().filter(|_| diffs) {
            let _ = write!(out, "\n{}\n\n", code(&review.change.name));
            fenced(out, "diff", diff);
        }
    }
    out.push_str("\n</details>\n");
}

fn fire_times(out: &mut String, review: &ChangeReview, times: &FireTimes) {
    let name = code(&review.change.name);
    let changed = review.change.change == ChangeKind::Changed && times.old != times.new;
    if changed {
        let _ = write!(out, "\n{name} fires\n\n| now | then |\n|---|---|\n");
        for index in 0..times.old.len().max(times.new.len()) {
            let side =
                |side: &[String]| side.get(index).map_or_else(String::new, |time| code(time));
            let _ = writeln!(out, "| {} | {} |", side(&times.old), side(&times.new));
        }
    } else if review.change.change != ChangeKind::Removed && !times.new.is_empty() {
        let list: Vec<String> = times
            .new
            .iter()
            .map(|time| format!("- {}", code(time)))
            .collect();
        let _ = write!(out, "\n{name} fires\n\n{}\n", list.join("\n"));
    }
}

fn errors(out: &mut String, errors: &[Diagnostic]) {
    if errors.is_empty() {
        return;
    }
    let heading = if errors.iter().any(Diagnostic::is_error) {
        "Errors"
    } else {
        "Warnings"
    };
    let _ = write!(out, "\n#### {heading}\n\n");
    let mut shown = human(errors, false);
    if shown.len() > MAX_ERRORS {
        shown = many(errors, 0, false);
    }
    let mut left = 0;
    if shown.len() > MAX_ERRORS {
        let end = shown[..shown.floor_char_boundary(MAX_ERRORS)].rfind('\n');
        let rest = shown.split_off(end.map_or(0, |end| end + 1));
        left = rest.lines().count();
    }
    fenced(out, "text", &shown);
    if left > 0 {
        let _ = write!(out, "\nand {left} more\n");
    }
}

/// A block of code, whatever stands in it.
fn fenced(out: &mut String, language: &str, content: &str) {
    let fence = "`".repeat(longest_run(content).max(2) + 1);
    let _ = writeln!(out, "{fence}{language}");
    for line in content.lines() {
        let _ = writeln!(out, "{}", printable(line));
    }
    let _ = writeln!(out, "{fence}");
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A code span in a table's cell, whatever stands in it (GFM, section 4.10: `\|` also in code).
fn code(text: &str) -> String {
    let text = printable(text).replace('|', "\\|");
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// Words that are no markup, whatever stands in them.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // Nobody is called by what stands in a repository.
            '@' => out.push_str("&#64;"),
            c => out.push(c),
        }
    }
    out
}
