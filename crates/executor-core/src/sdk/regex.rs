//! `regex::*`: linear time, and bounded by what pattern and text have together.

use std::cell::RefCell;

use regex::{Regex, RegexBuilder};
use rhai::{Array, Dynamic, ImmutableString, Module};

use super::{MAX_TEXT, Native, function, invalid};
use crate::limits;

/// Bytes of a pattern.
const MAX_PATTERN: usize = 4_096;
/// Bytes of a text; a search can't be stopped halfway.
const MAX_SEARCHED: usize = 1 << 20;
/// Compiled patterns that a thread keeps.
const KEPT: usize = 32;

functions! {
    "regex" :: "is_match" [2], ["is_match(pattern: String, text: String) -> bool"], "Whether the pattern matches somewhere in the text.";
    "regex" :: "captures" [2], ["captures(pattern: String, text: String) -> Dynamic"], "`[whole, groups…]` of the first match, `()` for a group that took no part; `()` where nothing matches.";
    "regex" :: "replace_all" [3], ["replace_all(pattern: String, text: String, replacement: String) -> String"], "The text with each match replaced; `$1` or `${name}` stand for groups, `$$` for a dollar.";
}

thread_local! {
    static COMPILED: RefCell<Vec<(ImmutableString, usize, Regex)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn module() -> Module {
    let mut module = Module::new();
    function(
        &mut module,
        "is_match",
        |pattern: ImmutableString, text: ImmutableString| {
            Ok(compiled(&pattern, &text)?.is_match(&text))
        },
    );
    function(
        &mut module,
        "captures",
        |pattern: ImmutableString, text: ImmutableString| captures(&pattern, &text),
    );
    function(
        &mut module,
        "replace_all",
        |pattern: ImmutableString, text: ImmutableString, with: ImmutableString| {
            replace_all(&pattern, &text, &with)
        },
    );
    module
}

/// A pattern for a text of that size: the longer the text, the smaller the pattern, so that one
/// search takes a fraction of a second at worst.
fn compiled(pattern: &ImmutableString, text: &str) -> Native<Regex> {
    if pattern.len() > MAX_PATTERN {
        return Err(invalid(format!(
            "a pattern has at most {MAX_PATTERN} bytes"
        )));
    }
    if text.len() > MAX_SEARCHED {
        return Err(invalid(format!(
            "a text that is searched has at most {MAX_SEARCHED} bytes; this has {}",
            text.len()
        )));
    }
    // A small text, too: a pattern may take long to be compiled.
    limits::weigh(usize::MAX);
    let size = match text.len() {
        0..=16_384 => 1 << 20,
        16_385..=131_072 => 256 << 10,
        _ => 64 << 10,
    };
    COMPILED.with_borrow_mut(|kept| {
        let found = kept
            .iter()
            .position(|(known, bound, _)| known == pattern && *bound == size);
        if let Some(found) = found {
            return Ok(kept[found].2.clone());
        }
        let regex = RegexBuilder::new(pattern)
            .size_limit(size)
            .dfa_size_limit(1 << 20)
            .nest_limit(64)
            .build()
            .map_err(|error| invalid(format!("the pattern: {error}")))?;
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((pattern.clone(), size, regex.clone()));
        Ok(regex)
    })
}

fn captures(pattern: &ImmutableString, text: &str) -> Native<Dynamic> {
    let Some(found) = compiled(pattern, text)?.captures(text) else {
        return Ok(Dynamic::UNIT);
    };
    let groups = found
        .iter()
        .map(|group| group.map_or(Dynamic::UNIT, |group| group.as_str().into()));
    Ok(groups.collect::<Array>().into())
}

fn replace_all(pattern: &ImmutableString, text: &str, with: &str) -> Native<ImmutableString> {
    let regex = compiled(pattern, text)?;
    let with = &numbered(with);
    let mut out = String::with_capacity(text.len());
    let mut last = 0;
    for found in regex.captures_iter(text) {
        limits::pause()?;
        let Some(whole) = found.get(0) else { continue };
        out.push_str(&text[last..whole.start()]);
        found.expand(with, &mut out);
        last = whole.end();
        if out.len() > MAX_TEXT {
            return Err(invalid("the text would become too large"));
        }
    }
    out.push_str(&text[last..]);
    Ok(out.into())
}

/// `$1x` is the first group and an `x`; the library alone would look for a group named `1x`.
fn numbered(replacement: &str) -> String {
    let mut out = String::with_capacity(replacement.len() + 4);
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > 0 {
            out.push_str(&format!("${{{}}}", &rest[..digits]));
            rest = &rest[digits..];
        } else {
            out.push('$');
            // Two of them are one dollar, and the second begins nothing.
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}
