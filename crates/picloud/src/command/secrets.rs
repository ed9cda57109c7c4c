//! `picloud secrets`

use std::io::Read;

use anyhow::{Context, Result, bail};
use picloud_services::secrets::{SecretKeys, seal};

use super::{Ending, print, text, wait};
use crate::{
    cli::{ConnectionArgs, SealArgs, SecretsCommand},
    client::Client,
};

/// Makes keys, and seals values.
pub fn run(command: &SecretsCommand) -> Result<Ending> {
    match command {
        SecretsCommand::Keygen => print(&SecretKeys::generate())?,
        SecretsCommand::Recipient(connection) => {
            print(&format!("{}\n", recipient(connection)?))?;
        }
        SecretsCommand::Seal(args) => print(&sealed(args)?)?,
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
        None => recipient(&args.connection)?,
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
