//! `login`: a key for this machine, once a person who is signed in lets it in (RFC 8628); `logout`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Ending, print, text, wait};
use crate::{
    cli::{LoginArgs, LogoutArgs},
    client::{Client, running},
    credentials::{Credentials, Kept},
    url_encode,
};

/// How much longer a server that is asked too often is left in peace.
const SLOWER: Duration = Duration::from_secs(5);

/// Shows where a person confirms, waits for that, and keeps the key.
pub fn login(args: &LoginArgs) -> Result<Ending> {
    let server = match &args.server {
        Some(server) => server.clone(),
        None => running(args.data_dir.as_deref())?.url,
    };
    let mut kept = Credentials::read()?;
    let client = Client::at(&server, String::new())?;
    wait(async {
        let body = json!({
            "name": args.name.clone().unwrap_or_else(this_machine),
            "scopes": args.scopes,
        });
        let begun = match client.try_post("/login", &body).await? {
            Ok(begun) => begun,
            Err(code) => bail!("the server does not let this machine ask: {code}"),
        };
        print(&format!(
            "Open {}\nand let this machine in, if the code there is {}\n",
            text(&begun, "verification_uri_complete"),
            text(&begun, "user_code"),
        ))?;
        let key = poll(&client, &begun).await?;
        let words = key["key"].as_str().context("the server sent no key")?;
        let expires_at = text(&key, "expires_at");
        kept.keep(
            &server,
            Kept {
                key: words.to_owned(),
                id: text(&key, "id"),
                expires_at: expires_at.clone(),
            },
        );
        let path = kept.write()?;
        print(&format!(
            "Logged in to {server} until {expires_at}; the key is in {}\n",
            path.display()
        ))?;
        Ok(Ending::Done)
    })
}

/// Asks until somebody decided, or it is too late.
async fn poll(client: &Client, begun: &Value) -> Result<Value> {
    let seconds = |name: &str, other: u64| begun[name].as_u64().unwrap_or(other);
    let device = begun["device_code"]
        .as_str()
        .context("the server sent no code")?;
    let end = Instant::now() + Duration::from_secs(seconds("expires_in", 600));
    let mut interval = Duration::from_secs(seconds("interval", 5).max(1));
    let body = json!({ "device_code": device });
    while Instant::now() < end {
        tokio::time::sleep(interval).await;
        match client.try_post("/login/token", &body).await {
            Ok(Ok(key)) => return Ok(key),
            Ok(Err(code)) => match code.as_str() {
                "authorization_pending" | "unavailable" => {}
                "slow_down" => interval += SLOWER,
                "access_denied" => bail!("this machine was not let in"),
                "expired_token" => break,
                other => bail!("the server answered {other}"),
            },
            // A server that is started anew in the meantime goes on where it was.
            Err(error) => tracing::debug!(%error, "asking again"),
        }
    }
    bail!("nobody let this machine in, in time; try again")
}

/// `ada@laptop`
fn this_machine() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "picloud".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("{user}@{}", host.trim());
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Ends the key, where it may end itself, and forgets it.
pub fn logout(args: &LogoutArgs) -> Result<Ending> {
    let mut all = Credentials::read()?;
    let Some((server, kept)) = all.forget(args.server.as_deref()) else {
        bail!("`picloud login` keeps no key for that server here");
    };
    let client = Client::at(&server, kept.key.clone())?;
    let path = format!("/keys/{}", url_encode(&kept.id));
    let revoked = wait(async { client.delete(&path).await });
    all.write()?;
    let words = match revoked {
        Ok(_) => "the key is revoked".to_owned(),
        Err(error) => format!(
            "the key is forgotten here, and ends {} ({error:#})",
            kept.expires_at
        ),
    };
    print(&format!("Logged out of {server}; {words}\n"))?;
    Ok(Ending::Done)
}
