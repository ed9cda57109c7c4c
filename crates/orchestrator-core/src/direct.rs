//! Handlers that the control plane asks to be run now: `picloud invoke`, and the dashboard.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use picloud_shared::{
    Clock, EventId, Executor, Invocation, Outcome, RunId, RunRecord, RunSink,
    app::ScriptKind,
    event::{Event, EventKind},
    executor::{DirectAnswer, DirectCall, DirectFuture, DirectRuns, NoSuchHandler},
    invocation::{Answer, Cancel, Input},
    run::{RunError, RunErrorKind, RunKind},
};
use serde_json::json;

use crate::{holder::SnapshotHolder, recorder::Recorder};

/// Runs handlers of what this node serves.
pub struct Direct {
    /// What is served.
    pub holder: Arc<SnapshotHolder>,
    /// Runs scripts.
    pub executor: Arc<dyn Executor>,
    /// Counts runs, and keeps their records.
    pub recorder: Arc<Recorder>,
    /// For ids and times.
    pub clock: Arc<dyn Clock>,
}

impl DirectRuns for Direct {
    fn run(&self, call: DirectCall) -> DirectFuture<'_> {
        Box::pin(self.run_now(call))
    }
}

impl Direct {
    async fn run_now(&self, call: DirectCall) -> Result<DirectAnswer, NoSuchHandler> {
        let served = self.holder.served();
        let app = served
            .apps
            .get(&call.app)
            .ok_or_else(|| NoSuchHandler(format!("this node does not serve {} yet", call.app)))?;
        let script = app
            .snapshot
            .scripts
            .get(&call.script)
            .filter(|script| script.kind == ScriptKind::Handler)
            .ok_or_else(|| NoSuchHandler(format!("the app has no handler `{}`", call.script)))?;
        let (run, event) = (RunId(self.clock.new_id()), EventId(self.clock.new_id()));
        let mut input = json!({
            "id": event, "kind": "invoke", "attempt": 1, "trigger": null, "cause": null, "payload": call.payload,
        });
        let started = self.clock.now();
        let began = Instant::now();
        let in_flight = &app.stats.in_flight;
        let outcome = if in_flight.fetch_add(1, Relaxed) < app.limits.concurrency {
            let invocation = Invocation {
                run,
                app: Arc::clone(&app.snapshot),
                commit: app.commit.clone(),
                script: Arc::clone(script),
                deadline: began + app.limits.timeout(),
                limits: app.limits.clone(),
                input: Input::Event(Box::new(Event {
                    id: event,
                    kind: EventKind::Invoke,
                    attempt: 1,
                    trigger: None,
                    cause: None,
                    detail: call.payload,
                })),
                principal: call.principal,
                cause: None,
                chain: Vec::new(),
                cancel: Cancel::never(),
            };
            self.executor.execute(invocation).await
        } else {
            Outcome::refused(overloaded())
        };
        in_flight.fetch_sub(1, Relaxed);
        let duration = began.elapsed();
        outcome.secrets.json(&mut input);
        let status = outcome.status();
        self.recorder
            .count(&app.stats, RunKind::Invoke, status, duration);
        let (answer, error) = match outcome.result {
            Ok(Answer::Json(value)) => (Some(value), None),
            Ok(Answer::Http(_)) => (None, None),
            Err(error) => (None, Some(*error)),
        };
        let mut record = RunRecord {
            id: run,
            app_id: app.snapshot.id,
            app: call.app,
            script: call.script,
            kind: RunKind::Invoke,
            trigger: None,
            route: None,
            commit: app.commit.clone(),
            attempt: 1,
            status,
            started_at: started,
            duration_ms: duration.as_secs_f64() * 1000.0,
            queue_ms: 0.0,
            operations: outcome.operations,
            peak_memory: outcome.peak_memory,
            error,
            logs: outcome.logs,
            dropped_logs: outcome.dropped_logs,
            cause: None,
            input,
        };
        self.recorder.clean(&app.snapshot, &mut record);
        self.recorder.record(record.clone());
        Ok(DirectAnswer { record, answer })
    }
}

fn overloaded() -> RunError {
    RunError {
        kind: RunErrorKind::Overloaded,
        message: "the app has limits.concurrency runs already".to_owned(),
        script: None,
        line: None,
        column: None,
        trace: Vec::new(),
    }
}
