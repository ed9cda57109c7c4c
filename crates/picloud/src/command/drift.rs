//! `picloud drift` and `picloud heal`

use anyhow::Result;
use serde_json::{Value, json};

use super::{Ending, print, print_json, sync::only_source, text, wait};
use crate::{
    cli::{DriftArgs, Format, HealArgs},
    client::Client,
    terminal::{Style, printable},
};

/// Shows where live differs from git, field by field.
pub fn run(args: &DriftArgs) -> Result<Ending> {
    if args.as_patch || args.adopt {
        return super::adopt::run(args);
    }
    let client = Client::connect(&args.remote.connection)?;
    let drifted = wait(async {
        match &args.app {
            Some(app) => {
                let path = format!("/apps/{}/drift", crate::url_encode(app));
                Ok(vec![client.get(&path).await?])
            }
            None => all(&client).await,
        }
    })?;
    let some = drifted.iter().any(|app| {
        app["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    });
    if args.remote.format == Format::Json {
        match (&args.app, drifted.first()) {
            (Some(_), Some(one)) => print_json(one)?,
            _ => print_json(&json!({ "items": drifted }))?,
        }
    } else if some {
        print(&human(&drifted, Style::stdout()))?;
    } else {
        print("Nothing differs from git.\n")?;
    }
    Ok(if some && args.exit_code {
        Ending::Changes
    } else {
        Ending::Done
    })
}

pub(super) async fn all(client: &Client) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut path = "/drift?limit=200".to_owned();
    loop {
        let page = client.get(&path).await?;
        found.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/drift?limit=200&cursor={}", crate::url_encode(cursor)),
            None => return Ok(found),
        }
    }
}

fn human(drifted: &[Value], style: Style) -> String {
    let mut out = String::new();
    for app in drifted {
        out.push_str(&format!("{}\n", style.bold(&text(app, "app"))));
        for item in app["items"].as_array().into_iter().flatten() {
            let (sign, words) = match item["change"].as_str() {
                Some("added") => (style.green("+"), " (live, not in git)"),
                Some("removed") => (style.red("-"), " (in git, not live)"),
                _ => (style.yellow("~"), ""),
            };
            out.push_str(&format!(
                "  {sign} {} {}{words}\n",
                text(item, "kind"),
                text(item, "name")
            ));
            if item["change"] != "changed" {
                continue;
            }
            for field in item["fields"].as_array().into_iter().flatten() {
                out.push_str(&format!(
                    "      {}: git {}  live {}\n",
                    text(field, "path"),
                    printable(&field["desired"].to_string()),
                    printable(&field["live"].to_string())
                ));
            }
        }
    }
    out
}

/// Makes live again what git declares.
pub fn heal(args: &HealArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let answer = wait(async {
        let path = match (&args.app, &args.source) {
            (Some(app), _) => format!("/apps/{}/heal", crate::url_encode(app)),
            (None, Some(source)) => format!("/sources/{}/heal", crate::url_encode(source)),
            (None, None) => {
                let source = only_source(&client).await?;
                format!("/sources/{}/heal", crate::url_encode(&source))
            }
        };
        client.post(&path, Vec::new(), "application/json").await
    })?;
    if args.remote.format == Format::Json {
        print_json(&answer)?;
    } else if answer["healed"] == true {
        print(&super::sync::outcome(
            &answer["deployment"],
            Style::stdout(),
        ))?;
    } else {
        print("Nothing differs from git.\n")?;
    }
    Ok(Ending::Done)
}
