//! Typed reading of nodes that reports everything that is wrong, at once.

use picloud_shared::{AppName, Diagnostic, Severity, duration};

use crate::{
    units,
    yaml::{Key, Node, Place, Yaml},
};

/// One file's findings, with the lines to show.
pub(crate) struct Report<'a> {
    path: String,
    lines: Vec<&'a str>,
    /// Put on findings as soon as it is known.
    pub(crate) app: Option<AppName>,
    pub(crate) found: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(path: impl Into<String>, text: &'a str) -> Self {
        // A byte order mark is no character of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            path: path.into(),
            lines: text.lines().collect(),
            app: None,
            found: Vec::new(),
        }
    }

    /// Whose findings these are.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn error(
        &mut self,
        code: &str,
        place: Place,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.add(Severity::Error, code, place, message.into(), hint);
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        code: &str,
        place: Place,
        message: String,
        hint: Option<String>,
    ) {
        let place = self.within(place);
        let line = self.lines.get((place.line as usize).saturating_sub(1));
        let hint = hint.or_else(|| (severity == Severity::Error).then(|| usual_hint(code)));
        self.found.push(Diagnostic {
            path: self.path.clone(),
            line: place.line,
            column: place.column,
            length: place.length,
            severity,
            code: code.to_owned(),
            message,
            hint,
            excerpt: line.map(|line| excerpt(line)),
            app: self.app.clone(),
        });
    }

    /// The place, or the end of the text where it lies behind that: what is not complete lacks
    /// something there.
    fn within(&self, place: Place) -> Place {
        match self.lines.last() {
            Some(last) if place.line as usize > self.lines.len() => Place {
                line: u32::try_from(self.lines.len()).unwrap_or(u32::MAX),
                column: u32::try_from(last.chars().count() + 1).unwrap_or(u32::MAX),
                length: 1,
            },
            _ => place,
        }
    }

    /// The entries of a mapping, each of whose keys must be one of `known`.
    pub(crate) fn map<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
    ) -> &'n [(Key, Node)] {
        let Yaml::Map(entries) = &node.value else {
            self.wrong_type(node, what, "a mapping");
            return &[];
        };
        for (key, _) in entries {
            if !known.contains(&key.name.as_str()) {
                let takes = || format!("{what} takes {}", known.join(", "));
                let hint = match key.name.as_str() {
                    "<<" => "YAML 1.2 has no merge keys: write the keys out, or use an alias for a whole value".to_owned(),
                    name => did_you_mean(name, known.iter().copied()).unwrap_or_else(takes),
                };
                self.error(
                    "E0102",
                    key.place,
                    format!("unknown key `{}` in {what}", key.name),
                    Some(hint),
                );
            }
        }
        entries
    }

    pub(crate) fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        if let Yaml::List(items) = &node.value {
            return items;
        }
        self.wrong_type(node, what, "a list");
        &[]
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Yaml::Text(text) => return Some(text),
            Yaml::Bool(_) | Yaml::Number(_) => {
                let message = format!("{what} must be text; this is {}", node.value.what());
                self.error(
                    "E0103",
                    node.place,
                    message,
                    Some("put it in quotes".to_owned()),
                );
            }
            _ => self.wrong_type(node, what, "text"),
        }
        None
    }

    pub(crate) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Yaml::Bool(value) = node.value {
            return Some(value);
        }
        self.wrong_type(node, what, "`true` or `false`");
        None
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, node: &Node, what: &str, min: u64, max: u64) -> Option<u64> {
        let Yaml::Number(text) = &node.value else {
            self.wrong_type(node, what, "a number");
            return None;
        };
        match text.parse::<u64>() {
            Ok(value) if (min..=max).contains(&value) => Some(value),
            _ => {
                let message =
                    format!("{what} must be a whole number from {min} to {max}; this is {text}");
                self.error("E0108", node.place, message, Some(BOUNDS.to_owned()));
                None
            }
        }
    }

    /// Milliseconds within bounds.
    pub(crate) fn duration(&mut self, node: &Node, what: &str, min: u64, max: u64) -> Option<u64> {
        let text = self.text(node, what)?;
        let hint = || Some("write a number and a unit: 500ms, 5s, 10m, 1h30m, 7d".to_owned());
        let Some(ms) = duration::milliseconds(text) else {
            self.error(
                "E0108",
                node.place,
                format!("{what} is no duration: `{text}`"),
                hint(),
            );
            return None;
        };
        if (min..=max).contains(&ms) {
            return Some(ms);
        }
        let message = format!(
            "{what} must be from {} to {}; `{text}` is {}",
            duration::text(min),
            duration::text(max),
            duration::text(ms)
        );
        self.error("E0108", node.place, message, Some(BOUNDS.to_owned()));
        None
    }

    /// Bytes within bounds.
    pub(crate) fn size(&mut self, node: &Node, what: &str, min: u64, max: u64) -> Option<u64> {
        let (Yaml::Number(text) | Yaml::Text(text)) = &node.value else {
            self.wrong_type(node, what, "a size");
            return None;
        };
        match units::bytes(text) {
            Some(bytes) if (min..=max).contains(&bytes) => Some(bytes),
            Some(bytes) => {
                let message =
                    format!("{what} must be from {min} to {max} bytes; `{text}` is {bytes}");
                self.error("E0108", node.place, message, Some(BOUNDS.to_owned()));
                None
            }
            None => {
                let hint = Some("write a number and a unit: 512KiB, 64MiB, 1GiB".to_owned());
                self.error(
                    "E0108",
                    node.place,
                    format!("{what} is no size: `{text}`"),
                    hint,
                );
                None
            }
        }
    }

    pub(crate) fn wrong_type(&mut self, node: &Node, what: &str, expected: &str) {
        let message = format!("{what} must be {expected}; this is {}", node.value.what());
        let hint = match expected {
            "a list" => "write `[…]`, or one item a line, each behind a `-`",
            "`true` or `false`" => "write true or false, without quotes",
            "a number" => "write digits, without quotes",
            "text" => "write some text, or leave the key out",
            expected if expected.contains("mapping") => {
                "write lines of `key: value` below it, indented, or leave the key out"
            }
            _ => "write that, or leave the key out",
        };
        self.error("E0103", node.place, message, Some(hint.to_owned()));
    }
}

/// What helps where a value is too small or too large.
const BOUNDS: &str = "choose a value within these bounds, or leave the key out for the default";

/// What helps with an error of that code where nothing more is known.
fn usual_hint(code: &str) -> String {
    match code {
        "E0101" => "look at the indentation, colons, brackets and quotes here and in the line above",
        "E0104" => "add it",
        "E0105" => "keep one of them",
        "E0106" => "nest less deeply",
        "E0208" => "split it up",
        "E0209" => "serve large files from elsewhere",
        "E0210" => "rename the file",
        "E0401" => "here the parser stopped: look at this line, and for what is not closed before it",
        "E0501" => {
            "the fields are minute hour day-of-month month day-of-week, with the second before them if there are six"
        }
        "E0502" => "write an IANA name like Europe/Berlin",
        code => return format!("docs/errors/{code}.md has an example"),
    }
    .to_owned()
}

/// A line, bounded, without what a terminal would obey.
pub(crate) fn excerpt(line: &str) -> String {
    line.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A hint where one of the names is close to what was written.
pub(crate) fn did_you_mean<'a>(
    written: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let near = names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, name)| {
            *distance <= 1 + name.chars().count().max(written.chars().count()) / 4
        })
        .min()?;
    Some(format!("did you mean `{}`?", near.1))
}
