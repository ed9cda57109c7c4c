//! `picloud logs`

use anyhow::Result;
use serde_json::{Value, json};

use super::{Ending, print, text, wait};
use crate::{
    cli::{Format, LogsArgs},
    client::Client,
    terminal::Style,
};

/// Shows what runs logged, oldest first; with `--follow` also what they log from now on.
pub fn run(args: &LogsArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let style = Style::stdout();
    let json = args.remote.format == Format::Json;
    wait(async {
        let mut runs = match &args.run {
            Some(id) => vec![
                client
                    .get(&format!("/runs/{}", crate::url_encode(id)))
                    .await?,
            ],
            None => newest(&client, args).await?,
        };
        runs.reverse();
        for record in &runs {
            let lines = record["logs"].as_array().into_iter().flatten();
            for line in lines {
                show(record, &text(record, "id"), line, json, style)?;
            }
        }
        if !args.follow {
            return Ok(Ending::Done);
        }
        let path = match &args.app {
            Some(app) => format!("/events?app={}", crate::url_encode(app)),
            None => "/events".to_owned(),
        };
        let take = |name: &str, data: &Value| {
            if name != "log" || args.run.as_ref().is_some_and(|run| data["run"] != **run) {
                return Ok(());
            }
            for line in data["lines"].as_array().into_iter().flatten() {
                show(data, &text(data, "run"), line, json, style)?;
            }
            Ok(())
        };
        client.follow(&path, take).await?;
        Ok(Ending::Done)
    })
}

async fn newest(client: &Client, args: &LogsArgs) -> Result<Vec<Value>> {
    let mut path = format!("/runs?limit={}", args.limit);
    if let Some(app) = &args.app {
        path.push_str(&format!("&app={}", crate::url_encode(app)));
    }
    let page = client.get(&path).await?;
    let items = page["items"].as_array().cloned();
    Ok(items.unwrap_or_default())
}

fn show(of: &Value, run: &str, line: &Value, json: bool, style: Style) -> Result<()> {
    if json {
        let line = json!({
            "run": run, "app": of["app"], "script": of["script"], "at": line["at"], "level": line["level"],
            "message": line["message"], "fields": line["fields"],
        });
        return print(&format!("{line}\n"));
    }
    let level = text(line, "level");
    let painted = match level.as_str() {
        "error" => style.red("error"),
        "warn" => style.yellow(" warn"),
        other => format!("{other:>5}"),
    };
    let fields = if line["fields"].is_null() {
        String::new()
    } else {
        format!("  {}", text(line, "fields"))
    };
    print(&format!(
        "{} {painted}  {}  {}{fields}\n",
        style.dim(&text(line, "at")),
        style.dim(&format!("{}/{}", text(of, "app"), text(of, "script"))),
        text(line, "message")
    ))
}
