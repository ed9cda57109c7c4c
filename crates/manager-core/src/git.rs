//! Reading git: object databases only, never a work tree.

mod change;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use git2::{BranchType, ErrorClass, ErrorCode, ObjectType, Oid, Repository};
use parking_lot::Mutex;
use picloud_gitops_core::{EntryKind, ReadError, TreeEntry, TreeReader};
use picloud_shared::{BlobId, CommitId};

pub(crate) use change::NewCommit;

/// Bytes of a commit's message that are kept.
const MAX_MESSAGE: usize = 4096;

/// Why a repository can't be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is none.
    #[error("{path} is not in a git repository; make one with `git init`, or name another path")]
    NotARepository {
        /// Where one was looked for.
        path: String,
    },
    /// Its objects are named in a way that this version can't read.
    #[error(
        "{path} is a SHA-256 repository, which this version cannot read; use one with SHA-1 (`git init --object-format=sha1`)"
    )]
    Sha256 {
        /// Where it is.
        path: String,
    },
    /// Something else.
    #[error("the repository cannot be read: {0}")]
    Git(#[from] git2::Error),
    /// It could not be brought up to date.
    #[error("{0}")]
    Remote(String),
    /// A path that can't be expressed.
    #[error("the path {0} is not UTF-8")]
    NotUtf8(String),
}

/// Where a local source is: a repository, and a folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPath {
    /// The repository's own folder: `.git`, or the bare repository.
    pub git_dir: PathBuf,
    /// What worktrees share; the same as `git_dir` for all others.
    pub common_dir: PathBuf,
    /// Below the repository's root; empty at the root.
    pub prefix: String,
}

impl LocalPath {
    /// Finds the repository that a path is in.
    pub fn find(path: &Path) -> Result<Self, GitError> {
        let shown = path.display().to_string();
        let full = path.canonicalize().map_err(|_| GitError::NotARepository {
            path: shown.clone(),
        })?;
        let repository = discover(&full, &shown)?;
        let root = repository
            .workdir()
            .and_then(|root| root.canonicalize().ok());
        let prefix = root
            .as_deref()
            .and_then(|root| full.strip_prefix(root).ok())
            .unwrap_or(Path::new(""));
        let prefix = if prefix.starts_with(".git") {
            Path::new("")
        } else {
            prefix
        };
        Ok(Self {
            prefix: prefix.to_str().ok_or(GitError::NotUtf8(shown))?.to_owned(),
            git_dir: repository.path().to_owned(),
            common_dir: repository.commondir().to_owned(),
        })
    }
}

fn discover(full: &Path, shown: &str) -> Result<Repository, GitError> {
    Repository::discover(full).map_err(|error| {
        let message = error.message().to_owned();
        if message.contains("object format") || message.contains("objectformat") {
            return GitError::Sha256 {
                path: shown.to_owned(),
            };
        }
        if error.code() == ErrorCode::NotFound {
            return GitError::NotARepository {
                path: shown.to_owned(),
            };
        }
        GitError::Git(error)
    })
}

/// A commit, as far as a deployment tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// Its tree's id.
    pub tree: BlobId,
    /// `Name <address>`.
    pub author: String,
    /// At most 4 KiB of it.
    pub message: String,
}

/// A commit's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Armored.
    pub signature: Vec<u8>,
    /// What it signs.
    pub payload: Vec<u8>,
}

/// An open repository.
pub struct GitRepository {
    // libgit2's handles are not for several threads at once; look-ups are short.
    repository: Mutex<Repository>,
}

impl GitRepository {
    /// Opens the repository of a source anew: so that packs that came, or a repository that was
    /// put in the place of another, are seen.
    pub fn open(path: &LocalPath) -> Result<Self, GitError> {
        Ok(Self {
            repository: Mutex::new(Repository::open(&path.git_dir)?),
        })
    }

    /// Sees the objects of another folder, too: those of a push that isn't accepted yet.
    pub fn add_objects(&self, folder: &Path) -> Result<(), GitError> {
        let path = folder
            .to_str()
            .ok_or_else(|| GitError::NotUtf8(folder.display().to_string()))?;
        self.repository.lock().odb()?.add_disk_alternate(path)?;
        Ok(())
    }

    /// The commit of a branch, of a reference by its full name (a tag), or of what is checked out.
    /// `None`: there is none yet.
    pub fn head(&self, branch: Option<&str>) -> Result<Option<CommitId>, GitError> {
        let repository = self.repository.lock();
        let found = match branch {
            Some(reference) if reference.starts_with("refs/") => {
                repository.find_reference(reference)
            }
            Some(branch) => repository.find_reference(&format!("refs/heads/{branch}")),
            None => repository.head(),
        };
        match found.and_then(|reference| reference.peel_to_commit()) {
            Ok(commit) => Ok(Some(commit_id(commit.id())?)),
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::UnbornBranch) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The branch that is checked out, also one without a commit.
    pub fn checked_out(&self) -> Result<Option<String>, GitError> {
        let repository = self.repository.lock();
        let head = repository.find_reference("HEAD")?;
        let target = head.symbolic_target().ok().flatten();
        let branch = target.and_then(|target| target.strip_prefix("refs/heads/"));
        Ok(branch.map(str::to_owned))
    }

    /// All branches with their newest commits, and when these were committed.
    pub fn branches(&self) -> Result<Vec<(String, CommitId, DateTime<Utc>)>, GitError> {
        let repository = self.repository.lock();
        let mut found = Vec::new();
        for branch in repository.branches(Some(BranchType::Local))? {
            let (branch, _) = branch?;
            // What isn't UTF-8, or points at nothing, can't be deployed either.
            let Ok(name) = branch.name().map(|name| name.map(str::to_owned)) else {
                continue;
            };
            if let (Some(name), Ok(commit)) = (name, branch.get().peel_to_commit()) {
                found.push((name, commit_id(commit.id())?, instant(&commit)));
            }
        }
        Ok(found)
    }

    /// When a commit was made.
    pub fn committed_at(&self, id: &CommitId) -> Result<DateTime<Utc>, GitError> {
        let repository = self.repository.lock();
        Ok(instant(
            &repository.find_commit(Oid::from_str(id.as_str())?)?,
        ))
    }

    /// The commit that a revision names, if there is one.
    pub fn resolve(&self, revision: &str) -> Result<Option<CommitId>, GitError> {
        let repository = self.repository.lock();
        match repository
            .revparse_single(revision)
            .and_then(|object| object.peel_to_commit())
        {
            Ok(commit) => Ok(Some(commit_id(commit.id())?)),
            Err(error)
                if matches!(
                    error.code(),
                    ErrorCode::NotFound
                        | ErrorCode::InvalidSpec
                        | ErrorCode::Ambiguous
                        | ErrorCode::Peel
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A commit's own data.
    pub fn commit(&self, id: &CommitId) -> Result<Commit, GitError> {
        let repository = self.repository.lock();
        let commit = repository.find_commit(Oid::from_str(id.as_str())?)?;
        let author = commit.author();
        let name = String::from_utf8_lossy(author.name_bytes()).into_owned();
        let address = String::from_utf8_lossy(author.email_bytes()).into_owned();
        let mut message = String::from_utf8_lossy(commit.message_bytes()).replace('\0', "\u{fffd}");
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Ok(Commit {
            id: id.clone(),
            tree: blob_id(commit.tree_id())?,
            author: format!("{name} <{address}>").replace('\0', "\u{fffd}"),
            message,
        })
    }

    /// A commit's signature and what it signs; `None`: there is none.
    pub fn signature(&self, id: &CommitId) -> Result<Option<Signed>, GitError> {
        let repository = self.repository.lock();
        match repository.extract_signature(&Oid::from_str(id.as_str())?, None) {
            Ok((signature, payload)) => Ok(Some(Signed {
                signature: signature.to_vec(),
                payload: payload.to_vec(),
            })),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A file of a tree as text; `None`: there is no such file, or it is no text.
    pub fn text_at(&self, tree: &BlobId, path: &str) -> Result<Option<String>, GitError> {
        let repository = self.repository.lock();
        let tree = repository.find_tree(Oid::from_str(tree.as_str())?)?;
        let Ok(entry) = tree.get_path(Path::new(path)) else {
            return Ok(None);
        };
        let blob = entry.to_object(&repository)?.peel_to_blob();
        Ok(blob
            .ok()
            .and_then(|blob| String::from_utf8(blob.content().to_vec()).ok()))
    }

    /// Whether `ancestor` is in the history of `commit`. A commit that isn't there is in none.
    pub fn is_ancestor(&self, ancestor: &CommitId, commit: &CommitId) -> Result<bool, GitError> {
        let repository = self.repository.lock();
        let (ancestor, commit) = (
            Oid::from_str(ancestor.as_str())?,
            Oid::from_str(commit.as_str())?,
        );
        match repository.graph_descendant_of(commit, ancestor) {
            Ok(descends) => Ok(descends || ancestor == commit),
            // A history that isn't all there (shallow, or another repository in the place of the
            // first) tells nothing of what it lacks; libgit2 says so by class, not by code.
            Err(error) if error.class() == ErrorClass::Odb => Ok(false),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn instant(commit: &git2::Commit<'_>) -> DateTime<Utc> {
    DateTime::from_timestamp(commit.time().seconds(), 0).unwrap_or_default()
}

fn commit_id(id: Oid) -> Result<CommitId, GitError> {
    id.to_string()
        .parse()
        .map_err(|_| GitError::NotUtf8(id.to_string()))
}

fn blob_id(id: Oid) -> Result<BlobId, GitError> {
    id.to_string()
        .parse()
        .map_err(|_| GitError::NotUtf8(id.to_string()))
}

/// The blob id of a content, as git gives it.
pub fn hash_blob(content: &[u8]) -> BlobId {
    let id = Oid::hash_object(ObjectType::Blob, content).map(|id| id.to_string());
    id.ok()
        .and_then(|id| id.parse().ok())
        .unwrap_or_else(|| unreachable!("hashing in memory gives an object id"))
}

impl TreeReader for GitRepository {
    fn tree(&self, id: &BlobId) -> Result<Vec<TreeEntry>, ReadError> {
        let repository = self.repository.lock();
        let tree = oid(id).and_then(|oid| {
            repository
                .find_tree(oid)
                .map_err(|error| failed(id, &error))
        })?;
        let mut entries = Vec::with_capacity(tree.len());
        for entry in &tree {
            let kind = match entry.filemode() {
                0o040_000 => EntryKind::Tree,
                0o120_000 => EntryKind::Symlink,
                0o160_000 => EntryKind::Submodule,
                _ => EntryKind::File,
            };
            entries.push(TreeEntry {
                name: entry.name_bytes().to_vec(),
                id: blob_id(entry.id()).map_err(|error| ReadError::Failed {
                    message: error.to_string(),
                })?,
                kind,
            });
        }
        Ok(entries)
    }

    fn blob(&self, id: &BlobId, max: u64) -> Result<Vec<u8>, ReadError> {
        let size = self.blob_size(id)?;
        if size > max {
            return Err(ReadError::TooLarge { size });
        }
        let repository = self.repository.lock();
        let blob = repository
            .find_blob(oid(id)?)
            .map_err(|error| failed(id, &error))?;
        Ok(blob.content().to_vec())
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, ReadError> {
        let repository = self.repository.lock();
        let database = repository.odb().map_err(|error| failed(id, &error))?;
        let (size, _) = database
            .read_header(oid(id)?)
            .map_err(|error| failed(id, &error))?;
        Ok(size as u64)
    }
}

fn oid(id: &BlobId) -> Result<Oid, ReadError> {
    Oid::from_str(id.as_str()).map_err(|error| failed(id, &error))
}

fn failed(id: &BlobId, error: &git2::Error) -> ReadError {
    if error.code() == ErrorCode::NotFound {
        return ReadError::Missing { id: id.clone() };
    }
    ReadError::Failed {
        message: format!("{id}: {}", error.message()),
    }
}
