//! `picloud triggers`

use anyhow::Result;
use chrono::SecondsFormat;
use chrono_tz::Tz;
use picloud_gitops_core::schedule::Schedule;
use picloud_shared::{Clock, SystemClock};
use serde_json::{Value, json};

use super::{Ending, print, print_json, text, wait};
use crate::{
    cli::{Format, TriggersArgs},
    client::Client,
    terminal::{Style, Table},
};

/// Lists the triggers of all apps, with their next fire times.
pub fn run(args: &TriggersArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let items = wait(all(&client, args))?;
    if args.remote.format == Format::Json {
        print_json(&json!({ "items": items }))?;
    } else {
        print(&human(&items, Style::stdout()))?;
    }
    Ok(Ending::Done)
}

async fn all(client: &Client, args: &TriggersArgs) -> Result<Vec<Value>> {
    let apps = match &args.app {
        Some(app) => vec![app.clone()],
        None => names(client).await?,
    };
    let mut items = Vec::new();
    for app in apps {
        let mut cursor = String::new();
        loop {
            let path = format!(
                "/apps/{}/triggers?limit=200{cursor}",
                crate::url_encode(&app)
            );
            let page = client.get(&path).await?;
            for trigger in page["items"].as_array().into_iter().flatten() {
                let mut trigger = trigger.clone();
                trigger["app"] = json!(app);
                trigger["next_fire_times"] = json!(next(&trigger, args.next as usize));
                items.push(trigger);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={}", crate::url_encode(next)),
                None => break,
            }
        }
    }
    Ok(items)
}

async fn names(client: &Client) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/apps?limit=200{cursor}")).await?;
        let items = page["items"].as_array().into_iter().flatten();
        names.extend(items.filter_map(|app| app["name"].as_str().map(str::to_owned)));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", crate::url_encode(next)),
            None => return Ok(names),
        }
    }
}

/// The next times of a cron trigger that is switched on, in its zone.
fn next(trigger: &Value, count: usize) -> Vec<String> {
    let field = |name: &str| trigger[name].as_str();
    let parsed = field("schedule")
        .and_then(|text| Schedule::parse(text).ok())
        .zip(field("timezone").unwrap_or("UTC").parse::<Tz>().ok());
    match parsed {
        Some((schedule, zone)) if trigger["enabled"] != false => schedule
            .upcoming(SystemClock.now(), zone, count)
            .iter()
            .map(|at| {
                at.with_timezone(&zone)
                    .to_rfc3339_opts(SecondsFormat::Secs, false)
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn human(items: &[Value], style: Style) -> String {
    let mut table = Table::new(&["APP", "TRIGGER", "KIND", "SCRIPT", "WHEN", "NEXT"]);
    for item in items {
        let when = match item["kind"].as_str() {
            Some("cron") => format!("{} {}", text(item, "schedule"), text(item, "timezone")),
            Some("dead_letter") => text(item, "source_kind"),
            _ => text(item, "collection"),
        };
        let off = item["enabled"] == false;
        let mut times = item["next_fire_times"].as_array().into_iter().flatten();
        let first = times.next().and_then(Value::as_str).unwrap_or_default();
        table.row(vec![
            text(item, "app"),
            text(item, "name"),
            text(item, "kind"),
            text(item, "script"),
            when,
            if off { "off" } else { first }.to_owned(),
        ]);
        for time in times.filter_map(Value::as_str) {
            let mut row = vec![String::new(); 5];
            row.push(time.to_owned());
            table.row(row);
        }
    }
    if table.is_empty() {
        return "No triggers.\n".to_owned();
    }
    table.render(style)
}
