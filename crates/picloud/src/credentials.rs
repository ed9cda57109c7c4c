//! The keys that `login` got: a file in the user's configuration, which nobody else may read.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// What is kept, by server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The server that `login` was last used with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    servers: BTreeMap<String, Kept>,
}

/// A key, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// `pic_…`
    pub key: String,
    /// By which it is revoked.
    pub id: String,
    /// When it ends, as RFC 3339.
    pub expires_at: String,
}

impl Credentials {
    /// What is kept; nothing where there is no file.
    pub fn read() -> Result<Self> {
        match path() {
            Some(path) => Self::read_from(&path),
            None => Ok(Self::default()),
        }
    }

    fn read_from(path: &Path) -> Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let mode = fs::metadata(path).map(|found| found.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            bail!(
                "{0} can be read by others: `chmod 600 {0}`, and think of its keys as known",
                path.display()
            );
        }
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes it, whole or not at all, for the user alone; gives where.
    pub fn write(&self) -> Result<PathBuf> {
        let path = path().context("neither XDG_CONFIG_HOME nor HOME says where to keep the key")?;
        self.write_to(&path)?;
        Ok(path)
    }

    fn write_to(&self, path: &Path) -> Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| {
                file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
                file.write_all(b"\n")?;
                file.sync_all()?;
                fs::rename(&fresh, path)
            });
        if written.is_err() {
            // What is half written is of no use; that it can't be removed changes nothing.
            let _ = fs::remove_file(&fresh);
        }
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// The key for a server.
    pub fn key_for(&self, server: &str) -> Option<&str> {
        let kept = self.servers.get(&canonical(server))?;
        Some(&kept.key)
    }

    /// The server that was last logged in to, and its key.
    pub fn current(&self) -> Option<(&str, &str)> {
        let current = self.current.as_deref()?;
        let kept = self.servers.get(current)?;
        Some((current, &kept.key))
    }

    /// Keeps a key, in place of an older one for the same server.
    pub fn keep(&mut self, server: &str, kept: Kept) {
        let server = canonical(server);
        self.current = Some(server.clone());
        self.servers.insert(server, kept);
    }

    /// Takes a key out; which server's and what it was.
    pub fn forget(&mut self, server: Option<&str>) -> Option<(String, Kept)> {
        let server = server.map(canonical).or_else(|| self.current.clone())?;
        let kept = self.servers.remove(&server)?;
        if self.current.as_ref() == Some(&server) {
            self.current = self.servers.keys().next().cloned();
        }
        Some((server, kept))
    }
}

fn canonical(server: &str) -> String {
    server.trim().trim_end_matches('/').to_ascii_lowercase()
}

fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(base.join("picloud").join("credentials.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(key: &str) -> Kept {
        Kept {
            key: key.to_owned(),
            id: "1".to_owned(),
            expires_at: "2030-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn keys_are_kept_by_server_for_the_user_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a/b/credentials.json");
        let none = Credentials::read_from(&path).expect("none");
        assert_eq!(none, Credentials::default());
        let mut all = Credentials::default();
        all.keep("https://One.example/", kept("pic_1"));
        all.keep("https://two.example", kept("pic_2"));
        all.write_to(&path).expect("written");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut read = Credentials::read_from(&path).expect("read");
        assert_eq!(read, all);
        assert_eq!(read.key_for("https://one.example"), Some("pic_1"));
        assert_eq!(read.current(), Some(("https://two.example", "pic_2")));
        let gone = read.forget(None).map(|(server, _)| server);
        assert_eq!(gone.as_deref(), Some("https://two.example"));
        assert_eq!(read.current(), Some(("https://one.example", "pic_1")));
        assert!(read.forget(Some("https://two.example")).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let refused = Credentials::read_from(&path).expect_err("others may read it");
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
}
