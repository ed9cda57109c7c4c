//! The texts of a script, before and after.

use similar::TextDiff;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Lines of a diff.
const MAX_LINES: usize = 400;
/// Bytes of a line.
const MAX_LINE: usize = 400;

/// A unified diff without the head that names files; the lines beyond a few hundred are counted.
pub(super) fn unified(old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    let text = diff
        .unified_diff()
        .context_radius(CONTEXT)
        .missing_newline_hint(false)
        .to_string();
    let mut out = String::new();
    let mut lines = text.lines();
    for line in lines.by_ref().take(MAX_LINES) {
        if line.len() > MAX_LINE {
            out.push_str(&line[..line.floor_char_boundary(MAX_LINE)]);
            out.push('…');
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    let rest = lines.count();
    if rest > 0 {
        out.push_str(&format!("… {rest} more lines\n"));
    }
    out
}
