//! `picloud sources`

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Ending, print, print_json, short, text, wait};
use crate::{
    cli::{AddSourceArgs, Format, RemoteArgs, SourceKindArg, SourcesCommand},
    client::Client,
    terminal::{Style, Table},
};

/// Adds, lists and removes sources.
pub fn run(command: &SourcesCommand) -> Result<Ending> {
    match command {
        SourcesCommand::List(remote) => list(remote),
        SourcesCommand::Show { name, remote } => {
            let client = Client::connect(&remote.connection)?;
            let source = wait(client.get(&path(name)))?;
            show(&client, &source, remote.format)
        }
        SourcesCommand::Add(args) => add(args),
        SourcesCommand::Remove { name, remote } => {
            let client = Client::connect(&remote.connection)?;
            wait(client.delete(&path(name)))?;
            if remote.format == Format::Json {
                print_json(&json!({ "removed": name }))?;
                return Ok(Ending::Done);
            }
            print(&format!("{name} is removed.\n"))?;
            Ok(Ending::Done)
        }
    }
}

fn path(name: &str) -> String {
    format!("/sources/{}", crate::url_encode(name))
}

fn list(remote: &RemoteArgs) -> Result<Ending> {
    let client = Client::connect(&remote.connection)?;
    let items = wait(all(&client))?;
    if remote.format == Format::Json {
        print_json(&json!({ "items": items }))?;
    } else if items.is_empty() {
        print("No sources yet: `picloud sources add NAME [URL]`.\n")?;
    } else {
        print(&table(&items, Style::stdout()))?;
    }
    Ok(Ending::Done)
}

/// All sources of a server.
pub(super) async fn all(client: &Client) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut path = "/sources?limit=200".to_owned();
    loop {
        let page = client.get(&path).await?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => {
                path = format!("/sources?limit=200&cursor={}", crate::url_encode(cursor));
            }
            None => return Ok(items),
        }
    }
}

/// Sources as a table, and below it why one of them deploys nothing.
pub(super) fn table(items: &[Value], style: Style) -> String {
    let mut table = Table::new(&["SOURCE", "KIND", "BRANCH", "COMMIT", "STATE", "URL"]);
    for item in items {
        table.row(vec![
            text(item, "name"),
            text(item, "kind"),
            text(item, "branch"),
            short(&text(item, "commit")),
            state(item).to_owned(),
            text(item, "url"),
        ]);
    }
    let mut out = table.render(style);
    for item in items.iter().filter(|item| !item["error"].is_null()) {
        out.push_str(&format!(
            "{} {}: {}\n",
            style.red("!"),
            text(item, "name"),
            text(item, "error")
        ));
    }
    out
}

fn state(source: &Value) -> &'static str {
    if source["suspended"] == true {
        "suspended"
    } else if !source["error"].is_null() {
        "failed"
    } else if source["commit"].is_null() {
        "empty"
    } else {
        "ok"
    }
}

fn show(client: &Client, source: &Value, format: Format) -> Result<Ending> {
    if format == Format::Json {
        print_json(source)?;
        return Ok(Ending::Done);
    }
    let style = Style::stdout();
    let mut out = String::new();
    for (label, value) in [
        ("name", text(source, "name")),
        ("kind", text(source, "kind")),
        ("url", text(source, "url")),
        ("branch", text(source, "branch")),
        ("path", text(source, "path")),
        ("commit", text(source, "commit")),
        ("state", style.status(state(source))),
        ("error", text(source, "error")),
    ] {
        if !value.is_empty() {
            out.push_str(&format!("{label:<8} {value}\n"));
        }
    }
    let name = text(source, "name");
    match source["kind"].as_str() {
        Some("hosted") => out.push_str(&format!(
            "\ngit remote add picloud {}/git/{name}.git\n",
            client.base()
        )),
        Some("remote") => out.push_str(&format!(
            "webhook  {}/api/v1/hooks/{name}{}\n",
            client.base(),
            if source["webhook_secret_set"] == true {
                ""
            } else {
                "  (no secret is set: unsigned deliveries are refused)"
            }
        )),
        _ => {}
    }
    print(&out)?;
    Ok(Ending::Done)
}

fn add(args: &AddSourceArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let (kind, url) = origin(args)?;
    let mut body = json!({ "kind": kind.as_str() });
    for (key, value) in [
        ("url", &url),
        ("branch", &args.branch),
        ("path", &args.path),
        ("interval", &args.interval),
        ("webhook_secret", &args.webhook_secret),
    ] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    if let Some(forge) = args.forge {
        body["forge"] =
            json!({ "kind": forge.as_str(), "api_url": args.forge_api, "token": args.forge_token });
    }
    let source = wait(client.put(&path(&args.name), &body))?;
    show(&client, &source, args.remote.format)
}

/// What kind of source an address is: nothing is hosted here, a folder is on this machine, the
/// rest is elsewhere.
fn origin(args: &AddSourceArgs) -> Result<(SourceKindArg, Option<String>)> {
    let Some(url) = &args.url else {
        return Ok((args.kind.unwrap_or(SourceKindArg::Hosted), None));
    };
    let here = Path::new(url);
    let kind = args.kind.unwrap_or(if here.is_dir() {
        SourceKindArg::Local
    } else {
        SourceKindArg::Remote
    });
    if kind == SourceKindArg::Local && here.is_dir() {
        let full = here
            .canonicalize()
            .with_context(|| format!("cannot find {url}"))?;
        return Ok((kind, Some(full.display().to_string())));
    }
    Ok((kind, Some(url.clone())))
}
