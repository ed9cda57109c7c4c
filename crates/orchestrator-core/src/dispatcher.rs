//! From the outbox to runs: leases what is due, runs it, and ends each attempt together with its
//! record.
//!
//! One task looks for work and starts it, app by app in turn; runs end in tasks of their own; one
//! task writes results in batches. Nothing is asked of the database but when there is a reason:
//! somebody wrote an event, a result was written, a known time came, or the safety sweep.

mod attempt;
mod finish;
mod lanes;
mod looking;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use picloud_shared::{AppId, Clock, Executor, NodeId, executor::FormerApps, invocation::Cancel};
use picloud_store::{
    Store, StoreError,
    outbox::{Finished, LeaseRequest, LeasedEvent, Leasing},
};
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use crate::{
    holder::{ServedApp, SnapshotHolder},
    recorder::Recorder,
};
use attempt::Attempt;
use lanes::Lanes;
use looking::Looking;

/// Events of this node that run at the same time.
const MAX_RUNNING: usize = 64;
/// Events of one lease, where runs are quick. The next ones are leased while half of them wait.
const BATCH: usize = 512;
/// How many times what an app may run at a time is leased of it, where its runs are quick.
const AHEAD: i32 = 64;
/// Leases are kept this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Told or not, it looks this often: a notification can be lost.
const SWEEP: Duration = Duration::from_secs(15);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// An app whose requests take all its room is looked at this often.
const FULL: Duration = Duration::from_millis(20);
/// How long runs may go on after the end was asked for; then they are another node's.
const DRAIN: Duration = Duration::from_secs(10);
/// How long those have to stop that were cut off after it.
const CUT_OFF: Duration = Duration::from_secs(1);
/// How long a look may take that was under way.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// How long results may take to be written after that.
const LAST_RESULTS: Duration = Duration::from_secs(5);

/// Runs events.
pub struct Dispatcher {
    /// Where the outbox is.
    pub store: Store,
    /// What is served.
    pub holder: Arc<SnapshotHolder>,
    /// Runs scripts.
    pub executor: Arc<dyn Executor>,
    /// Counts runs.
    pub recorder: Arc<Recorder>,
    /// Apps as former commits have them, for replays; `None`: nobody here can read git.
    pub former: Option<Arc<dyn FormerApps>>,
    /// For ids and times.
    pub clock: Arc<dyn Clock>,
    /// This node: the same after a restart, so that its leases are found again.
    pub node: NodeId,
}

/// What the tasks share.
struct Running {
    dispatcher: Arc<Dispatcher>,
    /// Events that are leased: they wait here, run, or their results are being written.
    own: Mutex<HashSet<Uuid>>,
    /// Results were written.
    settled: Notify,
    /// Whether runs that still go on are to stop: they are another node's, from their beginning.
    cut_off: Arc<AtomicBool>,
}

impl Running {
    /// Says to a run when this node's time is over.
    fn cancel(&self) -> Cancel {
        let cut_off = Arc::clone(&self.cut_off);
        Cancel::when(move || cut_off.load(Relaxed))
    }
}

/// A run that ended.
struct Ended {
    app: AppId,
    took: Duration,
    /// Given back: this node does not know yet what it needs.
    not_yet: bool,
}

impl Dispatcher {
    /// Runs what is due until `stop`; then lets end what runs.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let (results, finished) = mpsc::channel(1024);
        let (ended, has_ended) = mpsc::unbounded_channel();
        let running = Arc::new(Running {
            dispatcher: Arc::clone(&self),
            own: Mutex::default(),
            settled: Notify::new(),
            cut_off: Arc::default(),
        });
        let mut finisher = tokio::spawn(finish::finish(Arc::clone(&running), finished));
        let heart = tokio::spawn(beat(Arc::clone(&running)));
        let mut looker = Looker {
            running,
            results,
            ended,
            has_ended,
            lanes: Lanes::default(),
            unknown: HashSet::new(),
            released: false,
            leasing: None,
            looking: None,
            left_out: false,
        };
        let mut backoff = Duration::from_millis(50);
        loop {
            let looked = tokio::select! {
                looked = looker.look(&mut backoff) => looked,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match looked {
                Ok(never) => match never {},
                Err(error) if error.is_unavailable() => {
                    tracing::warn!(%error, "the database is away; events wait for it");
                }
                Err(error) => tracing::error!(%error, "events cannot be leased; trying again"),
            }
            tokio::select! {
                () = looker.reap_for(backoff) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        looker.drain().await;
        if tokio::time::timeout(LAST_RESULTS, &mut finisher)
            .await
            .is_err()
        {
            tracing::warn!("some results of events could not be written; those events run again");
            finisher.abort();
        }
        heart.abort();
        // What still runs here is another node's from now on.
        if let Err(error) = self.store.release_leases(self.node).await {
            tracing::debug!(%error, "leases could not be given back; they run out");
        }
    }

    fn find(&self, app: AppId) -> Option<Arc<ServedApp>> {
        self.holder.served().by_id(app).map(Arc::clone)
    }
}

/// The task that looks for work.
struct Looker {
    running: Arc<Running>,
    results: mpsc::Sender<Finished>,
    ended: mpsc::UnboundedSender<Ended>,
    has_ended: mpsc::UnboundedReceiver<Ended>,
    lanes: Lanes,
    /// Apps that are live and not served here yet, or not as their events need them.
    unknown: HashSet<AppId>,
    /// Whether what an earlier process of this node had leased was given back.
    released: bool,
    /// The connection to lease by, while it isn't asked.
    leasing: Option<Leasing>,
    /// A look that is under way: what is at hand is started meanwhile.
    looking: Option<Looking>,
    /// Whether the last look left apps out whose room requests had taken, which may have ended since.
    left_out: bool,
}

impl Looker {
    async fn look(
        &mut self,
        backoff: &mut Duration,
    ) -> Result<std::convert::Infallible, StoreError> {
        let this = Arc::clone(&self.running.dispatcher);
        let mut told = this.store.listen_outbox().await?;
        if !self.released {
            let count = this.store.release_leases(this.node).await?;
            self.released = true;
            if count > 0 {
                tracing::info!(count, "events that ran when this node ended run again");
            }
        }
        // What is live has to be known before what is to be run.
        let mut served = this.holder.watch();
        if served.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
        if self.leasing.is_none() && self.looking.is_none() {
            self.leasing = Some(this.store.leasing().await?);
        }
        let mut look = true;
        let mut wake = Instant::now() + SWEEP;
        loop {
            self.start_what_may();
            if look && self.has_room() {
                look = !self.ask();
            }
            if self.lanes.running() == 0 && self.lanes.waiting() > 0 {
                wake = wake.min(Instant::now() + FULL);
            }
            tokio::select! {
                looked = looking::ended(&mut self.looking) => {
                    let looked = looked?;
                    *backoff = Duration::from_millis(50);
                    self.leasing = Some(looked.leasing);
                    look |= looked.more;
                    wake = Instant::now() + self.sleep_until(looked.next);
                    self.take(looked.events).await?;
                }
                Some(ended) = self.has_ended.recv() => self.reap(&ended),
                () = self.running.settled.notified() => look = true,
                () = this.store.outbox_told_here() => look = true,
                told = told.next_of_many() => { told?; look = true; }
                changed = served.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.unknown.clear();
                    look = true;
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    self.unknown.clear();
                    look = true;
                    wake = Instant::now() + SWEEP;
                }
            }
        }
    }

    /// Whether more is to be leased.
    fn has_room(&self) -> bool {
        if self.lanes.any_quick() {
            self.lanes.waiting() < BATCH / 2
        } else {
            self.lanes.running() + self.lanes.waiting() < MAX_RUNNING
        }
    }

    /// Begins to look, unless a look is under way; gives whether it began.
    fn ask(&mut self) -> bool {
        let Some(leasing) = self.leasing.take() else {
            return false;
        };
        let quick = self.lanes.quick();
        let most = if quick.is_empty() {
            MAX_RUNNING.saturating_sub(self.lanes.running() + self.lanes.waiting())
        } else {
            BATCH
        };
        let (closed, left_out) = self.closed();
        let request = LeaseRequest {
            most: i32::try_from(most).unwrap_or(1),
            own: self.running.own.lock().iter().copied().collect(),
            closed,
            quick,
            ahead: AHEAD,
        };
        self.left_out = left_out;
        let this = &self.running.dispatcher;
        self.looking = Some(looking::look(leasing, this.node, request, this.clock.now()));
        true
    }

    /// Takes in what was leased.
    async fn take(&mut self, events: Vec<LeasedEvent>) -> Result<(), StoreError> {
        let this = Arc::clone(&self.running.dispatcher);
        let mut unknown = Vec::new();
        for event in events {
            if this.find(event.app).is_some() {
                self.running.own.lock().insert(event.id.0);
                self.lanes.add(event);
            } else {
                self.unknown.insert(event.app);
                unknown.push(event.id.0);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        this.store.give_back(this.node, &unknown).await
    }

    /// Apps of which nothing is to be leased now; and whether requests are why, of whose end nobody
    /// tells.
    fn closed(&self) -> (Vec<Uuid>, bool) {
        let served = self.running.dispatcher.holder.served();
        let mut closed: Vec<Uuid> = self.unknown.iter().map(|app| app.0).collect();
        let mut left_out = false;
        for app in served.apps() {
            // Looked at once: it may be another number the next time.
            let all = app.stats.in_flight.load(Relaxed);
            let by_requests = all > self.lanes.running_of(app.snapshot.id);
            // What its own events take is free again before more of a quick one is at hand.
            if all >= app.limits.concurrency
                && (by_requests || !self.lanes.is_quick(app.snapshot.id))
            {
                closed.push(app.snapshot.id.0);
                left_out |= by_requests;
            }
        }
        (closed, left_out)
    }

    /// How long there is nothing to look at that nobody tells of.
    fn sleep_until(&self, next: Option<DateTime<Utc>>) -> Duration {
        if self.left_out || self.is_crowded_out() {
            return FULL;
        }
        next.map_or(SWEEP, |next| {
            let wait = (next - self.running.dispatcher.clock.now())
                .to_std()
                .unwrap_or_default();
            wait.clamp(Duration::from_millis(1), SWEEP)
        })
    }

    /// Whether requests take the room of an app, of whose end nobody tells.
    fn is_crowded_out(&self) -> bool {
        let served = self.running.dispatcher.holder.served();
        self.lanes.running() == 0 && self.lanes.waiting() > 0
            || served.apps().any(|app| {
                let here = self.lanes.running_of(app.snapshot.id);
                let all = app.stats.in_flight.load(Relaxed);
                all >= app.limits.concurrency && all > here
            })
    }

    /// Starts events for which there is room.
    fn start_what_may(&mut self) {
        while self.lanes.running() < MAX_RUNNING {
            let this = Arc::clone(&self.running.dispatcher);
            let mut found = None;
            let event = self.lanes.next(|app| {
                found = this.find(app);
                // An app that is served no longer runs nothing; its events are given back below.
                found.as_ref().is_none_or(|app| enter(app))
            });
            let Some(event) = event else { return };
            match found {
                Some(app) => self.start(event, app),
                None => self.start_nothing(&event),
            }
        }
    }

    fn start(&self, event: LeasedEvent, app: Arc<ServedApp>) {
        let (running, results, ended) = (
            Arc::clone(&self.running),
            self.results.clone(),
            self.ended.clone(),
        );
        tokio::spawn(async move {
            let began = Instant::now();
            let (id, of) = (event.id.0, event.app);
            let attempt = running
                .dispatcher
                .attempt(event, &app, running.cancel())
                .await;
            app.stats.in_flight.fetch_sub(1, Relaxed);
            let not_yet = match attempt {
                Attempt::Ended(finished) => {
                    if results.send(*finished).await.is_err() {
                        tracing::error!("the result of an event came after the end");
                    }
                    false
                }
                Attempt::NotYet => {
                    give_back(&running, id).await;
                    true
                }
            };
            // Nobody looks any more after the end.
            let _ = ended.send(Ended {
                app: of,
                took: began.elapsed(),
                not_yet,
            });
        });
    }

    fn start_nothing(&self, event: &LeasedEvent) {
        let (running, ended) = (Arc::clone(&self.running), self.ended.clone());
        let (id, app) = (event.id.0, event.app);
        tokio::spawn(async move {
            give_back(&running, id).await;
            // Nobody looks any more after the end.
            let _ = ended.send(Ended {
                app,
                took: Duration::from_secs(1),
                not_yet: true,
            });
        });
    }

    fn reap(&mut self, ended: &Ended) {
        self.lanes.ended(ended.app, ended.took);
        if ended.not_yet {
            self.unknown.insert(ended.app);
        }
        while let Ok(ended) = self.has_ended.try_recv() {
            self.lanes.ended(ended.app, ended.took);
            if ended.not_yet {
                self.unknown.insert(ended.app);
            }
        }
    }

    /// Goes on starting what is leased while the database is away.
    async fn reap_for(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        loop {
            self.start_what_may();
            tokio::select! {
                Some(ended) = self.has_ended.recv() => self.reap(&ended),
                () = tokio::time::sleep_until(end) => return,
            }
        }
    }

    /// Gives back what waits, and lets end what runs, within its time.
    async fn drain(mut self) {
        let this = Arc::clone(&self.running.dispatcher);
        // What is leased just now is given back, too.
        let looked = looking::ended(&mut self.looking);
        let mut waiting = match tokio::time::timeout(LAST_LOOK, looked).await {
            Ok(Ok(looked)) => looked.events.iter().map(|event| event.id.0).collect(),
            _ => Vec::new(),
        };
        waiting.extend(self.lanes.take_waiting());
        if !waiting.is_empty()
            && let Err(error) = this.store.give_back(this.node, &waiting).await
        {
            tracing::debug!(%error, "leases could not be given back; they run out");
        }
        if tokio::time::timeout(DRAIN, self.all_ended()).await.is_err() {
            tracing::warn!(
                "some events did not end in time; they run again elsewhere, or after the next start"
            );
            // Each gives its lease back as it stops.
            self.running.cut_off.store(true, Relaxed);
            let _ = tokio::time::timeout(CUT_OFF, self.all_ended()).await;
        }
    }

    async fn all_ended(&mut self) {
        while self.lanes.running() > 0 {
            let Some(ended) = self.has_ended.recv().await else {
                return;
            };
            self.reap(&ended);
        }
    }
}

/// Takes a place among the app's runs.
fn enter(app: &ServedApp) -> bool {
    let in_flight = &app.stats.in_flight;
    let entered = in_flight.fetch_add(1, Relaxed) < app.limits.concurrency;
    if !entered {
        in_flight.fetch_sub(1, Relaxed);
    }
    entered
}

async fn give_back(running: &Running, event: Uuid) {
    let this = &running.dispatcher;
    if let Err(error) = this.store.give_back(this.node, &[event]).await {
        tracing::debug!(%error, "a lease could not be given back; it runs out");
    }
    running.own.lock().remove(&event);
}

/// Keeps the leases of what runs long.
async fn beat(running: Arc<Running>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let leased: Vec<Uuid> = running.own.lock().iter().copied().collect();
        if leased.is_empty() {
            continue;
        }
        let this = &running.dispatcher;
        if let Err(error) = this.store.extend_leases(this.node, &leased).await {
            tracing::warn!(%error, "leases could not be kept; trying again");
        }
    }
}
