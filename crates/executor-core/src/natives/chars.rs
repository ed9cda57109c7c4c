//! The characters of a text, one by one: the text is not copied.

use std::{
    any::TypeId,
    ops::{Range, RangeInclusive},
};

use rhai::{FuncRegistration, ImmutableString, Module};

use super::add;

/// Characters of a text from one place on.
#[derive(Clone)]
struct Chars {
    text: ImmutableString,
    at: usize,
    left: usize,
}

impl Chars {
    fn of(text: ImmutableString, from: i64, count: i64) -> Self {
        let skip = usize::try_from(from.unsigned_abs()).unwrap_or(usize::MAX);
        let skip = if from < 0 {
            text.chars().count().saturating_sub(skip)
        } else {
            skip
        };
        let at = text
            .char_indices()
            .nth(skip)
            .map_or(text.len(), |(at, _)| at);
        Self {
            text,
            at,
            left: usize::try_from(count).unwrap_or(0),
        }
    }

    fn all(text: ImmutableString) -> Self {
        Self {
            text,
            at: 0,
            left: usize::MAX,
        }
    }
}

impl Iterator for Chars {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        self.left = self.left.checked_sub(1)?;
        let next = self.text.get(self.at..)?.chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }
}

pub(super) fn register(module: &mut Module) {
    module.set_iterator::<Chars>();
    module.set_iter(TypeId::of::<ImmutableString>(), |value| {
        let text = value.into_immutable_string().unwrap_or_default();
        Box::new(Chars::all(text).map(Into::into))
    });
    FuncRegistration::new_getter("chars").set_into_module(module, |text: &mut ImmutableString| {
        Chars::all(text.clone())
    });
    add(module, &["chars"], true, Chars::all);
    add(module, &["chars"], true, |text, from| {
        Chars::of(text, from, i64::MAX)
    });
    add(module, &["chars"], true, Chars::of);
    add(
        module,
        &["chars"],
        true,
        |text: ImmutableString, range: Range<i64>| {
            let from = range.start.max(0);
            Chars::of(text, from, range.end.saturating_sub(from))
        },
    );
    add(
        module,
        &["chars"],
        true,
        |text: ImmutableString, range: RangeInclusive<i64>| {
            let from = (*range.start()).max(0);
            let count = range.end().saturating_sub(from).saturating_add(1);
            Chars::of(text, from, count)
        },
    );
}
