//! `picloud.yaml`: the settings of a source.

use picloud_shared::LimitsPatch;
use serde::{Deserialize, Serialize};

use super::{document, limits, wrong_word};
use crate::{
    decode::Report,
    schedule::Schedule,
    yaml::{Node, Yaml},
};

pub(crate) const SYNC_KEYS: [&str; 7] = [
    "prune",
    "prune_limit",
    "self_heal",
    "interval",
    "windows",
    "verify_signatures",
    "require_reviewed",
];

/// What a `picloud.yaml` declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceSettings {
    /// Whether apps that git has no longer are removed.
    pub prune: bool,
    /// Percent of the source's apps that one commit may remove without a person's word.
    pub prune_limit: u8,
    /// Whether drift is undone.
    pub self_heal: bool,
    /// How often a remote is fetched, in milliseconds.
    pub interval_ms: u64,
    /// When commits may be deployed; none: always.
    pub windows: Vec<Window>,
    /// Whether the head commit must be signed by a key that the server lists.
    pub verify_signatures: bool,
    /// Whether only plans are applied that somebody looked at.
    pub require_reviewed: bool,
    /// Branches and pull requests as apps of their own.
    pub previews: PreviewOptions,
    /// Who is told of what.
    pub notifications: Vec<Notification>,
    /// Limits of apps that set none.
    pub default_limits: LimitsPatch,
}

/// A time in which commits may, or may not, be deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Whether it allows; else it denies.
    pub allow: bool,
    /// When it begins.
    pub schedule: String,
    /// How long it lasts.
    pub duration_ms: u64,
    /// IANA name.
    pub timezone: String,
}

/// `previews`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewOptions {
    /// Whether there are any.
    pub enabled: bool,
    /// How long one stays without a commit.
    pub ttl_ms: u64,
    /// Whether their triggers fire.
    pub triggers: bool,
}

/// One entry of `notifications`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `failed`, `synced`, `drifted`, `healed`, `failing`.
    pub on: Vec<String>,
    /// Where to; sealed or plain.
    pub url: String,
    /// `json`, `slack` or `discord`.
    pub format: String,
    /// For `failing`: dead letters of a trigger within an hour.
    #[serde(default = "one")]
    pub threshold: u64,
}

fn one() -> u64 {
    1
}

impl Default for PreviewOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            ttl_ms: 7 * 86_400_000,
            triggers: false,
        }
    }
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            prune: true,
            prune_limit: 30,
            self_heal: false,
            interval_ms: 180_000,
            windows: Vec::new(),
            verify_signatures: false,
            require_reviewed: false,
            previews: PreviewOptions::default(),
            notifications: Vec::new(),
            default_limits: LimitsPatch::default(),
        }
    }
}

/// Reads a `picloud.yaml`.
pub(crate) fn settings(text: &str, report: &mut Report<'_>) -> SourceSettings {
    let mut settings = SourceSettings::default();
    let Some(root) = document(text, report, "picloud.yaml") else {
        return settings;
    };
    let known = ["sync", "previews", "notifications", "defaults"];
    for (key, node) in report.map(&root, "picloud.yaml", &known) {
        match key.name.as_str() {
            "sync" => sync(node, report, &mut settings),
            "defaults" => {
                let entries = report.map(node, "defaults", &["limits"]);
                for (_, node) in entries.iter().filter(|(key, _)| key.name == "limits") {
                    settings.default_limits = limits(node, report);
                }
            }
            "previews" => {
                for (key, node) in report.map(node, "previews", &["enabled", "ttl", "triggers"]) {
                    let previews = &mut settings.previews;
                    match key.name.as_str() {
                        "enabled" => {
                            previews.enabled = report.boolean(node, "enabled").unwrap_or(false);
                        }
                        "ttl" => {
                            let ttl = report.duration(node, "ttl", 60_000, 366 * 86_400_000);
                            previews.ttl_ms = ttl.unwrap_or(previews.ttl_ms);
                        }
                        "triggers" => {
                            previews.triggers = report.boolean(node, "triggers").unwrap_or(false);
                        }
                        _ => {}
                    }
                }
            }
            "notifications" => {
                settings.notifications = notifications(node, report);
            }
            _ => {}
        }
    }
    settings
}

fn sync(node: &Node, report: &mut Report<'_>, settings: &mut SourceSettings) {
    for (key, node) in report.map(node, "sync", &SYNC_KEYS) {
        match key.name.as_str() {
            "prune" => settings.prune = report.boolean(node, "prune").unwrap_or(true),
            "prune_limit" => {
                settings.prune_limit = percent(node, report).unwrap_or(settings.prune_limit);
            }
            "self_heal" => {
                settings.self_heal = report.boolean(node, "self_heal").unwrap_or(false);
            }
            "interval" => {
                let interval = report.duration(node, "interval", 1_000, 86_400_000);
                settings.interval_ms = interval.unwrap_or(settings.interval_ms);
            }
            "windows" => settings.windows = windows(node, report),
            "verify_signatures" => {
                let verify = report.boolean(node, "verify_signatures");
                settings.verify_signatures = verify.unwrap_or(false);
            }
            "require_reviewed" => {
                let reviewed = report.boolean(node, "require_reviewed");
                settings.require_reviewed = reviewed.unwrap_or(false);
            }
            _ => {}
        }
    }
}

fn windows(node: &Node, report: &mut Report<'_>) -> Vec<Window> {
    let mut windows = Vec::new();
    for item in report.list(node, "windows") {
        let mut window = Window {
            allow: true,
            schedule: String::new(),
            duration_ms: 0,
            timezone: "UTC".to_owned(),
        };
        let known = ["allow", "deny", "duration", "timezone"];
        for (key, node) in report.map(item, "a window", &known) {
            match key.name.as_str() {
                "allow" | "deny" => {
                    if !window.schedule.is_empty() {
                        let hint = Some("write two windows".to_owned());
                        report.error(
                            "E0105",
                            key.place,
                            "a window allows or denies, not both",
                            hint,
                        );
                    }
                    window.allow = key.name == "allow";
                    if let Some(text) = report.text(node, &key.name) {
                        if let Err(error) = Schedule::parse(text) {
                            report.error("E0501", node.place, error.message, error.hint);
                        }
                        text.clone_into(&mut window.schedule);
                    }
                }
                "duration" => {
                    let ms = report.duration(node, "duration", 60_000, 31 * 86_400_000);
                    window.duration_ms = ms.unwrap_or(60_000);
                }
                "timezone" => {
                    if let Some(text) = report.text(node, "timezone") {
                        if text.parse::<chrono_tz::Tz>().is_err() {
                            let message = format!("there is no time zone `{text}`");
                            report.error("E0502", node.place, message, None);
                        }
                        text.clone_into(&mut window.timezone);
                    }
                }
                _ => {}
            }
        }
        if matches!(item.value, Yaml::Map(_)) {
            if window.schedule.is_empty() {
                let hint = Some("add `allow: SCHEDULE` or `deny: SCHEDULE`".to_owned());
                report.error(
                    "E0104",
                    item.place,
                    "the window lacks `allow` or `deny`",
                    hint,
                );
            }
            if window.duration_ms == 0 {
                report.error("E0104", item.place, "the window lacks `duration`", None);
            }
        }
        windows.push(window);
    }
    windows
}

fn notifications(node: &Node, report: &mut Report<'_>) -> Vec<Notification> {
    const EVENTS: [&str; 5] = ["failed", "synced", "drifted", "healed", "failing"];
    const FORMATS: [&str; 3] = ["json", "slack", "discord"];
    let mut found = Vec::new();
    for item in report.list(node, "notifications") {
        let mut one = Notification {
            on: Vec::new(),
            url: String::new(),
            format: "json".to_owned(),
            threshold: one(),
        };
        let known = ["on", "url", "format", "threshold"];
        for (key, node) in report.map(item, "a notification", &known) {
            match key.name.as_str() {
                "on" => {
                    let single = std::slice::from_ref(node);
                    let items = match &node.value {
                        Yaml::List(items) => items.as_slice(),
                        _ => single,
                    };
                    for item in items {
                        match report.text(item, "on") {
                            Some(word) if EVENTS.contains(&word) => one.on.push(word.to_owned()),
                            Some(word) => wrong_word(report, item, "on", word, &EVENTS),
                            None => {}
                        }
                    }
                }
                "url" => {
                    let text = report.text(node, "url").unwrap_or_default();
                    let sealed = text.trim_start().starts_with("-----BEGIN AGE");
                    if !text.is_empty() && !sealed && !is_web(text) {
                        let hint = "write https://…, or what `picloud secrets seal` prints";
                        report.error(
                            "E0108",
                            node.place,
                            "url is no http or https address",
                            Some(hint.to_owned()),
                        );
                    }
                    text.clone_into(&mut one.url);
                }
                "format" => match report.text(node, "format") {
                    Some(word) if FORMATS.contains(&word) => word.clone_into(&mut one.format),
                    Some(word) => wrong_word(report, node, "format", word, &FORMATS),
                    None => {}
                },
                "threshold" => {
                    let number = report.number(node, "threshold", 1, 10_000);
                    one.threshold = number.unwrap_or(one.threshold);
                }
                _ => {}
            }
        }
        if one.url.is_empty() && matches!(item.value, Yaml::Map(_)) {
            report.error("E0104", item.place, "the notification lacks `url`", None);
        }
        if one.on.is_empty() && matches!(item.value, Yaml::Map(_)) {
            let hint = Some(format!("one or more of {}", EVENTS.join(", ")));
            report.error("E0104", item.place, "the notification lacks `on`", hint);
        }
        found.push(one);
    }
    found
}

fn is_web(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn percent(node: &Node, report: &mut Report<'_>) -> Option<u8> {
    let text = report.text(node, "prune_limit")?;
    let number = text
        .strip_suffix('%')
        .and_then(|text| text.trim().parse().ok());
    let number = number.filter(|percent| *percent <= 100);
    if number.is_none() {
        let hint = Some("write a share of the source's apps, like `30%`".to_owned());
        let message = format!("prune_limit must be from 0% to 100%; this is `{text}`");
        report.error("E0108", node.place, message, hint);
    }
    number
}
