//! Properties of the planner: what it says to do leads to what was desired, from anywhere.

use std::{collections::BTreeMap, sync::Arc};

use picloud_gitops_core::plan;
use picloud_shared::{
    AppId, AppName, AppSpec, BlobId, LimitsPatch, SourceId,
    app::{RouteAuth, RouteMode, RouteSpec, ScriptKind, ScriptSpec, StaticFile},
    plan::{DesiredState, LiveApp, LiveState},
};
use proptest::prelude::*;

fn blob(number: u8) -> BlobId {
    format!("{number:040x}").parse().expect("an id")
}

fn spec(name: AppName) -> impl Strategy<Value = Arc<AppSpec>> {
    let env = proptest::collection::btree_map("[A-C]", "[a-z]{0,3}", 0..3);
    let scripts = proptest::collection::btree_map("scripts/[a-c]\\.rhai", 0_u8..4, 1..3);
    let files = proptest::collection::btree_map("[a-c]\\.html", 0_u8..4, 0..3);
    let rest = (
        proptest::option::of(1_u64..9),
        proptest::option::of("[a-z]{1,4}"),
        any::<bool>(),
    );
    (env, scripts, files, rest).prop_map(
        move |(env, scripts, files, (timeout_ms, description, routed))| {
            let mut spec = AppSpec::empty(name.clone(), format!("apps/{name}"));
            spec.env = env;
            spec.description = description;
            spec.limits = LimitsPatch {
                timeout_ms,
                ..LimitsPatch::default()
            };
            spec.static_dir = (!files.is_empty()).then(|| "public".to_owned());
            spec.static_files = files
                .into_iter()
                .map(|(path, id)| {
                    (
                        path,
                        StaticFile {
                            blob: blob(id),
                            size: 1,
                        },
                    )
                })
                .collect();
            for (path, id) in scripts {
                let path: picloud_shared::ScriptPath = path.parse().expect("a path");
                if routed {
                    spec.routes.push(RouteSpec {
                        path: format!("/{path}"),
                        methods: ["GET".to_owned()].into(),
                        script: path.clone(),
                        mode: RouteMode::Sync,
                        auth: RouteAuth::None,
                        cors: None,
                        rate_limit: None,
                        limits: LimitsPatch::default(),
                    });
                }
                spec.scripts.insert(
                    path,
                    ScriptSpec {
                        kind: ScriptKind::Handler,
                        blob: blob(id),
                    },
                );
            }
            Arc::new(spec)
        },
    )
}

fn state() -> impl Strategy<Value = DesiredState> {
    proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4)
        .prop_flat_map(|names| {
            names
                .into_iter()
                .map(|name| spec(name.parse().expect("a name")))
                .collect::<Vec<_>>()
        })
        .prop_map(|specs| DesiredState {
            apps: specs
                .into_iter()
                .map(|spec| (spec.name.clone(), spec))
                .collect(),
            ..DesiredState::default()
        })
}

fn source() -> SourceId {
    SourceId(
        "01890000-0000-7000-8000-000000000001"
            .parse()
            .expect("an id"),
    )
}

fn apply(live: &LiveState, desired: &DesiredState) -> LiveState {
    let plan = plan(source(), desired, live, true);
    let mut after = live.clone();
    for (name, app) in &plan.apps {
        match &app.desired {
            Some(spec) => {
                // A copy, as it would come back from the database.
                let spec = Arc::new(AppSpec::clone(spec));
                let id = AppId(
                    "01890000-0000-7000-8000-000000000002"
                        .parse()
                        .expect("an id"),
                );
                after.apps.insert(
                    name.clone(),
                    LiveApp {
                        id,
                        source: source(),
                        pinned_commit: None,
                        damaged: Vec::new(),
                        spec,
                    },
                );
            }
            None => {
                after.apps.remove(name);
            }
        }
    }
    after
}

fn specs(live: &LiveState) -> BTreeMap<AppName, AppSpec> {
    live.apps
        .iter()
        .map(|(name, app)| (name.clone(), AppSpec::clone(&app.spec)))
        .collect()
}

proptest! {
    #[test]
    fn planning_after_applying_yields_nothing(desired in state()) {
        let live = apply(&LiveState::default(), &desired);
        prop_assert!(plan(source(), &desired, &live, true).is_empty());
    }

    #[test]
    fn any_two_states_converge(one in state(), other in state()) {
        let direct = apply(&LiveState::default(), &other);
        let around = apply(&apply(&LiveState::default(), &one), &other);
        prop_assert_eq!(specs(&direct), specs(&around));
        prop_assert!(plan(source(), &other, &around, true).is_empty());
    }

    #[test]
    fn a_change_always_has_a_field(one in state(), other in state()) {
        let live = apply(&LiveState::default(), &one);
        let plan = plan(source(), &other, &live, true);
        prop_assert!(plan.changes().all(|change| !change.fields.is_empty()));
        prop_assert!(plan.apps.values().all(|app| !app.changes.is_empty()));
    }
}
