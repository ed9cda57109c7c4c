//! What is live, as app.yaml writes it. What is as it would be without its key is `None`.

use picloud_shared::{
    LimitsPatch, TriggerName,
    app::{
        CatchUp, CheckSpec, Cors, Overlap, RateLimit, RetryPolicy, RouteAuth, RouteMode, RouteSpec,
        SignatureScheme, TriggerKind, TriggerSpec,
    },
};

use crate::yaml_write::Plain;

/// Keys in their order, each with what is written there.
pub(super) type Values = Vec<(&'static str, Option<Plain>)>;

/// Milliseconds in the largest units that say it exactly: `1h30m`.
pub(super) fn duration(ms: u64) -> Plain {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    if ms == 0 {
        return Plain::text("0s");
    }
    let mut out = String::new();
    let mut rest = ms;
    for (unit, size) in UNITS {
        if rest >= size {
            out.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    Plain::text(out)
}

/// Bytes in the largest unit that says it exactly: `64MiB`.
fn size(bytes: u64) -> Plain {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return Plain::text(format!("{}{unit}", bytes / size));
        }
    }
    Plain::word(bytes)
}

/// The keys that have something, as a mapping; `None`: none has.
pub(super) fn mapping(values: Values) -> Option<Plain> {
    let entries: Vec<(String, Plain)> = values
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    (!entries.is_empty()).then_some(Plain::Map(entries))
}

pub(super) fn limits(limits: &LimitsPatch) -> Values {
    vec![
        ("timeout", limits.timeout_ms.map(duration)),
        ("memory", limits.memory.map(size)),
        ("operations", limits.operations.map(Plain::word)),
        ("concurrency", limits.concurrency.map(Plain::word)),
        ("request_body", limits.request_body.map(size)),
        ("response_body", limits.response_body.map(size)),
    ]
}

pub(super) fn route(route: &RouteSpec) -> Values {
    let get_alone = route.methods.len() == 1 && route.methods.contains("GET");
    vec![
        ("path", Some(Plain::text(&route.path))),
        (
            "methods",
            (!get_alone).then(|| Plain::texts(&route.methods)),
        ),
        ("script", Some(Plain::text(route.script.as_str()))),
        (
            "mode",
            (route.mode == RouteMode::Async).then(|| Plain::text("async")),
        ),
        ("auth", auth(&route.auth)),
        ("cors", route.cors.as_ref().map(cors)),
        ("rate_limit", route.rate_limit.map(rate_limit)),
        ("limits", mapping(limits(&route.limits))),
    ]
}

fn auth(auth: &RouteAuth) -> Option<Plain> {
    match auth {
        RouteAuth::None => None,
        RouteAuth::Key => Some(Plain::text("key")),
        RouteAuth::Signature { scheme, secret } => {
            let scheme = match scheme {
                SignatureScheme::Github => "github",
                SignatureScheme::Stripe => "stripe",
                SignatureScheme::Slack => "slack",
                SignatureScheme::HmacSha256 => "hmac-sha256",
            };
            let signature = mapping(vec![
                ("scheme", Some(Plain::text(scheme))),
                ("secret", Some(Plain::text(secret))),
            ]);
            mapping(vec![("signature", signature)])
        }
    }
}

fn cors(cors: &Cors) -> Plain {
    let plain = Cors {
        origins: vec!["*".to_owned()],
        ..Cors::default()
    };
    let list = |items: &Vec<String>| (!items.is_empty()).then(|| Plain::texts(items));
    let special = (*cors != plain).then(|| {
        mapping(vec![
            ("origins", list(&cors.origins)),
            ("methods", list(&cors.methods)),
            ("headers", list(&cors.headers)),
            (
                "max_age",
                cors.max_age.map(|seconds| duration(seconds * 1_000)),
            ),
        ])
    });
    special.flatten().unwrap_or_else(|| Plain::word(true))
}

fn rate_limit(limit: RateLimit) -> Plain {
    match duration(limit.window_ms) {
        Plain::Text(window) => Plain::text(format!("{}/{window}", limit.requests)),
        other => other,
    }
}

pub(super) fn trigger(name: &TriggerName, trigger: &TriggerSpec) -> Values {
    let mut values = vec![
        ("name", Some(Plain::text(name.as_str()))),
        ("kind", Some(Plain::text(trigger.kind.name()))),
    ];
    values.extend(kind(&trigger.kind));
    values.extend([
        ("script", Some(Plain::text(trigger.script.as_str()))),
        ("enabled", (!trigger.enabled).then(|| Plain::word(false))),
        ("retry", mapping(retry(&trigger.retry))),
        ("max_concurrency", trigger.max_concurrency.map(Plain::word)),
        ("limits", mapping(limits(&trigger.limits))),
    ]);
    values
}

fn kind(kind: &TriggerKind) -> Values {
    match kind {
        TriggerKind::Cron {
            schedule,
            timezone,
            overlap,
            catch_up,
        } => {
            let overlap = match overlap {
                Overlap::Skip => None,
                Overlap::Allow => Some(Plain::text("allow")),
                Overlap::Queue => Some(Plain::text("queue")),
            };
            vec![
                ("schedule", Some(Plain::text(schedule))),
                (
                    "timezone",
                    (timezone != "UTC").then(|| Plain::text(timezone)),
                ),
                ("overlap", overlap),
                (
                    "catch_up",
                    (*catch_up == CatchUp::None).then(|| Plain::text("none")),
                ),
            ]
        }
        TriggerKind::Kv { collection, events } => vec![
            ("collection", Some(Plain::text(collection))),
            ("events", (events.len() < 2).then(|| Plain::texts(events))),
        ],
        TriggerKind::Docs { collection, events } => vec![
            ("collection", Some(Plain::text(collection))),
            ("events", (events.len() < 3).then(|| Plain::texts(events))),
        ],
        TriggerKind::DeadLetter { source_kind } => {
            vec![("source_kind", source_kind.as_ref().map(Plain::text))]
        }
    }
}

pub(super) fn retry(retry: &RetryPolicy) -> Values {
    let default = RetryPolicy::default();
    let other = |own: u64, default: u64| (own != default).then(|| duration(own));
    vec![
        (
            "attempts",
            (retry.attempts != default.attempts).then(|| Plain::word(retry.attempts)),
        ),
        ("backoff", other(retry.backoff_ms, default.backoff_ms)),
        (
            "max_backoff",
            other(retry.max_backoff_ms, default.max_backoff_ms),
        ),
    ]
}

pub(super) fn check(check: &CheckSpec) -> Values {
    vec![
        ("path", Some(Plain::text(&check.path))),
        (
            "status",
            (check.status != 200).then(|| Plain::word(check.status)),
        ),
        (
            "within",
            (check.within_ms != 10_000).then(|| duration(check.within_ms)),
        ),
    ]
}
