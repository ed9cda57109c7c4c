//! Operations on what there is over all apps.

use serde_json::json;

use crate::admin::{
    across,
    api::{Api, Op, op},
    stats,
};

/// With the words that a list is looked through for.
fn searched(op: Op, about: &'static str) -> Op {
    op.query("q", about, json!({ "type": "string" }))
}

pub(super) fn operations(api: Api) -> Api {
    let routes = op("listAllRoutes", "Apps", "The routes of all apps, by app.").of_app();
    let scripts = op("listAllScripts", "Apps", "The scripts of all apps, by app.").of_app();
    let triggers = op(
        "listAllTriggers",
        "Triggers",
        "The triggers of all apps, by app, with their next fire times.",
    )
    .of_app();
    api.get(
        "/overview",
        across::overview,
        op(
            "getOverview",
            "Apps",
            "How all apps stand, and which of them need a look.",
        )
        .more("At most 50 apps are named; dead letters are counted up to 10,000, and are null without the scope `run:read`.")
        .gives(200, "How they stand.", "Overview"),
    )
    .get(
        "/routes",
        across::routes,
        searched(routes, "Words that stand in app, path, methods or script.").lists_by_name("Route"),
    )
    .get(
        "/scripts",
        across::scripts,
        searched(scripts, "Words that stand in app or path.").lists_by_name("ScriptInfo"),
    )
    .get(
        "/triggers",
        across::triggers,
        searched(triggers, "Words that stand in app, name, kind or script.")
            .lists_by_name("Trigger"),
    )
    .get(
        "/stats/apps",
        stats::by_app,
        op(
            "listAppStats",
            "Runs",
            "Counts, error rate and latency quantiles of each app, by name.",
        )
        .more("Apps that ran nothing are there, too.")
        .of_app()
        .query("window", "How far back, up to 30 days.", stats::window_schema())
        .lists_by_name("AppStats"),
    )
}
