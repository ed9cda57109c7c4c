//! `replace`, `pad`, `split` and `to_chars` of texts, and `parse_json`.

use rhai::{Array, Dynamic, ImmutableString, Module};

use super::{Native, add};
use crate::{json, limits, sdk};

type Text = ImmutableString;

pub(super) fn register(module: &mut Module) {
    add(
        module,
        &["replace"],
        false,
        |text: &mut Text, find: &str, with: &str| replace(text, find, with),
    );
    add(
        module,
        &["replace"],
        false,
        |text: &mut Text, find: &str, with: char| {
            replace(text, find, with.encode_utf8(&mut [0; 4]))
        },
    );
    add(
        module,
        &["replace"],
        false,
        |text: &mut Text, find: char, with: &str| {
            replace(text, find.encode_utf8(&mut [0; 4]), with)
        },
    );
    add(
        module,
        &["replace"],
        false,
        |text: &mut Text, find: char, with: char| {
            replace(
                text,
                find.encode_utf8(&mut [0; 4]),
                with.encode_utf8(&mut [0; 4]),
            )
        },
    );
    add(
        module,
        &["pad"],
        false,
        |text: &mut Text, length: i64, with: char| pad(text, length, with.encode_utf8(&mut [0; 4])),
    );
    add(
        module,
        &["pad"],
        false,
        |text: &mut Text, length: i64, with: &str| pad(text, length, with),
    );
    add(module, &["to_chars"], true, to_chars);
    add(module, &["parse_json"], true, parse_json);
    splits(module);
}

fn splits(module: &mut Module) {
    add(module, &["split"], true, split_at_spaces);
    add(module, &["split"], true, |text: Text, by: &str| {
        collect(text.split(by))
    });
    add(module, &["split"], true, |text: Text, by: char| {
        collect(text.split(by))
    });
    add(
        module,
        &["split"],
        true,
        |text: Text, by: &str, parts: i64| collect(text.splitn(count(parts), by)),
    );
    add(
        module,
        &["split"],
        true,
        |text: Text, by: char, parts: i64| collect(text.splitn(count(parts), by)),
    );
    add(module, &["split_rev"], true, |text: Text, by: &str| {
        collect(text.rsplit(by))
    });
    add(module, &["split_rev"], true, |text: Text, by: char| {
        collect(text.rsplit(by))
    });
    add(
        module,
        &["split_rev"],
        true,
        |text: Text, by: &str, parts: i64| collect(text.rsplitn(count(parts), by)),
    );
    add(
        module,
        &["split_rev"],
        true,
        |text: Text, by: char, parts: i64| collect(text.rsplitn(count(parts), by)),
    );
}

/// At least one part: the whole.
fn count(parts: i64) -> usize {
    usize::try_from(parts).unwrap_or(1).max(1)
}

fn collect<'t>(pieces: impl Iterator<Item = &'t str>) -> Native<Array> {
    let mut all = Array::new();
    for piece in pieces {
        limits::pause()?;
        all.push(piece.into());
    }
    Ok(all)
}

fn replace(text: &mut Text, find: &str, with: &str) -> Native<()> {
    if text.is_empty() {
        return Ok(());
    }
    let growth = with.len().saturating_sub(find.len());
    let places = text.matches(find).count();
    limits::room(places.saturating_mul(growth).saturating_add(text.len()))?;
    *text = text.replace(find, with).into();
    Ok(())
}

/// Up to a number of characters. Nothing can be padded with nothing.
fn pad(text: &mut Text, length: i64, with: &str) -> Native<()> {
    let length = usize::try_from(length).unwrap_or(0);
    let mut missing = length.saturating_sub(text.chars().count());
    let unit = with.chars().count();
    if missing == 0 || unit == 0 {
        return Ok(());
    }
    let size = (missing / unit + 1).saturating_mul(with.len());
    limits::room(size.saturating_add(text.len()))?;
    let mut out = String::with_capacity(text.len() + size);
    out.push_str(text);
    while missing >= unit {
        out.push_str(with);
        missing -= unit;
    }
    out.extend(with.chars().take(missing));
    *text = out.into();
    Ok(())
}

fn to_chars(text: Text) -> Native<Array> {
    limits::room(text.len().saturating_mul(size_of::<Dynamic>()))?;
    Ok(text.chars().map(Dynamic::from).collect())
}

fn split_at_spaces(text: Text) -> Native<Array> {
    if text.is_empty() {
        return Ok(vec![text.into()]);
    }
    collect(text.split_whitespace())
}

fn parse_json(text: &str) -> Native<Dynamic> {
    json::parse(text.as_bytes())
        .map_err(|reason| sdk::invalid(format!("this is not JSON: {reason}")))
}
