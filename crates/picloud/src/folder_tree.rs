//! A folder on disk, read as if it were a git tree: what `validate` and `plan` look at, so that a
//! person sees what is wrong before committing it. Files that git ignores are left out.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result, anyhow};
use git2::{ObjectType, Oid, Repository};
use picloud_gitops_core::{EntryKind, ReadError, TreeEntry, TreeReader};
use picloud_shared::BlobId;

/// A folder, from the root of its repository (or from itself, outside of any).
pub struct FolderTree {
    root: PathBuf,
    prefix: String,
    /// A git handle isn't `Sync`; look-ups are short.
    repository: Option<Mutex<Repository>>,
    known: Mutex<Known>,
}

/// Which path each id that was handed out stands for.
#[derive(Default)]
struct Known {
    trees: HashMap<BlobId, PathBuf>,
    blobs: HashMap<BlobId, PathBuf>,
}

impl FolderTree {
    /// Opens a folder. Inside a git work tree, places are told from the repository's root.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot read the folder {}", dir.display()))?;
        if !dir.is_dir() {
            return Err(anyhow!("{} is not a folder", dir.display()));
        }
        let repository = Repository::discover(&dir)
            .ok()
            .filter(|found| found.workdir().is_some());
        let root = repository
            .as_ref()
            .and_then(Repository::workdir)
            .and_then(|work| work.canonicalize().ok())
            .filter(|work| dir.starts_with(work))
            .unwrap_or_else(|| dir.clone());
        let prefix = dir.strip_prefix(&root).unwrap_or(Path::new(""));
        let prefix = prefix
            .to_str()
            .ok_or_else(|| anyhow!("the folder's path is not UTF-8: {}", prefix.display()))?
            .to_owned();
        Ok(Self {
            root,
            prefix,
            repository: repository.map(Mutex::new),
            known: Mutex::default(),
        })
    }

    /// The folder's path below the repository's root; empty at the root.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The repository's root, or the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The id of the root's tree.
    pub fn root_id(&self) -> BlobId {
        self.remember_tree(PathBuf::new())
    }

    /// Trees on disk have no id; one is made of the path, which is as unique.
    fn remember_tree(&self, path: PathBuf) -> BlobId {
        let id = hash(ObjectType::Tree, path.as_os_str().as_bytes());
        self.lock().trees.insert(id.clone(), path);
        id
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_ignored(&self, path: &Path) -> bool {
        let Some(repository) = &self.repository else {
            return false;
        };
        let repository = repository
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        repository.is_path_ignored(path).unwrap_or(false) && !is_tracked(&repository, path)
    }

    fn entry(
        &self,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<Option<(BlobId, EntryKind)>, ReadError> {
        let full = self.root.join(path);
        if metadata.is_symlink() {
            return Ok(Some((
                hash(ObjectType::Blob, path.as_os_str().as_bytes()),
                EntryKind::Symlink,
            )));
        }
        if metadata.is_dir() {
            let kind = if full.join(".git").exists() {
                EntryKind::Submodule
            } else {
                EntryKind::Tree
            };
            return Ok(Some((self.remember_tree(path.to_owned()), kind)));
        }
        if !metadata.is_file() {
            return Ok(None);
        }
        let oid = Oid::hash_file(ObjectType::Blob, &full).map_err(|error| failed(&full, &error))?;
        let id: BlobId = oid
            .to_string()
            .parse()
            .map_err(|error| failed(&full, &error))?;
        self.lock().blobs.insert(id.clone(), path.to_owned());
        Ok(Some((id, EntryKind::File)))
    }

    fn blob_path(&self, id: &BlobId) -> Result<PathBuf, ReadError> {
        let path = self.lock().blobs.get(id).cloned();
        path.map(|path| self.root.join(path))
            .ok_or_else(|| ReadError::Missing { id: id.clone() })
    }
}

/// Whether git knows a path, or one below it, all the same: what was added is not ignored.
fn is_tracked(repository: &Repository, path: &Path) -> bool {
    let Ok(index) = repository.index() else {
        return false;
    };
    let mut below = path.as_os_str().as_bytes().to_vec();
    below.push(b'/');
    index.get_path(path, 0).is_some() || index.find_prefix(below).is_ok()
}

impl TreeReader for FolderTree {
    fn tree(&self, id: &BlobId) -> Result<Vec<TreeEntry>, ReadError> {
        let path = self.lock().trees.get(id).cloned();
        let path = path.ok_or_else(|| ReadError::Missing { id: id.clone() })?;
        let full = self.root.join(&path);
        let mut entries = Vec::new();
        for item in fs::read_dir(&full).map_err(|error| failed(&full, &error))? {
            let item = item.map_err(|error| failed(&full, &error))?;
            let below = path.join(item.file_name());
            if item.file_name() == ".git" || self.is_ignored(&below) {
                continue;
            }
            let metadata = item.metadata().map_err(|error| failed(&full, &error))?;
            if let Some((id, kind)) = self.entry(&below, &metadata)? {
                let name = item.file_name().as_bytes().to_vec();
                entries.push(TreeEntry { name, id, kind });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn blob(&self, id: &BlobId, max: u64) -> Result<Vec<u8>, ReadError> {
        let path = self.blob_path(id)?;
        let file = fs::File::open(&path).map_err(|error| failed(&path, &error))?;
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&path, &error))?;
        if bytes.len() as u64 > max {
            let size = self.blob_size(id)?;
            return Err(ReadError::TooLarge { size });
        }
        Ok(bytes)
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, ReadError> {
        let path = self.blob_path(id)?;
        let metadata = fs::metadata(&path).map_err(|error| failed(&path, &error))?;
        Ok(metadata.len())
    }
}

fn hash(kind: ObjectType, bytes: &[u8]) -> BlobId {
    let oid = Oid::hash_object(kind, bytes).map(|oid| oid.to_string());
    oid.ok()
        .and_then(|text| text.parse().ok())
        .expect("hashing bytes in memory gives an object id")
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Failed {
        message: format!("{}: {error}", path.display()),
    }
}
