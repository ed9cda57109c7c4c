//! What a commit declares, as a preview: apps of their own names, without what belongs to the
//! deployed ones.

use std::{collections::BTreeSet, sync::Arc};

use picloud_shared::{AppName, AppSpec};
use sha2::{Digest, Sha256};

use crate::{load::Loaded, manifest::SourceSettings};

/// Characters of a slug.
const MAX_SLUG: usize = 30;
/// Characters of a DNS label.
const MAX_LABEL: usize = 63;
/// Hexadecimal digits that tell names apart that would be the same.
const DIGITS: usize = 8;

/// What the names of a reference's apps end in: `refs/heads/topic` is `topic`, `refs/pull/7` is
/// `pr-7`. What can't stand in a host name is replaced, and a digest tells apart what would become
/// the same.
pub fn slug(reference: &str) -> String {
    if let Some(number) = reference.strip_prefix("refs/pull/") {
        return format!("pr-{number}");
    }
    let branch = reference.strip_prefix("refs/heads/").unwrap_or(reference);
    let mut plain = String::new();
    for c in branch.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => plain.push(c),
            _ if plain.ends_with('-') => {}
            _ => plain.push('-'),
        }
    }
    let plain = plain.trim_matches('-');
    let taken = plain.strip_prefix("pr-").is_some_and(is_number) || ends_in_digest(plain);
    if plain == branch && plain.len() <= MAX_SLUG && !taken {
        return plain.to_owned();
    }
    let short = &plain[..plain.len().min(MAX_SLUG - DIGITS - 1)];
    let short = short.trim_matches('-');
    let digest = digest(reference);
    if short.is_empty() {
        digest
    } else {
        format!("{short}-{digest}")
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a branch is called as if it were shortened.
fn ends_in_digest(text: &str) -> bool {
    let end = text.rsplit('-').next().unwrap_or(text);
    end.len() == DIGITS && end.bytes().all(|b| b.is_ascii_hexdigit())
}

fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..DIGITS].to_owned()
}

/// `name--slug`; where that is longer than a host name's label may be, both are shortened.
pub fn app_name(app: &AppName, slug: &str) -> AppName {
    let whole = format!("{app}--{slug}");
    if let Ok(name) = whole.parse::<AppName>() {
        return name;
    }
    let tail = format!("--{slug}-{}", digest(&whole));
    let room = MAX_LABEL - tail.len();
    let short = app.as_str()[..app.as_str().len().min(room)].trim_end_matches('-');
    format!("{short}{tail}")
        .parse()
        .unwrap_or_else(|_| app.clone())
}

/// Makes of what was loaded what a preview declares: no domains, its triggers off unless asked
/// for, nothing of the source's own rules.
pub fn shape(loaded: &mut Loaded, slug: &str, triggers: bool) {
    let apps = std::mem::take(&mut loaded.desired.apps);
    for (name, spec) in apps {
        let name = app_name(&name, slug);
        let mut spec = AppSpec {
            name: name.clone(),
            domains: BTreeSet::new(),
            ..spec.as_ref().clone()
        };
        if !triggers {
            for trigger in spec.triggers.values_mut() {
                trigger.enabled = false;
            }
        }
        loaded.desired.apps.insert(name, Arc::new(spec));
    }
    for invalid in &mut loaded.desired.invalid {
        invalid.name = invalid.name.as_ref().map(|name| app_name(name, slug));
    }
    for finding in &mut loaded.diagnostics {
        finding.app = finding.app.as_ref().map(|name| app_name(name, slug));
    }
    loaded.settings = SourceSettings {
        prune: true,
        prune_limit: 100,
        default_limits: loaded.settings.default_limits.clone(),
        ..SourceSettings::default()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_stable_fit_and_differ() {
        assert_eq!(slug("refs/heads/topic"), "topic");
        assert_eq!(slug("refs/pull/7"), "pr-7");
        let odd = [
            "feature/foo",
            "feature-foo/",
            "Feature-foo",
            "feature_foo",
            "feature--foo",
            "-feature-foo",
            "ä",
            "ö",
            "pr-7",
            "topic-0123abcd",
            "a/b",
            "a.b",
            &"x".repeat(40),
            &"x".repeat(41),
            "日本/語",
            "A",
            "feature/foo-",
        ];
        let mut seen = BTreeSet::from([slug("refs/heads/feature-foo"), slug("refs/pull/7")]);
        for branch in odd {
            let slug = slug(&format!("refs/heads/{branch}"));
            assert!(
                slug.parse::<AppName>().is_ok() && slug.len() <= MAX_SLUG,
                "{branch}: {slug}"
            );
            assert!(!slug.contains("--"), "{branch}: {slug}");
            assert!(seen.insert(slug.clone()), "{branch}: {slug} twice");
        }
        assert!(slug("refs/heads/feature/foo").starts_with("feature-foo-"));
    }

    #[test]
    fn names_fit_into_a_label_and_differ() {
        let name = |text: &str| text.parse::<AppName>().expect("a name");
        assert_eq!(app_name(&name("shop"), "topic").as_str(), "shop--topic");
        let long = name(&"a".repeat(63));
        let other = name(&format!("{}b", "a".repeat(62)));
        let slug = slug(&format!("refs/heads/{}", "x".repeat(99)));
        let (one, two) = (app_name(&long, &slug), app_name(&other, &slug));
        assert!(
            one != two && one.as_str().ends_with(|c: char| c.is_ascii_hexdigit()),
            "{one} {two}"
        );
        assert!(one.as_str().contains(&format!("--{slug}-")), "{one}");
    }
}
