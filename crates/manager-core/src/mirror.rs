//! Repositories elsewhere, fetched by the installed git: so that the user's credential helpers,
//! proxies and ssh configuration hold.

mod address;
mod fetch;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use picloud_store::Forge;
use tokio::{process::Command, sync::Mutex};

use crate::{
    git::{GitError, LocalPath},
    hosting::upkeep,
};
use address::Address;
use fetch::Patience;

/// Large repositories take their time; silent ones are given up.
const PATIENCE: Patience = Patience {
    stalled: Duration::from_mins(1),
    total: Duration::from_hours(1),
};
/// How often a remote is fetched without being told, unless the source says otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_mins(3);
/// Faults of old commits that every forge accepts; all others are refused.
const FORGIVEN: [&str; 7] = [
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "nullSha1",
    "zeroPaddedFilemode",
];

/// A bare repository of ours that follows one elsewhere.
pub struct Mirror {
    git_dir: PathBuf,
    address: Address,
    /// What the source itself says.
    interval: Option<Duration>,
    /// What its picloud.yaml says, in milliseconds; 0: nothing.
    declared: AtomicU64,
    /// A reference that is no branch, and is fetched beside them.
    reference: Option<String>,
    /// One fetch at a time: they write the same references.
    fetching: Mutex<()>,
}

impl Mirror {
    /// A mirror in that folder, which is made at the first fetch.
    pub fn new(
        git_dir: PathBuf,
        url: &str,
        forge: Option<&Forge>,
        interval: Option<Duration>,
    ) -> Self {
        Self {
            git_dir,
            address: Address::new(url, forge),
            interval,
            declared: AtomicU64::new(0),
            reference: None,
            fetching: Mutex::new(()),
        }
    }

    /// As this mirror, which fetches a reference beside the branches, where that is none: a tag.
    #[must_use]
    pub fn with_reference(mut self, branch: Option<&str>) -> Self {
        let reference = branch.filter(|branch| branch.starts_with("refs/"));
        self.reference = reference.map(str::to_owned);
        self
    }

    /// How often it is fetched without being told: what the source says holds, then picloud.yaml.
    pub fn interval(&self) -> Duration {
        let declared = self.declared.load(Ordering::Relaxed);
        let declared = (declared > 0).then(|| Duration::from_millis(declared));
        self.interval.or(declared).unwrap_or(DEFAULT_INTERVAL)
    }

    /// Takes the interval of a picloud.yaml that is live.
    pub(crate) fn declare_interval(&self, ms: u64) {
        self.declared.store(ms, Ordering::Relaxed);
    }

    /// Where it is, as it is now.
    pub(crate) fn at_rest(&self, prefix: &str) -> Result<LocalPath, GitError> {
        make_bare(&self.git_dir)?;
        Ok(LocalPath {
            git_dir: self.git_dir.clone(),
            common_dir: self.git_dir.clone(),
            prefix: prefix.to_owned(),
        })
    }

    /// Fetches all branches, as they are there now: also those that were rewritten.
    pub(crate) async fn fetch(&self, prefix: &str) -> Result<LocalPath, GitError> {
        let path = self.at_rest(prefix)?;
        let _one = self.fetching.lock().await;
        let mut command = self.command();
        command
            .arg("--prune")
            .arg("--")
            .arg(&self.address.url)
            .arg("+refs/heads/*:refs/heads/*");
        if let Some(reference) = &self.reference {
            command.arg(format!("+{reference}:{reference}"));
        }
        fetch::run(command, PATIENCE, |text| self.address.hide(text)).await?;
        // `gc.auto` is off in fetches, so that none waits for it.
        upkeep::tidy(self.git_dir.clone());
        Ok(path)
    }

    /// Fetches one reference under a name of ours. `from`: another repository, which gets no
    /// credentials.
    pub(crate) async fn fetch_reference(
        &self,
        from: Option<&str>,
        reference: &str,
        own: &str,
    ) -> Result<(), GitError> {
        make_bare(&self.git_dir)?;
        let other = from.map(|url| Address::new(url, None));
        let address = other.as_ref().unwrap_or(&self.address);
        let _one = self.fetching.lock().await;
        let mut command = match from {
            None => self.command(),
            Some(_) => fetch_command(&self.git_dir, address),
        };
        command
            .arg("--")
            .arg(&address.url)
            .arg(format!("+{reference}:{own}"));
        fetch::run(command, PATIENCE, |text| address.hide(text)).await
    }

    fn command(&self) -> Command {
        fetch_command(&self.git_dir, &self.address)
    }
}

/// `git fetch`, but for where from and what.
fn fetch_command(git_dir: &Path, address: &Address) -> Command {
    let mut command = git(git_dir);
    let mut set = |setting: &str| {
        command.arg("-c").arg(setting);
    };
    set("protocol.allow=never");
    for protocol in ["https", "http", "ssh", "git", "file"] {
        set(&format!("protocol.{protocol}.allow=always"));
    }
    set("http.lowSpeedLimit=1000");
    set("http.lowSpeedTime=30");
    set("gc.auto=0");
    set("fetch.fsckObjects=true");
    for fault in FORGIVEN {
        set(&format!("fetch.fsck.{fault}=ignore"));
    }
    command
        .args(["fetch", "--progress", "--no-tags", "--force"])
        .args(["--no-write-fetch-head", "--no-recurse-submodules"])
        .env("GIT_SSH_COMMAND", ssh_command());
    if let Some((origin, header)) = &address.header {
        command
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", format!("http.{origin}/.extraHeader"))
            .env("GIT_CONFIG_VALUE_0", header);
    }
    command
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
        .unwrap_or_else(|_| {
        "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3".to_owned()
    })
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

/// As [`make_bare`], for a repository that is cloned: what is checked out then is the branch that
/// is deployed.
pub(crate) fn make_hosted(git_dir: &Path, branch: &str) -> Result<(), GitError> {
    make_bare(git_dir)?;
    let head = format!("ref: refs/heads/{branch}\n");
    if std::fs::read_to_string(git_dir.join("HEAD")).is_ok_and(|found| found == head) {
        return Ok(());
    }
    let repository = git2::Repository::open_bare(git_dir)?;
    repository.set_head(&format!("refs/heads/{branch}"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(shown_url("https://u:p@x.org/a@b"), "https://x.org/a@b");
        assert_eq!(shown_url("git@x.org:a/b"), "git@x.org:a/b");
        assert_eq!(shown_url("/srv/a@b"), "/srv/a@b");
    }
}
