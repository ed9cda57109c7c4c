//! The limits of a run, watched from inside the engine: it asks at each operation, and each
//! thousandth time somebody looks at the clock.

use std::{cell::RefCell, time::Instant};

use picloud_counting_alloc::Measurement;
use picloud_shared::{
    Invocation, Redactor,
    invocation::{Cancel, Input},
    run::{LogLine, RunErrorKind},
    sdk::{SdkCallCx, Services},
};
use rhai::Dynamic;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::compiled::CompiledScripts;

/// Operations between two looks at the clock and the memory.
const STRIDE: u64 = 1 << 10;
/// Looks after which the thread's other work is handed to another thread: about 200 µs.
const HAND_OFF_AFTER: u64 = 2 * STRIDE;

/// What a run on this thread has and may.
pub(crate) struct RunState {
    pub(crate) cx: SdkCallCx,
    pub(crate) services: Services,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) log_bytes: usize,
    pub(crate) dropped_logs: u64,
    pub(crate) clock: std::sync::Arc<dyn picloud_shared::Clock>,
    pub(crate) compiled: std::sync::Arc<CompiledScripts>,
    /// The secrets that the script got to know.
    pub(crate) secrets: Redactor,
    /// Handlers that this one runs and waits for.
    pub(crate) nested: u32,
    /// Operations that don't count as those of the innermost handler.
    pub(crate) nested_operations: u64,
    deadline: Instant,
    max_memory: u64,
    max_operations: u64,
    operations: u64,
    cancel: Cancel,
    memory: Measurement,
    handed_off: bool,
    /// Which limit stopped it.
    pub(crate) stopped: Option<RunErrorKind>,
}

thread_local! {
    static CURRENT: RefCell<Option<Box<RunState>>> = const { RefCell::new(None) };
}

impl RunState {
    pub(crate) fn new(
        invocation: &Invocation,
        services: Services,
        clock: std::sync::Arc<dyn picloud_shared::Clock>,
        compiled: std::sync::Arc<CompiledScripts>,
    ) -> Self {
        Self {
            cx: SdkCallCx {
                app: std::sync::Arc::clone(&invocation.app),
                script: invocation.script.path.clone(),
                run: invocation.run,
                principal: invocation.principal.clone(),
                deadline: invocation.deadline,
                commit: invocation.commit.clone(),
                chain: invocation.chain.clone(),
                trigger: match &invocation.input {
                    Input::Event(event) => event.trigger.clone(),
                    Input::Request(_) => None,
                },
            },
            services,
            logs: Vec::new(),
            log_bytes: 0,
            dropped_logs: 0,
            clock,
            compiled,
            secrets: Redactor::default(),
            nested: 0,
            nested_operations: 0,
            deadline: invocation.deadline,
            max_memory: invocation.limits.memory,
            max_operations: invocation.limits.operations,
            operations: 0,
            cancel: invocation.cancel.clone(),
            memory: Measurement::begin(),
            handed_off: false,
            stopped: None,
        }
    }

    /// Operations so far, to the last look.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// The most bytes held at once.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory.peak()
    }

    /// Stops the run at the engine's next question.
    pub(crate) fn stop(&mut self, kind: RunErrorKind) {
        self.stopped.get_or_insert(kind);
    }

    fn exceeded(&mut self, operations: u64) -> Option<RunErrorKind> {
        let operations = operations + self.nested_operations;
        self.operations = operations;
        if self.stopped.is_some() {
            return self.stopped;
        }
        self.stopped = if self.memory.held() > self.max_memory {
            Some(RunErrorKind::Memory)
        } else if operations > self.max_operations {
            Some(RunErrorKind::Operations)
        } else if Instant::now() >= self.deadline {
            Some(RunErrorKind::Timeout)
        } else if self.cancel.is_raised() {
            Some(RunErrorKind::Cancelled)
        } else {
            None
        };
        self.stopped
    }
}

/// Makes a run the current one of this thread; gives it back when `body` ends.
pub(crate) fn within<T>(state: RunState, body: impl FnOnce() -> T) -> (T, Box<RunState>) {
    let memory = state.memory;
    memory.limit(state.max_memory);
    let outer = CURRENT.replace(Some(Box::new(state)));
    let value = body();
    let state = CURRENT.replace(outer);
    memory.end();
    (
        value,
        state.unwrap_or_else(|| unreachable!("only `within` takes the state away")),
    )
}

/// Looks into the current run. `None` outside of any: when a script is only compiled.
pub(crate) fn with<T>(look: impl FnOnce(&mut RunState) -> T) -> Option<T> {
    CURRENT.with_borrow_mut(|state| state.as_deref_mut().map(look))
}

/// The engine's question at each operation: `Some` stops it, and no script can catch that.
pub(crate) fn progress(operations: u64) -> Option<Dynamic> {
    // Memory at each operation: one native call may take more than a thousand operations do.
    if !operations.is_multiple_of(STRIDE) && !picloud_counting_alloc::is_over() {
        return None;
    }
    let (stop, hand_over) = with(|state| {
        let hand_over = !state.handed_off && operations >= HAND_OFF_AFTER;
        state.handed_off |= hand_over;
        (state.exceeded(operations).is_some(), hand_over)
    })?;
    if hand_over {
        hand_off();
    }
    stop.then_some(Dynamic::UNIT)
}

/// Lets another thread take over what this one has to do besides. A worker of the runtime gives
/// its queue away while it blocks; so short scripts never leave the thread that has their request,
/// and long ones hold nobody up.
pub(crate) fn hand_off() {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        // Blocks just long enough for the other thread to take the queue; then it is gone, and
        // this thread leaves the runtime when the run ends.
        tokio::task::block_in_place(|| std::thread::sleep(std::time::Duration::from_micros(50)));
    }
}
