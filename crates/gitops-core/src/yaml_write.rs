//! YAML as a person would write it, for what is put into a file that a person wrote.

/// A value to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plain {
    /// Text, quoted where it has to be.
    Text(String),
    /// A number or boolean, as it stands.
    Word(String),
    /// A sequence.
    List(Vec<Plain>),
    /// A mapping, in this order.
    Map(Vec<(String, Plain)>),
}

impl Plain {
    /// Text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number or boolean.
    pub(crate) fn word(word: impl ToString) -> Self {
        Self::Word(word.to_string())
    }

    /// A list of texts.
    pub(crate) fn texts<'t>(texts: impl IntoIterator<Item = &'t String>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    fn is_scalar(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Word(_))
    }
}

/// The longest list that is written in one line.
const MAX_FLOW: usize = 80;

/// A value in one line.
pub(crate) fn flow(value: &Plain) -> String {
    match value {
        Plain::Text(text) => quoted(text),
        Plain::Word(word) => word.clone(),
        Plain::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Plain::Map(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), flow(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// `key: value`, in as many lines as it takes; all but the first are indented.
pub(crate) fn entry(key: &str, value: &Plain, indent: usize) -> String {
    let key = quoted(key);
    match value {
        Plain::Text(text) => match literal(text, indent + 2) {
            Some(block) => format!("{key}: {block}"),
            None => format!("{key}: {}", quoted(text)),
        },
        Plain::List(items) if items.iter().all(Plain::is_scalar) => {
            let line = flow(value);
            if line.chars().count() + key.len() + indent + 2 <= MAX_FLOW || items.is_empty() {
                return format!("{key}: {line}");
            }
            format!("{key}:\n{}", list(items, indent + 2))
        }
        Plain::List(items) => format!("{key}:\n{}", list(items, indent + 2)),
        Plain::Map(entries) if !entries.is_empty() => {
            let space = " ".repeat(indent + 2);
            format!("{key}:\n{space}{}", map(entries, indent + 2))
        }
        value => format!("{key}: {}", flow(value)),
    }
}

/// The entries of a mapping; all lines but the first are indented.
pub(crate) fn map(entries: &[(String, Plain)], indent: usize) -> String {
    let lines: Vec<String> = entries
        .iter()
        .map(|(key, value)| entry(key, value, indent))
        .collect();
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

/// `- item`; all lines but the first are indented.
pub(crate) fn item(value: &Plain, indent: usize) -> String {
    match value {
        Plain::Map(entries) if !entries.is_empty() => format!("- {}", map(entries, indent + 2)),
        value => format!("- {}", flow(value)),
    }
}

fn list(items: &[Plain], indent: usize) -> String {
    let space = " ".repeat(indent);
    let lines: Vec<String> = items
        .iter()
        .map(|value| format!("{space}{}", item(value, indent)))
        .collect();
    lines.join("\n")
}

/// Text of several lines as a block (YAML 1.2, section 8.1.2); `None`: better in quotes.
fn literal(text: &str, indent: usize) -> Option<String> {
    let lines: Vec<&str> = text
        .strip_suffix('\n')
        .unwrap_or(text)
        .split('\n')
        .collect();
    let odd = |line: &&str| {
        line.starts_with([' ', '\t'])
            || line.ends_with([' ', '\t'])
            || line.chars().any(|c| c.is_control() || is_break(c))
    };
    let fits = lines.len() > 1
        && !lines.iter().any(odd)
        && !lines.first().is_some_and(|line| line.is_empty())
        && !lines.last().is_some_and(|line| line.is_empty());
    if !fits {
        return None;
    }
    let head = if text.ends_with('\n') { "|" } else { "|-" };
    let space = " ".repeat(indent);
    let mut out = head.to_owned();
    for line in lines {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&space);
            out.push_str(line);
        }
    }
    Some(out)
}

/// What other readers than ours take for the end of a line, or don't take at all.
fn is_break(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Text in one line: bare where nothing could take it for something else.
pub(crate) fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./@+$".contains(c);
    let taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/');
    let duration = picloud_shared::duration::milliseconds(text).is_some()
        && text.ends_with(|c: char| c.is_ascii_alphabetic());
    let size = crate::units::bytes(text).is_some()
        && text.ends_with("iB")
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    let plain = text.chars().all(bare) && !taken.contains(&text.to_ascii_lowercase().as_str());
    if plain && (begins || duration || size) {
        return text.to_owned();
    }
    double(text)
}

/// In single quotes, if such a text can stand in them.
pub(crate) fn single(text: &str) -> Option<String> {
    let odd = |c: char| c == '\'' || c.is_control() || is_break(c);
    (!text.contains(odd)).then(|| format!("'{text}'"))
}

/// In double quotes (YAML 1.2, section 5.7).
fn double(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || is_break(c) => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::{self, Yaml};

    fn read(text: &str) -> String {
        let root = yaml::parse(text).expect(text).expect("a document");
        match &root.value {
            Yaml::Map(entries) => match &entries[0].1.value {
                Yaml::Text(text) => text.clone(),
                other => panic!("{text}: {}", other.what()),
            },
            other => panic!("{text}: {}", other.what()),
        }
    }

    proptest! {
        #[test]
        fn texts_are_read_as_they_were(text in "(\\PC|[\n\t \\-:#'\"{}\\[\\]|>&*!%@,?a0])*") {
            prop_assert_eq!(read(&entry("k", &Plain::text(&text), 0)), text.clone());
            let one = flow(&Plain::Map(vec![("k".to_owned(), Plain::text(&text))]));
            prop_assert_eq!(read(&one), text);
        }
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
        let cases = [
            ("scripts/a.rhai", "scripts/a.rhai"),
            ("5s", "5s"),
            ("64MiB", "64MiB"),
            ("1e3", "\"1e3\""),
            ("0 9 * * *", "\"0 9 * * *\""),
            ("yes", "\"yes\""),
            ("", "\"\""),
            ("/x/{id}", "\"/x/{id}\""),
        ];
        for (text, expected) in cases {
            assert_eq!(quoted(text), expected);
        }
    }
}
