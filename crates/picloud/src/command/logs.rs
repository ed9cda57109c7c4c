//! `picloud logs`

use std::{cell::RefCell, collections::HashMap};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Ending, print, text, wait};
use crate::{
    cli::{Format, LogsArgs},
    client::Client,
    terminal::Style,
};

/// Runs of which it is known how many lines are shown.
const MAX_KNOWN: usize = 10_000;

/// Shows what runs logged, oldest first; with `--follow` also what they log from now on, as they
/// log it.
pub fn run(args: &LogsArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let shown = RefCell::new(Shown {
        json: args.remote.format == Format::Json,
        style: Style::stdout(),
        lines: HashMap::new(),
        kept: Some(Vec::new()),
    });
    wait(async {
        if !args.follow {
            let records = recorded(&client, args).await?;
            shown.borrow_mut().records(&records)?;
            return Ok(Ending::Done);
        }
        let path = match &args.app {
            Some(app) => format!("/events?app={}", crate::url_encode(app)),
            None => "/events".to_owned(),
        };
        // Listens first and asks then, so that nothing falls in between.
        let (opened, is_open) = oneshot::channel();
        let earlier = async {
            // One that fails to open says so itself.
            if is_open.await.is_ok() {
                let records = recorded(&client, args).await?;
                shown.borrow_mut().records(&records)?;
            }
            anyhow::Ok(())
        };
        let take = |name: &str, data: &Value| {
            if name != "log" || args.run.as_ref().is_some_and(|run| data["run"] != **run) {
                return Ok(());
            }
            shown.borrow_mut().heard(data)
        };
        let opened = || {
            // Nobody waits for it any more only when all of this ends.
            let _ = opened.send(());
        };
        tokio::try_join!(client.follow(&path, opened, take), earlier)?;
        Ok(Ending::Done)
    })
}

/// What is on the terminal.
struct Shown {
    json: bool,
    style: Style,
    /// How many lines of which run, while that is known.
    lines: HashMap<String, u64>,
    /// What is heard until the earlier lines are shown.
    kept: Option<Vec<Value>>,
}

impl Shown {
    /// Shows what runs logged earlier, and what was heard meanwhile.
    fn records(&mut self, newest_first: &[Value]) -> Result<()> {
        for record in newest_first.iter().rev() {
            let run = text(record, "id");
            let lines = record["logs"].as_array().map_or(&[][..], Vec::as_slice);
            for line in lines {
                show(record, &run, line, self.json, self.style)?;
            }
            self.lines.insert(run, lines.len() as u64);
        }
        for event in self.kept.take().unwrap_or_default() {
            self.heard(&event)?;
        }
        Ok(())
    }

    /// Shows lines as they are told, each once.
    fn heard(&mut self, event: &Value) -> Result<()> {
        if let Some(kept) = &mut self.kept {
            kept.push(event.clone());
            return Ok(());
        }
        let run = text(event, "run");
        let first = event["first"].as_u64().unwrap_or(0);
        let lines = event["lines"].as_array().map_or(&[][..], Vec::as_slice);
        let more = event["more"].as_u64().unwrap_or(0);
        let end = first + lines.len() as u64;
        let known = self.lines.get(&run).copied();
        let seen = known.unwrap_or(0);
        // Who comes to a run that goes on already sees it from there.
        if known.is_some() && first > seen {
            self.note(&run, first - seen)?;
        }
        let old = usize::try_from(seen.saturating_sub(first)).unwrap_or(usize::MAX);
        for line in lines.iter().skip(old) {
            show(event, &run, line, self.json, self.style)?;
        }
        if more > 0 && end + more > seen {
            self.note(&run, (end + more) - seen.max(end))?;
        }
        if self.lines.len() >= MAX_KNOWN {
            self.lines.clear();
        }
        self.lines.insert(run, seen.max(end + more));
        Ok(())
    }

    /// Tells of lines that the record has, and the terminal has not.
    fn note(&self, run: &str, count: u64) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let words = format!("… {count} more lines: picloud logs --run {run}\n");
        print(&self.style.dim(&words))
    }
}

/// Records whose lines are wanted, newest first.
async fn recorded(client: &Client, args: &LogsArgs) -> Result<Vec<Value>> {
    let Some(id) = &args.run else {
        return newest(client, args).await;
    };
    let record = client
        .get(&format!("/runs/{}", crate::url_encode(id)))
        .await;
    match record {
        Ok(record) => Ok(vec![record]),
        // It goes on still, or waits.
        Err(_) if args.follow => Ok(Vec::new()),
        Err(error) => Err(error),
    }
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
