//! For terminals.

use std::fmt::Write;

use picloud_shared::plan::ChangeKind;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{action, kind, printable, shown_name, sign, summary};
use crate::review::{ChangeReview, FireTimes, Review};

/// How a terminal is.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Whether it shows colours.
    pub color: bool,
    /// Its columns; longer lines are folded.
    pub width: usize,
}

impl Layout {
    /// No colours, 100 columns: where nothing is known.
    pub const PLAIN: Self = Self {
        color: false,
        width: 100,
    };

    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A review without its errors, which are told by [`super::human`].
pub fn terminal(review: &Review, layout: Layout) -> String {
    let mut out = String::new();
    for app in &review.apps {
        let (sign, code, word) = action(app.action);
        let _ = writeln!(
            out,
            "{} {} will be {word}",
            layout.paint(code, sign),
            layout.paint("1", app.name.as_str())
        );
        let width = app
            .changes
            .iter()
            .map(|change| kind(change.change.kind).len());
        let width = width.max().unwrap_or(0);
        for change in &app.changes {
            item(&mut out, change, width, layout);
        }
    }
    for name in &review.kept {
        let _ = writeln!(
            out,
            "{} {name} stays at its last good commit",
            layout.paint("33", "!")
        );
    }
    for warning in &review.warnings {
        let text = format!("{}: {}", warning.app, printable(&warning.message));
        let head = layout.paint("1;33", "warning:");
        fold(
            &mut out,
            &format!("{head} "),
            "warning: ".len(),
            &text,
            layout,
        );
    }
    let _ = writeln!(out, "{}", layout.paint("1", &summary(review)));
    out
}

fn item(out: &mut String, review: &ChangeReview, width: usize, layout: Layout) {
    let change = &review.change;
    let (sign, code) = sign(change.change);
    let head = format!(
        "    {} {:width$}  ",
        layout.paint(code, sign),
        kind(change.kind)
    );
    let columns = 4 + 2 + width + 2;
    fold(
        out,
        &head,
        columns,
        &printable(shown_name(change.kind, &change.name)),
        layout,
    );
    for words in &review.words {
        fold(out, "        ", 8, &printable(words), layout);
    }
    if let Some(times) = &review.next_fire_times {
        fire_times(out, times, change.change);
    }
    for line in review.diff.iter().flat_map(|diff| diff.lines()) {
        let code = match line.as_bytes().first() {
            Some(b'+') => "32",
            Some(b'-') => "31",
            Some(b'@') => "36",
            _ => "0",
        };
        let line = printable(line);
        let line = if code == "0" {
            line
        } else {
            layout.paint(code, &line)
        };
        let _ = writeln!(out, "        {line}");
    }
}

fn fire_times(out: &mut String, times: &FireTimes, change: ChangeKind) {
    if change == ChangeKind::Changed && times.old != times.new {
        // Beside each other: what was, and what will be.
        let left = times
            .old
            .iter()
            .map(String::len)
            .max()
            .unwrap_or(0)
            .max("fires now".len());
        let _ = writeln!(out, "        {:left$}    would fire", "fires now");
        for index in 0..times.old.len().max(times.new.len()) {
            let side = |side: &[String]| side.get(index).cloned().unwrap_or_default();
            let line = format!("        {:left$}    {}", side(&times.old), side(&times.new));
            let _ = writeln!(out, "{}", line.trim_end());
        }
    } else if change != ChangeKind::Removed {
        for (index, time) in times.new.iter().enumerate() {
            let label = if index == 0 { "fires" } else { "" };
            let _ = writeln!(out, "        {label:5} {time}");
        }
    }
}

/// Writes text behind a head, folded at the terminal's width; what follows stands below the text.
fn fold(out: &mut String, head: &str, columns: usize, text: &str, layout: Layout) {
    let room = layout.width.saturating_sub(columns).max(20);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.width() + 1 + word.width() > room {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            // A word longer than a line is broken where the line ends.
            if line.width() + c.width().unwrap_or(0) > room {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    for (index, line) in lines.iter().enumerate() {
        let before = if index == 0 {
            head.to_owned()
        } else {
            " ".repeat(columns)
        };
        let _ = writeln!(out, "{}", format!("{before}{line}").trim_end());
    }
}
