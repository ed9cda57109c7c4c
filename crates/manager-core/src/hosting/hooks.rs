//! Git's hooks hand their questions over a Unix socket; what is answered is what the pusher reads.

use std::{os::unix::fs::PermissionsExt, path::Path};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use picloud_store::SourceKind;

use super::{HostingState, told, upkeep};

/// The hooks that git runs.
pub const PHASES: [&str; 2] = ["pre-receive", "post-receive"];
/// Bytes of a hook's question.
const MAX_QUESTION: usize = 1 << 20;

/// One reference that a push changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// All zeros: it is new.
    pub old: String,
    /// All zeros: it is deleted.
    pub new: String,
    /// `refs/heads/main`
    pub reference: String,
}

/// What a hook asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookRequest {
    /// `pre-receive` or `post-receive`.
    pub phase: String,
    /// Whose repository.
    pub source: String,
    /// How the client reached the server.
    pub base_url: String,
    /// The name of the key that was used.
    pub actor: String,
    /// Its id.
    pub key: String,
    /// What the push changes.
    pub updates: Vec<RefUpdate>,
    /// Where the pushed objects are until they are accepted.
    pub quarantine: Option<String>,
    /// `-o` of the push.
    pub options: Vec<String>,
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Answers hooks for ever. Writes the hooks themselves first.
pub async fn listen(state: HostingState, program: &Path) -> std::io::Result<()> {
    let hosted = state
        .sources
        .all()
        .into_iter()
        .filter(|deployer| deployer.source().kind == SourceKind::Hosted);
    let git_dirs = hosted
        .map(|deployer| state.sources.hosted_dir(&deployer.source().name))
        .collect::<Vec<_>>();
    tokio::task::spawn_blocking(move || upkeep::clean(&git_dirs)).await?;
    std::fs::create_dir_all(&state.hooks)?;
    for phase in PHASES {
        // The program knows by the name that it is called by; a shell in between costs time.
        let path = state.hooks.join(phase);
        remove(&path)?;
        std::os::unix::fs::symlink(program, &path)?;
    }
    // What an ended process left is nobody's.
    remove(&state.socket)?;
    let listener = UnixListener::bind(&state.socket)?;
    std::fs::set_permissions(&state.socket, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(state.clone(), stream));
                }
                Err(error) => {
                    tracing::error!(%error, "a hook cannot be answered");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    });
    Ok(())
}

/// Reads one question as a line of JSON; answers with text, and at last a line `exit N`.
async fn answer(state: HostingState, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(read, MAX_QUESTION as u64));
    let asked = reader.read_line(&mut line).await;
    let (text, code) = match asked
        .ok()
        .and_then(|_| serde_json::from_str::<HookRequest>(&line).ok())
    {
        Some(request) if request.phase == "pre-receive" => told::before(&state, &request).await,
        Some(request) => (told::after(&state, &request).await, 0),
        None => ("the hook's question cannot be read\n".to_owned(), 1),
    };
    let answer = format!("{text}\0exit {code}\n");
    if let Err(error) = write.write_all(answer.as_bytes()).await {
        tracing::debug!(%error, "a hook did not wait for its answer");
    }
}
