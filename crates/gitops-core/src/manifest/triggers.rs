//! `triggers`, `secrets` and `checks` of an `app.yaml`.

use std::collections::BTreeSet;

use picloud_shared::{
    LimitsPatch, TriggerName,
    app::{CatchUp, CheckSpec, Overlap, RetryPolicy, TriggerKind},
};

use super::{Placed, limits, text_at, wrong_word};
use crate::{
    decode::Report,
    schedule::Schedule,
    yaml::{Key, Node, Yaml},
};

const MAX_TRIGGERS: usize = 1_000;
const MAX_CHECKS: usize = 20;
/// Bytes of a sealed secret.
const MAX_SECRET: usize = 128 << 10;
const COMMON: [&str; 7] = [
    "name",
    "kind",
    "script",
    "enabled",
    "retry",
    "max_concurrency",
    "limits",
];
pub(crate) const KINDS: [&str; 4] = ["cron", "kv", "docs", "dead_letter"];
const SOURCE_KINDS: [&str; 7] = [
    "cron",
    "kv",
    "docs",
    "dead_letter",
    "invoke",
    "enqueue",
    "http",
];

/// One entry of `triggers`.
#[derive(Debug, Clone)]
pub(crate) struct TriggerManifest {
    pub(crate) name: Placed<TriggerName>,
    pub(crate) kind: TriggerKind,
    pub(crate) script: Placed<String>,
    pub(crate) enabled: bool,
    pub(crate) retry: RetryPolicy,
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) limits: LimitsPatch,
}

/// Reads `triggers`.
pub(super) fn triggers(node: &Node, report: &mut Report<'_>) -> Vec<TriggerManifest> {
    let items = report.list(node, "triggers");
    if items.len() > MAX_TRIGGERS {
        let message = format!("an app has at most {MAX_TRIGGERS} triggers");
        report.error("E0208", node.place, message, None);
        return Vec::new();
    }
    let mut triggers: Vec<TriggerManifest> = Vec::new();
    for item in items {
        let Some(trigger) = trigger(item, report) else {
            continue;
        };
        let taken = triggers
            .iter()
            .any(|other| other.name.value == trigger.name.value);
        if taken {
            let message = format!("the trigger `{}` stands twice", trigger.name.value);
            let hint = Some("a trigger's name is unique in its app".to_owned());
            report.error("E0105", trigger.name.place, message, hint);
        } else {
            triggers.push(trigger);
        }
    }
    triggers
}

/// Reads one trigger.
pub(crate) fn trigger(node: &Node, report: &mut Report<'_>) -> Option<TriggerManifest> {
    let Yaml::Map(entries) = &node.value else {
        report.wrong_type(node, "a trigger", "a mapping");
        return None;
    };
    let find = |name: &str| {
        let mut entries = entries.iter();
        entries
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node)
    };
    let Some(kind_node) = find("kind") else {
        let hint = Some(format!("one of {}", KINDS.join(", ")));
        report.error("E0104", node.place, "the trigger lacks `kind`", hint);
        return None;
    };
    let word = report.text(kind_node, "kind")?;
    let Some(known) = trigger_keys(word) else {
        wrong_word(report, kind_node, "kind", word, &KINDS);
        return None;
    };
    let before = report.found.len();
    let entries = report.map(node, &format!("a {word} trigger"), &known);
    let kind = match word {
        "cron" => cron(entries, node, report),
        "kv" => data(entries, node, report, &["set", "delete"])
            .map(|(collection, events)| TriggerKind::Kv { collection, events }),
        "docs" => data(entries, node, report, &["create", "update", "delete"])
            .map(|(collection, events)| TriggerKind::Docs { collection, events }),
        _ => Some(TriggerKind::DeadLetter {
            source_kind: find("source_kind").and_then(|node| {
                let word = report.text(node, "source_kind")?;
                if !SOURCE_KINDS.contains(&word) {
                    wrong_word(report, node, "source_kind", word, &SOURCE_KINDS);
                }
                Some(word.to_owned())
            }),
        }),
    };
    let (mut name, mut script) = (None, None);
    let (mut enabled, mut retry, mut max_concurrency) = (true, RetryPolicy::default(), None);
    let mut patch = LimitsPatch::default();
    for (key, node) in entries {
        match key.name.as_str() {
            "name" => name = trigger_name(node, report),
            "script" => script = text_at(node, "script", report),
            "enabled" => enabled = report.boolean(node, "enabled").unwrap_or(true),
            "retry" => retry = read_retry(node, report),
            "max_concurrency" => {
                let number = report.number(node, "max_concurrency", 1, 10_000);
                max_concurrency = number.and_then(|number| u32::try_from(number).ok());
            }
            "limits" => patch = limits(node, report),
            _ => {}
        }
    }
    for (key, what) in [("name", "a name"), ("script", "a handler below scripts/")] {
        if find(key).is_none() {
            let message = format!("the trigger lacks `{key}`");
            report.error("E0104", node.place, message, Some(format!("add {what}")));
        }
    }
    let (Some(kind), Some(name), Some(script)) = (kind, name, script) else {
        debug_assert!(
            report.found.len() > before,
            "a trigger that is left out has a finding"
        );
        return None;
    };
    Some(TriggerManifest {
        name,
        kind,
        script,
        enabled,
        retry,
        max_concurrency,
        limits: patch,
    })
}

/// The keys of a trigger of that kind; `None`: there is no such kind.
pub(crate) fn trigger_keys(kind: &str) -> Option<Vec<&'static str>> {
    let own: &[&str] = match kind {
        "cron" => &["schedule", "timezone", "overlap", "catch_up"],
        "kv" | "docs" => &["collection", "events"],
        "dead_letter" => &["source_kind"],
        _ => return None,
    };
    Some(COMMON.iter().chain(own).copied().collect())
}

fn trigger_name(node: &Node, report: &mut Report<'_>) -> Option<Placed<TriggerName>> {
    let text = report.text(node, "name")?;
    match text.parse() {
        Ok(value) => Some(Placed {
            value,
            place: node.place,
        }),
        Err(error) => {
            let message = format!("a trigger's name {error}; this is `{text}`");
            report.error("E0201", node.place, message, None);
            None
        }
    }
}

fn cron(entries: &[(Key, Node)], at: &Node, report: &mut Report<'_>) -> Option<TriggerKind> {
    let mut schedule = None;
    let mut timezone = Some("UTC".to_owned());
    let (mut overlap, mut catch_up) = (Overlap::Skip, CatchUp::Latest);
    let mut written = false;
    for (key, node) in entries {
        match key.name.as_str() {
            "schedule" => {
                written = true;
                schedule = report.text(node, "schedule").map(str::to_owned);
                if let Some(Err(error)) = schedule.as_deref().map(Schedule::parse) {
                    report.error("E0501", node.place, error.message, error.hint);
                }
            }
            "timezone" => {
                timezone = report.text(node, "timezone").map(str::to_owned);
                if let Some(name) = &timezone
                    && name.parse::<chrono_tz::Tz>().is_err()
                {
                    let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
                    let hint = crate::decode::did_you_mean(name, names)
                        .or_else(|| Some("write an IANA name like Europe/Berlin".to_owned()));
                    let message = format!("there is no time zone `{name}`");
                    report.error("E0502", node.place, message, hint);
                }
            }
            "overlap" => match report.text(node, "overlap") {
                Some("skip") | None => {}
                Some("allow") => overlap = Overlap::Allow,
                Some("queue") => overlap = Overlap::Queue,
                Some(word) => {
                    wrong_word(report, node, "overlap", word, &["skip", "allow", "queue"]);
                }
            },
            "catch_up" => match report.text(node, "catch_up") {
                Some("latest") | None => {}
                Some("none") => catch_up = CatchUp::None,
                Some(word) => wrong_word(report, node, "catch_up", word, &["latest", "none"]),
            },
            _ => {}
        }
    }
    if !written {
        let hint = Some("add `schedule: \"0 9 * * *\"`".to_owned());
        report.error("E0104", at.place, "the trigger lacks `schedule`", hint);
    }
    Some(TriggerKind::Cron {
        schedule: schedule?,
        timezone: timezone?,
        overlap,
        catch_up,
    })
}

fn data(
    entries: &[(Key, Node)],
    at: &Node,
    report: &mut Report<'_>,
    all: &[&str],
) -> Option<(String, BTreeSet<String>)> {
    let mut collection = None;
    let mut events: BTreeSet<String> = all.iter().map(|word| (*word).to_owned()).collect();
    let mut written = false;
    for (key, node) in entries {
        match key.name.as_str() {
            "collection" => {
                written = true;
                collection = report.text(node, "collection").map(str::to_owned);
                let bad = |name: &String| {
                    let star = name.find('*').is_some_and(|at| at + 1 != name.len());
                    name.is_empty() || name.len() > 256 || name.contains('\0') || star
                };
                if let Some(name) = collection.as_ref().filter(|name| bad(name)) {
                    let message = format!("`{}` is no name of a collection", name.escape_debug());
                    let hint = Some("1 to 256 bytes; a `*` only at its end".to_owned());
                    report.error("E0108", node.place, message, hint);
                }
            }
            "events" => {
                events.clear();
                let items = report.list(node, "events");
                for item in items {
                    let Some(word) = report.text(item, "an event") else {
                        continue;
                    };
                    if !all.contains(&word) {
                        wrong_word(report, item, "an event", word, all);
                    } else if !events.insert(word.to_owned()) {
                        let message = format!("the event `{word}` stands twice");
                        report.error("E0105", item.place, message, None);
                    }
                }
                if items.is_empty() && matches!(node.value, Yaml::List(_)) {
                    let hint = Some("leave it out for all of them".to_owned());
                    report.error("E0108", node.place, "events is empty", hint);
                }
            }
            _ => {}
        }
    }
    if !written {
        report.error("E0104", at.place, "the trigger lacks `collection`", None);
    }
    Some((collection?, events))
}

fn read_retry(node: &Node, report: &mut Report<'_>) -> RetryPolicy {
    let mut retry = RetryPolicy::default();
    for (key, node) in report.map(node, "retry", &["attempts", "backoff", "max_backoff"]) {
        match key.name.as_str() {
            "attempts" => {
                let number = report.number(node, "attempts", 1, 100);
                retry.attempts = number
                    .and_then(|number| u32::try_from(number).ok())
                    .unwrap_or(retry.attempts);
            }
            "backoff" => {
                let ms = report.duration(node, "backoff", 0, 86_400_000);
                retry.backoff_ms = ms.unwrap_or(retry.backoff_ms);
            }
            "max_backoff" => {
                let ms = report.duration(node, "max_backoff", 0, 7 * 86_400_000);
                retry.max_backoff_ms = ms.unwrap_or(retry.max_backoff_ms);
            }
            _ => {}
        }
    }
    retry
}

/// Reads `secrets`: names and age ciphertext.
pub(super) fn secrets(node: &Node, report: &mut Report<'_>) -> Vec<(String, Placed<String>)> {
    let Yaml::Map(entries) = &node.value else {
        report.wrong_type(node, "secrets", "a mapping of names to sealed text");
        return Vec::new();
    };
    let mut secrets = Vec::new();
    for (key, node) in entries {
        super::variable_name(key, report);
        let Some(text) = report.text(node, &format!("secrets.{}", key.name)) else {
            continue;
        };
        let sealed = text
            .trim_start()
            .starts_with("-----BEGIN AGE ENCRYPTED FILE-----");
        if !sealed || text.len() > MAX_SECRET {
            let message = format!("the secret `{}` is not sealed", key.name);
            let hint = Some(
                "seal it with `picloud secrets seal` and write the armored text as a block (`|`)"
                    .to_owned(),
            );
            report.error("E0601", node.place, message, hint);
            continue;
        }
        secrets.push((
            key.name.clone(),
            Placed {
                value: text.to_owned(),
                place: node.place,
            },
        ));
    }
    secrets
}

/// Reads `checks`.
pub(super) fn checks(node: &Node, report: &mut Report<'_>) -> Vec<CheckSpec> {
    let items = report.list(node, "checks");
    if items.len() > MAX_CHECKS {
        let message = format!("an app has at most {MAX_CHECKS} checks");
        report.error("E0208", node.place, message, None);
        return Vec::new();
    }
    let mut checks = Vec::new();
    for item in items {
        let mut check = CheckSpec {
            path: String::new(),
            status: 200,
            within_ms: 10_000,
        };
        let mut written = false;
        for (key, node) in report.map(item, "a check", &["path", "status", "within"]) {
            match key.name.as_str() {
                "path" => {
                    written = true;
                    if let Some(text) = report.text(node, "path") {
                        let good = text.starts_with('/')
                            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
                        if !good {
                            let message = format!("`{text}` is no path of a request");
                            let hint = Some("write it as in a URL, beginning with `/`".to_owned());
                            report.error("E0108", node.place, message, hint);
                        }
                        text.clone_into(&mut check.path);
                    }
                }
                "status" => {
                    let number = report.number(node, "status", 100, 599);
                    check.status = number
                        .and_then(|number| u16::try_from(number).ok())
                        .unwrap_or(200);
                }
                "within" => {
                    let ms = report.duration(node, "within", 1, 300_000);
                    check.within_ms = ms.unwrap_or(10_000);
                }
                _ => {}
            }
        }
        if !written && matches!(item.value, Yaml::Map(_)) {
            report.error("E0104", item.place, "the check lacks `path`", None);
        }
        checks.push(check);
    }
    checks
}
