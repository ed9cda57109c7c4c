//! Exact counts of runs: atomic additions, nothing else, on a request's way.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use picloud_shared::{AppId, AppName, RunStatus, run::RunKind};
use picloud_store::runs::{BUCKETS, bucket};

use crate::ingress::RateLimiter;

const KINDS: usize = RunKind::ALL.len();
const STATUSES: usize = RunStatus::ALL.len();

/// Counts of one app, kept over all generations.
#[derive(Debug)]
pub(crate) struct AppStats {
    pub(crate) app: AppId,
    pub(crate) name: AppName,
    /// What the database has to be told.
    cells: Vec<Cell>,
    /// What the database counts itself: runs of events, in the transactions that end them.
    settled: Vec<Cell>,
    /// Runs that are going on.
    pub(crate) in_flight: AtomicU32,
    /// Requests of addresses, by route.
    pub(crate) rates: RateLimiter,
    /// Second of the recording window, and what was recorded in it.
    window: AtomicU64,
}

/// Counts of one kind and status: since the start, and what the database knows of them.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) count: AtomicU64,
    pub(crate) duration_us: AtomicU64,
    pub(crate) histogram: [AtomicU64; BUCKETS],
}

impl AppStats {
    fn new(app: AppId, name: AppName) -> Self {
        let cell = || Cell {
            count: AtomicU64::new(0),
            duration_us: AtomicU64::new(0),
            histogram: [const { AtomicU64::new(0) }; BUCKETS],
        };
        Self {
            app,
            name,
            cells: (0..KINDS * STATUSES).map(|_| cell()).collect(),
            settled: (0..KINDS * STATUSES).map(|_| cell()).collect(),
            in_flight: AtomicU32::new(0),
            rates: RateLimiter::default(),
            window: AtomicU64::new(0),
        }
    }

    /// Counts a run.
    pub(crate) fn count(&self, kind: RunKind, status: RunStatus, duration: Duration) {
        self.cells[place(kind, status)].add(duration);
    }

    /// Counts a run that the database has counted.
    pub(crate) fn count_settled(&self, kind: RunKind, status: RunStatus, duration: Duration) {
        self.settled[place(kind, status)].add(duration);
    }

    /// The counts that the database has to be told, where they are not zero.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (RunKind, RunStatus, &Cell)> {
        let all = keys().map(|(kind, status)| (kind, status, &self.cells[place(kind, status)]));
        all.filter(|(_, _, cell)| cell.count.load(Relaxed) > 0)
    }

    /// The counts of all runs, where they are not zero.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (RunKind, RunStatus, Total)> {
        let all = keys().map(|(kind, status)| {
            let at = place(kind, status);
            (kind, status, self.cells[at].and(&self.settled[at]))
        });
        all.filter(|(_, _, total)| total.count > 0)
    }

    /// Whether one more record fits into this second's share.
    pub(crate) fn may_record(&self, second: u64, most: u64) -> bool {
        let next = |seen: u64| {
            if most == 0 {
                return None;
            }
            let (at, used) = (seen >> 32, seen & 0xffff_ffff);
            if at != second & 0xffff_ffff {
                return Some((second & 0xffff_ffff) << 32 | 1);
            }
            (used < most).then_some(seen + 1)
        };
        self.window.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

fn keys() -> impl Iterator<Item = (RunKind, RunStatus)> {
    let kinds = RunKind::ALL.into_iter();
    kinds.flat_map(|kind| RunStatus::ALL.into_iter().map(move |status| (kind, status)))
}

fn place(kind: RunKind, status: RunStatus) -> usize {
    kind as usize * STATUSES + status as usize
}

/// What a cell held at an instant.
pub(crate) struct Total {
    pub(crate) count: u64,
    pub(crate) duration_us: u64,
    pub(crate) histogram: [u64; BUCKETS],
}

impl Cell {
    fn add(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Relaxed);
        self.duration_us.fetch_add(micros, Relaxed);
        self.histogram[bucket(micros)].fetch_add(1, Relaxed);
    }

    fn and(&self, other: &Self) -> Total {
        let sum = |a: &AtomicU64, b: &AtomicU64| a.load(Relaxed) + b.load(Relaxed);
        Total {
            count: sum(&self.count, &other.count),
            duration_us: sum(&self.duration_us, &other.duration_us),
            histogram: std::array::from_fn(|at| sum(&self.histogram[at], &other.histogram[at])),
        }
    }
}

/// The upper end of a bucket, in seconds.
pub(crate) fn bucket_end(bucket: usize) -> f64 {
    16e-6 * 2_f64.powi(i32::try_from(bucket).unwrap_or(i32::MAX))
}

/// The counts of all apps that ever ran on this node.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    apps: Mutex<HashMap<AppId, Arc<AppStats>>>,
}

impl Stats {
    /// The counts of an app. Taken once a generation, not once a request.
    pub(crate) fn of(&self, app: AppId, name: &AppName) -> Arc<AppStats> {
        let mut apps = self.apps.lock();
        let stats = apps
            .entry(app)
            .or_insert_with(|| Arc::new(AppStats::new(app, name.clone())));
        Arc::clone(stats)
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<Arc<AppStats>> {
        let mut all: Vec<_> = self.apps.lock().values().map(Arc::clone).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        for (micros, expected) in [
            (0, 0),
            (15, 0),
            (16, 1),
            (31, 1),
            (32, 2),
            (1_000_000, 16),
            (u64::MAX, BUCKETS - 1),
        ] {
            assert_eq!(bucket(micros), expected, "{micros}");
        }
    }

    #[test]
    fn records_are_bounded_a_second() {
        let stats = AppStats::new(AppId(uuid::Uuid::nil()), "a".parse().expect("a name"));
        assert!((0..3).all(|_| stats.may_record(7, 3)));
        assert!(!stats.may_record(7, 3));
        assert!(stats.may_record(8, 3));
        assert!(!stats.may_record(9, 0));
    }
}
