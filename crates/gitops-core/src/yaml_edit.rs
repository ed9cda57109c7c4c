//! Changes of a YAML text in the places where something changes: comments, order and style of
//! everything else stay. Where a text is written in a way that this can't follow, it says so.

use std::ops::Range;

use crate::{
    yaml::{Extent, Key, Node, Yaml},
    yaml_write::{self as write, Plain},
};

/// What becomes of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It stays as it is written.
    Keep,
    /// It goes.
    Remove,
    /// It is another.
    Set(Plain),
    /// Some of a mapping's entries change.
    Entries(Vec<(&'static str, Change)>),
    /// As `Entries`, where the keys are the user's.
    Named(Vec<(String, Change)>),
    /// Each of a list's items, and what comes after the last.
    Items(Vec<Change>, Vec<Plain>),
}

impl Change {
    /// What is written where nothing was.
    pub(crate) fn fresh(&self) -> Option<Plain> {
        let map =
            |entries: Vec<(String, Plain)>| (!entries.is_empty()).then_some(Plain::Map(entries));
        match self {
            Self::Keep | Self::Remove => None,
            Self::Set(value) => Some(value.clone()),
            Self::Entries(entries) => map(entries
                .iter()
                .filter_map(|(key, change)| Some(((*key).to_owned(), change.fresh()?)))
                .collect()),
            Self::Named(entries) => map(entries
                .iter()
                .filter_map(|(key, change)| Some((key.clone(), change.fresh()?)))
                .collect()),
            Self::Items(_, more) => (!more.is_empty()).then(|| Plain::List(more.clone())),
        }
    }

    /// Whether nothing changes.
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Keep => true,
            Self::Remove | Self::Set(_) => false,
            Self::Entries(entries) => entries.iter().all(|(_, change)| change.is_nothing()),
            Self::Named(entries) => entries.iter().all(|(_, change)| change.is_nothing()),
            Self::Items(items, more) => more.is_empty() && items.iter().all(Self::is_nothing),
        }
    }
}

/// The text is written in a way that can't be followed: by aliases, or in an unusual layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfit;

/// The text with a change of its root, which is a mapping.
pub(crate) fn edit(text: &str, root: &Node, change: &Change) -> Result<String, Unfit> {
    // The parser doesn't see a byte order mark.
    let (mark, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    let mut offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    offsets.push(text.len());
    let mut editor = Editor {
        text,
        offsets,
        edits: Vec::new(),
    };
    editor.value(root, change)?;
    Ok(format!("{mark}{}", editor.finish()?))
}

struct Editor<'t> {
    text: &'t str,
    /// The byte that each character begins at.
    offsets: Vec<usize>,
    edits: Vec<(Range<usize>, String)>,
}

/// Where a child stands in its parent.
enum Slot<'n> {
    Entry(&'n [(Key, Node)], usize),
    Item(&'n [Node], usize),
}

impl Editor<'_> {
    fn finish(mut self) -> Result<String, Unfit> {
        self.edits
            .sort_by_key(|(range, _)| (range.start, range.end));
        let newline = if self.text.contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        };
        let mut out = String::with_capacity(self.text.len());
        let mut at = 0;
        for (range, new) in &self.edits {
            out.push_str(self.text.get(at..range.start).ok_or(Unfit)?);
            out.push_str(&new.replace('\n', newline));
            at = range.end;
        }
        out.push_str(self.text.get(at..).ok_or(Unfit)?);
        Ok(out)
    }

    fn replace(&mut self, range: Range<usize>, new: impl Into<String>) {
        self.edits.push((range, new.into()));
    }

    fn byte(&self, character: usize) -> usize {
        self.offsets
            .get(character)
            .copied()
            .unwrap_or(self.text.len())
    }

    fn from(&self, extent: Extent) -> usize {
        self.byte(extent.from)
    }

    /// The end of what is written: a block's extent goes on over the empty lines after it.
    fn to(&self, extent: Extent) -> usize {
        let to = self.byte(extent.to);
        self.text[..to].trim_end().len().max(self.from(extent))
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// The end of a line, before what ends it.
    fn line_end(&self, at: usize) -> usize {
        let end = self.text[at..]
            .find('\n')
            .map_or(self.text.len(), |newline| at + newline);
        if self.text[..end].ends_with('\r') && end > at {
            end - 1
        } else {
            end
        }
    }

    /// The beginning of the line after one that ends here; here, where that is the last.
    fn next_line(&self, end: usize) -> usize {
        let rest = &self.text[end..];
        end + if rest.starts_with("\r\n") {
            2
        } else {
            usize::from(rest.starts_with('\n'))
        }
    }

    fn column(&self, at: usize) -> usize {
        self.text[self.line_start(at)..at].chars().count()
    }

    fn is_flow(&self, node: &Node) -> bool {
        self.text[self.from(node.extent)..].starts_with(['{', '['])
    }

    fn value(&mut self, node: &Node, change: &Change) -> Result<(), Unfit> {
        if change.is_nothing() {
            return Ok(());
        }
        if node.alias {
            return Err(Unfit);
        }
        match (change, &node.value) {
            (Change::Entries(changes), Yaml::Map(entries)) => {
                let changes: Vec<(&str, &Change)> =
                    changes.iter().map(|(key, change)| (*key, change)).collect();
                self.entries(node, entries, &changes)
            }
            (Change::Named(changes), Yaml::Map(entries)) => {
                let changes: Vec<(&str, &Change)> = changes
                    .iter()
                    .map(|(key, change)| (key.as_str(), change))
                    .collect();
                self.entries(node, entries, &changes)
            }
            (Change::Items(changes, more), Yaml::List(items)) => {
                self.items(node, items, changes, more)
            }
            _ => Err(Unfit),
        }
    }

    fn entries(
        &mut self,
        node: &Node,
        entries: &[(Key, Node)],
        changes: &[(&str, &Change)],
    ) -> Result<(), Unfit> {
        let flow = self.is_flow(node);
        let mut added = Vec::new();
        for (key, change) in changes {
            match entries.iter().position(|(known, _)| known.name == *key) {
                Some(at) => self.entry(entries, at, change, flow)?,
                None => added.extend(change.fresh().map(|value| ((*key).to_owned(), value))),
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        // After the last that stays: what is removed would take the place away.
        let stays = |(key, node): &&(Key, Node)| {
            !changes.iter().any(|(name, change)| {
                *name == key.name && (**change == Change::Remove || empties(node, change))
            })
        };
        let (last_key, last) = entries.iter().rfind(stays).ok_or(Unfit)?;
        let end = self.to(last.extent).max(self.to(last_key.extent));
        if flow {
            let new: String = added
                .iter()
                .map(|(key, value)| format!(", {}: {}", write::quoted(key), write::flow(value)))
                .collect();
            self.replace(end..end, new);
            return Ok(());
        }
        let indent = self.column(self.from(entries[0].0.extent));
        let end = self.line_end(end);
        let gap = if indent == 0 && self.has_gaps(entries) {
            "\n"
        } else {
            ""
        };
        for (key, value) in added {
            let new = format!(
                "\n{gap}{}{}",
                " ".repeat(indent),
                write::entry(&key, &value, indent)
            );
            self.replace(end..end, new);
        }
        Ok(())
    }

    /// Whether sections are set apart by empty lines.
    fn has_gaps(&self, entries: &[(Key, Node)]) -> bool {
        entries.iter().skip(1).any(|(key, _)| {
            let above = &self.text[..self.line_start(self.from(key.extent))];
            above
                .lines()
                .rev()
                .find(|line| !line.trim_start().starts_with('#'))
                .is_some_and(|line| line.trim().is_empty())
        })
    }

    fn entry(
        &mut self,
        entries: &[(Key, Node)],
        at: usize,
        change: &Change,
        flow: bool,
    ) -> Result<(), Unfit> {
        let (key, node) = &entries[at];
        match change {
            Change::Remove => self.remove(&Slot::Entry(entries, at), flow),
            Change::Set(value) => {
                self.set(key, node, value, flow);
                Ok(())
            }
            change if empties(node, change) => self.remove(&Slot::Entry(entries, at), flow),
            change if change.is_nothing() => Ok(()),
            change if is_empty(node) => {
                if let Some(value) = change.fresh() {
                    self.set(key, node, &value, flow);
                }
                Ok(())
            }
            change => self.value(node, change),
        }
    }

    fn set(&mut self, key: &Key, node: &Node, value: &Plain, flow: bool) {
        let (from, to) = (self.from(node.extent), self.to(node.extent));
        let key_from = self.from(key.extent);
        let mut to = to.max(self.to(key.extent));
        let written = from < to && !self.text[from..to].trim().is_empty();
        if !written && let Some(colon) = self.text[to..].strip_prefix(':') {
            to = self.text.len() - colon.len();
        }
        let one_line = written && !self.text[key_from..to].contains('\n');
        let scalar = matches!(value, Plain::Text(_) | Plain::Word(_));
        let indent = self.column(key_from);
        let entry = write::entry(&key.name, value, indent);
        if flow {
            let new = format!("{}: {}", write::quoted(&key.name), write::flow(value));
            self.replace(key_from..to, new);
        } else if one_line && !node.alias && !entry.contains('\n') && (scalar || self.is_flow(node))
        {
            let single = match value {
                Plain::Text(text) if self.text[from..].starts_with('\'') => write::single(text),
                _ => None,
            };
            self.replace(from..to, single.unwrap_or_else(|| write::flow(value)));
        } else {
            self.replace(key_from..to, entry);
        }
    }

    fn items(
        &mut self,
        node: &Node,
        items: &[Node],
        changes: &[Change],
        more: &[Plain],
    ) -> Result<(), Unfit> {
        let flow = self.is_flow(node);
        for (at, change) in changes.iter().enumerate() {
            match (items.get(at), change) {
                (Some(_), Change::Remove) => self.remove(&Slot::Item(items, at), flow)?,
                (Some(item), Change::Set(value)) => self.set_item(item, value, flow)?,
                (Some(item), change) => self.value(item, change)?,
                (None, _) => return Err(Unfit),
            }
        }
        if more.is_empty() {
            return Ok(());
        }
        let stays = |(at, _): &(usize, &Node)| changes.get(*at) != Some(&Change::Remove);
        let last = items.iter().enumerate().rfind(stays);
        let (_, last) = last.ok_or(Unfit)?;
        let end = self.to(last.extent);
        if flow {
            let new: String = more
                .iter()
                .map(|value| format!(", {}", write::flow(value)))
                .collect();
            self.replace(end..end, new);
            return Ok(());
        }
        let indent = self.dash(last)?;
        let indent = self.column(indent);
        let end = self.line_end(end);
        let as_flow = self.is_flow(last);
        let gap = self.item_gap(items)?;
        for value in more {
            let new = if as_flow {
                format!("- {}", write::flow(value))
            } else {
                write::item(value, indent)
            };
            self.replace(end..end, format!("\n{gap}{}{new}", " ".repeat(indent)));
        }
        Ok(())
    }

    /// An empty line, where items are set apart by such.
    fn item_gap(&self, items: &[Node]) -> Result<&'static str, Unfit> {
        let [.., before, last] = items else {
            return Ok("");
        };
        let between = &self.text[self.to(before.extent)..self.dash(last)?];
        let gap = between
            .lines()
            .skip(1)
            .any(|line| line.trim().is_empty() && !line.is_empty())
            || between.replace('\r', "").contains("\n\n");
        Ok(if gap { "\n" } else { "" })
    }

    fn set_item(&mut self, item: &Node, value: &Plain, flow: bool) -> Result<(), Unfit> {
        let (from, to) = (self.from(item.extent), self.to(item.extent));
        if flow || self.is_flow(item) {
            self.replace(from..to, write::flow(value));
            return Ok(());
        }
        let dash = self.dash(item)?;
        let new = write::item(value, self.column(dash));
        self.replace(dash..to, new);
        Ok(())
    }

    /// Where the dash of a block's item is.
    fn dash(&self, item: &Node) -> Result<usize, Unfit> {
        let before = &self.text[..self.from(item.extent)];
        let trimmed = before.trim_end_matches([' ', '\t', '\n', '\r']);
        let dash = trimmed.strip_suffix('-').ok_or(Unfit)?.len();
        let alone = self.text[self.line_start(dash)..dash].trim().is_empty();
        alone.then_some(dash).ok_or(Unfit)
    }

    fn remove(&mut self, slot: &Slot<'_>, flow: bool) -> Result<(), Unfit> {
        let extents: Vec<Range<usize>> = match slot {
            Slot::Entry(entries, _) => entries
                .iter()
                .map(|(key, node)| {
                    self.from(key.extent)..self.to(node.extent).max(self.to(key.extent))
                })
                .collect(),
            Slot::Item(items, _) => items
                .iter()
                .map(|item| self.from(item.extent)..self.to(item.extent))
                .collect(),
        };
        let (Slot::Entry(_, at) | Slot::Item(_, at)) = slot;
        let own = extents[*at].clone();
        if flow {
            return self.remove_from_flow(&extents, *at);
        }
        let start = match slot {
            Slot::Entry(..) => own.start,
            Slot::Item(items, at) => self.dash(&items[*at])?,
        };
        let line = self.line_start(start);
        if !self.text[line..start].trim().is_empty() {
            // The first entry of a list's item, behind the dash.
            let next = extents.get(at + 1).ok_or(Unfit)?;
            self.replace(start..next.start, "");
            return Ok(());
        }
        let own_comments = *at > 0 || matches!(slot, Slot::Item(..));
        let top = if own_comments {
            self.comments_above(line, self.column(start))
        } else {
            line
        };
        let end = self.line_end(own.end);
        let below = self.next_line(end);
        if below == end && top > 0 {
            // The last line of a file that ends without a newline.
            let top = self.text[..top].trim_end_matches(['\n', '\r']).len();
            self.replace(top..end, "");
            return Ok(());
        }
        // What set it apart from the next goes with it, unless it sets that apart from something.
        let is_blank = |from: usize, to: usize| from < to && self.text[from..to].trim().is_empty();
        let above_is_blank = top > 0 && is_blank(self.line_start(top - 1), top);
        let is_first_item = *at == 0 && matches!(slot, Slot::Item(items, _) if items.len() > 1);
        let mut bottom = below;
        if above_is_blank || is_first_item {
            let mut next = self.next_line(self.line_end(bottom));
            while is_blank(bottom, next) {
                bottom = next;
                next = self.next_line(self.line_end(bottom));
            }
        }
        self.replace(top..bottom, "");
        Ok(())
    }

    /// A flow's comma goes with what it sets apart.
    fn remove_from_flow(&mut self, extents: &[Range<usize>], at: usize) -> Result<(), Unfit> {
        let own = extents[at].clone();
        let gone = |range: &Range<usize>| {
            self.edits.iter().any(|(edit, new)| {
                new.is_empty() && edit.end >= range.end && edit.start <= range.start
            })
        };
        match (
            extents.get(at + 1),
            at.checked_sub(1).map(|before| &extents[before]),
        ) {
            (Some(next), _) => self.replace(own.start..next.start, ""),
            // The one before it is gone, and its comma with it: what stays is one too many.
            (None, Some(before)) if gone(before) => return Err(Unfit),
            (None, Some(before)) => self.replace(before.end..own.end, ""),
            (None, None) => self.replace(own, ""),
        }
        Ok(())
    }

    /// The first of the comment lines right above a line, as far in as it.
    fn comments_above(&self, line: usize, column: usize) -> usize {
        let mut top = line;
        while top > 0 {
            let above = self.line_start(top - 1);
            let text = &self.text[above..top];
            let indent = text.chars().take_while(|c| *c == ' ').count();
            if indent != column || !text[indent..].starts_with('#') {
                break;
            }
            top = above;
        }
        top
    }
}

/// Whether nothing is written there, or an empty collection.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        Yaml::Null => true,
        Yaml::List(items) => items.is_empty(),
        Yaml::Map(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Whether a change leaves nothing of a collection that has something.
fn empties(node: &Node, change: &Change) -> bool {
    let keyed = |entries: &[(Key, Node)], changes: &[(&str, &Change)]| {
        let gone = |(key, node): &(Key, Node)| {
            changes.iter().any(|(name, change)| {
                *name == key.name && (**change == Change::Remove || empties(node, change))
            })
        };
        let adds = changes.iter().any(|(name, change)| {
            change.fresh().is_some() && !entries.iter().any(|(key, _)| key.name == *name)
        });
        !entries.is_empty() && !adds && entries.iter().all(gone)
    };
    match (change, &node.value) {
        (Change::Entries(changes), Yaml::Map(entries)) => {
            let changes: Vec<(&str, &Change)> =
                changes.iter().map(|(key, change)| (*key, change)).collect();
            keyed(entries, &changes)
        }
        (Change::Named(changes), Yaml::Map(entries)) => {
            let changes: Vec<(&str, &Change)> = changes
                .iter()
                .map(|(key, change)| (key.as_str(), change))
                .collect();
            keyed(entries, &changes)
        }
        (Change::Items(changes, more), Yaml::List(items)) => {
            more.is_empty()
                && !items.is_empty()
                && changes.iter().all(|change| *change == Change::Remove)
        }
        _ => false,
    }
}
