//! `picloud runs`

use anyhow::Result;
use serde_json::Value;

use super::{Ending, age_of, print, print_json, text, wait};
use crate::{
    cli::{Format, RunsArgs},
    client::Client,
    terminal::{Style, Table, milliseconds},
};

/// Lists runs, newest first.
pub fn run(args: &RunsArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let mut path = format!("/runs?limit={}", args.limit);
    let filters = [
        ("app", &args.app),
        ("status", &args.status),
        ("kind", &args.kind),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", crate::url_encode(value)));
        }
    }
    let page = wait(client.get(&path))?;
    if args.remote.format == Format::Json {
        print_json(&page)?;
    } else {
        print(&human(&page, Style::stdout()))?;
    }
    Ok(Ending::Done)
}

fn human(page: &Value, style: Style) -> String {
    let mut table = Table::new(&[
        "RUN", "STATUS", "APP", "SCRIPT", "KIND", "TOOK", "AGE", "ERROR",
    ]);
    for item in page["items"].as_array().into_iter().flatten() {
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
