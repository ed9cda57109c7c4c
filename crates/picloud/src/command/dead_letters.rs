//! `picloud dead-letters`

use anyhow::Result;
use serde_json::{Value, json};

use super::{Ending, age_of, print, print_json, text, wait};
use crate::{
    cli::{DeadLetterArgs, DeadLetterFilterArgs, DeadLetterListArgs, DeadLettersCommand, Format},
    client::Client,
    terminal::{Style, Table},
};

/// Lists, puts back or throws away.
pub fn run(command: &DeadLettersCommand) -> Result<Ending> {
    match command {
        DeadLettersCommand::List(args) => list(args),
        DeadLettersCommand::Redrive(args) => change(args, "redrive"),
        DeadLettersCommand::Discard(args) => change(args, "discard"),
    }
}

fn fields(filter: &DeadLetterFilterArgs) -> [(&'static str, Option<&String>); 3] {
    [
        ("app", filter.app.as_ref()),
        ("trigger", filter.trigger.as_ref()),
        ("source_kind", filter.source_kind.as_ref()),
    ]
}

fn list(args: &DeadLetterListArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let mut path = format!("/dead-letters?limit={}", args.limit);
    for (name, value) in fields(&args.filter) {
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
        "ID",
        "APP",
        "KIND",
        "TRIGGER",
        "SCRIPT",
        "ATTEMPTS",
        "AGE",
        "LAST ERROR",
    ]);
    for item in page["items"].as_array().into_iter().flatten() {
        let error = text(&item["last_error"], "message");
        table.row(vec![
            text(item, "id"),
            text(item, "app"),
            text(item, "source_kind"),
            text(item, "trigger"),
            text(item, "script"),
            text(item, "attempts"),
            age_of(item, "created_at"),
            error.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    if table.is_empty() {
        return "No dead letters.\n".to_owned();
    }
    table.render(style)
}

fn change(args: &DeadLetterArgs, what: &str) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let count = wait(async {
        if args.ids.is_empty() {
            let body: serde_json::Map<String, Value> = fields(&args.filter)
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))))
                .collect();
            let body = Value::Object(body).to_string().into_bytes();
            let path = format!("/dead-letters/{what}");
            let done = client.post(&path, body, "application/json").await?;
            return Ok(done["count"].as_u64().unwrap_or(0));
        }
        for id in &args.ids {
            let path = format!("/dead-letters/{}", crate::url_encode(id));
            if what == "redrive" {
                client
                    .post(&format!("{path}/redrive"), Vec::new(), "application/json")
                    .await?;
            } else {
                client.delete(&path).await?;
            }
        }
        Ok(args.ids.len() as u64)
    })?;
    if args.remote.format == Format::Json {
        print_json(&json!({ "count": count }))?;
    } else {
        let done = if what == "redrive" {
            "put back"
        } else {
            "discarded"
        };
        print(&format!("{count} {done}\n"))?;
    }
    Ok(Ending::Done)
}
