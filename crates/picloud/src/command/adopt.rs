//! `picloud drift --as-patch` and `--adopt`: what is live, brought back into files.

use std::io::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Ending, print, print_json, text, wait};
use crate::{
    cli::{DriftArgs, Format},
    client::Client,
    terminal::Style,
};

/// Prints or commits the change that makes git declare what is live.
pub(super) fn run(args: &DriftArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let done = wait(async {
        let apps = if let Some(app) = &args.app {
            vec![app.clone()]
        } else {
            let drifted = super::drift::all(&client).await?;
            drifted.iter().map(|app| text(app, "app")).collect()
        };
        let mut done = Vec::new();
        for app in apps {
            done.push(one(&client, args, &app).await?);
        }
        Ok::<_, anyhow::Error>(done)
    })?;
    if args.remote.format == Format::Json {
        print_json(&json!({ "items": done }))?;
    } else {
        for app in &done {
            show(args, app)?;
        }
        if done.is_empty() {
            note("Nothing differs from git.")?;
        }
    }
    // What can't be brought into files is not done.
    let rest = |app: &Value| is_some(app, "left") || is_some(app, "errors");
    Ok(if done.iter().any(rest) {
        Ending::Failed
    } else if args.exit_code && done.iter().any(|app| is_some(app, "files")) {
        Ending::Changes
    } else {
        Ending::Done
    })
}

/// On standard error: a patch on standard output stays one.
fn note(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "{line}")?)
}

fn is_some(app: &Value, key: &str) -> bool {
    app[key].as_array().is_some_and(|items| !items.is_empty())
}

async fn one(client: &Client, args: &DriftArgs, app: &str) -> Result<Value> {
    let path = format!("/apps/{}", crate::url_encode(app));
    if !args.adopt {
        return client.get(&format!("{path}/drift/patch")).await;
    }
    let body = json!({ "branch": args.branch, "message": args.message });
    let body = serde_json::to_vec(&body)?;
    client
        .post(&format!("{path}/adopt"), body, "application/json")
        .await
}

fn show(args: &DriftArgs, app: &Value) -> Result<()> {
    let style = Style::stdout();
    if args.adopt {
        let branch = text(app, "branch");
        print(&format!(
            "{} {} is on {}, made on {}\n",
            style.green("+"),
            text(app, "commit"),
            style.bold(&branch),
            text(app, "base"),
        ))?;
    } else {
        // As it is: a patch is for git, and a terminal's pager.
        print(app["patch"].as_str().unwrap_or_default())?;
    }
    for finding in app["errors"].as_array().into_iter().flatten() {
        note(&format!(
            "{}: what is live would be refused: {} ({}:{})",
            text(app, "app"),
            text(finding, "message"),
            text(finding, "path"),
            finding["line"]
        ))?;
    }
    for item in app["left"].as_array().into_iter().flatten() {
        note(&format!(
            "{}: files cannot say this: {} {}",
            text(app, "app"),
            text(item, "kind"),
            text(item, "name")
        ))?;
    }
    Ok(())
}
