//! The next times of many schedules: reads `SCHEDULE<tab>ZONE<tab>FROM` a line, writes the next
//! three times, with a blank between. For `scripts/compare-schedules.py`, which holds them against
//! another implementation.

use std::io::{BufRead, Write};

use chrono::{DateTime, SecondsFormat};
use chrono_tz::Tz;
use picloud_gitops_core::schedule::Schedule;

fn answer(line: &str) -> Option<String> {
    let mut parts = line.split('\t');
    let schedule = match Schedule::parse(parts.next()?) {
        Ok(schedule) => schedule,
        Err(error) => return Some(format!("error: {error}")),
    };
    let zone: Tz = parts.next()?.parse().ok()?;
    let from = DateTime::parse_from_rfc3339(parts.next()?).ok()?.to_utc();
    let times: Vec<String> = schedule
        .upcoming(from, zone, 3)
        .iter()
        .map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
        .collect();
    Some(times.join(" "))
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = answer(&line).unwrap_or_else(|| "error: the line is none".to_owned());
        writeln!(out, "{answer}")?;
    }
    out.flush()
}
