//! `picloud history`

use anyhow::Result;
use serde_json::Value;

use super::{Ending, age_of, print, print_json, short, text, wait};
use crate::{
    cli::{Format, HistoryArgs},
    client::Client,
    terminal::{Style, Table, milliseconds},
};

/// Lists deployments, newest first.
pub fn run(args: &HistoryArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let mut path = format!("/deployments?limit={}", args.limit);
    if let Some(source) = &args.source {
        path.push_str("&source=");
        path.push_str(&crate::url_encode(source));
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
        "COMMIT", "STATUS", "SOURCE", "CHANGES", "ERRORS", "TOOK", "AGE", "MESSAGE",
    ]);
    for item in page["items"].as_array().into_iter().flatten() {
        let count = |field: &str| item[field].as_array().map_or(0, Vec::len).to_string();
        let message = text(item, "message");
        table.row(vec![
            short(&text(item, "commit")),
            text(item, "status"),
            text(item, "source"),
            count("changes"),
            count("errors"),
            item["duration_ms"]
                .as_f64()
                .map_or_else(String::new, milliseconds),
            age_of(item, "started_at"),
            message.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    if table.is_empty() {
        return "No deployments yet.\n".to_owned();
    }
    table.render(style)
}
