//! What a change means, in words.

use picloud_shared::{
    AppSpec, TriggerName,
    app::{RouteAuth, RouteMode, RouteSpec, ScriptKind, SignatureScheme, TriggerKind, TriggerSpec},
    duration,
    plan::{AppPlan, Change, ChangeKind, FieldChange, ItemKind},
};
use serde_json::Value;

use super::{Texts, script_blobs};
use crate::schedule::Schedule;

/// What a change means: a line each, nothing where its name says it.
pub(super) fn of(app: &AppPlan, change: &Change, texts: &Texts) -> Vec<String> {
    let lines = match change.kind {
        ItemKind::Trigger => trigger_words(app, change),
        ItemKind::Route => route_words(app, change),
        ItemKind::Permission => permission_words(app),
        ItemKind::Script => script_words(app, change, texts),
        ItemKind::Secret if change.change == ChangeKind::Changed => {
            vec!["another sealed value".to_owned()]
        }
        ItemKind::Secret | ItemKind::Domain => Vec::new(),
        ItemKind::App if change.change == ChangeKind::Removed => {
            vec!["its endpoints and triggers stop; its data is kept for 30 days".to_owned()]
        }
        ItemKind::App if change.change == ChangeKind::Added => match &app.desired {
            Some(spec) => spec.description.iter().cloned().collect(),
            None => Vec::new(),
        },
        ItemKind::Limit | ItemKind::Env => change
            .fields
            .iter()
            .map(|field| two_sides(&change.name, field))
            .collect(),
        ItemKind::Static if change.change == ChangeKind::Changed => static_words(change),
        ItemKind::Static => Vec::new(),
        ItemKind::App | ItemKind::Check => field_words(change, &[]),
    };
    lines.into_iter().filter(|line| !line.is_empty()).collect()
}

/// A trigger, as it is live and as it would be.
pub(super) fn triggers<'a>(
    app: &'a AppPlan,
    name: &str,
) -> (Option<&'a TriggerSpec>, Option<&'a TriggerSpec>) {
    let name = name.parse::<TriggerName>().ok();
    let find = |spec: Option<&'a AppSpec>| spec?.triggers.get(name.as_ref()?);
    (find(app.live.as_deref()), find(app.desired.as_deref()))
}

fn trigger_words(app: &AppPlan, change: &Change) -> Vec<String> {
    let (old, new) = triggers(app, &change.name);
    let mut words = Vec::new();
    match (old, new) {
        (Some(old), Some(new)) => {
            if old.kind != new.kind {
                words.push(format!("was: {}", fires_on(old)));
                words.push(format!("now: {}", fires_on(new)));
            }
            if old.enabled != new.enabled {
                let word = if new.enabled {
                    "fires again"
                } else {
                    "does not fire any more"
                };
                words.push(word.to_owned());
            }
            let told = [
                "kind",
                "schedule",
                "timezone",
                "collection",
                "events",
                "source_kind",
                "enabled",
            ];
            words.extend(field_words(change, &told));
        }
        (None, Some(new)) => {
            words.push(fires_on(new));
            words.push(format!("runs {}", new.script));
            if !new.enabled {
                words.push("does not fire: it is not enabled".to_owned());
            }
        }
        (Some(old), None) => words.push(format!("was: {}", fires_on(old))),
        (None, None) => {}
    }
    words
}

/// What sets a trigger off: `at 02:30 (30 2 * * *, Europe/Berlin)`.
fn fires_on(trigger: &TriggerSpec) -> String {
    let list = |events: &std::collections::BTreeSet<String>| {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        events.join(" or ")
    };
    match &trigger.kind {
        TriggerKind::Cron {
            schedule, timezone, ..
        } => match Schedule::parse(schedule) {
            Ok(parsed) => format!("{} ({schedule}, {timezone})", parsed.in_words()),
            Err(_) => format!("{schedule}, {timezone}"),
        },
        TriggerKind::Kv { collection, events } => {
            format!("on {} in the kv collection {collection}", list(events))
        }
        TriggerKind::Docs { collection, events } => {
            format!("on {} in the docs collection {collection}", list(events))
        }
        TriggerKind::DeadLetter { source_kind } => match source_kind {
            Some(kind) => format!("on each event of kind {kind} that was given up"),
            None => "on each event that was given up".to_owned(),
        },
    }
}

fn find_route<'a>(spec: Option<&'a AppSpec>, label: &str) -> Option<&'a RouteSpec> {
    spec?.routes.iter().find(|route| route.label() == label)
}

fn route_words(app: &AppPlan, change: &Change) -> Vec<String> {
    let old = find_route(app.live.as_deref(), &change.name);
    let new = find_route(app.desired.as_deref(), &change.name);
    match (old, new) {
        (None, Some(new)) => vec![format!("{} by {}", access(new), new.script)],
        (Some(old), Some(new)) => {
            let mut words = Vec::new();
            if old.auth != new.auth {
                words.push(format!("{} → {}", access(old), access(new)));
            }
            if old.rate_limit != new.rate_limit {
                words.push(format!("rate limit: {} → {}", rate(old), rate(new)));
            }
            let told = [
                "auth",
                "auth.signature.scheme",
                "auth.signature.secret",
                "rate_limit.requests",
                "rate_limit.window_ms",
            ];
            words.extend(field_words(change, &told));
            words
        }
        _ => Vec::new(),
    }
}

fn rate(route: &RouteSpec) -> String {
    route.rate_limit.map_or_else(
        || "none".to_owned(),
        |limit| format!("{} in {}", limit.requests, duration::text(limit.window_ms)),
    )
}

fn access(route: &RouteSpec) -> String {
    let who = match &route.auth {
        RouteAuth::None => "open to everyone".to_owned(),
        RouteAuth::Key => "for keys with app:invoke".to_owned(),
        RouteAuth::Signature { scheme, secret } => {
            let scheme = match scheme {
                SignatureScheme::Github => "GitHub",
                SignatureScheme::Stripe => "Stripe",
                SignatureScheme::Slack => "Slack",
                SignatureScheme::HmacSha256 => "HMAC-SHA-256",
            };
            format!("for requests signed as {scheme} does, with the secret {secret}")
        }
    };
    match route.mode {
        RouteMode::Sync => who,
        RouteMode::Async => format!("{who}, answered later (async)"),
    }
}

fn permission_words(app: &AppPlan) -> Vec<String> {
    let reach = |spec: Option<&AppSpec>| match spec.map(|spec| &spec.http_allow) {
        None => None,
        Some(None) => Some("every public host".to_owned()),
        Some(Some(hosts)) if hosts.is_empty() => Some("no host".to_owned()),
        Some(Some(hosts)) => Some(hosts.join(", ")),
    };
    match (reach(app.live.as_deref()), reach(app.desired.as_deref())) {
        (Some(old), Some(new)) => vec![format!("may reach {old} → {new}")],
        (None, Some(new)) => vec![format!("may reach {new}")],
        _ => Vec::new(),
    }
}

fn script_words(app: &AppPlan, change: &Change, texts: &Texts) -> Vec<String> {
    let (old, new) = script_blobs(app, &change.name);
    let lines = |id: Option<&picloud_shared::BlobId>| {
        let text = texts.get(id?)?;
        let count = text.lines().count();
        Some(format!(
            "{count} {}",
            if count == 1 { "line" } else { "lines" }
        ))
    };
    match change.change {
        ChangeKind::Added => lines(new).into_iter().collect(),
        ChangeKind::Removed => lines(old).into_iter().collect(),
        ChangeKind::Changed => {
            let kind = |word: &str| {
                let module = serde_json::to_value(ScriptKind::Module).unwrap_or_default();
                if module == word {
                    "a module"
                } else {
                    "a handler"
                }
            };
            let moved = change.fields.iter().filter(|field| field.path == "kind");
            moved
                .map(|field| format!("is {} now", kind(field.new.as_str().unwrap_or_default())))
                .collect()
        }
    }
}

fn static_words(change: &Change) -> Vec<String> {
    let size = change.fields.iter().find(|field| field.path == "size");
    match size {
        Some(field) => vec![two_sides("size", field)],
        None => vec!["other content of the same size".to_owned()],
    }
}

/// The fields that the words before don't tell of.
fn field_words(change: &Change, told: &[&str]) -> Vec<String> {
    if change.change != ChangeKind::Changed {
        return Vec::new();
    }
    let rest = change
        .fields
        .iter()
        .filter(|field| !told.contains(&field.path.as_str()));
    rest.map(|field| format!("{}: {}", name(&field.path), two_sides(&field.path, field)))
        .collect()
}

fn name(path: &str) -> &str {
    path.strip_suffix("_ms").unwrap_or(path)
}

/// `old → new`, or the one side that there is.
fn two_sides(name: &str, field: &FieldChange) -> String {
    let show = |side: &Value| value(name, side);
    match (&field.old, &field.new) {
        (Value::Null, new) => show(new),
        (old, Value::Null) => format!("was {}", show(old)),
        (old, new) => format!("{} → {}", show(old), show(new)),
    }
}

/// A value for people.
fn value(name: &str, value: &Value) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    match (value, value.as_u64()) {
        (_, Some(ms)) if last.ends_with("_ms") => duration::text(ms),
        (_, Some(bytes)) if ["memory", "request_body", "response_body", "size"].contains(&last) => {
            size(bytes)
        }
        (_, Some(number)) => grouped(number),
        (Value::Null, _) => "none".to_owned(),
        (Value::String(text), _)
            if text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            text[..7].to_owned()
        }
        (Value::String(text), _) => crate::decode::excerpt(text),
        (Value::Array(items), _) => {
            let items: Vec<String> = items.iter().map(|item| self::value("", item)).collect();
            format!("[{}]", items.join(", "))
        }
        (other, _) => crate::decode::excerpt(&other.to_string()),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `64MiB`, as app.yaml would have it.
fn size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{} bytes", grouped(bytes))
}
