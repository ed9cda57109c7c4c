//! The limits of a run, watched from inside the engine. At each operation it asks three things that
//! cost next to nothing: were there a thousand operations since the last look, did the thread
//! allocate megabytes, has the coarse clock ticked. Then it looks: at memory, operations, time, and
//! whether anybody still waits.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::{Duration, Instant},
};

use picloud_counting_alloc::Measurement;
use picloud_shared::{
    Invocation, Redactor,
    invocation::{Cancel, Input},
    run::{LogLine, RunErrorKind},
    sdk::{SdkCallCx, Services},
};
use rhai::{Dynamic, EvalAltResult, Position};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{
    compiled::CompiledScripts,
    ticker::{self, LongRun},
};

/// Operations between two looks.
const STRIDE: u64 = 1 << 10;
/// Operations after which the thread's other work is handed to another thread: about 200 µs.
const HAND_OFF_AFTER: u64 = 2 * STRIDE;
/// How long the other thread may take to come for it: on a busy machine it has to wait for its turn.
const TAKEN_OVER: Duration = Duration::from_millis(20);
/// Calls of services after which a run counts as long: each may have waited.
const MANY_CALLS: u32 = 16;
/// Bytes that are allocated between two looks: an operation on large values takes long.
const GROWTH: u64 = 256 << 10;
/// Bytes of what one call of the SDK works on, from which on the clock had better tick.
const HEAVY: usize = 32 << 10;
/// What the arrays, maps and shared cells (7 each) and the closures and texts (1 each) may weigh
/// that a run holds at once: 150,000 of the former. A value can't be nested deeper than that, and
/// none of the engine's walks over a value takes more than 170 bytes of stack a unit: they all end
/// within [`crate::STACK`].
const MAX_NODES: u64 = 1_050_000;
/// Stack that the interpreter may have used at a look; the rest is for walks over values.
const MAX_STACK: usize = 64 << 20;

/// What a run on this thread has and may.
pub(crate) struct RunState {
    // Shared with each call of a service.
    pub(crate) cx: Rc<SdkCallCx>,
    pub(crate) services: Arc<Services>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) log_bytes: usize,
    pub(crate) dropped_logs: u64,
    pub(crate) clock: Arc<dyn picloud_shared::Clock>,
    pub(crate) compiled: Arc<CompiledScripts>,
    /// The secrets that the script got to know.
    pub(crate) secrets: Redactor,
    /// Operations, once the run has ended.
    pub(crate) operations: u64,
    /// Handlers that this one runs and waits for.
    pub(crate) nested: u32,
    calls: u32,
    deadline: Instant,
    max_memory: u64,
    max_operations: u64,
    cancel: Cancel,
    memory: Measurement,
    /// Where the stack was at the beginning.
    stack: usize,
    long: Option<LongRun>,
    handed_off: bool,
    /// Which limit stopped it.
    pub(crate) stopped: Option<RunErrorKind>,
}

thread_local! {
    static CURRENT: RefCell<Option<Box<RunState>>> = const { RefCell::new(None) };
    // The engine's own count begins anew in each module and native call.
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
    static NEXT_LOOK: Cell<u64> = const { Cell::new(0) };
    static SEEN_TICK: Cell<u64> = const { Cell::new(0) };
}

impl RunState {
    pub(crate) fn new(
        invocation: &Invocation,
        services: Arc<Services>,
        clock: Arc<dyn picloud_shared::Clock>,
        compiled: Arc<CompiledScripts>,
        max_memory: u64,
    ) -> Self {
        Self {
            cx: Rc::new(SdkCallCx {
                app: Arc::clone(&invocation.app),
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
            }),
            services,
            logs: Vec::new(),
            log_bytes: 0,
            dropped_logs: 0,
            clock,
            compiled,
            secrets: Redactor::default(),
            operations: 0,
            nested: 0,
            calls: 0,
            deadline: invocation.deadline,
            max_memory,
            max_operations: invocation.limits.operations,
            cancel: invocation.cancel.clone(),
            memory: Measurement::begin(),
            stack: stack_pointer(),
            long: None,
            handed_off: false,
            stopped: None,
        }
    }

    /// The most bytes held at once.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory.peak()
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.memory.held()
    }

    /// Stops the run at the engine's next question, and at each one after it.
    pub(crate) fn stop(&mut self, kind: RunErrorKind) {
        self.stopped.get_or_insert(kind);
        NEXT_LOOK.set(0);
    }

    /// Takes note of a call of a service.
    pub(crate) fn called(&mut self) {
        self.calls += 1;
        if self.calls >= MANY_CALLS {
            self.long.get_or_insert_with(LongRun::begin);
        }
    }

    fn look(&mut self, operations: u64) -> Look {
        if self.stopped.is_some() {
            return Look::Stop;
        }
        let tick = ticker::now();
        let ticked = SEEN_TICK.replace(tick) != tick;
        let held = self.memory.held();
        let now = Instant::now();
        let exceeded = if held > self.max_memory || self.memory.nodes() > MAX_NODES {
            Some(RunErrorKind::Memory)
        } else if self.stack.abs_diff(stack_pointer()) > MAX_STACK {
            Some(RunErrorKind::Depth)
        } else if operations > self.max_operations {
            Some(RunErrorKind::Operations)
        } else if now >= self.deadline {
            Some(RunErrorKind::Timeout)
        } else if ticked && self.cancel.is_raised() {
            Some(RunErrorKind::Cancelled)
        } else {
            None
        };
        if let Some(kind) = exceeded {
            self.stop(kind);
            return Look::Stop;
        }
        // It is long by its operations, or by what few of them took.
        let is_long = operations >= HAND_OFF_AFTER || ticked && self.long.is_some();
        if self.long.is_none() && (is_long || held >= GROWTH) {
            self.long = Some(LongRun::begin());
        }
        NEXT_LOOK.set((operations + STRIDE).min(self.max_operations.saturating_add(1)));
        let watched = held.saturating_add(GROWTH).min(self.max_memory);
        self.memory.watch(watched, MAX_NODES);
        if is_long && !self.handed_off {
            return Look::HandOff;
        }
        Look::GoOn
    }
}

/// About where this thread's stack is.
#[inline(never)]
fn stack_pointer() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}

enum Look {
    GoOn,
    HandOff,
    Stop,
}

/// Makes a run the current one of this thread; gives it back when `body` ends.
pub(crate) fn within<T>(state: RunState, body: impl FnOnce() -> T) -> (T, Box<RunState>) {
    let memory = state.memory;
    memory.watch(GROWTH.min(state.max_memory), MAX_NODES);
    // One run may be made within another: a test's calls of handlers are.
    let operations = OPERATIONS.replace(0);
    NEXT_LOOK.set(STRIDE.min(state.max_operations.saturating_add(1)));
    SEEN_TICK.set(ticker::now());
    let outer = CURRENT.replace(Some(Box::new(state)));
    let value = body();
    let state = CURRENT.replace(outer);
    memory.end();
    let mut state = state.unwrap_or_else(|| unreachable!("only `within` takes the state away"));
    state.operations = OPERATIONS.replace(operations);
    // The outer run looks at once, and watches again.
    NEXT_LOOK.set(0);
    (value, state)
}

/// Looks into the current run. `None` outside of any: when a script is only compiled.
pub(crate) fn with<T>(look: impl FnOnce(&mut RunState) -> T) -> Option<T> {
    CURRENT.with_borrow_mut(|state| state.as_deref_mut().map(look))
}

/// The engine's question at each operation: `Some` stops it, and no script can catch that.
pub(crate) fn progress(_: u64) -> Option<Dynamic> {
    let operations = OPERATIONS.get() + 1;
    OPERATIONS.set(operations);
    is_stopped(operations).then_some(Dynamic::UNIT)
}

/// The same question, asked by a native function that goes on for long.
pub(crate) fn pause() -> Result<(), Box<EvalAltResult>> {
    if is_stopped(OPERATIONS.get()) {
        Err(terminated())
    } else {
        Ok(())
    }
}

/// Said before an operation that takes a time in proportion to that many bytes.
pub(crate) fn weigh(bytes: usize) {
    if bytes >= HEAVY {
        with(|state| {
            state.long.get_or_insert_with(LongRun::begin);
        });
    }
}

/// Stops the run where it would hold more than it may with that many bytes more; asked before they
/// are allocated.
pub(crate) fn room(bytes: usize) -> Result<(), Box<EvalAltResult>> {
    let fits = with(|state| {
        let fits = state.held().saturating_add(bytes as u64) <= state.max_memory;
        if !fits {
            state.stop(RunErrorKind::Memory);
        }
        fits
    });
    if fits.unwrap_or(true) {
        pause()
    } else {
        Err(terminated())
    }
}

/// Stops the run; no script can catch what this gives.
pub(crate) fn stop(kind: RunErrorKind) -> Box<EvalAltResult> {
    with(|state| state.stop(kind));
    terminated()
}

fn terminated() -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(
        Dynamic::UNIT,
        Position::NONE,
    ))
}

#[inline]
fn is_stopped(operations: u64) -> bool {
    if operations < NEXT_LOOK.get()
        && !picloud_counting_alloc::is_over()
        && ticker::now() == SEEN_TICK.get()
    {
        return false;
    }
    match with(|state| state.look(operations)) {
        None | Some(Look::GoOn) => false,
        Some(Look::Stop) => true,
        Some(Look::HandOff) => {
            let done = hand_off();
            with(|state| state.handed_off = done);
            false
        }
    }
}

/// Lets another thread take over what this one has to do besides; gives whether one has. A worker
/// of the runtime gives its queue away while it blocks, and takes it back at the end if nobody came
/// for it: so short scripts never leave the thread that has their request, and long ones hold
/// nobody up.
fn hand_off() -> bool {
    let Some(handle) = Handle::try_current()
        .ok()
        .filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
    else {
        return true;
    };
    // What is handed over is freed by whoever takes it.
    picloud_counting_alloc::apart(|| {
        let taken = Arc::new(AtomicBool::new(false));
        // The last of what this thread has to do: whoever comes to it has all the rest, too.
        handle.spawn({
            let (taken, waiting) = (Arc::clone(&taken), std::thread::current());
            async move {
                taken.store(true, Release);
                waiting.unpark();
            }
        });
        tokio::task::block_in_place(|| {
            let until = Instant::now() + TAKEN_OVER;
            while !taken.load(Acquire) {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
        });
        taken.load(Acquire)
    })
}

#[cfg(test)]
mod tests {
    use picloud_counting_alloc::NODES;
    use rhai::{Array, FnPtr, Map};

    use super::*;

    #[test]
    fn whatever_values_nest_in_is_of_a_size_that_is_counted() {
        let cell = 2 * size_of::<usize>() + size_of::<std::sync::RwLock<Dynamic>>();
        let sizes = [size_of::<Array>(), cell, size_of::<FnPtr>()];
        assert_eq!(NODES.map(|(size, _)| size), sizes);
        assert_eq!(size_of::<Map>(), size_of::<Array>());
    }
}
