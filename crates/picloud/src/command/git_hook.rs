//! What git runs in a hosted repository, as `pre-receive` and `post-receive`. Asks the server,
//! prints its answer.

use std::{
    io::{BufRead, Read, Write},
    os::unix::net::UnixStream,
};

use anyhow::{Context, Result, bail};
use picloud_manager_core::hosting::{HookRequest, PHASES, RefUpdate};

use super::{Ending, print};

/// Which hook this process is, by the name that git calls it by.
pub fn phase() -> Option<&'static str> {
    let program = std::env::args_os().next()?;
    let name = std::path::Path::new(&program).file_name()?.to_owned();
    PHASES.into_iter().find(|phase| *phase == name)
}

/// Hands a hook's input over, and ends as the server says.
pub fn run(phase: &str) -> Result<Ending> {
    let variable = |name: &str| std::env::var(name).ok();
    let socket = variable("PICLOUD_HOOK_SOCKET").context("only git runs this, in a push")?;
    let mut updates = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("git's input cannot be read")?;
        let mut words = line.splitn(3, ' ');
        if let (Some(old), Some(new), Some(reference)) = (words.next(), words.next(), words.next())
        {
            updates.push(RefUpdate {
                old: old.to_owned(),
                new: new.to_owned(),
                reference: reference.to_owned(),
            });
        }
    }
    let count = variable("GIT_PUSH_OPTION_COUNT").and_then(|count| count.parse().ok());
    let request = HookRequest {
        phase: phase.to_owned(),
        source: variable("PICLOUD_SOURCE").unwrap_or_default(),
        base_url: variable("PICLOUD_BASE_URL").unwrap_or_default(),
        actor: variable("PICLOUD_KEY").unwrap_or_default(),
        key: variable("PICLOUD_KEY_ID").unwrap_or_default(),
        updates,
        quarantine: variable("GIT_QUARANTINE_PATH"),
        options: (0..count.unwrap_or(0_u32))
            .filter_map(|index| variable(&format!("GIT_PUSH_OPTION_{index}")))
            .collect(),
    };
    let mut stream = UnixStream::connect(&socket).context("the server does not answer")?;
    let mut line = serde_json::to_vec(&request).context("cannot write JSON")?;
    line.push(b'\n');
    stream.write_all(&line).context("the server went away")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("the server went away")?;
    let Some((text, end)) = answer.rsplit_once("\0exit ") else {
        bail!("the server's answer broke off");
    };
    print(text)?;
    Ok(if end.trim() == "0" {
        Ending::Done
    } else {
        Ending::Failed
    })
}
