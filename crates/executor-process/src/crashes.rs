//! Scripts that took their process with them: one that does it again and again is held back.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use picloud_shared::{AppId, BlobId};

/// Crashes within [`WINDOW`] that are let pass.
const FREE: u32 = 3;
const WINDOW: Duration = Duration::from_mins(1);
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);
/// Scripts that are remembered; above it, those whose time is over are forgotten.
const MAX_KNOWN: usize = 10_000;

/// By app and content: a new version of a script begins anew.
type Key = (AppId, BlobId);

#[derive(Default)]
pub(crate) struct Crashes {
    any: AtomicBool,
    known: Mutex<HashMap<Key, Crashed>>,
}

struct Crashed {
    count: u32,
    last: Instant,
    until: Instant,
}

impl Crashes {
    /// Whether a script is held back.
    pub(crate) fn is_held(&self, app: AppId, script: &BlobId, now: Instant) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let known = self.known.lock();
        known
            .get(&(app, script.clone()))
            .is_some_and(|crashed| crashed.until > now)
    }

    /// Takes note of a crash.
    pub(crate) fn note(&self, app: AppId, script: &BlobId, now: Instant) {
        self.any.store(true, Ordering::Relaxed);
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, crashed| crashed.until.max(crashed.last + WINDOW) > now);
        }
        let crashed = known.entry((app, script.clone())).or_insert(Crashed {
            count: 0,
            last: now,
            until: now,
        });
        if crashed.until.max(crashed.last + WINDOW) < now {
            crashed.count = 0;
        }
        crashed.count += 1;
        crashed.last = now;
        if let Some(more) = crashed.count.checked_sub(FREE) {
            let hold = FIRST * 2_u32.saturating_pow(more.min(8));
            crashed.until = now + hold.min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_crash_in_a_minute_holds_a_script_back_for_longer_each_time() {
        let crashes = Crashes::default();
        let app = AppId::default();
        let blob: BlobId = "a".repeat(40).parse().expect("an id");
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        crashes.note(app, &blob, start);
        crashes.note(app, &blob, after(1));
        assert!(!crashes.is_held(app, &blob, after(1)));
        crashes.note(app, &blob, after(2));
        assert!(crashes.is_held(app, &blob, after(11)));
        assert!(!crashes.is_held(app, &blob, after(12)));
        crashes.note(app, &blob, after(12));
        assert!(crashes.is_held(app, &blob, after(31)));
        assert!(!crashes.is_held(app, &"b".repeat(40).parse().expect("an id"), after(31)));
        crashes.note(app, &blob, after(200));
        assert!(!crashes.is_held(app, &blob, after(200)), "a new beginning");
    }
}
