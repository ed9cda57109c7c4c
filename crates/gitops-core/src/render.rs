//! A review and findings, for terminals, pull requests and programs: all from the same value.

mod findings;
mod markdown;
mod terminal;

use picloud_shared::plan::{AppAction, ChangeKind, ItemKind};
use serde_json::{Value, json};

pub use findings::{count, github, human, many, sarif};
pub use markdown::markdown;
pub use terminal::{Layout, terminal};

use crate::review::Review;

/// For programs: what the API answers to a plan.
pub fn json(review: &Review) -> Value {
    let changes: Vec<_> = review.apps.iter().flat_map(|app| &app.changes).collect();
    json!({
        "changes": changes,
        "errors": review.errors,
        "warnings": review.warnings,
        "kept": review.kept,
        "hash": review.hash,
        "summary": summary(review),
    })
}

/// `2 apps to create, 1 to update, 0 to remove; 12 changes`
pub fn summary(review: &Review) -> String {
    let count = |action| {
        review
            .apps
            .iter()
            .filter(|app| app.action == action)
            .count()
    };
    if review.is_empty() {
        return "No changes.".to_owned();
    }
    let changes = review.count();
    format!(
        "{} to create, {} to update, {} to remove; {changes} {}",
        count(AppAction::Create),
        count(AppAction::Update),
        count(AppAction::Remove),
        if changes == 1 { "change" } else { "changes" },
    )
}

/// The sign of a change, and its colour (SGR).
fn sign(change: ChangeKind) -> (&'static str, &'static str) {
    match change {
        ChangeKind::Added => ("+", "32"),
        ChangeKind::Changed => ("~", "33"),
        ChangeKind::Removed => ("-", "31"),
    }
}

fn action(action: AppAction) -> (&'static str, &'static str, &'static str) {
    match action {
        AppAction::Create => ("+", "32", "created"),
        AppAction::Update => ("~", "33", "updated"),
        AppAction::Remove => ("-", "31", "removed"),
    }
}

fn kind(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::App => "app",
        ItemKind::Domain => "domain",
        ItemKind::Route => "route",
        ItemKind::Trigger => "trigger",
        ItemKind::Script => "script",
        ItemKind::Static => "static",
        ItemKind::Permission => "permission",
        ItemKind::Limit => "limit",
        ItemKind::Env => "env",
        ItemKind::Secret => "secret",
        ItemKind::Check => "check",
    }
}

/// A name of an item for people: `timeout`, not `timeout_ms`.
fn shown_name(of: ItemKind, name: &str) -> &str {
    match of {
        ItemKind::Limit => name.strip_suffix("_ms").unwrap_or(name),
        _ => name,
    }
}

/// Text that was pushed, made safe to print: a control character (the begin of an escape sequence)
/// is shown as `\u{..}`, so that nothing in a repository can write to a reader's terminal.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' || is_bidi_control(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that show text in another order than it has (CVE-2021-42574).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
}
