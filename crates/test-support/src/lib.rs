//! What tests share: a repository made by the installed git, and a folder that other users can
//! reach, as a private PostgreSQL of a root's test needs.

pub mod fake_forge;
pub mod published;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A git repository in a folder of its own, written by the real git.
#[derive(Debug)]
pub struct TestRepository {
    folder: TempDir,
}

impl TestRepository {
    /// An empty repository with the branch `main`.
    ///
    /// # Panics
    /// Where git is missing: then no test can run.
    pub fn new() -> Self {
        let folder = reachable_folder();
        let repository = Self { folder };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, and the folders above it.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// Removes a file or folder.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove(&self, path: &str) {
        self.git(&["rm", "-rq", path]);
    }

    /// Commits all that is there; gives the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in the repository; gives what it printed.
    ///
    /// # Panics
    /// Where git fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Test",
                "-c",
                "user.email=test@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Default for TestRepository {
    fn default() -> Self {
        Self::new()
    }
}

/// A folder that is removed at the end, and that every user can pass through.
///
/// # Panics
/// Where the disk refuses.
pub fn reachable_folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let base = PathBuf::from("/tmp");
    let folder = if base.is_dir() {
        TempDir::new_in(base)
    } else {
        TempDir::new()
    };
    let folder = folder.expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    folder
}
