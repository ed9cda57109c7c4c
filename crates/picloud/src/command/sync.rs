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
    let (answer, suspended) = wait(async {
        let source = match &args.source {
            Some(source) => source.clone(),
            None => only_source(&client).await?,
        };
        let named = format!("/sources/{}", crate::url_encode(&source));
        let path = format!(
            "/sources/{}/sync?wait={}",
            crate::url_encode(&source),
            !args.no_wait
        );
        let answer = client.post(&path, Vec::new(), "application/json").await?;
        let shown = client.get(&named).await?;
        Ok((answer, shown["suspended"] == true))
    })?;
    if suspended {
        crate::complain("nothing is deployed: the source is suspended (`picloud resume`)\n");
    }
    if args.remote.format == Format::Json {
        print_json(&answer)?;
    } else if args.no_wait {
        print(&format!("{} is asked for.\n", text(&answer, "source")))?;
    } else {
        print(&outcome(&answer, Style::stdout()))?;
    }
    Ok(match answer["status"].as_str() {
        Some("failed" | "reverted") => Ending::Failed,
        _ => Ending::Done,
    })
}

/// What became of a deployment, in a line; what to do where it waits for a person.
pub(super) fn outcome(deployment: &Value, style: Style) -> String {
    let count = |field: &str, one: &str| match deployment[field].as_array().map_or(0, Vec::len) {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let took = deployment["duration_ms"]
        .as_f64()
        .map_or_else(String::new, milliseconds);
    let commit = short(&text(deployment, "commit"));
    let status = text(deployment, "status");
    let mut line = format!(
        "{} {commit}  {}",
        style.status(&status),
        count("changes", "change")
    );
    if deployment["errors"]
        .as_array()
        .is_some_and(|errors| !errors.is_empty())
    {
        line.push_str(&format!(", {}", count("errors", "error")));
    }
    line.push_str(&format!("  {took}\n"));
    if status == "waiting" {
        let until = text(deployment, "waits_until");
        line.push_str(&match until.as_str() {
            "" => "Its windows leave no time.\n".to_owned(),
            until => format!("It is deployed at {until}.\n"),
        });
    }
    if status == "held" || status == "waiting" {
        line.push_str(&format!(
            "Let it go with `picloud approve {}`.\n",
            text(deployment, "id")
        ));
    }
    line
}

pub(super) async fn only_source(client: &Client) -> Result<String> {
    let sources = client.get("/sources?limit=2").await?;
    match sources["items"].as_array().map(Vec::as_slice) {
        Some([one]) => Ok(text(one, "name")),
        Some([]) | None => bail!("the server has no source"),
        Some(_) => bail!("the server has several sources: name one (`picloud status` lists them)"),
    }
}
