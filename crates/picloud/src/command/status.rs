//! `picloud status`

use anyhow::Result;
use serde_json::{Value, json};

use super::{Ending, print, print_json, short, sources, text, wait};
use crate::{
    cli::{Format, RemoteArgs},
    client::Client,
    terminal::{Style, Table},
};

/// Shows sources and apps.
pub fn run(args: &RemoteArgs) -> Result<Ending> {
    let client = Client::connect(&args.connection)?;
    let (sources, apps) = wait(async {
        let sources = sources::all(&client).await?;
        let apps = all_apps(&client).await?;
        Ok((sources, apps))
    })?;
    if args.format == Format::Json {
        print_json(&json!({"sources": sources, "apps": apps}))?;
    } else {
        print(&human(&sources, &apps, Style::stdout()))?;
    }
    Ok(Ending::Done)
}

async fn all_apps(client: &Client) -> Result<Vec<Value>> {
    let mut apps = Vec::new();
    let mut path = "/apps?limit=200".to_owned();
    loop {
        let page = client.get(&path).await?;
        apps.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/apps?limit=200&cursor={}", crate::url_encode(cursor)),
            None => return Ok(apps),
        }
    }
}

fn human(sources: &[Value], apps: &[Value], style: Style) -> String {
    let mut out = if sources.is_empty() {
        "No sources yet.\n".to_owned()
    } else {
        sources::table(sources, style)
    };
    out.push('\n');
    let mut table = Table::new(&["APP", "SYNC", "HEALTH", "COMMIT", "SOURCE"]);
    for item in apps {
        table.row(vec![
            text(item, "name"),
            text(item, "sync"),
            text(item, "health"),
            short(&text(item, "commit")),
            text(item, "source"),
        ]);
    }
    if table.is_empty() {
        out.push_str("No apps yet.\n");
    } else {
        out.push_str(&table.render(style));
    }
    out
}
