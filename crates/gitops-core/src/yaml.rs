//! YAML with places: a tree of nodes, each of which knows where it stands, within bounds that hold
//! for any document.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Levels of nesting.
const MAX_DEPTH: usize = 64;
/// Nodes, with aliases expanded.
const MAX_NODES: usize = 10_000;

/// Where something stands: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) length: u32,
}

impl Place {
    /// The beginning of a file.
    pub(crate) const START: Self = Self {
        line: 1,
        column: 1,
        length: 1,
    };
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Yaml,
    pub(crate) place: Place,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Yaml {
    /// `~`, `null` or nothing.
    Null,
    /// `true` or `false`, unquoted.
    Bool(bool),
    /// A number, unquoted, as it was written.
    Number(String),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order it was written; no key stands twice.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

impl Yaml {
    /// What it is, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Why a document could not be read.
#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) code: &'static str,
    pub(crate) place: Place,
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
}

/// Reads one document. `Ok(None)`: it is empty.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, YamlError> {
    let mut builder = Builder {
        anchors: BTreeMap::new(),
        nodes: 0,
        events: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
    };
    let mut document = None;
    loop {
        let (event, place) = builder.next()?;
        match event {
            Event::StreamEnd => return Ok(document),
            Event::DocumentStart(_) if document.is_some() => {
                return Err(YamlError {
                    code: "E0101",
                    place,
                    message: "the file holds a second document".to_owned(),
                    hint: Some("remove the `---` line, or what follows it"),
                });
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => document = Some(builder.node(event, place, 0)?),
        }
    }
}

struct Builder<'a> {
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl Builder<'_> {
    fn next(&mut self) -> Result<(Event<'static>, Place), YamlError> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((owned(event), place(&span))),
            Some(Err(error)) => Err(YamlError {
                code: "E0101",
                place: Place {
                    line: number(error.marker().line()),
                    column: number(error.marker().col() + 1),
                    length: 1,
                },
                message: format!("this is not YAML: {}", error.info()),
                hint: None,
            }),
            None => Ok((Event::StreamEnd, Place::START)),
        }
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        Err(YamlError {
            code: "E0106",
            place,
            message: format!("the file has more than {MAX_NODES} nodes with its aliases expanded"),
            hint: Some("an alias (`*name`) counts as much as what it stands for"),
        })
    }

    fn node(
        &mut self,
        event: Event<'static>,
        place: Place,
        depth: usize,
    ) -> Result<Node, YamlError> {
        if depth >= MAX_DEPTH {
            return Err(YamlError {
                code: "E0106",
                place,
                message: format!("the file is nested more than {MAX_DEPTH} levels deep"),
                hint: None,
            });
        }
        self.count(1, place)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, scalar(&text, style, tag.is_some()))
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).cloned();
                let Some(target) = target else {
                    return Err(YamlError {
                        code: "E0101",
                        place,
                        message: "the alias stands for something that contains it".to_owned(),
                        hint: None,
                    });
                };
                self.count(size(&target), place)?;
                return Ok(Node {
                    value: target.value,
                    place,
                });
            }
            _ => (0, Yaml::Null),
        };
        let node = Node { value, place };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Yaml, YamlError> {
        let mut items = Vec::new();
        loop {
            let (event, place) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Yaml::List(items));
            }
            items.push(self.node(event, place, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Yaml, YamlError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, place) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Yaml::Map(entries));
            }
            let key = self.node(event, place, depth + 1)?;
            let name = match key.value {
                Yaml::Text(text) | Yaml::Number(text) => text,
                Yaml::Bool(value) => value.to_string(),
                other => {
                    return Err(YamlError {
                        code: "E0103",
                        place,
                        message: format!("a key must be text; this is {}", other.what()),
                        hint: None,
                    });
                }
            };
            let (event, value_place) = self.next()?;
            let value = self.node(event, value_place, depth + 1)?;
            if let Some((first, _)) = entries.iter().find(|(key, _)| key.name == name) {
                return Err(YamlError {
                    code: "E0105",
                    place,
                    message: format!(
                        "the key `{name}` stands twice; first in line {}",
                        first.place.line
                    ),
                    hint: Some("keep one of them"),
                });
            }
            entries.push((Key { name, place }, value));
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Yaml::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Yaml::Map(entries) => {
            1 + entries
                .iter()
                .map(|(_, value)| 1 + size(value))
                .sum::<usize>()
        }
        _ => 1,
    }
}

/// What an unquoted scalar is (YAML 1.2, core schema, section 10.3.2).
fn scalar(text: &str, style: ScalarStyle, tagged: bool) -> Yaml {
    if style != ScalarStyle::Plain || tagged {
        return Yaml::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Yaml::Null,
        "true" | "True" | "TRUE" => Yaml::Bool(true),
        "false" | "False" | "FALSE" => Yaml::Bool(false),
        _ if is_number(text) => Yaml::Number(text.to_owned()),
        _ => Yaml::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().any(|b| b.is_ascii_digit())
        && unsigned
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && unsigned.parse::<f64>().is_ok()
}

fn place(span: &Span) -> Place {
    let same_line = span.start.line() == span.end.line();
    let length = if same_line {
        span.end.col().saturating_sub(span.start.col())
    } else {
        1
    };
    Place {
        line: number(span.start.line()),
        column: number(span.start.col() + 1),
        length: number(length.max(1)),
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The event without what it borrows.
fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Nothing => Event::Nothing,
        Event::StreamStart => Event::StreamStart,
        Event::StreamEnd => Event::StreamEnd,
        Event::DocumentStart(explicit) => Event::DocumentStart(explicit),
        Event::DocumentEnd => Event::DocumentEnd,
        Event::Alias(anchor) => Event::Alias(anchor),
        Event::Scalar(text, style, anchor, tag) => {
            let tag = tag.map(|tag| std::borrow::Cow::Owned(tag.into_owned()));
            Event::Scalar(text.into_owned().into(), style, anchor, tag)
        }
        Event::SequenceStart(anchor, _) => Event::SequenceStart(anchor, None),
        Event::SequenceEnd => Event::SequenceEnd,
        Event::MappingStart(anchor, _) => Event::MappingStart(anchor, None),
        Event::MappingEnd => Event::MappingEnd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(node: &Node) -> serde_yaml::Value {
        match &node.value {
            Yaml::Null => serde_yaml::Value::Null,
            Yaml::Bool(value) => (*value).into(),
            Yaml::Number(text) => serde_yaml::from_str(text).expect("a number"),
            Yaml::Text(text) => text.clone().into(),
            Yaml::List(items) => items.iter().map(plain).collect::<Vec<_>>().into(),
            Yaml::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| (key.name.clone().into(), plain(value)));
                serde_yaml::Value::Mapping(entries.collect())
            }
        }
    }

    #[test]
    fn documents_mean_what_serde_yaml_reads() {
        let documents = [
            "name: a\nlist: [1, -2.5, true, ~, 'x y', \"q\\n\"]\nmap: {a: b, c: {d: e}}\n",
            "a: &x {b: 1}\nc: *x\n",
            "text: |\n  one\n  two\nfolded: >\n  one\n  two\n",
            "- a\n-  - b\n   - c\n- {}\n- []\n",
            "version: 1.0\nzip: '007'\nword: yes\n",
        ];
        for text in documents {
            let ours = parse(text).expect(text).expect("a document");
            let theirs: serde_yaml::Value = serde_yaml::from_str(text).expect(text);
            assert_eq!(plain(&ours), theirs, "{text}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = level - 1;
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(parse(&bomb).expect_err("too many").code, "E0106");
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert_eq!(parse(&deep).expect_err("too deep").code, "E0106");
    }

    #[test]
    fn places_are_counted_in_characters() {
        let root = parse("ä: 1\nb: [x, yy]\n")
            .expect("good")
            .expect("a document");
        let Yaml::Map(entries) = &root.value else {
            panic!("a mapping")
        };
        assert_eq!((entries[0].1.place.line, entries[0].1.place.column), (1, 4));
        let Yaml::List(items) = &entries[1].1.value else {
            panic!("a list")
        };
        let expected = Place {
            line: 2,
            column: 8,
            length: 2,
        };
        assert_eq!(items[1].place, expected);
    }
}
