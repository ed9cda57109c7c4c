//! `picloud secrets`

use std::io::Read;

use anyhow::{Context, Result, bail};
use picloud_services::secrets::{SecretKeys, seal};
use serde_json::json;

use super::{Ending, print, print_json, text, wait};
use crate::{
    cli::{ConnectionArgs, Format, SealArgs, SecretsCommand},
    client::Client,
};

/// Makes keys, and seals values.
pub fn run(command: &SecretsCommand) -> Result<Ending> {
    let (field, format, text) = match command {
        SecretsCommand::Keygen { format } => ("identity", *format, SecretKeys::generate()),
        SecretsCommand::Recipient(remote) => {
            let recipient = recipient(&remote.connection)?;
            ("recipient", remote.format, format!("{recipient}\n"))
        }
        SecretsCommand::Seal(args) => ("sealed", args.remote.format, sealed(args)?),
    };
    match format {
        // What is sealed ends with its line; the others are words.
        Format::Json if field == "sealed" => print_json(&json!({ field: text }))?,
        Format::Json => print_json(&json!({ field: text.trim_end() }))?,
        Format::Human => print(&text)?,
    }
    Ok(Ending::Done)
}

fn recipient(connection: &ConnectionArgs) -> Result<String> {
    let client = Client::connect(connection)?;
    let instance = wait(client.get("/instance"))?;
    let recipient = text(&instance, "recipient");
    if recipient.is_empty() {
        bail!("the server did not tell its recipient");
    }
    Ok(recipient)
}

fn sealed(args: &SealArgs) -> Result<String> {
    let recipient = match &args.recipient {
        Some(recipient) => recipient.clone(),
        None => recipient(&args.remote.connection)?,
    };
    let mut value = String::new();
    std::io::stdin()
        .read_to_string(&mut value)
        .context("the value cannot be read from standard input, as UTF-8")?;
    // The line's end is the terminal's, not the value's.
    let value = value.strip_suffix('\n').unwrap_or(&value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        bail!("there is no value on standard input");
    }
    seal(&recipient, value).context("the value cannot be sealed")
}
