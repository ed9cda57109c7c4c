//! One attempt of an event: the run, its record, and what follows from it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{
    AppSnapshot, CommitId, Invocation, Outcome, Principal, RunId, RunRecord,
    event::{Event, EventKind},
    invocation::{Answer, Cancel, Input},
    run::{RunError, RunErrorKind, RunKind},
};
use picloud_store::outbox::{Finished, LeasedEvent, Next};
use serde_json::{Value, json};

use super::Dispatcher;
use crate::{async_request, holder::ServedApp, request_record};

/// How an attempt ended.
pub(super) enum Attempt {
    /// As it did.
    Ended(Box<Finished>),
    /// It could not be made, or not to its end: the node does not serve what the event needs, or
    /// is about to end.
    NotYet,
}

/// Why nothing could be run.
enum Refusal {
    /// For good: trying again would change nothing.
    Permanent(String),
    /// Something is away; the policy says when to try again.
    Passing(String),
    /// The node is behind what is live.
    Behind,
}

/// What a run of an event takes.
struct Prepared {
    snapshot: Arc<AppSnapshot>,
    commit: CommitId,
    invocation: Invocation,
}

impl Dispatcher {
    /// Makes an attempt; one that `cancel` stopped counts for nothing.
    pub(super) async fn attempt(
        &self,
        event: LeasedEvent,
        app: &Arc<ServedApp>,
        cancel: Cancel,
    ) -> Attempt {
        // Whoever handed a request over, or asked for a replay, knows its run by the event's id.
        let asked_for = event.kind == "http" || event.key.is_some();
        let first = event.attempt == 1 && event.errors.is_empty();
        let run = RunId(if asked_for && first {
            event.id.0
        } else {
            self.clock.new_id()
        });
        let prepared = match self.prepare(&event, app, run).await {
            Ok(prepared) => prepared,
            Err(Refusal::Behind) => return Attempt::NotYet,
            Err(Refusal::Permanent(message)) => {
                return Attempt::Ended(Box::new(Finished {
                    event,
                    record: None,
                    refused: Some(refused(RunErrorKind::Compile, message)),
                    next: Next::Dead,
                }));
            }
            Err(Refusal::Passing(message)) => {
                let next = after_failure(&event, self.clock.now(), run);
                return Attempt::Ended(Box::new(Finished {
                    event,
                    record: None,
                    refused: Some(refused(RunErrorKind::Unavailable, message)),
                    next,
                }));
            }
        };
        let started = self.clock.now();
        let began = Instant::now();
        let Prepared {
            snapshot,
            commit,
            mut invocation,
        } = prepared;
        invocation.deadline = began + invocation.limits.timeout();
        invocation.cancel = cancel;
        let outcome = self.executor.execute(invocation).await;
        let duration = began.elapsed();
        if matches!(&outcome.result, Err(error) if error.kind == RunErrorKind::Cancelled) {
            return Attempt::NotYet;
        }
        let next = match &outcome.result {
            Ok(_) => Next::Done,
            // Who asked for a replay sees how it ended; there is nothing to be put back.
            Err(_) if is_replay(&event) => Next::Done,
            Err(error) if is_permanent(error.kind) => Next::Dead,
            Err(_) => after_failure(&event, self.clock.now(), run),
        };
        let mut record = record(&event, &snapshot, commit, run, started, duration, outcome);
        self.recorder.clean(&snapshot, &mut record);
        Attempt::Ended(Box::new(Finished {
            event,
            record: Some(record),
            refused: None,
            next,
        }))
    }

    async fn prepare(
        &self,
        event: &LeasedEvent,
        app: &Arc<ServedApp>,
        run: RunId,
    ) -> Result<Prepared, Refusal> {
        if event.trigger_gone {
            let name = event.trigger.as_deref().unwrap_or_default();
            return Err(Refusal::Permanent(format!(
                "the trigger `{name}` was removed while its event waited"
            )));
        }
        let (snapshot, commit) = self.version(event, app).await?;
        let principal = self.principal(event).await?;
        let Some(script) = snapshot.scripts.get(event.script.as_str()).map(Arc::clone) else {
            if event.commit.is_none() && self.is_behind().await {
                return Err(Refusal::Behind);
            }
            return Err(Refusal::Permanent(format!(
                "the app has no script `{}` any more",
                event.script
            )));
        };
        let trigger = event.trigger.as_deref();
        let trigger = trigger.and_then(|name| snapshot.spec.triggers.get(name));
        let limits = snapshot.spec.effective_limits();
        let limits = match trigger {
            Some(trigger) => limits.with(&trigger.limits),
            None => limits,
        };
        let input = input(event).map_err(Refusal::Permanent)?;
        Ok(Prepared {
            commit: commit.clone(),
            invocation: Invocation {
                run,
                app: Arc::clone(&snapshot),
                commit,
                script,
                deadline: Instant::now() + limits.timeout(),
                limits,
                input,
                principal,
                cause: event.cause,
                chain: event.chain.clone(),
                cancel: Cancel::never(),
            },
            snapshot,
        })
    }

    /// The app as it is live, or as the commit that the event names has it.
    async fn version(
        &self,
        event: &LeasedEvent,
        app: &Arc<ServedApp>,
    ) -> Result<(Arc<AppSnapshot>, CommitId), Refusal> {
        let Some(commit) = &event.commit else {
            return Ok((Arc::clone(&app.snapshot), app.commit.clone()));
        };
        let commit: CommitId = commit
            .parse()
            .map_err(|_| Refusal::Permanent(format!("`{commit}` is no commit")))?;
        if commit == app.commit {
            return Ok((Arc::clone(&app.snapshot), commit));
        }
        let Some(former) = &self.former else {
            return Err(Refusal::Permanent(
                "this node cannot read former commits; a manager can".to_owned(),
            ));
        };
        let found = former.app(&app.snapshot, &commit).await;
        let snapshot = found.map_err(Refusal::Permanent)?;
        Ok((snapshot, commit))
    }

    /// On whose behalf the event runs, as the key is now.
    async fn principal(&self, event: &LeasedEvent) -> Result<Principal, Refusal> {
        let Some(key) = event.key else {
            return Ok(Principal::App);
        };
        match self.store.key_grant(key, self.clock.now()).await {
            Ok(Some(grant)) => Ok(Principal::Key(Arc::new(grant))),
            Ok(None) => Err(Refusal::Permanent(
                "the key on whose behalf it was to run was revoked, or has ended".to_owned(),
            )),
            Err(error) => Err(Refusal::Passing(error.to_string())),
        }
    }

    /// Whether more is live than this node serves.
    async fn is_behind(&self) -> bool {
        let served = self.holder.served().version;
        match self.store.live_version().await {
            Ok(live) => served.is_none_or(|served| served < live),
            Err(_) => true,
        }
    }
}

/// Whether a person asked for a recorded run again: those are the events of keys that have one
/// attempt.
fn is_replay(event: &LeasedEvent) -> bool {
    event.key.is_some() && event.attempts == 1
}

/// What another attempt cannot change: the script does not compile, a module is missing, its value
/// cannot be kept.
fn is_permanent(kind: RunErrorKind) -> bool {
    matches!(kind, RunErrorKind::Compile | RunErrorKind::Answer)
}

fn after_failure(event: &LeasedEvent, now: DateTime<Utc>, run: RunId) -> Next {
    if event.attempt >= event.attempts {
        Next::Dead
    } else {
        Next::Retry(retry_at(event, now, run))
    }
}

/// The end of the failed attempt, and the policy's delay within a twentieth of it.
fn retry_at(event: &LeasedEvent, now: DateTime<Utc>, run: RunId) -> DateTime<Utc> {
    let doublings = u32::try_from(event.attempt - 1).unwrap_or(0).min(40);
    let delay = event
        .backoff_ms
        .saturating_mul(1_i64 << doublings)
        .min(event.max_backoff_ms);
    // An id's last byte is random.
    let random = i64::from(run.0.as_bytes()[15]) - 128;
    let jitter = delay / 20 * random / 128;
    now + TimeDelta::milliseconds(delay + jitter)
}

fn input(event: &LeasedEvent) -> Result<Input, String> {
    let kind = EventKind::parse(&event.kind)
        .ok_or_else(|| format!("`{}` is no kind of event", event.kind))?;
    if kind == EventKind::Http {
        let request = async_request::read(&event.payload)?;
        return Ok(Input::Request(Arc::new(request)));
    }
    Ok(Input::Event(Box::new(Event {
        id: event.id,
        kind,
        attempt: u32::try_from(event.attempt).unwrap_or(1),
        trigger: event.trigger.as_deref().and_then(|name| name.parse().ok()),
        cause: event.cause,
        detail: event.payload.clone(),
    })))
}

fn refused(kind: RunErrorKind, message: String) -> RunError {
    RunError {
        kind,
        message,
        script: None,
        line: None,
        column: None,
        trace: Vec::new(),
    }
}

/// What the record keeps of the event: what `ctx.event` showed, or the request.
fn recorded_input(event: &LeasedEvent, kind: RunKind, outcome: &Outcome) -> Value {
    if kind == RunKind::Http {
        let answered = match &outcome.result {
            Ok(Answer::Http(reply)) => Some(reply.status),
            _ => None,
        };
        return match async_request::read(&event.payload) {
            Ok(request) => request_record::write(&request, answered),
            Err(_) => json!({}),
        };
    }
    let field = match kind {
        RunKind::Invoke | RunKind::Enqueue => "payload",
        other => other.as_str(),
    };
    let mut input = json!({
        "id": event.id, "kind": event.kind, "attempt": event.attempt, "trigger": event.trigger,
        "cause": event.cause,
    });
    input[field] = event.payload.clone();
    input
}

fn record(
    event: &LeasedEvent,
    app: &AppSnapshot,
    commit: CommitId,
    run: RunId,
    started: DateTime<Utc>,
    duration: Duration,
    outcome: Outcome,
) -> RunRecord {
    let kind = RunKind::parse(&event.kind).unwrap_or(RunKind::Enqueue);
    let mut input = recorded_input(event, kind, &outcome);
    outcome.secrets.json(&mut input);
    let wait = (started - event.due_at).num_microseconds().unwrap_or(0);
    RunRecord {
        id: run,
        app_id: event.app,
        app: app.spec.name.clone(),
        script: event
            .script
            .parse()
            .unwrap_or_else(|_| unreachable!("the app has a script of this path")),
        kind,
        trigger: event.trigger.as_deref().and_then(|name| name.parse().ok()),
        route: event.payload["route"]
            .as_str()
            .filter(|_| kind == RunKind::Http)
            .map(str::to_owned),
        commit,
        attempt: u32::try_from(event.attempt).unwrap_or(1),
        status: outcome.status(),
        started_at: started,
        duration_ms: duration.as_secs_f64() * 1000.0,
        queue_ms: wait.max(0) as f64 / 1000.0,
        operations: outcome.operations,
        peak_memory: outcome.peak_memory,
        error: outcome.result.err().map(|error| *error),
        logs: outcome.logs,
        dropped_logs: outcome.dropped_logs,
        cause: event.cause,
        input,
    }
}
