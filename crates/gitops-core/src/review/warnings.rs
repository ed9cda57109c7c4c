//! What a person should look at twice before letting a plan go.

use picloud_shared::{
    AppSpec,
    app::{RouteAuth, RouteSpec, TriggerKind},
    plan::{AppPlan, ItemKind},
};

use super::Warning;
use crate::schedule::Schedule;

/// The warnings of one app's plan.
pub(super) fn of(app: &AppPlan) -> Vec<Warning> {
    let Some(new) = app.desired.as_deref() else {
        return Vec::new();
    };
    let old = app.live.as_deref();
    let mut found = Vec::new();
    if let Some(old) = old {
        routes(old, new, &mut found);
        egress(old, new, &mut found);
    }
    schedules(old, new, &mut found);
    found.sort();
    found
}

fn warning(
    app: &AppSpec,
    kind: ItemKind,
    name: &str,
    code: &'static str,
    message: String,
) -> Warning {
    Warning {
        app: app.name.clone(),
        kind,
        name: name.to_owned(),
        code,
        message,
    }
}

/// Routes that asked for more than they do now.
fn routes(old: &AppSpec, new: &AppSpec, found: &mut Vec<Warning>) {
    for route in &new.routes {
        let before: Vec<&RouteSpec> = old
            .routes
            .iter()
            .filter(|other| other.path == route.path && !other.methods.is_disjoint(&route.methods))
            .collect();
        let label = route.label();
        if route.auth == RouteAuth::None
            && before.iter().any(|before| before.auth != RouteAuth::None)
        {
            let message = format!("the route {label} was protected and is open to everyone now");
            found.push(warning(
                new,
                ItemKind::Route,
                &label,
                "route_opened",
                message,
            ));
        }
        if route.rate_limit.is_none() && before.iter().any(|before| before.rate_limit.is_some()) {
            let message = format!("the route {label} has no rate limit any more");
            found.push(warning(
                new,
                ItemKind::Route,
                &label,
                "rate_limit_gone",
                message,
            ));
        }
    }
}

/// Hosts that could not be reached before.
fn egress(old: &AppSpec, new: &AppSpec, found: &mut Vec<Warning>) {
    let Some(before) = &old.http_allow else {
        return;
    };
    let message = match &new.http_allow {
        None => "scripts may reach every public host now".to_owned(),
        Some(after) => {
            let more: Vec<&str> = after
                .iter()
                .filter(|pattern| !before.iter().any(|known| covers(known, pattern)))
                .map(String::as_str)
                .collect();
            if more.is_empty() {
                return;
            }
            format!("scripts may also reach {} now", more.join(", "))
        }
    };
    found.push(warning(
        new,
        ItemKind::Permission,
        "http",
        "egress_wider",
        message,
    ));
}

/// Whether all hosts of one pattern are among those of another.
fn covers(known: &str, pattern: &str) -> bool {
    known == pattern
        || known.strip_prefix('*').is_some_and(|below| {
            pattern.trim_start_matches('*').ends_with(below) && pattern.len() > below.len()
        })
}

/// Schedules that fire more often than each minute, where they are new.
fn schedules(old: Option<&AppSpec>, new: &AppSpec, found: &mut Vec<Warning>) {
    for (name, trigger) in &new.triggers {
        let TriggerKind::Cron { schedule, .. } = &trigger.kind else {
            continue;
        };
        let before = old.and_then(|old| old.triggers.get(name));
        let same = before
            .is_some_and(|before| before.kind == trigger.kind && before.enabled == trigger.enabled);
        let fast =
            Schedule::parse(schedule).is_ok_and(|schedule| schedule.is_faster_than_a_minute());
        if fast && !same && trigger.enabled {
            let message = format!("the trigger {name} fires more often than once a minute");
            found.push(warning(
                new,
                ItemKind::Trigger,
                name.as_str(),
                "schedule_fast",
                message,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_is_below_it() {
        let cases = [
            ("api.example.com", "api.example.com", true),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "*.api.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "*.example.com", true),
            ("*.example.com", "badexample.com", false),
            ("api.example.com", "*.example.com", false),
            ("*.api.example.com", "*.example.com", false),
        ];
        for (known, pattern, expected) in cases {
            assert_eq!(covers(known, pattern), expected, "{known} {pattern}");
        }
    }
}
