//! Cron schedules: six fields (or five) with the meaning of crontab(5), and daylight saving as
//! Debian's cron has it. Pure: given an instant, the next one follows.

mod field;
#[cfg(test)]
mod tests;
mod words;
mod zone;

use std::{fmt, fmt::Write as _, str::FromStr};

use chrono::{DateTime, Duration, NaiveDateTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use self::{
    field::{Field, SHAPES, parse_field},
    zone::{next_change, offset},
};

/// A change of the clock of this size or more is a correction, and nothing is made up for it.
const CORRECTION: Duration = Duration::hours(3);
/// Changes of the clock that are told: two a year are usual.
const MAX_CLOCK_CHANGES: usize = 4;

/// A schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    fields: [Field; 6],
    /// What enumerates its local times. Two where both day fields are restricted: either one
    /// matches, while the crate asks for both.
    local: Vec<cron::Schedule>,
}

/// What a change of the clock does to a schedule that names times of the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockChange {
    /// A local time doesn't exist that day; it fires right after the gap.
    Skipped {
        /// The first of them.
        local: NaiveDateTime,
        /// When it fires instead.
        fires: DateTime<Utc>,
    },
    /// A local time comes twice that day; it fires once.
    Twice {
        /// The first of them.
        local: NaiveDateTime,
        /// Which of the two.
        fires: DateTime<Utc>,
    },
}

/// Why a text is no schedule. Names the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleError {
    /// For people.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ScheduleError {}

fn error(message: impl Into<String>) -> ScheduleError {
    ScheduleError {
        message: message.into(),
        hint: None,
    }
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let trimmed = text.trim();
        let expanded = match trimmed.to_ascii_lowercase().as_str() {
            "@hourly" => "0 0 * * * *",
            "@daily" | "@midnight" => "0 0 0 * * *",
            "@weekly" => "0 0 0 * * 0",
            "@monthly" => "0 0 0 1 * *",
            "@yearly" | "@annually" => "0 0 0 1 1 *",
            "@reboot" => {
                return Err(ScheduleError {
                    message: "@reboot is no schedule here: nothing boots".to_owned(),
                    hint: Some("name times, like `@hourly`".to_owned()),
                });
            }
            word if word.starts_with('@') => {
                return Err(ScheduleError {
                    message: format!("there is no schedule {trimmed}"),
                    hint: Some(
                        "there are @hourly @daily @midnight @weekly @monthly @yearly @annually"
                            .to_owned(),
                    ),
                });
            }
            _ => trimmed,
        };
        let words: Vec<&str> = expanded.split_ascii_whitespace().collect();
        let words = match words.len() {
            6 => words,
            5 => std::iter::once("0").chain(words).collect(),
            count => {
                return Err(ScheduleError {
                    message: format!("a schedule has five or six fields; this has {count}"),
                    hint: Some(
                        "second minute hour day-of-month month day-of-week; the second may be left out"
                            .to_owned(),
                    ),
                });
            }
        };
        let mut fields = [Field {
            values: 0,
            star: false,
        }; 6];
        for ((field, shape), word) in fields.iter_mut().zip(&SHAPES).zip(&words) {
            *field = parse_field(shape, word)?;
        }
        // 7 is Sunday, too.
        let days = &mut fields[5].values;
        if *days >> 7 & 1 == 1 {
            *days = (*days | 1) & 0x7f;
        }
        let local = enumerators(&fields)?;
        let schedule = Self { fields, local };
        if schedule
            .next_local(DateTime::UNIX_EPOCH.naive_utc())
            .is_none()
        {
            return Err(ScheduleError {
                message: format!("the schedule `{trimmed}` never fires: no such day exists"),
                hint: Some("look at day-of-month and month".to_owned()),
            });
        }
        Ok(schedule)
    }

    /// Whether it names times of the day, rather than going with the clock: neither its minute nor
    /// its hour begins with `*`.
    fn names_times(&self) -> bool {
        !self.fields[1].star && !self.fields[2].star
    }

    /// The first time it fires after an instant.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        // Where the search stands, and whether that instant itself counts.
        let mut at = after;
        let mut included = false;
        if let Some(end) = self.repeated_until(after, zone)
            && after < end
        {
            (at, included) = (end, true);
        }
        loop {
            let offset = offset(at, zone);
            let local = at.naive_utc() + offset;
            let from = match local.with_nanosecond(0) {
                Some(whole) if included && whole == local => whole,
                whole => whole.unwrap_or(local) + Duration::seconds(1),
            };
            let found = self.next_local(from)? - offset;
            let found = Utc.from_utc_datetime(&found);
            let Some(change) = next_change(at, found, zone) else {
                return Some(found);
            };
            let after_change = self::offset(change, zone);
            let size = after_change - offset;
            let fires_once = self.names_times() && size.abs() < CORRECTION;
            if size > Duration::zero() {
                let skipped = change.naive_utc() + offset;
                let until = change.naive_utc() + after_change;
                let missed = self
                    .next_local(skipped)
                    .is_some_and(|missed| missed < until);
                if fires_once && missed && (change > at || included) {
                    return Some(change);
                }
            }
            let repeated = if fires_once && size < Duration::zero() {
                -size
            } else {
                Duration::zero()
            };
            (at, included) = (change + repeated, true);
        }
    }

    /// The end of the local times that come a second time, if `at` is among them.
    fn repeated_until(&self, at: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        if !self.names_times() {
            return None;
        }
        let before = at - CORRECTION;
        let change = next_change(before, at, zone)?;
        let size = offset(change, zone) - offset(change - Duration::seconds(1), zone);
        (size < Duration::zero() && -size < CORRECTION).then(|| change - size)
    }

    /// Those of the next times, at most `count`.
    pub fn upcoming(&self, after: DateTime<Utc>, zone: Tz, count: usize) -> Vec<DateTime<Utc>> {
        let mut times = Vec::with_capacity(count);
        let mut at = after;
        while times.len() < count {
            let Some(next) = self.next_after(at, zone) else {
                break;
            };
            times.push(next);
            at = next;
        }
        times
    }

    /// What the zone's changes of the clock from `from` to `until` do to it: nothing where real
    /// elapsed time counts, or where it has no time among those that are skipped or come twice.
    pub fn clock_changes(
        &self,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        zone: Tz,
    ) -> Vec<ClockChange> {
        let mut found = Vec::new();
        let mut at = from;
        while self.names_times()
            && found.len() < MAX_CLOCK_CHANGES
            && let Some(change) = next_change(at, until, zone)
        {
            at = change;
            let (before, after) = (
                offset(change - Duration::seconds(1), zone),
                offset(change, zone),
            );
            let size = after - before;
            if size.abs() >= CORRECTION {
                continue;
            }
            let start = change.naive_utc() + before.min(after);
            let end = change.naive_utc() + before.max(after);
            let Some(local) = self.next_local(start).filter(|local| *local < end) else {
                continue;
            };
            found.push(if size > Duration::zero() {
                ClockChange::Skipped {
                    local,
                    fires: change,
                }
            } else {
                ClockChange::Twice {
                    local,
                    fires: Utc.from_utc_datetime(&(local - before)),
                }
            });
        }
        found
    }

    /// The first local time from `from` on, as if the clock never changed.
    fn next_local(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        // The crate counts in a zone, and looks after an instant; a whole second is none's half.
        let before = (from - Duration::nanoseconds(1)).and_utc();
        let next = self
            .local
            .iter()
            .filter_map(|local| local.after(&before).next());
        next.map(|at| at.naive_utc()).min()
    }

    /// Whether it can fire more than once a minute.
    pub fn is_faster_than_a_minute(&self) -> bool {
        self.fields[0].values.count_ones() > 1
    }
}

/// The fields as the crate `cron` takes them: it numbers the days of the week from 1, Sunday.
fn enumerators(fields: &[Field; 6]) -> Result<Vec<cron::Schedule>, ScheduleError> {
    let [.., days, _, weekdays] = fields;
    let either = !days.star && !weekdays.star;
    // In place of a field that is not asked.
    let without: &[Option<usize>] = if either { &[Some(3), Some(5)] } else { &[None] };
    let written = without.iter().map(|without| {
        let mut text = String::new();
        for (place, (field, shape)) in fields.iter().zip(&SHAPES).enumerate() {
            if *without == Some(place) || field.has_all(shape) {
                text.push_str("* ");
                continue;
            }
            let shift = u32::from(place == 5);
            for value in field.iter() {
                // A text cannot refuse what is written to it.
                let _ = write!(text, "{},", value + shift);
            }
            text.pop();
            text.push(' ');
        }
        cron::Schedule::from_str(&text).map_err(|refused| error(refused.to_string()))
    });
    written.collect()
}
