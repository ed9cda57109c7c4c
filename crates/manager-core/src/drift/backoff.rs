//! Healing that somebody undoes again and again gets rarer: two writers that disagree must not
//! keep the database busy.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use picloud_shared::{AppName, SourceId};

/// After the first healing; doubles with each that follows.
const FIRST: Duration = Duration::from_secs(2);
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(5);
/// An app that stayed healed for this long starts anew.
const CALM: Duration = Duration::from_mins(10);

/// When each app may be healed again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    apps: HashMap<AppName, Tries>,
    /// The earliest of those that wait.
    waiting: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Tries {
    last: DateTime<Utc>,
    wait: Duration,
}

impl Backoff {
    /// Whether an app may be healed now.
    pub(super) fn is_due(&self, app: &AppName, now: DateTime<Utc>) -> bool {
        self.apps
            .get(app)
            .is_none_or(|tries| tries.last + tries.wait <= now)
    }

    /// Notes that an app is being healed.
    pub(super) fn tried(&mut self, app: &AppName, now: DateTime<Utc>) {
        let wait = match self.apps.get(app) {
            Some(tries) if tries.last + CALM > now => (tries.wait * 2).min(LONGEST),
            _ => FIRST,
        };
        self.apps.insert(app.clone(), Tries { last: now, wait });
    }

    /// Forgets apps that were calm for long, and notes when the next of `wanted` is due.
    pub(super) fn keep(
        &mut self,
        wanted: &BTreeMap<SourceId, BTreeSet<AppName>>,
        now: DateTime<Utc>,
    ) {
        self.apps.retain(|_, tries| tries.last + CALM > now);
        self.waiting = wanted
            .values()
            .flatten()
            .filter_map(|app| self.apps.get(app))
            .map(|tries| tries.last + tries.wait)
            .filter(|due| *due > now)
            .min();
    }

    /// How long until the next app is due.
    pub(super) fn next(&self, now: DateTime<Utc>) -> Option<Duration> {
        let due = self.waiting?;
        Some((due - now).to_std().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_that_disagree_get_rarer_and_calm_starts_anew() {
        let app: AppName = "app".parse().expect("a name");
        let mut now: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().expect("a time");
        let mut backoff = Backoff::default();
        let mut healed = Vec::new();
        let start = now;
        // Somebody undoes each healing at once, for an hour.
        while now < start + Duration::from_hours(1) {
            if backoff.is_due(&app, now) {
                backoff.tried(&app, now);
                healed.push((now - start).num_seconds());
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(healed[..6], [0, 2, 6, 14, 30, 62]);
        assert!(healed.len() < 20, "{healed:?}");
        now += CALM;
        backoff.keep(&BTreeMap::new(), now);
        assert!(backoff.is_due(&app, now));
        backoff.tried(&app, now);
        assert!(backoff.is_due(&app, now + FIRST));
    }
}
