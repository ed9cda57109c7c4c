//! `time::*`

use std::fmt::Write;

use chrono::{
    DateTime, Datelike, SecondsFormat, TimeDelta, TimeZone, Utc,
    format::{Item, StrftimeItems},
};
use chrono_tz::Tz;
use rhai::{ImmutableString, Module};

use super::{Native, function, invalid};
use crate::limits;

functions! {
    "time" :: "now" [0], ["now() -> String"], "The time in UTC, as RFC 3339 with milliseconds.";
    "time" :: "unix_ms" [0], ["unix_ms() -> int"], "Milliseconds since 1970.";
    "time" :: "parse" [1], ["parse(text: String) -> int"], "Milliseconds since 1970 of a time in RFC 3339.";
    "time" :: "format" [2, 3], ["format(unix_ms: int, pattern: String) -> String", "format(unix_ms: int, pattern: String, zone: String) -> String"], "A time by a strftime pattern, in UTC or in an IANA zone.";
    "time" :: "add" [2], ["add(text: String, duration: String) -> String"], "A time in RFC 3339, later by a duration like `1h30m` (earlier with a `-` before it).";
}

/// Characters of a pattern.
const MAX_PATTERN: usize = 256;

pub(super) fn module() -> Module {
    let mut module = Module::new();
    function(&mut module, "now", || {
        Ok(ImmutableString::from(show(now()?)))
    });
    function(&mut module, "unix_ms", || Ok(now()?.timestamp_millis()));
    function(&mut module, "parse", |text: ImmutableString| {
        Ok(parse(&text)?.timestamp_millis())
    });
    function(
        &mut module,
        "format",
        |ms: i64, pattern: ImmutableString| format(ms, &pattern, "UTC"),
    );
    function(
        &mut module,
        "format",
        |ms: i64, pattern: ImmutableString, zone: ImmutableString| format(ms, &pattern, &zone),
    );
    function(
        &mut module,
        "add",
        |text: ImmutableString, by: ImmutableString| add(&text, &by),
    );
    module
}

fn now() -> Native<DateTime<Utc>> {
    limits::with(|state| state.clock.now()).ok_or_else(|| invalid("there is no run on this thread"))
}

fn show(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn parse(text: &str) -> Native<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .map(|at| at.with_timezone(&Utc))
        .map_err(|error| invalid(format!("{text:?} is no time of RFC 3339: {error}")))
}

fn format(ms: i64, pattern: &str, zone: &str) -> Native<ImmutableString> {
    let zone: Tz = zone
        .parse()
        .map_err(|_| invalid(format!("there is no time zone {zone:?}")))?;
    let at = zone
        .timestamp_millis_opt(ms)
        .single()
        .ok_or_else(|| invalid("the time is beyond the calendar"))?;
    if pattern.len() > MAX_PATTERN {
        return Err(invalid(format!(
            "a pattern has at most {MAX_PATTERN} characters"
        )));
    }
    let items: Vec<Item<'_>> = StrftimeItems::new(pattern).collect();
    if items.contains(&Item::Error) {
        return Err(invalid(format!("{pattern:?} is no strftime pattern")));
    }
    let mut text = String::new();
    write!(text, "{}", at.format_with_items(items.iter()))
        .map_err(|_| invalid(format!("{pattern:?} cannot be written for this time")))?;
    Ok(text.into())
}

fn add(text: &str, by: &str) -> Native<ImmutableString> {
    let at = parse(text)?;
    let (sign, length) = match by.strip_prefix('-') {
        Some(length) => (-1, length),
        None => (1, by),
    };
    let delta = picloud_shared::duration::milliseconds(length)
        .and_then(|ms| i64::try_from(ms).ok())
        .and_then(|ms| TimeDelta::try_milliseconds(sign * ms))
        .ok_or_else(|| invalid(format!("{by:?} is no duration like \"1h30m\"")))?;
    let sum = at
        .checked_add_signed(delta)
        // RFC 3339 has years of four digits.
        .filter(|sum| (0..=9_999).contains(&sum.year()))
        .ok_or_else(|| invalid("the time is beyond the calendar"))?;
    Ok(show(sum).into())
}
