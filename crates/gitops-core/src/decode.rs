//! Typed reading of nodes that reports everything that is wrong, at once.

use picloud_shared::{AppName, Diagnostic, Severity, duration};

use crate::{
    units,
    yaml::{Key, Node, Place, Yaml},
};

/// One file's findings, with the lines to show.
pub(crate) struct Report<'a> {
    path: String,
    text: &'a str,
    /// Put on findings as soon as it is known.
    pub(crate) app: Option<AppName>,
    pub(crate) found: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(path: impl Into<String>, text: &'a str) -> Self {
        Self {
            path: path.into(),
            text,
            app: None,
            found: Vec::new(),
        }
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
        let line = self.text.lines().nth(place.line as usize - 1);
        self.found.push(Diagnostic {
            path: self.path.clone(),
            line: place.line,
            column: place.column,
            length: place.length,
            severity,
            code: code.to_owned(),
            message,
            hint,
            excerpt: line.map(excerpt),
            app: self.app.clone(),
        });
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
                let hint = did_you_mean(&key.name, known.iter().copied())
                    .unwrap_or_else(|| format!("{what} takes {}", known.join(", ")));
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
                self.error("E0108", node.place, message, None);
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
        self.error("E0108", node.place, message, None);
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
                self.error("E0108", node.place, message, None);
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
        self.error("E0103", node.place, message, None);
    }
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
