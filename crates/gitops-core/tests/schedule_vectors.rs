//! Schedules held against `cronsim`, an independent implementation of Debian cron's rules: what
//! `scripts/compare-schedules.py` wrote of cases in reach of changes of the clock.

use chrono::{DateTime, TimeDelta};
use chrono_tz::Tz;
use picloud_gitops_core::schedule::Schedule;

#[test]
fn schedules_fire_when_cronsim_says() {
    let mut count = 0;
    for line in include_str!("schedule_vectors.tsv").lines() {
        let [expression, zone, from, minutes]: [&str; 4] = line
            .split('\t')
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_else(|_| panic!("four columns: {line}"));
        let schedule = Schedule::parse(expression).expect(line);
        let zone: Tz = zone.parse().expect(line);
        let seconds: i64 = from.parse().expect(line);
        let from = DateTime::from_timestamp(seconds, 0).expect(line);
        // From one time to the next; the first from the start, which may lie within a minute.
        let mut at = from;
        let expected: Vec<_> = minutes
            .split(' ')
            .map(|minutes| {
                at += TimeDelta::minutes(minutes.parse().expect(line));
                at -= TimeDelta::seconds(at.timestamp().rem_euclid(60));
                at
            })
            .collect();
        assert_eq!(schedule.upcoming(from, zone, 3), expected, "{line}");
        count += 1;
    }
    assert!(count >= 2_000, "{count} cases");
}
