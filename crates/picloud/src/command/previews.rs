//! `picloud previews`: what there is to see of branches and pull requests.

use anyhow::Result;
use serde_json::Value;

use super::{Ending, age_of, print, print_json, short, text, wait};
use crate::{
    cli::{Format, PreviewsCommand},
    client::Client,
    terminal::Style,
};

/// Lists previews, or lets one be made.
pub fn run(command: &PreviewsCommand) -> Result<Ending> {
    match command {
        PreviewsCommand::List { source, remote } => {
            let client = Client::connect(&remote.connection)?;
            let path = format!("/sources/{}/previews", crate::url_encode(source));
            let answer = wait(client.get(&path))?;
            if remote.format == Format::Json {
                print_json(&answer)?;
            } else {
                print(&human(&answer, Style::stdout()))?;
            }
        }
        PreviewsCommand::Approve {
            source,
            slug,
            remote,
        } => {
            let client = Client::connect(&remote.connection)?;
            let path = format!(
                "/sources/{}/previews/{}/approve",
                crate::url_encode(source),
                crate::url_encode(slug)
            );
            let answer = wait(client.post(&path, Vec::new(), "application/json"))?;
            if remote.format == Format::Json {
                print_json(&answer)?;
            } else {
                let head = short(&text(&answer, "head"));
                print(&format!("{slug} may be shown as of {head}\n"))?;
            }
        }
    }
    Ok(Ending::Done)
}

fn human(answer: &Value, style: Style) -> String {
    let items = answer["items"].as_array().map(Vec::as_slice);
    let mut out = String::new();
    for item in items.unwrap_or_default() {
        let status = match item["state"].as_str() {
            Some("active") => text(item, "status"),
            _ => text(item, "state"),
        };
        out.push_str(&format!(
            "{}  {}  {}  {}  {}\n",
            style.status(&status),
            text(item, "slug"),
            short(&text(item, "head")),
            age_of(item, "head_at"),
            text(item, "reference"),
        ));
        for app in item["apps"].as_array().into_iter().flatten() {
            out.push_str(&format!("    {}\n", app.as_str().unwrap_or_default()));
        }
    }
    if out.is_empty() {
        out.push_str("There are no previews.\n");
    }
    out
}
