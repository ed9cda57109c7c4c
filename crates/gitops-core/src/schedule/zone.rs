//! When a zone changes its clock.

use chrono::{DateTime, Duration, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// Two changes of a zone's offset are further apart than this.
const PROBE: Duration = Duration::hours(12);

/// The zone's offset from UTC.
pub(super) fn offset(at: DateTime<Utc>, zone: Tz) -> Duration {
    let seconds = zone
        .offset_from_utc_datetime(&at.naive_utc())
        .fix()
        .local_minus_utc();
    Duration::seconds(seconds.into())
}

/// The first instant after `from`, up to and including `until`, at which the zone's offset changes.
pub(super) fn next_change(
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    zone: Tz,
) -> Option<DateTime<Utc>> {
    let before = offset(from, zone);
    let mut low = from;
    while low < until {
        let high = (low + PROBE).min(until);
        if offset(high, zone) != before {
            return Some(bisect(low, high, before, zone));
        }
        low = high;
    }
    None
}

fn bisect(
    mut low: DateTime<Utc>,
    mut high: DateTime<Utc>,
    before: Duration,
    zone: Tz,
) -> DateTime<Utc> {
    // Offsets change on whole seconds.
    while high - low > Duration::seconds(1) {
        let middle = low + (high - low) / 2;
        if offset(middle, zone) == before {
            low = middle;
        } else {
            high = middle;
        }
    }
    high.with_nanosecond(0).unwrap_or(high)
}
