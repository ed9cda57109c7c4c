//! Schedules in plain English.

use super::{
    Schedule,
    field::{Field, SHAPES, Shape},
};

/// Times of a day that are listed each; above it they are described.
const MAX_TIMES: u32 = 4;

impl Schedule {
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
