//! What people read on a terminal: colours where they are wanted, aligned tables, short times.

use std::io::IsTerminal;

use chrono::{DateTime, Utc};
use unicode_width::UnicodeWidthStr;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    color: bool,
}

impl Style {
    /// For standard output: colours on a terminal, unless `NO_COLOR` says no (no-color.org).
    pub fn stdout() -> Self {
        Self::when(std::io::stdout().is_terminal())
    }

    /// For standard error.
    pub fn stderr() -> Self {
        Self::when(std::io::stderr().is_terminal())
    }

    fn when(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            color: terminal && !refused,
        }
    }

    /// Whether colours are on.
    pub fn is_on(self) -> bool {
        self.color
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Headings.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What went well.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What a person should look at.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What went wrong.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// A status word in its colour.
    pub fn status(self, word: &str) -> String {
        match word {
            "synced" | "ok" | "healthy" => self.green(word),
            "failed" | "timeout" | "limit" | "crashed" | "rejected" => self.red(word),
            "idle" | "applying" => self.dim(word),
            _ => self.yellow(word),
        }
    }
}

/// The width of the terminal, or 100 where there is none.
pub fn width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|columns| (20..=1000).contains(columns))
        .unwrap_or(100)
}

/// Text of a server made safe to print: control characters (an escape sequence in a commit
/// message) are shown as `\u{..}`, so nothing that was pushed can write to the terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Rows with a heading, columns as wide as their widest cell.
#[derive(Debug)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; a missing cell is empty.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines. A cell that is a known status word is coloured.
    pub fn render(&self, style: Style) -> String {
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|column| self.width_of(column))
            .collect();
        let heading: Vec<String> = self.heading.iter().map(|text| (*text).to_owned()).collect();
        let mut out = style.dim(&line(&heading, &widths, Style { color: false }));
        out.push('\n');
        for row in &self.rows {
            out.push_str(&line(row, &widths, style));
            out.push('\n');
        }
        out
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.width())
            .chain([self.heading[column].width()])
            .max()
            .unwrap_or(0)
    }
}

fn line(cells: &[String], widths: &[usize], style: Style) -> String {
    let mut out = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if index > 0 {
            out.push_str("  ");
        }
        let last = index + 1 == cells.len();
        let padding = if last {
            0
        } else {
            width.saturating_sub(cell.width())
        };
        out.push_str(&coloured(cell, style));
        out.push_str(&" ".repeat(padding));
    }
    out.trim_end().to_owned()
}

fn coloured(cell: &str, style: Style) -> String {
    const WORDS: [&str; 14] = [
        "synced",
        "ok",
        "healthy",
        "failed",
        "timeout",
        "limit",
        "crashed",
        "rejected",
        "partial",
        "drifted",
        "suspended",
        "degraded",
        "held",
        "reverted",
    ];
    if WORDS.contains(&cell) {
        style.status(cell)
    } else {
        cell.to_owned()
    }
}

/// How long ago, in one unit: `12s`, `5m`, `3h`, `9d`.
pub fn age(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds for people: `0.42 ms`, `38 ms`, `1.20 s`.
pub fn milliseconds(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1000.0)
    }
}

/// The lines in a frame.
pub fn framed(lines: &[String]) -> String {
    let width = lines.iter().map(|text| text.width()).max().unwrap_or(0);
    let bar = "─".repeat(width + 2);
    let mut out = format!("┌{bar}┐\n");
    for text in lines {
        let padding = " ".repeat(width - text.width());
        out.push_str(&format!("│ {text}{padding} │\n"));
    }
    out.push_str(&format!("└{bar}┘"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(&["NAME", "STATUS", "AGE"]);
        table.row(vec!["guestbook".into(), "synced".into(), "3s".into()]);
        table.row(vec!["ü".into(), "failed".into(), "10d".into()]);
        insta::assert_snapshot!(table.render(Style { color: false }), @r"
        NAME       STATUS  AGE
        guestbook  synced  3s
        ü          failed  10d
        ");
    }

    #[test]
    fn frames_fit_their_text() {
        insta::assert_snapshot!(framed(&["PiCloud".into(), "key  pic_x".into()]), @r"
        ┌────────────┐
        │ PiCloud    │
        │ key  pic_x │
        └────────────┘
        ");
    }

    #[test]
    fn nothing_pushed_can_write_to_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb"), "a\\u{1b}[2Jb");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(milliseconds(0.416), "0.42 ms");
        assert_eq!(milliseconds(38.4), "38 ms");
        assert_eq!(milliseconds(1204.0), "1.20 s");
    }
}
