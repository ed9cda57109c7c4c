//! Signed commits: verified by the installed ssh-keygen and gpg against the keys that the server's
//! configuration lists for a source, and no others. What the user's own git trusts doesn't count.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use picloud_shared::{CommitId, Diagnostic, Severity};

use crate::git::{GitError, GitRepository, Signed};

/// Whose signatures count for a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// Lines of an allowed-signers file (ssh-keygen(1), ALLOWED SIGNERS).
    pub ssh: Vec<String>,
    /// Public keys of `OpenPGP`, armored.
    pub gpg: Vec<String>,
}

/// Why a signature doesn't count.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("the commit {0} is not signed")]
    Missing(CommitId),
    /// It is no signature by a key that is listed.
    #[error("the signature of the commit {commit} does not count: {why}")]
    Bad {
        /// Which commit.
        commit: CommitId,
        /// In the words of the program that looked.
        why: String,
    },
    /// Nobody could sign.
    #[error(
        "the server's configuration lists no key for the source, so that no commit can be verified"
    )]
    NoKeys,
    /// It can't be looked at.
    #[error("signatures cannot be verified: {0}")]
    Unusable(String),
    /// The repository can't be read.
    #[error(transparent)]
    Git(#[from] GitError),
}

impl SignatureError {
    /// As a finding of the commit.
    pub fn finding(&self) -> Diagnostic {
        let (code, hint) = match self {
            Self::NoKeys => (
                "E0703",
                "list keys in the server's configuration: [sources.NAME] allowed_signers or gpg_keys",
            ),
            _ => (
                "E0702",
                "sign it with a key that the server lists: git commit --amend -S, or git rebase --exec for several",
            ),
        };
        Diagnostic {
            path: "picloud.yaml".to_owned(),
            line: 1,
            column: 1,
            length: 1,
            severity: Severity::Error,
            code: code.to_owned(),
            message: self.to_string(),
            hint: Some(hint.to_owned()),
            excerpt: None,
            app: None,
        }
    }
}

/// Verifies a commit's own signature; gives who signed. Blocks.
pub fn verify(
    repository: &GitRepository,
    commit: &CommitId,
    signers: &Signers,
) -> Result<String, SignatureError> {
    let Some(Signed { signature, payload }) = repository.signature(commit)? else {
        return Err(SignatureError::Missing(commit.clone()));
    };
    let bad = |why: String| SignatureError::Bad {
        commit: commit.clone(),
        why,
    };
    if signers.ssh.is_empty() && signers.gpg.is_empty() {
        return Err(SignatureError::NoKeys);
    }
    let folder = tempfile::tempdir().map_err(unusable)?;
    std::fs::write(folder.path().join("signature"), &signature).map_err(unusable)?;
    let armor = String::from_utf8_lossy(&signature);
    if armor.starts_with("-----BEGIN SSH SIGNATURE-----") {
        ssh(folder.path(), &payload, signers)?.map_err(bad)
    } else if armor.starts_with("-----BEGIN PGP SIGNATURE-----") {
        gpg(folder.path(), &payload, signers)?.map_err(bad)
    } else {
        Err(bad(
            "it is neither an SSH nor an OpenPGP signature".to_owned()
        ))
    }
}

fn unusable(error: impl std::fmt::Display) -> SignatureError {
    SignatureError::Unusable(error.to_string())
}

/// Who signed, or why it doesn't count.
type Verdict = Result<String, String>;

fn ssh(folder: &Path, payload: &[u8], signers: &Signers) -> Result<Verdict, SignatureError> {
    if signers.ssh.is_empty() {
        return Ok(Err("no SSH key is listed for the source".to_owned()));
    }
    let allowed = folder.join("allowed");
    std::fs::write(&allowed, format!("{}\n", signers.ssh.join("\n"))).map_err(unusable)?;
    let keygen = |verb: &str| {
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-Y", verb, "-f"])
            .arg(&allowed)
            .arg("-s")
            .arg(folder.join("signature"));
        command
    };
    let found = run(keygen("find-principals"), &[])?;
    let principals = String::from_utf8_lossy(&found.stdout).into_owned();
    let Some(principal) = principals.lines().next().filter(|_| found.status.success()) else {
        return Ok(Err("its key is not listed for the source".to_owned()));
    };
    let mut command = keygen("verify");
    command.args(["-n", "git", "-I", principal]);
    let verified = run(command, payload)?;
    let told = String::from_utf8_lossy(&verified.stdout).trim().to_owned();
    if !verified.status.success() {
        let why = String::from_utf8_lossy(&verified.stderr);
        return Ok(Err(format!("{told} {why}").trim().to_owned()));
    }
    let key = told.rsplit_once(" with ").map_or("", |(_, key)| key);
    Ok(Ok(format!("{principal} ({key})")))
}

fn gpg(folder: &Path, payload: &[u8], signers: &Signers) -> Result<Verdict, SignatureError> {
    if signers.gpg.is_empty() {
        return Ok(Err("no OpenPGP key is listed for the source".to_owned()));
    }
    let gpg = || {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(folder).args([
            "--batch",
            "--no-autostart",
            "--quiet",
            "--status-fd",
            "1",
        ]);
        command
    };
    let mut import = gpg();
    import.arg("--import");
    let imported = run(import, signers.gpg.join("\n").as_bytes())?;
    if !imported.status.success() {
        let why = String::from_utf8_lossy(&imported.stderr);
        return Err(unusable(format!(
            "the listed keys cannot be read: {}",
            why.trim()
        )));
    }
    let mut command = gpg();
    command
        .args(["--trust-model", "always", "--verify"])
        .arg(folder.join("signature"))
        .arg("-");
    let verified = run(command, payload)?;
    let status = String::from_utf8_lossy(&verified.stdout).into_owned();
    // Doc/DETAILS of GnuPG: of these, one comes for each signature.
    let line = |word: &str| {
        let prefix = format!("[GNUPG:] {word} ");
        status
            .lines()
            .find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    };
    for (word, why) in [
        ("BADSIG", "it does not fit the commit"),
        ("EXPSIG", "it has expired"),
        ("EXPKEYSIG", "its key has expired"),
        ("REVKEYSIG", "its key was revoked"),
        ("NO_PUBKEY", "its key is not listed for the source"),
    ] {
        if line(word).is_some() {
            return Ok(Err(why.to_owned()));
        }
    }
    let good = line("GOODSIG").and_then(|line| Some(line.split_once(' ')?.1.to_owned()));
    let key = line("VALIDSIG").and_then(|line| line.split(' ').next().map(str::to_owned));
    match (good, key) {
        (Some(who), Some(key)) if verified.status.success() => Ok(Ok(format!("{who} ({key})"))),
        _ => Ok(Err("gpg does not accept it".to_owned())),
    }
}

fn run(mut command: Command, input: &[u8]) -> Result<Output, SignatureError> {
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| unusable(format!("{}: {error}", command.get_program().display())))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that doesn't read all has its reasons, and says them.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().map_err(unusable)
}
