//! One delivery at a time where they are the same, and not too many of them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use picloud_shared::SourceId;
use tokio::sync::OwnedMutexGuard;

type Key = (SourceId, String);
type Turns = Arc<Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>>;

/// Lets deliveries of the same id in one after the other: the second finds the first's answer.
#[derive(Default)]
pub(crate) struct Once {
    turns: Turns,
}

/// Held while a delivery is dealt with.
pub(crate) struct Turn {
    turns: Turns,
    key: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Once {
    pub(crate) async fn turn(&self, source: SourceId, delivery: &str) -> Turn {
        let key = (source, delivery.to_owned());
        let lock = Arc::clone(self.turns.lock().entry(key.clone()).or_default());
        // Made before the wait: who gives up waiting leaves nothing behind either.
        let mut turn = Turn {
            turns: Arc::clone(&self.turns),
            key,
            guard: None,
        };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut turns = self.turns.lock();
        // The map's own is the last one: nobody waits.
        if turns
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            turns.remove(&self.key);
        }
    }
}

/// Deliveries that a source may have at once, and how fast that grows back.
const BURST: f64 = 600.0;
const A_SECOND: f64 = 20.0;

/// A bucket of tokens a source. What was refused costs none: a stranger can't lock a forge out.
#[derive(Default)]
pub(super) struct Rate {
    buckets: Mutex<HashMap<SourceId, (f64, Option<Instant>)>>,
}

impl Rate {
    /// Takes a token; if there is none: how long until there is.
    pub(super) fn take(&self, source: SourceId) -> Result<(), Duration> {
        self.take_at(source, Instant::now())
    }

    fn take_at(&self, source: SourceId, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        let (tokens, at) = buckets.entry(source).or_insert((BURST, None));
        let since = at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        *tokens = (*tokens + since * A_SECOND).min(BURST);
        *at = Some(now);
        if *tokens >= 1.0 {
            *tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - *tokens) / A_SECOND))
    }
}

#[cfg(test)]
mod tests {
    use picloud_shared::{Clock, SystemClock};

    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let (rate, now) = (Rate::default(), Instant::now());
        let (one, other) = (
            SourceId(SystemClock.new_id()),
            SourceId(SystemClock.new_id()),
        );
        for nth in 0..600 {
            assert!(rate.take_at(one, now).is_ok(), "{nth}");
        }
        assert!(rate.take_at(one, now).is_err());
        assert!(rate.take_at(other, now).is_ok());
        let later = now + Duration::from_millis(60);
        assert!(rate.take_at(one, later).is_ok());
        assert!(rate.take_at(one, later).is_err());
    }

    #[tokio::test]
    async fn the_same_delivery_waits_and_leaves_nothing_behind() {
        let once = Arc::new(Once::default());
        let source = SourceId(SystemClock.new_id());
        let first = once.turn(source, "a").await;
        let _other = once.turn(source, "b").await;
        let waiting = tokio::spawn({
            let once = Arc::clone(&once);
            async move { drop(once.turn(source, "a").await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("its turn");
        assert_eq!(once.turns.lock().len(), 1);
    }
}
