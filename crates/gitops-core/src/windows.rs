//! Sync windows: when a commit may be deployed, and until when it waits.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::{SourceSettings, Window, schedule::Schedule};

/// Windows that are passed through on the way to the next time that is open; above it, the
/// windows are taken to leave none.
const MAX_STEPS: usize = 10_000;

/// Whether commits may be deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Now.
    Open,
    /// From then on.
    At(DateTime<Utc>),
    /// The windows leave no time.
    Never,
}

struct Parsed {
    allow: bool,
    schedule: Schedule,
    zone: Tz,
    duration: TimeDelta,
}

impl Parsed {
    fn of(window: &Window) -> Option<Self> {
        Some(Self {
            allow: window.allow,
            schedule: Schedule::parse(&window.schedule).ok()?,
            zone: window.timezone.parse().ok()?,
            duration: TimeDelta::milliseconds(i64::try_from(window.duration_ms).ok()?),
        })
    }

    /// When the window that is open at `at` closes.
    fn closes(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut began = self.schedule.next_after(at - self.duration, self.zone)?;
        if began > at {
            return None;
        }
        // The last one that has begun closes last.
        while let Some(next) = self
            .schedule
            .next_after(began, self.zone)
            .filter(|next| *next <= at)
        {
            began = next;
        }
        Some(began + self.duration)
    }

    fn opens(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.schedule.next_after(after, self.zone)
    }
}

impl SourceSettings {
    /// Whether a commit may be deployed now: inside a window that allows, if there is any, and
    /// inside none that denies.
    pub fn opening(&self, now: DateTime<Utc>) -> Opening {
        let windows: Vec<Parsed> = self.windows.iter().filter_map(Parsed::of).collect();
        let mut at = now;
        for _ in 0..MAX_STEPS {
            let denied = windows
                .iter()
                .filter(|window| !window.allow)
                .filter_map(|window| window.closes(at))
                .max();
            let mut allowing = windows.iter().filter(|window| window.allow).peekable();
            let restricted = allowing.peek().is_some();
            let allowing: Vec<&Parsed> = allowing.collect();
            let allowed = !restricted || allowing.iter().any(|window| window.closes(at).is_some());
            match (denied, allowed) {
                (None, true) if at == now => return Opening::Open,
                (None, true) => return Opening::At(at),
                (Some(end), _) => at = end,
                (None, false) => {
                    match allowing.iter().filter_map(|window| window.opens(at)).min() {
                        Some(next) => at = next,
                        None => return Opening::Never,
                    }
                }
            }
        }
        Opening::Never
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(windows: &[(bool, &str, u64, &str)], now: &str, expected: &str) {
        let settings = SourceSettings {
            windows: windows
                .iter()
                .map(|(allow, schedule, minutes, zone)| Window {
                    allow: *allow,
                    schedule: (*schedule).to_owned(),
                    duration_ms: minutes * 60_000,
                    timezone: (*zone).to_owned(),
                })
                .collect(),
            ..SourceSettings::default()
        };
        let now = now.parse().expect("a time");
        let told = match settings.opening(now) {
            Opening::Open => "open".to_owned(),
            Opening::At(at) => at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            Opening::Never => "never".to_owned(),
        };
        assert_eq!(told, expected, "{windows:?} at {now}");
    }

    #[test]
    fn commits_wait_for_the_next_time_that_is_open() {
        let office = (true, "0 9 * * MON-FRI", 8 * 60, "Europe/Berlin");
        let lunch = (false, "0 12 * * *", 60, "Europe/Berlin");
        check(&[], "2026-01-05T00:00:00Z", "open");
        check(&[office], "2026-01-05T08:00:00Z", "open");
        check(&[office], "2026-01-05T15:59:59Z", "open");
        check(&[office], "2026-01-05T16:00:00Z", "2026-01-06T08:00:00Z");
        // A Friday evening waits for Monday; in summer the same hour is another in UTC.
        check(&[office], "2026-01-09T17:00:00Z", "2026-01-12T08:00:00Z");
        check(&[office], "2026-07-10T17:00:00Z", "2026-07-13T07:00:00Z");
        check(
            &[office, lunch],
            "2026-01-05T11:30:00Z",
            "2026-01-05T12:00:00Z",
        );
        check(&[lunch], "2026-01-05T11:30:00Z", "2026-01-05T12:00:00Z");
        check(&[lunch], "2026-01-05T10:59:59Z", "open");
        // Denied until the window that allows is over: the next day.
        let morning = (false, "0 0 * * *", 18 * 60, "Europe/Berlin");
        check(&[office, morning], "2026-01-05T10:00:00Z", "never");
        // Windows that overlap one another.
        let always = (false, "*/30 * * * *", 60, "UTC");
        check(&[always], "2026-01-05T10:00:00Z", "never");
    }
}
