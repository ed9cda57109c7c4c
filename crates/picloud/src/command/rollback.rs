//! `picloud rollback`, `picloud suspend` and `picloud resume`

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Ending, print, print_json, short,
    sync::{only_source, outcome},
    text, wait,
};
use crate::{
    cli::{Format, RollbackArgs, SourceArgs},
    client::Client,
    terminal::Style,
};

/// Makes a former commit's state live.
pub fn run(args: &RollbackArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let deployment = wait(async {
        let path = path(&client, args.source.as_deref(), "rollback").await?;
        let body = json!({ "commit": args.commit }).to_string();
        client
            .post(&path, body.into_bytes(), "application/json")
            .await
    })?;
    if args.remote.format == Format::Json {
        print_json(&deployment)?;
    } else {
        print(&outcome(&deployment, Style::stdout()))?;
    }
    Ok(match deployment["status"].as_str() {
        Some("failed" | "reverted") => Ending::Failed,
        _ => Ending::Done,
    })
}

/// Deploys nothing by itself any more.
pub fn suspend(args: &SourceArgs) -> Result<Ending> {
    set(
        args,
        "suspend",
        "is suspended: nothing is deployed until it is resumed",
    )
}

/// Deploys the head, and what comes after it.
pub fn resume(args: &SourceArgs) -> Result<Ending> {
    set(args, "resume", "is resumed: its head is deployed")
}

fn set(args: &SourceArgs, action: &str, words: &str) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let source: Value = wait(async {
        let path = path(&client, args.source.as_deref(), action).await?;
        client.post(&path, Vec::new(), "application/json").await
    })?;
    if args.remote.format == Format::Json {
        print_json(&source)?;
    } else {
        let live = short(&text(&source, "commit"));
        print(&format!(
            "{} {words} (live: {live})\n",
            text(&source, "name")
        ))?;
    }
    Ok(Ending::Done)
}

async fn path(client: &Client, source: Option<&str>, action: &str) -> Result<String> {
    let source = match source {
        Some(source) => source.to_owned(),
        None => only_source(client).await?,
    };
    Ok(format!("/sources/{}/{action}", crate::url_encode(&source)))
}
