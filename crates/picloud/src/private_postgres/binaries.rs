//! Where the programs of PostgreSQL are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::PrivatePostgresError;

/// The programs that are needed.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
}

impl Binaries {
    /// Those of the cluster's version, or the newest for a cluster that is to be made.
    pub(super) fn find(cluster: &Path) -> Result<Self, PrivatePostgresError> {
        let version = fs::read_to_string(cluster.join("PG_VERSION"))
            .ok()
            .map(|text| text.trim().to_owned());
        let mut found: Vec<(u32, Self)> = folders()
            .into_iter()
            .map(|folder| Self {
                initdb: folder.join("initdb"),
                postgres: folder.join("postgres"),
            })
            .filter(|binaries| binaries.initdb.is_file() && binaries.postgres.is_file())
            .filter_map(|binaries| Some((major(&binaries.postgres)?, binaries)))
            .collect();
        found.sort_by_key(|(major, _)| *major);
        if found.is_empty() {
            return Err(PrivatePostgresError::NotInstalled);
        }
        let Some(version) = version else {
            return found
                .pop()
                .map(|(_, binaries)| binaries)
                .ok_or(PrivatePostgresError::NotInstalled);
        };
        let same = found
            .into_iter()
            .find(|(major, _)| major.to_string() == version);
        same.map(|(_, binaries)| binaries)
            .ok_or_else(|| PrivatePostgresError::OtherVersion {
                path: cluster.display().to_string(),
                version,
            })
    }
}

pub(super) fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for (parent, below) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr/local/opt", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr", "bin"),
    ] {
        let versions = fs::read_dir(parent).into_iter().flatten().flatten();
        let versions = versions.filter(|entry| {
            let name = entry.file_name();
            parent == "/usr/lib/postgresql"
                || name.to_string_lossy().starts_with("postgresql")
                || name.to_string_lossy().starts_with("pgsql-")
        });
        folders.extend(versions.map(|entry| entry.path().join(below)));
    }
    folders
}

/// `postgres (PostgreSQL) 15.18 (…)` is 15.
pub(super) fn major(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
