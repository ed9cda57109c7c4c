//! `picloud keys`

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Ending, age_of, print, print_json, text, wait};
use crate::{
    cli::{CreateKeyArgs, Format, KeysCommand, RemoteArgs},
    client::Client,
    terminal::{Style, Table},
};

/// Makes, lists and revokes keys.
pub fn run(command: &KeysCommand) -> Result<Ending> {
    match command {
        KeysCommand::List(remote) => list(remote),
        KeysCommand::Create(args) => create(args),
        KeysCommand::Revoke { key, remote } => {
            let client = Client::connect(&remote.connection)?;
            let revoked = wait(revoke(&client, key))?;
            if remote.format == Format::Json {
                print_json(&revoked)?;
                return Ok(Ending::Done);
            }
            print(&format!(
                "{} is good for nothing any more.\n",
                text(&revoked, "name")
            ))?;
            Ok(Ending::Done)
        }
    }
}

async fn all(client: &Client) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut path = "/keys?limit=200".to_owned();
    loop {
        let page = client.get(&path).await?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/keys?limit=200&cursor={}", crate::url_encode(cursor)),
            None => return Ok(items),
        }
    }
}

fn list(remote: &RemoteArgs) -> Result<Ending> {
    let client = Client::connect(&remote.connection)?;
    let items = wait(all(&client))?;
    if remote.format == Format::Json {
        print_json(&json!({ "items": items }))?;
        return Ok(Ending::Done);
    }
    let mut table = Table::new(&["NAME", "KEY", "APP", "SCOPES", "LAST USED", "ENDS", "ID"]);
    for item in &items {
        let scopes = item["scopes"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let scopes: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
        let ends = if item["expired"] == true {
            "ended".to_owned()
        } else {
            text(item, "expires_at")
        };
        table.row(vec![
            text(item, "name"),
            format!("{}…", text(item, "prefix")),
            item["app"].as_str().unwrap_or("all").to_owned(),
            scopes.join(" "),
            age_of(item, "last_used_at"),
            ends,
            text(item, "id"),
        ]);
    }
    print(&table.render(Style::stdout()))?;
    Ok(Ending::Done)
}

fn create(args: &CreateKeyArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let body = json!({
        "name": args.name,
        "scopes": args.scopes,
        "app": args.app,
        "expires_at": args.expires_at,
    });
    let bytes = body.to_string().into_bytes();
    let made = wait(client.post("/keys", bytes, "application/json"))?;
    if args.remote.format == Format::Json {
        print_json(&made)?;
    } else {
        // The key alone on standard output, so that it can be piped to where it belongs.
        let key = made["key"].as_str().context("the server gave no key")?;
        print(&format!("{key}\n"))?;
    }
    Ok(Ending::Done)
}

/// By id, or by a name that only one key has.
async fn revoke(client: &Client, wanted: &str) -> Result<Value> {
    let keys = all(client).await?;
    let found: Vec<&Value> = keys
        .iter()
        .filter(|key| key["id"] == wanted || key["name"] == wanted)
        .collect();
    let key = match found.as_slice() {
        [] => bail!("there is no key `{wanted}`; `picloud keys list` shows them"),
        [key] => *key,
        _ => bail!("several keys are named `{wanted}`; name one by its id"),
    };
    let id = key["id"].as_str().context("the key has no id")?;
    client.delete(&format!("/keys/{id}")).await?;
    Ok(key.clone())
}
