//! Triggers and jobs: what waits, when it is due, and what becomes of it. As the outbox, the
//! dispatcher and the cron scheduler do it, but without chance: a retry comes exactly when its
//! policy says, and a run takes no time of the test's clock.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use picloud_gitops_core::schedule::Schedule;
use picloud_shared::{
    AppSpec, Clock, EventId, Invocation, Outcome, Principal, RunId, ScriptPath, TriggerName,
    app::{Overlap, RetryPolicy, TriggerKind, TriggerSpec},
    data::check_job,
    event::{Event, EventKind, Link, MAX_CHAIN, cron_detail, fired_detail},
    invocation::{Answer, Cancel, Input},
    run::{RunError, RunErrorKind},
    sdk::{EnqueueOptions, InvokeService, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Cause, Data, Part, World, invalid};

/// An event that waits for its run.
#[derive(Debug, Clone)]
pub(super) struct Job {
    id: Uuid,
    kind: EventKind,
    trigger: Option<TriggerName>,
    script: ScriptPath,
    payload: Value,
    key: Option<String>,
    cause: Option<RunId>,
    chain: Vec<Link>,
    attempt: u32,
    retry: RetryPolicy,
}

/// The schedules of an app's cron triggers, and when each fires next.
#[derive(Default)]
pub(super) struct Schedules {
    all: BTreeMap<TriggerName, (Schedule, Tz)>,
    next: BTreeMap<TriggerName, DateTime<Utc>>,
}

impl Schedules {
    /// Counted from `now`.
    pub(super) fn new(spec: &AppSpec, now: DateTime<Utc>) -> Self {
        let mut schedules = Self::default();
        for (name, trigger) in spec.triggers.iter().filter(|(_, trigger)| trigger.enabled) {
            // The tree was checked: both are good.
            if let TriggerKind::Cron {
                schedule, timezone, ..
            } = &trigger.kind
                && let Ok(schedule) = Schedule::parse(schedule)
                && let Ok(zone) = timezone.parse::<Tz>()
            {
                schedules.all.insert(name.clone(), (schedule, zone));
                schedules.plan(name, now);
            }
        }
        schedules
    }

    fn plan(&mut self, name: &TriggerName, after: DateTime<Utc>) {
        let next = self
            .all
            .get(name)
            .and_then(|(schedule, zone)| schedule.next_after(after, *zone));
        match next {
            Some(next) => self.next.insert(name.clone(), next),
            None => self.next.remove(name),
        };
    }

    fn due(&self) -> Option<DateTime<Utc>> {
        self.next.values().min().copied()
    }
}

impl InvokeService for Part {
    fn enqueue(
        &self,
        cx: &SdkCallCx,
        script: &ScriptPath,
        payload: &Value,
        options: &EnqueueOptions,
    ) -> SdkResult<EventId> {
        check_job(payload, options)?;
        let world = self.world()?;
        let cause = Cause::of(cx);
        let job = Job {
            id: world.clock.new_id(),
            kind: EventKind::Enqueue,
            trigger: None,
            script: script.clone(),
            payload: payload.clone(),
            key: options.key.clone(),
            cause: Some(cause.run),
            chain: cause.chain,
            attempt: 1,
            retry: RetryPolicy::default(),
        };
        let delay = i64::try_from(options.delay_ms).unwrap_or(i64::MAX);
        let due = world.clock.now() + TimeDelta::milliseconds(delay);
        let mut data = world.data.lock();
        if job.chain.len() >= MAX_CHAIN {
            // A dead letter that sets nothing off.
            return Ok(job.id.into());
        }
        let waiting = data
            .outbox
            .values_mut()
            .find(|other| other.key.is_some() && other.key == job.key && other.script == *script);
        if let Some(waiting) = waiting {
            waiting.payload = job.payload;
            return Ok(waiting.id.into());
        }
        let id = job.id;
        data.outbox.insert((due, id), job);
        Ok(id.into())
    }
}

impl World {
    /// Puts an event into the outbox for each trigger that `is_about` it.
    pub(super) fn emit(
        &self,
        data: &mut Data,
        cause: &Cause,
        kind: &str,
        detail: &Value,
        is_about: impl Fn(&TriggerKind) -> bool,
    ) {
        let Some(kind) = EventKind::parse(kind).filter(|_| cause.chain.len() < MAX_CHAIN) else {
            return;
        };
        let now = self.clock.now();
        let triggers = self.app.spec.triggers.iter();
        for (name, trigger) in
            triggers.filter(|(_, trigger)| trigger.enabled && is_about(&trigger.kind))
        {
            let job = Job {
                id: self.clock.new_id(),
                kind,
                trigger: Some(name.clone()),
                script: trigger.script.clone(),
                payload: detail.clone(),
                key: None,
                cause: Some(cause.run),
                chain: cause.chain.clone(),
                attempt: 1,
                retry: trigger.retry.clone(),
            };
            data.outbox.insert((now, job.id), job);
        }
    }

    /// Goes from one due instant to the next, and runs what is due at each.
    pub(super) fn advance_to(&self, until: DateTime<Utc>) -> SdkResult<()> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(SdkError::new(
                    SdkErrorCode::Timeout,
                    "the test's time is up",
                ));
            }
            let now = self.clock.now();
            let due = {
                let data = self.data.lock();
                let event = data.outbox.keys().next().map(|(at, _)| *at);
                event.into_iter().chain(data.schedules.due()).min()
            };
            let Some(due) = due.filter(|due| *due <= until) else {
                break;
            };
            self.clock.set(due.max(now));
            self.fire_schedules();
            let next = {
                let mut data = self.data.lock();
                let first = data.outbox.first_entry();
                first
                    .filter(|entry| entry.key().0 <= self.clock.now())
                    .map(std::collections::btree_map::OccupiedEntry::remove)
            };
            if let Some(job) = next {
                self.attempt(job)?;
            }
        }
        self.clock.set(until.max(self.clock.now()));
        Ok(())
    }

    fn fire_schedules(&self) {
        let now = self.clock.now();
        let mut data = self.data.lock();
        let due: Vec<(TriggerName, DateTime<Utc>)> = data
            .schedules
            .next
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, at)| (name.clone(), *at))
            .collect();
        for (name, at) in due {
            data.schedules.plan(&name, at);
            let Some(trigger) = self.app.spec.triggers.get(&name) else {
                continue;
            };
            let waits = data
                .outbox
                .values()
                .any(|job| job.trigger.as_ref() == Some(&name));
            let skips = matches!(
                trigger.kind,
                TriggerKind::Cron {
                    overlap: Overlap::Skip,
                    ..
                }
            );
            if skips && waits {
                continue;
            }
            let job = self.job_of(&name, trigger, cron_detail(trigger, at, now));
            data.outbox.insert((now, job.id), job);
        }
    }

    fn job_of(&self, name: &TriggerName, trigger: &TriggerSpec, payload: Value) -> Job {
        Job {
            id: self.clock.new_id(),
            kind: EventKind::parse(trigger.kind.name()).unwrap_or(EventKind::Cron),
            trigger: Some(name.clone()),
            script: trigger.script.clone(),
            payload,
            key: None,
            cause: None,
            chain: Vec::new(),
            attempt: 1,
            retry: trigger.retry.clone(),
        }
    }

    /// `fire`: runs a trigger's handler now, whether or not the trigger is enabled.
    pub(super) fn fire_now(&self, trigger: &str, payload: &Value) -> SdkResult<Value> {
        let triggers = &self.app.spec.triggers;
        let Some((name, spec)) = triggers.get_key_value(trigger) else {
            let known: Vec<&str> = triggers.keys().map(TriggerName::as_str).collect();
            return Err(SdkError::new(
                SdkErrorCode::NotFound,
                format!(
                    "the app has no trigger `{}`; it has {}",
                    trigger.escape_debug(),
                    known.join(", ")
                ),
            ));
        };
        let job = self.job_of(name, spec, self.detail(spec, payload)?);
        let attempt = job.attempt;
        let outcome = self.attempt(job)?;
        let (value, error) = match &outcome.result {
            Ok(Answer::Json(value)) => (value.clone(), Value::Null),
            Ok(Answer::Http(_)) => (Value::Null, Value::Null),
            Err(error) => (Value::Null, json!(error)),
        };
        Ok(json!({
            "status": outcome.status().as_str(), "value": value, "error": error, "attempt": attempt,
        }))
    }

    /// The event's own part: what the test gives, over what a real one would have.
    fn detail(&self, trigger: &TriggerSpec, payload: &Value) -> SdkResult<Value> {
        let mut detail = fired_detail(trigger, self.clock.now(), self.clock.new_id());
        match (payload, detail.as_object_mut()) {
            (Value::Null, _) => {}
            (Value::Object(given), Some(fields)) => fields.extend(given.clone()),
            _ => {
                return Err(invalid(format!(
                    "the payload of a {} event is a map",
                    trigger.kind.name()
                )));
            }
        }
        Ok(detail)
    }

    /// Runs an event once; what failed is tried again later, or given up.
    fn attempt(&self, job: Job) -> SdkResult<Outcome> {
        let run = RunId(self.clock.new_id());
        let outcome = match self.event_invocation(&job, run) {
            Ok(invocation) => self.execute(invocation)?,
            Err(reason) => Outcome::refused(RunError {
                kind: RunErrorKind::Script,
                message: reason,
                script: None,
                line: None,
                column: None,
                trace: Vec::new(),
            }),
        };
        let Err(error) = &outcome.result else {
            return Ok(outcome);
        };
        let mut data = self.data.lock();
        if error.kind == RunErrorKind::Answer || job.attempt >= job.retry.attempts {
            self.give_up(&mut data, &job, run, error);
        } else {
            let due = self.clock.now() + delay(&job.retry, job.attempt);
            let again = Job {
                attempt: job.attempt + 1,
                key: None,
                ..job
            };
            data.outbox.insert((due, again.id), again);
        }
        drop(data);
        Ok(outcome)
    }

    fn give_up(&self, data: &mut Data, job: &Job, run: RunId, error: &RunError) {
        let mut last = json!(error);
        last["attempt"] = job.attempt.into();
        last["run"] = run.to_string().into();
        let kind = job.kind.as_str();
        let detail = json!({
            "id": job.id, "source_kind": kind, "trigger": job.trigger, "script": job.script,
            "attempts": job.attempt, "last_error": last, "event": job.payload,
        });
        let mut chain = job.chain.clone();
        chain.push(Link {
            run,
            script: job.script.clone(),
            trigger: job.trigger.clone(),
        });
        let cause = Cause { run, chain };
        self.emit(data, &cause, "dead_letter", &detail, |trigger| {
            trigger.is_about_dead_letter(kind)
        });
    }

    fn event_invocation(&self, job: &Job, run: RunId) -> Result<Invocation, String> {
        let script = self
            .app
            .scripts
            .get(&job.script)
            .ok_or_else(|| format!("the app has no script `{}`", job.script))?;
        let limits = self.app.spec.effective_limits();
        let trigger = job.trigger.as_ref();
        let trigger = trigger.and_then(|name| self.app.spec.triggers.get(name));
        let limits = trigger.map_or_else(|| limits.clone(), |trigger| limits.with(&trigger.limits));
        Ok(Invocation {
            run,
            app: Arc::clone(&self.app),
            commit: self.commit.clone(),
            script: Arc::clone(script),
            deadline: Instant::now() + limits.timeout(),
            limits,
            input: Input::Event(Box::new(Event {
                id: job.id.into(),
                kind: job.kind,
                attempt: job.attempt,
                trigger: job.trigger.clone(),
                cause: job.cause,
                detail: job.payload.clone(),
            })),
            principal: Principal::App,
            cause: job.cause,
            chain: job.chain.clone(),
            cancel: Cancel::never(),
        })
    }
}

/// What the policy says, without the chance that spreads real retries.
fn delay(retry: &RetryPolicy, attempt: u32) -> TimeDelta {
    let doublings = attempt.saturating_sub(1).min(40);
    let delay = retry
        .backoff_ms
        .saturating_mul(1 << doublings)
        .min(retry.max_backoff_ms);
    TimeDelta::milliseconds(i64::try_from(delay).unwrap_or(i64::MAX / 2))
}
