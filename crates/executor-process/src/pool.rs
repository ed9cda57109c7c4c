//! The processes that there are, and which run gets which.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use picloud_shared::{
    AppSnapshot, Executor, Invocation, Outcome,
    executor::ExecuteFuture,
    run::{RunError, RunErrorKind},
    sdk::Services,
};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{
    crashes::Crashes,
    queue::{Pool, Turn},
    spawn::Spawner,
    worker::{Heard, Lost, Worker, lost_error},
};

/// What a process's runs may hold, unless an app may have more.
const USUAL_MEMORY: u64 = 64 << 20;
/// How often a run that waits for a process looks whether it may have one of its own.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long a process waits for a run before it is ended, unless it is one of the spare ones.
const IDLE: Duration = Duration::from_secs(30);

/// How processes are made.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The program that is run, which calls [`crate::child_main`] with its last argument.
    pub program: PathBuf,
    /// What comes before that argument.
    pub arguments: Vec<String>,
    /// Processes at the same time.
    pub most: usize,
    /// Runs at the same time while they are short: more would only take the processors from one
    /// another. The others wait for their turn; a run that has gone on for long does not count.
    pub at_once: usize,
    /// Processes that wait for the next run.
    pub spare: usize,
}

/// Runs scripts in processes of their own.
pub struct ProcessExecutor(Arc<Supervisor>);

struct Supervisor {
    services: Services,
    spawner: Spawner,
    options: ProcessOptions,
    crashes: Crashes,
    pool: Mutex<Pool>,
}

impl ProcessExecutor {
    /// With what scripts may reach; the first processes start at once.
    pub fn new(services: Services, options: ProcessOptions) -> std::io::Result<Self> {
        let spawner = Spawner::start(options.program.clone(), options.arguments.clone())?;
        let supervisor = Arc::new(Supervisor {
            services,
            spawner,
            pool: Mutex::new(Pool::new(options.most, options.at_once)),
            options,
            crashes: Crashes::default(),
        });
        supervisor.replenish();
        Ok(Self(supervisor))
    }
}

impl Supervisor {
    /// Sees to it that the next run finds a process that waits for it.
    fn replenish(self: &Arc<Self>) {
        let missing = self.pool.lock().reserve_spare(self.options.spare);
        for _ in 0..missing {
            let executor = Arc::clone(self);
            let made = std::thread::Builder::new()
                .name("picloud-greeter".to_owned())
                .spawn(move || match executor.make(USUAL_MEMORY) {
                    Some(worker) => executor.put_back(worker, None),
                    None => executor.pool.lock().gone(None),
                });
            if made.is_err() {
                self.pool.lock().gone(None);
            }
        }
    }

    fn make(&self, memory: u64) -> Option<Worker> {
        let spawned = match self.spawner.order(memory).recv() {
            Ok(Ok(spawned)) => spawned,
            Ok(Err(error)) => {
                tracing::error!(%error, "a process for scripts cannot be started");
                return None;
            }
            Err(_) => return None,
        };
        match Worker::greet(spawned, memory) {
            Ok(worker) => Some(worker),
            Err((child, lost)) => {
                if let Lost::Died(reason) = lost {
                    tracing::error!(reason, "a process for scripts did not start");
                }
                self.spawner.bury(child);
                None
            }
        }
    }

    /// A process that has done its run, or is new.
    fn put_back(self: &Arc<Self>, worker: Worker, turn: Option<u64>) {
        if worker.is_worn() {
            self.pool.lock().gone(turn);
            self.spawner.bury(worker.child);
            self.replenish();
            return;
        }
        let mut pool = self.pool.lock();
        let misfit = pool.put_back(worker, turn);
        let crowded =
            pool.idle() > self.options.spare && !std::mem::replace(&mut pool.trimmed, true);
        drop(pool);
        if let Some(worker) = misfit {
            self.spawner.bury(worker.child);
        }
        if crowded {
            self.trim_later();
        }
    }

    /// Ends the processes that are not needed any more, until only the spare ones are left.
    fn trim_later(self: &Arc<Self>) {
        let executor = Arc::downgrade(self);
        let trimmer = move || {
            loop {
                std::thread::sleep(IDLE / 2);
                let Some(executor) = executor.upgrade() else {
                    return;
                };
                let mut pool = executor.pool.lock();
                let unneeded = pool.take_unneeded(executor.options.spare, IDLE, Instant::now());
                let is_done = pool.idle() <= executor.options.spare;
                pool.trimmed = !is_done;
                drop(pool);
                for worker in unneeded {
                    executor.spawner.bury(worker.child);
                }
                if is_done {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new()
            .name("picloud-trimmer".to_owned())
            .spawn(trimmer);
        if started.is_err() {
            self.pool.lock().trimmed = false;
        }
    }

    /// A process for a run, which is the pool's `turn` until it is given back.
    fn take(&self, invocation: &Invocation) -> Result<(Worker, u64), RunError> {
        let (app, memory): (&AppSnapshot, u64) = (&invocation.app, invocation.limits.memory);
        let mut pool = self.pool.lock();
        let turn = pool.next_turn();
        if let Some(worker) = pool.take_idle(app, memory, turn) {
            return Ok((worker, turn));
        }
        let (may_make, other) = pool.reserve(turn, Instant::now());
        let queued = (!may_make).then(|| pool.wait(turn, memory));
        drop(pool);
        if let Some(other) = other {
            self.spawner.bury(other.child);
        }
        let Some(given) = queued else {
            return self.make_for(turn, memory);
        };
        loop {
            let now = Instant::now();
            let left = invocation.deadline.saturating_duration_since(now);
            let received = given.recv_timeout(PATIENCE.min(left)).ok();
            let received = received.or_else(|| {
                let mut pool = self.pool.lock();
                // What came between the two looks counts.
                let late = given.try_recv().ok();
                if late.is_some() {
                    return late;
                }
                let is_over =
                    Instant::now() >= invocation.deadline || invocation.cancel.is_raised();
                if is_over {
                    pool.leave(turn);
                    return None;
                }
                let (may_make, other) = pool.reserve(turn, Instant::now());
                if may_make {
                    pool.leave(turn);
                }
                drop(pool);
                if let Some(other) = other {
                    self.spawner.bury(other.child);
                }
                may_make.then_some(Turn::Make)
            });
            match received {
                Some(Turn::Take(worker)) => return Ok((*worker, turn)),
                Some(Turn::Make) => return self.make_for(turn, memory),
                None if invocation.cancel.is_raised() => {
                    return Err(lost_error(&Lost::Cancelled, invocation));
                }
                None if Instant::now() >= invocation.deadline => {
                    return Err(error(
                        RunErrorKind::Overloaded,
                        "no process for scripts became free in time",
                    ));
                }
                None => {}
            }
        }
    }

    /// Makes the process for which there is room already.
    fn make_for(&self, turn: u64, memory: u64) -> Result<(Worker, u64), RunError> {
        if let Some(worker) = self.make(memory.max(USUAL_MEMORY)) {
            self.pool.lock().begun(turn, Instant::now());
            return Ok((worker, turn));
        }
        self.pool.lock().gone(Some(turn));
        Err(error(
            RunErrorKind::Overloaded,
            "no process for scripts can be started",
        ))
    }

    fn run(self: &Arc<Self>, invocation: &Invocation) -> Outcome {
        let (app, script) = (invocation.app.id, &invocation.script.blob);
        if self.crashes.is_held(app, script, Instant::now()) {
            return Outcome::refused(error(
                RunErrorKind::HeldBack,
                "the script took its process with it several times, and is held back for a while",
            ));
        }
        let (mut worker, turn) = match self.take(invocation) {
            Ok(taken) => taken,
            Err(error) => return Outcome::refused(error),
        };
        let mut heard = Heard::default();
        match worker.run(invocation, &self.services, &mut heard) {
            Ok(outcome) => {
                self.put_back(worker, Some(turn));
                heard.into_outcome(outcome)
            }
            Err(lost) => {
                if let Lost::Died(reason) = &lost {
                    self.crashes.note(app, script, Instant::now());
                    tracing::error!(app = %invocation.app.spec.name, script = %invocation.script.path, run = %invocation.run, reason, "a script took its process with it");
                }
                self.spawner.bury(worker.child);
                self.pool.lock().gone(Some(turn));
                self.replenish();
                heard.into_outcome(Outcome::refused(lost_error(&lost, invocation)))
            }
        }
    }
}

fn error(kind: RunErrorKind, message: &str) -> RunError {
    RunError {
        kind,
        message: message.to_owned(),
        script: None,
        line: None,
        column: None,
        trace: Vec::new(),
    }
}

impl Executor for ProcessExecutor {
    fn execute(&self, invocation: Invocation) -> ExecuteFuture<'_> {
        // Waits where the request is, as in-process runs do: nobody else's future is in between,
        // and what the run asks for is done on this thread.
        let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
        let outcome = if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
            tokio::task::block_in_place(|| self.0.run(&invocation))
        } else {
            self.0.run(&invocation)
        };
        Box::pin(std::future::ready(outcome))
    }

    fn prepare(&self, _: &Arc<AppSnapshot>) {
        // Each process compiles what it is told, when it is told.
    }
}
