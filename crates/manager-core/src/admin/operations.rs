//! The table of all operations: route, handler, and what is said of it. A route that is added here
//! is documented; there is no other way to add one.

#![expect(
    clippy::too_many_lines,
    reason = "a table has as many lines as there are operations"
)]

mod access;
mod across;

use picloud_shared::{RunStatus, run::RunKind};
use serde_json::json;

use super::{
    MAX_TREE,
    access::Access,
    api::{Api, Method, op},
    apps, ask, dead_letters, deployments, diffs, drift, events, plan, previews, replay, runs,
    schedule, sources, stats, triggers,
};

/// Every operation below `/api/v1/admin`, with what is said of it. Who may call an operation
/// stands in its handler's type; shapes of bodies stand in `admin/openapi/schemas.json`.
pub(super) fn routes() -> Api {
    let api = Api::below("/api/v1/admin");
    let api = runs_and_events(apps_and_triggers(sources_and_deployments(api)));
    access::operations(across::operations(drift_and_schedules(api)))
}

fn sources_and_deployments(api: Api) -> Api {
    api.get(
        "/sources",
        sources::list,
        op(
            "listSources",
            "Sources",
            "The repositories that are deployed from, by name.",
        )
        .lists_by_name("Source"),
    )
    .get(
        "/sources/{source}",
        sources::show,
        op("getSource", "Sources", "One source.")
            .gives(200, "The source.", "Source")
            .tagged(),
    )
    .put(
        "/sources/{source}",
        sources::put,
        op(
            "putSource",
            "Sources",
            "Makes a source or replaces it, and fetches at once.",
        )
        .more("Secrets in it are never shown again. The same body twice is the same source.")
        .takes("SourceBody")
        .gives(200, "It was replaced.", "Source")
        .gives(201, "It was made.", "Source")
        .tagged()
        .conditional(),
    )
    .delete(
        "/sources/{source}",
        sources::remove,
        op(
            "deleteSource",
            "Sources",
            "Removes a source; its apps stop, their data is kept for 30 days.",
        )
        .empty(204, "It is gone.")
        .conditional(),
    )
    .post(
        "/sources/{source}/sync",
        sources::sync,
        op("syncSource", "Sources", "Fetches, and deploys the head.")
            .query(
                "wait",
                "Answer with the deployment instead of at once.",
                json!({ "type": "boolean", "default": false }),
            )
            .gives(
                200,
                "With `wait`: the deployment of the head.",
                "Deployment",
            )
            .gives(202, "It will be done.", "Accepted")
            .can(409, "The repository cannot be used as it is."),
    )
    .post(
        "/sources/{source}/suspend",
        sources::suspend,
        op(
            "suspendSource",
            "Sources",
            "Deploys nothing until it is resumed.",
        )
        .gives(200, "The source.", "Source"),
    )
    .post(
        "/sources/{source}/resume",
        sources::resume,
        op("resumeSource", "Sources", "Goes on, to the head.").gives(200, "The source.", "Source"),
    )
    .post(
        "/sources/{source}/rollback",
        sources::rollback,
        op(
            "rollBackSource",
            "Sources",
            "Makes a former commit's state live.",
        )
        .more("The head is not deployed again until a newer commit comes or the source is resumed.")
        .takes("Rollback")
        .gives(200, "The deployment.", "Deployment")
        .can(409, "The repository cannot be used as it is."),
    )
    .post(
        "/sources/{source}/heal",
        drift::heal_source,
        op(
            "healSource",
            "Sources",
            "Undoes the drift of all apps of a source.",
        )
        .gives(200, "What was done.", "Healed")
        .can(409, "The repository cannot be used as it is."),
    )
    .get(
        "/sources/{source}/previews",
        previews::list,
        op(
            "listPreviews",
            "Sources",
            "What there is to see of a source's branches and pull requests, and what waits for an approval.",
        )
        .lists_by_name("Preview"),
    )
    .post(
        "/sources/{source}/previews/{slug}/approve",
        previews::approve,
        op(
            "approvePreview",
            "Sources",
            "Lets the head of a fork's pull request have a preview.",
        )
        .more("A newer head waits again: a person lets what they saw.")
        .gives(200, "What may be shown.", "Approved"),
    )
    .get(
        "/deployments",
        deployments::list,
        op(
            "listDeployments",
            "Deployments",
            "Deployments, newest first.",
        )
        .query(
            "source",
            "A source's name or id: only its deployments.",
            json!({ "type": "string" }),
        )
        .query(
            "brief",
            "Without changes, errors and steps: `counts` says how many there are.",
            json!({ "type": "boolean", "default": false }),
        )
        .of_app()
        .lists("Deployment"),
    )
    .get(
        "/deployments/{id}",
        deployments::show,
        op("getDeployment", "Deployments", "One deployment.").gives(
            200,
            "The deployment.",
            "Deployment",
        ),
    )
    .get(
        "/deployments/{id}/scripts",
        diffs::show,
        op(
            "listDeploymentScripts",
            "Deployments",
            "The scripts that a deployment changed, with their text before and after.",
        )
        .more("At most 50 of them.")
        .gives(200, "The scripts.", "ScriptDiffs"),
    )
    .post(
        "/deployments/{id}/approve",
        deployments::approve,
        op(
            "approveDeployment",
            "Deployments",
            "Lets a deployment go that was held because it removes much.",
        )
        .gives(200, "What became of it.", "Deployment")
        .can(409, "It is not held."),
    )
    .post(
        "/plan",
        plan::create,
        op(
            "createPlan",
            "Deployments",
            "What a tree would change, or a revision of a source. Nothing is changed.",
        )
        .query(
            "source",
            "The source's name or id that the tree is held against.",
            json!({ "type": "string" }),
        )
        .query(
            "width",
            "Columns of the terminal that `text` is for.",
            json!({ "type": "integer", "minimum": 0 }),
        )
        .takes("PlanBody")
        .takes_tar(MAX_TREE)
        .gives(200, "The plan.", "Plan")
        .can(404, "There is no such source."),
    )
}

fn apps_and_triggers(api: Api) -> Api {
    api.get(
        "/apps",
        apps::list,
        op("listApps", "Apps", "The apps that are live, by name.")
            .query(
                "q",
                "Words that stand in name or description.",
                json!({ "type": "string" }),
            )
            .query(
                "sync",
                "Only those that stand so to git.",
                json!({ "type": "string", "enum": apps::SYNC }),
            )
            .query(
                "health",
                "Only those whose runs go so.",
                json!({ "type": "string", "enum": apps::HEALTH }),
            )
            .lists_by_name("App"),
    )
    .get(
        "/apps/{app}",
        apps::show,
        op("getApp", "Apps", "One app.").gives(200, "The app.", "App"),
    )
    .get(
        "/apps/{app}/scripts",
        apps::scripts,
        op("listScripts", "Apps", "The app's scripts, by path.").lists_by_name("ScriptInfo"),
    )
    .get(
        "/apps/{app}/scripts/{*path}",
        apps::script,
        op(
            "getScript",
            "Apps",
            "One script, with its text at the live commit.",
        )
        .gives(200, "The script.", "Script"),
    )
    .get(
        "/apps/{app}/routes",
        apps::routes,
        op("listRoutes", "Apps", "The app's routes.").lists_by_name("Route"),
    )
    .get(
        "/apps/{app}/env",
        apps::env,
        op("listEnv", "Apps", "The app's plain configuration, by name.")
            .lists_by_name("EnvVariable"),
    )
    .get(
        "/apps/{app}/triggers",
        triggers::list,
        op(
            "listTriggers",
            "Triggers",
            "The app's triggers, by name, with their next fire times.",
        )
        .lists_by_name("Trigger"),
    )
    .post(
        "/apps/{app}/triggers/{trigger}",
        triggers::create,
        op(
            "createTrigger",
            "Triggers",
            "Makes a trigger of this kind, live at once.",
        )
        .at(&[
            ("/apps/{app}/triggers/cron", "CronTriggerBody"),
            ("/apps/{app}/triggers/kv", "KvTriggerBody"),
            ("/apps/{app}/triggers/docs", "DocsTriggerBody"),
            ("/apps/{app}/triggers/dead_letter", "DeadLetterTriggerBody"),
        ])
        .gives(201, "The trigger.", "Trigger")
        .can(409, "The app has a trigger of that name.")
        .tagged(),
    )
    .post(
        "/apps/{app}/triggers/{trigger}/proposal",
        drift::propose,
        op(
            "proposeTrigger",
            "Triggers",
            "A trigger more of this kind, as a change of the repository's files for review: a patch, or a commit on a branch.",
        )
        .more("Nothing is live before the change is merged. Without `branch` the answer is the patch that `git apply` takes, for the tree of `commit`; with it, a commit on that branch of the hosted or local repository, as `adopt` makes it.")
        .at(&[
            ("/apps/{app}/triggers/cron/proposal", "CronProposal"),
            ("/apps/{app}/triggers/kv/proposal", "KvProposal"),
            ("/apps/{app}/triggers/docs/proposal", "DocsProposal"),
            ("/apps/{app}/triggers/dead_letter/proposal", "DeadLetterProposal"),
        ])
        .gives(200, "The patch.", "DriftPatch")
        .gives(201, "The commit.", "Adopted")
        .can(409, "Git declares a trigger of that name, or is not written to."),
    )
    .patch(
        "/apps/{app}/triggers/{trigger}",
        triggers::patch,
        op(
            "patchTrigger",
            "Triggers",
            "Changes a trigger: the keys that are given; null takes a key away.",
        )
        .takes("TriggerPatch")
        .gives(200, "The trigger.", "Trigger")
        .tagged()
        .conditional(),
    )
    .delete(
        "/apps/{app}/triggers/{trigger}",
        triggers::remove,
        op("deleteTrigger", "Triggers", "Removes a trigger.")
            .empty(204, "It is gone.")
            .conditional(),
    )
    .post(
        "/apps/{app}/triggers/{trigger}/fire",
        triggers::fire,
        op("fireTrigger", "Triggers", "Fires a trigger now.")
            .may_take("Fire")
            .gives(202, "It was handed over.", "Accepted"),
    )
}

fn drift_and_schedules(api: Api) -> Api {
    api.get(
        "/drift",
        drift::list,
        op(
            "listDrift",
            "Apps",
            "The apps whose live state differs from git, by name.",
        )
        .lists_by_name("AppDrift"),
    )
    .get(
        "/apps/{app}/drift",
        drift::show,
        op(
            "getDrift",
            "Apps",
            "Where the app's live state differs from git, field by field.",
        )
        .gives(200, "The differences.", "Drift"),
    )
    .get(
        "/apps/{app}/drift/patch",
        drift::patch,
        op(
            "getDriftPatch",
            "Apps",
            "The change of the repository's files that would make git declare what is live.",
        )
        .more("`patch` is what `git apply` takes, for the tree of `commit`; comments and order of app.yaml stay. It is empty where nothing differs, where what is live would be refused (`errors`), or where files can't say it (`left`).")
        .gives(200, "The change.", "DriftPatch")
        .can(409, "The repository cannot be used, or is not adopted into."),
    )
    .post(
        "/apps/{app}/adopt",
        drift::adopt,
        op(
            "adoptApp",
            "Apps",
            "Commits what is live to a branch of the hosted or local repository.",
        )
        .more("A branch that is not there is made from the last applied commit; on one that is there, a commit is put on top. The branch that is deployed is refused: merge the other one into it.")
        .takes("Adopt")
        .gives(201, "The commit.", "Adopted")
        .can(409, "Nothing is to be adopted, or not here."),
    )
    .post(
        "/apps/{app}/heal",
        drift::heal,
        op(
            "healApp",
            "Apps",
            "Makes the app's live state what git declares.",
        )
        .gives(200, "What was done.", "Healed")
        .can(409, "The repository cannot be used as it is."),
    )
    .get(
        "/schedule",
        schedule::show,
        op(
            "explainSchedule",
            "Triggers",
            "What a schedule means, and when it fires next.",
        )
        .query(
            "expression",
            "A schedule, as in app.yaml.",
            json!({ "type": "string", "examples": ["0 30 2 * * *"] }),
        )
        .query(
            "timezone",
            "An IANA zone.",
            json!({ "type": "string", "default": "UTC" }),
        )
        .query(
            "n",
            "How many times are told.",
            json!({ "type": "integer", "minimum": 1, "maximum": 50, "default": 5 }),
        )
        .gives(200, "Its meaning.", "Schedule"),
    )
}

fn runs_and_events(api: Api) -> Api {
    let words = |words: &[&str]| json!({ "type": "string", "enum": words });
    let statuses: Vec<&str> = RunStatus::ALL
        .iter()
        .map(|status| status.as_str())
        .collect();
    let kinds: Vec<&str> = RunKind::ALL.iter().map(|kind| kind.as_str()).collect();
    api.get(
        "/runs",
        runs::list,
        op("listRuns", "Runs", "Recorded runs, newest first.")
            .of_app()
            .query("status", "How they ended.", words(&statuses))
            .query("kind", "What started them.", words(&kinds))
            .query("trigger", "The trigger's name.", json!({ "type": "string" }))
            .query("cause", "Only what this run caused.", json!({ "type": "string", "format": "uuid" }))
            .between()
            .lists("Run"),
    )
    .get(
        "/runs/{id}",
        runs::show,
        op("getRun", "Runs", "One run, with its logs and its error.").gives(200, "The run.", "Run"),
    )
    .post(
        "/runs/{id}/replay",
        replay::replay,
        op("replayRun", "Runs", "Runs a recorded run again, on behalf of who asks.")
            .more("On the commit that is live, or on the one that it ran on. The new run's id is known at once; its record is there when it ended.")
            .may_take("ReplayBody")
            .gives(202, "It was handed over.", "Replayed")
            .can(409, "The record does not hold all of the request."),
    )
    .post(
        "/apps/{app}/invoke",
        replay::invoke,
        op("invokeScript", "Runs", "Runs a handler now, with the payload as `ctx.event.payload`.")
            .more("Answers 200 also where the run failed: its status says so.")
            .takes("InvokeBody")
            .gives(200, "The run, with what the handler gave.", "Invoked"),
    )
    .get(
        "/dead-letters",
        dead_letters::list,
        op("listDeadLetters", "Runs", "Events that were given up, newest first.")
            .of_app()
            .query("trigger", "Only this trigger's.", json!({ "type": "string" }))
            .query("source_kind", "Only events of this kind.", json!({ "type": "string" }))
            .between()
            .lists("DeadLetter"),
    )
    .post(
        "/dead-letters/redrive",
        dead_letters::redrive_many,
        op("redriveDeadLetters", "Runs", "Puts back the events of all dead letters that a filter names.")
            .more("At most 10,000 at once, oldest first; an empty filter names all.")
            .may_take("DeadLetterFilter")
            .gives(202, "How many were handed over.", "Count"),
    )
    .post(
        "/dead-letters/discard",
        dead_letters::discard_many,
        op("discardDeadLetters", "Runs", "Throws all dead letters away that a filter names.")
            .may_take("DeadLetterFilter")
            .gives(200, "How many are gone.", "Count"),
    )
    .get(
        "/dead-letters/{id}",
        dead_letters::show_one,
        op("getDeadLetter", "Runs", "One dead letter.").gives(200, "The dead letter.", "DeadLetter"),
    )
    .delete(
        "/dead-letters/{id}",
        dead_letters::discard,
        op("discardDeadLetter", "Runs", "Throws a dead letter away.").empty(204, "It is gone."),
    )
    .post(
        "/dead-letters/{id}/redrive",
        dead_letters::redrive,
        op("redriveDeadLetter", "Runs", "Puts a dead letter's event back, to be tried again.")
            .gives(202, "It was handed over.", "Accepted"),
    )
    .get(
        "/stats",
        stats::show,
        op("getStats", "Runs", "Exact counts, error rate and latency quantiles, in time buckets.")
            .of_app()
            .query("window", "How far back, up to 30 days.", stats::window_schema())
            .gives(200, "The counts.", "Stats").can(404, "There is no such app."),
    )
    .get(
        "/events",
        events::stream,
        op("streamEvents", "Events", "What happens, as server-sent events.")
            .more("Events are `deployment`, `drift`, `run`, `trigger` and `log`; `run` and `log` need the scope `run:read`, too. `missed` says that events were lost, and what is shown should be asked for anew. A key of one app sees that app's events.")
            .of_app()
            .query("last_event_id", "As the header `Last-Event-ID`, for clients that cannot send it.", json!({ "type": "string" }))
            .header("Last-Event-ID", "The last event that was seen: go on after it.", json!({ "type": "string" }))
            .can(404, "There is no such app.").streams(),
    )
}

/// What stands beside the admin API.
pub(super) fn routes_beside() -> Api {
    Api::below("/api/v1").get(
        "/caddy/ask",
        ask,
        op(
            "askCaddy",
            "Instance",
            "Whether an app owns a host name, for Caddy's on-demand TLS.",
        )
        .query("domain", "The host name.", json!({ "type": "string" }))
        .empty(200, "An app owns it.")
        .empty(404, "No app does."),
    )
    .elsewhere(
        Method::Post,
        "/hooks/{source}",
        Access::Anyone,
        op("receiveWebhook", "Sources", "What a forge tells of a push or a pull request; or anybody with a key.")
            .more("Deliveries are signed with the source's webhook secret, each forge by its own header; without one, a bearer key with `sync:write` is needed. A delivery that was seen before is answered as it was.")
            .may_take("Webhook")
            .gives(200, "It was taken; the outcome is in the body.", "WebhookOutcome")
            .gives(202, "It was taken and is going on, or is ignored.", "WebhookOutcome")
            .can(401, "The signature is missing or wrong.")
            .can(403, "The key may not do this.")
            .can(409, "The repository cannot be used as it is.")
            .can(429, "Too many deliveries."),
    )
}
