//! The world of one test: what a server and its database are to an app, in memory.

mod docs;
mod events;
mod http;
mod kv;
mod requests;
mod secrets;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use picloud_executor_core::{
    HttpMock, InProcessExecutor, SentRequest, TestAnswer, TestHost, TestRequest,
};
use picloud_shared::{
    AppSnapshot, Clock, CommitId, Executor, Invocation, Outcome,
    run::LogLine,
    sdk::{SdkCallCx, SdkError, SdkErrorCode, SdkResult, Services},
};
use serde_json::Value;

use crate::{clock::TestClock, report::FailedRun};

/// Bytes of a thread's stack on which scripts run, as the server has it.
pub(crate) const STACK: usize = 256 << 20;
/// Failed runs that are kept to be shown.
const MAX_NOTES: usize = 20;

/// All that a test's app has.
pub(crate) struct World {
    app: Arc<AppSnapshot>,
    commit: CommitId,
    clock: Arc<TestClock>,
    deadline: Instant,
    data: Mutex<Data>,
    executor: Mutex<Option<Arc<InProcessExecutor>>>,
}

#[derive(Default)]
struct Data {
    kv: BTreeMap<(String, String), kv::Entry>,
    docs: BTreeMap<(String, uuid::Uuid), docs::Stored>,
    outbox: BTreeMap<(DateTime<Utc>, uuid::Uuid), events::Job>,
    schedules: events::Schedules,
    mocks: Vec<(String, HttpMock)>,
    sent: Vec<SentRequest>,
    secrets: BTreeMap<String, String>,
    failed: Vec<FailedRun>,
    logs: Vec<LogLine>,
}

impl World {
    /// A fresh one, which lasts no longer than until `deadline`.
    pub(crate) fn new(app: &Arc<AppSnapshot>, commit: &CommitId, deadline: Instant) -> Arc<Self> {
        let clock = Arc::new(TestClock::new());
        let world = Arc::new(Self {
            app: Arc::clone(app),
            commit: commit.clone(),
            clock,
            deadline,
            data: Mutex::default(),
            executor: Mutex::default(),
        });
        let executor = InProcessExecutor::new(world.services(), world.clock());
        *world.executor.lock() = Some(executor);
        let now = world.clock.now();
        world.data.lock().schedules = events::Schedules::new(&app.spec, now);
        world
    }

    /// What scripts reach. Holds no world alive: the world holds it.
    pub(crate) fn services(self: &Arc<Self>) -> Services {
        let part = || Part(Arc::downgrade(self));
        Services {
            kv: Arc::new(part()),
            docs: Some(Arc::new(part())),
            secrets: Some(Arc::new(part())),
            http: Some(Arc::new(part())),
            invoke: Some(Arc::new(part())),
            live_logs: None,
        }
    }

    /// Its clock.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as _
    }

    /// Runs that failed, and what they logged: what a person asks for when a test fails.
    pub(crate) fn notes(&self) -> (Vec<FailedRun>, Vec<LogLine>, usize) {
        let mut data = self.data.lock();
        let waiting = data.outbox.keys();
        let now = self.clock.now();
        let due = waiting.filter(|(at, _)| *at <= now).count();
        (
            std::mem::take(&mut data.failed),
            std::mem::take(&mut data.logs),
            due,
        )
    }

    /// Runs a script to its end, and notes what is to be noted.
    fn execute(&self, invocation: Invocation) -> SdkResult<Outcome> {
        if Instant::now() >= self.deadline {
            return Err(SdkError::new(
                SdkErrorCode::Timeout,
                "the test's time is up",
            ));
        }
        let script = invocation.script.path.clone();
        let kind = invocation.kind();
        let executor = self.executor.lock().clone();
        let executor = executor.ok_or_else(gone)?;
        let outcome = wait(executor.execute(invocation))?;
        let mut data = self.data.lock();
        data.logs.extend(outcome.logs.iter().cloned());
        if let Err(error) = &outcome.result
            && data.failed.len() < MAX_NOTES
        {
            data.failed.push(FailedRun {
                script: script.to_string(),
                kind: kind.as_str(),
                error: (**error).clone(),
            });
        }
        Ok(outcome)
    }
}

impl TestHost for World {
    fn call(&self, script: &str, request: TestRequest) -> SdkResult<TestAnswer> {
        apart(|| self.answer(script, request))
    }

    fn fire(&self, trigger: &str, payload: &Value) -> SdkResult<Value> {
        apart(|| self.fire_now(trigger, payload))
    }

    fn mock_http(&self, url: &str, mock: HttpMock) -> SdkResult<()> {
        self.mock(url, mock)
    }

    fn sent(&self) -> Vec<SentRequest> {
        self.data.lock().sent.clone()
    }

    fn mock_secret(&self, name: &str, value: &str) -> SdkResult<()> {
        let mut data = self.data.lock();
        data.secrets.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn set_clock(&self, at: &str) -> SdkResult<()> {
        let at = DateTime::parse_from_rfc3339(at).map_err(|error| {
            invalid(format!(
                "clock::set takes a time of RFC 3339 like \"2026-01-01T00:00:00Z\": {error}"
            ))
        })?;
        self.clock.set(at.to_utc());
        let mut data = self.data.lock();
        data.schedules = events::Schedules::new(&self.app.spec, at.to_utc());
        Ok(())
    }

    fn advance_clock(&self, ms: u64) -> SdkResult<()> {
        let until = i64::try_from(ms)
            .ok()
            .and_then(TimeDelta::try_milliseconds)
            .and_then(|by| self.clock.now().checked_add_signed(by))
            .ok_or_else(|| invalid("the clock would go beyond the calendar"))?;
        apart(|| self.advance_to(until))
    }
}

/// A service of a world, as the executor has it.
struct Part(Weak<World>);

impl Part {
    /// The world, which is there as long as its test runs.
    fn world(&self) -> SdkResult<Arc<World>> {
        self.0.upgrade().ok_or_else(gone)
    }
}

fn gone() -> SdkError {
    SdkError::new(SdkErrorCode::Unavailable, "the test is over")
}

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}

/// What a write of a script sets off, and on whose account.
struct Cause {
    run: picloud_shared::RunId,
    chain: Vec<picloud_shared::event::Link>,
}

impl Cause {
    fn of(cx: &SdkCallCx) -> Self {
        Self {
            run: cx.run,
            chain: cx.links(),
        }
    }
}

/// Waits for a run. It is over at once where the executor runs it on this thread.
fn wait(mut run: picloud_shared::executor::ExecuteFuture<'_>) -> SdkResult<Outcome> {
    let mut context = Context::from_waker(Waker::noop());
    if let Poll::Ready(outcome) = run.as_mut().poll(&mut context) {
        return Ok(outcome);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| SdkError::new(SdkErrorCode::Failed, error.to_string()))?;
    Ok(runtime.block_on(run))
}

/// Does something that runs scripts, on a thread of its own: the test's script has its own.
fn apart<T: Send>(body: impl FnOnce() -> SdkResult<T> + Send) -> SdkResult<T> {
    let failed = |message: &str| SdkError::new(SdkErrorCode::Failed, message);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("picloud-run".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, body)
            .map_err(|error| failed(&format!("a thread cannot be made: {error}")))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(failed("the engine failed")))
    })
}
