//! The hub of live events: the last of them in a ring, and whoever listens woken for new ones.
//!
//! A listener has a place in the ring and reads on from it, so that following, catching up after
//! a lost connection and falling behind are one and the same. Publishing never waits: a listener
//! that is slower than the ring is long is told that it missed something.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use picloud_shared::{Clock, EventSink, LiveEvent};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// Events that are kept for listeners that come back.
const KEPT: usize = 4_096;
/// Events that a listener takes at once.
const BATCH: usize = 64;
/// Events that wait to be told to other processes; above it they are not told.
const OUTWARD: usize = 1_024;

/// Takes events, and gives them to all who listen.
pub struct EventHub {
    clock: Arc<dyn Clock>,
    ring: Mutex<Ring>,
    /// How many events there were; rises with each.
    total: watch::Sender<u64>,
    /// This process, among those that share the database.
    process: Uuid,
    /// To other processes.
    outward: mpsc::Sender<Told>,
    /// Whether there are any.
    has_others: AtomicBool,
    /// Who listens here to what runs log.
    hearing: watch::Sender<usize>,
    /// Until when somebody listens at another process, in milliseconds of the clock; 0: never.
    heard_elsewhere: AtomicI64,
}

/// While it lives, runs' lines are told as they are written.
pub struct HearsLogs(Arc<EventHub>);

impl Drop for HearsLogs {
    fn drop(&mut self) {
        self.0.hearing.send_modify(|count| *count -= 1);
    }
}

#[derive(Default)]
struct Ring {
    /// Oldest first, in the order of their ids.
    events: VecDeque<Told>,
    /// Events that were ever told; the last in the ring has this number.
    total: u64,
}

/// An event, with the id by which a listener says what it has seen.
#[derive(Debug, Clone)]
pub struct Told {
    /// UUIDv7.
    pub id: Uuid,
    /// What happened.
    pub event: Arc<LiveEvent>,
}

/// What a listener gets.
#[derive(Debug, Clone)]
pub enum Heard {
    /// The next events, in order.
    Events(Vec<Told>),
    /// There were events that are no longer kept: what the listener shows may be stale.
    Missed,
}

/// Somebody who listens.
pub struct Listener {
    hub: Arc<EventHub>,
    /// Number of the last event that was heard.
    seen: u64,
    total: watch::Receiver<u64>,
    missed: bool,
}

impl EventHub {
    /// A hub that has heard of nothing; and what is to be told to other processes.
    pub fn new(clock: Arc<dyn Clock>) -> (Arc<Self>, mpsc::Receiver<Told>) {
        let (outward, events) = mpsc::channel(OUTWARD);
        let hub = Self {
            process: clock.new_id(),
            clock,
            ring: Mutex::default(),
            total: watch::Sender::new(0),
            outward,
            has_others: AtomicBool::new(false),
            hearing: watch::Sender::new(0),
            heard_elsewhere: AtomicI64::new(0),
        };
        (Arc::new(hub), events)
    }

    /// This process, among those that share the database.
    pub fn process(&self) -> Uuid {
        self.process
    }

    /// Whether other processes are to be told of this one's events.
    pub fn set_others(&self, others: bool) {
        self.has_others.store(others, Relaxed);
    }

    /// Asks for the lines of runs as they are written, of this process and of the others.
    pub fn hear_logs(self: &Arc<Self>) -> HearsLogs {
        self.hearing.send_modify(|count| *count += 1);
        HearsLogs(Arc::clone(self))
    }

    /// How many listen here to what runs log, as it changes.
    pub fn hearing(&self) -> watch::Receiver<usize> {
        self.hearing.subscribe()
    }

    /// Somebody listens at another process to what runs log, for that long at least.
    pub fn note_hearing(&self, for_ms: i64) {
        let until = self.clock.now().timestamp_millis().saturating_add(for_ms);
        self.heard_elsewhere.fetch_max(until, Relaxed);
    }

    fn is_heard_elsewhere(&self) -> bool {
        let until = self.heard_elsewhere.load(Relaxed);
        until > 0 && until > self.clock.now().timestamp_millis()
    }

    /// Takes an event of another process.
    pub fn receive(&self, id: Uuid, event: LiveEvent) {
        let event = Arc::new(event);
        self.ring.lock().push(Told { id, event }, &self.total);
    }

    /// Listens from now on; or from after the event of that id, where it is known still.
    pub fn listen(self: &Arc<Self>, after: Option<Uuid>) -> Listener {
        let total = self.total.subscribe();
        let ring = self.ring.lock();
        let first = ring.total - ring.events.len() as u64;
        let (seen, missed) = match after {
            None => (ring.total, false),
            Some(id) => {
                let known = ring.events.iter().rposition(|told| told.id == id);
                if let Some(place) = known {
                    (first + place as u64 + 1, false)
                } else {
                    let newer = ring.events.iter().rev().take_while(|told| told.id > id);
                    let seen = ring.total - newer.count() as u64;
                    // Nothing older is kept that would show that nothing lies between.
                    (seen, seen == first)
                }
            }
        };
        drop(ring);
        Listener {
            hub: Arc::clone(self),
            seen,
            total,
            missed,
        }
    }
}

impl Ring {
    fn push(&mut self, told: Told, total: &watch::Sender<u64>) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(told);
        self.total += 1;
        total.send_replace(self.total);
    }
}

impl EventSink for EventHub {
    fn hears_logs(&self) -> bool {
        *self.hearing.borrow() > 0 || self.is_heard_elsewhere()
    }

    fn publish(&self, event: LiveEvent) {
        let outward = self.has_others.load(Relaxed)
            && (!matches!(event, LiveEvent::Log(_)) || self.is_heard_elsewhere());
        let event = Arc::new(event);
        let mut ring = self.ring.lock();
        // The id is made under the lock, so that the ring's order is that of the ids.
        let id = self.clock.new_id();
        let told = Told { id, event };
        if outward {
            // A channel that is full loses what nobody depends on.
            let _ = self.outward.try_send(told.clone());
        }
        ring.push(told, &self.total);
    }
}

impl Listener {
    /// What comes next; waits for it. Nothing is lost where the wait is given up.
    pub async fn next(&mut self) -> Heard {
        loop {
            if std::mem::take(&mut self.missed) {
                return Heard::Missed;
            }
            self.total.mark_unchanged();
            if let Some(heard) = self.take() {
                return heard;
            }
            if self.total.changed().await.is_err() {
                // The hub is gone, which it can't be while this holds it.
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self) -> Option<Heard> {
        let ring = self.hub.ring.lock();
        let first = ring.total - ring.events.len() as u64;
        if self.seen < first {
            self.seen = first;
            return Some(Heard::Missed);
        }
        let skip = usize::try_from(self.seen - first).unwrap_or(usize::MAX);
        let events: Vec<Told> = ring.events.iter().skip(skip).take(BATCH).cloned().collect();
        self.seen += events.len() as u64;
        (!events.is_empty()).then_some(Heard::Events(events))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use picloud_shared::{SystemClock, live_event::DriftEvent};

    use super::*;

    fn hub() -> Arc<EventHub> {
        EventHub::new(Arc::new(SystemClock)).0
    }

    fn tell(hub: &EventHub, items: usize) {
        hub.publish(LiveEvent::Drift(DriftEvent {
            app: "a".parse().expect("a name"),
            drifted: true,
            items,
            at: DateTime::UNIX_EPOCH,
        }));
    }

    async fn heard(listener: &mut Listener) -> Vec<(Uuid, usize)> {
        match listener.next().await {
            Heard::Missed => panic!("something was missed"),
            Heard::Events(events) => events
                .iter()
                .map(|told| match told.event.as_ref() {
                    LiveEvent::Drift(event) => (told.id, event.items),
                    other => panic!("{other:?}"),
                })
                .collect(),
        }
    }

    #[tokio::test]
    async fn who_listens_hears_what_comes_and_who_comes_back_what_it_missed() {
        let hub = hub();
        tell(&hub, 1);
        let mut listener = hub.listen(None);
        tell(&hub, 2);
        let first = heard(&mut listener).await;
        assert_eq!(first.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [2]);
        drop(listener);
        tell(&hub, 3);
        tell(&hub, 4);
        let mut again = hub.listen(Some(first[0].0));
        let numbers: Vec<usize> = heard(&mut again).await.iter().map(|(_, n)| *n).collect();
        assert_eq!(numbers, [3, 4]);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), again.next()).await;
        assert!(waits.is_err(), "{waits:?}");
        tell(&hub, 5);
        assert_eq!(heard(&mut again).await[0].1, 5);
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_so() {
        let hub = hub();
        let mut listener = hub.listen(None);
        tell(&hub, 0);
        let first = heard(&mut listener).await[0].0;
        for number in 1..=KEPT + 10 {
            tell(&hub, number);
        }
        assert!(matches!(listener.next().await, Heard::Missed));
        assert_eq!(heard(&mut listener).await[0].1, 11);
        let mut late = hub.listen(Some(first));
        assert!(matches!(late.next().await, Heard::Missed));
        assert_eq!(heard(&mut late).await[0].1, 11);
        // An id of before the process began.
        let mut other = hub.listen(Some(Uuid::nil()));
        assert!(matches!(other.next().await, Heard::Missed));
    }
}
