//! The planner: desired and live in, every decision out.

use std::{collections::BTreeMap, sync::Arc};

use picloud_shared::{
    AppName, AppSpec, Diagnostic, Plan, Severity, SourceId,
    plan::{AppAction, AppPlan, DesiredState, LiveApp, LiveState},
};

use crate::{diff, load};

/// What applying a commit of `source` does to what is live. Planning again after applying yields
/// an empty plan.
pub fn plan(source: SourceId, desired: &DesiredState, live: &LiveState, prune: bool) -> Plan {
    let mut plan = Plan {
        parent: live.version,
        ..Plan::default()
    };
    let elsewhere = domains_elsewhere(source, live);
    for (name, spec) in &desired.apps {
        let taken: Vec<_> = spec
            .domains
            .iter()
            .filter_map(|domain| Some((domain, elsewhere.get(domain.as_str())?)))
            .collect();
        match live.apps.get(name) {
            Some(app) if app.source != source => plan.errors.push(foreign(desired, spec)),
            own if !taken.is_empty() => {
                let errors = taken
                    .iter()
                    .map(|(domain, other)| domain_of(desired, spec, domain, other));
                plan.errors.extend(errors);
                plan.kept.extend(own.map(|_| name.clone()));
            }
            Some(app) => {
                if app.pinned_commit.is_some() {
                    plan.released.push(name.clone());
                }
                update(&mut plan, name, Some(app), spec);
            }
            None => update(&mut plan, name, None, spec),
        }
    }
    for (name, app) in live.apps.iter().filter(|(_, app)| app.source == source) {
        if desired.apps.contains_key(name) {
            continue;
        }
        let invalid = desired.invalid.iter().any(|invalid| {
            invalid
                .name
                .as_ref()
                .map_or(invalid.dir == app.spec.dir, |of| of == name)
        });
        if invalid {
            plan.kept.push(name.clone());
        } else if prune {
            let removed = AppPlan {
                action: AppAction::Remove,
                desired: None,
                live: Some(Arc::clone(&app.spec)),
                changes: diff::changes_of_live(Some(app), None),
            };
            plan.apps.insert(name.clone(), removed);
        }
    }
    plan
}

fn update(plan: &mut Plan, name: &AppName, live: Option<&LiveApp>, spec: &Arc<AppSpec>) {
    if live.is_some_and(|live| Arc::ptr_eq(&live.spec, spec) && live.damaged.is_empty()) {
        return;
    }
    let changes = diff::changes_of_live(live, Some(spec));
    if changes.is_empty() {
        return;
    }
    let change = AppPlan {
        action: if live.is_some() {
            AppAction::Update
        } else {
            AppAction::Create
        },
        desired: Some(Arc::clone(spec)),
        live: live.map(|live| Arc::clone(&live.spec)),
        changes,
    };
    plan.apps.insert(name.clone(), change);
}

/// The domains that apps of other sources have.
fn domains_elsewhere(source: SourceId, live: &LiveState) -> BTreeMap<&str, &AppName> {
    let others = live.apps.iter().filter(|(_, app)| app.source != source);
    let domains = others.flat_map(|(name, app)| {
        let domains = app.spec.domains.iter();
        domains.map(move |domain| (domain.as_str(), name))
    });
    domains.collect()
}

fn foreign(desired: &DesiredState, spec: &AppSpec) -> Diagnostic {
    Diagnostic {
        code: "E0211".to_owned(),
        message: format!("the app `{}` belongs to another source", spec.name),
        hint: Some("give it another name, or remove it there first".to_owned()),
        ..at_name(desired, spec)
    }
}

fn domain_of(desired: &DesiredState, spec: &AppSpec, domain: &str, other: &AppName) -> Diagnostic {
    let finding = Diagnostic {
        code: "E0215".to_owned(),
        message: format!("the domain `{domain}` is taken by the app `{other}` of another source"),
        hint: Some("a domain serves one app: remove it there first".to_owned()),
        ..at_name(desired, spec)
    };
    load::at(finding, desired.domains.get(domain).cloned())
}

/// A finding of an app, at its name.
fn at_name(desired: &DesiredState, spec: &AppSpec) -> Diagnostic {
    let dir = &spec.dir;
    let place = desired.names.get(&spec.name).cloned().unwrap_or_default();
    Diagnostic {
        path: if dir.is_empty() {
            "app.yaml".to_owned()
        } else {
            format!("{dir}/app.yaml")
        },
        line: place.line.max(1),
        column: place.column.max(1),
        length: place.length.max(1),
        severity: Severity::Error,
        code: String::new(),
        message: String::new(),
        hint: None,
        excerpt: place.excerpt,
        app: Some(spec.name.clone()),
    }
}

/// What no desired state may be, whatever made it: an independent look at the loader's work.
pub fn check_desired(desired: &DesiredState) -> Vec<String> {
    let mut broken = Vec::new();
    let mut domains: BTreeMap<&str, &AppName> = BTreeMap::new();
    for (name, spec) in &desired.apps {
        if *name != spec.name {
            broken.push(format!("the app `{}` is filed under `{name}`", spec.name));
        }
        for route in &spec.routes {
            if !spec.scripts.contains_key(&route.script) {
                broken.push(format!(
                    "{name}: {} names a script that is not there",
                    route.label()
                ));
            }
            if route.methods.is_empty() {
                broken.push(format!("{name}: {} has no method", route.path));
            }
        }
        for (trigger, found) in &spec.triggers {
            if !spec.scripts.contains_key(&found.script) {
                broken.push(format!(
                    "{name}: the trigger {trigger} names a script that is not there"
                ));
            }
        }
        for domain in &spec.domains {
            if let Some(other) = domains.insert(domain, name) {
                broken.push(format!(
                    "the domain `{domain}` is claimed by `{other}` and `{name}`"
                ));
            }
        }
        if !spec
            .routes
            .is_sorted_by(|a, b| (&a.path, &a.methods) < (&b.path, &b.methods))
        {
            broken.push(format!("{name}: routes are not sorted, or stand twice"));
        }
    }
    broken
}
