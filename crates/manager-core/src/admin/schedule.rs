//! What a schedule means, before anything is made of it: for forms that check as one writes.

use axum::{
    Json,
    extract::{Query, State},
};
use chrono::SecondsFormat;
use chrono_tz::Tz;
use picloud_gitops_core::schedule::Schedule;
use serde::Deserialize;
use serde_json::json;

use super::{
    AdminState,
    access::{AppView, Authorized},
    answer::{Answer, Problem},
};

/// Times that are told at most, and where nobody says how many.
const MOST: usize = 50;
const USUAL: usize = 5;

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    expression: String,
    timezone: Option<String>,
    n: Option<String>,
}

pub(super) async fn show(
    State(state): State<AdminState>,
    _: Authorized<AppView>,
    Query(asked): Query<Asked>,
) -> Answer {
    let schedule = Schedule::parse(&asked.expression)
        .map_err(|error| Problem::invalid(error.to_string()).at("expression"))?;
    let zone = asked.timezone.as_deref().unwrap_or("UTC").trim();
    let zone: Tz = zone.parse().map_err(|_| {
        Problem::invalid(format!(
            "there is no time zone `{zone}`; the names are IANA's, like Europe/Zurich"
        ))
        .at("timezone")
    })?;
    let count = match asked.n.as_deref().map(str::parse::<usize>) {
        None => USUAL,
        Some(Ok(count)) if (1..=MOST).contains(&count) => count,
        Some(_) => {
            let words = format!("n must be a whole number from 1 to {MOST}");
            return Err(Problem::invalid(words).at("n"));
        }
    };
    let times: Vec<String> = schedule
        .upcoming(state.clock.now(), zone, count)
        .iter()
        .map(|at| {
            at.with_timezone(&zone)
                .to_rfc3339_opts(SecondsFormat::Secs, false)
        })
        .collect();
    Ok(Json(json!({
        "words": schedule.in_words(),
        "timezone": zone.name(),
        "times": times,
        "often": schedule.is_faster_than_a_minute(),
    })))
}
