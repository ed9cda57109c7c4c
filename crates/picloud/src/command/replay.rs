//! `picloud replay ID` and `picloud invoke APP SCRIPT`: runs that a person asks for.

use std::{io::Read, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Ending, print, print_json, run::human, text, wait};
use crate::{
    cli::{Format, InvokeArgs, ReplayArgs},
    client::Client,
    terminal::Style,
};

/// How long the record of a replay is waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs a recorded run again, and shows what became of it.
pub fn replay(args: &ReplayArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let json_wanted = args.remote.format == Format::Json;
    let commit = if args.original { "original" } else { "live" };
    let body = json!({ "commit": commit }).to_string().into_bytes();
    let path = format!("/runs/{}/replay", crate::url_encode(&args.id));
    let accepted = wait(client.post(&path, body, "application/json"))?;
    let id = text(&accepted, "run");
    if args.no_wait {
        if json_wanted {
            print_json(&accepted)?;
        } else {
            print(&format!("{id}\n"))?;
        }
        return Ok(Ending::Done);
    }
    let record = wait(record(&client, &id))?;
    shown(&record, json_wanted)
}

/// The record of a run that was handed over, once it is there.
async fn record(client: &Client, id: &str) -> Result<Value> {
    let path = format!("/runs/{}", crate::url_encode(id));
    let letter = format!("/dead-letters/{}", crate::url_encode(id));
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(20);
    while tokio::time::Instant::now() < end {
        if let Ok(record) = client.get(&path).await {
            return Ok(record);
        }
        if let Ok(letter) = client.get(&letter).await
            && letter["last_error"]["run"].is_null()
        {
            bail!(
                "it could not be run: {}",
                text(&letter["last_error"], "message")
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
    bail!(
        "the run {id} was handed over, and did not end within {} s",
        PATIENCE.as_secs()
    )
}

fn shown(record: &Value, json_wanted: bool) -> Result<Ending> {
    if json_wanted {
        print_json(record)?;
    } else {
        print(&human(record, Style::stdout()))?;
        if let Some(answer) = record.get("answer") {
            let answer = serde_json::to_string_pretty(answer).context("cannot write JSON")?;
            print(&format!("{}\n", crate::terminal::printable(&answer)))?;
        }
    }
    Ok(match record["status"].as_str() {
        Some("ok") => Ending::Done,
        _ => Ending::Failed,
    })
}

/// Runs a handler now, and shows what it gave.
pub fn invoke(args: &InvokeArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let mut given = args.payload.clone();
    if given == "-" {
        given.clear();
        std::io::stdin()
            .read_to_string(&mut given)
            .context("cannot read standard input")?;
    }
    let payload: Value = serde_json::from_str(&given).context("--payload is no JSON")?;
    let body = json!({ "script": args.script, "payload": payload });
    let path = format!("/apps/{}/invoke", crate::url_encode(&args.app));
    let done = wait(client.post(&path, body.to_string().into_bytes(), "application/json"))?;
    shown(&done, args.remote.format == Format::Json)
}
