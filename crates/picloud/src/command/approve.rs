//! `picloud approve`

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Ending, print, print_json, short, sync::outcome, text, wait};
use crate::{
    cli::{ApproveArgs, Format},
    client::Client,
    terminal::Style,
};

/// Lets a held deployment go, and tells what became of it.
pub fn run(args: &ApproveArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let deployment = wait(async {
        let id = find(&client, &args.deployment).await?;
        let path = format!("/deployments/{}/approve", crate::url_encode(&id));
        client.post(&path, Vec::new(), "application/json").await
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

/// The id of a deployment: itself, or that of the one held deployment of a commit.
async fn find(client: &Client, named: &str) -> Result<String> {
    if named.len() == 36 && named.contains('-') {
        return Ok(named.to_owned());
    }
    let page = client.get("/deployments?limit=200").await?;
    let held: Vec<&Value> = page["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|item| {
            ["held", "waiting"]
                .iter()
                .any(|status| item["status"] == *status)
                && text(item, "commit").starts_with(named)
        })
        .collect();
    match held.as_slice() {
        [one] => Ok(text(one, "id")),
        [] => bail!(
            "no deployment of `{named}` is held or waits; `picloud history` lists deployments"
        ),
        [first, second, ..] => bail!(
            "`{named}` may be {} or {}: write more of it",
            short(&text(first, "commit")),
            short(&text(second, "commit"))
        ),
    }
}
