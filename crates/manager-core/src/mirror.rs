//! Repositories elsewhere, fetched by the installed git: so that the user's credential helpers,
//! proxies and ssh configuration hold.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::git::{GitError, LocalPath};

/// A fetch that takes longer is given up and tried again.
const FETCH_TIME: Duration = Duration::from_mins(10);
/// How often a remote is fetched without being told, unless the source says otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_mins(3);

/// A bare repository of ours that follows one elsewhere.
pub struct Mirror {
    git_dir: PathBuf,
    url: String,
    interval: Duration,
}

impl Mirror {
    /// A mirror in that folder, which is made at the first fetch.
    pub fn new(git_dir: PathBuf, url: String, interval: Option<Duration>) -> Self {
        Self {
            git_dir,
            url,
            interval: interval.unwrap_or(DEFAULT_INTERVAL),
        }
    }

    /// How often it is fetched without being told.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Fetches all branches, as they are there now: also those that were rewritten.
    pub(crate) async fn fetch(&self, prefix: &str) -> Result<LocalPath, GitError> {
        make_bare(&self.git_dir)?;
        let mut command = git(&self.git_dir);
        command
            .args(["-c", "protocol.allow=never"])
            .args(["-c", "protocol.https.allow=always"])
            .args(["-c", "protocol.http.allow=always"])
            .args(["-c", "protocol.ssh.allow=always"])
            .args(["-c", "protocol.git.allow=always"])
            .args(["-c", "protocol.file.allow=always"])
            .args([
                "-c",
                "http.lowSpeedLimit=1000",
                "-c",
                "http.lowSpeedTime=30",
            ])
            .args(["-c", "gc.auto=0", "-c", "fetch.fsckObjects=true"])
            .args([
                "fetch",
                "--quiet",
                "--prune",
                "--no-tags",
                "--force",
                "--no-write-fetch-head",
            ])
            .arg("--")
            .arg(&self.url)
            .arg("+refs/heads/*:refs/heads/*")
            .env("GIT_SSH_COMMAND", ssh_command())
            .kill_on_drop(true);
        let output = tokio::time::timeout(FETCH_TIME, command.output()).await;
        let output = match output {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => {
                return Err(GitError::Remote(format!("git cannot be run: {error}")));
            }
            Err(_) => {
                return Err(GitError::Remote(format!(
                    "the fetch took longer than {} minutes",
                    FETCH_TIME.as_secs() / 60
                )));
            }
        };
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let text = without_password(&text, &self.url);
            let text: Vec<&str> = text
                .lines()
                .filter(|line| !line.is_empty())
                .take(3)
                .collect();
            return Err(GitError::Remote(text.join("; ")));
        }
        Ok(LocalPath {
            git_dir: self.git_dir.clone(),
            common_dir: self.git_dir.clone(),
            prefix: prefix.to_owned(),
        })
    }
}

/// The installed git on a repository of ours: it asks nobody anything, and trusts no configuration
/// but the user's.
pub(crate) fn git(git_dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("--git-dir")
        .arg(git_dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env("LC_ALL", "C")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null());
    command
}

fn ssh_command() -> String {
    std::env::var("GIT_SSH_COMMAND")
        .unwrap_or_else(|_| "ssh -o BatchMode=yes -o ConnectTimeout=15".to_owned())
}

/// Makes a bare repository where there is none.
pub(crate) fn make_bare(git_dir: &Path) -> Result<(), GitError> {
    if git_dir.join("HEAD").exists() {
        return Ok(());
    }
    let mut options = git2::RepositoryInitOptions::new();
    options
        .bare(true)
        .mkpath(true)
        .external_template(false)
        .initial_head("main");
    git2::Repository::init_opts(git_dir, &options)?;
    Ok(())
}

/// An address as it may be shown: without what stands before the `@`.
pub fn shown_url(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            match rest[..end].rfind('@') {
                Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
                None => url.to_owned(),
            }
        }
        None => url.to_owned(),
    }
}

fn without_password(text: &str, url: &str) -> String {
    let text = text.replace(url, &shown_url(url));
    let Some((_, rest)) = url.split_once("://") else {
        return text;
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => text.replace(&rest[..=at], ""),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(shown_url("https://u:p@x.org/a@b"), "https://x.org/a@b");
        assert_eq!(shown_url("git@x.org:a/b"), "git@x.org:a/b");
        assert_eq!(shown_url("/srv/a@b"), "/srv/a@b");
        let told = without_password(
            "fatal: 'https://u:p@x.org/a' u:p@x.org",
            "https://u:p@x.org/a",
        );
        assert!(!told.contains("u:p"), "{told}");
    }
}
