//! The cron scheduler: sleeps until the next trigger is due, and fires all that are in one
//! transaction with their next times.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use picloud_gitops_core::schedule::Schedule;
use picloud_shared::{
    Clock, RunId, RunRecord, RunStatus,
    run::{RunError, RunErrorKind, RunKind},
};
use picloud_store::{
    Store, StoreError,
    cron::{CronTrigger, Firing},
};
use serde_json::json;

/// Told or not, it looks this often: a notification can be lost.
const SWEEP: Duration = Duration::from_mins(1);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A time that is later than this was missed, not merely late.
const ON_TIME: TimeDelta = TimeDelta::seconds(5);
/// Times passed over that are counted one by one; above it, the count is of these.
const MAX_MISSED: u64 = 5_000_000;

/// Fires cron triggers for ever. Any number of managers may do so: one fires at a time, and no
/// time twice.
pub async fn run(store: Store, clock: Arc<dyn Clock>) {
    let mut backoff = Duration::from_millis(50);
    loop {
        match listen(&store, &clock, &mut backoff).await {
            Ok(never) => match never {},
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, "the database is away; cron triggers wait for it");
            }
            Err(error) => tracing::error!(%error, "cron triggers could not be fired; trying again"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn listen(
    store: &Store,
    clock: &Arc<dyn Clock>,
    backoff: &mut Duration,
) -> Result<std::convert::Infallible, StoreError> {
    let mut told = store.listen().await?;
    loop {
        let now = clock.now();
        let (_, next) = store
            .fire_cron(now, |trigger| decide(trigger, now, clock.as_ref()))
            .await?;
        *backoff = Duration::from_millis(50);
        let until = next.map_or(SWEEP, |next| {
            (next - clock.now()).to_std().unwrap_or_default().min(SWEEP)
        });
        // An elapsed time is a reason to look like any other.
        if let Ok(told) = tokio::time::timeout(until, told.next()).await {
            told?;
        }
    }
}

/// What becomes of a trigger now.
fn decide(trigger: CronTrigger, now: DateTime<Utc>, clock: &dyn Clock) -> Firing {
    let nothing = |trigger, next| Firing {
        trigger,
        event: None,
        next,
        scheduled_at: None,
        skipped: None,
    };
    if !trigger.enabled {
        return nothing(trigger, None);
    }
    let parsed = Schedule::parse(&trigger.schedule)
        .ok()
        .zip(trigger.timezone.parse::<Tz>().ok());
    let Some((schedule, zone)) = parsed else {
        tracing::error!(
            app = trigger.app_name,
            trigger = trigger.name,
            schedule = trigger.schedule,
            timezone = trigger.timezone,
            "a live schedule cannot be read; it is looked at again in an hour"
        );
        return nothing(trigger, Some(now + TimeDelta::hours(1)));
    };
    let Some(due) = trigger.next_fire_at else {
        let next = schedule.next_after(now, zone);
        return nothing(trigger, next);
    };
    let (mut scheduled_at, mut missed) = (due, 0);
    let mut next = schedule.next_after(due, zone);
    while let Some(at) = next.filter(|at| *at <= now && missed < MAX_MISSED) {
        scheduled_at = at;
        missed += 1;
        next = schedule.next_after(at, zone);
    }
    if missed >= MAX_MISSED {
        next = schedule.next_after(now, zone);
    }
    if trigger.catch_up == "none" && now - scheduled_at > ON_TIME {
        return nothing(trigger, next);
    }
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let detail = json!({
        "scheduled_at": time(scheduled_at),
        "fired_at": time(now),
        "schedule": trigger.schedule,
        "timezone": trigger.timezone,
        "missed": missed,
    });
    let id = clock.new_id();
    if trigger.overlap == "skip" && trigger.busy {
        let skipped = skipped(&trigger, now, id, &detail, clock);
        return Firing {
            trigger,
            event: None,
            next,
            scheduled_at: Some(scheduled_at),
            skipped,
        };
    }
    Firing {
        trigger,
        event: Some((id, detail)),
        next,
        scheduled_at: Some(scheduled_at),
        skipped: None,
    }
}

/// The visible run of a firing that was passed over.
fn skipped(
    trigger: &CronTrigger,
    now: DateTime<Utc>,
    event: uuid::Uuid,
    detail: &serde_json::Value,
    clock: &dyn Clock,
) -> Option<RunRecord> {
    Some(RunRecord {
        id: RunId(clock.new_id()),
        app_id: trigger.app,
        app: trigger.app_name.parse().ok()?,
        script: trigger.script.parse().ok()?,
        kind: RunKind::Cron,
        trigger: trigger.name.parse().ok(),
        route: None,
        commit: trigger.commit.parse().ok()?,
        attempt: 1,
        status: RunStatus::Skipped,
        started_at: now,
        duration_ms: 0.0,
        queue_ms: 0.0,
        operations: 0,
        peak_memory: 0,
        error: Some(RunError {
            kind: RunErrorKind::Overloaded,
            message: "the last run of the trigger was still going (overlap: skip)".to_owned(),
            script: None,
            line: None,
            column: None,
            trace: Vec::new(),
        }),
        logs: Vec::new(),
        dropped_logs: 0,
        cause: None,
        input: json!({ "id": event, "kind": "cron", "attempt": 1, "trigger": trigger.name, "cause": null, "cron": detail }),
    })
}

#[cfg(test)]
mod tests {
    use picloud_shared::SystemClock;

    use super::*;

    fn trigger(next: Option<&str>) -> CronTrigger {
        CronTrigger {
            id: picloud_shared::TriggerId::default(),
            app: picloud_shared::AppId::default(),
            app_name: "app".to_owned(),
            name: "tick".to_owned(),
            script: "scripts/tick.rhai".to_owned(),
            enabled: true,
            schedule: "0 0 * * * *".to_owned(),
            timezone: "UTC".to_owned(),
            overlap: "skip".to_owned(),
            catch_up: "latest".to_owned(),
            attempts: 5,
            backoff_ms: 1,
            max_backoff_ms: 1,
            max_concurrency: None,
            next_fire_at: next.map(at),
            commit: "0".repeat(40),
            busy: false,
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect("a time").to_utc()
    }

    #[test]
    fn after_downtime_it_fires_once_for_the_latest_time_and_counts_the_others() {
        let now = at("2026-01-01T05:30:00Z");
        let firing = decide(trigger(Some("2026-01-01T01:00:00Z")), now, &SystemClock);
        let (_, detail) = firing.event.expect("it fires");
        assert_eq!(detail["scheduled_at"], "2026-01-01T05:00:00.000Z");
        assert_eq!(detail["missed"], 4);
        assert_eq!(firing.next, Some(at("2026-01-01T06:00:00Z")));
    }

    #[test]
    fn without_catching_up_it_waits_for_the_next_time() {
        let mut late = trigger(Some("2026-01-01T01:00:00Z"));
        late.catch_up = "none".to_owned();
        let firing = decide(late.clone(), at("2026-01-01T05:30:00Z"), &SystemClock);
        assert!(firing.event.is_none());
        assert_eq!(firing.next, Some(at("2026-01-01T06:00:00Z")));
        let firing = decide(late, at("2026-01-01T01:00:00.200Z"), &SystemClock);
        assert!(
            firing.event.is_some(),
            "a time that is merely late is not missed"
        );
    }

    #[test]
    fn a_new_trigger_gets_its_first_time_and_a_busy_one_is_passed_over_visibly() {
        let now = at("2026-01-01T05:30:00Z");
        let firing = decide(trigger(None), now, &SystemClock);
        assert!(firing.event.is_none() && firing.skipped.is_none());
        assert_eq!(firing.next, Some(at("2026-01-01T06:00:00Z")));
        let mut busy = trigger(Some("2026-01-01T05:00:00Z"));
        busy.busy = true;
        let firing = decide(busy, now, &SystemClock);
        assert!(firing.event.is_none());
        assert_eq!(firing.skipped.expect("a record").status, RunStatus::Skipped);
    }
}
