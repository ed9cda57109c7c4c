//! YAML with places: a tree of nodes, each of which knows where it stands, within bounds that hold
//! for any document.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Levels of nesting.
const MAX_DEPTH: usize = 64;
/// Nodes that aliases expand to, all together.
const MAX_EXPANDED: usize = 10_000;
/// Nodes, with aliases expanded: several times what fits into a manifest that anybody wrote.
const MAX_NODES: usize = 100_000;

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

/// What something takes up: from and to, in characters from the beginning of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Yaml,
    pub(crate) place: Place,
    /// Without what follows a block: its comments and empty lines.
    pub(crate) extent: Extent,
    /// Whether another place has it, and this one says its name.
    pub(crate) alias: bool,
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
    pub(crate) extent: Extent,
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
    let mut problems = Vec::new();
    let document = parse_on(text, &mut problems)?;
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(document),
    }
}

/// As [`parse`], but goes on behind what is wrong with single entries, which are left out.
pub(crate) fn parse_on(
    text: &str,
    problems: &mut Vec<YamlError>,
) -> Result<Option<Node>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        anchors: BTreeMap::new(),
        nodes: 0,
        expanded: 0,
        problems,
        characters: text.chars().collect(),
        events: Parser::new_from_str(text),
    };
    let mut document = None;
    loop {
        let (event, at) = builder.next()?;
        match event {
            Event::StreamEnd => return Ok(document),
            Event::DocumentStart(_) if document.is_some() => {
                return Err(YamlError {
                    code: "E0101",
                    place: at.place,
                    message: "the file holds a second document".to_owned(),
                    hint: Some("remove the `---` line, or what follows it"),
                });
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => document = Some(builder.node(event, at, 0)?),
        }
    }
}

struct Builder<'a, 'p> {
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    expanded: usize,
    /// What is wrong with entries that are left out.
    problems: &'p mut Vec<YamlError>,
    characters: Vec<char>,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl Builder<'_, '_> {
    fn next(&mut self) -> Result<(Event<'static>, At), YamlError> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((owned(event), At::new(&span))),
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
            None => Ok((Event::StreamEnd, At::START)),
        }
    }

    fn count(&mut self, place: Place) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        Err(YamlError {
            code: "E0106",
            place,
            message: format!("the file has more than {MAX_NODES} nodes"),
            hint: None,
        })
    }

    /// Counts what an alias stands for.
    fn expand(&mut self, nodes: usize, place: Place) -> Result<(), YamlError> {
        self.expanded = self.expanded.saturating_add(nodes);
        if self.expanded <= MAX_EXPANDED {
            return Ok(());
        }
        Err(YamlError {
            code: "E0106",
            place,
            message: format!("the aliases of the file expand to more than {MAX_EXPANDED} nodes"),
            hint: Some("an alias (`*name`) counts as much as what it stands for"),
        })
    }

    fn node(&mut self, event: Event<'static>, at: At, depth: usize) -> Result<Node, YamlError> {
        let At { place, extent } = at;
        if depth >= MAX_DEPTH {
            return Err(YamlError {
                code: "E0106",
                place,
                message: format!("the file is nested more than {MAX_DEPTH} levels deep"),
                hint: None,
            });
        }
        self.count(place)?;
        let mut to = extent.to;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                to = self.closing_quote(extent).unwrap_or(to);
                (anchor, scalar(&text, style, tag.is_some()))
            }
            Event::SequenceStart(anchor, _) => {
                let (items, end) = self.list(depth)?;
                to = end.max(to);
                (anchor, items)
            }
            Event::MappingStart(anchor, _) => {
                let (entries, end) = self.map(depth)?;
                to = end.max(to);
                (anchor, entries)
            }
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
                self.expand(size(&target), place)?;
                return Ok(Node {
                    value: target.value,
                    place,
                    extent,
                    alias: true,
                });
            }
            _ => (0, Yaml::Null),
        };
        let node = Node {
            value,
            place,
            extent: Extent { to, ..extent },
            alias: false,
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// The end of text in quotes: the parser's is that of the comment after it.
    fn closing_quote(&self, extent: Extent) -> Option<usize> {
        let quote = *self.characters.get(extent.from)?;
        if !matches!(quote, '"' | '\'') {
            return None;
        }
        let mut at = extent.from + 1;
        while let Some(c) = self.characters.get(at) {
            let next = self.characters.get(at + 1);
            match (quote, *c) {
                ('"', '\\') => at += 1,
                ('\'', '\'') if next == Some(&'\'') => at += 1,
                (quote, c) if c == quote => return Some(at + 1),
                _ => {}
            }
            at += 1;
        }
        None
    }

    /// The items, and where they end.
    fn list(&mut self, depth: usize) -> Result<(Yaml, usize), YamlError> {
        let mut items: Vec<Node> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                let last = items.last().map_or(0, |item| item.extent.to);
                return Ok((Yaml::List(items), at.end_after(last)));
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    /// The entries, and where they end.
    fn map(&mut self, depth: usize) -> Result<(Yaml, usize), YamlError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut lines: HashMap<String, u32> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                let last = entries
                    .last()
                    .map_or(0, |(key, value)| key.extent.to.max(value.extent.to));
                return Ok((Yaml::Map(entries), at.end_after(last)));
            }
            let place = at.place;
            let key = self.node(event, at, depth + 1)?;
            let extent = key.extent;
            let name = match key.value {
                Yaml::Text(text) | Yaml::Number(text) => Some(text),
                Yaml::Bool(value) => Some(value.to_string()),
                other => {
                    self.problems.push(YamlError {
                        code: "E0103",
                        place,
                        message: format!("a key must be text; this is {}", other.what()),
                        hint: Some("write a word before the colon"),
                    });
                    None
                }
            };
            let (event, at) = self.next()?;
            let mut value = self.node(event, at, depth + 1)?;
            if matches!(value.value, Yaml::Null) && value.extent.from == value.extent.to {
                // Nothing is written; the parser puts that wherever it noticed.
                value.extent = Extent {
                    from: extent.to,
                    to: extent.to,
                };
            }
            let Some(name) = name else {
                continue;
            };
            if let Some(first) = lines.get(&name) {
                self.problems.push(YamlError {
                    code: "E0105",
                    place,
                    message: format!("the key `{name}` stands twice; first in line {first}"),
                    hint: Some("keep one of them"),
                });
                continue;
            }
            lines.insert(name.clone(), place.line);
            let key = Key {
                name,
                place,
                extent,
            };
            entries.push((key, value));
        }
    }
}

/// Where an event was read.
#[derive(Debug, Clone, Copy)]
struct At {
    place: Place,
    extent: Extent,
}

impl At {
    const START: Self = Self {
        place: Place::START,
        extent: Extent { from: 0, to: 0 },
    };

    fn new(span: &Span) -> Self {
        Self {
            place: place(span),
            extent: Extent {
                from: span.start.index(),
                to: span.end.index(),
            },
        }
    }

    /// The end of a collection that ends here: of a flow, its bracket; of a block, which is
    /// noticed only at the next thing, its last child.
    fn end_after(&self, last: usize) -> usize {
        if self.extent.from < self.extent.to {
            self.extent.to
        } else {
            last
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
        // What is written out is as large as it looks.
        let entry = |at: usize| format!("K{at}: value\n");
        let long: String = (0..12_000).map(entry).collect();
        assert!(parse(&long).is_ok());
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert_eq!(parse(&deep).expect_err("too deep").code, "E0106");
    }

    fn written(text: &str, node: &Node, seen: &mut Vec<String>) {
        seen.push(text[node.extent.from..node.extent.to].to_owned());
        match &node.value {
            Yaml::List(items) => items.iter().for_each(|item| written(text, item, seen)),
            Yaml::Map(entries) => entries
                .iter()
                .for_each(|(_, node)| written(text, node, seen)),
            _ => {}
        }
    }

    #[test]
    fn extents_hold_what_is_written() {
        let text =
            "a:  x # y\nb:\n  - q: 'r' # i\n  # z\n  -   {s: [1, 2], t: }\n\n# end\nd:\nf: g # h\n";
        let root = parse(text).expect("good").expect("a document");
        let mut seen = Vec::new();
        written(text, &root, &mut seen);
        let list = "- q: 'r' # i\n  # z\n  -   {s: [1, 2], t: }";
        assert_eq!(seen[0], text.trim_end_matches(" # h\n"));
        let rest = [
            "x",
            list,
            "q: 'r'",
            "'r'",
            "{s: [1, 2], t: }",
            "[1, 2]",
            "1",
            "2",
            "",
            "",
            "g",
        ];
        assert_eq!(seen[1..], rest);
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
