//! `picloud runs`

use anyhow::Result;
use serde_json::Value;

use super::{Ending, age_of, print, print_json, text, wait};
use crate::{
    cli::{Format, RunsArgs},
    client::Client,
    terminal::{Style, Table, milliseconds},
};

/// Lists runs, newest first; with `--follow` those that come, as they end.
pub fn run(args: &RunsArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let mut path = format!("/runs?limit={}", args.limit);
    for (name, value) in filters(args) {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", crate::url_encode(value)));
        }
    }
    let json = args.remote.format == Format::Json;
    let page = wait(client.get(&path))?;
    match (json, args.follow) {
        (true, false) => print_json(&page)?,
        (true, true) => {}
        (false, follow) => print(&human(&page, Style::stdout(), follow))?,
    }
    if !args.follow {
        return Ok(Ending::Done);
    }
    let path = match &args.app {
        Some(app) => format!("/events?app={}", crate::url_encode(app)),
        None => "/events".to_owned(),
    };
    let take = |name: &str, data: &Value| {
        let wanted = filters(args)
            .iter()
            .all(|(field, value)| value.is_none_or(|value| data[*field] == *value));
        match (name == "run" && wanted, json) {
            (false, _) => Ok(()),
            (true, true) => print(&format!("{data}\n")),
            (true, false) => print(&line(data, Style::stdout())),
        }
    };
    wait(client.follow(&path, || {}, take))?;
    Ok(Ending::Done)
}

fn filters(args: &RunsArgs) -> [(&'static str, Option<&String>); 4] {
    [
        ("app", args.app.as_ref()),
        ("status", args.status.as_ref()),
        ("kind", args.kind.as_ref()),
        ("trigger", args.trigger.as_ref()),
    ]
}

/// One run as it ends.
fn line(data: &Value, style: Style) -> String {
    let took = data["duration_ms"]
        .as_f64()
        .map_or_else(String::new, milliseconds);
    let error = text(data, "error");
    format!(
        "{}  {}  {}/{}  {}  {took}  {}\n",
        style.dim(&text(data, "id")),
        style.status(&text(data, "status")),
        text(data, "app"),
        text(data, "script"),
        text(data, "kind"),
        error.lines().next().unwrap_or_default()
    )
}

fn human(page: &Value, style: Style, follow: bool) -> String {
    let mut table = Table::new(&[
        "RUN", "STATUS", "APP", "SCRIPT", "KIND", "TOOK", "AGE", "ERROR",
    ]);
    let mut items: Vec<&Value> = page["items"].as_array().into_iter().flatten().collect();
    if follow {
        // What comes next stands below.
        items.reverse();
    }
    for item in items {
        let error = text(&item["error"], "message");
        table.row(vec![
            text(item, "id"),
            text(item, "status"),
            text(item, "app"),
            text(item, "script"),
            text(item, "kind"),
            item["duration_ms"]
                .as_f64()
                .map_or_else(String::new, milliseconds),
            age_of(item, "started_at"),
            error.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    if table.is_empty() {
        return "No runs yet.\n".to_owned();
    }
    table.render(style)
}
