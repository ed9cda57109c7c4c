//! What a node has at hand: leased events, a lane for each app, taken from in turn. So an app with
//! much to do, or with slow scripts, holds up nobody but itself.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use picloud_shared::AppId;
use picloud_store::outbox::LeasedEvent;
use uuid::Uuid;

/// Runs that take less than this on the average are quick: their events may wait at hand.
const QUICK: Duration = Duration::from_millis(2);

/// The lanes of all apps.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    apps: HashMap<AppId, Lane>,
    /// Apps with events that wait, the next one first.
    turn: VecDeque<AppId>,
    waiting: usize,
    running: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<LeasedEvent>,
    running: u32,
    /// How many may run at a time, as of the last lease.
    room: u32,
    /// A moving average, in microseconds; `None`: nothing ended yet.
    took: Option<f64>,
}

impl Lane {
    fn is_quick(&self) -> bool {
        self.took
            .is_some_and(|took| took < QUICK.as_secs_f64() * 1e6)
    }
}

impl Lanes {
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn add(&mut self, event: LeasedEvent) {
        let lane = self.apps.entry(event.app).or_default();
        lane.room = event.app_room;
        if lane.waiting.is_empty() {
            self.turn.push_back(event.app);
        }
        lane.waiting.push_back(event);
        self.waiting += 1;
    }

    /// The next event that may run: of the apps in turn, the first that has room and that `enter`
    /// lets in.
    pub(super) fn next(&mut self, mut enter: impl FnMut(AppId) -> bool) -> Option<LeasedEvent> {
        for _ in 0..self.turn.len() {
            let app = self.turn.pop_front()?;
            let Some(lane) = self.apps.get_mut(&app) else {
                continue;
            };
            if lane.running >= lane.room || !enter(app) {
                self.turn.push_back(app);
                continue;
            }
            let event = lane.waiting.pop_front();
            if !lane.waiting.is_empty() {
                self.turn.push_back(app);
            }
            if event.is_some() {
                lane.running += 1;
                self.running += 1;
                self.waiting -= 1;
                return event;
            }
        }
        None
    }

    /// A run of that app ended.
    pub(super) fn ended(&mut self, app: AppId, took: Duration) {
        self.running = self.running.saturating_sub(1);
        if let Some(lane) = self.apps.get_mut(&app) {
            lane.running = lane.running.saturating_sub(1);
            let micros = took.as_secs_f64() * 1e6;
            lane.took = Some(
                lane.took
                    .map_or(micros, |before| before * 0.9 + micros * 0.1),
            );
        }
    }

    /// Apps whose runs are quick.
    pub(super) fn quick(&self) -> Vec<Uuid> {
        let quick = self.apps.iter().filter(|(_, lane)| lane.is_quick());
        quick.map(|(app, _)| app.0).collect()
    }

    /// Whether runs of that app are quick.
    pub(super) fn is_quick(&self, app: AppId) -> bool {
        self.apps.get(&app).is_some_and(Lane::is_quick)
    }

    /// Whether there are such apps.
    pub(super) fn any_quick(&self) -> bool {
        self.apps.values().any(Lane::is_quick)
    }

    /// Runs of that app.
    pub(super) fn running_of(&self, app: AppId) -> u32 {
        self.apps.get(&app).map_or(0, |lane| lane.running)
    }

    /// Takes out all that waits.
    pub(super) fn take_waiting(&mut self) -> Vec<Uuid> {
        self.turn.clear();
        self.waiting = 0;
        let lanes = self.apps.values_mut();
        lanes
            .flat_map(|lane| lane.waiting.drain(..).map(|event| event.id.0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use picloud_shared::EventId;

    use super::*;

    fn event(app: u128, number: u128, room: u32) -> LeasedEvent {
        LeasedEvent {
            id: EventId(Uuid::from_u128(number)),
            app: AppId(Uuid::from_u128(app)),
            kind: "enqueue".to_owned(),
            trigger_id: None,
            trigger: None,
            script: "scripts/a.rhai".to_owned(),
            payload: serde_json::Value::Null,
            cause: None,
            chain: Vec::new(),
            attempt: 1,
            attempts: 1,
            backoff_ms: 0,
            max_backoff_ms: 0,
            errors: Vec::new(),
            due_at: chrono::DateTime::UNIX_EPOCH,
            fence: 1,
            key: None,
            commit: None,
            trigger_gone: false,
            app_room: room,
        }
    }

    fn numbers(lanes: &mut Lanes) -> Vec<u128> {
        std::iter::from_fn(|| lanes.next(|_| true))
            .map(|event| event.id.0.as_u128())
            .collect()
    }

    #[test]
    fn apps_take_turns_within_their_room() {
        let mut lanes = Lanes::default();
        for number in 0..5 {
            lanes.add(event(1, number, 3));
        }
        lanes.add(event(2, 10, 1));
        lanes.add(event(2, 11, 1));
        assert_eq!(numbers(&mut lanes), [0, 10, 1, 2]);
        lanes.ended(AppId(Uuid::from_u128(2)), Duration::from_millis(9));
        lanes.ended(AppId(Uuid::from_u128(1)), Duration::from_micros(9));
        assert_eq!(numbers(&mut lanes), [11, 3]);
        assert_eq!((lanes.running(), lanes.waiting()), (4, 1));
        assert_eq!(lanes.quick(), [Uuid::from_u128(1)]);
        assert_eq!(lanes.take_waiting(), [Uuid::from_u128(4)]);
        assert_eq!(numbers(&mut lanes), []);
    }

    #[test]
    fn an_app_that_may_not_enter_holds_nobody_up() {
        let mut lanes = Lanes::default();
        lanes.add(event(1, 1, 9));
        lanes.add(event(2, 2, 9));
        let second = lanes.next(|app| app.0.as_u128() == 2);
        assert_eq!(second.map(|event| event.id.0.as_u128()), Some(2));
        assert!(lanes.next(|_| false).is_none());
        assert_eq!(numbers(&mut lanes), [1]);
    }
}
