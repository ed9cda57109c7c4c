//! Cron schedules: six fields (or five) with the meaning of crontab(5), and daylight saving as
//! Debian's cron has it. Pure: given an instant, the next one follows.

use std::fmt;

use chrono::{
    DateTime, Datelike, Days, Duration, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone,
    Timelike, Utc,
};
use chrono_tz::Tz;

/// A change of the clock of this size or more is a correction, and nothing is made up for it.
const CORRECTION: Duration = Duration::hours(3);
/// Two changes of a zone's offset are further apart than this.
const PROBE: Duration = Duration::hours(12);
/// A schedule that doesn't fire in so many years never does: 29 February falls on a given day of
/// the week at least once in 40.
const HORIZON_YEARS: i32 = 41;

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Changes of the clock that are told: two a year are usual.
const MAX_CLOCK_CHANGES: usize = 4;

/// One field's name, bounds and words.
struct Shape {
    name: &'static str,
    min: u32,
    max: u32,
    words: &'static [&'static str],
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "second",
        min: 0,
        max: 59,
        words: &[],
    },
    Shape {
        name: "minute",
        min: 0,
        max: 59,
        words: &[],
    },
    Shape {
        name: "hour",
        min: 0,
        max: 23,
        words: &[],
    },
    Shape {
        name: "day-of-month",
        min: 1,
        max: 31,
        words: &[],
    },
    Shape {
        name: "month",
        min: 1,
        max: 12,
        words: &MONTHS,
    },
    Shape {
        name: "day-of-week",
        min: 0,
        max: 7,
        words: &DAYS,
    },
];

/// What one field allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// Bit n: n is allowed.
    values: u64,
    /// Whether it begins with `*`, and so counts as unrestricted.
    star: bool,
}

impl Field {
    fn has(self, value: u32) -> bool {
        self.values >> value & 1 == 1
    }

    /// The first allowed value from `value` on.
    fn from(self, value: u32) -> Option<u32> {
        let rest = self.values.checked_shr(value).unwrap_or(0);
        (rest != 0).then(|| value + rest.trailing_zeros())
    }
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    fields: [Field; 6],
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
        let schedule = Self { fields };
        let start = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default();
        if schedule.next_day(start).is_none() {
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
        let today = self.next_day(from.date())?;
        if today == from.date()
            && let Some(time) = self.next_time(from.time())
        {
            return Some(today.and_time(time));
        }
        let day = if today == from.date() {
            self.next_day(today.checked_add_days(Days::new(1))?)?
        } else {
            today
        };
        Some(day.and_time(self.next_time(NaiveTime::MIN)?))
    }

    /// The first allowed time of a day from `from` on.
    fn next_time(&self, from: NaiveTime) -> Option<NaiveTime> {
        let [seconds, minutes, hours, ..] = self.fields;
        let mut hour = hours.from(from.hour())?;
        let (mut minute, mut second) = if hour == from.hour() {
            (from.minute(), from.second())
        } else {
            (0, 0)
        };
        loop {
            if let Some(found) = minutes.from(minute) {
                if found > minute {
                    second = 0;
                }
                if let Some(second) = seconds.from(second) {
                    return NaiveTime::from_hms_opt(hour, found, second);
                }
                (minute, second) = (found + 1, 0);
            } else {
                hour = hours.from(hour + 1)?;
                (minute, second) = (0, 0);
            }
        }
    }

    /// The first allowed day from `from` on.
    fn next_day(&self, from: NaiveDate) -> Option<NaiveDate> {
        let [.., days, months, weekdays] = self.fields;
        let mut day = from;
        while day.year() - from.year() <= HORIZON_YEARS {
            if !months.has(day.month()) {
                let (year, month) = match months.from(day.month() + 1) {
                    Some(month) => (day.year(), month),
                    None => (day.year() + 1, months.from(1)?),
                };
                day = NaiveDate::from_ymd_opt(year, month, 1)?;
                continue;
            }
            let of_month = days.has(day.day());
            let of_week = weekdays.has(day.weekday().num_days_from_sunday());
            let matches = if days.star || weekdays.star {
                of_month && of_week
            } else {
                of_month || of_week
            };
            if matches {
                return Some(day);
            }
            day = day.succ_opt()?;
        }
        None
    }

    /// The schedule in words.
    pub fn in_words(&self) -> String {
        let [_, _, _, days, months, weekdays] = self.fields;
        let all = |field: Field, shape: usize| field.has_all(&SHAPES[shape]);
        let list = |field: Field, shape: usize| ranges(field, &SHAPES[shape]);
        let mut text = self.times_in_words();
        let of_month = (!all(days, 3)).then(|| format!("day {} of the month", list(days, 3)));
        let of_week = (!all(weekdays, 5)).then(|| list(weekdays, 5));
        let either = !days.star && !weekdays.star;
        match (of_month, of_week) {
            (Some(month), Some(week)) if either => {
                text.push_str(&format!(" on {month} or on {week}"));
            }
            (Some(month), Some(week)) => text.push_str(&format!(" on {month} if it is {week}")),
            (Some(one), None) | (None, Some(one)) => text.push_str(&format!(" on {one}")),
            (None, None) => {}
        }
        if !all(months, 4) {
            text.push_str(&format!(" in {}", list(months, 4)));
        }
        text
    }

    /// The times of a day in words.
    fn times_in_words(&self) -> String {
        let [seconds, minutes, hours, ..] = self.fields;
        let second = match seconds.single() {
            Some(0) => String::new(),
            Some(second) => format!(":{second:02}"),
            None => return self.seconds_in_words(),
        };
        let at = |hour: u32, minute: u32| format!("{hour:02}:{minute:02}{second}");
        if minutes.count() * hours.count() <= MAX_TIMES {
            let times = hours
                .iter()
                .flat_map(|hour| minutes.iter().map(move |minute| (hour, minute)));
            return format!("at {}", and(times.map(|(hour, minute)| at(hour, minute))));
        }
        let exactly = if second.is_empty() {
            String::new()
        } else {
            format!(" at second {}", &second[1..])
        };
        match (minutes.single(), minutes.step(&SHAPES[1])) {
            (Some(minute), _) => {
                let place = if minute == 0 && second.is_empty() {
                    String::new()
                } else {
                    format!(" at minute {minute}{second}")
                };
                if hours.has_all(&SHAPES[2]) {
                    // `each hour` alone would leave open when.
                    return match second.strip_prefix(':') {
                        Some(second) => format!("each hour at minute {minute}, second {second}"),
                        None => format!("each hour at minute {minute}"),
                    };
                }
                match (hours.step(&SHAPES[2]), hours.range()) {
                    (Some(step), _) => format!("every {step} hours{place}"),
                    (None, Some((first, last))) => {
                        format!(
                            "each hour from {} to {}",
                            at(first, minute),
                            at(last, minute)
                        )
                    }
                    (None, None) => format!(
                        "at minute {minute}{second} of hour {}",
                        ranges(hours, &SHAPES[2])
                    ),
                }
            }
            (None, step) => {
                let often = match step {
                    Some(1) => format!("each minute{exactly}"),
                    // It begins anew with each hour.
                    Some(step) if 60 % step != 0 => {
                        format!("every {step} minutes of the hour{exactly}")
                    }
                    Some(step) => format!("every {step} minutes{exactly}"),
                    None => format!("at minute {}{exactly}", ranges(minutes, &SHAPES[1])),
                };
                format!("{often}{}", hours_in_words(hours))
            }
        }
    }

    /// Of a schedule that fires at several seconds of a minute.
    fn seconds_in_words(&self) -> String {
        let [seconds, minutes, hours, ..] = self.fields;
        let mut often = match seconds.step(&SHAPES[0]) {
            Some(1) => "each second".to_owned(),
            Some(step) if 60 % step != 0 => format!("every {step} seconds of the minute"),
            Some(step) => format!("every {step} seconds"),
            None => format!("at second {}", ranges(seconds, &SHAPES[0])),
        };
        if !minutes.has_all(&SHAPES[1]) {
            often.push_str(&format!(" of minute {}", ranges(minutes, &SHAPES[1])));
        }
        often + &hours_in_words(hours)
    }

    /// Whether it can fire more than once a minute.
    pub fn is_faster_than_a_minute(&self) -> bool {
        self.fields[0].values.count_ones() > 1
    }
}

/// Times of a day that are listed each; above it they are described.
const MAX_TIMES: u32 = 4;

impl Field {
    fn count(self) -> u32 {
        self.values.count_ones()
    }

    fn iter(self) -> impl Iterator<Item = u32> + Clone {
        (0..u64::BITS).filter(move |value| self.has(*value))
    }

    fn single(self) -> Option<u32> {
        self.values
            .is_power_of_two()
            .then(|| self.values.trailing_zeros())
    }

    fn has_all(self, shape: &Shape) -> bool {
        let max = if shape.max == 7 { 6 } else { shape.max };
        (shape.min..=max).all(|value| self.has(value))
    }

    /// Every so many, from 0 to the end; 1 where it has all.
    fn step(self, shape: &Shape) -> Option<u32> {
        let step = self.iter().nth(1)?;
        let all = (0..=shape.max).step_by(step as usize);
        self.iter().eq(all).then_some(step)
    }

    /// The first and the last, where all between them are there, too.
    fn range(self) -> Option<(u32, u32)> {
        let (first, last) = (self.iter().next()?, self.iter().last()?);
        (last - first + 1 == self.count()).then_some((first, last))
    }
}

/// ` from 09:00 to 17:59`, as far as not all hours are meant.
fn hours_in_words(hours: Field) -> String {
    if hours.has_all(&SHAPES[2]) {
        return String::new();
    }
    match hours.range() {
        Some((first, last)) => format!(" from {first:02}:00 to {last:02}:59"),
        None => format!(" of hour {}", ranges(hours, &SHAPES[2])),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn and(parts: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    if parts.is_empty() {
        return last;
    }
    format!("{} and {last}", parts.join(", "))
}

/// `1, 3-5`, or words where the field has them.
fn ranges(field: Field, shape: &Shape) -> String {
    let word = |value: u32| match shape.words.get((value - shape.min) as usize) {
        Some(word) => {
            let (first, rest) = word.split_at(1);
            format!("{first}{}", rest.to_lowercase())
        }
        None => value.to_string(),
    };
    let mut parts = Vec::new();
    let mut value = shape.min;
    while value <= shape.max {
        if !field.has(value) {
            value += 1;
            continue;
        }
        let first = value;
        while value < shape.max && field.has(value + 1) {
            value += 1;
        }
        parts.push(match value - first {
            0 => word(first),
            1 => format!("{}, {}", word(first), word(value)),
            _ => format!("{} to {}", word(first), word(value)),
        });
        value += 1;
    }
    parts.join(", ")
}

fn parse_field(shape: &Shape, text: &str) -> Result<Field, ScheduleError> {
    let mut field = Field {
        values: 0,
        star: text.starts_with('*'),
    };
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let good = step
                    .parse::<u32>()
                    .ok()
                    .filter(|step| *step > 0 && !step.to_string().is_empty());
                let good = good.filter(|_| step.bytes().all(|b| b.is_ascii_digit()));
                let step = good.ok_or_else(|| {
                    error(format!(
                        "{}: `{step}` is no step; write a number from 1 on",
                        shape.name
                    ))
                })?;
                (range, Some(step))
            }
            None => (part, None),
        };
        let (first, last) = if range == "*" {
            (shape.min, shape.max)
        } else if let Some((first, last)) = range.split_once('-') {
            let (first, last) = (value(shape, first)?, value(shape, last)?);
            if first > last {
                return Err(ScheduleError {
                    message: format!("{}: the range `{range}` is reversed", shape.name),
                    hint: Some("write it as two ranges, with a comma between".to_owned()),
                });
            }
            (first, last)
        } else {
            let first = value(shape, range)?;
            // With a step, from there to the end.
            (first, if step.is_some() { shape.max } else { first })
        };
        // Each day of the week once: 7 is the same as 0.
        let last = if range == "*" && shape.max == 7 {
            6
        } else {
            last
        };
        let mut at = first;
        while at <= last {
            field.values |= 1 << at;
            at = at.saturating_add(step.unwrap_or(1));
        }
    }
    Ok(field)
}

fn value(shape: &Shape, text: &str) -> Result<u32, ScheduleError> {
    let upper = text.to_ascii_uppercase();
    if let Some(word) = shape.words.iter().position(|word| *word == upper) {
        return Ok(shape.min + u32::try_from(word).unwrap_or(0));
    }
    let number = text
        .parse()
        .ok()
        .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        .filter(|number| (shape.min..=shape.max).contains(number));
    number.ok_or_else(|| {
        let words = match (shape.words.first(), shape.words.last()) {
            (Some(first), Some(last)) => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        let shown = if text.is_empty() { "nothing" } else { text };
        error(format!(
            "{}: `{shown}` is not from {} to {}{words}",
            shape.name, shape.min, shape.max
        ))
    })
}

fn offset(at: DateTime<Utc>, zone: Tz) -> Duration {
    let seconds = zone
        .offset_from_utc_datetime(&at.naive_utc())
        .fix()
        .local_minus_utc();
    Duration::seconds(seconds.into())
}

/// The first instant after `from`, up to and including `until`, at which the zone's offset changes.
fn next_change(from: DateTime<Utc>, until: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(text).expect(text);
        let zone: Tz = zone.parse().expect("a zone");
        let from = DateTime::parse_from_rfc3339(from).expect("a time").to_utc();
        schedule
            .upcoming(from, zone, count)
            .iter()
            .map(|at| at.with_timezone(&zone).to_rfc3339())
            .collect()
    }

    #[test]
    fn fields_mean_what_crontab_says() {
        let from = "2026-01-01T00:00:00Z"; // a Thursday
        assert_eq!(
            times("0 9 * * MON-FRI", "UTC", from, 2),
            ["2026-01-01T09:00:00+00:00", "2026-01-02T09:00:00+00:00"]
        );
        assert_eq!(
            times("0 0 9 * * 1-5", "UTC", "2026-01-02T10:00:00Z", 1),
            ["2026-01-05T09:00:00+00:00"]
        );
        assert_eq!(
            times("0 0 * * 7", "UTC", from, 1),
            times("0 0 * * 0", "UTC", from, 1)
        );
        assert_eq!(
            times("0 0 13 * 5", "UTC", from, 3),
            [
                "2026-01-02T00:00:00+00:00",
                "2026-01-09T00:00:00+00:00",
                "2026-01-13T00:00:00+00:00"
            ],
            "either day"
        );
        assert_eq!(
            times("0 0 13 * */5", "UTC", from, 1),
            ["2026-02-13T00:00:00+00:00"],
            "a star is no restriction"
        );
        assert_eq!(
            times("*/20 * * * * *", "UTC", from, 3),
            [
                "2026-01-01T00:00:20+00:00",
                "2026-01-01T00:00:40+00:00",
                "2026-01-01T00:01:00+00:00"
            ]
        );
        assert_eq!(
            times("0 0 29 2 *", "UTC", from, 1),
            ["2028-02-29T00:00:00+00:00"]
        );
        assert_eq!(
            times("5/20 * * * *", "UTC", from, 2),
            ["2026-01-01T00:05:00+00:00", "2026-01-01T00:25:00+00:00"]
        );
    }

    #[test]
    fn what_is_skipped_in_spring_fires_once_after_the_gap() {
        let from = "2026-03-28T12:00:00Z";
        let zone = "Europe/Berlin";
        assert_eq!(
            times("30 2 * * *", zone, from, 2),
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
        );
        assert_eq!(
            times("0,15,30 2 * * *", zone, from, 2),
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]
        );
        assert_eq!(
            times("0 2,3 * * *", zone, from, 2),
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]
        );
        assert_eq!(
            times("*/30 * * * *", zone, "2026-03-29T00:29:00Z", 3),
            [
                "2026-03-29T01:30:00+01:00",
                "2026-03-29T03:00:00+02:00",
                "2026-03-29T03:30:00+02:00"
            ]
        );
        // A day that a zone left out is a correction of the clock.
        assert_eq!(
            times("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 1),
            ["2012-12-30T12:00:00+14:00"]
        );
    }

    #[test]
    fn what_comes_twice_in_autumn_fires_once_unless_it_goes_with_the_clock() {
        let from = "2026-10-24T12:00:00Z";
        let zone = "Europe/Berlin";
        assert_eq!(
            times("30 2 * * *", zone, from, 2),
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
        );
        assert_eq!(
            times("30 2 * * *", zone, "2026-10-25T00:45:00Z", 1),
            ["2026-10-26T02:30:00+01:00"],
            "asked between the two"
        );
        assert_eq!(
            times("30 2 * * *", zone, "2026-10-25T01:10:00Z", 1),
            ["2026-10-26T02:30:00+01:00"],
            "asked in the second pass"
        );
        assert_eq!(
            times("30 * * * *", zone, "2026-10-25T00:00:00Z", 3),
            [
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T02:30:00+01:00",
                "2026-10-25T03:30:00+01:00"
            ]
        );
        assert_eq!(
            times("0 3 * * *", zone, "2026-10-25T00:30:00Z", 1),
            ["2026-10-25T03:00:00+01:00"]
        );
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        let cases = [
            ("60 * * * * *", "second"),
            ("* 60 * * * *", "minute"),
            ("* * 24 * * *", "hour"),
            ("0 0 0 0 * *", "day-of-month"),
            ("0 0 0 * 13 *", "month"),
            ("0 0 0 * * 8", "day-of-week"),
            ("0 0 0 * * FUN", "day-of-week"),
            ("0 0 0 5-1 * *", "reversed"),
            ("*/0 * * * *", "minute"),
            ("* * * *", "fields"),
            ("@reboot", "@reboot"),
            ("@often", "@often"),
            ("0 0 0 30 2 *", "never"),
            ("0 0 0 31 4,6 *", "never"),
            ("", "fields"),
            ("1,,2 * * * *", "minute"),
            ("+5 * * * *", "minute"),
            ("0 0 ? * *", "day-of-month"),
            ("0 0 L * *", "day-of-month"),
            ("0 0 * * 1#2", "day-of-week"),
        ];
        for (text, part) in cases {
            let message = Schedule::parse(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_schedule_is_told_in_words() {
        let words = |text: &str| Schedule::parse(text).expect(text).in_words();
        assert_eq!(words("0 9 * * MON-FRI"), "at 09:00 on Mon to Fri");
        assert_eq!(words("*/5 * * * *"), "every 5 minutes");
        assert_eq!(words("*/7 * * * *"), "every 7 minutes of the hour");
        assert_eq!(
            words("*/15 8-17 * * MON-FRI"),
            "every 15 minutes from 08:00 to 17:59 on Mon to Fri"
        );
        assert_eq!(words("0 */2 * * *"), "every 2 hours");
        assert_eq!(words("10 */6 * * *"), "at 00:10, 06:10, 12:10 and 18:10");
        assert_eq!(words("15 9-17 * * *"), "each hour from 09:15 to 17:15");
        assert_eq!(words("0,30 9 * * *"), "at 09:00 and 09:30");
        assert_eq!(words("5,10 * * * *"), "at minute 5, 10");
        assert_eq!(words("*/10 * * * * *"), "every 10 seconds");
        assert_eq!(words("30 * * * * *"), "each minute at second 30");
        assert_eq!(words("30 5 * * * *"), "each hour at minute 5, second 30");
        assert_eq!(
            words("0 1,3,5,7,11 * * *"),
            "at minute 0 of hour 1, 3, 5, 7, 11"
        );
        assert_eq!(words("@hourly"), "each hour at minute 0");
        assert_eq!(words("* * * * *"), "each minute");
        assert_eq!(words("0 0 1 1 *"), "at 00:00 on day 1 of the month in Jan");
    }
}
