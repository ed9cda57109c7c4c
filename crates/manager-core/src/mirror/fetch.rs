//! One fetch by the installed git: watched while it runs, and ended with all that it started.

use std::{process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

use crate::git::GitError;

/// Bytes of what git says that are kept: its last words tell what went wrong.
const MAX_TOLD: usize = 32 << 10;
/// Lines of them that are shown.
const SHOWN: usize = 3;

/// How patient a fetch is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Without any progress it is given up.
    pub(super) stalled: Duration,
    /// Whatever it does it is given up.
    pub(super) total: Duration,
}

/// Ends git and its helpers, which are all of one group, however this ends.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It ended by itself, in most cases.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a fetch to its end. `show` takes out what nobody may see.
pub(super) async fn run(
    mut command: Command,
    patience: Patience,
    show: impl Fn(&str) -> String,
) -> Result<(), GitError> {
    command
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let failed = |error: std::io::Error| GitError::Remote(format!("git cannot be run: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let _group = Group(group.map(Pid::from_raw));
    let mut told = Vec::new();
    let ended = tokio::time::timeout(
        patience.total,
        watch(&mut child, &mut told, patience.stalled),
    );
    match ended.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(GitError::Remote(reason(&show(&String::from_utf8_lossy(
            &told,
        ))))),
        Ok(Err(None)) => Err(GitError::Remote(format!(
            "the remote has sent nothing for {} seconds",
            patience.stalled.as_secs()
        ))),
        Ok(Err(Some(error))) => Err(failed(error)),
        Err(_) => Err(GitError::Remote(format!(
            "the fetch took longer than {} minutes",
            patience.total.as_secs() / 60
        ))),
    }
}

/// Reads what git says until it ends. `Err(None)`: it says nothing for too long.
async fn watch(
    child: &mut Child,
    told: &mut Vec<u8>,
    stalled: Duration,
) -> Result<bool, Option<std::io::Error>> {
    if let Some(mut stderr) = child.stderr.take() {
        let mut buffer = [0; 4096];
        loop {
            let read = tokio::time::timeout(stalled, stderr.read(&mut buffer)).await;
            let read = read.map_err(|_| None)?.map_err(Some)?;
            if read == 0 {
                break;
            }
            told.extend_from_slice(&buffer[..read]);
            let excess = told.len().saturating_sub(MAX_TOLD);
            told.drain(..excess);
        }
    }
    let status = tokio::time::timeout(stalled, child.wait()).await;
    Ok(status.map_err(|_| None)?.map_err(Some)?.success())
}

/// What went wrong, without the progress before it.
fn reason(told: &str) -> String {
    const TELLING: [&str; 4] = ["fatal:", "error:", "ssh:", "ERROR:"];
    let lines = || {
        told.split(['\n', '\r'])
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let mut telling: Vec<&str> = lines()
        .filter(|line| {
            let line = line.strip_prefix("remote: ").unwrap_or(line);
            TELLING.iter().any(|word| line.starts_with(word))
        })
        .take(SHOWN)
        .collect();
    if telling.is_empty() {
        telling = lines().collect();
        let excess = telling.len().saturating_sub(SHOWN);
        telling.drain(..excess);
    }
    if telling.is_empty() {
        return "git failed and said nothing".to_owned();
    }
    telling.join("; ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    const QUICK: Patience = Patience {
        stalled: Duration::from_millis(300),
        total: Duration::from_secs(20),
    };

    async fn error(script: &str, patience: Patience) -> String {
        let ended = run(shell(script), patience, |text| text.replace("secret", "…")).await;
        ended.expect_err("a failure").to_string()
    }

    #[tokio::test]
    async fn a_stalled_fetch_is_ended_with_its_helpers() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("helper");
        let script = format!("sleep 60 & echo $! > {}; wait", file.display());
        let began = Instant::now();
        let told = error(&script, QUICK).await;
        assert!(told.contains("sent nothing"), "{told}");
        assert!(began.elapsed() < Duration::from_secs(15));
        let pid = std::fs::read_to_string(file).expect("its id");
        let helper = format!("/proc/{}/stat", pid.trim());
        for _ in 0..200 {
            let state = std::fs::read_to_string(&helper).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the helper goes on");
    }

    #[tokio::test]
    async fn one_that_makes_progress_goes_on_until_it_takes_too_long() {
        let slow = "for i in 1 2 3 4 5 6 7 8; do echo $i >&2; sleep 0.1; done";
        let patient = Patience {
            stalled: Duration::from_secs(20),
            ..QUICK
        };
        run(shell(slow), patient, str::to_owned)
            .await
            .expect("its end");
        let short = Patience {
            total: Duration::from_millis(100),
            ..patient
        };
        assert!(
            error("while :; do echo . >&2; sleep 0.02; done", short)
                .await
                .contains("took longer")
        );
    }

    #[tokio::test]
    async fn the_reason_is_told_without_progress_and_secrets() {
        let script = "printf 'Receiving objects:  10%%\\rReceiving objects: 20%%\\r' >&2; echo 'fatal: no secret' >&2; exit 128";
        assert_eq!(error(script, QUICK).await, "fatal: no …");
        assert_eq!(error("echo strange >&2; exit 1", QUICK).await, "strange");
        assert_eq!(error("exit 1", QUICK).await, "git failed and said nothing");
    }
}
