//! The fields of a schedule, as crontab(5) has them.

use super::{ScheduleError, error};

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// One field's name, bounds and words.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) words: &'static [&'static str],
}

/// In their order.
pub(super) const SHAPES: [Shape; 6] = [
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
pub(super) struct Field {
    /// Bit n: n is allowed.
    pub(super) values: u64,
    /// Whether it begins with `*`, and so counts as unrestricted.
    pub(super) star: bool,
}

impl Field {
    pub(super) fn has(self, value: u32) -> bool {
        self.values >> value & 1 == 1
    }

    pub(super) fn count(self) -> u32 {
        self.values.count_ones()
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u32> + Clone {
        (0..u64::BITS).filter(move |value| self.has(*value))
    }

    pub(super) fn single(self) -> Option<u32> {
        self.values
            .is_power_of_two()
            .then(|| self.values.trailing_zeros())
    }

    pub(super) fn has_all(self, shape: &Shape) -> bool {
        let max = if shape.max == 7 { 6 } else { shape.max };
        (shape.min..=max).all(|value| self.has(value))
    }

    /// Every so many, from 0 to the end; 1 where it has all.
    pub(super) fn step(self, shape: &Shape) -> Option<u32> {
        let step = self.iter().nth(1)?;
        let all = (0..=shape.max).step_by(step as usize);
        self.iter().eq(all).then_some(step)
    }

    /// The first and the last, where all between them are there, too.
    pub(super) fn range(self) -> Option<(u32, u32)> {
        let (first, last) = (self.iter().next()?, self.iter().last()?);
        (last - first + 1 == self.count()).then_some((first, last))
    }
}

/// Reads a field.
pub(super) fn parse_field(shape: &Shape, text: &str) -> Result<Field, ScheduleError> {
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
