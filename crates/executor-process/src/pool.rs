//! The processes that there are, and which run gets which.

use std::{path::PathBuf, sync::Arc, time::Instant};

use parking_lot::{Condvar, Mutex};
use picloud_shared::{
    AppSnapshot, Executor, Invocation, Outcome,
    executor::ExecuteFuture,
    run::{RunError, RunErrorKind},
    sdk::Services,
};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{
    crashes::Crashes,
    spawn::Spawner,
    worker::{Heard, Lost, Worker, lost_error},
};

/// What a process's runs may hold, unless an app may have more.
const USUAL_MEMORY: u64 = 64 << 20;

/// How processes are made.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The program that is run, which calls [`crate::child_main`] with its last argument.
    pub program: PathBuf,
    /// What comes before that argument.
    pub arguments: Vec<String>,
    /// Processes at the same time.
    pub most: usize,
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
    freed: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Worker>,
    /// All that there are, those that are being made included.
    count: usize,
}

impl ProcessExecutor {
    /// With what scripts may reach; the first processes start at once.
    pub fn new(services: Services, options: ProcessOptions) -> std::io::Result<Self> {
        let spawner = Spawner::start(options.program.clone(), options.arguments.clone())?;
        let supervisor = Arc::new(Supervisor {
            services,
            spawner,
            options,
            crashes: Crashes::default(),
            pool: Mutex::default(),
            freed: Condvar::new(),
        });
        supervisor.replenish();
        Ok(Self(supervisor))
    }
}

impl Supervisor {
    /// Sees to it that the next run finds a process that waits for it.
    fn replenish(self: &Arc<Self>) {
        let missing = {
            let mut pool = self.pool.lock();
            let spare = self.options.spare.saturating_sub(pool.idle.len());
            let missing = spare.min(self.options.most.saturating_sub(pool.count));
            pool.count += missing;
            missing
        };
        for _ in 0..missing {
            let executor = Arc::clone(self);
            let made = std::thread::Builder::new()
                .name("picloud-greeter".to_owned())
                .spawn(move || match executor.make(USUAL_MEMORY) {
                    Some(worker) => executor.put_back(worker),
                    None => executor.forget(),
                });
            if made.is_err() {
                self.forget();
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

    fn put_back(&self, worker: Worker) {
        let mut pool = self.pool.lock();
        let enough = pool.idle.len() >= self.options.spare.max(1) * 4;
        if worker.is_worn() || enough {
            pool.count -= 1;
            drop(pool);
            self.spawner.bury(worker.child);
        } else {
            pool.idle.push(worker);
            drop(pool);
        }
        self.freed.notify_one();
    }

    /// One is no more.
    fn forget(&self) {
        self.pool.lock().count -= 1;
        self.freed.notify_one();
    }

    /// A process for a run: one that knows the app, where there is one.
    fn take(&self, app: &AppSnapshot, memory: u64, deadline: Instant) -> Result<Worker, RunError> {
        let mut pool = self.pool.lock();
        loop {
            let fits = |worker: &Worker| worker.memory >= memory;
            let found = pool
                .idle
                .iter()
                .rposition(|worker| fits(worker) && worker.knows(app))
                .or_else(|| pool.idle.iter().rposition(fits));
            if let Some(found) = found {
                return Ok(pool.idle.swap_remove(found));
            }
            if pool.count >= self.options.most
                && let Some(other) = pool.idle.pop()
            {
                // Room for one that may hold more.
                self.spawner.bury(other.child);
                pool.count -= 1;
            }
            if pool.count < self.options.most {
                pool.count += 1;
                drop(pool);
                if let Some(worker) = self.make(memory.max(USUAL_MEMORY)) {
                    return Ok(worker);
                }
                self.forget();
                return Err(error(
                    RunErrorKind::Overloaded,
                    "no process for scripts can be started",
                ));
            }
            if self.freed.wait_until(&mut pool, deadline).timed_out() {
                return Err(error(
                    RunErrorKind::Overloaded,
                    "no process for scripts became free in time",
                ));
            }
        }
    }

    fn run(self: &Arc<Self>, invocation: &Invocation) -> Outcome {
        let (app, script) = (invocation.app.id, &invocation.script.blob);
        if self.crashes.is_held(app, script, Instant::now()) {
            return Outcome::refused(error(
                RunErrorKind::HeldBack,
                "the script took its process with it several times, and is held back for a while",
            ));
        }
        let memory = invocation.limits.memory;
        let worker = self.take(&invocation.app, memory, invocation.deadline);
        let mut worker = match worker {
            Ok(worker) => worker,
            Err(error) => return Outcome::refused(error),
        };
        let mut heard = Heard::default();
        match worker.run(invocation, &self.services, &mut heard) {
            Ok(outcome) => {
                self.put_back(worker);
                heard.into_outcome(outcome)
            }
            Err(lost) => {
                if let Lost::Died(reason) = &lost {
                    self.crashes.note(app, script, Instant::now());
                    tracing::error!(app = %invocation.app.spec.name, script = %invocation.script.path, run = %invocation.run, reason, "a script took its process with it");
                }
                self.spawner.bury(worker.child);
                self.forget();
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
