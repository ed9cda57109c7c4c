//! Records of runs and their counts, on the way to the database: never on a request's way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use picloud_shared::{
    AppSnapshot, Clock, EventSink, LiveEvent, RunRecord, RunSink, RunStatus,
    live_event::{LogEvent, RunEvent},
    run::RunKind,
};
use picloud_store::{
    Store, StoreError,
    runs::{BUCKETS, RunCount},
};
use tokio::sync::{Notify, broadcast, mpsc};

use crate::{holder::SnapshotHolder, live_logs::SecretsOf, stats::AppStats};

/// Records that wait for the database, at the most.
const CHANNEL: usize = 8_192;
/// Records of one statement.
const BATCH: usize = 500;
/// How long a batch is gathered.
const GATHER: Duration = Duration::from_millis(100);
/// How long counts are gathered.
const COUNTS: Duration = Duration::from_secs(1);

/// How much is recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecorderOptions {
    /// Successful HTTP runs of an app that are recorded in a second; all are counted.
    pub successes_a_second: u64,
    /// Runs that take this long are always recorded.
    pub slow: Duration,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            successes_a_second: 50,
            slow: Duration::from_secs(1),
        }
    }
}

/// Takes records and counts; gives them to the database in batches.
pub struct Recorder {
    options: RecorderOptions,
    records: mpsc::Sender<RunRecord>,
    failures: broadcast::Sender<Arc<RunRecord>>,
    dirty: AtomicBool,
    wake: Notify,
    /// Records that found no room.
    pub(crate) shed: AtomicU64,
    /// Lines of running runs that were not told, for want of room.
    pub(crate) passed_over: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    pub(crate) events: Arc<dyn EventSink>,
    secrets_of: SecretsOf,
}

/// The other end: what has to be written.
pub struct Pending {
    records: mpsc::Receiver<RunRecord>,
}

impl Recorder {
    /// A recorder, and what [`Recorder::run`] takes. Runs whose records are kept are told as events,
    /// without their apps' secrets.
    pub fn new(
        options: RecorderOptions,
        clock: Arc<dyn Clock>,
        events: Arc<dyn EventSink>,
        secrets_of: SecretsOf,
    ) -> (Arc<Self>, Pending) {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let recorder = Self {
            options,
            records: sender,
            failures: broadcast::channel(64).0,
            dirty: AtomicBool::new(false),
            wake: Notify::new(),
            shed: AtomicU64::new(0),
            passed_over: Arc::default(),
            clock,
            events,
            secrets_of,
        };
        (Arc::new(recorder), Pending { records: receiver })
    }

    /// Records of runs that did not end well, as they come.
    pub fn failures(&self) -> broadcast::Receiver<Arc<RunRecord>> {
        self.failures.subscribe()
    }

    /// Takes the app's secrets out of a record: also those that the run was never given, since what
    /// one run writes another reads.
    pub(crate) fn clean(&self, app: &AppSnapshot, record: &mut RunRecord) {
        if !app.spec.secrets.is_empty() {
            record.redact(&(self.secrets_of)(app).for_strangers());
        }
    }

    /// Counts a run; tells whether a record of it is wanted.
    pub(crate) fn count(
        &self,
        stats: &AppStats,
        kind: RunKind,
        status: RunStatus,
        duration: Duration,
    ) -> bool {
        stats.count(kind, status, duration);
        if !self.dirty.swap(true, Relaxed) {
            self.wake.notify_one();
        }
        let plain =
            status == RunStatus::Ok && kind == RunKind::Http && duration < self.options.slow;
        if !plain {
            return true;
        }
        let second = self.clock.now().timestamp().unsigned_abs();
        stats.may_record(second, self.options.successes_a_second)
    }

    /// Writes records and counts until `stop`, then what is left.
    pub async fn run(
        self: Arc<Self>,
        mut pending: Pending,
        store: Store,
        holder: Arc<SnapshotHolder>,
        stop: tokio::sync::watch::Receiver<bool>,
    ) {
        let mut written = Written::default();
        let counts = {
            let recorder = Arc::clone(&self);
            let (store, holder, mut stop) = (store.clone(), Arc::clone(&holder), stop.clone());
            async move {
                while !*stop.borrow() {
                    tokio::select! {
                        () = recorder.wake.notified() => {}
                        () = ended(&mut stop) => break,
                    }
                    tokio::select! {
                        () = tokio::time::sleep(COUNTS) => {}
                        () = ended(&mut stop) => {}
                    }
                    recorder.dirty.store(false, Relaxed);
                    recorder.write_counts(&store, &holder, &mut written).await;
                }
                recorder.write_counts(&store, &holder, &mut written).await;
            }
        };
        let records = self.write_records(&mut pending.records, &store, stop);
        tokio::join!(counts, records);
    }

    async fn write_counts(&self, store: &Store, holder: &SnapshotHolder, written: &mut Written) {
        let now = self.clock.now();
        let minute = now - chrono::TimeDelta::milliseconds(now.timestamp_millis() % 60_000);
        let (counts, seen) = written.since(&holder.stats.all(), minute);
        if counts.is_empty() {
            return;
        }
        match store.add_run_counts(&counts).await {
            Ok(()) => written.seen = seen,
            Err(error) => {
                // Nothing is lost: they are added up until the database takes them.
                if error.is_unavailable() {
                    tracing::debug!(%error, "counts of runs wait for the database");
                } else {
                    tracing::error!(%error, "counts of runs were refused by the database; trying again");
                }
                if !self.dirty.swap(true, Relaxed) {
                    self.wake.notify_one();
                }
            }
        }
    }
}

impl Recorder {
    /// Tells of a run that was recorded and counted in the transaction that ended its event.
    pub(crate) fn settled(&self, holder: &SnapshotHolder, record: &RunRecord) {
        let duration = Duration::from_secs_f64(record.duration_ms.max(0.0) / 1000.0);
        let stats = holder.stats.of(record.app_id, &record.app);
        stats.count_settled(record.kind, record.status, duration);
        self.tell_failure(record);
        self.publish(record);
    }

    fn publish(&self, record: &RunRecord) {
        self.events.publish(LiveEvent::Run(RunEvent::from(record)));
        if let Some(logged) = LogEvent::of(record) {
            self.events.publish(LiveEvent::Log(logged));
        }
    }

    fn tell_failure(&self, record: &RunRecord) {
        if record.status != RunStatus::Ok && self.failures.receiver_count() > 0 {
            // Nobody listening any more is no loss.
            let _ = self.failures.send(Arc::new(record.clone()));
        }
    }
}

impl Recorder {
    async fn write_records(
        &self,
        records: &mut mpsc::Receiver<RunRecord>,
        store: &Store,
        mut stop: tokio::sync::watch::Receiver<bool>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                count = records.recv_many(&mut batch, BATCH) => if count == 0 { return },
                // Not `changed`: a change that was seen while a batch was written would be missed here.
                () = ended(&mut stop) => {
                    while let Ok(record) = records.try_recv() {
                        batch.push(record);
                    }
                    for part in batch.chunks(BATCH) {
                        match store.insert_runs(part).await {
                            Ok(()) => part.iter().for_each(|record| self.publish(record)),
                            Err(error) => {
                                tracing::warn!(%error, lost = part.len(), "records of runs could not be written before the end");
                            }
                        }
                    }
                    return;
                }
            }
            if !*stop.borrow() {
                tokio::time::sleep(GATHER).await;
            }
            while batch.len() < BATCH
                && let Ok(record) = records.try_recv()
            {
                batch.push(record);
            }
            // Told once it can be asked for, not before.
            match insert(store, &mut batch, &mut stop).await {
                None => batch.iter().for_each(|record| self.publish(record)),
                Some(error) => {
                    tracing::error!(%error, lost = batch.len(), "records of runs were refused by the database");
                }
            }
            batch.clear();
        }
    }
}

impl RunSink for Recorder {
    fn wants(&self, _: &AppSnapshot, status: RunStatus, duration_ms: f64) -> bool {
        status != RunStatus::Ok || duration_ms >= self.options.slow.as_secs_f64() * 1000.0
    }

    fn record(&self, record: RunRecord) {
        self.tell_failure(&record);
        if self.records.try_send(record).is_err() {
            self.shed.fetch_add(1, Relaxed);
        }
    }
}

/// Waits until the end was asked for, also where that was before.
async fn ended(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // A sender that is gone asks for the end, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Writes a batch; waits for a database that is away. Gives the error of one that refuses it.
async fn insert(
    store: &Store,
    batch: &mut [RunRecord],
    stop: &mut tokio::sync::watch::Receiver<bool>,
) -> Option<StoreError> {
    let mut backoff = GATHER;
    loop {
        match store.insert_runs(batch).await {
            Ok(()) => return None,
            Err(error) if error.is_unavailable() && !*stop.borrow() => {
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = ended(stop) => {}
                }
                backoff = (backoff * 2).min(Duration::from_secs(2));
            }
            Err(error) => return Some(error),
        }
    }
}

type Seen = std::collections::HashMap<(picloud_shared::AppId, u8, u8), (u64, u64, [u64; BUCKETS])>;

/// What the database knows already.
#[derive(Default)]
struct Written {
    seen: Seen,
}

impl Written {
    /// What came since, and what is known once that is written.
    fn since(
        &self,
        apps: &[Arc<AppStats>],
        minute: chrono::DateTime<chrono::Utc>,
    ) -> (Vec<RunCount>, Seen) {
        let mut seen = self.seen.clone();
        let mut counts = Vec::new();
        for app in apps {
            for (kind, status, cell) in app.cells() {
                let key = (app.app, kind as u8, status as u8);
                let before = seen.get(&key).copied().unwrap_or((0, 0, [0; BUCKETS]));
                let now = (
                    cell.count.load(Relaxed),
                    cell.duration_us.load(Relaxed),
                    std::array::from_fn(|bucket| cell.histogram[bucket].load(Relaxed)),
                );
                if now.0 == before.0 {
                    continue;
                }
                counts.push(RunCount {
                    app: app.app,
                    minute,
                    kind,
                    status,
                    count: now.0 - before.0,
                    duration_us: now.1 - before.1,
                    histogram: std::array::from_fn(|bucket| now.2[bucket] - before.2[bucket]),
                });
                seen.insert(key, now);
            }
        }
        (counts, seen)
    }
}
