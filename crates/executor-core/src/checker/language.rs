//! The functions that the language has by itself. The engine can list them only with a feature that
//! makes each of its functions larger; so they are kept beside, one a line with how many arguments it
//! takes, as `Engine::collect_fn_metadata` of the pinned version gives them under our packages.

use std::{collections::BTreeMap, sync::OnceLock};

/// Words of the language that are called as functions are.
const WORDS: [&str; 8] = [
    "call",
    "curry",
    "debug",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "print",
    "type_of",
];

type Known = BTreeMap<&'static str, Vec<usize>>;

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        include_str!("language.txt")
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                let name = words.next()?;
                Some((name, words.filter_map(|word| word.parse().ok()).collect()))
            })
            .collect()
    })
}

/// How many arguments a function takes; `None` where there is none.
pub(super) fn arities(name: &str) -> Option<&'static [usize]> {
    known().get(name).map(Vec::as_slice)
}

/// Whether it is a word of the language itself, which looks at its arguments when it is called.
pub(super) fn is_word(name: &str) -> bool {
    name == "Fn" || WORDS.contains(&name)
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    known().keys().copied().chain(WORDS)
}
