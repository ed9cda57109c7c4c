//! Scripts that mean harm, run in this very process: what does not end ends the test.

mod attacks;
mod fuzz;
mod grammar;
mod hand_off;
mod services;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use picloud_counting_alloc::CountingAllocator;
use picloud_executor_core::{InProcessExecutor, STACK};
use picloud_shared::{
    AppId, AppSnapshot, AppSpec, Invocation, Limits, Outcome, Principal, RunId, SourceId,
    SystemClock,
    app::ScriptKind,
    event::{Event, EventKind},
    invocation::{Cancel, Input},
    sdk::{
        KvEntry, KvListOptions, KvService, KvSetOptions, SdkCallCx, SdkResult, Services, Versioned,
    },
    snapshot::ScriptSource,
};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Collections in memory.
#[derive(Default)]
struct Kv(Mutex<BTreeMap<String, Value>>);

impl KvService for Kv {
    fn get(&self, _: &SdkCallCx, _: &str, key: &str) -> SdkResult<Option<Versioned>> {
        let value = self.0.lock().get(key).cloned();
        Ok(value.map(|value| Versioned { value, version: 1 }))
    }

    fn get_many(
        &self,
        _: &SdkCallCx,
        _: &str,
        keys: &[String],
    ) -> SdkResult<BTreeMap<String, Value>> {
        let all = self.0.lock();
        let found = keys
            .iter()
            .filter_map(|key| Some((key.clone(), all.get(key)?.clone())));
        Ok(found.collect())
    }

    fn set(
        &self,
        _: &SdkCallCx,
        _: &str,
        key: &str,
        value: &Value,
        _: &KvSetOptions,
    ) -> SdkResult<i64> {
        self.0.lock().insert(key.to_owned(), value.clone());
        Ok(1)
    }

    fn delete(&self, _: &SdkCallCx, _: &str, key: &str) -> SdkResult<bool> {
        Ok(self.0.lock().remove(key).is_some())
    }

    fn incr(&self, _: &SdkCallCx, _: &str, _: &str, by: i64) -> SdkResult<i64> {
        Ok(by)
    }

    fn list(&self, _: &SdkCallCx, _: &str, _: &KvListOptions) -> SdkResult<Vec<KvEntry>> {
        Ok(Vec::new())
    }
}

/// Runs scripts, each as the only one of its app.
struct Sandbox(Arc<InProcessExecutor>);

impl Sandbox {
    fn new() -> Self {
        let services = Services {
            kv: Arc::new(Kv::default()),
            docs: None,
            secrets: None,
            http: None,
            invoke: None,
            live_logs: None,
        };
        Self(InProcessExecutor::new(services, Arc::new(SystemClock)))
    }

    /// How a script ends, and how long it was at work.
    fn run(&self, name: &str, text: &str, limits: Limits) -> (Outcome, Duration) {
        let id = |number: u128| uuid::Uuid::from_u128(number);
        let path: picloud_shared::ScriptPath =
            format!("scripts/{name}.rhai").parse().expect("a path");
        let script = Arc::new(ScriptSource {
            path: path.clone(),
            kind: ScriptKind::Handler,
            blob: format!("{:040x}", hash(text)).parse().expect("an id"),
            text: text.into(),
        });
        let spec = AppSpec::empty("attacks".parse().expect("a name"), "apps/attacks");
        let app = AppSnapshot {
            id: AppId(id(u128::from(hash(name)))),
            source: SourceId(id(2)),
            generation: 1,
            pinned_commit: None,
            spec: Arc::new(spec),
            scripts: BTreeMap::from([(path, Arc::clone(&script))]),
        };
        let (began, busy) = (Instant::now(), busy());
        let invocation = Invocation {
            run: RunId(id(3)),
            app: Arc::new(app),
            commit: "0".repeat(40).parse().expect("an id"),
            script,
            deadline: began + limits.timeout(),
            limits,
            input: Input::Event(Box::new(Event {
                id: picloud_shared::EventId(id(4)),
                kind: EventKind::Invoke,
                attempt: 1,
                trigger: None,
                cause: None,
                detail: Value::Null,
            })),
            principal: Principal::App,
            cause: None,
            chain: Vec::new(),
            cancel: Cancel::never(),
        };
        let outcome = self.0.run(&invocation);
        (outcome, self::busy().saturating_sub(busy))
    }
}

/// How long this thread was on a processor: on a machine that does much else, the rest is not the
/// script's.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next();
    Duration::from_nanos(first.and_then(|first| first.parse().ok()).unwrap_or(0))
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How it ended: `ok`, or the kind of its error.
fn ending(outcome: &Outcome) -> &'static str {
    match &outcome.result {
        Ok(_) => "ok",
        Err(error) => error.kind.as_str(),
    }
}

/// Runs on a thread like those of the server.
fn on_a_script_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(body);
    thread.expect("a thread").join().expect("its end")
}
