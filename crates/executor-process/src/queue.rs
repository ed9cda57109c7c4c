//! Which process is whose turn: those that wait for a run, and the runs that wait for one, in order.

use std::{
    collections::VecDeque,
    sync::mpsc,
    time::{Duration, Instant},
};

use picloud_shared::AppSnapshot;

use crate::worker::Worker;

/// From then on a run counts as long, and no longer among those that are run at once.
const LONG: Duration = Duration::from_millis(50);

/// What a run that waited is given.
pub(crate) enum Turn {
    /// A process.
    Take(Box<Worker>),
    /// Room for one, which it makes itself.
    Make,
}

struct Waiting {
    turn: u64,
    memory: u64,
    to: mpsc::Sender<Turn>,
}

struct Busy {
    turn: u64,
    since: Instant,
}

struct Idle {
    worker: Worker,
    since: Instant,
}

/// The processes, and who has them.
pub(crate) struct Pool {
    /// The one that came last is at the end, and is taken first.
    idle: Vec<Idle>,
    busy: Vec<Busy>,
    waiting: VecDeque<Waiting>,
    /// All processes, those that are being made included.
    count: usize,
    most: usize,
    at_once: usize,
    turns: u64,
    /// Whether somebody sees to those that are not needed any more.
    pub(crate) trimmed: bool,
}

impl Pool {
    pub(crate) fn new(most: usize, at_once: usize) -> Self {
        Self {
            idle: Vec::new(),
            busy: Vec::new(),
            waiting: VecDeque::new(),
            count: 0,
            most,
            at_once,
            turns: 0,
            trimmed: false,
        }
    }

    /// How many wait for a run.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// A number for a run.
    pub(crate) fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Takes note of the processes that are about to be made so that so many are idle.
    pub(crate) fn reserve_spare(&mut self, spare: usize) -> usize {
        let coming = self.count.saturating_sub(self.busy.len());
        let missing = spare.saturating_sub(coming);
        let missing = missing.min(self.most.saturating_sub(self.count));
        self.count += missing;
        missing
    }

    /// A process that may hold that much: one that knows the app, where there is one.
    pub(crate) fn take_idle(
        &mut self,
        app: &AppSnapshot,
        memory: u64,
        turn: u64,
    ) -> Option<Worker> {
        let fits = |idle: &Idle| idle.worker.memory >= memory;
        let found = self
            .idle
            .iter()
            .rposition(|idle| fits(idle) && idle.worker.knows(app))
            .or_else(|| self.idle.iter().rposition(fits))?;
        let Idle { worker, .. } = self.idle.remove(found);
        self.begun(turn, Instant::now());
        Some(worker)
    }

    /// Whether a run may make a process, which is then counted; and the process that makes room
    /// for it, where there has to be some.
    pub(crate) fn reserve(&mut self, turn: u64, now: Instant) -> (bool, Option<Worker>) {
        let short = self.busy.iter().filter(|busy| now - busy.since < LONG);
        if short.count() >= self.at_once {
            return (false, None);
        }
        let mut other = None;
        if self.count >= self.most {
            // None of those that are idle may hold enough.
            let Some(Idle { worker, .. }) = self.idle.pop() else {
                return (false, None);
            };
            other = Some(worker);
            self.count -= 1;
        }
        self.count += 1;
        self.busy.push(Busy { turn, since: now });
        (true, other)
    }

    /// Queues a run.
    pub(crate) fn wait(&mut self, turn: u64, memory: u64) -> mpsc::Receiver<Turn> {
        let (to, given) = mpsc::channel();
        self.waiting.push_back(Waiting { turn, memory, to });
        given
    }

    /// A run waits no more.
    pub(crate) fn leave(&mut self, turn: u64) {
        self.waiting.retain(|waiting| waiting.turn != turn);
    }

    /// A run has its process from now on.
    pub(crate) fn begun(&mut self, turn: u64, now: Instant) {
        self.ended(Some(turn));
        self.busy.push(Busy { turn, since: now });
    }

    fn ended(&mut self, turn: Option<u64>) {
        self.busy.retain(|busy| Some(busy.turn) != turn);
    }

    /// A process is free: it goes to the run that has waited longest. Gives back one that none of
    /// those that wait can use, and that takes the room of one that they could.
    pub(crate) fn put_back(&mut self, mut worker: Worker, turn: Option<u64>) -> Option<Worker> {
        self.ended(turn);
        while let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| waiting.memory <= worker.memory)
        {
            let Some(next) = self.waiting.remove(at) else {
                break;
            };
            match next.to.send(Turn::Take(Box::new(worker))) {
                Ok(()) => {
                    self.begun(next.turn, Instant::now());
                    return None;
                }
                // It waits no more.
                Err(mpsc::SendError(Turn::Take(back))) => worker = *back,
                Err(mpsc::SendError(Turn::Make)) => return None,
            }
        }
        if self.count >= self.most && !self.waiting.is_empty() {
            self.gone(None);
            return Some(worker);
        }
        self.idle.push(Idle {
            worker,
            since: Instant::now(),
        });
        None
    }

    /// A process is no more: there is room for another.
    pub(crate) fn gone(&mut self, turn: Option<u64>) {
        self.ended(turn);
        self.count -= 1;
        while let Some(next) = self.waiting.pop_front() {
            if next.to.send(Turn::Make).is_ok() {
                self.count += 1;
                self.busy.push(Busy {
                    turn: next.turn,
                    since: Instant::now(),
                });
                return;
            }
        }
    }

    /// Those that waited that long for a run, but for the spare ones.
    pub(crate) fn take_unneeded(
        &mut self,
        spare: usize,
        idle: Duration,
        now: Instant,
    ) -> Vec<Worker> {
        let more = self.idle.len().saturating_sub(spare);
        // The one that was used longest ago stands first.
        let old = |one: &&Idle| now - one.since >= idle;
        let unneeded = self.idle.iter().take(more).take_while(old).count();
        self.count -= unneeded;
        self.idle
            .drain(..unneeded)
            .map(|idle| idle.worker)
            .collect()
    }
}
