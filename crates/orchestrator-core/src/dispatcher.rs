//! From the outbox to runs: leases what is due, runs it, and ends each attempt together with its
//! record.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use picloud_shared::{
    AppId, Clock, EventId, Executor, Invocation, NodeId, Outcome, Principal, RunId, RunRecord,
    event::{Event, EventKind},
    invocation::{Cancel, Input},
    run::{RunError, RunErrorKind, RunKind},
};
use picloud_store::{
    Store, StoreError,
    outbox::{Finished, LeasedEvent, Next},
};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use uuid::Uuid;

use crate::{
    async_request,
    holder::{ServedApp, SnapshotHolder},
    recorder::Recorder,
};

/// Events of this node that run at the same time.
const MAX_RUNNING: usize = 64;
/// Events of one lease.
const BATCH: usize = 64;
/// Leases are kept this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Told or not, it looks this often: a notification can be lost.
const SWEEP: Duration = Duration::from_mins(1);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// An app at its limit of concurrency is looked at this often.
const FULL: Duration = Duration::from_millis(20);

/// Runs events.
pub struct Dispatcher {
    /// Where the outbox is.
    pub store: Store,
    /// What is served.
    pub holder: Arc<SnapshotHolder>,
    /// Runs scripts.
    pub executor: Arc<dyn Executor>,
    /// Counts runs.
    pub recorder: Arc<Recorder>,
    /// For ids and times.
    pub clock: Arc<dyn Clock>,
    /// This node: the same after a restart, so that its leases are found again.
    pub node: NodeId,
}

struct Running {
    dispatcher: Arc<Dispatcher>,
    permits: Arc<Semaphore>,
    freed: Notify,
    leased: Mutex<HashSet<Uuid>>,
    done: mpsc::Sender<Finished>,
}

impl Dispatcher {
    /// Runs what is due until `stop`; then lets end what runs.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let (done, finished) = mpsc::channel(1024);
        let running = Arc::new(Running {
            dispatcher: Arc::clone(&self),
            permits: Arc::new(Semaphore::new(MAX_RUNNING)),
            freed: Notify::new(),
            leased: Mutex::default(),
            done,
        });
        let finisher = tokio::spawn(finish(Arc::clone(&self), finished));
        let heart = tokio::spawn(beat(Arc::clone(&running)));
        let mut backoff = Duration::from_millis(50);
        let mut released = false;
        loop {
            let looked = tokio::select! {
                looked = look(&running, &mut released, &mut backoff) => looked,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match looked {
                Ok(never) => match never {},
                Err(error) if error.is_unavailable() => {
                    tracing::warn!(%error, "the database is away; events wait for it");
                }
                Err(error) => tracing::error!(%error, "events cannot be leased; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        // What runs has its own deadline.
        let _ = running
            .permits
            .acquire_many(u32::try_from(MAX_RUNNING).unwrap_or(1))
            .await;
        heart.abort();
        // Its end is seen by who waits below.
        let _ = heart.await;
        drop(running);
        if let Err(error) = finisher.await {
            tracing::error!(%error, "results of events could not be written; they run again");
        }
    }

    fn find(&self, app: AppId) -> Option<Arc<ServedApp>> {
        let served = self.holder.served();
        served
            .apps
            .values()
            .find(|served| served.snapshot.id == app)
            .cloned()
    }
}

async fn look(
    running: &Arc<Running>,
    released: &mut bool,
    backoff: &mut Duration,
) -> Result<std::convert::Infallible, StoreError> {
    let this = &running.dispatcher;
    let mut told = this.store.listen_outbox().await?;
    if !*released {
        let count = this.store.release_leases(this.node).await?;
        *released = true;
        if count > 0 {
            tracing::info!(count, "events that ran when this node ended run again");
        }
    }
    // What is live has to be known before what is to be run.
    let mut served = this.holder.watch();
    if served.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
    loop {
        let free = running.permits.available_permits().min(BATCH);
        if free == 0 {
            running.freed.notified().await;
            continue;
        }
        let limit = i64::try_from(free).unwrap_or(1);
        let events = this
            .store
            .lease_events(this.node, limit, this.clock.now())
            .await?;
        *backoff = Duration::from_millis(50);
        let count = events.len();
        for event in events {
            start(running, event).await;
        }
        if count == free {
            continue;
        }
        let next = this.store.next_due().await?;
        let until = next.map_or(SWEEP, |next| {
            let wait = (next - this.clock.now()).to_std().unwrap_or_default();
            // What is due and wasn't leased waits for its trigger's or another node's turn.
            wait.clamp(Duration::from_millis(20), SWEEP)
        });
        tokio::select! {
            told = told.next() => { told?; }
            () = running.freed.notified(), if running.permits.available_permits() < MAX_RUNNING => {}
            () = tokio::time::sleep(until) => {}
        }
    }
}

async fn start(running: &Arc<Running>, event: LeasedEvent) {
    // There are as many as events were leased.
    let Ok(permit) = Arc::clone(&running.permits).acquire_owned().await else {
        return;
    };
    running.leased.lock().insert(event.id.0);
    let running = Arc::clone(running);
    tokio::spawn(async move {
        let id = event.id.0;
        let finished = running.dispatcher.execute(event).await;
        if running.done.send(finished).await.is_err() {
            tracing::error!("the result of an event came after the end");
        }
        running.leased.lock().remove(&id);
        drop(permit);
        running.freed.notify_one();
    });
}

/// Keeps the leases of what runs long.
async fn beat(running: Arc<Running>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let leased: Vec<Uuid> = running.leased.lock().iter().copied().collect();
        if leased.is_empty() {
            continue;
        }
        let this = &running.dispatcher;
        let kept = this
            .store
            .extend_leases(this.node, &leased, this.clock.now());
        if let Err(error) = kept.await {
            tracing::warn!(%error, "leases could not be kept; trying again");
        }
    }
}

/// Writes results in batches, as large as they come while the last one is written.
async fn finish(this: Arc<Dispatcher>, mut results: mpsc::Receiver<Finished>) {
    let mut batch = Vec::new();
    while results.recv_many(&mut batch, 256).await > 0 {
        let mut backoff = Duration::from_millis(50);
        loop {
            let mut ids = || this.clock.new_id();
            match this
                .store
                .finish_events(&batch, &mut ids, this.clock.now())
                .await
            {
                Ok(held) => {
                    let held: HashSet<EventId> = held.into_iter().collect();
                    for done in &batch {
                        if held.contains(&done.event.id) {
                            this.recorder.announce(&done.record);
                        } else {
                            tracing::warn!(event = %done.event.id, "a late result was refused: the event's lease was lost");
                        }
                    }
                    break;
                }
                Err(error) if error.is_unavailable() => {
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
                Err(error) => {
                    // Their leases run out, and they run again.
                    tracing::error!(%error, events = batch.len(), "results of events were refused by the database");
                    break;
                }
            }
        }
        batch.clear();
    }
}

impl Dispatcher {
    async fn execute(&self, event: LeasedEvent) -> Finished {
        // Whoever handed a request over knows its run by the event's id.
        let first = event.kind == "http" && event.attempt == 1;
        let run = RunId(if first {
            event.id.0
        } else {
            self.clock.new_id()
        });
        let Some(app) = self.find(event.app) else {
            let record = record(&event, None, run, self.clock.now(), Duration::ZERO, None);
            return Finished {
                next: Next::Dead,
                record,
                event,
            };
        };
        while app.stats.in_flight.fetch_add(1, Relaxed) >= app.limits.concurrency {
            app.stats.in_flight.fetch_sub(1, Relaxed);
            tokio::time::sleep(FULL).await;
        }
        let started = self.clock.now();
        let began = Instant::now();
        let outcome = match invocation(&event, &app, run, began) {
            Ok(invocation) => self.executor.execute(invocation).await,
            Err(reason) => Outcome::refused(refused(reason)),
        };
        app.stats.in_flight.fetch_sub(1, Relaxed);
        let duration = began.elapsed();
        let status = outcome.status();
        let kind = RunKind::parse(&event.kind).unwrap_or(RunKind::Enqueue);
        self.recorder.count(&app.stats, kind, status, duration);
        let permanent = matches!(
            &outcome.result,
            Err(error) if error.kind == RunErrorKind::Answer
        );
        let next = match &outcome.result {
            Ok(_) => Next::Done,
            Err(_) if permanent || event.attempt >= event.attempts => Next::Dead,
            Err(_) => Next::Retry(retry_at(&event, self.clock.now(), run)),
        };
        let record = record(&event, Some(&app), run, started, duration, Some(outcome));
        Finished {
            event,
            record,
            next,
        }
    }
}

/// The end of the failed attempt, and the policy's delay within a tenth of it.
fn retry_at(event: &LeasedEvent, now: DateTime<Utc>, run: RunId) -> DateTime<Utc> {
    let doublings = u32::try_from(event.attempt - 1).unwrap_or(0).min(40);
    let delay = event
        .backoff_ms
        .saturating_mul(1_i64 << doublings)
        .min(event.max_backoff_ms);
    // An id's last byte is random.
    let random = i64::from(run.0.as_bytes()[15]) - 128;
    let jitter = delay / 10 * random / 128;
    now + TimeDelta::milliseconds(delay + jitter)
}

fn invocation(
    event: &LeasedEvent,
    app: &Arc<ServedApp>,
    run: RunId,
    began: Instant,
) -> Result<Invocation, String> {
    let script = app
        .snapshot
        .scripts
        .get(event.script.as_str())
        .ok_or_else(|| format!("the app has no script `{}` any more", event.script))?;
    let trigger = event.trigger.as_deref();
    let trigger = trigger.and_then(|name| app.snapshot.spec.triggers.get(name));
    let limits = match trigger {
        Some(trigger) => app.limits.with(&trigger.limits),
        None => app.limits.clone(),
    };
    let kind = EventKind::parse(&event.kind)
        .ok_or_else(|| format!("`{}` is no kind of event", event.kind))?;
    let input = if kind == EventKind::Http {
        Input::Request(Box::new(async_request::read(&event.payload)?))
    } else {
        Input::Event(Box::new(Event {
            id: event.id,
            kind,
            attempt: u32::try_from(event.attempt).unwrap_or(1),
            trigger: event.trigger.as_deref().and_then(|name| name.parse().ok()),
            cause: event.cause,
            detail: event.payload.clone(),
        }))
    };
    Ok(Invocation {
        run,
        app: Arc::clone(&app.snapshot),
        commit: app.commit.clone(),
        script: Arc::clone(script),
        deadline: began + limits.timeout(),
        limits,
        input,
        principal: Principal::App,
        cause: event.cause,
        chain: event.chain.clone(),
        cancel: Cancel::never(),
    })
}

fn refused(message: String) -> RunError {
    RunError {
        kind: RunErrorKind::Script,
        message,
        script: None,
        line: None,
        column: None,
        trace: Vec::new(),
    }
}

fn record(
    event: &LeasedEvent,
    app: Option<&ServedApp>,
    run: RunId,
    started: DateTime<Utc>,
    duration: Duration,
    outcome: Option<Outcome>,
) -> RunRecord {
    let outcome =
        outcome.unwrap_or_else(|| Outcome::refused(refused("the app is gone".to_owned())));
    let kind = RunKind::parse(&event.kind).unwrap_or(RunKind::Enqueue);
    let field = match kind {
        RunKind::Invoke | RunKind::Enqueue => "payload",
        RunKind::Http => "http",
        other => other.as_str(),
    };
    let mut input = json!({
        "id": event.id, "kind": event.kind, "attempt": event.attempt, "trigger": event.trigger,
        "cause": event.cause,
    });
    input[field] = event.payload.clone();
    outcome.secrets.json(&mut input);
    let status = outcome.status();
    let nowhere = || {
        "0".repeat(40)
            .parse()
            .unwrap_or_else(|_| unreachable!("an id"))
    };
    let nobody = || "gone".parse().unwrap_or_else(|_| unreachable!("a name"));
    let wait = (started - event.due_at).num_microseconds().unwrap_or(0);
    let script = event.script.parse();
    RunRecord {
        id: run,
        app_id: event.app,
        app: app.map_or_else(nobody, |app| app.snapshot.spec.name.clone()),
        script: script.unwrap_or_else(|_| {
            "scripts/gone.rhai"
                .parse()
                .unwrap_or_else(|_| unreachable!("a path"))
        }),
        kind,
        trigger: event.trigger.as_deref().and_then(|name| name.parse().ok()),
        route: None,
        commit: app.map_or_else(nowhere, |app| app.commit.clone()),
        attempt: u32::try_from(event.attempt).unwrap_or(1),
        status,
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
