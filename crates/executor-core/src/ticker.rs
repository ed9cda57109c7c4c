//! A coarse clock that costs a run one load: it only ticks while some run has gone on for long.

use std::{
    sync::{
        Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How soon a long run sees that its time is up, whatever its operations take.
const PERIOD: Duration = Duration::from_millis(5);

static TICKS: AtomicU64 = AtomicU64::new(0);
static LONG_RUNS: Mutex<u64> = Mutex::new(0);
static FIRST: Condvar = Condvar::new();
static THREAD: OnceLock<()> = OnceLock::new();

/// Ticks so far.
#[inline]
pub(crate) fn now() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// Starts the thread that ticks. A process that will not be able to start threads later does so
/// first of all.
pub fn start() {
    THREAD.get_or_init(|| {
        let made = std::thread::Builder::new()
            .name("picloud-ticker".to_owned())
            .stack_size(64 << 10)
            .spawn(tick);
        if let Err(error) = made {
            tracing::error!(%error, "there is no thread for the clock of long runs");
        }
    });
}

fn tick() {
    loop {
        let mut runs = LONG_RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        while *runs == 0 {
            runs = FIRST.wait(runs).unwrap_or_else(PoisonError::into_inner);
        }
        drop(runs);
        std::thread::sleep(PERIOD);
        TICKS.fetch_add(1, Ordering::Relaxed);
    }
}

/// A run that goes on for long; while there is one, the clock ticks.
pub(crate) struct LongRun(());

impl LongRun {
    pub(crate) fn begin() -> Self {
        start();
        let mut runs = LONG_RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        *runs += 1;
        if *runs == 1 {
            FIRST.notify_one();
        }
        Self(())
    }
}

impl Drop for LongRun {
    fn drop(&mut self) {
        *LONG_RUNS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}
