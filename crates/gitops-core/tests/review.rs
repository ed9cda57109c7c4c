//! What people and programs are shown of a plan, reviewed as snapshots: one value, three forms.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use picloud_gitops_core::{
    LoadCache, LoadOptions, MapTree, Review, load, plan,
    render::{self, Layout},
    review::{Texts, wanted_texts},
};
use picloud_shared::{
    AppId, BlobId, Plan, ScriptPath, SourceId,
    app::ScriptKind,
    plan::{LiveApp, LiveState},
    script::{ScriptChecker, ScriptReport},
};

/// Every script is fine.
struct AnyScript;

impl ScriptChecker for AnyScript {
    fn check(&self, _: &ScriptPath, _: ScriptKind, _: &str) -> ScriptReport {
        ScriptReport::default()
    }
}

fn id(content: &[u8]) -> BlobId {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:040x}").parse().expect("an id")
}

type Files<'a> = &'a [(&'a str, &'a str)];

fn desired(files: Files<'_>) -> picloud_gitops_core::Loaded {
    let files: BTreeMap<String, Vec<u8>> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
        .collect();
    let (tree, root) = MapTree::new(&files, id);
    let options = LoadOptions {
        path: "",
        checker: &AnyScript,
        secrets: None,
    };
    let loaded = load(&tree, &root, &options, &mut LoadCache::default()).expect("a tree in memory");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded
}

fn planned(old: Files<'_>, new: Files<'_>) -> (Plan, Texts) {
    let source = SourceId::default();
    let mut live = LiveState::default();
    for (name, spec) in desired(old).desired.apps {
        let app = LiveApp {
            id: AppId::default(),
            source,
            pinned_commit: None,
            damaged: Vec::new(),
            spec: Arc::clone(&spec),
        };
        live.apps.insert(name, app);
    }
    let plan = plan(source, &desired(new).desired, &live, true);
    let texts: Texts = old
        .iter()
        .chain(new)
        .map(|(_, text)| (id(text.as_bytes()), (*text).to_owned()))
        .collect();
    let wanted = wanted_texts(&plan);
    (
        plan,
        texts
            .into_iter()
            .filter(|(id, _)| wanted.contains(id))
            .collect(),
    )
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

fn review(old: Files<'_>, new: Files<'_>) -> Review {
    let (plan, texts) = planned(old, new);
    Review::new(&plan, &[], &texts, at("2026-03-27T12:00:00Z"))
}

const OLD: Files<'_> = &[
    (
        "shop/app.yaml",
        "name: shop
env: {CURRENCY: EUR, OLD: x}
permissions: {http: {allow: [api.example.com]}}
limits: {timeout: 5s, memory: 64MiB}
routes:
  - {path: /orders, methods: [GET, POST], script: scripts/orders.rhai, auth: key, rate_limit: 100/1m}
  - {path: /gone, script: scripts/orders.rhai}
triggers:
  - {name: report, kind: cron, schedule: '30 2 * * *', timezone: Europe/Berlin, script: scripts/report.rhai}
  - {name: stock, kind: kv, collection: stock, events: [set], script: scripts/report.rhai}
",
    ),
    ("shop/scripts/orders.rhai", "let a = 1;\nlet b = 2;\na + b\n"),
    ("shop/scripts/report.rhai", "\"a report\"\n"),
    ("old/app.yaml", "name: old\n"),
];

const NEW: Files<'_> = &[
    (
        "shop/app.yaml",
        "name: shop
description: Sells *things*
env: {CURRENCY: USD, NEW: \"a|b`c\"}
permissions: {http: {allow: [api.example.com, '*.payments.example']}}
limits: {timeout: 1m30s, memory: 128MiB}
routes:
  - {path: /orders, methods: [GET, POST], script: scripts/orders.rhai}
triggers:
  - {name: report, kind: cron, schedule: '15 3 * * MON-FRI', timezone: Europe/Berlin, script: scripts/report.rhai, retry: {attempts: 3}}
  - {name: stock, kind: kv, collection: stock, events: [set, delete], enabled: false, script: scripts/report.rhai}
",
    ),
    ("shop/scripts/orders.rhai", "let a = 1;\nlet b = 3; // \u{1b}[2J ```\na + b\n"),
    ("shop/scripts/report.rhai", "\"a report\"\n"),
    (
        "clock/app.yaml",
        "name: clock
routes:
  - {path: /, script: scripts/tick.rhai}
triggers:
  - {name: tick, kind: cron, schedule: '*/10 * * * * *', script: scripts/tick.rhai}
  - {name: nightly, kind: cron, schedule: '30 2 * * *', timezone: Europe/Berlin, script: scripts/tick.rhai}
",
    ),
    ("clock/scripts/tick.rhai", "\"tick\"\n"),
];

#[test]
fn a_terminal_is_shown_what_changes() {
    insta::assert_snapshot!(render::terminal(&review(OLD, NEW), Layout::PLAIN));
}

#[test]
fn a_narrow_terminal_has_no_longer_lines_but_code() {
    let layout = Layout {
        color: false,
        width: 56,
    };
    insta::assert_snapshot!(render::terminal(&review(OLD, NEW), layout));
}

#[test]
fn a_pull_request_is_shown_the_same() {
    insta::assert_snapshot!(render::markdown(&review(OLD, NEW)));
}

#[test]
fn programs_are_given_the_same() {
    insta::assert_json_snapshot!(render::json(&review(OLD, NEW)));
}

#[test]
fn what_does_not_change_is_no_change_and_says_so() {
    let nothing = review(NEW, NEW);
    assert_eq!(render::terminal(&nothing, Layout::PLAIN), "No changes.\n");
    assert!(nothing.warnings.is_empty());
}

#[test]
fn a_plans_hash_is_of_its_changes_alone() {
    let (plan, texts) = planned(OLD, NEW);
    let first = Review::new(&plan, &[], &texts, at("2026-03-27T12:00:00Z"));
    let mut later = plan.clone();
    later.parent.generation += 7;
    let again = Review::new(&later, &[], &Texts::new(), at("2030-01-01T00:00:00Z"));
    assert_eq!(first.hash, again.hash);
    assert_eq!(first.hash.len(), 64);
    let other = review(NEW, OLD);
    assert_ne!(first.hash, other.hash);
}

#[test]
fn changes_of_the_clock_are_told_where_they_do_something() {
    let told = |schedule: &str, zone: &str| {
        let manifest = format!(
            "name: a\ntriggers:\n  - {{name: t, kind: cron, schedule: '{schedule}', timezone: {zone}, script: scripts/a.rhai}}\n"
        );
        let review = review(&[], &[("app.yaml", &manifest), ("scripts/a.rhai", "1")]);
        let changes = &review.apps[0].changes;
        let words = changes.iter().flat_map(|change| change.words.clone());
        words
            .filter(|words| words.starts_with("daylight"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told("30 2 * * *", "Europe/Berlin"),
        [
            "daylight saving: 02:30 does not exist on 2026-03-29; it fires at 2026-03-29T03:00:00+02:00 instead",
            "daylight saving: 02:30 comes twice on 2026-10-25; it fires once, at 2026-10-25T02:30:00+02:00",
            "daylight saving: 02:30 does not exist on 2027-03-28; it fires at 2027-03-28T03:00:00+02:00 instead",
        ]
    );
    for (schedule, zone) in [
        ("30 2 * * *", "UTC"),
        ("30 4 * * *", "Europe/Berlin"),
        ("*/5 * * * *", "Europe/Berlin"),
        ("30 2 * * MON", "Europe/Berlin"),
    ] {
        assert_eq!(
            told(schedule, zone),
            Vec::<String>::new(),
            "{schedule} {zone}"
        );
    }
}

#[test]
fn a_comment_is_never_longer_than_a_forge_takes() {
    let long: String = (0..3000).map(|line| format!("line {line}\n")).collect();
    let files: Vec<(String, String)> = (0..400)
        .flat_map(|app| {
            [
                (
                    format!("app{app}/app.yaml"),
                    format!("name: app{app}\nenv: {{A: '{}'}}\n", "x".repeat(180)),
                ),
                (format!("app{app}/scripts/a.rhai"), long.clone()),
            ]
        })
        .collect();
    let new: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let text = render::markdown(&review(&[], &new));
    assert!(
        text.len() < 61_000 && text.contains("too long"),
        "{}",
        text.len()
    );
    assert_eq!(
        text.matches("<details").count(),
        text.matches("</details>").count()
    );
}
