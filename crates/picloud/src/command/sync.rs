//! `picloud sync`

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Ending, print, print_json, short, text, wait};
use crate::{
    cli::{Format, SyncArgs},
    client::Client,
    terminal::{Style, milliseconds},
};

/// Deploys the head of a source and waits for it.
pub fn run(args: &SyncArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let answer = wait(async {
        let source = match &args.source {
            Some(source) => source.clone(),
            None => only_source(&client).await?,
        };
        let path = format!("/sources/{}/sync?wait=true", crate::url_encode(&source));
        client.post(&path, Vec::new(), "application/json").await
    })?;
    let status = text(&answer, "status");
    if args.remote.format == Format::Json {
        print_json(&answer)?;
    } else {
        print(&human(&answer, &status, Style::stdout()))?;
    }
    Ok(if status == "failed" {
        Ending::Failed
    } else {
        Ending::Done
    })
}

fn human(answer: &Value, status: &str, style: Style) -> String {
    let changes = answer["changes"].as_array().map_or(0, Vec::len);
    let took = answer["duration_ms"]
        .as_f64()
        .map_or_else(String::new, milliseconds);
    let commit = short(&text(answer, "commit"));
    format!(
        "{} {commit}  {changes} changes  {took}\n",
        style.status(status)
    )
}

async fn only_source(client: &Client) -> Result<String> {
    let sources = client.get("/sources?limit=2").await?;
    match sources["items"].as_array().map(Vec::as_slice) {
        Some([one]) => Ok(text(one, "name")),
        Some([]) | None => bail!("the server has no source"),
        Some(_) => bail!("the server has several sources: name one (`picloud status` lists them)"),
    }
}
