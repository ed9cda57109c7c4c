//! What is live, brought back to files: from any manifest to any state, with as little of the
//! file written anew as it takes.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use picloud_gitops_core::{
    LoadCache, LoadOptions, Loaded, MapTree,
    adopt::{Adopt, Adoption, adopt},
    load, plan,
};
use picloud_shared::{
    AppId, AppName, AppSpec, BlobId, ScriptPath, SourceId, TriggerName,
    app::{RouteAuth, ScriptKind, ScriptSpec, TriggerKind},
    plan::{LiveApp, LiveState},
    script::{ScriptChecker, ScriptProblem, ScriptProblemKind, ScriptReport},
};
use similar::TextDiff;

/// Finds one thing to be wrong.
struct FakeChecker;

impl ScriptChecker for FakeChecker {
    fn check(&self, _: &ScriptPath, _: ScriptKind, source: &str) -> ScriptReport {
        let mut report = ScriptReport::default();
        if source.contains("???") {
            report.problems.push(ScriptProblem {
                kind: ScriptProblemKind::Syntax,
                line: 1,
                column: 1,
                message: "this is no script".to_owned(),
                hint: None,
            });
        }
        report
    }
}

const OPTIONS: LoadOptions<'_> = LoadOptions {
    path: "",
    checker: &FakeChecker,
    secrets: None,
};

fn id(content: &[u8]) -> BlobId {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:040x}").parse().expect("an id")
}

type Files = BTreeMap<String, Vec<u8>>;

fn read(name: &str) -> Files {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/adopt")
        .join(name);
    let text = fs::read_to_string(path).expect("a tree");
    let parts = text.split("=== ").skip(1);
    parts
        .map(|part| {
            let (path, content) = part.split_once('\n').expect("a path's line");
            (path.trim().to_owned(), content.as_bytes().to_vec())
        })
        .collect()
}

fn loaded(files: &Files) -> Loaded {
    let (tree, root) = MapTree::new(files, id);
    let loaded = load(&tree, &root, &OPTIONS, &mut LoadCache::default()).expect("in memory");
    assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
    loaded
}

fn shop() -> AppName {
    "shop".parse().expect("a name")
}

fn spec(files: &Files) -> Option<Arc<AppSpec>> {
    loaded(files).desired.apps.get(&shop()).cloned()
}

fn source() -> SourceId {
    SourceId::default()
}

fn live(spec: Arc<AppSpec>) -> LiveApp {
    LiveApp {
        id: AppId::default(),
        source: source(),
        pinned_commit: None,
        spec,
        damaged: Vec::new(),
    }
}

fn adopted(files: &Files, live: Option<&LiveApp>, contents: &Files) -> Adoption {
    let (tree, root) = MapTree::new(files, id);
    let contents = contents
        .values()
        .map(|content| (id(content), content.clone()));
    let desired = spec(files);
    let ask = Adopt {
        reader: &tree,
        root: &root,
        source: source(),
        name: &shop(),
        desired: desired.as_deref(),
        live,
        contents: &contents.collect(),
        hash: &id,
    };
    adopt(&ask, &OPTIONS).expect("in memory")
}

fn apply(files: &Files, adoption: &Adoption) -> Files {
    let mut after = files.clone();
    for (path, content) in &adoption.files {
        match content {
            Some(content) => after.insert(path.clone(), content.clone()),
            None => after.remove(path),
        };
    }
    after
}

/// Whether git would change nothing of what is live.
fn agrees(files: &Files, live: Option<LiveApp>) -> bool {
    let state = LiveState {
        apps: live
            .into_iter()
            .map(|app| (app.spec.name.clone(), app))
            .collect(),
        ..LiveState::default()
    };
    plan(source(), &loaded(files).desired, &state, true)
        .apps
        .is_empty()
}

#[test]
fn any_manifest_can_be_brought_to_any_state() {
    const TREES: [&str; 6] = [
        "commented.tree",
        "small.tree",
        "crlf.tree",
        "flow.tree",
        "aliases.tree",
        "full.tree",
    ];
    for from in TREES {
        for to in TREES {
            let (before, mut goal) = (read(from), read(to));
            // The source's defaults are not the app's.
            goal.remove("picloud.yaml");
            goal.extend(
                before
                    .get("picloud.yaml")
                    .map(|text| ("picloud.yaml".to_owned(), text.clone())),
            );
            let live = spec(&goal).map(live);
            let adoption = adopted(&before, live.as_ref(), &goal);
            let text = adoption.files.get("apps/shop/app.yaml").cloned().flatten();
            let text = String::from_utf8(text.unwrap_or_default()).expect("UTF-8");
            assert!(
                adoption.left.is_empty(),
                "{from} to {to}: {:#?}\n{text}",
                adoption.left
            );
            assert!(
                adoption.errors.is_empty(),
                "{from} to {to}: {:#?}\n{text}",
                adoption.errors
            );
            assert_eq!(
                adoption.files.is_empty(),
                agrees(&before, live.clone()),
                "{from} to {to}"
            );
            assert!(
                agrees(&apply(&before, &adoption), live),
                "{from} to {to}:\n{text}"
            );
        }
        // The app is gone, and the app is new.
        let before = read(from);
        let without: Files = before
            .iter()
            .filter(|(path, _)| *path == "picloud.yaml")
            .map(|(path, text)| (path.clone(), text.clone()))
            .collect();
        assert_eq!(
            apply(&before, &adopted(&before, None, &before)),
            without,
            "{from}"
        );
        let all = spec(&before).map(live);
        let adoption = adopted(&without, all.as_ref(), &before);
        assert!(agrees(&apply(&without, &adoption), all), "{from}");
    }
}

/// How one change of what is live looks in a manifest.
fn diff_of(change: impl FnOnce(&mut AppSpec)) -> String {
    let before = read("commented.tree");
    let mut goal = spec(&before).expect("an app").as_ref().clone();
    change(&mut goal);
    let contents = Files::from([("new".to_owned(), b"\"new\"\n".to_vec())]);
    let app = live(Arc::new(goal));
    let adoption = adopted(&before, Some(&app), &contents);
    let mut out = String::new();
    for (path, content) in &adoption.files {
        let old = before
            .get(path)
            .map_or("", |text| std::str::from_utf8(text).expect("UTF-8"));
        let new = content
            .as_ref()
            .map_or("", |text| std::str::from_utf8(text).expect("UTF-8"));
        let diff = TextDiff::from_lines(old, new);
        out.push_str(
            &diff
                .unified_diff()
                .context_radius(1)
                .header(path, path)
                .to_string(),
        );
    }
    for item in &adoption.left {
        out.push_str(&format!(
            "left: {} {}\n",
            serde_json::to_value(item.kind).expect("JSON"),
            item.name
        ));
    }
    for error in &adoption.errors {
        out.push_str(&format!(
            "error: {} {}:{}\n",
            error.code, error.path, error.line
        ));
    }
    let gone = adoption.left.is_empty() && adoption.errors.is_empty();
    assert_eq!(gone, agrees_after(&before, &adoption, app));
    out
}

fn agrees_after(before: &Files, adoption: &Adoption, live: LiveApp) -> bool {
    let after = apply(before, adoption);
    let (tree, root) = MapTree::new(&after, id);
    let loaded = load(&tree, &root, &OPTIONS, &mut LoadCache::default()).expect("in memory");
    !loaded.has_errors() && agrees(&after, Some(live))
}

fn trigger(
    spec: &mut AppSpec,
    name: &str,
    change: impl FnOnce(&mut picloud_shared::app::TriggerSpec),
) {
    change(
        spec.triggers
            .get_mut(&name.parse::<TriggerName>().expect("a name"))
            .expect("a trigger"),
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn changes_touch_what_they_are_about() {
    let mut told = String::new();
    let mut tell = |what: &str, diff: String| told.push_str(&format!("## {what}\n{diff}\n"));
    tell(
        "a schedule",
        diff_of(|spec| {
            trigger(spec, "report", |trigger| {
                if let TriggerKind::Cron {
                    schedule, timezone, ..
                } = &mut trigger.kind
                {
                    "0 7 * * 1-5".clone_into(schedule);
                    "UTC".clone_into(timezone);
                }
            });
        }),
    );
    tell(
        "a trigger that is switched off, tried less and limited",
        diff_of(|spec| {
            trigger(spec, "report", |trigger| {
                trigger.enabled = false;
                trigger.retry.attempts = 2;
                trigger.limits.timeout_ms = Some(90_000);
            });
        }),
    );
    tell(
        "a new trigger",
        diff_of(|spec| {
            let mut new = spec.triggers.values().next().expect("one").clone();
            new.kind = TriggerKind::Docs {
                collection: "people".to_owned(),
                events: ["create".to_owned()].into(),
            };
            spec.triggers
                .insert("on-person".parse().expect("a name"), new);
        }),
    );
    tell(
        "a trigger gone",
        diff_of(|spec| {
            spec.triggers
                .remove(&"on-order".parse::<TriggerName>().expect("a name"));
        }),
    );
    tell("no trigger", diff_of(|spec| spec.triggers.clear()));
    tell(
        "env and description",
        diff_of(|spec| {
            spec.env.remove("COLOUR");
            spec.env
                .insert("GREETING".to_owned(), "good day".to_owned());
            spec.env.insert("SIZE".to_owned(), "10".to_owned());
            spec.description = Some("It's\nnew.".to_owned());
        }),
    );
    tell(
        "routes",
        diff_of(|spec| {
            spec.routes.retain(|route| route.path != "/");
            for route in &mut spec.routes {
                if route.path == "/orders" {
                    route.auth = RouteAuth::None;
                    route.methods.insert("PUT".to_owned());
                } else {
                    route.methods = ["GET".to_owned()].into();
                    route.limits.timeout_ms = Some(1_000);
                }
            }
        }),
    );
    tell(
        "domains, permissions and limits",
        diff_of(|spec| {
            spec.domains.remove("shop.example.com");
            spec.domains.insert("new.example.com".to_owned());
            spec.http_allow = Some(vec!["*.example.com".to_owned()]);
            spec.limits.memory = None;
            spec.limits.timeout_ms = Some(5_000);
        }),
    );
    tell(
        "a limit that the source's defaults set, and none",
        diff_of(|spec| spec.limits.timeout_ms = None),
    );
    tell(
        "scripts",
        diff_of(|spec| {
            let new = ScriptSpec {
                kind: ScriptKind::Handler,
                blob: id(b"\"new\"\n"),
            };
            spec.scripts
                .insert("scripts/item.rhai".parse().expect("a path"), new.clone());
            spec.scripts.insert(
                "modules/new.rhai".parse().expect("a path"),
                ScriptSpec {
                    kind: ScriptKind::Module,
                    ..new
                },
            );
        }),
    );
    tell(
        "a script that nobody has",
        diff_of(|spec| {
            let lost = ScriptSpec {
                kind: ScriptKind::Handler,
                blob: id(b"lost"),
            };
            spec.scripts
                .insert("scripts/item.rhai".parse().expect("a path"), lost);
        }),
    );
    tell(
        "a schedule that is none",
        diff_of(|spec| {
            trigger(spec, "report", |trigger| {
                if let TriggerKind::Cron { schedule, .. } = &mut trigger.kind {
                    "often".clone_into(schedule);
                }
            });
        }),
    );
    tell(
        "a folder that is not where the files are",
        diff_of(|spec| "apps/other".clone_into(&mut spec.dir)),
    );
    insta::assert_snapshot!(told);
}
