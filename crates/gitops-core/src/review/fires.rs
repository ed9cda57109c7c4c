//! When triggers fire, before and after a change.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use picloud_shared::app::{TriggerKind, TriggerSpec};

use super::FireTimes;
use crate::schedule::{ClockChange, Schedule};

/// How far ahead changes of the clock are looked for.
const AHEAD: TimeDelta = TimeDelta::days(370);

/// The next fire times of a cron trigger, old and new; `None` where it is and was none.
pub(super) fn times(
    old: Option<&TriggerSpec>,
    new: Option<&TriggerSpec>,
    now: DateTime<Utc>,
    count: usize,
) -> Option<FireTimes> {
    let (before, after) = (old.and_then(cron), new.and_then(cron));
    if before.is_none() && after.is_none() {
        return None;
    }
    let upcoming = |spec: Option<&TriggerSpec>, found: Option<(Schedule, Tz)>| {
        let found = found.filter(|_| spec.is_some_and(|spec| spec.enabled));
        found.map_or_else(Vec::new, |(schedule, zone)| {
            let times = schedule.upcoming(now, zone, count);
            times.iter().map(|time| rfc3339(*time, zone)).collect()
        })
    };
    Some(FireTimes {
        old: upcoming(old, before),
        new: upcoming(new, after),
    })
}

/// A time in a zone, with its offset.
pub(crate) fn rfc3339(time: DateTime<Utc>, zone: Tz) -> String {
    time.with_timezone(&zone)
        .to_rfc3339_opts(SecondsFormat::Secs, false)
}

fn cron(spec: &TriggerSpec) -> Option<(Schedule, Tz)> {
    let TriggerKind::Cron {
        schedule, timezone, ..
    } = &spec.kind
    else {
        return None;
    };
    Schedule::parse(schedule).ok().zip(timezone.parse().ok())
}

/// What the changes of the clock within a year do to a trigger, where they do anything.
pub(super) fn clock_changes(spec: &TriggerSpec, now: DateTime<Utc>) -> Vec<String> {
    let Some((schedule, zone)) = cron(spec).filter(|_| spec.enabled) else {
        return Vec::new();
    };
    let changes = schedule.clock_changes(now, now + AHEAD, zone);
    changes
        .iter()
        .map(|change| match change {
            ClockChange::Skipped { local, fires } => format!(
                "daylight saving: {} does not exist on {}; it fires at {} instead",
                local.format("%H:%M"),
                local.date(),
                rfc3339(*fires, zone)
            ),
            ClockChange::Twice { local, fires } => format!(
                "daylight saving: {} comes twice on {}; it fires once, at {}",
                local.format("%H:%M"),
                local.date(),
                rfc3339(*fires, zone)
            ),
        })
        .collect()
}
