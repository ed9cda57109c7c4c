//! The clock of a test: it stands until it is turned.

use chrono::{DateTime, TimeZone, Utc};
use parking_lot::Mutex;
use picloud_shared::Clock;
use uuid::Uuid;

/// Tells the time that a test has set, and makes ids that are the same in each run of it.
pub(crate) struct TestClock {
    state: Mutex<(DateTime<Utc>, u64)>,
}

impl TestClock {
    /// At the time at which each test begins.
    pub(crate) fn new() -> Self {
        let begin = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0);
        Self {
            state: Mutex::new((begin.single().unwrap_or_default(), 0)),
        }
    }

    /// Turns it.
    pub(crate) fn set(&self, at: DateTime<Utc>) {
        self.state.lock().0 = at;
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        self.state.lock().0
    }

    /// RFC 9562, section 5.7: the time first, and a counter where others have random bits.
    fn new_id(&self) -> Uuid {
        let mut state = self.state.lock();
        state.1 += 1;
        let (now, counter) = *state;
        let ms = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        let mut random = [0; 10];
        // Twelve bits before the variant, the others behind it.
        random[..2].copy_from_slice(
            &u16::try_from(counter >> 56 & 0xfff)
                .unwrap_or(0)
                .to_be_bytes(),
        );
        random[2..].copy_from_slice(&(counter & (u64::MAX >> 8)).to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_7_and_sort_as_they_are_made() {
        let clock = TestClock::new();
        let ids: Vec<Uuid> = (0..1000).map(|_| clock.new_id()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }
}
