//! `picloud schedule`

use anyhow::{Result, anyhow};
use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use picloud_gitops_core::schedule::Schedule;
use picloud_shared::{Clock, SystemClock};
use serde_json::json;

use super::{Ending, print, print_json};
use crate::cli::{Format, ScheduleArgs};

/// Shows when a schedule fires.
pub fn run(args: &ScheduleArgs) -> Result<Ending> {
    let schedule = Schedule::parse(&args.expression).map_err(|error| anyhow!("{error}"))?;
    let zone: Tz = args.timezone.parse().map_err(|_| {
        anyhow!(
            "there is no time zone {:?}; write an IANA name like Europe/Berlin",
            args.timezone
        )
    })?;
    let from: DateTime<Utc> = match &args.from {
        Some(text) => DateTime::parse_from_rfc3339(text)
            .map_err(|error| anyhow!("--from {text:?} is no time of RFC 3339: {error}"))?
            .to_utc(),
        None => SystemClock.now(),
    };
    let times: Vec<String> = schedule
        .upcoming(from, zone, args.next as usize)
        .iter()
        .map(|at| {
            at.with_timezone(&zone)
                .to_rfc3339_opts(SecondsFormat::Secs, false)
        })
        .collect();
    if args.format == Format::Json {
        print_json(&json!({
            "schedule": args.expression, "timezone": zone.name(), "words": schedule.in_words(), "times": times,
        }))?;
    } else {
        print(
            &times
                .iter()
                .map(|time| format!("{time}\n"))
                .collect::<String>(),
        )?;
    }
    Ok(Ending::Done)
}
