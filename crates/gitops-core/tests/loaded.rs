//! Trees that are read as they are meant, and what is said of those that aren't, where a tree of
//! plain files (`tests/broken`) can't say it.

use std::collections::BTreeMap;

use picloud_gitops_core::{EntryKind, LoadCache, LoadOptions, Loaded, MapTree, load, plan, render};
use picloud_shared::{
    AppId, BlobId, ScriptPath, SourceId,
    app::ScriptKind,
    plan::{LiveApp, LiveState},
    script::{ScriptChecker, ScriptReport},
};

struct Content;

impl ScriptChecker for Content {
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

fn read(files: &[(&str, &str)], links: &[(&str, EntryKind)], path: &str) -> Loaded {
    let files: BTreeMap<String, Vec<u8>> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
        .collect();
    let links = links
        .iter()
        .map(|(path, kind)| ((*path).to_owned(), *kind))
        .collect();
    let (tree, root) = MapTree::with_links(&files, &links, id);
    let options = LoadOptions {
        path,
        checker: &Content,
        secrets: None,
    };
    load(&tree, &root, &options, &mut LoadCache::default()).expect("a tree in memory")
}

fn told(loaded: &Loaded) -> Vec<String> {
    let findings = loaded.diagnostics.iter();
    findings
        .map(|finding| format!("{}:{} {}", finding.path, finding.line, finding.code))
        .collect()
}

fn source(number: u8) -> SourceId {
    let id = format!("01890000-0000-7000-8000-{number:012}");
    SourceId(id.parse().expect("an id"))
}

#[test]
fn hosts_beyond_ascii_are_what_clients_send() {
    let manifest = "\u{feff}name: a\ndomains: [Bücher.example, 'EXAMPLE.com.']\n\
        permissions: {http: {allow: [müller.de, '*.Straße.example', API.example.com]}}\n";
    let loaded = read(&[("app.yaml", manifest)], &[], "");
    assert_eq!(told(&loaded), Vec::<String>::new());
    let app = loaded.desired.apps.values().next().expect("the app");
    let domains: Vec<&str> = app.domains.iter().map(String::as_str).collect();
    assert_eq!(domains, ["example.com", "xn--bcher-kva.example"]);
    let allow = app.http_allow.as_deref().expect("a list");
    let expected = [
        "*.xn--strae-oqa.example",
        "api.example.com",
        "xn--mller-kva.de",
    ];
    assert_eq!(allow, expected);
}

#[test]
fn a_mark_at_the_begin_of_a_file_moves_no_caret() {
    let loaded = read(&[("app.yaml", "\u{feff}naem: a\n")], &[], "");
    let shown = render::human(&loaded.diagnostics[1..], false);
    assert!(shown.contains("1 | naem: a\n  | ^^^^\n"), "{shown}");
}

#[test]
fn links_and_submodules_where_apps_lie_are_told_and_elsewhere_they_are_not() {
    let app = ("deploy/apps/shop/app.yaml", "name: shop\n");
    let links = [
        ("CLAUDE", EntryKind::Symlink),
        ("docs/theme", EntryKind::Submodule),
        ("deploy/latest", EntryKind::Symlink),
        ("deploy/apps/README.md", EntryKind::Symlink),
        ("deploy/apps/other", EntryKind::Symlink),
        ("deploy/apps/vendor", EntryKind::Submodule),
        ("deploy/apps/shop/NOTES", EntryKind::Symlink),
    ];
    let expected = ["deploy/apps/other:1 E0204", "deploy/apps/vendor:1 E0205"];
    for path in ["", "deploy", "deploy/apps"] {
        assert_eq!(told(&read(&[app], &links, path)), expected, "{path:?}");
    }
}

#[test]
fn names_and_domains_of_other_sources_are_told_at_the_name() {
    let here = source(1);
    let live = |owner: SourceId, text: &str| {
        let loaded = read(&[("app.yaml", text)], &[], "");
        let spec = loaded.desired.apps.into_values().next().expect("an app");
        let app = LiveApp {
            id: AppId(source(9).0),
            source: owner,
            pinned_commit: None,
            damaged: Vec::new(),
            spec: spec.clone(),
        };
        (spec.name.clone(), app)
    };
    let elsewhere = source(2);
    let state = LiveState {
        apps: [
            live(
                elsewhere,
                "name: shop\ndomains: [shop.example, www.example]\n",
            ),
            live(here, "name: own\ndomains: [own.example]\n"),
        ]
        .into(),
        ..LiveState::default()
    };
    let loaded = read(
        &[
            ("a/app.yaml", "# ours\nname: shop\n"),
            (
                "b/app.yaml",
                "name: own\ndomains: [own.example, Shop.example]\n",
            ),
            (
                "c/app.yaml",
                "description: x\nname: new\ndomains: [www.example]\n",
            ),
            ("d/app.yaml", "name: fine\ndomains: [fine.example]\n"),
        ],
        &[],
        "",
    );
    let plan = plan(here, &loaded.desired, &state, true);
    let shown = render::human(&plan.errors, false);
    for expected in [
        "a/app.yaml:2:7: error[E0211]: the app `shop` belongs to another source\n2 | name: shop\n  |       ^^^^\n",
        "b/app.yaml:2:24: error[E0215]: the domain `shop.example` is taken by the app `shop` of another source\n",
        "c/app.yaml:3:11: error[E0215]",
    ] {
        assert!(shown.contains(expected), "{expected} in:\n{shown}");
    }
    let names = |names: Vec<&picloud_shared::AppName>| {
        names
            .into_iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(plan.apps.keys().collect()), ["fine"]);
    assert_eq!(names(plan.kept.iter().collect()), ["own"]);
}
