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
